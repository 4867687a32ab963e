# SPDX-License-Identifier: Apache-2.0
"""A rolling restart behind a load balancer: with preStop and a graceful shutdown nobody notices, without them users see errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chaos_scenarios.stories import FOLDER, Story

NAME = "rolling-restart-drops-requests"


def test_whoever_ends_gently_loses_nothing_and_whoever_does_not_loses_requests(tmp_path: Path) -> None:
    story = Story.of(NAME, tmp_path)
    chain = story.chain("rollout abrupt", "container_stop .*/abrupt", "errors start service abrupt", "errors end service abrupt")
    assert chain[0].seconds == 180 and chain[2].seconds < 200
    assert all("gentle" not in one.text for one in story.lines if "impact" in one.event["data"])
    for name, code, seconds in (("gentle", 0, 5), ("abrupt", 143, 0)):
        stops = {one.event["subject"]: one.seconds for one in story.all(f"container_stop .*/{name}-")}
        exits = {one.event["subject"]: one for one in story.all(f"task_exit .*/{name}-")}
        assert len(stops) == 3 and set(exits) == set(stops), "every one of the old ones, and none of the new"
        assert {one.event["data"]["exit_code"] for one in exits.values()} == {code}
        assert all(seconds <= exits[pod].seconds - stopped <= seconds + 2.1 for pod, stopped in stops.items())


@pytest.mark.parametrize(
    ("pod", "service", "errors"),
    [
        ({}, {}, True),
        ({"pre_stop": "5s"}, {}, False),  # its requests are short: nobody is there any more when SIGTERM comes
        ({"finish": "20s"}, {}, True),  # what it has is finished, but new ones still come for a second, and nobody listens
        ({}, {"retries": 1}, True),  # a third of the requests fails in that second, and 20 % may be tried again
        ({}, {"retries": 1, "retry_budget": 100}, False),  # all who are refused are answered by another replica
    ],
)
def test_what_helps(pod: dict[str, Any], service: dict[str, Any], errors: bool, tmp_path: Path) -> None:
    data = yaml.safe_load((FOLDER / f"{NAME}.yaml").read_text())
    group = data["fleet"][0]
    group["deployments"] = [{**group["deployments"][1], "restarts": ["30s"], **pod}]
    story = Story.of(NAME, tmp_path, fleet=[group], services=[{**data["services"][1], **service}], duration="80s", expect=[])
    assert bool(story.all("errors start service")) is errors
    assert story.all("rollout abrupt")
