# SPDX-License-Identifier: Apache-2.0
"""The real node_exporter, reading a /proc rendered from the same numbers, shows the same page as ours, line for line."""

from __future__ import annotations

import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetsim.linux.vmstat_names import MEMINFO_FIELDS, VMSTAT_FIELDS
from fleetsim.observe.catalog import COLLECTORS, profile
from fleetsim.observe.exposition import CONTENT_TYPE, Page
from fleetsim.observe.node_exporter import EXPORTER, READING, SCRATCH, collect_reading, plan, series
from fleetsim.userland import procfs

from .conftest import MakeReading

# Families whose values are the machine's or the exporter's own, not /proc's: only their shape is compared.
NOT_FROM_PROC = {
    "node_exporter_build_info",
    "node_scrape_collector_duration_seconds",
    "node_time_seconds",
    "node_uname_info",
    "process_start_time_seconds",
    "promhttp_metric_handler_requests_total",
}
# What the `stat` collector shows besides the boot time, and the exporter of its own process: not simulated.
NOT_OURS = re.compile(
    r"node_(context_switches_total|forks_total|intr_total|procs_running|procs_blocked|time_zone.*|time_clocksource.*)|go_.*|process_.*|promhttp_.*"
)


def families(page: str) -> dict[str, list[str]]:
    """family → its lines, HELP and TYPE included, in page order."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in page.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
        found.setdefault(name, []).append(line)
    return found


def our_page(reading: np.void) -> str:
    kept = profile("full")
    scratch, exporter, out = np.zeros(1, SCRATCH), np.zeros(1, EXPORTER), np.zeros(len(plan(kept)))
    scratch["reading"] = reading
    collect_reading(scratch[0], exporter[0], 1.0, plan(kept), out)
    return Page(series(kept, host="db-0")).render(out.tolist())


def render_proc(reading: np.void, folder: Path) -> None:
    """A /proc that shows `reading`; averages of pressure and CPU time are not exported, so any will do."""
    totals, averages = reading["psi_total_us"], np.zeros((2, 3), dtype=np.int64)
    files = {f"pressure/{name}": procfs.pressure(averages, totals[i], system_cpu=i == 0) for i, name in enumerate(("cpu", "io", "memory"))}
    files["meminfo"] = procfs.meminfo(reading["meminfo"].tolist())
    files["vmstat"] = procfs.vmstat(reading["vmstat"].tolist())
    files["loadavg"] = procfs.loadavg(reading["loadavg"].tolist(), 1, 200, 4711)
    files["stat"] = procfs.stat([[0] * 8] * 2, int(reading["boot_unix_s"]), 4711, 1, 0)
    procfs.write_tree(files, folder)


class RealExporter:
    """node_exporter on loopback, reading the /proc in `folder`."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._url = f"http://127.0.0.1:{probe.getsockname()[1]}/metrics"
        chosen = [f"--collector.{name}" for name in COLLECTORS]
        address = f"--web.listen-address={self._url.split('/')[2]}"
        self._log = (folder.parent / "log").open("w")
        self._process = subprocess.Popen(
            [program, "--collector.disable-defaults", *chosen, f"--path.procfs={folder}", address], stdout=self._log, stderr=self._log
        )

    def page(self) -> str:
        with urllib.request.urlopen(self._url, timeout=10) as answer:
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            return answer.read().decode()

    def wait(self) -> None:
        for _ in range(300):
            assert self._process.poll() is None, Path(self._log.name).read_text()
            try:
                self.page()
                return
            except urllib.error.URLError:
                time.sleep(0.1)
        raise AssertionError(f"node_exporter did not answer: {Path(self._log.name).read_text()}")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()


@pytest.fixture(scope="module")
def real(require_tool: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealExporter]:
    program = require_tool("prometheus-node-exporter")
    folder = tmp_path_factory.mktemp("exporter") / "proc"
    folder.mkdir()
    exporter = RealExporter(program, folder)
    try:
        exporter.wait()
        yield exporter
    finally:
        exporter.stop()


def test_the_real_exporter_shows_the_same_families_with_the_same_head_and_labels(real: RealExporter, make_reading: MakeReading) -> None:
    render_proc(make_reading(now_s=100), real.folder)
    ours, theirs = families(our_page(make_reading(now_s=100))), families(real.page())
    assert set(ours) - set(theirs) == set()
    assert {name for name in set(theirs) - set(ours) if not NOT_OURS.fullmatch(name)} == set()
    for name in ours:
        assert ours[name][:2] == theirs[name][:2], "HELP and TYPE"
        if name in NOT_FROM_PROC:
            assert [re.findall(r'(\w+)="', line) for line in ours[name]] == [re.findall(r'(\w+)="', line) for line in theirs[name]]
    assert list(ours) == [name for name in theirs if name in ours], "in the same order"


largest = 2**43  # kB: 8 PiB; bytes then still fit a float exactly
fields = st.integers(0, largest)
readings = st.fixed_dictionaries(
    {
        "meminfo": st.lists(fields, min_size=len(MEMINFO_FIELDS), max_size=len(MEMINFO_FIELDS)),
        "vmstat": st.lists(st.integers(0, 2**62), min_size=len(VMSTAT_FIELDS), max_size=len(VMSTAT_FIELDS)),
        "psi_total_us": st.lists(st.lists(st.integers(0, 2**50), min_size=2, max_size=2), min_size=3, max_size=3),
        "loadavg": st.lists(st.integers(0, 2048 * 5000), min_size=3, max_size=3),
        "boot_unix_s": st.integers(0, 2**32),
    }
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large])
@given(readings)
def test_whatever_the_kernel_shows_both_print_the_same_lines(real: RealExporter, shown: dict[str, object]) -> None:
    reading = np.zeros(1, READING)
    for name, value in shown.items():
        reading[name] = value
    render_proc(reading[0], real.folder)
    ours, theirs = families(our_page(reading[0])), families(real.page())
    assert {name: theirs.get(name) for name in ours if name not in NOT_FROM_PROC} == {
        name: ours[name] for name in ours if name not in NOT_FROM_PROC
    }
