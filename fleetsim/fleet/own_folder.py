# SPDX-License-Identifier: Apache-2.0
"""A temporary folder that outlives a killed process by no more than the next one that makes such a folder.

    OwnFolder("fleetsim-ray-")      a folder fleetsim-ray-XXXXXXXX with a lock that the kernel lets go of when this process ends, however
                                    it ends; folders of the same prefix that nobody holds any more are removed

Rules: a folder is left alone while its lock is held, while a process that is alive names it (those of a cluster that has lost its driver
take some seconds to end), and, if it has no lock yet, for ten minutes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

LOCK = ".owner"
UNLOCKED_S = 600


class OwnFolder:
    def __init__(self, prefix: str) -> None:
        clear_away(prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        self._lock = (self.path / LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def clear_away(prefix: str) -> None:
    """Remove the folders of processes that are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        if folder.is_dir() and not folder.is_symlink() and is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def is_abandoned(folder: Path) -> bool:
    """Nobody holds it, and nobody works in it."""
    try:
        with (folder / LOCK).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        try:
            if time.time() - folder.stat().st_mtime < UNLOCKED_S:
                return False
        except OSError:
            return False
    except OSError:  # it is held, or somebody else's
        return False
    return not is_named(str(folder))


def is_named(text: str) -> bool:
    """Whether the command line of a living process has it; of processes that cannot be looked at nobody knows."""
    needle = os.fsencode(text)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if needle in (process / "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False
