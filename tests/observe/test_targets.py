# SPDX-License-Identifier: Apache-2.0
"""A target's labels: kube-prometheus' by default, a site's own on request."""

from __future__ import annotations

import pytest

from fleetsim.errors import BadInput
from fleetsim.observe.targets import TargetTemplate, make_target, series_labels


def test_by_default_the_instance_is_the_node_s_name_without_a_port() -> None:
    assert make_target("db-3").labels == {"instance": "db-3", "job": "node-exporter"}


def test_job_instance_and_further_labels_are_templates() -> None:
    bare = TargetTemplate(job="node", instance="{host}:9100", labels={"cluster": "eu-1", "fqdn": "{host}.{group}.example.org", "tier": ""})
    target = make_target("db-3", "db", bare)
    assert target.labels == {"cluster": "eu-1", "fqdn": "db-3.db.example.org", "instance": "db-3:9100", "job": "node"}, (
        "an empty label is none"
    )
    assert target.key == 'cluster="eu-1",fqdn="db-3.db.example.org",instance="db-3:9100",job="node"'


def test_job_and_instance_cannot_be_overwritten_by_a_static_label() -> None:
    assert make_target("db-3", template=TargetTemplate(labels={"instance": "x"})).labels["instance"] == "db-3"


def test_a_clash_keeps_the_target_s_label_and_renames_the_exporter_s() -> None:
    labels = series_labels("node_uname_info", {"nodename": "db-3", "release": "6.1"}, {"job": "node", "nodename": "site-name"})
    assert labels == {
        "__name__": "node_uname_info",
        "job": "node",
        "nodename": "site-name",
        "exported_nodename": "db-3",
        "release": "6.1",
    }


@pytest.mark.parametrize(
    ("label", "text", "sentence"),
    [
        ("rack-no", "7", "target label 'rack-no' is not a label name"),
        ("__name__", "x", "target label '__name__' is not a label name"),
        ("fqdn", "{hostname}.example.org", r"names \{hostname\}; known are: \{group\}, \{host\}"),
    ],
)
def test_an_unusable_label_is_refused_with_what_would_be_right(label: str, text: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        make_target("db-3", template=TargetTemplate(labels={label: text}))
