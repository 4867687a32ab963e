# SPDX-License-Identifier: Apache-2.0
"""A cascade across replicas: one is lost, the others die of its load, and the outage outlives its cause until the load is low."""

from __future__ import annotations

from pathlib import Path

from tests.chaos_scenarios.stories import Story


def test_a_lost_replica_takes_the_others_with_it_and_the_service_comes_back_only_when_there_is_little_to_do(tmp_path: Path) -> None:
    story = Story.of("lost-replica-cascades", tmp_path)
    chain = story.chain(
        "fault_start memory_spike",
        "killed start .*/checkout",  # the one that was hit
        "unavailable start .*/checkout",  # it is no endpoint any more
        "killed start .*/checkout",  # others, of requests that queue
        "(latency|errors) start service checkout",
        "fault_end",
        "killed start .*/checkout",  # and whoever comes back
        "errors end service checkout",
    )
    target = chain[0].event["data"]["hosts"][0]
    assert chain[1].event["host"] == target
    killed = {one.event["host"] for one in story.all("^killed start")}
    assert killed == {"shop-0", "shop-1", "shop-2"}, "all three"
    fault_over, last_error = chain[5].seconds, story.all("errors end service")[-1].seconds
    assert fault_over == 330
    assert last_error - fault_over > 300, "it lasts long after its cause"
    assert last_error < 30 * 60, "and is over when the load has gone down"
    assert not [one for one in story.lines if one.seconds > 35 * 60], "the next peak hurts nobody: the load alone is not the cause"


def test_without_the_first_fault_nothing_happens(tmp_path: Path) -> None:
    story = Story.of("lost-replica-cascades", tmp_path, without_faults=True)
    assert {one.text.split()[0] for one in story.lines} == {"task_start"}
