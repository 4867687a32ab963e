# SPDX-License-Identifier: Apache-2.0
"""Scrapes are scrapes: up, reports, staleness, slow answers, restarts. Each test is a short story of one target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.vmstat_names import VMSTAT_FIELDS
from fleetsim.observe.catalog import profile
from fleetsim.observe.node_exporter import READING
from fleetsim.observe.scrape import BASE_ANSWER_US, REFUSED_US, STALE_NAN_BITS, TargetScraper, answer_us

from .conftest import BOOT_UNIX_S, MakeReading

STALE = "stale"


def story(target: TargetScraper) -> dict[str, list[tuple[int, object]]]:
    """series name → [(t_ms, value or STALE)] of everything drained."""
    index, t_ms, values = target.drain()
    bits = values.view(np.uint64)
    told: dict[str, list[tuple[int, object]]] = {}
    for i, t, value, pattern in zip(index.tolist(), t_ms.tolist(), values.tolist(), bits.tolist(), strict=True):
        told.setdefault(target.series[i].name, []).append((t, STALE if pattern == STALE_NAN_BITS else value))
    return told


def small() -> TargetScraper:
    """A target with two page series and all five reports."""
    reports = {"scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling", "scrape_series_added"}
    return TargetScraper(profile("rules", {"node_load1", "node_boot_time_seconds"} | reports), "db-0")


def test_a_calm_host_answers_and_prometheus_reports_it(make_reading: MakeReading) -> None:
    target = small()
    target.scrape_reading(make_reading(now_s=10), 10_007)
    target.scrape_reading(make_reading(now_s=25), 25_007)
    assert story(target) == {
        "node_boot_time_seconds": [(10_007, BOOT_UNIX_S), (25_007, BOOT_UNIX_S)],
        "node_load1": [(10_007, 1.49), (25_007, 1.49)],
        "up": [(10_007, 1), (25_007, 1)],
        "scrape_duration_seconds": [(10_007, 0.01), (25_007, 0.01)],
        "scrape_samples_scraped": [(10_007, 2), (25_007, 2)],
        "scrape_samples_post_metric_relabeling": [(10_007, 2), (25_007, 2)],
        "scrape_series_added": [(10_007, 2), (25_007, 0)],
    }


def test_a_host_that_stood_still_does_not_answer_and_its_series_go_stale_once(make_reading: MakeReading) -> None:
    """Memory pressure `full` for the whole time since the last scrape, twice; then it lets go."""
    target = small()
    target.scrape_reading(make_reading(now_s=10), 10_000)
    target.scrape_reading(make_reading(now_s=25, memory_full_s=15), 25_000)
    target.scrape_reading(make_reading(now_s=40, memory_full_s=30), 40_000)
    target.scrape_reading(make_reading(now_s=55, memory_full_s=30), 55_000)
    told = story(target)
    assert told["up"] == [(10_000, 1), (25_000, 0), (40_000, 0), (55_000, 1)]
    assert told["node_load1"] == [(10_000, 1.49), (25_000, STALE), (55_000, 1.49)]
    assert told["scrape_duration_seconds"] == [(10_000, 0.01), (25_000, 10), (40_000, 10), (55_000, 0.01)]
    assert told["scrape_samples_scraped"] == [(10_000, 2), (25_000, 0), (40_000, 0), (55_000, 2)]
    assert told["scrape_series_added"] == [(10_000, 2), (25_000, 0), (40_000, 0), (55_000, 0)], "Prometheus still had them in its cache"


def test_a_target_that_never_answered_has_nothing_to_go_stale(make_reading: MakeReading) -> None:
    target = small()
    target.scrape_reading(make_reading(now_s=10, io_full_s=10), 10_000)
    told = story(target)
    assert "node_load1" not in told and told["up"] == [(10_000, 0)]


def test_half_the_time_stalled_doubles_the_answer(make_reading: MakeReading) -> None:
    target = small()
    target.scrape_reading(make_reading(now_s=10), 10_000)
    target.scrape_reading(make_reading(now_s=30, memory_full_s=10, io_full_s=4), 30_000)
    assert story(target)["scrape_duration_seconds"] == [(10_000, 0.01), (30_000, 0.02)]


def test_only_stalls_since_the_last_scrape_count(make_reading: MakeReading) -> None:
    target = small()
    target.scrape_reading(make_reading(now_s=100, memory_full_s=90), 100_000)
    target.scrape_reading(make_reading(now_s=115, memory_full_s=90), 115_000)
    assert story(target)["scrape_duration_seconds"] == [(100_000, 0.1), (115_000, 0.01)]


def test_an_empty_page_is_an_answer_too(make_reading: MakeReading) -> None:
    target = TargetScraper(profile("rules"), "db-0")
    target.scrape_reading(make_reading(now_s=10), 10_000)
    assert story(target) == {"up": [(10_000, 1)]}


def test_a_container_at_its_own_limit_or_a_busy_disk_starves_no_exporter(make_reading: MakeReading) -> None:
    """The host's `full` pressure is 100 %, but the host itself never reclaimed directly (allocstall_* stands still)."""
    target = small()
    target.scrape_reading(make_reading(now_s=10, allocstall=5), 10_000)
    target.scrape_reading(make_reading(now_s=25, memory_full_s=15, allocstall=5), 25_000)
    target.scrape_reading(make_reading(now_s=40, memory_full_s=15, io_full_s=15, allocstall=5), 40_000)
    told = story(target)
    assert [value for _, value in told["up"]] == [1, 1, 1]
    assert [value for _, value in told["scrape_duration_seconds"]] == [0.01, 0.01, 0.01]


