# SPDX-License-Identifier: Apache-2.0
"""The distrustful functions must notice: one field made wrong at a time, and a sentence comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleetsim.errors import ToolFailed
from fleetsim.linux.check import RULES, accounted_pages, validate_fast, violations
from tests.host.worlds import FAST_DISK, World, world


def sound() -> World:
    return world(
        swap_mib=64,
        swap_disk=FAST_DISK,
        cgroups={"box": {}},
        files={"/f": 30},
        tasks={
            "box/a": "mmap_anon A 150 | touch A 150 200 | mmap_anon R 60 | touch R 60 100 | rewrite R 0 40 random",
            "r": "read_file /f 0 50",
            "m": "mmap_file M /f | read M 0 20 random",
            "s": "shm S 10 | touch S 10 0 | write_file /dev/shm/g 5 0 | sleep 100",
        },
    ).at(5)


def test_a_busy_host_is_sound_and_its_pools_are_all_of_its_memory() -> None:
    w = sound()
    assert violations(w.row) == []
    assert validate_fast(w.row) == 0
    assert accounted_pages(w.row) == w.row["totalram"]


def listed(row: Any) -> Any:
    return row["cohorts"][int(row["cgroups"][1]["head"][0])]


Breaker = Callable[[Any], None]


def setter(*path: Any, by: int = 1) -> Breaker:
    def breaks(row: Any) -> None:
        for step in path[:-1]:
            row = row[step]
        row[path[-1]] += by

    return breaks


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (setter("slab_unreclaimable"), "do not add up to MemTotal"),
        (setter("zones", 1, "free"), "do not add up to MemTotal"),
        (setter("zones", 1, "pinned"), "zone 1 manages"),
        (setter("cgroups", 1, "size", 0), "its size says"),
        (setter("cgroups", 1, "tail", 0), "ends elsewhere"),
        (lambda row: listed(row).__setitem__("prev", 7), "does not know that it stands"),
        (lambda row: listed(row).__setitem__("cg", 0), "does not know that it stands"),
        (lambda row: listed(row).__setitem__("swapped", 12_345), "swapped"),
        (lambda row: listed(row).__setitem__("wb", -1), "impossible counts"),
        (setter("groups", 0, "resident"), "resident"),
        (setter("groups", 0, "evicted"), "evicted"),
        (setter("groups", 0, "mapped", by=1 << 40), "Mapped is"),
        (setter("file_mapped"), "Mapped is"),
        (setter("shmem"), "shmem is"),
        (setter("anon_mapped"), "anon_mapped is"),
        (setter("mounts", 1, "blocks"), "tmpfs mount 1"),
        (setter("mappings", 0, "mapped", by=1 << 40), "impossible counts"),
        (setter("mappings", 0, "mapped", by=-1), "areas hold"),
        (setter("tasks", 2, "rss_file"), "resident file pages"),
        (setter("tasks", 3, "rss_shmem"), "resident shmem pages"),
        (setter("swap_free", by=-1), "swap slots"),
        (setter("swap_free", by=1 << 40), "SwapFree is outside"),
        (setter("tasks", 0, "rss_anon"), "resident anon pages"),
        (setter("tasks", 0, "swapents"), "VmSwap"),
        (setter("nr_groups", by=-1), "is in use, nr_groups is"),
        (setter("cgroups", 1, "low"), "none is said to be protected"),
        (setter("zones", 1, "hole_pageblocks"), "pageblocks lie in its regions' holes"),
        (setter("cgroups", 1, "usage", by=-(1 << 40)), "usage, swap, anon or file is negative"),
    ],
)
def test_each_wrong_number_is_noticed(breaks: Breaker, words: str) -> None:
    w = sound()
    breaks(w.row)
    found = violations(w.row)
    assert any(words in sentence for sentence in found), found


def test_a_host_whose_pages_do_not_add_up_stops_the_run_with_its_name_time_and_seed() -> None:
    w = sound()
    w.row["kernel_stack"] += 5
    with pytest.raises(ToolFailed, match=r"host host at 6\.000 s, seed 1: the pools of the machine do not add up to MemTotal"):
        w.shard.advance(0, 6_000_000_000)


def test_every_rule_has_its_sentence() -> None:
    assert len(set(RULES)) == len(RULES) == 7
