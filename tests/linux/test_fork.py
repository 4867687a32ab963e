# SPDX-License-Identifier: Apache-2.0
"""fork and copy-on-write on a host: what a child costs at once, what writes cost afterwards, and what its end gives back
(kernel-laws §10.1, §10.2, §6, §11.1)."""

from __future__ import annotations

import pytest

from fleetsim.linux import mm_types as mm
from fleetsim.linux.anon_vma import layered
from tests.host.worlds import FAST_DISK, PAGES, World, world

PATTERNS = ["seq", "random", "hot:0.2:0.8"]


def own_mib(w: World, task: str) -> float:
    row = w.task(task)
    return float(row["rss_anon"] - row["base_anon"] - row["base_shared"]) / PAGES


def parent(pattern: str, *, hold: float = 3, mib: int = 40, after: str = "sleep 99", **more: object) -> World:
    ops = f"mmap_anon A {mib} | touch A {mib} 0 | until 1 | fork_hold {hold} | rewrite A 0 20 {pattern} for=6 | {after}"
    return world(tasks={"p": ops}, **more)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_fork_copies_page_tables_and_a_promise_and_no_pages(pattern: str) -> None:
    w = parent(pattern).at(0.99)
    anon, tables, committed, free = w.meminfo("AnonPages"), w.meminfo("PageTables"), w.meminfo("Committed_AS"), w.meminfo("MemFree")
    w.at(1.006)
    child, p = w.task("p-child"), w.task("p")
    assert w.meminfo("AnonPages") - anon < 1
    assert w.meminfo("PageTables") - tables == pytest.approx(int(p["pgtables"]) / PAGES)
    assert w.meminfo("Committed_AS") - committed == pytest.approx(40, abs=3)
    assert free - w.meminfo("MemFree") < 2
    assert int(child["rss_anon"]) == int(p["rss_anon"]), "VmRSS counts shared pages fully"
    assert int(child["total_vm"]) == int(p["total_vm"])
    assert (int(child["oom_score_adj"]), int(child["cg"])) == (int(p["oom_score_adj"]), int(p["cg"]))


def test_a_fork_takes_time_for_every_mapped_page() -> None:
    """kernel-laws §10.2; the lab's 134 ns a page were measured (recordings e00, e10)."""
    small = world(tasks={"p": "mmap_anon A 10 | touch A 10 0 | until 1 | fork_hold 1 | sleep 9"}).at(3)
    large = world(tasks={"p": "mmap_anon A 90 | touch A 90 0 | until 1 | fork_hold 1 | sleep 9"}).at(3)
    took = [int(w.task("p")["stime_ns"]) - 3_400 * pages for w, pages in ((small, 10 * PAGES), (large, 90 * PAGES))]
    assert took[1] - took[0] == 134 * 80 * PAGES


def test_each_first_write_after_a_fork_is_a_fault_and_a_page_and_rss_stays() -> None:
    w = parent("seq").at(0.99)
    anon, faults, rss = w.meminfo("AnonPages"), int(w.task("p")["minflt"]), int(w.task("p")["rss_anon"])
    w.at(2.5)
    written = w.progress_mib("p") - 40
    assert written == pytest.approx(30, abs=1)
    assert w.meminfo("AnonPages") - anon == pytest.approx(written)
    assert int(w.task("p")["minflt"]) - faults == written * PAGES
    assert int(w.task("p")["rss_anon"]) == int(w.task("p-child")["rss_anon"]) == rss
    w.at(3.8)
    assert w.meminfo("AnonPages") - anon == 40, "no page is copied twice"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_childs_exit_gives_back_what_only_it_had(pattern: str) -> None:
    w = parent(pattern).at(0.99)
    anon, committed, tables = w.meminfo("AnonPages"), w.meminfo("Committed_AS"), w.meminfo("PageTables")
    assert w.at(3.9).meminfo("AnonPages") > anon + 15
    w.at(4.5)
    assert w.meminfo("AnonPages") == anon
    assert w.meminfo("Committed_AS") == committed
    assert w.meminfo("PageTables") == tables
    assert own_mib(w, "p") == 40
    assert int(w.task("p-child")["state"]) == mm.TASK_DEAD