def test_pressure_is_compared_with_the_time_it_covers_not_with_the_time_of_the_scrape(make_reading: MakeReading) -> None:
    """Totals are brought up to date every 2 s: 15 s between scrapes may show 16 s of stall, of which 8 s are half."""
    target = small()
    for now_s, psi_at_s, memory_full_s in ((25, 24, 0), (40, 40, 8)):
        reading = make_reading(now_s=now_s, memory_full_s=memory_full_s)
        reading["psi_at_ns"] = psi_at_s * 10**9
        target.scrape_reading(reading, now_s * 1000)
    assert story(target)["scrape_duration_seconds"] == [(25_000, 0.01), (40_000, 0.02)]


def test_the_timeout_is_the_target_s_own(make_reading: MakeReading) -> None:
    hasty = TargetScraper(profile("rules"), "db-0", timeout_ms=50)
    hasty.scrape_reading(make_reading(now_s=10, memory_full_s=7.9), 10_000)
    hasty.scrape_reading(make_reading(now_s=20, memory_full_s=15.9), 20_000)
    assert story(hasty)["up"] == [(10_000, 1), (20_000, 0)], "an answer that takes exactly the timeout comes too late"


def test_a_refused_connection_fails_at_once(make_reading: MakeReading) -> None:
    target = small()
    target.scrape_reading(make_reading(now_s=10), 10_000)
    target.refuse(25_000)
    target.refuse(40_000)
    told = story(target)
    assert told["up"] == [(10_000, 1), (25_000, 0), (40_000, 0)]
    assert told["node_load1"] == [(10_000, 1.49), (25_000, STALE)]
    assert told["scrape_duration_seconds"][1:] == [(25_000, REFUSED_US / 1e6), (40_000, REFUSED_US / 1e6)]


OWN = {"promhttp_metric_handler_requests_total", "process_start_time_seconds", "node_vmstat_oom_kill"}


def test_a_restarted_exporter_resets_its_own_counters_and_not_the_kernel_s(make_reading: MakeReading) -> None:
    target = TargetScraper(profile("rules", OWN), "db-0")
    target.scrape_reading(make_reading(now_s=10), 10_000)
    target.scrape_reading(make_reading(now_s=25), 25_000)
    target.restart_exporter((BOOT_UNIX_S + 30) * 10**9)
    target.scrape_reading(make_reading(now_s=40), 40_000)
    told = story(target)
    by_code = told["promhttp_metric_handler_requests_total"]
    assert by_code[::3] == [(10_000, 0), (25_000, 1), (40_000, 0)], "a page shows the requests before it"
    assert [value for _, value in told["process_start_time_seconds"]] == [BOOT_UNIX_S, BOOT_UNIX_S, BOOT_UNIX_S + 30]
    assert len({value for _, value in told["node_vmstat_oom_kill"]}) == 1


