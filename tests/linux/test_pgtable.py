# SPDX-License-Identifier: Apache-2.0
"""Page tables are counted from what is populated: worked examples of kernel-laws §11.1, and what real kernels showed."""

from __future__ import annotations

import csv
import gzip
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fleetsim.linux.mm_types import AREA_FREE, NR_AREAS
from fleetsim.linux.mmap_layout import BLOCK, CONSERVATIVE, FULL, NO_ASLR, blocks_of, brk_block, mmap_base, stack_top, text_start
from fleetsim.linux.pgtable import image_block, image_tables, mm_pgtables, nr_tables
from tests.host.worlds import PAGES, World, world

TRUTH = Path(__file__).resolve().parent.parent / "ground_truth"
GIB_BLOCKS = 512


def tables(w: World, task: str) -> int:
    return int(w.task(task)["pgtables"])


def first_area(w: World, task: str) -> Any:
    t = w.shard.names_of(0).tasks[task]
    return next(area for area in w.row["areas"] if int(area["kind"]) != AREA_FREE and int(area["task"]) == t)


def dense(w: World, area: Any) -> int:
    """Tables of a dense area: one for each 2 MiB, one for each GiB it reaches into."""
    first, blocks = int(area["start"]), -(-int(area["pages"]) // BLOCK)
    return blocks + (first + blocks - 1) // GIB_BLOCKS - first // GIB_BLOCKS + 1


def test_t_11_1_24_gib_take_48_mib_of_page_tables_and_96_kib_of_pmds() -> None:
    w = world(160, sysctl={"vm.overcommit_memory": 1}, files={"/24g": 24 * 1024}, tasks={"a": "mmap_file M /24g | read M 0 1 random"}).at(
        0.5
    )
    area = first_area(w, "a")
    assert int(area["tables"]) * 4 == 48 * 1024, "kB"
    libraries = int(mmap_base(w.row, int(w.task("a")["mm_key"]))) // BLOCK // GIB_BLOCKS
    shared = int((int(area["start"]) + int(area["tables"]) - 1) // GIB_BLOCKS == libraries)
    pmds = dense(w, area) - int(area["tables"])
    assert pmds - shared in (24, 25) and pmds == 25, "24 GiB that do not begin on one reach into 25; 24 × 4 KiB = 96 kB if they do"
    assert tables(w, "a") == 8 + dense(w, area) - shared


def test_t_11_2_everybody_who_maps_shared_memory_pays_for_page_tables_of_his_own() -> None:
    """200 processes and 8 GiB are 3.1 GiB of tables; here 8 and 64 MiB, and 2 MiB pages of the pool for comparison."""
    many = {f"p{n}": "mmap_file M /dev/shm/f shared | rewrite M 64 0 seq | sleep 99" for n in range(8)}
    w = world(512, tasks={"maker": "write_file /dev/shm/f 64 0 | sleep 99", **many}, start_s=dict.fromkeys(many, 2.0)).at(6)
    per_process = [tables(w, name) - tables(w, "maker") for name in many]
    assert all(32 <= n <= 34 for n in per_process), "64 MiB / 2 MiB, and a PMD table or two"
    assert w.meminfo("Shmem") == pytest.approx(64), "the memory itself is there once"
    assert pytest.approx(3.1, abs=0.03) == 200 * (8 * 1024 // 2) * 4 / 1024 / 1024
    pool = world(512, sysctl={"vm.nr_hugepages": 40}, tasks={"h": "hugetlb H 64 | touch H 64 0 | sleep 99", "idle": "sleep 99"}).at(3)
    assert tables(pool, "h") - tables(pool, "idle") <= 2, "no tables of PTEs: 200 × 32 kB instead of 3.1 GiB"


@pytest.mark.parametrize("mode", [NO_ASLR, CONSERVATIVE, FULL])
def test_an_image_has_the_tables_its_blocks_need(mode: int) -> None:
    w = world(160, sysctl={"kernel.randomize_va_space": mode}, tasks={"a": "sleep 99"}).at(1)
    key = int(w.task("a")["mm_key"])
    assert key & 3 == mode
    assert tables(w, "a") == int(image_tables(key)) + len({int(image_block(w.row, key, part)) // GIB_BLOCKS for part in range(5)})
    assert mode != FULL or tables(w, "a") == 8, "32 kB, as memory.stat of a program that was measured says"


def test_without_aslr_programs_lie_where_a_debugger_shows_them() -> None:
    """gdb switches randomisation off: text at 0x555555554000, stack up to 0x7ffffffff000, libraries below 0x7ffff7fff000."""
    w = world(160, sysctl={"kernel.randomize_va_space": 0}, tasks={"a": "sleep 99", "b": "sleep 99"}).at(1)
    for name in ("a", "b"):
        key = int(w.task(name)["mm_key"])
        assert int(text_start(w.row, key)) << 12 == 0x555555554000
        assert int(stack_top(w.row, key)) << 12 == 0x7FFFFFFFF000
        assert int(mmap_base(w.row, key)) << 12 == 0x7FFFF7FFF000


def test_with_aslr_every_exec_is_elsewhere_within_the_kernels_own_bounds_and_a_childs_is_its_parents() -> None:
    names = [f"p{n}" for n in range(40)]
    w = world(512, tasks={**dict.fromkeys(names, "sleep 99"), "parent": "mmap_anon A 4 | touch A 4 0 | fork_hold 9 | sleep 99"}).at(1)
    keys = [int(w.task(name)["mm_key"]) for name in names]
    bases = [int(mmap_base(w.row, key)) for key in keys]
    assert len(set(bases)) == 40 and len({int(text_start(w.row, key)) for key in keys}) == 40
    top = (1 << 35) - 1
    assert all(2304 + (1 << 22) - 512 <= top - base <= 2304 + (1 << 22) + (1 << 28) for base in bases), "16 GiB + 9 MiB, and 28 bits"
    assert max(bases) - min(bases) > 1 << 26, "they fill most of the 28 bits"
    assert all(0 <= top - int(stack_top(w.row, key)) < (1 << 22) + 512 for key in keys)
    assert all(3 <= int(brk_block(w.row, key)) - int(text_start(w.row, key)) // BLOCK <= 16 for key in keys), "brk within 32 MiB"
    assert int(w.task("parent-child")["mm_key"]) == int(w.task("parent")["mm_key"])
    areas = [area for area in w.row["areas"] if int(area["kind"]) != AREA_FREE]
    assert len(areas) == 2 and len({int(area["start"]) for area in areas}) == 1


def test_another_seed_or_another_host_is_another_layout() -> None:
    bases = {int(mmap_base(world(160, seed=seed, tasks={"a": "sleep 9"}).at(0.1).row, 83 * 4 + 2)) for seed in range(5)}
    assert len(bases) == 5


def test_mappings_go_below_each_other_and_a_hole_that_fits_is_used_again() -> None:
    w = world(tasks={"a": "mmap_anon A 10 | mmap_anon B 20 | mmap_anon C 5 | free B munmap | sleep 1 | mmap_anon D 6 | sleep 99"}).at(0.5)
    handles = {
        area: w.row["areas"][int(w.row["handles"][n])]
        for (_, area), n in w.shard.names_of(0).handles.items()
        if int(w.row["handles"][n]) >= 0
    }
    top = int(mmap_base(w.row, int(w.task("a")["mm_key"]))) // BLOCK
    assert int(handles["A"]["start"]) == top - 5 and int(handles["C"]["start"]) == top - 5 - 10 - 3
    w.at(2)
    d = w.row["areas"][int(w.row["handles"][w.shard.names_of(0).handles["a", "D"]])]
    assert int(d["start"]) == top - 5 - 3, "the highest gap that is large enough"


def test_tables_of_an_unmapped_front_go_and_are_not_counted_twice() -> None:
    w = world(tasks={"a": "mmap_anon A 40 | touch A 20 0 | free A munmap first:8 | touch A 20 0 | sleep 99"}).at(2)
    assert int(first_area(w, "a")["tables"]) == 16, "40 MiB, less 8 at the front"
    assert tables(w, "a") == int(nr_tables(w.row, 0))


def test_a_mapped_file_has_page_tables_too_and_they_go_with_it() -> None:
    w = world(files={"/f": 32}, tasks={"a": "sleep 0.1 | mmap_file M /f | read M 32 0 seq | sleep 2 | free M munmap | sleep 99"})
    idle = tables(w.at(0.05), "a")
    before = w.meminfo("PageTables")
    assert 16 <= tables(w.at(1.5), "a") - idle <= 18
    assert w.meminfo("PageTables") - before == pytest.approx((tables(w, "a") - idle) / PAGES)
    assert tables(w.at(4), "a") == idle


def test_meminfo_memory_stat_and_every_process_say_the_same() -> None:
    lines = {
        "box/a": "mmap_anon A 30 | touch A 30 0 | fork_hold 9",
        "box/b": "shm S 20 | touch S 20 0 | sleep 9",
        "c": "mmap_anon C 9 | touch C 9 0 | sleep 9",
    }
    w = world(cgroups={"box": {}}, tasks=lines)
    boot = int(w.at(0).row["page_tables"])
    w.at(2)
    alive = ["a", "a-child", "b", "c"]
    assert int(w.row["page_tables"]) - boot == sum(tables(w, name) for name in alive)
    assert int(w.cg("box")["pagetables"]) == sum(tables(w, name) for name in alive[:3])
    assert w.all_vmstat()["nr_page_table_pages"] == int(w.row["page_tables"]) == w.all_meminfo()["PageTables"] // 4
    w.at(15)
    assert int(w.row["page_tables"]) == boot and int(w.cg("box")["pagetables"]) == 0


def recorded(experiment: str, process: str) -> list[tuple[int, int]]:
    """(RssAnon or RssShmem, VmPTE) kB in the recording of a real kernel, once it is there."""
    with gzip.open(TRUTH / experiment / "trace.csv.gz", "rt") as opened:
        rows = list(csv.DictReader(opened))
    rss = [k for k in rows[0] if k in (f"proc.{process}.RssAnon_kB", f"proc.{process}.RssShmem_kB")]
    return [(sum(int(row[k] or 0) for k in rss), int(row[f"proc.{process}.VmPTE_kB"])) for row in rows if row[f"proc.{process}.VmPTE_kB"]]


@pytest.mark.parametrize(
    ("experiment", "process", "ops"),
    [
        ("e02_oom_noswap", "bystander", "mmap_anon a 120 | touch a 120 0"),
        ("e10_fork_cow", "parent", "mmap_anon a 350 | touch a 350 0"),
        ("e11_shmem", "shm", "shm s 350 | touch s 350 0"),
        ("e13_thp_always_clean", "plain", "mmap_anon a 200 | touch a 200 0"),
        ("e02_oom_noswap", "reader", "sleep 9"),
    ],
)
def test_vm_pte_is_what_a_real_kernel_said_up_to_where_aslr_put_the_ends(experiment: str, process: str, ops: str) -> None:
    """/proc/PID/status of a recorded process against the same program here: an area that straddles a boundary has a table more."""
    real = max(pte for _, pte in recorded(experiment, process)) // 4
    w = world(768, tasks={"a": f"{ops} | sleep 99"}).at(5)
    assert abs(int(mm_pgtables(w.row, 0)) - real) <= 2


def test_no_two_areas_of_a_process_overlap_whatever_it_maps() -> None:
    ops = " | ".join(f"mmap_anon A{n} {1 + 37 * n % 90} noreserve" for n in range(20)) + " | malloc 300 100-300000 0 | sleep 99"
    w = world(4096, tasks={"a": ops}).at(2)
    spans = sorted(
        (int(w.row["areas"][a]["start"]), int(w.row["areas"][a]["start"]) + int(blocks_of(w.row, a)))
        for a in range(NR_AREAS)
        if int(w.row["areas"][a]["kind"]) != AREA_FREE
    )
    assert len(spans) >= 22
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
