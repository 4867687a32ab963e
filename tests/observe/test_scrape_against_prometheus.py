# SPDX-License-Identifier: Apache-2.0
"""The real Prometheus scrapes our page, which fails in between: what it writes about it is what we write."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleetsim.observe.catalog import profile
from fleetsim.observe.exposition import CONTENT_TYPE, Page
from fleetsim.observe.scrape import REPORT, TargetScraper

from .conftest import MakeReading

ANSWERS = [True, True, False, False, True, True]  # what the target does at its first scrapes; then it stays away
NAMES = {"node_load1", "node_boot_time_seconds", "node_vmstat_oom_kill", *REPORT}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def target_port() -> Iterator[tuple[int, threading.Event]]:
    """A web server that shows our page or fails as ANSWERS says; the event is set when it has run through."""
    shown = TargetScraper(profile("rules", NAMES), "db-0").series
    page = Page([one for one in shown if one.name not in REPORT]).render([1.0, 2.0, 3.0]).encode()
    answers, done = iter(ANSWERS), threading.Event()

    class Target(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = next(answers, None)
            if answer is None:
                done.set()
            self.send_response(200 if answer else 503)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.end_headers()
            self.wfile.write(page if answer else b"")

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Target)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1], done
    server.shutdown()
    thread.join()
    server.server_close()


def prometheus_samples(program: Path, folder: Path, port: int, done: threading.Event) -> dict[str, list[float]]:
    """Run Prometheus against the target until that has run through; name → values in order of time."""
    config, own = folder / "prometheus.yml", free_port()
    config.write_text(f"scrape_configs:\n- job_name: t\n  scrape_interval: 1s\n  static_configs:\n  - targets: ['127.0.0.1:{port}']\n")
    arguments = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{own}"]
    with (folder / "log").open("w") as log, subprocess.Popen([program, *arguments], stdout=log, stderr=log) as server:
        try:
            assert done.wait(60), (folder / "log").read_text()
            time.sleep(0.5)  # the failed scrape that ended it is still being written down; it is not compared
            query = urllib.parse.urlencode({"query": '{job="t"}[5m]'})
            with urllib.request.urlopen(f"http://127.0.0.1:{own}/api/v1/query?{query}", timeout=10) as answer:
                result = json.load(answer)["data"]["result"]
        finally:
            server.terminate()
    return {one["metric"]["__name__"]: [float(value) for _, value in one["values"]] for one in result}


def test_reports_of_good_and_failed_scrapes_are_those_of_the_real_prometheus(
    require_tool: Callable[[str], Path], tmp_path: Path, target_port: tuple[int, threading.Event], make_reading: MakeReading
) -> None:
    real = prometheus_samples(require_tool("prometheus"), tmp_path, *target_port)
    target = TargetScraper(profile("rules", NAMES), "db-0")
    for k, answers in enumerate(ANSWERS):
        if answers:
            target.scrape_reading(make_reading(now_s=k), 1000 * k)
        else:
            target.refuse(1000 * k)
    index, _, values = target.drain()
    ours: dict[str, list[float]] = {}
    for i, value in zip(index.tolist(), values.tolist()):
        ours.setdefault(target.series[i].name, []).append(value)
    for name in ("up", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling", "scrape_series_added"):
        assert real[name][: len(ANSWERS)] == ours[name], name
    seen = [value for value in ours["node_load1"] if value == value]  # without the marker, which Prometheus does not show
    assert len(real["node_load1"]) == len(seen) == ANSWERS.count(True)
    assert sum(value != value for value in ours["node_load1"]) == 1
