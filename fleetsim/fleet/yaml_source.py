# SPDX-License-Identifier: Apache-2.0
"""A YAML file as plain data that still knows the line of every value.

Rules: a file is at most 1 MiB, 40 levels deep and 50,000 values *after* its aliases are expanded (a YAML bomb is a few
hundred bytes that expand to gigabytes); a key stands once; tags are refused. Scalars follow YAML 1.2's core schema, in
which `on`, `yes` and `1:30` are text: in YAML 1.1 the key `on:` of a timeline entry would read `True`.
Leaves out: several documents in one file, merge keys (`<<`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fleetsim.errors import BadInput

FILE_BYTES_MAX = 1 << 20
DEPTH_MAX = 40
VALUES_MAX = 50_000

_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None, "true": True, "True": True, "false": False, "False": False}

Place = tuple[str | int, ...]


@dataclass
class Source:
    """`data` is dictionaries, lists, text, numbers; `line(place)` is where the value at that place stands (1-based)."""

    file: Path
    data: Any
    lines: dict[Place, int] = field(default_factory=dict)

    def line(self, place: Place) -> int:
        """The line of `place`, or of the nearest thing around it that exists."""
        while place not in self.lines and place:
            place = place[:-1]
        return self.lines.get(place, 1)

    def refuse(self, place: Place, sentence: str) -> BadInput:
        return BadInput(sentence, file=self.file, line=self.line(place))


def read_yaml(path: Path) -> Source:
    """Read one YAML file, or raise BadInput with the file and the line."""
    text = _read_text(path)
    try:
        _refuse_bombs(path, text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(error.problem or error.context).split())
        raise BadInput(f"this is not YAML: {problem}", file=path, line=mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise BadInput(f"this is not YAML: {' '.join(str(error).split())[:200]}", file=path) from None
    source = Source(path, None)
    if node is None:
        raise BadInput("the file is empty; a scenario has summary, duration and fleet", file=path, line=1)
    source.data = _Walk(source).value(node, ())
    return source


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise BadInput(
                "there is no such file" if not path.exists() else "this is not a file; give the path of a scenario file (.yaml)", file=path
            )
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadInput(f"the file cannot be read: {error.strerror}", file=path) from None
    if len(raw) > FILE_BYTES_MAX:
        raise BadInput(f"the file is {path.stat().st_size} bytes; a scenario is at most {FILE_BYTES_MAX} bytes (1 MiB)", file=path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadInput(f"byte 0x{raw[error.start]:02x} is not UTF-8 text; a scenario is a UTF-8 YAML file", file=path, line=line) from None


def _refuse_bombs(path: Path, text: str) -> None:
    """One non-recursive pass over the parser's events: the composer that follows recurses, so depth is checked first."""
    depth = documents = 0
    for events, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if events > 2 * VALUES_MAX:
            raise BadInput(f"the file holds more than {VALUES_MAX} values; a scenario holds fewer", file=path, line=line)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise BadInput("a second document starts here; a scenario file holds one", file=path, line=line)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise BadInput(f"values are nested more than {DEPTH_MAX} deep; a scenario is flatter", file=path, line=line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if (tag := getattr(event, "tag", None)) is not None:
            raise BadInput(f"the tag {str(tag)!r} is refused; write plain values", file=path, line=line)


class _Walk:
    """Turns composed nodes into values; an alias is walked once more for every use, so that the count is the expanded one."""

    def __init__(self, source: Source) -> None:
        self.source, self.count, self.open = source, 0, set[int]()

    def value(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self.source.lines.setdefault(place, line)
        self.count += 1
        if self.count > VALUES_MAX:
            raise BadInput(
                f"the aliases of this file expand to more than {VALUES_MAX} values (a YAML bomb); write the values out",
                file=self.source.file,
                line=line,
            )
        if isinstance(node, yaml.ScalarNode):
            return scalar(node.value) if node.style is None else node.value
        if id(node) in self.open:
            raise BadInput("this alias contains itself; write the values out", file=self.source.file, line=line)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
            return self._mapping(node, place)
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.Node, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise BadInput("a key here is a list or a mapping; keys are plain words", file=self.source.file, line=line)
            key = key_node.value
            if key in result:
                raise BadInput(f"the key {key!r} stands twice; keep one", file=self.source.file, line=line)
            self.source.lines[(*place, key)] = line
            result[key] = self.value(value_node, (*place, key))
        return result


def scalar(text: str) -> Any:
    """The value of an unquoted scalar in YAML 1.2's core schema (numbers beyond 18 digits stay text)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) and not text.isdigit() else text
