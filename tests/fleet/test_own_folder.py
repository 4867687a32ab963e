# SPDX-License-Identifier: Apache-2.0
"""Temporary folders: gone with their owner, or with the next one who makes such a folder if the owner was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fleetsim.fleet.own_folder import UNLOCKED_S, OwnFolder, is_abandoned

PREFIX = "fleetsim-test-"
HOLDER = f"""
import sys, time
from fleetsim.fleet.own_folder import OwnFolder
mine = OwnFolder({PREFIX!r})
print(mine.path, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_what_a_killed_process_has_left_is_cleared_away_by_the_next_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}file").write_text("no folder")
    (tmp_path / "other").mkdir()
    holders = [subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        kept, left = (Path(holder.stdout.readline().strip()) for holder in holders if holder.stdout)
        holders[1].kill()
        holders[1].wait()
        assert left.is_dir() and is_abandoned(left) and not is_abandoned(kept)
        mine = OwnFolder(PREFIX)
        assert not left.exists() and kept.is_dir()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kept.name, mine.path.name, "other", f"{PREFIX}file"])
        mine.remove()
        assert not mine.path.exists()
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


def test_a_folder_in_which_somebody_works_is_left_alone_though_its_owner_is_gone(tmp_path: Path) -> None:
    """A cluster without its driver takes a while to end."""
    folder = tmp_path / f"{PREFIX}x"
    folder.mkdir()
    (folder / ".owner").touch()
    worker = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)", str(folder)], stdout=subprocess.PIPE)
    try:
        assert worker.stdout is not None and worker.stdout.readline()
        assert not is_abandoned(folder)
    finally:
        worker.kill()
        worker.communicate()
    assert is_abandoned(folder)


def test_a_folder_that_is_being_made_has_no_lock_yet(tmp_path: Path) -> None:
    folder = tmp_path / f"{PREFIX}y"
    folder.mkdir()
    assert not is_abandoned(folder)
    old = folder.stat().st_mtime - UNLOCKED_S - 1
    os.utime(folder, (old, old))
    assert is_abandoned(folder)
