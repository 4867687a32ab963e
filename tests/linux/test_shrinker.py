# SPDX-License-Identifier: Apache-2.0
"""Slab caches: names and inodes cost memory, are given up under pressure in the right measure, and are charged to their cgroup (§13)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.dcache import prune_dcache_sb
from fleetsim.linux.memcontrol import css_free, css_offline, nr_dying_descendants
from fleetsim.linux.shrinker import next_deferred, oldest_shadows, shrink_delta, total_scan, vfs_pressure_ratio
from fleetsim.linux.slab_caches import CACHES, INDEX
from fleetsim.linux.slub import kmem_cache_free, slab_stat
from tests.host.worlds import PAGES, World, world


def one_call(freeable: int, deferred: int, priority: int, batch: int) -> tuple[int, int]:
    """(objects looked at, deferred afterwards) of one do_shrink_slab call, with seeks 2."""
    delta = shrink_delta(freeable, priority, 2)
    left, scanned = total_scan(freeable, deferred, delta, priority), 0
    while left >= batch or left >= freeable:
        n = min(batch, left)
        left, scanned = left - n, scanned + n
    return scanned, next_deferred(freeable, deferred, delta, scanned)


def slab_pages(w: World, name: str) -> int:
    i = INDEX[name]
    return int(w.row["slab"][i]["slabs"]) * CACHES[i][3]


def test_a_small_cache_is_not_looked_at_by_gentle_reclaim() -> None:
    """T-13.1: 100,000 objects at priority 12 ask for 48, three times below a batch; 48 more are deferred each time."""
    deferred = 0
    for expected in (48, 96, 144):
        assert shrink_delta(100_000, 12, 2) == 48
        scanned, deferred = one_call(100_000, deferred, 12, 128)
        assert (scanned, deferred) == (0, expected)


def test_a_large_cache_is_looked_at_in_whole_batches() -> None:
    """T-13.2."""
    assert one_call(1_000_000, 0, 12, 128) == (384, 104)


def test_cache_pressure_scales_what_counts_as_freeable() -> None:
    """T-13.3."""
    assert [vfs_pressure_ratio(100_000, pressure) for pressure in (0, 50, 100, 200)] == [0, 50_000, 100_000, 200_000]


def test_objects_that_cost_nothing_to_make_again_go_by_the_half() -> None:
    assert shrink_delta(1000, 12, 0) == 500


@given(st.integers(1, 1 << 30), st.integers(0, 1 << 31), st.integers(0, 12))
def test_no_call_looks_at_more_than_twice_what_there_is_or_defers_more(freeable: int, deferred: int, priority: int) -> None:
    delta = shrink_delta(freeable, priority, 2)
    assert 0 <= total_scan(freeable, deferred, delta, priority) <= 2 * freeable
    assert 0 <= next_deferred(freeable, deferred, delta, 0) <= 2 * freeable


def test_a_negative_dentry_costs_192_bytes_and_twenty_one_share_a_page() -> None:
    w = world(tasks={"app": "sleep 1 | stat_missing /data/w 21000 0 | sleep 100"}).at(0.9)
    before = w.meminfo("SReclaimable")
    w.at(5)
    assert (w.meminfo("SReclaimable") - before) * PAGES == pytest.approx(1000, abs=1)
    assert int(w.row["programs"][0]["counted"]) == 21_000, "files are counted one by one"


def test_on_tmpfs_a_missing_name_leaves_nothing_and_a_file_stays_for_good() -> None:
    w = world(tasks={"app": "stat_missing /dev/shm/w 21000 0 | mkfiles /dev/shm/w 1000 0 | sysw /proc/sys/vm/drop_caches 2 | sleep 9"}).at(
        5
    )
    assert int(w.row["cgroups"][0]["dentries"]) == 0
    assert slab_pages(w, "shmem_inode_cache") >= 200


def test_an_inode_of_ext4_is_read_from_disk_once_and_its_block_stays_in_buffers() -> None:
    w = world(tasks={"app": "stat_files /many 3000 0 | sleep 2 | stat_files /many 3000 0 | sleep 100"}).at(1.5)
    first = w.vm("pgpgin")
    assert first // 4 == pytest.approx(3000 / 16 + 9, rel=0.1), "blocks of the inode table and of three directories"
    assert w.meminfo("Buffers") * PAGES == pytest.approx(first / 4, abs=1)
    cached = w.meminfo("SReclaimable")
    w.at(5)
    assert w.vm("pgpgin") == first, "the second walk finds every name"
    assert w.meminfo("SReclaimable") == pytest.approx(cached, abs=0.02)


def test_files_made_are_written_to_the_journal_after_five_seconds_and_to_their_place_after_thirty_more() -> None:
    w = world(tasks={"app": "mkfiles /w 1600 0 | sleep 100"})
    blocks = 1600 // 16 + 11
    assert w.at(4).vm("pgpgout") == 0
    assert w.at(6).vm("pgpgout") // 4 == blocks + 2
    assert w.meminfo("Dirty") * PAGES == blocks
    assert w.at(34).meminfo("Dirty") > 0
    assert w.at(36).meminfo("Dirty") == 0
    assert w.vm("pgpgout") // 4 == 2 * blocks + 2


def test_under_pressure_unused_names_go_and_the_task_gets_their_memory() -> None:
    w = world(tasks={"app": "stat_missing /w 400000 0 | sleep 100", "hog": "sleep 8 | mmap_anon A 150 | touch A 150 60 | sleep 100"}).at(7)
    assert w.meminfo("SReclaimable") > 70
    w.at(14)
    assert w.kills() == []
    assert w.meminfo("SReclaimable") < 50
    assert w.vm("slabs_scanned") % 1024 == 0 or w.vm("slabs_scanned") > 100_000, "the superblock's shrinker works in batches of 1024"


def test_without_cache_pressure_names_stay_and_the_task_dies() -> None:
    ops = "sysw /proc/sys/vm/vfs_cache_pressure 0 | stat_missing /w 400000 0 | sleep 100"
    w = world(tasks={"app": ops, "hog": "sleep 8 | mmap_anon A 200 | touch A 200 60 | sleep 100"}).at(14)
    assert w.kills() == ["hog"]
    assert w.vm("slabs_scanned") == 0
    assert w.meminfo("SReclaimable") > 70


def test_names_found_again_survive_the_first_look() -> None:
    once = world(tasks={"app": "stat_files /m 2000 0 | sysw /proc/sys/vm/vfs_cache_pressure 100 | sleep 99"}).at(3)
    again = world(tasks={"app": "stat_files /m 2000 0 | stat_files /m 2000 0 | sleep 99"}).at(3)
    for w, freed in ((once, 1000), (again, 0)):
        looked, gone, _ = prune_dcache_sb(w.row, 0, 1000)
        assert (looked, gone) == (1000, freed)


def test_drop_caches_two_frees_every_unused_object() -> None:
    w = world(
        tasks={"app": "sleep 1 | stat_files /m 5000 0 | stat_missing /w 5000 0 | sleep 2 | sysw /proc/sys/vm/drop_caches 2 | sleep 99"}
    )
    before = w.at(0.9).meminfo("SReclaimable")
    w.at(9)
    assert w.meminfo("SReclaimable") == pytest.approx(before, abs=0.1)
    assert (w.vm("drop_slab"), w.vm("drop_pagecache")) == (1, 0)
    assert w.meminfo("Buffers") > 0


def test_drop_caches_one_drops_clean_cache_and_leaves_no_shadow() -> None:
    ops = "read_file /f 50 0 | sleep 2 | sysw /proc/sys/vm/drop_caches 1 | sleep 1 | read_file /f 50 0 | sleep 99"
    w = world(files={"/f": 50}, tasks={"app": ops})
    cached = w.at(1).meminfo("Cached")
    assert w.at(2.9).meminfo("Cached") == pytest.approx(cached - 50, abs=0.1)
    w.at(9)
    assert w.vm("workingset_refault_file") == 0
    assert w.meminfo("Cached") == pytest.approx(cached, abs=0.1)


def test_a_cgroup_pays_for_its_names_and_its_limit_takes_them_back() -> None:
    """Kernel memory counts: 400,000 names are 76 MiB, a limit of 30 MiB holds them down without a kill."""
    w = world(cgroups={"box": {"memory.max": 30}}, tasks={"box/app": "stat_missing /w 400000 0 | sleep 100"}).at(20)
    assert w.kills() == []
    assert int(w.row["programs"][0]["counted"]) == 400_000
    assert 20 * PAGES < int(w.cg("box")["usage"]) <= 30 * PAGES
    assert int(slab_stat(w.row, 1, 1)) / 4096 == pytest.approx(int(w.cg("box")["usage"]) - 66, abs=40)


def test_nodes_of_a_cached_file_stay_with_its_shadows_and_the_oldest_go_when_they_are_too_many() -> None:
    """e04: a file read through costs a node per 64 pages even after most of it was evicted; e19: nodes beyond 1/8 are trimmed."""
    w = world(files={"/big": 400}, tasks={"app": "read_file /big 400 200 | sleep 100"})
    before = slab_pages(w.at(0), "radix_tree_node")
    w.at(3)
    nodes = (slab_pages(w, "radix_tree_node") - before) * 7
    assert nodes == pytest.approx(400 * PAGES / 64, rel=0.03)
    assert w.vm("workingset_nodes") > 0
    endless = world(files={"/big": 6000}, tasks={"app": "read_file /big 6000 0 | sleep 100"}).at(40)
    assert endless.vm("workingset_nodereclaim") > 0
    assert endless.vm("workingset_nodes") < 256 * PAGES / 8


def test_a_removed_cgroup_stays_charged_until_its_cache_is_gone() -> None:
    w = world(files={"/f": 40}, cgroups={"box": {}}, tasks={"box/app": "read_file /f 40 0 | stat_missing /w 9000 0"}).at(3)
    css_offline(w.row, 1)
    assert int(nr_dying_descendants(w.row, 0)) == 1
    assert int(w.cg("box")["usage"]) >= 40 * PAGES
    w.command(
        3, "start_task", spec=__import__("tests.host.worlds", fromlist=["task_spec"]).task_spec("x", "sysw /proc/sys/vm/drop_caches 3")
    )
    w.at(5)
    assert bool(css_free(w.row, 1)) and int(w.cg("box")["usage"]) == 0
    assert int(nr_dying_descendants(w.row, 0)) == 0


def test_one_survivor_pins_its_slab() -> None:
    w = world(tasks={"app": "stat_missing /w 2100 0 | sleep 99"}).at(1)
    dentry = INDEX["dentry"]
    slabs = int(w.row["slab"][dentry]["slabs"])
    kmem_cache_free(w.row, dentry, 1050, 1050)  # every second one survives
    assert int(w.row["slab"][dentry]["slabs"]) == slabs


@pytest.mark.parametrize("pipes", [1000])
def test_a_pipe_holds_a_page_that_only_its_tasks_exit_gives_back(pipes: int) -> None:
    w = world(cgroups={"box": {}}, tasks={"box/app": f"sleep 1 | pipes {pipes} 0 | sleep 3 | exit 0"})
    free, kernel = w.at(0.9).free(), int(w.cg("box")["kernel"])
    w.at(3)
    assert (free - w.free()) * PAGES == pytest.approx(pipes * (1 + 0.75), rel=0.1)
    assert int(w.cg("box")["kernel"]) - kernel > pipes
    assert w.meminfo("KReclaimable") == w.meminfo("SReclaimable")
    w.at(6)
    assert w.free() >= free - 0.1


def test_the_oldest_shadows_of_a_cgroup_are_found_as_a_look_at_every_cohort_finds_them() -> None:
    """Two readers in one cgroup, one in another; also where two cohorts are of the same age."""
    w = world(
        128,
        cgroups={"box": {}, "other": {}},
        files={"/a": 200, "/b": 150, "/c": 300},
        tasks={"box/a": "read_file /a 0 60", "box/b": "read_file /b 0 45", "other/c": "read_file /c 0 30"},
    ).at(20)
    cohorts = w.row["cohorts"]
    for cg in (1, 2, 1):
        has = [i for i in range(len(cohorts)) if cohorts[i]["evicted"] >= 64 and cohorts[i]["cg"] == cg and cohorts[i]["nr"] >= 0]
        assert has
        wanted = min(has, key=lambda i: (int(cohorts[i]["shadow"]), i))
        assert oldest_shadows(w.row, cg) == wanted
        cohorts["shadow"][has] = 7
        assert oldest_shadows(w.row, cg) == has[0]
    assert oldest_shadows(w.row, 0) == -1
