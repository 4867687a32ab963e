# SPDX-License-Identifier: Apache-2.0
"""node_exporter's values from what a kernel shows: units, order, and a naive twin in plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from fleetsim.linux.vmstat_names import MEMINFO_FIELDS, VMSTAT_FIELDS
from fleetsim.observe.catalog import BY_NAME, COLLECTORS, NODE_EXPORTER, PROFILES, profile
from fleetsim.observe.node_exporter import EXPORTER, SCRATCH, collect_reading, plan, series

from .conftest import BOOT_UNIX_S, MakeReading


def page(reading: np.void, name: str = "full", *, slowdown: float = 1.0, requests: int = 0) -> dict[str, float]:
    """`NAME{label value,…}` → value."""
    kept = profile(name)
    scratch, exporter, out = np.zeros(1, SCRATCH), np.zeros(1, EXPORTER), np.zeros(len(plan(kept)))
    scratch["reading"], exporter["requests"], exporter["start_unix_ns"] = reading, requests, BOOT_UNIX_S * 10**9
    collect_reading(scratch[0], exporter[0], slowdown, plan(kept), out)
    names = [one.name + ("{" + ",".join(value for _, value in one.labels) + "}" if one.labels else "") for one in series(kept)]
    return dict(zip(names, out.tolist(), strict=True))


def test_meminfo_kilobytes_become_bytes_and_huge_page_counts_stay_counts(make_reading: MakeReading) -> None:
    reading = make_reading()
    reading["meminfo"][MEMINFO_FIELDS.index("MemAvailable")] = 2_278_200
    reading["meminfo"][MEMINFO_FIELDS.index("HugePages_Total")] = 512
    reading["meminfo"][MEMINFO_FIELDS.index("Active(anon)")] = 1580
    shown = page(reading)
    assert shown["node_memory_MemAvailable_bytes"] == 2_332_876_800
    assert shown["node_memory_HugePages_Total"] == 512
    assert shown["node_memory_Active_anon_bytes"] == 1_617_920


def test_pressure_is_in_seconds_to_the_last_bit_of_the_real_exporter(make_reading: MakeReading) -> None:
    """The value scraped from a real one: 222084213 µs / 1000 / 1000, not / 10⁶ (which would end in …13)."""
    shown = page(make_reading(memory_full_s=2.5, io_full_s=0.5))
    assert shown["node_pressure_cpu_waiting_seconds_total"] == 222.08421299999998 != 222_084_213 / 1e6
    assert shown["node_pressure_memory_stalled_seconds_total"] == 2.5
    assert shown["node_pressure_io_stalled_seconds_total"] == 0.5
    assert shown["node_pressure_memory_waiting_seconds_total"] == 987_654_321 / 1000 / 1000


def test_load_is_the_hundredths_that_proc_loadavg_prints(make_reading: MakeReading) -> None:
    """3051/2048 = 1.4897…: the kernel adds half a hundredth before it cuts, so 1.49."""
    shown = page(make_reading())
    assert (shown["node_load1"], shown["node_load5"], shown["node_load15"]) == (1.49, 2.81, 2.18)


def test_clocks_are_wall_time_in_the_exporter_s_own_rounding(make_reading: MakeReading) -> None:
    """Go turns nanoseconds into a float first, which costs some 0.1 µs: 1700000030.2499998."""
    shown = page(make_reading(now_s=30.25))
    assert shown["node_boot_time_seconds"] == BOOT_UNIX_S == shown["process_start_time_seconds"]
    assert shown["node_time_seconds"] == float(1_700_000_030_250_000_000) / 1e9 != BOOT_UNIX_S + 30.25


def test_the_exporter_counts_its_own_pages_and_times_its_collectors(make_reading: MakeReading) -> None:
    shown = page(make_reading(), slowdown=4.0, requests=17)
    assert shown["promhttp_metric_handler_requests_total{200}"] == 17
    assert shown["node_scrape_collector_duration_seconds{meminfo}"] == 4 * 0.00021745
    assert [shown[f"node_scrape_collector_success{{{name}}}"] for name in COLLECTORS] == [1.0] * len(COLLECTORS)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_shows_the_same_values_of_fewer_series_in_page_order(name: str, make_reading: MakeReading) -> None:
    full, part = page(make_reading(now_s=1)), page(make_reading(now_s=1), name)
    assert part.items() <= full.items()
    order = [(one.name, [value for _, value in one.labels]) for one in series(profile(name))]
    assert order == sorted(order) and len(set(map(str, order))) == len(order)


def test_every_family_of_the_catalogue_is_on_the_full_page(make_reading: MakeReading) -> None:
    shown = {name.partition("{")[0] for name in page(make_reading())}
    assert shown == {metric.name for metric in BY_NAME.values() if metric.exporter == NODE_EXPORTER}


def test_every_series_shows_the_field_it_is_named_after(make_reading: MakeReading) -> None:
    """Naive twin: by name, one at a time."""
    reading = make_reading()
    shown = page(reading)
    for i, field in enumerate(MEMINFO_FIELDS):
        bare = field.replace("(", "_").replace(")", "")
        kilobytes = f"node_memory_{bare}_bytes"
        assert shown[kilobytes if kilobytes in shown else f"node_memory_{bare}"] == reading["meminfo"][i] * (
            1024 if kilobytes in shown else 1
        )
    for field in ("oom_kill", "pgfault", "pgmajfault", "pgpgin", "pgpgout", "pswpin", "pswpout"):
        assert shown[f"node_vmstat_{field}"] == reading["vmstat"][VMSTAT_FIELDS.index(field)]


def test_the_node_s_own_name_is_in_uname_and_nowhere_else() -> None:
    named = [one for one in series(profile("full"), host="db-7") if "db-7" in dict(one.labels).values()]
    assert [(one.name, dict(one.labels)["nodename"]) for one in named] == [("node_uname_info", "db-7")]
