# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in the middle of a run: one sentence, exit code 130, and the half run is never taken for a whole one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleetsim.errors import BadInput
from fleetsim.rundir.reader import RunDirectory

LONG = """\
summary: It would take a while.
duration: 30d
fleet:
  - hosts: 20
    name: web
    memory: 1GiB
    pods: [{name: app, workload: script, ops: [mmap_anon a 100, touch a 100 50, rewrite a 0 5 random]}]
"""


@contextmanager
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A long run into `tmp_path / "out"` that has begun to simulate."""
    scenario, out = tmp_path / "long.yaml", tmp_path / "out"
    scenario.write_text(LONG, encoding="utf-8")
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background may ignore it
        "from fleetsim.cli.main import main; main()"
    )
    command = [sys.executable, "-c", script, "run", str(scenario), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (out / "samples").exists() and process.poll() is None:
            time.sleep(0.05)
        yield process


def test_ctrl_c_ends_a_run_with_one_sentence(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (130, "")
    assert "Traceback" not in stderr
    assert "fleetsim: interrupted" in stderr
    assert "seed 0 (long)" in stderr
    assert json.loads((out / "manifest.json").read_text())["history_hash"] is None
    with pytest.raises(BadInput):
        RunDirectory(out)


@pytest.mark.parametrize("gap_s", [0.0005, 0.004, 0.05])
def test_an_impatient_user_reads_no_traceback(gap_s: float, tmp_path: Path) -> None:
    """Ctrl-C five times on end: those that come while the end is told are none."""
    with running(tmp_path) as process:
        for _ in range(5):
            process.send_signal(signal.SIGINT)
            time.sleep(gap_s)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in stderr and stderr.count("fleetsim: interrupted") >= 1, stderr
