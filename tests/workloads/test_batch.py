# SPDX-License-Identifier: Apache-2.0
"""A batch job: how much it reads, holds and writes, when it begins and ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fleetsim.containers.batch import Batch
from fleetsim.workloads import batch
from scripts.worlds.pods import work_of, world_of

PAGES = 256


def job(**more: Any) -> dict[str, Any]:
    return {"workload": "batch", "input": "/data/in", **more}


def slot(world: Any, number: int) -> int:
    return int(work_of(world, "job")["slots"][number])


def test_a_job_without_a_next_time_ends_with_exit_code_0_and_is_not_started_again() -> None:
    world = world_of(256, files={"/data/in": 100}, job=job()).at(30)
    (end,) = world.events("task_exit")
    assert end.data["exit_code"] == 0
    assert int(world.row["disk"][0]["pages"][0]) == 100 * PAGES
    assert [event.kind for event in world.events("op_start", "op_end")] == ["op_start", "op_end"]


def test_its_memory_grows_with_what_it_read_up_to_the_work_memory_and_goes_at_the_end() -> None:
    world = world_of(512, files={"/data/in": 200}, job=job(work_memory="60MiB", rate="20MiB/s", every="1h", output="/data/out"))
    base = world.at(0.1).meminfo("AnonPages")
    held = [world.at(second).meminfo("AnonPages") - base for second in (1, 2, 4, 8)]
    assert held[0] == pytest.approx(20, abs=6)
    assert held[1] == pytest.approx(40, abs=6)
    assert held[2:] == [pytest.approx(60, abs=1)] * 2, "no more than the work memory"
    assert slot(world, batch.WRITTEN) >= 60 * PAGES, "the first run was written out"
    world.at(20)
    assert world.meminfo("AnonPages") == pytest.approx(base, abs=1)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 60), st.sampled_from([0, 3, 17, 200]), st.sampled_from([0.0, 10.0, 100.0, 150.0]), st.booleans())
def test_what_it_writes_is_its_share_of_what_it_reads_whatever_the_runs(size: int, memory: int, share: float, fsync: bool) -> None:
    keys = job(size=f"{size}MiB", work_memory=f"{memory}MiB", output="/data/out", output_share=share, fsync=fsync)
    world = world_of(512, files={"/data/in": 25}, job=keys).at(30)
    assert slot(world, batch.READ) == size * PAGES
    assert slot(world, batch.WRITTEN) == int(size * PAGES * share / 100)
    out = world.row["files"][world.shard.names_of(0).files["/data/out"]]
    assert int(out["size"]) == slot(world, batch.WRITTEN)
    if fsync:
        assert int(out["dirty"]) == 0
    assert [event.data["exit_code"] for event in world.events("task_exit")] == [0]


def test_a_pace_is_kept_and_without_one_it_is_as_fast_as_the_disk() -> None:
    paced = world_of(256, files={"/data/in": 400}, job=job(rate="10MiB/s")).at(10)
    assert slot(paced, batch.READ) == pytest.approx(100 * PAGES, rel=0.05)
    fast = world_of(256, files={"/data/in": 4000}, job=job()).at(1)
    assert slot(fast, batch.READ) > 300 * PAGES


def test_every_night_at_its_time_of_the_day() -> None:
    """The host is booted at 01:00; the job runs at 02:00, and an hour and a half later again."""
    world = world_of(256, files={"/data/in": 10}, boot_unix_s=1_704_067_200 + 3600, job=job(at="2h", every="90m"))
    world.at(3599)
    assert slot(world, batch.READ) == 0
    assert not world.events("op_start")
    world.at(3600 + 5400 + 60)
    begun = [event.t_ns / 1e9 for event in world.events("op_start")]
    assert begun == [pytest.approx(3600, abs=0.1), pytest.approx(9000, abs=0.1)]
    assert not world.events("task_exit")


def test_bad_arguments_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValidationError, match="'output' is the input '/data/in'; write to another file"):
        Batch.model_validate({"input": "/data/in", "output": "/data/in"})
