# SPDX-License-Identifier: Apache-2.0
"""The turns of processes whose program is Python: the host stops for one, its program takes a step, and the host goes on.

Rules: a program is made anew whenever its process starts; it is called only when the thread has a CPU, one step a turn; what it
does between two calls of the kernel takes no time. An exception that is not the kernel's refusal is a mistake in the plug-in and
stops the run with one sentence.
Leaves out: programs that keep what cannot be pickled (refused when they are made).
"""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path
from typing import Any

from fleetsim.errors import ToolFailed
from fleetsim.host.plugin_kernel import Ended, Kernel, Process, Refused
from fleetsim.host.programs import Names
from fleetsim.host.step import ASKS, run_host


def take_turn(records: Any, i: int, names: Names, until_ns: int) -> None:
    """The host has stopped for the program of one of its threads (`run_host` returned ASKS): its step, up to the END of the turn."""
    row = records[i]
    work = int(row["programs"][int(row["asking"]) - 1]["work"]) - 1
    process = names.plugins[work]

    def call() -> None:
        told = run_host(records, i, until_ns)
        assert told == ASKS, "a call of a turn under way always comes back"

    kernel = Kernel(row, process, call)
    try:
        pid = int(row["tasks"][int(row["works"][work]["task"])]["pid"])
        if process.pid != pid:
            process.begin(pid)
            pickle.dumps(process.program)  # what a checkpoint needs: better told now than after a night
        take_step(process, kernel)
        kernel.leave()
    except Exception as error:
        raise ToolFailed(sentence(process, names.host, int(row["now_ns"]), error)) from error


def take_step(process: Process, kernel: Kernel) -> None:
    """One step; a refusal that the program did not catch is the end of its process."""
    try:
        try:
            process.program.step(kernel)
        except Refused:
            kernel.exit(1)
    except Ended:
        pass


def sentence(process: Process, host: str, now_ns: int, error: Exception) -> str:
    """What went wrong, and the line of the plug-in where it did (the innermost one that is not ours)."""
    ours = str(Path(__file__).parent.parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(ours)]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    words = " ".join(str(error).split())[:300]
    origin = f" of {process.plug.origin}" if process.plug.origin else ""
    return (
        f"workload {process.plug.name!r}{origin} failed on host {host}, process {process.name!r}, at {now_ns / 1e9:.3f} s: "
        f"{type(error).__name__}: {words}{where}"
    )
