# SPDX-License-Identifier: Apache-2.0
"""Writers, the flusher and the limits between them on a host (kernel-laws §4.2, recordings e16)."""

from __future__ import annotations

import pytest

from tests.host.worlds import PAGES, DiskSpec, World, world

SLOW = DiskSpec(bytes_per_s=20 << 20, latency_us=100.0)


def dirty(w: World) -> float:
    return w.meminfo("Dirty") + w.meminfo("Writeback")


def test_a_little_written_stays_dirty_until_it_is_thirty_seconds_old() -> None:
    w = world(tasks={"w": "write_file /out 8 100 | sleep 100"}).at(29)
    assert (w.meminfo("Dirty"), w.vm("nr_dirtied"), w.vm("nr_written")) == (8, 8 * PAGES, 0)
    assert w.meminfo("Cached") >= 8
    w.at(36)
    assert (w.meminfo("Dirty"), w.vm("nr_written")) == (0, 8 * PAGES), "the first look after its time"


def test_the_age_and_the_looks_are_settings() -> None:
    quick = {"vm.dirty_expire_centisecs": 150, "vm.dirty_writeback_centisecs": 100}
    w = world(tasks={"w": "write_file /out 8 100 | sleep 100"}, sysctl=quick)
    assert w.at(1.9).meminfo("Dirty") == 8
    assert w.at(2.5).meminfo("Dirty") == 0


def test_without_periodic_looks_nothing_is_ever_too_old() -> None:
    w = world(tasks={"w": "write_file /out 8 100 | sleep 1000"}, sysctl={"vm.dirty_writeback_centisecs": 0}).at(100)
    assert w.meminfo("Dirty") == 8


def test_above_the_background_limit_the_flusher_writes_down_to_it_and_nobody_is_braked() -> None:
    w = world(tasks={"w": "write_file /out 30 40 | sleep 100"}).at(3)
    background = w.vm("nr_dirty_background_threshold") / PAGES
    assert w.meminfo("Dirty") <= background < 30
    assert w.progress_mib("w") == 30
    assert int(w.row["psi_total_us"][1][0]) == 0
    assert w.vm("pgpgout") / 1024 >= 30 - background


def test_a_writer_faster_than_its_disk_is_braked_to_the_disks_speed_and_the_limit_holds() -> None:
    """recordings e16: dirty pages up to the limit, the writer at the speed of the disk, IO pressure and no memory pressure."""
    w = world(disk=SLOW, tasks={"w": "write_file /out 2000 200 over wrap=100 | sleep 100"}).at(10)
    begun = w.progress_mib("w")
    for second in range(11, 41):
        w.at(second)
        assert dirty(w) * PAGES <= 1.02 * w.vm("nr_dirty_threshold")
    assert (w.progress_mib("w") - begun) / 30 == pytest.approx(20, rel=0.1)
    assert int(w.row["psi_total_us"][1][0]) > 20_000_000
    assert int(w.row["psi_total_us"][2][0]) == 0
    assert int(w.task("w")["blkio_ns"]) > 15e9


def test_two_writers_share_the_disk_evenly() -> None:
    w = world(disk=SLOW, cpus=2, tasks={"a": "write_file /a 2000 200 over wrap=60", "b": "write_file /b 2000 200 over wrap=60"}).at(10)
    begun = w.progress_mib("a"), w.progress_mib("b")
    w.at(40)
    a, b = w.progress_mib("a") - begun[0], w.progress_mib("b") - begun[1]
    assert (a + b) / 30 == pytest.approx(20, rel=0.1)
    assert 0.6 < a / b < 1.7


def test_limits_in_bytes_win_over_ratios_and_writing_the_one_clears_the_other() -> None:
    limits = {"vm.dirty_background_bytes": 4 << 20, "vm.dirty_bytes": 8 << 20}
    w = world(tasks={"w": "sleep 1 | write_file /out 30 0 | sleep 100"}, sysctl=limits).at(3)
    assert int(w.row["sysctl"]["dirty_ratio"]) == 0
    assert (w.vm("nr_dirty_threshold"), w.vm("nr_dirty_background_threshold")) == (8 * PAGES, 4 * PAGES)
    assert w.meminfo("Dirty") <= 4
    w.command(4, "sysctl", name="vm.dirty_ratio", value=20)
    w.at(5)
    assert int(w.row["sysctl"]["dirty_bytes"]) == 0


def test_a_small_cgroup_is_braked_by_its_own_limits_and_its_neighbour_is_not() -> None:
    """kernel-laws §4.2: 20 % of what a cgroup has cached and could still get."""
    w = world(
        512,
        disk=SLOW,
        cgroups={"box": {"memory.max": 30}, "big": {}},
        tasks={"box/w": "write_file /a 400 100 over wrap=10 | sleep 100", "big/n": "sleep 5 | write_file /b 10 40 | sleep 100"},
    ).at(5.4)
    box, big = w.cg("box"), w.cg("big")
    assert 0 < int(box["file_dirty"] + box["file_writeback"]) <= 0.2 * 30 * PAGES * 1.1
    assert int(big["file_dirty"]) == 10 * PAGES, "far below its own limits: not even written out"
    assert w.progress_mib("n") == 10
    assert int(box["psi_total_ns"][1][0]) > 3e9


