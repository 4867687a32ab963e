# SPDX-License-Identifier: Apache-2.0
"""Private_Dirty as a program reads it of itself: what it alone maps, as smaps has it."""

from __future__ import annotations

import pytest

from fleetsim.linux.private_dirty import private_dirty
from fleetsim.linux.task_mmu import smaps_rollup
from tests.host.worlds import PAGES, World, world

PATTERNS = ["seq", "random", "hot:0.2:0.8"]


def forked(pattern: str) -> World:
    ops = f"mmap_anon A 40 | touch A 40 0 | until 1 | fork_hold 3 | rewrite A 0 20 {pattern} for=6 | sleep 99"
    return world(tasks={"p": ops})


def row_of(w: World, name: str) -> int:
    return w.shard.names_of(0).tasks[name]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_child_alone_maps_what_its_parent_has_copied(pattern: str) -> None:
    w = forked(pattern).at(1.01)
    assert int(private_dirty(w.row, row_of(w, "p-child"))) < PAGES
    anon = w.meminfo("AnonPages")
    w.at(2.5)
    copied = round((w.meminfo("AnonPages") - anon) * PAGES)
    assert copied > 10 * PAGES
    for name in ("p", "p-child"):
        assert int(private_dirty(w.row, row_of(w, name))) == pytest.approx(copied, abs=PAGES // 2)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_is_what_smaps_rollup_says(pattern: str) -> None:
    w = forked(pattern).at(2.5)
    for name in ("p", "p-child"):
        t = row_of(w, name)
        image = int(w.row["tasks"][t]["base_anon"])
        assert int(private_dirty(w.row, t)) == pytest.approx(smaps_rollup(w.row, t).private["anon"], abs=image + 1)


def test_without_a_fork_all_of_it_is_private() -> None:
    w = world(tasks={"p": "mmap_anon A 40 | touch A 40 0 | sleep 99"}).at(3)
    assert int(private_dirty(w.row, row_of(w, "p"))) == 40 * PAGES
