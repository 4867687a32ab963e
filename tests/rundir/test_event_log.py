# SPDX-License-Identifier: Apache-2.0
"""A history that grows says what a plain list of its events would say, in a small part of the memory.

The naive twin is that list; the order of the sealed file is `sorted`.
"""

from __future__ import annotations

import json
import pickle
import tracemalloc
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.rundir import event_log
from fleetsim.rundir.event_log import EventLog
from fleetsim.rundir.models import HistoryEvent

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
EVENTS = st.lists(
    st.builds(
        HistoryEvent,
        t_ns=st.integers(0, 2**62) | st.integers(0, 9),
        host=st.sampled_from(["", "a", "b", "ö"]),
        seq=st.integers(0, 40) | st.integers(1 << 40, (1 << 40) + 2000),
        kind=st.sampled_from(["boot", "oom_kill", "impact_start"]),
        subject=st.text(max_size=4),
        id=st.text(max_size=4),
        data=st.dictionaries(st.text(max_size=4), JSON, max_size=3),
    ),
    unique_by=lambda event: (event.host, event.seq),
    max_size=60,
)


def line(event: HistoryEvent) -> str:
    return json.dumps(event.model_dump(), ensure_ascii=False, separators=(",", ":"))


@given(EVENTS, st.integers(1, 9), st.integers(0, 70), st.integers(0, 12), st.booleans())
def test_it_says_what_a_list_would_say(events: list[HistoryEvent], block: int, since: int, t_ns: int, pickled: bool) -> None:
    with patch.object(event_log, "BLOCK", block):
        log = EventLog(events)
    if pickled:
        log = pickle.loads(pickle.dumps(log))
    assert list(log) == events
    assert len(log) == len(events)
    assert list(log.lines(since)) == [line(event) for event in events[since:]]
    assert list(log.after(t_ns)) == [event for event in events if event.t_ns >= t_ns]
    assert list(log.in_order()) == [line(e) for e in sorted(events, key=lambda e: (e.t_ns, e.host, e.seq))]
    assert log.kinds["boot"] == sum(event.kind == "boot" for event in events)
    for number in range(-len(events), len(events)):
        assert log[number] == events[number]


@given(EVENTS.filter(bool), st.data())
def test_a_sequence_number_is_used_once_on_a_host(events: list[HistoryEvent], data: st.DataObject) -> None:
    log = EventLog(events)
    again = data.draw(st.sampled_from(events))
    with pytest.raises(ValueError, match=f"has used the sequence number {again.seq} twice"):
        log.tell(5, again.host, again.seq, "boot")
    assert list(log) == events


def test_the_start_of_a_fleet_takes_little() -> None:
    """30 containers start and become ready on each of 400 hosts."""
    tracemalloc.start()
    log = EventLog()
    before = tracemalloc.get_traced_memory()[0]
    for n in range(400):
        for seq in range(60):
            kind = "pod_ready" if seq >= 30 else "task_start"
            log.tell(7 * seq + n, f"node-{n}", seq, kind, f"heap{seq % 30}", "", {"pid": 1000 + seq, "pod": f"heap{seq % 30}"})
    log.tell(10**9, "", 0, "fault_start")
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown / len(log) < 120, "bytes per event, those included that wait for their block to be full"
