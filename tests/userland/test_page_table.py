# SPDX-License-Identifier: Apache-2.0
"""Page tables of simulated processes: whole hosts add up to the kernel's counts, and single pages are what the tutorial promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from fleetsim.errors import BadInput
from fleetsim.hardware import mmu
from fleetsim.linux.mm_types import AREA_FREE, NR_AREAS
from fleetsim.userland.frames import Frames, zone_starts
from fleetsim.userland.page_table import HUGE_PAGE, NOTHING, PAGE, SWAP, SWAP_CACHE, ZERO_PAGE, Entries, PageTables
from tests.host.any_host import any_host
from tests.host.programs import Drawn, worlds
from tests.host.worlds import PAGES, World, world
from tests.userland.page_tables import contradictions


def task_row(w: World, name: str) -> int:
    return w.shard.names_of(0).tasks[name]


def area_of(w: World, name: str) -> int:
    t = task_row(w, name)
    return next(a for a in range(NR_AREAS) if int(w.row["areas"][a]["kind"]) != AREA_FREE and int(w.row["areas"][a]["task"]) == t)


def entries(w: World, name: str) -> Entries:
    a = area_of(w, name)
    return PageTables(w.row, task_row(w, name)).entries(a, np.arange(int(w.row["areas"][a]["pages"])))


def writable(e: Entries) -> np.ndarray:
    return (e.flags & np.uint64(mmu.RW)) > 0


@settings(max_examples=20)
@given(worlds())
def test_page_tables_of_random_hosts_add_up_to_the_kernels_counts(drawn: Drawn) -> None:
    look_at(drawn)


@pytest.mark.slow
@settings(max_examples=25)
@given(any_host())
def test_so_do_those_of_larger_ones_with_two_nodes_and_huge_pages(drawn: Drawn) -> None:
    look_at(drawn)


def look_at(drawn: Drawn) -> None:
    try:
        w = world(**drawn.host)
    except BadInput:
        return  # more than a record holds
    for at_s, kind, args in drawn.commands:
        w.command(at_s, kind, **args)
    for at_s in (0.7, 2.1, 4.4):
        assert contradictions(w.at(at_s).row) == []


@pytest.mark.parametrize(
    "tasks",
    [
        {"a": "mmap_anon A 60 | touch A 60 0 | fork_hold 3 | rewrite A 20 400 random | sleep 99"},
        {"a": "mmap_anon A 60 thp | touch A 60 0 | fork_hold 3 | rewrite A 20 400 seq | fork_hold 9 | rewrite A 9 40 random | sleep 99"},
        {"b": "mmap_file M /data | read M 30 0 random | mmap_anon B 200 | touch B 200 0 | read B 0 100 random"},
        {"c": "malloc 20000 100-6000 0 | sleep 2 | mfree keep_every:3 | mtrim | malloc 300 100000-300000 0 | mfree first:0.5 | sleep 99"},
        {"d": "mmap_anon D 40 | touch D 40 0 | free D munmap first:9 | free D dontneed keep_every:4 | madvise D free | sleep 99"},
        {"e": "mmap_file E /data shared | rewrite E 30 100 random", "f": "mmap_file E /data shared | read E 9 0 seq | sleep 99"},
        {"s": "shm S 40 | touch S 40 0 | fork_hold 2 | madvise S pageout | read S 9 50 random | sleep 99"},
        {"z": "mmap_anon Z 40 | read Z 30 0 random | rewrite Z 10 20 seq | sleep 99"},
        {"h": "hugetlb H 20 | touch H 11 0 | mmap_anon B 230 | touch B 230 0 | sleep 99"},
    ],
)
@pytest.mark.parametrize("thp", ["never", "always"])
def test_page_tables_add_up_in_every_way_to_use_memory(tasks: dict[str, str], thp: str) -> None:
    w = world(256, swap_mib=96, thp=thp, files={"/data": 30}, sysctl={"vm.nr_hugepages": 12}, tasks=tasks)
    for at_s in (0.2, 1.0, 2.5, 4.0, 6.0):
        assert contradictions(w.at(at_s).row) == []


def test_page_tables_of_two_nodes_with_huge_pages_add_up() -> None:
    ops = "mmap_anon A 150 | touch A 150 0 | fork_hold 2 | rewrite A 30 100 random | sleep 9"
    w = world(512, cpus=2, numa_nodes=2, thp="always", swap_mib=64, tasks={"a": ops, "b": "mmap_anon B 300 | touch B 300 0 | sleep 9"})
    for at_s in (0.5, 1.5, 4.0, 12.0):
        assert contradictions(w.at(at_s).row) == []


def test_the_same_question_has_the_same_answer_and_changes_nothing() -> None:
    w = world(256, swap_mib=64, tasks={"a": "mmap_anon A 230 | touch A 230 0 | read A 0 10 random"}).at(3)
    before = w.row.tobytes()
    first, second = entries(w, "a"), entries(w, "a")
    assert all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("kind", "frame", "flags", "swap"))
    one_by_one = PageTables(w.row, task_row(w, "a"))
    for position in range(0, 230 * PAGES, 7777):
        alone = one_by_one.entries(area_of(w, "a"), np.array([position]))
        assert (alone.kind[0], alone.frame[0], alone.flags[0]) == (first.kind[position], first.frame[position], first.flags[position])
    assert w.row.tobytes() == before


def test_isolation_two_processes_at_one_address_have_different_frames() -> None:
    ops = "mmap_anon A 20 | touch A 20 0 | sleep 99"
    w = world(sysctl={"kernel.randomize_va_space": 0}, tasks={"a": ops, "b": ops}).at(1)
    a, b = (PageTables(w.row, task_row(w, name)) for name in "ab")
    address = int(w.row["areas"][area_of(w, "a")]["start"]) << 21
    assert address == int(w.row["areas"][area_of(w, "b")]["start"]) << 21
    assert a.walk(address).physical != b.walk(address).physical
    assert not set(entries(w, "a").frame) & set(entries(w, "b").frame)


def test_abstraction_neighbours_in_virtual_memory_are_strangers_in_physical_memory() -> None:
    w = world(tasks={"a": "mmap_anon A 20 | touch A 20 0 | sleep 99"}).at(1)
    frames = entries(w, "a").frame
    assert (np.abs(np.diff(frames)) == 1).mean() < 0.05


def test_overcommit_what_was_promised_and_never_touched_has_no_entries() -> None:
    w = world(160, tasks={"a": "mmap_anon A 4000 noreserve | touch A 10 0 | sleep 99"}).at(1)
    e = entries(w, "a")
    assert (e.kind == PAGE).sum() == 10 * PAGES and (e.kind == NOTHING).sum() == 3990 * PAGES
    assert PageTables(w.row, task_row(w, "a")).bytes <= 4096 * (5 + 13), "nor page tables"


def test_after_a_fork_both_see_the_same_frames_read_only_and_a_write_gives_the_writer_another() -> None:
    w = world(tasks={"a": "mmap_anon A 40 | touch A 40 0 | fork_hold 6 | sleep 1 | rewrite A 10 0 seq | sleep 99"}).at(0.7)
    parent, child = entries(w, "a"), entries(w, "a-child")
    assert np.array_equal(parent.frame, child.frame) and (parent.frame >= 0).all()
    assert not writable(parent).any() and not writable(child).any() and parent.shared.all()
    before = parent.frame
    parent, child = (entries(w.at(3), name) for name in ("a", "a-child"))
    copied = writable(parent)
    assert copied.sum() == 10 * PAGES and not writable(child).any()
    assert not set(parent.frame[copied]) & set(child.frame), "the copies are the parent's alone"
    assert np.array_equal(parent.frame[~copied], child.frame[~copied]) and len(before) == len(child.frame)
    alone = entries(w.at(9), "a")
    assert not alone.shared.any(), "the child is gone: nobody shares any more"


def test_shared_memory_is_one_frame_for_all_who_map_it() -> None:
    users = dict.fromkeys("ab", "mmap_file M /dev/shm/f shared | rewrite M 20 0 seq | sleep 99")
    w = world(tasks={"maker": "write_file /dev/shm/f 20 0 | sleep 99", **users}, start_s={"a": 1.0, "b": 1.0}).at(3)
    a, b = entries(w, "a"), entries(w, "b")
    assert np.array_equal(a.frame, b.frame) and writable(a).all() and writable(b).all()


def test_huge_pages_are_leaves_of_the_pmd_and_begin_on_two_mib() -> None:
    w = world(512, thp="always", tasks={"a": "mmap_anon A 64 | touch A 64 0 | sleep 99"}).at(2)
    tables, start = PageTables(w.row, task_row(w, "a")), int(w.row["areas"][area_of(w, "a")]["start"]) << 21
    walk = tables.walk(start + 5 * mmu.LEAF_SIZES[mmu.PMD] + 0x1234)
    assert (walk.leaf, walk.kind, len(walk.steps)) == (mmu.PMD, HUGE_PAGE, 3)
    assert walk.steps[-1].entry & mmu.PS and mmu.frame_of(walk.steps[-1].entry) % 512 == 0
    assert walk.physical is not None and walk.physical % mmu.LEAF_SIZES[mmu.PMD] == 0x1234
    pool = world(512, sysctl={"vm.nr_hugepages": 20}, tasks={"a": "hugetlb H 30 | touch H 10 0 | sleep 99"}).at(2)
    tables, start = PageTables(pool.row, task_row(pool, "a")), int(pool.row["areas"][area_of(pool, "a")]["start"]) << 21
    assert tables.walk(start + 123).leaf == mmu.PMD and tables.walk(start + (20 << 20)).leaf is None


def test_what_was_read_and_never_written_is_the_one_page_of_zeros_read_only() -> None:
    w = world(tasks=dict.fromkeys("ab", "mmap_anon A 20 | read A 20 0 seq | sleep 99")).at(1)
    a, b = entries(w, "a"), entries(w, "b")
    assert (a.kind == ZERO_PAGE).all() and not writable(a).any()
    assert set(a.frame) == set(b.frame) and len(set(a.frame)) == 1


def test_pages_in_swap_have_entries_that_name_slots_of_their_own() -> None:
    w = world(160, swap_mib=128, tasks={"a": "mmap_anon A 200 | touch A 200 0 | sleep 99"}).at(20)
    e = entries(w, "a")
    out = (e.kind == SWAP) | (e.kind == SWAP_CACHE)
    assert out.sum() == int(w.task("a")["swapents"]) > 20 * PAGES
    slots = e.swap[out] & ((1 << 50) - 1)
    assert len(np.unique(slots)) == len(slots) and slots.min() >= 1 and slots.max() < 128 * PAGES
    a, position = area_of(w, "a"), int(np.flatnonzero(e.kind == SWAP)[0])
    walk = PageTables(w.row, task_row(w, "a")).walk(((int(w.row["areas"][a]["start"]) * 512) + position) << 12)
    assert walk.physical is None and mmu.swap_entry(walk.entries[-1]) == (0, int(e.swap[position]))


def test_frames_lie_in_the_zones_and_on_the_node_that_the_kernel_took_them_from() -> None:
    w = world(6144, cpus=2, numa_nodes=2, tasks={"a": "pin 1 | mmap_anon A 3300 | touch A 3300 0 | sleep 99"}).at(8)
    starts, frames = zone_starts(w.row), entries(w, "a").frame
    got = [int(((frames >= starts[z]) & (frames < starts[z] + int(w.row["zones"][z]["managed"]))).sum()) for z in range(4)]
    group = w.row["groups"][int(w.row["areas"][area_of(w, "a")]["group"])]
    cohorts = w.row["cohorts"][int(group["first"]) : int(group["first"] + group["cohorts"])]
    low = cohorts["low_zone"].sum(axis=0)
    want = [int(low[0]), int(low[1]), int(cohorts["nr"].sum() - low.sum() - cohorts["node1"].sum()), int(cohorts["node1"].sum())]
    assert got == want and want[3] > 256 * 1024


def test_four_levels_stand_in_frames_of_their_own_and_five_need_one_more() -> None:
    w = world(tasks={"a": "mmap_anon A 20 | touch A 20 0 | sleep 99"}).at(1)
    tables, start = PageTables(w.row, task_row(w, "a")), int(w.row["areas"][area_of(w, "a")]["start"]) << 21
    four, five = tables.walk(start), tables.walk(start, 5)
    assert [step.level for step in four.steps] == [mmu.PGD, mmu.PUD, mmu.PMD, mmu.PTE]
    assert [step.level for step in five.steps] == [mmu.PGD, mmu.P4D, mmu.PUD, mmu.PMD, mmu.PTE]
    assert five.steps[0].index == 0 and five.physical == four.physical
    stood = [step.table_frame for step in five.steps]
    assert len(set(stood)) == 5 and not set(stood) & set(entries(w, "a").frame)
    for one, below in zip(five.steps, five.steps[1:], strict=False):
        assert mmu.frame_of(one.entry) == below.table_frame, "each entry leads to the next table"


def test_all_programs_share_the_frames_of_their_text_and_a_child_its_parents_data() -> None:
    w = world(tasks={"a": "mmap_anon A 4 | touch A 4 0 | fork_hold 9 | sleep 99", "b": "sleep 99"}).at(1)
    a, child, b = (PageTables(w.row, task_row(w, name)) for name in ("a", "a-child", "b"))

    def frame(tables: PageTables, name: str, page: int = 0) -> int | None:
        vma = next(vma for vma in tables.vmas if vma.name == name)
        return tables.walk(vma.start + (page << 12)).physical

    assert frame(a, "libc code") == frame(b, "libc code") == frame(child, "libc code") is not None
    assert frame(a, "data") == frame(child, "data") != frame(b, "data")
    assert frame(a, "stack") is None and frame(a, "stack", 32) is not None


def test_no_frame_is_given_twice_while_all_of_memory_is_in_use() -> None:
    w = world(160, thp="always", tasks=dict.fromkeys("ab", "mmap_anon A 60 | touch A 60 0 | sleep 99"), swap_mib=40).at(9)
    frames = Frames(w.row)
    for zone in frames.zones:
        managed = np.arange(max(0, zone.managed - zone.huge * 512))
        small = zone.frame_at(managed, frames.key)
        huge = zone.block_at(np.arange(zone.huge), frames.key)
        every = np.concatenate([small, *(huge + n for n in range(512))])
        assert len(np.unique(every)) == len(every) == zone.managed
        assert not len(every) or (every.min() >= zone.start and every.max() < zone.start + zone.managed)
