# SPDX-License-Identifier: Apache-2.0
"""Scrape targets: which labels Prometheus puts on the series of one exporter on one host.

Rules: `job` and `instance` are templates per exporter; the defaults are kube-prometheus' relabelling (job
`node-exporter`, instance = the node's name without a port). Any further static labels may be given, as real sites do
(cluster, site, tier …), and are templates too. A label that both the exporter and the target set keeps the target's value;
the exporter's becomes `exported_NAME`, as Prometheus does without `honor_labels`.
Leaves out: relabelling rules; a template knows the host's and its group's name and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fleetsim.errors import BadInput

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class TargetTemplate:
    """How the targets of one exporter are labelled; `{host}` and `{group}` stand for names."""

    exporter: str = "node_exporter"
    job: str = "node-exporter"
    instance: str = "{host}"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ScrapeTarget:
    """One exporter on one host. `labels` holds job, instance and all further labels."""

    exporter: str
    host: str
    labels: Mapping[str, str]

    @property
    def key(self) -> str:
        """The label set as text: what the scrape offset is a hash of, hence the same on every machine and in any order."""
        return ",".join(f'{name}="{value}"' for name, value in sorted(self.labels.items()))


def make_target(host: str, group: str = "", template: TargetTemplate | None = None) -> ScrapeTarget:
    """The target of `template`'s exporter on `host`. An unusable label or placeholder is the caller's bad input."""
    template = template or TargetTemplate()
    names = {"host": host, "group": group}
    labels = {
        name: _fill(name, text, names) for name, text in {**template.labels, "job": template.job, "instance": template.instance}.items()
    }
    return ScrapeTarget(template.exporter, host, {name: value for name, value in sorted(labels.items()) if value})


def series_labels(name: str, own: Mapping[str, str], target: Mapping[str, str]) -> dict[str, str]:
    """All labels of a stored series: its name, its own labels, the target's; a clash becomes `exported_…`."""
    merged = {"__name__": name, **target}
    for label, value in own.items():
        while label in merged:
            label = f"exported_{label}"
        merged[label] = value
    return merged


def _fill(label: str, text: str, names: Mapping[str, str]) -> str:
    if not _LABEL_NAME.fullmatch(label) or label.startswith("__"):
        raise BadInput(f"target label {label!r} is not a label name; letters, digits and _ only, not starting with a digit or __")
    for placeholder in _PLACEHOLDER.findall(text):
        if placeholder not in names:
            raise BadInput(f"target label {label}: {text!r} names {{{placeholder}}}; known are: {{group}}, {{host}}")
    return _PLACEHOLDER.sub(lambda match: names[match.group(1)], text)
