# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, as seen from outside. What only we can cause is an `assert`, left on.

    FleetsimError
    ├── BadInput      exit 2   the file, flag or rule given cannot be used; nothing was started
    ├── ToolFailed    exit 3   we, or a program we need (Prometheus), failed; never a pass
    └── Interrupted   exit 130 somebody pressed Ctrl-C; the sentence says what is left and how to go on

Every message is one sentence that a user can act on: file, line, the value, and what would be right.
"""

from __future__ import annotations

from pathlib import Path

EXIT_OK = 0
EXIT_EXPECTATION = 1  # some expectation was not met
EXIT_BAD_INPUT = 2
EXIT_TOOL_FAILED = 3  # or a verdict is `unknown`
EXIT_INTERRUPTED = 130


class FleetsimError(Exception):
    exit_code = EXIT_TOOL_FAILED


class BadInput(FleetsimError):
    """The caller's input cannot be used. `file` and `line` (1-based) say where, when it came from a file."""

    exit_code = EXIT_BAD_INPUT

    def __init__(self, sentence: str, *, file: str | Path | None = None, line: int | None = None) -> None:
        where = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(where + sentence)
        self.sentence, self.file, self.line = sentence, file, line


class ToolFailed(FleetsimError):
    """We failed, or a program we need did."""


class Interrupted(FleetsimError):
    """Somebody wanted it to end."""

    exit_code = EXIT_INTERRUPTED