def test_pages_left_alone_are_reused_by_a_fault_without_a_copy() -> None:
    """mm/memory.c wp_page_reuse: the child is gone before the parent writes."""
    w = world(tasks={"p": "mmap_anon A 40 | touch A 40 0 | until 1 | fork_hold 0.2 | sleep 1 | rewrite A 80 0 seq | sleep 99"}).at(0.9)
    anon, faults, reused = w.meminfo("AnonPages"), int(w.task("p")["minflt"]), w.vm("pgreuse")
    w.at(4)
    assert w.meminfo("AnonPages") == anon
    assert (int(w.task("p")["minflt"]) - faults, w.vm("pgreuse") - reused) == (40 * PAGES, 40 * PAGES), "once each"


@pytest.mark.parametrize("pattern", ["seq", "random"])
def test_half_written_when_the_child_goes_the_rest_is_reused(pattern: str) -> None:
    w = world(tasks={"p": f"mmap_anon A 40 | touch A 40 0 | until 1 | fork_hold 1 | rewrite A 0 20 {pattern} for=20 | sleep 99"}).at(0.9)
    anon = w.meminfo("AnonPages")
    w.at(2.5)
    assert w.meminfo("AnonPages") == anon
    copied = int(w.task("p")["minflt"]) - 40 * PAGES - w.vm("pgreuse")
    w.at(12)
    assert w.vm("pgreuse") + copied == pytest.approx(40 * PAGES, rel=0.01), "every page faulted once"
    assert not layered(w.row["groups"][int(w.row["areas"][0]["group"])]) or pattern == "random"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_parents_end_leaves_the_child_whole(pattern: str) -> None:
    w = world(tasks={"p": f"mmap_anon A 40 | touch A 40 0 | until 1 | fork_hold 4 | rewrite A 20 0 {pattern} | until 2 | exit 0"}).at(1.9)
    anon = w.meminfo("AnonPages")
    w.at(3)
    assert own_mib(w, "p-child") == 40
    assert w.meminfo("AnonPages") < anon
    w.at(6)
    assert w.meminfo("Inactive(anon)") + w.meminfo("Active(anon)") == 0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_several_children_share_what_their_parent_had_when_each_was_forked(pattern: str) -> None:
    ops = " | ".join(f"fork_hold {hold} | rewrite A 10 0 {pattern}" for hold in (6, 3, 5, 1))
    w = world(tasks={"p": f"mmap_anon A 20 | touch A 20 0 | until 1 | {ops} | sleep 99"}).at(0.9)
    anon = w.meminfo("AnonPages")
    w.at(1.5)
    assert int((w.row["tasks"]["parent"][1:5] == 0).sum()) == 4
    for t in range(1, 5):
        assert int(w.row["tasks"][t]["rss_anon"]) == int(w.task("p")["rss_anon"])
    assert w.meminfo("AnonPages") > anon + 10
    w.at(9)
    assert w.meminfo("AnonPages") == anon
    assert int((w.row["groups"]["used"] > 0).sum()) == (2 if pattern.startswith("hot") else 1), "layers are gone with their users"
    assert not w.row["mappings"]["used"].any()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_fork_with_swapped_pages_duplicates_their_entries_not_their_slots(pattern: str) -> None:
    ops = f"mmap_anon A 60 | rewrite A 60 0 {pattern} | until 2 | fork_hold 4 | until 4 | rewrite A 60 40 {pattern} | sleep 99"
    w = world(
        swap_mib=100, swap_disk=FAST_DISK, tasks={"p": ops, "hog": "until 1 | mmap_anon B 150 | touch B 150 400 | until 3 | exit 0"}
    ).at(1.95)
    slots = w.meminfo("SwapFree")
    swapped = int(w.task("p")["swapents"])
    assert swapped > 10 * PAGES
    w.at(2.1)
    assert int(w.task("p-child")["swapents"]) == int(w.task("p")["swapents"]) >= swapped
    assert w.meminfo("SwapFree") <= slots, "a slot is shared as a page is"
    w.at(9)
    assert own_mib(w, "p") + int(w.task("p")["swapents"]) / PAGES == pytest.approx(60, rel=0.01)
    assert int(w.task("p")["majflt"]) > 0


