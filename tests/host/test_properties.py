# SPDX-License-Identifier: Apache-2.0
"""Whatever runs on a host and whatever is done to it: pages are conserved, counters only grow, and the same is the same again."""

from __future__ import annotations

import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetsim.host.spec import Event
from fleetsim.linux import mm_types as mm
from tests.host.programs import Drawn, worlds
from tests.host.worlds import World, world

SECONDS = 8
PLAIN = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
EXAMPLES = 8 if PLAIN else 60  # the same properties a hundred times slower


def booted(drawn: Drawn) -> World:
    w = world(**drawn.host)
    for at_s, kind, args in drawn.commands:
        w.command(at_s, kind, **args)
    return w


def counters(w: World) -> np.ndarray:
    """Everything of a record that may only grow."""
    row, used = w.row, int(w.row["nr_cgroups"])
    groups = row["cgroups"][:used]
    parts = [
        row["vm"],
        row["psi_total_ns"],
        row["psi_total_us"],
        row["cpu_ns"][:3],
        row["disk"]["requests"],
        row["disk"]["pages"],
        row["disk"]["busy_ns"],
        row["bdi"]["dirtied"],
        row["journal"]["tid"],
        row["tasks"]["exits"],
        groups["stat"],
        groups["events"],
        groups["psi_total_ns"],
        groups["peak"],
        groups["nonresident_age"],
    ]
    return np.concatenate([np.ravel(part) for part in parts])


def same(a: World, b: World) -> None:
    assert a.events() == b.events()
    assert a.shard.dmesg == b.shard.dmesg
    for name in a.row.dtype.names or ():
        if name == "events":
            continue  # rows that were told already are scrap; how many depends on when they were collected
        assert a.row[name].tobytes() == b.row[name].tobytes(), f"row[{name!r}] differs"


@given(worlds())
@settings(max_examples=EXAMPLES)
def test_no_program_and_no_command_breaks_conservation_or_turns_a_counter_back(drawn: Drawn) -> None:
    w = booted(drawn)
    before = counters(w)
    for second in range(1, SECONDS + 1):
        w.at(second)  # every look checks that the tables are sound
        now = counters(w)
        assert (now >= before).all()
        before = now


@given(worlds())
@settings(max_examples=EXAMPLES // 2)
def test_limits_and_bounds_hold_at_every_second(drawn: Drawn) -> None:
    w = booted(drawn)
    lowest = {cg: int(w.row["cgroups"][cg]["max"]) for cg in range(1, 4)}
    for second in range(1, SECONDS + 1):
        w.at(second)
        info = w.all_meminfo()
        assert 0 <= info["MemAvailable"] <= info["MemTotal"]
        assert info["MemFree"] <= info["MemTotal"]
        assert 0 <= info["SwapCached"] <= info["SwapTotal"] - info["SwapFree"]
        for cg, limit in lowest.items():
            group = w.row["cgroups"][cg]
            if not any(kind == "limit" for _, kind, _ in drawn.commands):
                assert group["usage"] <= limit + 150, "programs' images and page tables are not stopped at the limit, user pages are"
            assert group["usage"] <= group["peak"]
        assert all(0 <= int(avg) <= 100 << 11 for avg in np.ravel(w.row["psi_avg"]))
        assert int(w.row["psi_total_ns"][2][1]) <= int(w.row["psi_total_ns"][2][0]) <= w.row["now_ns"] + 10 * mm.NS_PER_S


@given(worlds())
@settings(max_examples=EXAMPLES // 4)
def test_the_same_host_twice_is_the_same_to_the_last_byte(drawn: Drawn) -> None:
    same(booted(drawn).at(SECONDS), booted(drawn).at(SECONDS))


@given(worlds(), st.lists(st.floats(0.0, SECONDS, allow_nan=False), min_size=1, max_size=12))
@settings(max_examples=EXAMPLES // 2)
def test_how_often_somebody_looks_changes_nothing(drawn: Drawn, looks: list[float]) -> None:
    watched = booted(drawn)
    for seconds in sorted(looks):
        watched.at(seconds)
    same(booted(drawn).at(SECONDS), watched.at(SECONDS))


@given(worlds(), st.floats(0.5, SECONDS - 0.5, allow_nan=False))
@settings(max_examples=EXAMPLES // 4)
def test_a_host_restored_from_a_snapshot_ends_as_if_it_had_gone_on(drawn: Drawn, at_s: float) -> None:
    first = world(**drawn.host).at(at_s)
    data = first.shard.snapshot()
    first.at(SECONDS)
    second = world(**drawn.host)
    second.shard.restore(data)
    second.at(SECONDS)
    assert first.shard.snapshot() == second.shard.snapshot()


@given(worlds())
@settings(max_examples=EXAMPLES // 2)
def test_events_are_drained_once_in_order_and_none_is_lost(drawn: Drawn) -> None:
    w = booted(drawn)
    drained: list[Event] = []
    for second in range(1, SECONDS + 1):
        w.at(second)
        new = w.shard.drain_events()
        assert all(event.t_ns <= second * mm.NS_PER_S for event in new)
        drained += new
    assert w.shard.drain_events() == []
    assert [event.seq for event in drained] == list(range(len(drained))), "per host and never reused"
    assert [event.t_ns for event in drained] == sorted(event.t_ns for event in drained)
    kills = [event for event in drained if event.kind == "oom_kill"]
    assert len(kills) == w.vm("oom_kill") == sum("Killed process" in line for line in w.shard.dmesg[0])
