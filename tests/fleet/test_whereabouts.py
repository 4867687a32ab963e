# SPDX-License-Identifier: Apache-2.0
"""targets.json follows pods: where each stood, from when to when, and whom an alert names by it."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fleetsim.fleet.history import History
from fleetsim.fleet.plan import make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.fleet.whereabouts import Whereabouts, joined
from fleetsim.host.spec import Event
from fleetsim.rundir.models import Target
from fleetsim.verdict.subjects import Directory

S = 10**9
SCENARIO = """\
summary: x
duration: 10m
fleet:
  - hosts: 2
    name: node
    memory: 1GiB
    pods: [{name: agent, workload: idle}]
    deployments: [{name: web, replicas: 1, workload: web, working_set: 16MiB}]
services: [{name: shop, pods: web, load: 10/s}]
"""

spans = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=8)


@given(spans, st.booleans())
def test_joined_spans_cover_the_same_seconds_without_touching_one_another(found: list[tuple[int, int]], endless: bool) -> None:
    given_spans: list[tuple[int, int | None]] = [*found, (25, None)] if endless else [*found]

    def covered(spans: list[tuple[int, int | None]]) -> set[int]:
        return {second for start, end in spans for second in range(start, 50 if end is None else end)}

    result = joined(given_spans)
    assert covered(result) == covered(given_spans)
    assert all(end is not None and end < start for (_, end), (start, _) in itertools.pairwise(result))


def test_a_pod_stands_where_it_was_bound_until_its_last_process_is_gone_and_alerts_mean_it_there(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(SCENARIO, encoding="utf-8")
    plan = make_plan(load_scenario(file))
    whereabouts = Whereabouts()
    (first,) = (one for one in whereabouts.placements(plan) if one.name.startswith("web-"))
    other = next(host for host in ("node-0", "node-1") if host != first.host)
    later = "web-123456789-abcde"
    whereabouts.take([Event(60 * S, other, 1, "schedule", later), Event(70 * S, first.host, 2, "pod_gone", first.name)])
    places = list(whereabouts.placements(plan))
    assert [(p.name, p.host, p.from_ns, p.to_ns) for p in places if p.kind == "pod" and p.name != "agent"] == [
        (first.name, first.host, 0, 70 * S),
        (later, other, 60 * S, None),
    ]
    assert {(p.name, p.host, p.from_ns, p.to_ns) for p in places if p.kind == "service"} == {
        ("shop", first.host, 0, 70 * S),
        ("shop", other, 60 * S, None),
    }
    targets = [Target(labels={"instance": host}, exporter="node", host=host) for host in ("node-0", "node-1")]
    directory = Directory(["node-0", "node-1"], targets, places)
    both = frozenset({"node-0", "node-1"})
    for label, name, since, until, hosts in (
        ("pod", first.name, 10, 20, {first.host}),
        ("pod", later, 100, 110, {other}),
        ("service", "shop", 10, 20, {first.host}),
        ("service", "shop", 65, 66, both),
        ("service", "shop", 100, 110, {other}),
    ):
        named = directory.named({label: name}, since * S, until * S)
        assert (named.hosts, named.subjects) == (hosts, {name}), (label, name, since)
    assert directory.named({"pod": first.name}, 100 * S, 110 * S).subjects == frozenset(), "it is not there any more"


def test_a_pod_whose_name_only_begins_like_a_deployments_is_not_its(tmp_path: Path) -> None:
    """A fixed pod web-cache-redis beside the Deployment web: where the service of web stands is where web's replicas are."""
    file = tmp_path / "x.yaml"
    file.write_text(SCENARIO.replace("{name: agent, workload: idle}", "{name: web-cache-redis, workload: idle}"), encoding="utf-8")
    places = list(Whereabouts().placements(make_plan(load_scenario(file))))
    (replica,) = (one for one in places if one.kind == "pod" and one.name != "web-cache-redis")
    assert {one.host for one in places if one.kind == "service"} == {replica.host}


def test_an_impact_of_a_replica_names_its_pod_and_deployment(tmp_path: Path) -> None:
    """Also one with several containers, whose processes are called after pod and container, and a child that it has forked."""
    file = tmp_path / "x.yaml"
    file.write_text(SCENARIO, encoding="utf-8")
    history = History(make_plan(load_scenario(file)))
    pod = "web-123456789-abcde"
    for number, subject in enumerate((pod, f"{pod}.app", f"{pod}.app-child", f"{pod}-child", "agent", "other-123456789-abcde")):
        history.take([Event(S, "node-0", number, "impact_start", subject, {"impact": "killed"})])
    told = [(event.data.get("pod"), event.data.get("deployment")) for event in history.events]
    assert told == [(pod, "web")] * 4 + [("agent", None), (None, None)]
