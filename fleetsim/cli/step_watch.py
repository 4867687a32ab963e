# SPDX-License-Identifier: Apache-2.0
"""A workload in Python whose step does not return: nobody can end it from outside, but somebody can say where it is.

    with StepWatch(say): …      a thread that looks now and then; a step that is seen twice at the same instant of its host is told, once

Limits: steps in this process only (an actor's are not seen); a step that only takes long is told too.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import NamedTuple

LOOK_S = 15.0
OURS = str(Path(__file__).parent.parent)


class Step(NamedTuple):
    """A step under way: whose, since which instant of its host, after how many calls, and the line that it is at."""

    workload: str
    process: str
    now_ns: int
    calls: int
    where: str

    @property
    def identity(self) -> tuple[str, str, int, int]:
        return self[:4]


def steps_under_way() -> list[Step]:
    """Of all threads of this process."""
    code = getattr(sys.modules.get("fleetsim.host.plugins"), "take_step", None)
    if code is None:
        return []
    return [step for frame in sys._current_frames().values() if (step := _step_of(frame, code.__code__)) is not None]


def _step_of(innermost: FrameType, code: object) -> Step | None:
    """None: the thread is in no step, or in a call of the kernel, which returns (and may compile for a minute)."""
    frame, where = innermost, innermost
    while frame.f_code is not code:
        if frame.f_back is None or frame.f_code.co_filename.startswith(OURS):
            return None
        frame, where = frame.f_back, frame
    process, kernel = frame.f_locals.get("process"), frame.f_locals.get("kernel")
    if process is None or kernel is None or where is frame:
        return None
    return Step(process.plug.name, process.name, round(kernel.now * 1e9), kernel._calls, f"{where.f_code.co_filename}:{where.f_lineno}")


class StepWatch:
    def __init__(self, say: Callable[[str], None], look_s: float = LOOK_S) -> None:
        self._say, self._look_s = say, look_s
        self._over = threading.Event()
        self._told: set[tuple[str, str, int, int]] = set()
        self._seen: set[tuple[str, str, int, int]] = set()
        self._thread = threading.Thread(target=self._watch, name="step watch", daemon=True)

    def __enter__(self) -> StepWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self._look_s):
            self.look()

    def look(self) -> None:
        """Tell of the steps that were there at the last look already."""
        steps = steps_under_way()
        for step in steps:
            if step.identity in self._seen - self._told:
                self._told.add(step.identity)
                self._say(
                    f"note: the workload {step.workload!r} has been in one step of process {step.process!r} for {self._look_s:.0f} s, at "
                    f"{step.where}; a step that never returns holds up the run for good (Ctrl-C twice ends it)"
                )
        self._seen = {step.identity for step in steps}
