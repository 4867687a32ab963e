# SPDX-License-Identifier: Apache-2.0
"""When targets are scraped: properties that hold for every target, seed, window and interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.errors import BadInput
from fleetsim.observe.schedule import LATENESS_MS, TOLERANCE_MS, offset_ms, schedule

keys = st.text(max_size=40)
seeds = st.integers(0, 2**63)
intervals = st.integers(1, 120).map(lambda seconds: seconds * 1000)
starts = st.integers(0, 2_000_000_000_000)
spans = st.integers(0, 40)


@given(keys, seeds, starts, intervals, spans)
def test_times_rise_and_stay_in_the_window(key: str, seed: int, start: int, interval: int, span: int) -> None:
    until = start + span * interval
    times = schedule(key, seed, start, until, interval)
    assert (np.diff(times) > 0).all()
    assert len(times) == 0 or (times[0] >= start and times[-1] < until)
    assert abs(len(times) - span) <= 1, "one scrape per interval, give or take the edges"


@given(keys, seeds, starts, intervals, spans)
def test_no_sample_ever_lies_on_the_evaluation_grid(key: str, seed: int, start: int, interval: int, span: int) -> None:
    times = schedule(key, seed, start, start + span * interval, interval)
    assert (times % 1000 != 0).all(), "rules are judged on whole seconds"


@given(keys, seeds, starts, intervals, spans)
def test_a_target_keeps_its_offset_for_ever_and_is_at_most_a_little_late(key: str, seed: int, start: int, interval: int, span: int) -> None:
    times = schedule(key, seed, start, start + span * interval, interval)
    late = (times - offset_ms(key, seed, interval)) % interval
    assert ((late == 0) | ((late > TOLERANCE_MS) & (late < LATENESS_MS))).all()


@given(keys, seeds, starts, intervals, spans, st.data())
def test_two_windows_that_touch_give_what_one_gives(key: str, seed: int, start: int, interval: int, span: int, data: st.DataObject) -> None:
    until = start + span * interval
    middle = data.draw(st.integers(start, until))
    parts = [schedule(key, seed, start, middle, interval), schedule(key, seed, middle, until, interval)]
    assert np.concatenate(parts).tolist() == schedule(key, seed, start, until, interval).tolist()


def test_a_target_is_scraped_at_the_same_times_whoever_else_is_there() -> None:
    """Pinned numbers: they depend on this target's labels and the seed alone, on every machine and in every release."""
    assert schedule('instance="db-0",job="node-exporter"', 7, 0, 60_000, 15_000).tolist() == [10_730, 25_727, 40_735, 55_737]


def test_targets_spread_over_the_whole_interval() -> None:
    offsets = [offset_ms(f"host-{i}", 1, 15_000) for i in range(3000)]
    per_second = np.bincount([offset // 1000 for offset in offsets], minlength=15)
    assert len(per_second) == 15 and per_second.min() > 100, "about 200 each of 3000"


def test_another_seed_gives_other_offsets() -> None:
    assert len({offset_ms("db-0", seed, 60_000) for seed in range(50)}) > 40


@pytest.mark.parametrize("interval", [0, -15_000, 1500])
def test_an_interval_that_is_not_whole_seconds_is_refused(interval: int) -> None:
    with pytest.raises(BadInput, match=f"a scrape interval of {interval} ms cannot be used"):
        schedule("db-0", 1, 0, 60_000, interval)
