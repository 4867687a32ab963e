# SPDX-License-Identifier: Apache-2.0
"""Every command of docs/whatif.md does what stands below it, as in the tutorial."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli import test_tutorial as tutorial

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```\n(\$ .*?)^```", (ROOT / "docs" / "whatif.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_page_can_be_tried(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chaos_scenarios").symlink_to(ROOT / "chaos_scenarios")
    assert sum(len(expected) for block in BLOCKS for _, expected in tutorial.steps(block)) >= 15
    for block in BLOCKS:  # in one folder: they use what those before them made
        tutorial.test_the_tutorial_can_be_tried(block, capsys, tmp_path, monkeypatch)
