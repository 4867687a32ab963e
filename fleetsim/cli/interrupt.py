# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C is never lost and never a traceback.

Several within a second are one: while the first is being told, a second would be a traceback.
A KeyboardInterrupt that arrives inside a callback from C (the compiler makes many) is printed as "Exception ignored" and
forgotten by Python. Here it is not printed and is delivered once more, a moment later, until it arrives where it counts.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

AGAIN_AFTER_S = 0.05
TOGETHER_S = 1.0
LONG_AGO = float("-inf")


class _Last:
    """When a KeyboardInterrupt was raised last."""

    at_s = LONG_AGO


def raise_once(number: int, frame: FrameType | None) -> None:
    """What SIGINT does."""
    if time.monotonic() - _Last.at_s >= TOGETHER_S:
        _Last.at_s = time.monotonic()
        raise KeyboardInterrupt


def deliver_interrupts() -> None:
    """Install hook and handler, for the rest of the process."""
    before = sys.unraisablehook
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where somebody has it ignored, as jobs in the background
        signal.signal(signal.SIGINT, raise_once)

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            before(lost)
            return
        _Last.at_s = LONG_AGO
        again = threading.Timer(AGAIN_AFTER_S, _thread.interrupt_main)
        again.daemon = True
        again.start()

    sys.unraisablehook = hook


class StopRequest:
    """While it is entered, the first Ctrl-C is a wish (`asked`), if there is something that is worth being finished; the second ends all.

    There is once somebody has said so (`worthwhile`): then a run goes on to the end of its epoch and leaves a checkpoint.
    """

    def __init__(self) -> None:
        self.asked = False
        self.worthwhile = False
        self._before: Any = None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._before = signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self.asked or not self.worthwhile:
            raise_once(number, frame)
            return
        self.asked = True
        print("fleetsim: stopping at the end of this epoch (Ctrl-C again: at once)", file=sys.stderr, flush=True)
