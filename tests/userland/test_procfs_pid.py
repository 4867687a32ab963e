# SPDX-License-Identifier: Apache-2.0
"""PSS and USS of processes that share memory, and the texts they are read from (kernel-laws §14, §5.7)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleetsim.linux import mm_types as mm
from fleetsim.linux.task_mmu import smaps_rollup
from fleetsim.userland.procfs_pid import pid_tree
from tests.host.worlds import PAGES, World, world


def alive(w: World) -> list[int]:
    return [t for t in range(mm.NR_TASKS) if int(w.row["tasks"][t]["state"]) == mm.TASK_RUNNING]


def test_ten_workers_that_share_a_gibibyte() -> None:
    """T-14.1: 10 processes share 1 GiB and have 50 MiB of their own each: RSS 1074, PSS 152.4, USS 50, together 1.49 GiB.

    Scaled to a sixteenth. A child of the driver's op language writes nothing, so the private part is another process's shape:
    each worker maps one file of 64 MiB and touches 3.125 MiB of its own.
    """
    ops = "mmap_file M /lib | read M 64 0 seq | mmap_anon A 3.125 | touch A 3.125 0 | sleep 99"
    w = world(memory_mib=512, files={"/lib": 64}, tasks={f"w{n}": ops for n in range(10)}).at(3)
    for t in alive(w):
        stats, task = smaps_rollup(w.row, t), w.row["tasks"][t]
        image = int(task["base_anon"] + task["base_file"])
        assert sum(stats.rss.values()) - image == 67.125 * PAGES
        assert (sum(stats.pss.values()) - image) / PAGES == pytest.approx(152.4 / 16, rel=1e-3)
        assert stats.uss - image == 3.125 * PAGES
    mapped = sum(sum(smaps_rollup(w.row, t).pss.values()) for t in alive(w))
    assert mapped == pytest.approx(64 * PAGES + 10 * (3.125 * PAGES + image), rel=1e-3), "the sum of PSS is what is there"


def test_forked_workers_share_what_nobody_wrote() -> None:
    w = world(
        tasks={"p": "mmap_anon A 64 | touch A 64 0 | " + " | ".join(["fork_hold 9"] * 9) + " | mmap_anon B 10 | touch B 10 0 | sleep 99"}
    )
    w.at(2)
    assert len(alive(w)) == 10
    for t in alive(w):
        stats = smaps_rollup(w.row, t)
        own = 10 if t == 0 else 0
        assert stats.rss["anon"] == int(w.row["tasks"][t]["rss_anon"])
        assert stats.pss["anon"] / PAGES == pytest.approx(6.4 + own, abs=0.1)
        assert stats.private["anon"] == own * PAGES


@pytest.mark.parametrize("pattern", ["seq", "random"])
def test_what_the_parent_has_copied_is_private_to_both(pattern: str) -> None:
    w = world(tasks={"p": f"mmap_anon A 40 | touch A 40 0 | fork_hold 9 | rewrite A 20 0 {pattern} | sleep 99"}).at(2)
    parent, child = (smaps_rollup(w.row, t) for t in (0, 1))
    copied = int(w.task("p")["minflt"]) - 40 * PAGES
    assert parent.private["anon"] == child.private["anon"] == copied
    total = parent.pss["anon"] + child.pss["anon"]
    assert total == pytest.approx(40 * PAGES + copied, abs=60)


def test_swapped_shared_memory_is_in_nobodys_swap_line() -> None:
    hog = "sleep 1 | mmap_anon A 160 | touch A 160 300 | sleep 99"
    w = world(swap_mib=100, tasks={"s": "shm S 60 | touch S 60 0 | sleep 99", "p": hog}).at(5)
    assert w.meminfo("SwapFree") < 90
    assert smaps_rollup(w.row, 0).swap == 0


def test_the_text_has_the_lines_of_a_real_kernel() -> None:
    """Names, order and columns against this machine's own file: its kernel may be newer, so it may have more lines."""
    real = Path("/proc/self/smaps_rollup")
    if not real.exists():
        pytest.skip("this kernel has no smaps_rollup")
    w = world(tasks={"a": "mmap_anon A 3 | touch A 3 0 | sleep 99"}).at(1)
    ours = pid_tree(w.row)["83/smaps_rollup"].splitlines()
    theirs = real.read_text().splitlines()
    assert ours[0].index("[rollup]") == theirs[0].index("[rollup]") or len(theirs[0].split()[0]) > 25
    shape = {re.sub(r"\s.*", "", line): len(line) for line in theirs[1:]}
    names = [line.split()[0] for line in ours[1:]]
    assert [name for name in shape if name in names] == [name for name in names if name in shape]
    assert len([name for name in names if name in shape]) >= 19
    for line in ours[1:]:
        assert len(line) == shape.get(line.split()[0], len(line)), line
    rss = {line.split()[0]: int(line.split()[1]) for line in ours[1:]}["Rss:"]
    assert rss == int(w.task("a")["rss_anon"] + w.task("a")["rss_file"]) * 4


def test_statm_says_what_the_counters_say() -> None:
    w = world(tasks={"a": "shm S 3 | touch S 3 0 | sleep 99"}).at(1)
    size, resident, shared, *_ = map(int, pid_tree(w.row)["83/statm"].split())
    assert shared == 3 * PAGES + int(w.task("a")["rss_file"])
    assert resident == shared + int(w.task("a")["rss_anon"])
    assert size == int(w.task("a")["total_vm"])