def test_the_flusher_works_for_the_cgroup_that_wrote_and_not_for_those_around_it() -> None:
    """fs/fs-writeback.c wb_over_bg_thresh: each cgroup's writeback looks at its own limits; those around it have no files."""
    w = world(
        memory_mib=512,
        disk=DiskSpec(bytes_per_s=100 << 20, latency_us=100.0),
        cgroups={"box": {"memory.max": 64}, "box/inner": {"memory.max": 64}},
        tasks={"box/inner/w": "mmap_anon A 40 | touch A 40 0 | write_file /a 200 0 | sleep 100"},
    ).at(12)
    assert int(w.row["files"][0]["size"]) == 200 * PAGES, "at the speed of the disk: not stopped until dirty pages are old"


def test_dirty_pages_of_a_cgroup_are_counted_up_its_tree_and_gone_when_written() -> None:
    w = world(
        cgroups={"box": {}, "box/inner": {}}, tasks={"box/inner/w": "write_file /a 6 100 fsync | write_file /a 4 100 over | sleep 100"}
    ).at(3)
    for name in ("box", "inner"):
        assert int(w.cg(name)["file_dirty"]) == 4 * PAGES
        assert int(w.cg(name)["file_writeback"]) == 0
        assert int(w.cg(name)["file"]) == 6 * PAGES


def test_writing_neither_activates_pages_nor_marks_them_referenced() -> None:
    """Only reads do, since Linux 4.7 (recordings e16: a file overwritten eight times stays inactive)."""
    w = world(tasks={"w": "write_file /out 40 200 over | write_file /out 40 200 over | sleep 1 | read_file /out 40 200 | sleep 100"}).at(1)
    assert (w.meminfo("Active(file)"), w.vm("pgactivate")) == (0, 0)
    w.at(3)
    assert w.meminfo("Active(file)") == 0, "one read is a first touch"
    assert w.vm("pgpgin") == 0, "what was written is read from the cache"


def test_what_is_written_can_be_read_by_another_task_and_read_again_from_disk() -> None:
    w = world(
        256,
        tasks={
            "w": "write_file /log 60 100 fsync | sleep 100",
            "r": "sleep 2 | read_file /log 60 200 | sleep 100",
            "hog": "sleep 4 | mmap_anon A 190 | touch A 190 100 | sleep 1 | free A munmap",
        },
    ).at(3)
    assert (w.progress_mib("r"), w.vm("pgpgin")) == (60, 0)
    w.at(8)
    assert w.meminfo("Cached") < 30, "clean pages go as any others"
    assert w.meminfo("Dirty") == 0


def test_written_pages_cost_buffer_heads_that_go_with_them() -> None:
    """39 of 104 bytes to a slab page: 2.6 % beside the pages; pages only read have none."""
    w = world(files={"/f": 39}, tasks={"w": "sleep 1 | write_file /out 39 200 | sleep 1 | unlink /out | read_file /f 39 200 | sleep 100"})
    before = w.at(0.5).meminfo("SReclaimable")
    nodes = 39 / 64 * 2 / 14  # of the tree that finds them: one per 64 pages, 14 to two pages of slab
    assert w.at(1.9).meminfo("SReclaimable") - before == pytest.approx(1 + nodes, abs=0.02)
    assert w.at(4).meminfo("SReclaimable") - before == pytest.approx(nodes, abs=0.02), "the file read has nodes, but no heads"


def test_a_file_written_again_from_its_start_is_cut_and_its_dirty_pages_are_never_written() -> None:
    w = world(tasks={"w": "write_file /out 10 200 | write_file /out 4 200 | sleep 100"}).at(2)
    assert (w.meminfo("Dirty"), w.vm("nr_dirtied"), w.vm("nr_written")) == (4, 14 * PAGES, 0)
    assert int(w.row["files"][0]["size"]) == 4 * PAGES


def test_over_keeps_what_the_file_has() -> None:
    w = world(files={"/out": 10}, tasks={"w": "write_file /out 4 200 over | read_file /out 10 200 | sleep 100"}).at(2)
    assert int(w.row["files"][0]["size"]) == 10 * PAGES
    assert w.vm("pgpgin") == 6 * 1024, "whole pages are written without being read"


def test_a_write_file_of_nothing_makes_an_empty_file() -> None:
    w = world(files={"/old": 10}, tasks={"w": "write_file /new 0 5 | write_file /old 0 5 | read_file /new 5 5 | sleep 100"}).at(1)
    assert [int(f["size"]) for f in w.row["files"][:2]] == [0, 0]
    assert [int(f["linked"]) for f in w.row["files"][:2]] == [1, 1]


@pytest.mark.parametrize("tick_ms", [0, 200])
def test_a_tick_changes_little(tick_ms: float) -> None:
    w = world(disk=SLOW, tick_ms=tick_ms, tasks={"w": "write_file /out 2000 80 over wrap=100 | sleep 100"}).at(20)
    assert w.progress_mib("w") == pytest.approx(20 * 20, rel=0.15)


def test_a_slow_disk_slows_its_writer_down_and_a_failing_one_loses_the_pages() -> None:
    w = world(disk=SLOW, tasks={"w": "write_file /out 4000 100 over wrap=60 | sleep 100"}).at(10)
    begun = w.progress_mib("w")
    w.command(10, "disk", disk="data", slow_percent=400)
    w.at(40)
    assert (w.progress_mib("w") - begun) / 30 == pytest.approx(5, rel=0.25)
    w.command(40, "disk", disk="data", failing=1)
    w.at(60)
    assert int(w.row["disk"][0]["errors"]) > 0
