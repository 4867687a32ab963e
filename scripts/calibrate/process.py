# SPDX-License-Identifier: Apache-2.0
"""Starts a real program as an unprivileged user in a folder of its own, reads what the kernel says of it, and ends it by its id.

Source of the fields: Documentation/filesystems/proc.rst (/proc/PID/status, /proc/PID/smaps_rollup, /proc/PID/stat).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

STOP_S = 30


def unprivileged() -> dict[str, Any]:
    """What `subprocess` needs to start a program as nobody, if we may choose: servers refuse to run as root, or should."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def folder_of_its_own() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fleetsim-calibrate-"))
    identity = unprivileged()
    try:
        if identity:
            os.chown(folder, identity["user"], identity["group"])
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def started(command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A program for the length of the block; what it prints is in the folder's file `output`."""
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **unprivileged(),
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kib_fields(text: str) -> dict[str, int]:
    """The fields of /proc/PID/status or smaps_rollup that are given in kB (which are KiB)."""
    fields = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            fields[words[0].rstrip(":")] = int(words[1])
    return fields


def status(pid: int) -> dict[str, int]:
    """VmRSS, RssAnon, VmPTE, … in KiB."""
    return kib_fields(Path(f"/proc/{pid}/status").read_text())


def smaps_rollup(pid: int) -> dict[str, int]:
    """Rss, Pss, Private_Dirty, AnonHugePages, … in KiB."""
    return kib_fields(Path(f"/proc/{pid}/smaps_rollup").read_text())


def children(pid: int) -> list[int]:
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]


def processor_s(pid: int) -> float:
    """Seconds of processor time so far, user and system (fields 14 and 15 of /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def has_ended(pid: int) -> bool:
    """Whether the process is gone, or waits only to be reaped (state Z)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def on_processor_s(pid: int) -> float:
    """Seconds the main thread was on a processor, without its waits for one (Documentation/scheduler/sched-stats.rst: schedstat)."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9
