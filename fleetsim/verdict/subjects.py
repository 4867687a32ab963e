# SPDX-License-Identifier: Apache-2.0
"""Whom an alert names: from its labels to hosts and pods, by what targets.json says.

    1. labels that targets carry (job, instance, cluster …) leave the targets that agree with all of them
    2. a label whose value is a host's name (node, nodename, instance without port …) leaves that host
    3. a label that names a pod or a service leaves the hosts it stood on, and names it as well

A label that contradicts everything known (`instance` of kube-state-metrics beside the `pod` it speaks of) is passed
over. Labels the rule itself attaches say nothing about whom it names. What is left after all labels is who the alert
is about; an aggregate over the fleet names all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleetsim.rundir.models import Placement, Target

HOST_LABELS = ("node", "nodename", "host", "hostname", "instance", "exported_instance", "exported_node", "kubernetes_node", "fqdn")
POD_LABELS = ("pod", "pod_name", "exported_pod")
SERVICE_LABELS = ("service", "service_name", "exported_service")


@dataclass(frozen=True)
class Named:
    """`subjects`: pods and services the labels name; empty: the hosts as such."""

    hosts: frozenset[str]
    subjects: frozenset[str]


class Directory:
    def __init__(self, hosts: Sequence[str], targets: Sequence[Target], placements: Sequence[Placement]) -> None:
        self._hosts = frozenset(hosts)
        self._by_label: dict[tuple[str, str], set[str]] = {}
        for target in targets:
            for pair in target.labels.items():
                self._by_label.setdefault(pair, set()).add(target.host)
        self._placements = placements

    def named(self, labels: Mapping[str, str], from_ns: int, to_ns: int) -> Named:
        """Whom these labels name between the two instants of virtual time."""
        subjects: set[str] = set()
        left = self._hosts
        for kind, names in (("pod", POD_LABELS), ("service", SERVICE_LABELS)):
            for name in names:
                if (value := labels.get(name)) and (stood := self._stood(kind, value, labels.get("namespace"), from_ns, to_ns)):
                    subjects.add(value)
                    left = left & stood or left
        for name in HOST_LABELS:
            value = labels.get(name, "")
            for host in (value, value.rsplit(":", 1)[0]):
                if host in left:
                    left = frozenset({host})
        for pair in sorted(labels.items()):
            if pair in self._by_label:
                left = left & self._by_label[pair] or left
        return Named(left, frozenset(subjects))

    def _stood(self, kind: str, name: str, namespace: str | None, from_ns: int, to_ns: int) -> frozenset[str]:
        return frozenset(
            placement.host
            for placement in self._placements
            if placement.kind == kind
            and placement.name == name
            and (not namespace or not placement.namespace or placement.namespace == namespace)
            and placement.from_ns <= to_ns
            and (placement.to_ns is None or placement.to_ns >= from_ns)
        )
