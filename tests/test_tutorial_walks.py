# SPDX-License-Identifier: Apache-2.0
"""Every command of docs/tutorial.md prints what is shown under it; `--update-goldens` writes what it prints now."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from fleetsim.cli.main import execute

REPO = Path(__file__).resolve().parent.parent
TUTORIAL = REPO / "docs" / "tutorial.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def printed(block: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The commands of a block, each followed by what it prints."""
    text = ""
    for line in block.splitlines():
        if line.startswith("$ fleetsim "):
            code = execute(shlex.split(line)[2:])
            out, err = capsys.readouterr()
            assert code == 0, err
            text += line + "\n" + "".join(row.rstrip() + "\n" for row in out.splitlines())
    return text


def test_every_command_prints_what_the_tutorial_shows(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    before = TUTORIAL.read_text(encoding="utf-8")
    assert len(BLOCK.findall(before)) >= 15
    after = BLOCK.sub(lambda match: f"```console\n{printed(match[1], capsys)}```", before)
    if request.config.getoption("--update-goldens") or os.environ.get("UPDATE_GOLDENS") == "1":
        TUTORIAL.write_text(after, encoding="utf-8")
    assert after == before or TUTORIAL.read_text(encoding="utf-8") == after


def test_what_two_commands_are_compared_for_is_so() -> None:
    """The sentences between the commands say what the frames show."""
    blocks = BLOCK.findall(TUTORIAL.read_text(encoding="utf-8"))
    frames: dict[str, str] = {}
    for block in blocks:
        command = ""
        for line in block.splitlines():
            command = line if line.startswith("$ ") else command
            if line.startswith("physical "):
                frames[command.partition(".yaml ")[2]] = line.split()[1].rstrip(":")
    assert frames["plain-0 a A+8MiB --at 20s"] != frames["plain-0 b A+8MiB --at 20s"]
    assert frames["plain-0 a libc-code --at 20s"] == frames["plain-0 b libc-code --write --at 20s"]
    assert frames["web-0 shop A+40MiB --at 20s"] == frames["web-0 shop-child A+40MiB --at 20s"]
    assert frames["web-0 shop A+1MiB --at 20s"] != frames["web-0 shop-child A+1MiB --at 20s"]
    assert "web-0 idle S --at 30s" not in frames and "web-0 greedy P+200MiB --at 20s" not in frames
