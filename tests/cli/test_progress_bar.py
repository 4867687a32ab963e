# SPDX-License-Identifier: Apache-2.0
"""The progress line on a real terminal of 80 columns: how much is done, how long it takes yet; and nothing of it stays behind."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios

SCRIPT = """
import time
from fleetsim.cli.output import progress
detail = "12m00s of 20m00s, 6s left, 83 × real time, 1,234 hosts, epoch 12"
with progress("jvm-pauses-because-[it]-is-swapped") as show:
    show("booting hosts", 0.0)
    time.sleep(0.3)
    show("simulating", 0.6, detail)
    time.sleep(0.3)
print("done")
"""


def on_a_terminal(columns: int) -> str:
    """What a terminal of so many columns is sent."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", SCRIPT], {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    told = b""
    try:
        while more := os.read(terminal, 65536):
            told += more
    except OSError:  # the other side is closed
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, told
    return told.decode()


def test_a_terminal_of_80_columns_shows_what_matters_in_one_line() -> None:
    told = on_a_terminal(80)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", told).replace("\n", "\r").split("\r")
    assert max(map(len, lines)) <= 80
    shown = [line for line in lines if "60%" in line]
    assert shown and all("jvm-pauses-beca…: 12m00s of 20m00s, 6s left" in line for line in shown), lines
    assert any("booting hosts" in line for line in lines)
    assert [line for line in lines if line][-1] == "done"
    assert told.rindex("\x1b[2K") > told.rindex("60%"), "the line is gone in the end"


def test_a_wide_one_shows_all_of_it() -> None:
    assert "6s left, 83 × real time, 1,234 hosts, epoch 12" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", on_a_terminal(140))
