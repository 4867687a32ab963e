# SPDX-License-Identifier: Apache-2.0
"""A running host under memory pressure, seen in two ways at the same instant: its /proc and its exporter's page agree."""

from __future__ import annotations

import numpy as np
import pytest

from fleetsim.host.shard import Shard
from fleetsim.host.spec import HostSpec, TaskSpec
from fleetsim.observe.catalog import profile
from fleetsim.observe.node_exporter import NodeExporter
from fleetsim.observe.scrape import TargetScraper
from fleetsim.userland import procfs

GIB = 1 << 30
AT_S = (1.0, 7.3, 22.0, 41.7)


@pytest.fixture(scope="module")
def rows() -> list[np.void]:
    """Records of a host of 1 GiB whose only task fills it, at AT_S."""
    greedy = TaskSpec("greedy", ("mmap_anon a 1450", "touch a 1450 50"), start_s=2.0)
    shard = Shard([HostSpec("db-0", GIB, cpus=2, swap_bytes=GIB // 2, tasks=(greedy,), boot_unix_s=1_700_000_000)], seed=1)
    seen = []
    for t_s in AT_S:
        shard.advance(0, round(t_s * 1e9))
        seen.append(shard.records[0].copy())
    return seen


def read_keys(text: str) -> dict[str, int]:
    return {line.split()[0].rstrip(":"): int(line.split()[1]) for line in text.splitlines()}


def test_the_page_is_proc_in_other_words(rows: list[np.void]) -> None:
    exporter = NodeExporter(profile("full"), "db-0")
    for row, t_s in zip(rows, AT_S):
        proc = procfs.tree(row)
        shown = {one.name: value for one, value in zip(exporter.series, exporter.values(row).tolist())}
        mem, vm = read_keys(proc["meminfo"]), read_keys(proc["vmstat"])
        for field in ("MemTotal", "MemFree", "MemAvailable", "Active(anon)", "SwapFree", "Committed_AS"):
            assert shown[f"node_memory_{field.replace('(', '_').replace(')', '')}_bytes"] == mem[field] * 1024
        for field in ("pgfault", "pgmajfault", "pswpin", "pswpout", "oom_kill"):
            assert shown[f"node_vmstat_{field}"] == vm[field]
        for file, resource in (("memory", "memory"), ("io", "io")):
            some, full = (int(line.rpartition("=")[2]) for line in proc[f"pressure/{file}"].splitlines())
            assert shown[f"node_pressure_{resource}_waiting_seconds_total"] == some / 1000 / 1000
            assert shown[f"node_pressure_{resource}_stalled_seconds_total"] == full / 1000 / 1000
        assert f"{shown['node_load1']:.2f} {shown['node_load5']:.2f} {shown['node_load15']:.2f}" == " ".join(proc["loadavg"].split()[:3])
        assert float(proc["uptime"].split()[0]) == t_s == round(shown["node_time_seconds"] - shown["node_boot_time_seconds"], 2)


def test_the_incident_is_visible_from_outside(rows: list[np.void]) -> None:
    """1 GiB of RAM, 50 MiB/s from 2 s on: memory is full after some 18 s, swap after some 27 s; then the killer comes."""
    before, after = read_keys(procfs.tree(rows[0])["meminfo"]), read_keys(procfs.tree(rows[-1])["vmstat"])
    assert before["MemAvailable"] > 0.6 * before["MemTotal"]
    assert after["pswpout"] > 0 and after["oom_kill"] == 1


def test_cpu_time_and_threads_are_those_of_the_host(rows: list[np.void]) -> None:
    for row in rows:
        proc = procfs.tree(row)
        ticks = [int(number) for number in proc["stat"].splitlines()[0].split()[1:9]]
        assert ticks == (row["cpu_ns"] // 10_000_000).tolist()
        running, blocked = (int(line.split()[1]) for line in proc["stat"].splitlines() if line.startswith("procs_"))
        assert 0 <= running <= 2 and blocked >= 0 and running + blocked <= 1, "one thread at most"


def test_an_array_of_one_is_scraped_as_the_record_in_it(rows: list[np.void]) -> None:
    bare, sliced = TargetScraper(profile("full"), "db-0"), TargetScraper(profile("full"), "db-0")
    records = np.array(rows)
    for i, t_s in enumerate(AT_S):
        bare.scrape(rows[i], round(t_s * 1000))
        sliced.scrape(records[i : i + 1], round(t_s * 1000))
    assert [part.tobytes() for part in bare.drain()] == [part.tobytes() for part in sliced.drain()]


def test_scraping_a_host_leaves_it_as_it_is(rows: list[np.void]) -> None:
    scraper = TargetScraper(profile("full"), "db-0")
    for row, t_s in zip(rows, AT_S):
        before = row.tobytes()
        scraper.scrape(row, round(t_s * 1000) + 1)
        procfs.tree(row)
        assert row.tobytes() == before
    index, _, values = scraper.drain()
    names = [scraper.series[i].name for i in index.tolist()]
    assert [value for name, value in zip(names, values.tolist()) if name == "up"] == [1.0] * len(rows)
