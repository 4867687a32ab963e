# SPDX-License-Identifier: Apache-2.0
"""malloc, free and malloc_trim for whole loops of calls: against mallinfo of a recorded process, and against this machine's glibc."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from fleetsim.allocators.tables import NR_HEAPS, PLACE_HEAP
from tests.host.worlds import World, world

STEP_S = 6  # seconds for each op
HEAP_BEFORE = 3328  # bytes of the heap's segment that are not malloc's: arena counts from there


def run(ops: list[str], **drawn: object) -> tuple[World, list[tuple[int, int]]]:
    """(address space, resident anonymous pages) that the ops have added, after each of them."""
    timed = [f"until {2 + STEP_S * i} | {op}{' 0' if op.startswith('malloc') else ''}" for i, op in enumerate(ops)]
    w = world(1024, tasks={"p": " | ".join(timed) + " | sleep 10000"}, **drawn).at(1)
    start = int(w.task("p")["total_vm"]), int(w.task("p")["rss_anon"])
    seen = []
    for i in range(len(ops)):
        task = w.at(2 + STEP_S * (i + 1) - 0.1).task("p")
        seen.append((int(task["total_vm"]) - start[0], int(task["rss_anon"]) - start[1]))
    return w, seen


def mallinfo(w: World) -> dict[str, int]:
    heap = w.row["heaps"][0]
    live = sum(int(p["live"]) for p in w.row["places"] if p["used"] and p["heap"] == 0 and p["kind"] == PLACE_HEAP)
    end = int(heap["brk"]) * 4096
    return {"arena": end - HEAP_BEFORE, "hblkhd": int(heap["mapped_bytes"]), "keepcost": end - int(heap["top"]), "live": live}


# mallinfo2() of e20_malloc's processes after each op that changed it: arena, hblkhd, keepcost, uordblks − 2496 of the start
RECORDED = {
    "large": [
        ("malloc 300 300000-300000", 135_936, 90_931_200, 133_440, 0),
        ("mfree keep_every:2", 135_936, 45_465_600, 133_440, 0),
        ("malloc 300 300000-300000", 90_141_440, 45_465_600, 134_144, 90_004_800),
        ("mfree first:0.9", 90_141_440, 0, 134_144, 18_000_960),
        ("mtrim", 90_010_368, 0, 3_072, 18_000_960),
    ],
    "medium": [
        ("malloc 15000 6000-10000", 120_619_776, 0, 11_856, 120_605_424),
        ("mfree keep_every:10", 120_619_776, 0, 92_816, 12_064_272),
        ("mtrim", 120_529_664, 0, 2_704, 12_064_272),
        ("mfree last:0.5", 60_326_656, 0, 135_120, 6_031_456),
        ("mtrim", 60_195_584, 0, 4_048, 6_031_456),
        ("mfree all", 135_936, 0, 133_440, 0),
        ("mtrim", 4_864, 0, 2_368, 0),
    ],
}


@pytest.mark.parametrize("process", sorted(RECORDED))
def test_a_heap_is_what_mallinfo_of_a_recorded_process_said(process: str) -> None:
    for n in range(1, len(RECORDED[process]) + 1):
        ops, expected = [op for op, *_ in RECORDED[process][:n]], RECORDED[process][n - 1]
        w, _ = run(ops)
        info = mallinfo(w)
        fixed = process == "large"  # random sizes: expected values, and the heap grows in steps of 33 pages
        assert info["arena"] == pytest.approx(expected[1], rel=0.0 if fixed else 0.005, abs=4096)
        assert info["hblkhd"] == expected[2]
        assert info["keepcost"] == pytest.approx(expected[3], abs=0 if fixed else 132 << 10)
        assert info["live"] == pytest.approx(expected[4], rel=0.005, abs=16)


def test_the_first_free_of_a_mapped_chunk_raises_the_threshold_for_the_next() -> None:
    w, _ = run(["malloc 1 204800", "mfree all"])
    heap = w.row["heaps"][0]
    assert (int(heap["mmap_threshold"]), int(heap["trim_threshold"])) == (208_896, 417_792), "T-15.1"
    w, _ = run(["malloc 1 204800", "mfree all", "malloc 1 204800"])
    assert int(w.row["heaps"][0]["mapped_bytes"]) == 0, "from the heap now"


def test_a_live_block_near_the_top_keeps_the_heap_from_shrinking() -> None:
    _, (grown, freed, *_) = run(["malloc 1000 20000", "mfree all"])
    assert (grown[0] - freed[0]) * 4 == pytest.approx(19_352, rel=0.01), "kernel-laws 15.1: the break fell by 19,352 KiB"
    _, pinned = run(["malloc 1000 20000", "malloc 1 5000", "mfree first:0.999"])
    assert pinned[2] == pinned[1], "one live block allocated last, and nothing comes back"


CASES = [
    ["malloc 300000 64-160", "mfree keep_every:4", "mtrim", "mfree keep_every:100", "mtrim", "mfree all", "mtrim"],
    ["malloc 100000 64-160", "mfree keep_every:4", "malloc 100000 64-160"],
    ["malloc 20000 2000-6000", "mfree keep_every:2", "mtrim", "malloc 10000 2000-6000", "mfree first:0.5", "mtrim", "mfree all", "mtrim"],
    ["malloc 20000 2000-6000", "mfree keep_every:5", "mtrim", "malloc 10000 1000-3000", "mfree first:0.5", "mtrim"],
    ["malloc 20000 2000-6000", "mfree keep_every:5", "malloc 10000 1000", "malloc 3000 9000-12000", "malloc 500 20000-100000"],
    [
        "malloc 300 300000",
        "mfree keep_every:2",
        "malloc 300 300000",
        "mfree first:0.9",
        "malloc 3000 20000-50000",
        "mtrim",
        "malloc 300 300000",
    ],
    ["malloc 100000 100-2000", "mfree last:0.5", "malloc 30000 500", "mfree all", "mtrim"],
    ["malloc 200000 100", "mfree keep_every:3", "malloc 50000 100-400", "mfree all", "malloc 500 5000", "mtrim"],
    ["malloc 20000 3000", "mfree keep_every:3", "mtrim", "malloc 20000 2000-6000"],
    ["malloc 20000 3000", "mfree first:0.5", "mtrim", "malloc 20000 2000-6000", "mfree last:0.3", "mtrim"],
    ["malloc 1000 100000-200000", "mfree keep_every:3", "malloc 500 100000-200000"],
    ["malloc 100 4000000", "mfree first:0.5", "malloc 100 1000000", "mfree all"],
]


@pytest.fixture(scope="module")
def real_malloc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or platform.libc_ver()[0] != "glibc" or tuple(map(int, platform.libc_ver()[1].split(".")[:2])) < (2, 26):
        pytest.skip("needs a C compiler and a glibc with tcaches (2.26)")
    program = tmp_path_factory.mktemp("malloc") / "malloc_ops"
    subprocess.run([compiler, "-O1", "-o", program, Path(__file__).with_name("malloc_ops.c")], check=True)
    return program


@pytest.mark.parametrize("ops", CASES, ids=" | ".join)
def test_memory_after_each_op_is_what_the_glibc_of_this_machine_keeps(real_malloc: Path, ops: list[str]) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    told = subprocess.run([real_malloc, *ops], check=True, capture_output=True, text=True, env=environment).stdout.splitlines()
    (size, resident), *after = [tuple(map(int, line.split())) for line in told]
    _, simulated = run(ops)
    peak = max(anon for _, anon in after) - resident
    for op, real, ours in zip(ops, after, simulated, strict=True):
        table = 64_000_000 // 4096  # the table of pointers is mapped before the first look there, by the first op here
        assert ours[1] == pytest.approx(real[1] - resident, abs=0.05 * peak), f"resident after {op}"
        assert ours[0] - table == pytest.approx(real[0] - size, abs=0.05 * peak), f"address space after {op}"


def test_a_heap_in_swap_comes_back_where_it_is_used() -> None:
    ops = "malloc 20000 4000 0 | sleep 3 | mfree keep_every:2 | sleep 3 | malloc 10000 4000 0 | sleep 100"
    w = world(128, swap_mib=200, tasks={"p": ops, "hog": "sleep 1 | mmap_anon A 60 | touch A 60 0 | sleep 100"}).at(2.5)
    out = int(w.task("p")["swapents"])
    assert out > 2000
    w.at(20)
    assert w.vm("pswpin") > out // 2 and int(w.task("p")["majflt"]) > 0, "free() writes into each block's neighbour"
    assert int(w.task("p")["rss_anon"]) + int(w.task("p")["swapents"]) < 20_500, "and the second loop took the room of the freed blocks"


def test_a_heap_beyond_its_cgroups_limit_is_killed_and_a_restarted_one_begins_anew() -> None:
    w = world(256, cgroups={"box": {"memory.max": 20}}, tasks={"box/p": "malloc 100000 1000 0 | sleep 5"}, restart_s={"p": 1.0}).at(6)
    assert set(w.kills()) == {"p"} and len(w.kills()) > 1
    assert sum(int(w.row["heaps"][h]["used"]) for h in range(NR_HEAPS)) == 1
    assert w.cg("box")["usage"] <= 20 * 256


def test_malloc_fails_where_overcommit_is_refused_and_the_program_goes_on() -> None:
    w = world(
        256,
        sysctl={"overcommit_memory": 2, "overcommit_ratio": 80},
        tasks={"p": "malloc 200000 1000 0 | mfree all | mmap_anon A 4 | touch A 4 0 | sleep 99"},
    )
    w.at(5)
    assert w.kills() == [] and w.events("enomem") != []
    assert int(w.task("p")["rss_anon"]) >= 4 * 256


def test_tables_that_are_full_make_a_heap_coarser_never_wrong() -> None:
    ops = []
    for n in range(30):
        ops += [f"malloc 300 {1000 + 37 * n}-{9000 + 90 * n} 0", f"mfree keep_every:{2 + n % 5}", "mtrim", "mfree first:0.3"]
    w = world(512, tasks={"p": " | ".join([*ops, "sleep 1000"])})
    for second in range(1, 12):
        w.at(second)
    w = world(512, tasks={"p": " | ".join([*ops, "mfree all", "mtrim", "sleep 1000"])}).at(30)
    assert sum(int(p["live"]) for p in w.row["places"] if p["used"]) == 0, "what is freed is free, however coarse the account"


def test_more_programs_than_heaps_are_told_so() -> None:
    w = world(512, tasks={f"p{n}": "malloc 100 1000 0 | sleep 100" for n in range(NR_HEAPS + 2)}).at(3)
    assert len(w.events("table_full")) == 2
