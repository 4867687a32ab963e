# SPDX-License-Identifier: Apache-2.0
"""A log broker: what it appends, keeps and deletes, how its consumers read, and how a slow disk is felt by producers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fleetsim.containers.log import Log
from fleetsim.host.spec import DiskSpec
from fleetsim.workloads import log
from scripts.worlds.pods import mean_ms, mib, work_of, world_of
from tests.host.worlds import World

SLOW = DiskSpec(bytes_per_s=20 << 20, latency_us=500.0)


def broker(**more: Any) -> dict[str, Any]:
    keys = {"workload": "log", "path": "/data/log", "record": "16KiB", "segment": "20MiB", "retention": "80MiB", "heap": "16MiB"}
    return {**keys, "load": "640/s", "workers": 8, "queue": 2000, **more}


def slot(world: World, number: int) -> int:
    return int(work_of(world, "log")["slots"][number])


def segments(world: World) -> list[float]:
    return [mib(int(world.row["files"][f]["size"])) for path, f in world.shard.names_of(0).files.items() if path.startswith("/data/log/")]


def test_what_is_produced_is_appended_and_the_oldest_segments_go() -> None:
    """10 MiB/s into segments of 20 MiB, four of them: after half a minute three are full and one is being filled."""
    world = world_of(512, log=broker()).at(6)
    assert mib(slot(world, log.END)) == pytest.approx(60 - 5, abs=6), "a batch a second"
    assert sorted(segments(world))[-2:] == [20, 20], "full ones"
    world.at(31)
    assert mib(slot(world, log.END)) == pytest.approx(310 - 5, abs=6)
    assert sum(segments(world)) == pytest.approx(60 + mib(slot(world, log.AT)), abs=0.01)
    assert sum(segments(world)) <= 80
    server = work_of(world, "log")["server"]
    assert slot(world, log.END) * 4096 == pytest.approx(int(server["served"]) * 16384, abs=16384 * 700)


def test_deleting_a_segment_gives_its_page_cache_back() -> None:
    world = world_of(512, log=broker()).at(60)
    assert world.meminfo("Cached") < 80 + 40, "600 MiB were written"


def test_consumers_at_the_tail_read_from_the_page_cache_and_one_that_lags_from_disk() -> None:
    tail = world_of(256, log=broker(segment="80MiB", retention="320MiB")).at(30)
    assert slot(tail, log.TAIL) >= slot(tail, log.END) - 11 * 256, "all but the last second"
    assert slot(tail, log.FROM_DISK) == 0
    lag = world_of(256, log=broker(segment="80MiB", retention="640MiB", lag="220MiB")).at(60)
    assert slot(lag, log.BEHIND) >= slot(lag, log.END) - 240 * 256
    assert mib(slot(lag, log.FROM_DISK)) > 100, "300 MiB of old pages in a host of 256"


def test_who_lags_more_than_the_retention_loses_what_was_deleted() -> None:
    world = world_of(512, log=broker(lag="75MiB", segment="20MiB", retention="60MiB")).at(30)
    assert slot(world, log.LOST) > 0


def test_producers_do_not_feel_a_disk_that_keeps_up_and_feel_one_that_does_not() -> None:
    """30 MiB/s: at first memory takes it all; once a fifth of it is dirty the disk's 20 MiB/s are the speed limit."""
    quick = world_of(512, log=broker(load="1920/s")).at(30)
    assert mean_ms(work_of(quick, "log")["server"]) < 5
    world = world_of(512, disk=SLOW, log=broker(load="1920/s", segment="200MiB", retention="800MiB")).at(3)
    server = work_of(world, "log")["server"]
    assert mean_ms(server) < 5, "nothing is felt yet"
    world.at(30)
    late, served, end = int(server["latency_sum_us"]), int(server["served"]), slot(world, log.END)
    world.at(45)
    assert (int(server["latency_sum_us"]) - late) / 1000 / (int(server["served"]) - served) > 200
    assert mib(slot(world, log.END) - end) / 15 == pytest.approx(20, rel=0.15), "as fast as the disk, not faster"
    assert world.meminfo("Dirty") + world.meminfo("Writeback") < 0.21 * 512


def test_segments_of_a_wrong_size_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValidationError, match="'retention' is 2 to 8 times 'segment'"):
        Log.model_validate({"path": "/data/log", "segment": "1GiB", "retention": "20GiB"})
