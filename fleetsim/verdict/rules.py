# SPDX-License-Identifier: Apache-2.0
"""Published Prometheus rule files, loaded unmodified.

The real `promtool check rules` says whether a file is one; what is read here is only what evaluation needs. Before
promtool sees a file it is checked for what would hurt rather than fail: not text, too big, or YAML aliases that
expand to millions of nodes. Every refusal is one sentence with file and line.
Leaves out: Kubernetes `PrometheusRule` manifests (recognised, and told how to be unwrapped).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fleetsim.errors import BadInput
from fleetsim.verdict.needs import Selector, selectors
from fleetsim.verdict.prometheus import run_promtool

FILE_BYTES_MAX = 4 * 1024 * 1024  # the largest published file known is 83 kB
NODES_MAX = 500_000  # after aliases are expanded; that same file has 5,000
DEPTH_MAX = 50
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Rule:
    """One alerting or recording rule. `name` is the alert's name or the metric it records."""

    kind: str  # "alert" | "record"
    name: str
    expr: str
    file: str
    group: str
    line: int
    for_ms: int = 0
    keep_ms: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def selectors(self) -> tuple[Selector, ...] | None:
        return selectors(self.expr)


@dataclass(frozen=True)
class RuleGroup:
    """`interval_ms` None: the server's own evaluation interval. `limit` 0: none."""

    file: str
    name: str
    interval_ms: int | None
    limit: int
    rules: tuple[Rule, ...]

    def offset_ms(self, interval_ms: int) -> int:
        """Where inside the interval a live server would evaluate this group: a hash, so that groups do not queue up."""
        digest = hashlib.sha256(f"{Path(self.file).name}\0{self.name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % interval_ms


@dataclass(frozen=True)
class RuleSet:
    files: tuple[Path, ...]
    groups: tuple[RuleGroup, ...]

    @property
    def rules(self) -> list[Rule]:
        return [rule for group in self.groups for rule in group.rules]

    @property
    def alerts(self) -> list[str]:
        return sorted({rule.name for rule in self.rules if rule.kind == "alert"})


def load_rule_files(files: Sequence[Path]) -> RuleSet:
    if not files:
        raise BadInput("no rule file was given; name one or more Prometheus rule files")
    unique = tuple(dict.fromkeys(Path(file) for file in files))
    documents = [_document(file) for file in unique]
    _promtool_agrees(unique)
    groups: list[RuleGroup] = []
    for file, node in zip(unique, documents, strict=True):
        groups += _groups(file, node)
    return RuleSet(unique, tuple(groups))


def _document(file: Path) -> yaml.MappingNode:
    """The file's YAML as a node graph (aliases not expanded), or one sentence why it is not a rule file."""
    try:
        size = file.stat().st_size
        if size > FILE_BYTES_MAX:
            raise BadInput(f"is {size} bytes long; a rule file may have at most {FILE_BYTES_MAX}", file=file)
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"is not a rule file: not UTF-8 text (byte {error.start})", file=file) from None
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", file=file) from None
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise BadInput(f"is not valid YAML: {error.problem or error.context}", file=file, line=line) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise BadInput(f"is not valid YAML: {str(error).splitlines()[0]}", file=file) from None
    if not isinstance(node, yaml.MappingNode):
        raise BadInput("is not a rule file: it must hold a mapping with the key `groups`", file=file, line=1)
    if _expanded(node, file, {}, 0) > NODES_MAX:
        raise BadInput(f"expands to more than {NODES_MAX} YAML nodes through its aliases; write them out", file=file)
    keys = {key.value: key for key, _ in node.value}
    if "spec" in keys and "kind" in keys:
        raise BadInput(
            "is a Kubernetes manifest, not a rule file; take out its spec (`yq .spec`)", file=file, line=keys["kind"].start_mark.line + 1
        )
    if "groups" not in keys:
        line = node.start_mark.line + 1
        raise BadInput(f"is not a rule file: it has no `groups`, but {', '.join(map(repr, list(keys)[:5]))}", file=file, line=line)
    return node


def _expanded(node: yaml.Node, file: Path, known: dict[int, int], depth: int) -> int:
    """How many nodes there are once every alias is written out; each node is visited once, so a bomb is cheap."""
    if depth > DEPTH_MAX:
        raise BadInput(f"is nested more than {DEPTH_MAX} levels deep (or contains itself)", file=file, line=node.start_mark.line + 1)
    if id(node) not in known:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_expanded(child, file, known, depth + 1) for child in children)
    return known[id(node)]


def _promtool_agrees(files: Sequence[Path]) -> None:
    if run_promtool(["check", "rules", "--lint=none", *map(str, files)]).returncode == 0:
        return
    for file in files:  # again one by one, to blame the right file
        result = run_promtool(["check", "rules", "--lint=none", str(file)])
        if result.returncode:
            raise _refusal(file, result.stdout + "\n" + result.stderr)


def _refusal(file: Path, output: str) -> BadInput:
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.strip().startswith(("Checking", "FAILED"))]
    text = (" ".join(lines) or "promtool check rules failed without a word").removeprefix(f"{file}: ")
    where = re.search(r"\b(\d+):\d+: ", text) or re.search(r"line (\d+): ", text)
    text = re.sub(r"^\d+:\d+: ", "", text).replace("yaml: unmarshal errors: ", "")
    return BadInput(f"is not a rule file that Prometheus accepts: {text[:400]}", file=file, line=int(where.group(1)) if where else None)


def _groups(file: Path, document: yaml.MappingNode) -> Iterator[RuleGroup]:
    """promtool has accepted the file, so its shape is known."""
    for node in _items(_child(document, "groups")):
        name = _scalar(node, "name") or ""
        interval = _scalar(node, "interval")
        rules = tuple(_rule(file, name, rule) for rule in _items(_child(node, "rules")))
        yield RuleGroup(str(file), name, duration_ms(interval) or None, int(_scalar(node, "limit") or 0), rules)


def _rule(file: Path, group: str, node: yaml.MappingNode) -> Rule:
    kind = "alert" if _scalar(node, "alert") else "record"
    return Rule(
        kind=kind,
        name=_scalar(node, kind) or "",
        expr=_scalar(node, "expr") or "",
        file=str(file),
        group=group,
        line=node.start_mark.line + 1,
        for_ms=duration_ms(_scalar(node, "for")),
        keep_ms=duration_ms(_scalar(node, "keep_firing_for")),
        labels=_texts(_child(node, "labels")),
        annotations=_texts(_child(node, "annotations")),
    )


_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}


def duration_ms(text: str | None) -> int:
    """Prometheus' own notation (`1h30m`, `0`); 0 when there is none. Its form was checked by promtool."""
    return sum(int(number) * _UNIT_MS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", text or ""))


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                return value
            if name.tag == "tag:yaml.org,2002:merge":  # `<<: *defaults`
                merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
                found = next((hit for part in merged if (hit := _child(part, key)) is not None), None)
                if found is not None and not any(other.value == key for other, _ in node.value):
                    return found
    return None


def _items(node: yaml.Node | None) -> list[Any]:
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _scalar(node: yaml.Node, key: str) -> str | None:
    """As written: YAML's own types do not matter to Prometheus, which reads every scalar here as text."""
    child = _child(node, key)
    if not isinstance(child, yaml.ScalarNode) or child.tag == "tag:yaml.org,2002:null":
        return None
    return str(child.value)


def _texts(node: yaml.Node | None) -> dict[str, str]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {str(key.value): str(value.value) for key, value in node.value}
