# SPDX-License-Identifier: Apache-2.0
"""The server is private, gone afterwards whatever happens, and its absence is told with the way out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleetsim.errors import ToolFailed
from fleetsim.verdict.prometheus import find_tool, private_prometheus


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_missing_program_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("FLEETSIM_PROMETHEUS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(ToolFailed, match=r"promtool was not found in .*nowhere.* or on PATH; .*apt-get install prometheus"):
        find_tool("promtool")


def test_a_folder_of_ones_own_comes_before_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = tmp_path / "promtool"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("FLEETSIM_PROMETHEUS_DIR", str(tmp_path))
    assert find_tool("promtool") == str(mine)


def test_a_program_that_dies_at_once_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "prometheus"
    broken.write_text("#!/bin/sh\necho out of magic >&2\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setenv("FLEETSIM_PROMETHEUS_DIR", str(tmp_path))
    with pytest.raises(ToolFailed, match="ended at once with code 7: out of magic"), private_prometheus():
        pass


def test_it_listens_on_loopback_only_and_is_gone_afterwards(prometheus: Path) -> None:
    with pytest.raises(RuntimeError), private_prometheus() as server:
        pid = server._process.pid
        assert server.url.startswith("http://127.0.0.1:") and alive(pid)
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        (storage,) = [Path(part.decode().partition("=")[2]) for part in command if part.startswith(b"--storage.tsdb.path=")]
        raise RuntimeError
    assert not alive(pid) and not storage.exists()


def test_it_dies_with_us_even_if_we_are_killed(prometheus: Path) -> None:
    script = (
        "import time\nfrom fleetsim.verdict.prometheus import private_prometheus\n"
        "with private_prometheus() as server:\n    print(server._process.pid, flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as judge:
        assert judge.stdout is not None
        pid = int(judge.stdout.readline())
        assert alive(pid)
        os.kill(judge.pid, signal.SIGKILL)
    for _ in range(400):  # the kernel delivers the signal in its own time
        if not alive(pid):
            return
        time.sleep(0.05)
    pytest.fail("prometheus outlived the process that started it")
