# SPDX-License-Identifier: Apache-2.0
"""Several swap areas: which is filled first, what falls through, and what swapoff does (kernel-laws §12.1)."""

from __future__ import annotations

from random import Random

import pytest

from fleetsim.errors import BadInput
from fleetsim.host.spec import DiskSpec, SwapSpec
from fleetsim.linux.swapfile import SWAP_BATCH, pick_slots
from tests.host.worlds import FAST_DISK, MIB, PAGES, World, world

SLOW_DISK = DiskSpec(bytes_per_s=20 << 20, latency_us=1000.0)
GROWING = "mmap_anon A 150 | touch A 150 100"
HOG = "until 2 | mmap_anon B 150 | touch B 150 100 | until 6 | exit 0"


def area(name: str, mib: int, priority: int = -1, disk: DiskSpec | None = FAST_DISK, *, on: bool = True) -> SwapSpec:
    return SwapSpec(f"/dev/{name}", mib * MIB + 4096, priority, disk=disk, on=on)


def used(w: World) -> list[int]:
    return [int(a["inuse"]) for a in w.row["swap_info"]]


def two_areas(first: SwapSpec, second: SwapSpec, **tasks: str) -> World:
    return world(swaps=(first, second), tasks={"a": GROWING + " | sleep 100", "b": HOG, **tasks})


def test_the_area_of_higher_priority_is_filled_first_and_what_it_cannot_take_falls_through() -> None:
    """recordings: h31 (96 MiB at priority 10 full before the 400 MiB at priority 5 has a page)."""
    w = two_areas(area("low", 200, 5), area("high", 10, 9))
    while used(w)[1] < 10 * PAGES:
        assert used(w)[0] == 0
        w.at(float(w.row["now_ns"]) / 1e9 + 0.02)
    w.at(4)
    assert used(w)[1] == 10 * PAGES
    assert used(w)[0] > 10 * PAGES


def test_areas_of_one_priority_are_filled_alike_a_batch_at_a_time() -> None:
    """recordings: h32 (two areas 64 slots apart at 43 MiB, equal at 70 MiB)."""
    w = two_areas(area("x", 100, 5), area("y", 100, 5)).at(4)
    assert min(used(w)[:2]) > 5 * PAGES
    assert abs(used(w)[0] - used(w)[1]) <= SWAP_BATCH


def test_without_a_priority_each_area_is_below_those_before_it() -> None:
    w = two_areas(area("x", 10), area("y", 200)).at(4)
    assert [int(a["prio"]) for a in w.row["swap_info"]][:2] == [-2, -3]
    assert used(w)[0] == 10 * PAGES
    assert w.meminfo("SwapTotal") == 210
    assert w.meminfo("SwapFree") == pytest.approx(210 - sum(used(w)) / PAGES)


def test_each_area_is_read_from_its_own_disk() -> None:
    """The slow disk holds what fell through: coming back takes its time."""
    ops = GROWING + " | until 7 | read A 150 0 seq | sleep 100"
    took = []
    for disk in (FAST_DISK, SLOW_DISK):
        w = world(swaps=(area("x", 4, 9), area("y", 190, 5, disk)), tasks={"a": ops, "b": HOG}).at(40)
        assert all(int(w.row["disk"][i]["pages"][0]) > 0 for i in (1, 2)), "both were read from"
        assert int(w.row["disk"][0]["pages"][0]) == 0
        took.append(float(w.task("a")["blkio_ns"]))
    assert took[1] > 5 * took[0]


def test_a_tasks_exit_gives_back_its_slots_in_every_area() -> None:
    w = two_areas(area("x", 10, 9), area("y", 200, 5)).at(5)
    assert sum(used(w)) > 20 * PAGES
    w.command(9, "kill", task="a")
    w.at(12)
    assert used(w) == [0, 0, 0]
    assert w.meminfo("SwapFree") == w.meminfo("SwapTotal")


def test_swapoff_brings_the_pages_back_and_takes_the_area_out_of_the_totals() -> None:
    w = two_areas(area("x", 30, 9), area("y", 100, 5), admin="until 8 | swapoff /dev/x | sleep 100").at(7.9)
    rss, swapped = int(w.task("a")["rss_anon"]), used(w)
    assert swapped[0] > 5 * PAGES
    w.at(12)
    assert used(w) == [0, swapped[1], 0]
    assert int(w.row["swap_info"][0]["state"]) == 0
    assert w.meminfo("SwapTotal") == 100
    assert int(w.task("a")["rss_anon"]) == rss + swapped[0]
    assert w.kills() == []


def test_an_area_can_be_used_again_after_swapoff() -> None:
    ops = "swapoff /dev/x | sleep 1 | swapon /dev/x 7 | sleep 100"
    w = two_areas(area("x", 200, 9), area("y", 200, 5), admin=ops).at(5)
    assert int(w.row["swap_info"][0]["prio"]) == 7
    assert used(w)[0] > 5 * PAGES
    assert used(w)[1] == 0


