# SPDX-License-Identifier: Apache-2.0
"""A page of 1 GiB as people and tools see it: a leaf of the PUD, one page of the kernel's, two files in /sys."""

from __future__ import annotations

import pytest

from fleetsim.hardware import mmu
from fleetsim.userland import procfs_maps, sysfs
from fleetsim.userland.page_fault import explain
from fleetsim.userland.page_table import HUGE_PAGE, NOTHING, PageTables
from fleetsim.userland.walk_text import as_json, render
from tests.host.worlds import World, world
from tests.userland.page_tables import contradictions

GIB = 1 << 30
OPS = "hugetlb G 2048 1G | mmap_anon A 40 | touch A 40 0 | touch G 1 0 | hugetlb S 4 | touch S 4 0 | sleep 99"


@pytest.fixture(scope="module")
def w() -> World:
    return world(8192, hugepages_1gib=3, sysctl={"vm.nr_hugepages": 4}, tasks={"db": OPS}).at(4)


def test_the_walk_ends_at_the_pud_with_a_page_of_a_gib(w: World) -> None:
    tables = PageTables(w.row, 0)
    area = next(vma for vma in tables.vmas if vma.area == int(w.row["handles"][0]))
    assert area.start % GIB == 0 and area.pages == 2 * GIB // 4096
    walk = tables.walk(area.start + 0x1234_5678)
    assert (walk.leaf, walk.kind, [step.level for step in walk.steps]) == (mmu.PUD, HUGE_PAGE, [mmu.PGD, mmu.PUD])
    assert walk.entries[-1] & mmu.PS
    assert mmu.frame_of(walk.entries[-1]) * 4096 % GIB == 0, "a page of 1 GiB begins at a whole GiB of memory"
    assert walk.physical == mmu.frame_of(walk.entries[-1]) * 4096 + 0x1234_5678
    outcome = explain(tables, walk, mmu.WRITE)
    assert outcome.name == "hit"
    page = render(tables, walk, outcome, mmu.WRITE, "db")
    assert "PUD" in page and "a huge page of 1GiB in frame" in page and "PMD" not in page
    assert as_json(tables, walk, outcome, mmu.WRITE)["page_bytes"] == GIB


def test_the_same_walk_with_five_levels(w: World) -> None:
    tables = PageTables(w.row, 0)
    area = next(vma for vma in tables.vmas if vma.area == int(w.row["handles"][0]))
    assert [step.level for step in tables.walk(area.start, 5).steps] == [mmu.PGD, mmu.P4D, mmu.PUD]


def test_the_second_gib_is_an_empty_pud_entry_until_it_is_touched(w: World) -> None:
    tables = PageTables(w.row, 0)
    area = next(vma for vma in tables.vmas if vma.area == int(w.row["handles"][0]))
    walk = tables.walk(area.start + GIB + 5)
    assert (walk.leaf, walk.kind, walk.entries[-1], walk.steps[-1].level) == (None, NOTHING, 0, mmu.PUD)
    outcome = explain(tables, walk, mmu.READ)
    assert (outcome.name, outcome.kind) == ("hugetlb 1 GiB", "minor")


def test_every_frame_is_one_pages_and_the_tables_are_as_many_as_counted(w: World) -> None:
    """Pages of 1 GiB, of 2 MiB and of 4 KiB together; tests/userland/page_tables.py says what must be true of them all."""
    assert contradictions(w.row) == []


def test_smaps_says_how_large_the_kernels_pages_are(w: World) -> None:
    text = procfs_maps.smaps(PageTables(w.row, 0))
    sizes = [int(line.split()[1]) for line in text.splitlines() if line.startswith("KernelPageSize:")]
    assert sizes.count(1_048_576) == 1 and sizes.count(2048) == 1
    assert [line.split()[1] for line in text.splitlines() if line.startswith("MMUPageSize:")] == list(map(str, sizes))
    huge = {int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_Hugetlb:")}
    assert huge == {0, 4096, 1_048_576}
    assert int(w.task("db")["hugetlb"]) * 4 == 4096 + 1_048_576, "HugetlbPages of status is their sum"


def test_the_files_of_both_pools(w: World) -> None:
    files = sysfs.tree(w.row)
    read = {
        kb: [
            int(files[f"kernel/mm/hugepages/hugepages-{kb}kB/{name}_hugepages"])
            for name in ("nr", "free", "resv", "surplus", "nr_overcommit")
        ]
        for kb in (2048, 1_048_576)
    }
    assert read == {2048: [4, 2, 0, 0, 0], 1_048_576: [3, 2, 1, 0, 0]}
