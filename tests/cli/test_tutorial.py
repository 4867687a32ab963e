# SPDX-License-Identifier: Apache-2.0
"""Every command of docs/tutorial.md does what stands below it (walks, shown whole: test_tutorial_walks.py).

In a block, lines that begin with `$ ` are commands; the lines below are looked for in their output, in order. `…` stands for anything.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fleetsim.allocators.exact import EXACT
from fleetsim.cli.main import execute

DOCS = Path(__file__).parent.parent.parent / "docs"
TUTORIAL = DOCS / "tutorial.md"
BLOCKS = re.findall(r"^```\n(\$ .*?)^```", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def steps(block: str) -> list[tuple[str, list[str]]]:
    """(command, lines expected)"""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def pattern(line: str) -> str:
    return r".*".join(re.escape(part.strip()) for part in line.split("…"))


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0] for block in BLOCKS])
def test_the_tutorial_can_be_tried(block: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (tmp_path / "docs").exists():
        (tmp_path / "docs").symlink_to(DOCS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    for name in re.findall(r"--allocator ([\w-]+)", block):
        if name not in EXACT:
            pytest.skip(f"there is no exact simulator of {name} here")
    for command, expected in steps(block):
        if not command.startswith("fleetsim "):
            subprocess.run(["bash", "-c", command], check=True)
            continue
        assert execute(shlex.split(command)[1:]) == 0
        lines = capsys.readouterr().out.splitlines()
        at = 0
        for line in expected:
            hits = [k for k in range(at, len(lines)) if re.search(pattern(line), lines[k])]
            assert hits, f"{command}: no line like {line!r} from line {at} on of\n" + "\n".join(lines)
            at = hits[0] + 1


def test_there_are_blocks_to_try() -> None:
    assert len(BLOCKS) > 12 and sum(len(expected) for block in BLOCKS for _, expected in steps(block)) > 40