def test_a_reboot_restarts_the_exporter_too(make_reading: MakeReading) -> None:
    target = TargetScraper(profile("rules", OWN), "db-0")
    target.scrape_reading(make_reading(now_s=1000, memory_full_s=900), 1_000_000)
    target.scrape_reading(make_reading(now_s=5, boot_unix_s=BOOT_UNIX_S + 1010), 1_015_000)
    told = story(target)
    assert told["up"] == [(1_000_000, 1), (1_015_000, 1)]
    assert told["process_start_time_seconds"][1] == (1_015_000, BOOT_UNIX_S + 1010)
    assert told["promhttp_metric_handler_requests_total"][::3] == [(1_000_000, 0), (1_015_000, 0)]


def test_the_rules_profile_writes_only_what_is_asked_for_and_up(make_reading: MakeReading) -> None:
    target = TargetScraper(profile("rules", {"node_load5", "scrape_series_added"}), "db-0")
    target.scrape_reading(make_reading(now_s=10), 10_000)
    assert list(story(target)) == ["node_load5", "up", "scrape_series_added"]


steps = st.lists(st.tuples(st.sampled_from(["calm", "stalled", "refused", "restart"]), st.integers(1, 60)), max_size=30)


@given(steps)
def test_whatever_happens_each_gap_is_marked_once_and_up_tells_the_truth(happenings: list[tuple[str, int]]) -> None:
    """Prometheus' own rule: a stale marker stands exactly at the first failed scrape after a good one."""
    target = TargetScraper(profile("rules", {"node_load1"}), "db-0", room=1)
    now, stalled, was_up = 0, 0, False
    for what, seconds in happenings:
        now += seconds
        stalled += seconds if what == "stalled" else 0
        if what == "restart":
            target.restart_exporter(now)
            continue
        if what == "refused":
            target.refuse(now * 1000)
            up = False
        else:
            reading = np.zeros(1, READING)
            reading["now_ns"], reading["psi_at_ns"], reading["psi_total_us"][0, 2, 1] = now * 10**9, now * 10**9, stalled * 10**6
            reading["vmstat"][0, VMSTAT_FIELDS.index("allocstall_movable")] = stalled
            target.scrape_reading(reading[0], now * 1000)
            up = None
        told = story(target)
        ups = [value for _, value in told["up"]]
        up = ups == [1.0] if up is None else up
        loads = [value for _, value in told.get("node_load1", [])]
        assert ups == [1.0 if up else 0.0]
        assert loads == ([0.0] if up else [STALE] if was_up else [])
        was_up = up


def test_a_checkpoint_taken_between_two_scrapes_changes_nothing(make_reading: MakeReading) -> None:
    whole, first, second = small(), small(), small()
    readings = [make_reading(now_s=15 * k, memory_full_s=10 * k if k < 4 else 55) for k in range(1, 8)]
    for k, reading in enumerate(readings):
        whole.scrape_reading(reading, k)
    for k, reading in enumerate(readings[:3]):
        first.scrape_reading(reading, k)
    early = first.drain()
    second.restore(first.snapshot())
    for k, reading in enumerate(readings[3:], start=3):
        second.scrape_reading(reading, k)
    for kept, pieces in zip(whole.drain(), zip(early, second.drain(), strict=True), strict=True):
        assert kept.tobytes() == b"".join(piece.tobytes() for piece in pieces)


@pytest.mark.parametrize(
    ("elapsed", "stalled", "answer"),
    [(15_000_000, 0, BASE_ANSWER_US), (15_000_000, 7_500_000, 2 * BASE_ANSWER_US), (15_000_000, 15_000_000, -1), (0, 0, BASE_ANSWER_US)],
)
def test_an_answer_takes_its_work_divided_by_the_time_that_was_left(elapsed: int, stalled: int, answer: int) -> None:
    assert answer_us(BASE_ANSWER_US, elapsed, stalled) == answer
