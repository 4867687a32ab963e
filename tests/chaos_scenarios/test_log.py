# SPDX-License-Identifier: Apache-2.0
"""A log broker that is sent more than its volume takes: memory hides it at first, then the kernel brakes the writers and producers wait."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.chaos_scenarios.stories import FOLDER, Story

NAME = "slow-disk-throttles-the-log"
OVER_S, UNDER_S = 280, 560  # from when to when producers send more than 125 MiB a second: a cosine around 7 minutes


def test_producers_wait_long_after_the_volume_is_outrun_and_are_well_when_the_rush_is_over(tmp_path: Path) -> None:
    story = Story.of(NAME, tmp_path, without_faults=True)
    slow, _, over = story.chain("latency start log-0/broker", "errors start log-0/broker", "latency end log-0/broker")
    assert slow.seconds - OVER_S > 30, "at first the memory takes what the volume does not"
    assert slow.seconds < UNDER_S
    assert over.seconds > UNDER_S, "what has piled up is worked off first"
    assert not [one for one in story.lines if one.seconds > over.seconds + 60]
    assert not story.all("killed|oom_kill|unresponsive")


def test_on_a_volume_that_keeps_up_nothing_happens(tmp_path: Path) -> None:
    fleet = yaml.safe_load((FOLDER / f"{NAME}.yaml").read_text())["fleet"]
    fleet[0]["disk"] = "nvme"
    story = Story.of(NAME, tmp_path, without_faults=True, fleet=fleet)
    assert {one.text.split()[0] for one in story.lines} == {"task_start"}
