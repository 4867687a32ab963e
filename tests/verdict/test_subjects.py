# SPDX-License-Identifier: Apache-2.0
"""Whom an alert names.

cluster one: db-1, db-2     cluster two: web-1     pod redis on db-1, from minute 10 on db-2     service cart on web-1
"""

from __future__ import annotations

import pytest

from fleetsim.rundir.models import Placement, Target
from fleetsim.verdict.subjects import Directory

HOSTS = {"db-1": "one", "db-2": "one", "web-1": "two"}
MINUTE = 60 * 10**9
DIRECTORY = Directory(
    list(HOSTS),
    [Target(labels={"job": "node", "instance": f"{h}:9100", "cluster": c}, exporter="node_exporter", host=h) for h, c in HOSTS.items()]
    + [Target(labels={"job": "kube-state-metrics", "instance": "10.0.0.9:8080"}, exporter="kube-state-metrics", host="web-1")],
    [
        Placement(kind="pod", name="redis", namespace="shop", host="db-1", to_ns=10 * MINUTE),
        Placement(kind="pod", name="redis", namespace="shop", host="db-2", from_ns=10 * MINUTE + 1),
        Placement(kind="service", name="cart", host="web-1"),
    ],
)


@pytest.mark.parametrize(
    ("labels", "hosts", "subjects"),
    [
        ({"instance": "db-1:9100", "job": "node"}, {"db-1"}, set()),
        ({"instance": "db-1"}, {"db-1"}, set()),  # without its port
        ({"node": "db-2"}, {"db-2"}, set()),
        ({"nodename": "web-1", "job": "node"}, {"web-1"}, set()),
        ({"cluster": "one"}, {"db-1", "db-2"}, set()),  # an aggregate contains these
        ({"cluster": "one", "instance": "db-2:9100"}, {"db-2"}, set()),
        ({}, {"db-1", "db-2", "web-1"}, set()),
        ({"severity": "page", "job": "unheard-of"}, {"db-1", "db-2", "web-1"}, set()),
        ({"pod": "redis", "namespace": "shop"}, {"db-1"}, {"redis"}),
        ({"pod": "redis", "namespace": "other"}, {"db-1", "db-2", "web-1"}, set()),
        ({"pod": "redis", "instance": "10.0.0.9:8080", "job": "kube-state-metrics"}, {"db-1"}, {"redis"}),  # not the speaker
        ({"service": "cart"}, {"web-1"}, {"cart"}),
    ],
)  # fmt: skip
def test_labels_name(labels: dict[str, str], hosts: set[str], subjects: set[str]) -> None:
    named = DIRECTORY.named(labels, 0, 5 * MINUTE)
    assert (set(named.hosts), set(named.subjects)) == (hosts, subjects)


def test_a_pod_is_where_it_stood_at_the_time() -> None:
    assert DIRECTORY.named({"pod": "redis"}, 20 * MINUTE, 21 * MINUTE).hosts == {"db-2"}
    assert DIRECTORY.named({"pod": "redis"}, 9 * MINUTE, 21 * MINUTE).hosts == {"db-1", "db-2"}