def test_shared_memory_and_files_are_not_copied() -> None:
    ops = "shm S 20 | touch S 20 0 | mmap_file M /f | read M 20 0 seq | until 1 | fork_hold 2 | rewrite S 20 0 seq | sleep 99"
    w = world(files={"/f": 20}, tasks={"p": ops}).at(0.9)
    shmem, anon = w.meminfo("Shmem"), w.meminfo("AnonPages")
    w.at(2)
    assert (w.meminfo("Shmem"), w.meminfo("AnonPages")) == (shmem, anon)
    assert int(w.task("p-child")["rss_shmem"]) == 0, "page tables of shared mappings are filled by faults"
    w.at(5)
    assert w.meminfo("Shmem") == 20, "the parent still maps it"


def test_a_shared_object_lives_on_in_the_child() -> None:
    w = world(tasks={"p": "shm S 20 | touch S 20 0 | fork_hold 3 | until 1 | exit 0"})
    assert w.at(2).meminfo("Shmem") == 20
    assert w.at(5).meminfo("Shmem") == 0


def test_mode_two_refuses_a_fork_that_would_promise_too_much() -> None:
    """T-6.3: the child of a task with private writable memory promises as much again."""
    w = world(sysctl={"vm.overcommit_memory": 2}, tasks={"p": "mmap_anon A 60 | touch A 60 0 | fork_hold 2 | sleep 9"}).at(1)
    assert [event.kind for event in w.events("enomem")] == ["enomem"]
    assert "p-child" not in w.shard.names_of(0).tasks


def test_a_host_full_of_tasks_answers_eagain_and_says_so() -> None:
    forks = " | ".join(["fork_hold 50"] * 40)
    w = world(tasks={"p": f"mmap_anon A 1 | {forks} | sleep 99", "q": f"{forks} | sleep 99"}).at(3)
    alive = int((w.row["tasks"]["state"] == mm.TASK_RUNNING).sum())
    assert alive <= mm.NR_TASKS
    assert len(w.events("table_full")) == 82 - alive


def test_dead_children_make_room_for_new_ones() -> None:
    w = world(tasks={"p": "mmap_anon A 1 | touch A 1 0 | " + " | ".join(["fork_hold 0.05 | sleep 0.2"] * 75) + " | sleep 99"}).at(30)
    assert w.events("table_full") == []
    assert len(w.events("task_exit")) == 75


@pytest.mark.parametrize("how", ["free A munmap", "free A dontneed all"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_the_parent_unmaps_the_child_keeps(how: str, pattern: str) -> None:
    w = world(tasks={"p": f"mmap_anon A 30 | touch A 30 0 | fork_hold 3 | rewrite A 10 0 {pattern} | {how} | touch A 30 0 | sleep 99"}).at(
        2
    )
    assert own_mib(w, "p-child") == 30
    assert own_mib(w, "p") == (0 if "munmap" in how else 30)
    w.at(6)
    assert own_mib(w, "p") == (0 if "munmap" in how else 30)
    assert w.meminfo("Inactive(anon)") + w.meminfo("Active(anon)") == own_mib(w, "p")


def test_memory_mapped_but_not_touched_before_the_fork_is_each_ones_own_afterwards() -> None:
    w = world(tasks={"p": "mmap_anon A 40 | touch A 20 0 | fork_hold 3 | touch A 20 0 | sleep 99"}).at(2)
    assert (own_mib(w, "p"), own_mib(w, "p-child")) == (40, 20)
    assert own_mib(w.at(5), "p") == 40


def test_a_cgroups_limit_meets_the_copies_and_kills_within_it() -> None:
    w = world(
        cgroups={"box": {"memory.max": 60}},
        tasks={
            "box/p": "mmap_anon A 40 | touch A 40 0 | until 1 | fork_hold 30 | rewrite A 0 20 seq for=5 | sleep 99",
            "by": "mmap_anon B 50 | touch B 50 0 | sleep 99",
        },
    ).at(8)
    assert len(w.kills()) >= 1
    assert set(w.kills()) <= {"p", "p-child"}
    assert own_mib(w, "by") == 50


def test_one_worker_of_ten_costs_its_own_writes_only() -> None:
    """T-14.1, scaled to 1/16: ten processes share 64 MiB; nobody writes; the sum of RSS is ten times what is there."""
    w = world(tasks={"p": "mmap_anon A 64 | touch A 64 0 | " + " | ".join(["fork_hold 9"] * 9) + " | sleep 99"}).at(2)
    tasks = [w.row["tasks"][t] for t in range(10)]
    assert sum(int(t["rss_anon"] - t["base_anon"] - t["base_shared"]) for t in tasks) == 640 * PAGES
    assert w.meminfo("Inactive(anon)") == 64
