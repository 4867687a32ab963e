# SPDX-License-Identifier: Apache-2.0
"""A scenario whose hosts need a larger record than this process was started with: the same command again, in this process's place.

Rules: at most once, as the variable that is set then is obeyed; before any law is compiled; nothing was printed or written yet.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from fleetsim.fleet.plan import Plan


class StartAnew(BaseException):
    """Not an error: the command has to begin again with another size class. `main` obeys."""

    def __init__(self, size_class: str) -> None:
        super().__init__(size_class)
        self.size_class = size_class


def use_size_class(plans: Iterable[Plan]) -> None:
    """Go on if the largest host of the plans fits into a record of the class in use, else begin again."""
    from fleetsim.law import SIZE_CLASSES, size_class

    wanted = max((plan.size_class for plan in plans), key=SIZE_CLASSES.index)
    if wanted != size_class():
        raise StartAnew(wanted)


def start_anew(size_class: str) -> NoReturn:
    """Replace this process by one of the same command line whose hosts have records of that class."""
    from fleetsim.law import SIZE_CLASS_VARIABLE

    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, SIZE_CLASS_VARIABLE: size_class})
