# SPDX-License-Identifier: Apache-2.0
"""Reading YAML: the line of every value is known, and no file can hurt whoever reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.errors import BadInput
from fleetsim.fleet.yaml_source import DEPTH_MAX, FILE_BYTES_MAX, read_yaml


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "x.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_every_value_knows_its_line(tmp_path: Path) -> None:
    source = read_yaml(write(tmp_path, "a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n"))
    assert source.data == {"a": 1, "b": ["x", {"c": 2, "d": 3}]}
    assert [source.line(place) for place in (("a",), ("b",), ("b", 0), ("b", 1), ("b", 1, "c"), ("b", 1, "d"))] == [1, 2, 3, 4, 4, 5]
    assert source.line(("b", 1, "nobody", 4)) == 4, "what is not there is blamed on what is around it"


def test_the_key_on_is_a_word_and_not_true(tmp_path: Path) -> None:
    """YAML 1.1, which most Python programs still read, turns `on:` into True."""
    assert read_yaml(write(tmp_path, "on: yes\noff: 1:30\nn: ~\nt: true\nf: 1.5\nq: '5'\n")).data == {
        "on": "yes",
        "off": "1:30",
        "n": None,
        "t": True,
        "f": 1.5,
        "q": "5",
    }


def bomb() -> str:
    """Nine lists of nine aliases each: 9^9 values from 400 bytes."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines)


BAD: dict[str, tuple[str | bytes, str]] = {
    "not closed": ("a: [1,\n", r"x\.yaml:\d+: this is not YAML"),
    "a bomb": (bomb(), r"x\.yaml:\d+: .*YAML bomb"),
    "a list inside itself": ("a: &a [*a]\n", r"x\.yaml:1: .*contains itself"),
    "too deep": ("[" * 5000 + "]" * 5000, rf"x\.yaml:1: .*more than {DEPTH_MAX} deep"),
    "too many values": ("[" + "1," * 200_000 + "]", r"x\.yaml:1: .*more than 50000 values"),
    "too big": ("# " + "x" * FILE_BYTES_MAX, r"x\.yaml: the file is \d+ bytes; .* \(1 MiB\)"),
    "a Python object": ("a: !!python/object/apply:os.system ['true']\n", r"x\.yaml:1: the tag .*python.* is refused"),
    "binary": (b"\x7fELF\xff\xfe", r"x\.yaml:1: byte 0xff is not UTF-8"),
    "control characters": ("a: \x00\n", r"x\.yaml: this is not YAML"),
    "empty": ("", r"x\.yaml:1: the file is empty"),
    "only a comment": ("# nothing\n", r"x\.yaml:1: the file is empty"),
    "two documents": ("a: 1\n---\na: 2\n", r"x\.yaml:2: a second document"),
    "a list as a key": ("? [1]\n: 2\n", r"x\.yaml:1: a key here is a list"),
    "an alias of nothing": ("a: *b\n", r"x\.yaml:1: this is not YAML: found undefined alias"),
    "a tab": ("a:\n\tb: 1\n", r"x\.yaml:2: this is not YAML"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_hurts_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    text, sentence = BAD[case]
    with pytest.raises(BadInput, match=sentence) as caught:
        read_yaml(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_file_that_is_not_there_is_said_to_be_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.yaml: there is no such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match="not a file"):
        read_yaml(tmp_path)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
def test_any_text_is_read_or_refused_but_never_crashes(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = write(tmp_path_factory.mktemp("any"), text)
    try:
        read_yaml(file)
    except BadInput as error:
        assert str(error).startswith(str(file))
