# SPDX-License-Identifier: Apache-2.0
"""The real Prometheus: found, started privately on loopback, asked, and stopped whatever happens.

The server is empty and scrapes nothing. Its head block is made one year long, so that samples of any time within a
run are accepted in any order between series and nothing is compacted; results of rules can be written back to the
start of the run after its end was ingested (with the default block length of 2 h they would be out of bounds).

`$FLEETSIM_PROMETHEUS_DIR` names a folder holding `prometheus` and `promtool`, searched before PATH.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleetsim.errors import ToolFailed

START_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 1800.0
_PR_SET_PDEATHSIG = 1  # prctl(2): the child gets this signal when we die, however we die
_LIBC = ctypes.CDLL(None, use_errno=True)

FLAGS = (
    "--web.enable-remote-write-receiver",
    "--storage.tsdb.retention.time=100y",
    "--storage.tsdb.min-block-duration=365d",
    "--storage.tsdb.max-block-duration=3650d",
    "--query.max-samples=2000000000",
    "--query.timeout=1h",
    "--log.level=warn",
)


class QueryFailed(Exception):
    """Prometheus evaluated the expression and refused, for instance because a vector matched many to many."""


def find_tool(name: str) -> str:
    folder = os.environ.get("FLEETSIM_PROMETHEUS_DIR")
    found = shutil.which(name, path=os.pathsep.join(filter(None, [folder, os.environ.get("PATH", os.defpath)])))
    if found is None:
        where = f"in $FLEETSIM_PROMETHEUS_DIR ({folder}) or on PATH" if folder else "on PATH"
        raise ToolFailed(
            f"{name} was not found {where}; the judge needs the real Prometheus: `apt-get install prometheus` on Debian or Ubuntu, "
            "or unpack a release of Prometheus 2.42 or later and set FLEETSIM_PROMETHEUS_DIR to its folder"
        )
    return found


def run_promtool(arguments: list[str], timeout_s: float = 1800.0) -> subprocess.CompletedProcess[str]:
    """promtool's own exit code and output; only failing to run it at all is an error here."""
    command = [find_tool("promtool"), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolFailed(f"promtool {arguments[0]} did not finish: {error}") from None


class PrivatePrometheus:
    """A running server. Made by `private_prometheus()`; requests may come from several threads."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process, self._port, self._log = process, port, log
        self._local = threading.local()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ToolFailed(f"prometheus ended at once with code {self._process.returncode}: {self._last_words()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._request("GET", "/-/ready")[0] == 200:
                    return
            time.sleep(0.02)
        raise ToolFailed(f"prometheus was not ready within {START_TIMEOUT_S:.0f} s: {self._last_words()}")

    def write(self, body: bytes) -> None:
        """One snappy-compressed remote-write request."""
        headers = {
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        status, answer = self._asked("POST", "/api/v1/write", body, headers)
        if status // 100 != 2:
            raise ToolFailed(f"prometheus refused samples (HTTP {status}): {answer.decode(errors='replace').strip()[:300]}")

    def query_range(self, expr: str, start_ms: int, end_ms: int, step_ms: int) -> list[dict[str, Any]]:
        """The matrix of a range query: [{"metric": labels, "values": [[unix seconds, text], …]}, …]."""
        form = {"query": expr, "start": _seconds(start_ms), "end": _seconds(end_ms), "step": _seconds(step_ms)}
        return self._query("/api/v1/query_range", form)["result"]

    def query(self, expr: str, time_ms: int) -> list[dict[str, Any]]:
        """An instant query as a vector: [{"metric": labels, "value": [unix seconds, text]}, …]; a scalar has no labels."""
        data = self._query("/api/v1/query", {"query": expr, "time": _seconds(time_ms)})
        return [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else data["result"]

    def _query(self, path: str, form: dict[str, str]) -> dict[str, Any]:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        status, answer = self._asked("POST", path, urllib.parse.urlencode(form).encode(), headers)
        try:
            content = json.loads(answer)
        except json.JSONDecodeError:
            raise ToolFailed(f"prometheus answered a query with HTTP {status} and no JSON: {answer[:200]!r}") from None
        if content.get("status") != "success":
            raise QueryFailed(str(content.get("error", answer[:300])))
        return content["data"]

    def _asked(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        try:
            return self._request(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise ToolFailed(f"prometheus stopped answering ({error}): {self._last_words()}") from None

    def _request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=REQUEST_TIMEOUT_S)
            self._local.connection = connection
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            self._local.connection = None
            raise

    def _last_words(self) -> str:
        text = self._log.read_text(errors="replace").strip() if self._log.exists() else ""
        return " | ".join(text.splitlines()[-3:])[-600:] or "it said nothing"

    def stop(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
        self._process.kill()  # its data is temporary: there is nothing to save
        self._process.wait()


@contextlib.contextmanager
def private_prometheus() -> Iterator[PrivatePrometheus]:
    """An empty server of our own, gone with its data when the block is left."""
    program = find_tool("prometheus")
    with tempfile.TemporaryDirectory(prefix="fleetsim-prometheus-", ignore_cleanup_errors=True) as name:
        server = _start(program, Path(name))
        try:
            yield server
        finally:
            server.stop()


def _start(program: str, folder: Path) -> PrivatePrometheus:
    config, log = folder / "prometheus.yml", folder / "log"
    # two rules may record one series at different instants: the later one arrives out of order
    config.write_text("storage: {tsdb: {out_of_order_time_window: 36500d}}\n")
    for attempt in range(3):  # between choosing a port and listening on it, somebody else may take it
        port = _free_port()
        storage = folder / f"data-{attempt}"
        command = [program, f"--config.file={config}", f"--storage.tsdb.path={storage}", f"--web.listen-address=127.0.0.1:{port}", *FLAGS]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=_die_with_parent)
        server = PrivatePrometheus(process, port, log)
        try:
            server.wait_until_ready()
            return server
        except BaseException as error:
            server.stop()
            taken = "address already in use" in log.read_text(errors="replace")
            if not (taken and isinstance(error, ToolFailed)):
                raise
    raise ToolFailed("prometheus found no free port on 127.0.0.1 in three attempts")


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _seconds(time_ms: int) -> str:
    return f"{time_ms // 1000}.{time_ms % 1000:03d}"
