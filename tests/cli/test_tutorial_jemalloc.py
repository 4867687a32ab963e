# SPDX-License-Identifier: Apache-2.0
"""Every command of docs/tutorial-jemalloc.md does what stands below it (see `test_tutorial.py` for how it is read)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli import test_tutorial as malloc_chapter

TEXT = malloc_chapter.TUTORIAL.with_name("tutorial-jemalloc.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(\$ .*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_tutorial_can_be_tried(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(BLOCKS) >= 7
    for block in BLOCKS:  # in one folder: they use what those before them made
        malloc_chapter.test_the_tutorial_can_be_tried(block, capsys, tmp_path, monkeypatch)