def test_a_host_that_boots_without_swap_can_be_given_some() -> None:
    w = world(
        swaps=(area("x", 200, on=False),), tasks={"a": GROWING + " | sleep 99", "b": HOG, "admin": "until 1 | swapon /dev/x | sleep 100"}
    )
    assert w.at(0.5).meminfo("SwapTotal") == 0
    w.at(5)
    assert w.meminfo("SwapTotal") == 200
    assert int(w.row["swap_mode"]) == 0, "one plain area needs no counting by area"
    assert w.vm("pswpout") > 5 * PAGES
    assert w.kills() == []


def test_swapoff_that_finds_no_memory_is_the_oom_killers_first_choice_and_the_area_stays() -> None:
    """mm/oom_kill.c oom_task_origin: however small the task is."""
    ops = "mmap_anon A 280 | touch A 280 100 | sleep 100"
    w = world(swaps=(area("x", 150),), tasks={"a": ops, "admin": "until 8 | swapoff /dev/x | sleep 100"}).at(30)
    assert w.kills() == ["admin"]
    assert int(w.row["swap_info"][0]["state"]) == 1
    assert w.meminfo("SwapTotal") == 150


def test_swapoff_of_what_is_not_used_is_refused() -> None:
    w = world(swaps=(area("x", 150, on=False),), tasks={"admin": "swapoff /dev/x | sleep 100"}).at(1)
    assert [e.subject for e in w.events("enomem")] == ["admin"]


def test_picked_slots_follow_what_a_group_has_in_each_area() -> None:
    """Systematic sampling: each draw is a whole number of slots it has, and over all draws each area gives its share."""
    w = two_areas(area("x", 100, 5), area("y", 100, 5))
    w.at(0.1)
    luck = Random(7)
    for _ in range(40):
        have = [luck.randrange(0, 3000), luck.randrange(0, 300), luck.choice([0, 7])]
        left, given = sum(have), [0, 0, 0]
        wanted, draws = have[:], 0
        w.row["groups"][0]["slots"] = have
        while left > 0:
            n = min(left, luck.choice([1, 2, 31, 32, 400]))
            pick_slots(w.row, 0, n, 0)
            got = [int(k) for k in w.row["swap_got"]]
            assert sum(got) == n
            assert all(0 <= k <= h for k, h in zip(got, have, strict=True))
            have = [h - k for h, k in zip(have, got, strict=True)]
            given = [g + k for g, k in zip(given, got, strict=True)]
            w.row["groups"][0]["slots"] = have
            left, draws = left - n, draws + 1
            if draws == 20 and sum(wanted) > 0:
                expected = [sum(given) * x / sum(wanted) for x in wanted]
                assert all(abs(g - e) < 25 + 0.2 * e for g, e in zip(given, expected, strict=True))
        assert given == wanted


@pytest.mark.parametrize(
    ("areas", "sentence"),
    [
        ((area("x", 10), area("x", 20)), "is there twice"),
        ((area("x", 10, disk=None),) * 4, "more than 3 swap areas"),
        ((SwapSpec("/dev/x", 4096),), "mkswap wants at least"),
        ((SwapSpec("/dev/x", 1 << 20, kind="tape"),), "unknown kind 'tape'"),
        ((SwapSpec("/dev/zram0", 1 << 20, kind="zram", disk=FAST_DISK),), "has no disk"),
    ],
)
def test_areas_that_cannot_be_are_refused_in_a_sentence(areas: tuple[SwapSpec, ...], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        world(swaps=areas)


@pytest.mark.parametrize(
    ("op", "sentence"),
    [
        ("swapon /dev/x 40000", "0 to 32767"),
        ("swapoff /dev/nothing", "unknown swap area"),
        ("mmap_anon A 10 noise=5000", "0 to 4096"),
    ],
)
def test_ops_that_cannot_be_are_refused_in_a_sentence(op: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence.replace("'", ".")):
        world(swaps=(area("x", 10),), tasks={"a": op})


def test_an_area_without_a_priority_that_swapoff_gives_back_is_the_last_one() -> None:
    """mm/swapfile.c setup_swap_info: the others have moved up meanwhile."""
    ops = "mmap_anon A 250 | touch A 250 100 | sleep 100"
    w = world(swaps=(area("x", 110), area("y", 40)), tasks={"a": ops, "admin": "until 8 | swapoff /dev/x | sleep 100"}).at(30)
    assert w.kills() == ["admin"]
    first, second = (int(a["prio"]) for a in w.row["swap_info"][:2])
    assert first < second < 0


def test_a_task_that_ends_in_the_middle_of_swapoff_leaves_the_area_in_use() -> None:
    w = two_areas(area("x", 200, disk=SLOW_DISK), area("y", 10), admin="until 8 | swapoff /dev/x | sleep 100")
    w.at(8.2)
    assert int(w.row["swapoff_task"]) > 0
    w.command(8.2, "start_thread", task="admin", thread="two", ops=("exit 3",))
    w.at(12)
    assert int(w.row["swapoff_task"]) == 0
    assert int(w.row["swap_info"][0]["state"]) == 1
    assert w.meminfo("SwapTotal") == 210
