# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C is never lost and never a traceback.

A KeyboardInterrupt that arrives inside a callback from C (the compiler makes many) is printed as "Exception ignored" and
forgotten by Python. Here it is not printed and is delivered once more, a moment later, until it arrives where it counts.
"""

from __future__ import annotations

import _thread
import sys
import threading

AGAIN_AFTER_S = 0.05


def deliver_interrupts() -> None:
    """Install the hook, for the rest of the process."""
    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            before(lost)
            return
        again = threading.Timer(AGAIN_AFTER_S, _thread.interrupt_main)
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
