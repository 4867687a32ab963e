# SPDX-License-Identifier: Apache-2.0
"""fsync and the journal: who waits for whom (fs/jbd2, recordings e16)."""

from __future__ import annotations

import pytest

from tests.host.worlds import PAGES, DiskSpec, world

SLOW = DiskSpec(bytes_per_s=20 << 20, latency_us=100.0)


def test_fsync_returns_when_the_file_is_on_disk() -> None:
    w = world(disk=SLOW, tasks={"w": "write_file /out 10 0 fsync | exit 0"}).at(0.4)
    assert w.task("w")["state"] == 2, "still waiting: 10 MiB take half a second"
    w.at(1)
    assert [e.t_ns / 1e9 for e in w.events("task_exit")] == pytest.approx([0.55], abs=0.08)
    assert (w.meminfo("Dirty"), w.meminfo("Writeback"), w.vm("nr_written")) == (0, 0, 10 * PAGES)


def test_an_fsync_queues_behind_what_others_wrote() -> None:
    """recordings e16: 1 MiB of a neighbour takes seconds."""
    w = world(
        disk=SLOW,
        tasks={"w": "write_file /out 2000 200 over wrap=100", "s": "sleep 10 | write_file /s 1 0 fsync | exit 0"},
    ).at(30)
    took = w.events("task_exit")[0].t_ns / 1e9 - 10
    alone = 1 / 20
    assert 10 * alone < took < 8


def test_while_a_commit_is_written_nobody_changes_the_files_in_it_and_others_go_on() -> None:
    """fs/jbd2 do_get_write_access: the writer of the same transaction stands still until the journal's blocks are through the queue."""
    w = world(disk=SLOW, tick_ms=0, tasks={"w": "write_file /out 2000 30 over wrap=100", "s": "sleep 4 | write_file /s 1 0 fsync"}).at(4)
    stalled, last = 0.0, w.progress_mib("w")
    for step in range(1, 60):
        w.at(4 + step * 0.05)
        stalled += 0.05 if w.progress_mib("w") == last else 0
        last = w.progress_mib("w")
    assert stalled > 0.4
    assert int(w.row["journal"]["tid"]) >= 1


def test_a_transaction_is_committed_after_five_seconds_without_any_fsync() -> None:
    w = world(tasks={"w": "write_file /out 1 100 | sleep 100"}).at(4.9)
    assert (int(w.row["journal"]["tid"]), w.vm("pgpgout")) == (0, 0)
    w.at(5.2)
    assert (int(w.row["journal"]["tid"]), w.vm("pgpgout")) == (1, 24), "kB: its six blocks, not the data"
    w.at(29)
    assert int(w.row["journal"]["tid"]) == 1, "nothing changed since"


def test_an_fsync_of_a_file_that_is_on_disk_already_costs_nothing() -> None:
    w = world(disk=SLOW, tasks={"w": "write_file /out 4 0 fsync | write_file /out 0 0 over fsync | exit 0"}).at(2)
    assert int(w.row["journal"]["tid"]) == 1
