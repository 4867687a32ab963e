# SPDX-License-Identifier: Apache-2.0
"""Published rule files load unmodified; what is not one is refused with file, line and a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fleetsim.errors import BadInput
from fleetsim.verdict.rules import FILE_BYTES_MAX, RuleGroup, duration_ms, load_rule_files

pytestmark = pytest.mark.usefixtures("prometheus")

EVERYTHING = """
groups:
- name: first
  interval: 30s
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
    labels: {team: "42"}
- name: second
  limit: 10
  rules:
  - alert: Down
    expr: up == 0
    for: 1h30m
    keep_firing_for: 5m
    labels: {severity: page}
    annotations:
      summary: "{{ $labels.instance }} is down"
"""


def test_everything_a_rule_file_may_say_is_read(rule_file: Callable[..., Path]) -> None:
    first, second = load_rule_files([rule_file(EVERYTHING)]).groups
    assert (first.name, first.interval_ms, first.limit) == ("first", 30_000, 0)
    assert (second.name, second.interval_ms, second.limit) == ("second", None, 10)
    record, alert = first.rules[0], second.rules[0]
    assert (record.kind, record.name, record.labels, record.line) == ("record", "job:up:sum", {"team": "42"}, 6)
    assert (alert.kind, alert.name, alert.for_ms, alert.keep_ms, alert.line) == ("alert", "Down", 5_400_000, 300_000, 12)
    assert alert.annotations == {"summary": "{{ $labels.instance }} is down"}


@pytest.mark.parametrize(
    ("text", "ms"), [("0", 0), ("0s", 0), ("5m", 300_000), ("1d2h3m4s5ms", 93_784_005), ("1w", 604_800_000), (None, 0)]
)
def test_durations_are_prometheus_own(text: str | None, ms: int) -> None:
    assert duration_ms(text) == ms


def test_aliases_and_merge_keys_are_followed(rule_file: Callable[..., Path]) -> None:
    text = """
groups:
- name: g
  rules:
  - &base {alert: A, expr: up == 0, labels: &l {severity: page}}
  - {<<: *base, alert: B, labels: *l}
"""
    a, b = load_rule_files([rule_file(text)]).rules
    assert (a.name, b.name, b.expr, b.labels) == ("A", "B", "up == 0", {"severity": "page"})


def bomb(levels: int) -> str:
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join([*lines, "groups: []"])


BAD = [
    (b"\x7fELF\x02\x01\xff\x00" * 50, "not UTF-8 text (byte 6)"),
    (b"\x00\x01\x02", "is not valid YAML"),
    (b"groups:\n- name: [\n", "is not valid YAML"),
    (b"", "it must hold a mapping with the key `groups`"),
    (b"just words\n", "it must hold a mapping with the key `groups`"),
    (b"- a\n- b\n", "it must hold a mapping with the key `groups`"),
    (b"scrape_configs: []\n", "it has no `groups`, but 'scrape_configs'"),
    (b"kind: PrometheusRule\nspec: {groups: []}\n", "is a Kubernetes manifest, not a rule file; take out its spec"),
    (bomb(9).encode(), "expands to more than 500000 YAML nodes through its aliases"),
    (b"groups: " + b"[" * 60 + b"]" * 60, "is nested more than 50 levels deep"),
    (b"groups: &g [*g]\n", "(or contains itself)"),
    (b"groups: []\n#" + b"x" * FILE_BYTES_MAX, f"a rule file may have at most {FILE_BYTES_MAX}"),
    (b"groups:\n- name: g\n  colour: red\n  rules: []\n", ":3: is not a rule file that Prometheus accepts: "),
    (b"groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up ==\n", ":5: is not a rule file that Prometheus accepts: "),
    (b"groups:\n- name: g\n  rules:\n  - {alert: A, expr: up, for: 3q}\n", 'not a valid duration string: "3q"'),
    (b"groups:\n- name: g\n  rules:\n  - {alert: A, record: b, expr: up}\n", "is not a rule file that Prometheus accepts"),
]


@pytest.mark.parametrize(("content", "words"), BAD, ids=[words for _, words in BAD])
def test_what_is_no_rule_file_is_refused_in_one_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad.yml"
    path.write_bytes(content)
    with pytest.raises(BadInput) as refused:
        load_rule_files([path])
    assert words in str(refused.value) and str(path) in str(refused.value)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 700


def test_the_bad_file_among_good_ones_is_named(rule_file: Callable[..., Path]) -> None:
    good, bad = rule_file(EVERYTHING), rule_file("groups:\n- name: g\n  rules:\n  - {alert: A, expr: 'foo('}\n", "bad.yml")
    with pytest.raises(BadInput, match=r"bad\.yml:4:"):
        load_rule_files([good, bad])


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read: No such file or directory"):
        load_rule_files([tmp_path / "nowhere.yml"])
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        load_rule_files([tmp_path])
    with pytest.raises(BadInput, match="no rule file was given"):
        load_rule_files([])


def test_every_published_rule_file_loads(shared_dir: Path) -> None:
    files = sorted((shared_dir / "rules").glob("*/*.yml"))
    assert len(files) > 30
    loaded = load_rule_files(files)
    for file in files:  # against plain PyYAML: nothing lost, nothing misread
        groups = [group for group in loaded.groups if group.file == str(file)]
        wanted = yaml.safe_load(file.read_text())["groups"]
        assert [group.name for group in groups] == [group["name"] for group in wanted]
        for group, there in zip(groups, wanted, strict=True):
            mine = [(rule.name, rule.expr, rule.annotations) for rule in group.rules]
            theirs = [(r.get("alert") or r["record"], str(r["expr"]), r.get("annotations") or {}) for r in there["rules"]]
            assert mine == theirs


def test_every_published_expression_is_understood(shared_dir: Path) -> None:
    rules = load_rule_files(sorted((shared_dir / "rules").glob("*/*.yml"))).rules
    assert [rule.name for rule in rules if rule.selectors is None] == []


def test_a_groups_offset_is_its_own_and_the_same_in_every_folder() -> None:
    offsets = {RuleGroup(f"/any/{name}.yml", "g", None, 0, ()).offset_ms(60_000) for name in "abcdefgh"}
    assert len(offsets) == 8 and all(0 <= offset < 60_000 for offset in offsets)
    assert RuleGroup("/here/a.yml", "g", None, 0, ()).offset_ms(15_000) == RuleGroup("/there/a.yml", "g", None, 0, ()).offset_ms(15_000)
