# SPDX-License-Identifier: Apache-2.0
"""Charges that meet a limit: a round of reclaim for each, which a host with a tick makes in quanta (kernel-laws §8.3)."""

from __future__ import annotations

import pytest

from fleetsim.linux.alloc_slowpath import QUANTUM_SHIFT
from fleetsim.linux.mm_types import SWAP_CLUSTER_MAX
from tests.host.worlds import MIB, PAGES, World, world

LIMIT = 64  # MiB


def writer(tick_ms: float) -> World:
    """A container at its limit writes a dump of four times its size."""
    ops = f"write_file /dump {4 * LIMIT} 0 | sleep 100"
    return world(1024, tick_ms=tick_ms, cgroups={"box": {"memory.max": LIMIT}}, tasks={"box/dump": ops}, files={"/dump": 0})


def reader(tick_ms: float, *, limit: int = LIMIT, swap_mib: int = 0) -> World:
    """A container that reads a file of four times its size, on a host with or without a tick."""
    ops = f"read_file /data 0 {4 * limit} | sleep 100"
    return world(
        1024,
        tick_ms=tick_ms,
        swap_mib=swap_mib,
        cgroups={"box": {"memory.max": limit}},
        tasks={"box/copy": ops},
        files={"/data": 4 * limit},
    )


@pytest.mark.parametrize("build", [reader, writer], ids=["reads", "writes"])
def test_quanta_reclaim_as_many_pages_in_as_many_rounds_as_charges_one_by_one(build: object) -> None:
    """What a host without a tick does is the kernel's own order: one round of SWAP_CLUSTER_MAX pages whenever a charge fails."""
    exact, ticked = (build(tick).at(20) for tick in (0, 200))  # type: ignore[operator]
    for name in ("pgscan_file", "pgsteal_file"):
        assert ticked.vm(name) == pytest.approx(exact.vm(name), rel=0.02), name
        assert exact.vm(name) > 2 * LIMIT * PAGES
    rounds = [w.events_of("box")["max"] for w in (exact, ticked)]
    assert rounds[1] == pytest.approx(rounds[0], rel=0.1)
    assert rounds[0] > 2 * LIMIT * PAGES // (4 * SWAP_CLUSTER_MAX)
    assert ticked.events_of("box")["oom"] == exact.events_of("box")["oom"] == 0
    spent = [int(w.task("copy" if build is reader else "dump")["stime_ns"]) for w in (exact, ticked)]
    assert spent[1] == pytest.approx(spent[0], rel=0.05), "the rounds cost what they cost"


def test_a_quantum_makes_room_for_no_more_than_a_small_part_of_the_limit() -> None:
    w = reader(200)
    limit = LIMIT * PAGES
    least = limit
    for millisecond in range(400, 500):
        w.at(millisecond / 1000)
        if w.events_of("box")["max"] > 0:
            least = min(least, int(w.cg("box")["usage"]))
    assert w.events_of("box")["max"] > 10
    assert limit - 3 * (limit >> QUANTUM_SHIFT) <= least < limit


def test_pages_that_must_be_written_to_swap_end_a_turn_after_one_round() -> None:
    """The writes take time: who made them waits for them, as the kernel's reclaimer does."""
    ops = f"mmap_anon A {2 * LIMIT} | touch A {2 * LIMIT} 200 | sleep 100"
    exact, ticked = (
        world(1024, tick_ms=tick, swap_mib=512, cgroups={"box": {"memory.max": LIMIT}}, tasks={"box/hog": ops}).at(30) for tick in (0, 200)
    )
    assert exact.vm("pswpout") > LIMIT * PAGES * 9 // 10
    assert ticked.vm("pswpout") == pytest.approx(exact.vm("pswpout"), rel=0.02)
    assert ticked.events_of("box")["max"] == pytest.approx(exact.events_of("box")["max"], rel=0.1)
    assert int(ticked.cg("box")["usage"]) <= LIMIT * MIB >> 12
