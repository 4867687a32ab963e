# SPDX-License-Identifier: Apache-2.0
"""The exact TLB simulator: against arithmetic that can be done by hand, and against a naive twin on random traces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetsim.hardware.tlb import run
from fleetsim.hardware.tlb_cache import EMPTY, drop, drop_tag, key_of, look_up
from fleetsim.hardware.tlb_index import (
    CHAIN,
    HEAD,
    NEWER,
    NEXT,
    NOBODY,
    NODE,
    OLDER,
    chain_of,
    chains_of,
    drop_indexed,
    drop_tag_indexed,
    look_up_indexed,
    new_block,
)
from fleetsim.hardware.tlb_patterns import Pattern
from fleetsim.hardware.tlb_profiles import PAGE_SHIFT, PAGE_SIZES, PROFILES, Part, Profile, find
from fleetsim.hardware.tlb_run import Machine, Sharing, TlbResult, run_pattern, run_trace
from fleetsim.hardware.tlb_types import ACCESSES, DATA, FETCH, FLUSH, INVLPG, L1_HITS, L2_HITS, LOAD, LOADS, STRADDLE, SWITCH
from tests.hardware.tlb_twin import Twin

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
GENERIC = find("generic")


def trace(*records: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.array([value for _, value in records], np.int64), np.array([kind for kind, _ in records], np.int8))]


def loads(*addresses: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return trace(*((LOAD, address) for address in addresses))


# ------------------------------------------------------------------------------------------------------------- one set


@given(st.lists(st.tuples(st.sampled_from(["use", "use", "use", "drop", "clear"]), st.integers(0, 12)), max_size=80), st.integers(1, 8))
def test_a_set_is_lru(steps: list[tuple[str, int]], ways: int) -> None:
    """One set between two neighbours, which nothing may touch."""
    entries = np.full(3 * ways + 1, EMPTY, np.int64)
    used: list[int] = []  # least recently used first
    for what, key in steps:
        if what == "use":
            assert look_up(entries, ways, ways, key) == (key in used)
            used = [other for other in used if other != key][-(ways - 1) :] if ways > 1 else []
            used.append(key)
        elif what == "drop":
            assert drop(entries, ways, ways, key) == (key in used)
            used = [other for other in used if other != key]
        else:
            tag = key % 2
            assert drop_tag(entries, ways, ways, ways, tag) == sum(other & 4095 == tag for other in used)
            used = [other for other in used if other & 4095 != tag]
        assert list(entries[ways : ways + len(used)]) == used[::-1]
        assert (entries[ways + len(used) : 2 * ways] == EMPTY).all()
        assert (entries[:ways] == EMPTY).all() and (entries[2 * ways :] == EMPTY).all()


def in_order(entries: np.ndarray, first: int, ways: int) -> list[int]:
    """What a block of many ways holds, the most recently used first; and that its ring and its chains agree with that."""
    ring, back = [int(entries[first])], [int(entries[first])]
    for _ in range(ways - 1):
        ring.append(int(entries[ring[-1] + OLDER]))
        back.append(int(entries[back[-1] + NEWER]))
    assert sorted(ring) == [first + HEAD + NODE * way for way in range(ways)] and back == [ring[0], *ring[:0:-1]]
    chained = []
    for head in range(first + HEAD + NODE * ways, first + HEAD + NODE * ways + chains_of(ways)):
        node = int(entries[head])
        while node != NOBODY:
            assert entries[node + CHAIN] == head
            chained.append(node)
            node = int(entries[node + NEXT])
    used = [node for node in ring if entries[node] != EMPTY]
    assert sorted(chained) == sorted(used) and used == ring[: len(used)]
    return [int(entries[node]) for node in used]


@given(
    st.lists(st.tuples(st.sampled_from(["use", "use", "use", "drop", "clear"]), st.integers(0, 40)), max_size=150),
    st.integers(1, 30),
    st.sampled_from([1, 1 << 18, 1 << 27, 1 << 40]),
)
def test_a_set_of_many_ways_is_lru_too(steps: list[tuple[str, int]], ways: int, apart: int) -> None:
    """After each step it holds what a list of the least recently used holds, in that order; its neighbours are untouched."""
    stride, first = len(new_block(0, ways)), len(new_block(0, ways))
    entries = np.concatenate([new_block(at * stride, ways) for at in range(3)])
    blank = entries.copy()
    used: list[int] = []  # least recently used first
    for what, number in steps:
        key = number * apart
        if what == "use":
            assert look_up_indexed(entries, first, stride, ways, key) == (key in used)
            used = [*(other for other in used if other != key), key][-ways:]
        elif what == "drop":
            assert drop_indexed(entries, first, stride, ways, key) == (key in used)
            used = [other for other in used if other != key]
        else:
            tag = key % 2 if number % 5 else -1
            gone = [other for other in used if tag < 0 or other & 4095 == tag]
            assert drop_tag_indexed(entries, first, 1, stride, ways, tag) == len(gone)
            used = [other for other in used if other not in gone]
        assert in_order(entries, first, ways) == used[::-1]
    assert (entries[:first] == blank[:first]).all() and (entries[2 * first :] == blank[2 * first :]).all()


def test_keys_that_all_hash_alike_are_still_told_apart() -> None:
    ways, stride = 24, len(new_block(0, 24))
    heads, chains = HEAD + NODE * ways, chains_of(ways)
    alike = [key for key in (n << 18 | 12 << 12 for n in range(60_000)) if chain_of(key, heads, chains) == heads][: 2 * ways]
    assert len(alike) == 2 * ways
    entries = new_block(0, ways)
    for _ in range(2):
        assert not any(look_up_indexed(entries, 0, stride, ways, key) for key in alike)
    assert in_order(entries, 0, ways) == alike[: ways - 1 : -1]
    assert all(look_up_indexed(entries, 0, stride, ways, key) for key in alike[ways:])


def test_pages_in_a_row_and_at_common_steps_have_chains_of_their_own() -> None:
    """What makes a look-up quick: 64 keys nearly all have one of the 1024 to themselves."""
    for step in (1, 2, 3, 8, 64, 512, 1 << 18):
        for base in (0, 0x7F00_0000_0, 0x5555_5555_4):
            assert len({chain_of(base + n * step << 18 | 12 << 12, 0, 1024) for n in range(64)}) >= 48, (step, base)


def test_keys_tell_page_sizes_tasks_and_both_halves_of_the_address_space_apart() -> None:
    addresses = [0, 1 << 46, (1 << 47) - 1, -(1 << 47), -1, -(1 << 56)]
    keys = {key_of(address, shift, tag) for address in addresses for shift in (12, 21, 30, 39) for tag in (0, 5)}
    assert len(keys) == len(addresses) * 4 * 2 and min(keys) >= 0


# ------------------------------------------------------------------------------------------- what can be done by hand


@pytest.mark.parametrize(
    ("level", "page", "reach"),
    [("d", "4K", 256 * KIB), ("D", "4K", 6 * MIB), ("D", "2M", 3 * GIB), ("D", "1G", 1536 * GIB)],
)
def test_reach_is_entries_times_page_size(level: str, page: str, reach: int) -> None:
    """The worked examples of kernel-laws §11.2 and of the tutorial: 256 KiB, 6 MiB, 3 GiB, 1.5 TiB."""
    assert GENERIC.reach_bytes(level, page) == reach
    pattern = Pattern("stride", reach, step_bytes=1 << PAGE_SHIFT[page])
    entries = reach >> PAGE_SHIFT[page]
    inside = run_pattern(Machine(GENERIC, page), pattern, 3 * entries, warm_up=entries)
    assert (inside.data.l1_misses if level == "d" else inside.walks) == 0
    beyond = Pattern("stride", 2 * reach, step_bytes=1 << PAGE_SHIFT[page])
    outside = run_pattern(Machine(GENERIC, page), beyond, 4 * entries, warm_up=2 * entries)
    assert (outside.data.l1_hits if level == "d" else outside.data.l2_hits) == 0


def test_cycles_are_those_of_the_tutorials_table() -> None:
    """One page four times: a miss everywhere (7 + 12 + 4 loads of 25), then hits. Then a page that only the second level knows: 7."""
    result = run_trace(Machine(GENERIC), loads(*[0x1000] * 4))
    assert (result.accesses, result.data.l1_hits, result.walks, result.loads, result.cycles) == (4, 3, 1, 4, 7 + 12 + 100)
    far = [0x1000 + way * 16 * 4096 for way in range(5)]  # five pages of one set of four
    result = run_trace(Machine(GENERIC), loads(*far, far[0]))
    assert (result.data.l1_hits, result.data.l2_hits, result.cycles) == (0, 1, 5 * 119 + 7)


@pytest.mark.parametrize(("page", "levels", "expected"), [("4K", 4, 4), ("2M", 4, 3), ("1G", 4, 2), ("4K", 5, 5), ("1G", 5, 3)])
def test_a_walk_without_page_walk_caches_loads_an_entry_of_each_level(page: str, levels: int, expected: int) -> None:
    assert run_trace(Machine(GENERIC, page, levels=levels), loads(0x1234567000)).loads == expected


@pytest.mark.parametrize(
    ("page", "host", "expected"), [("4K", "4K", 24), ("2M", "4K", 19), ("4K", "2M", 19), ("2M", "2M", 15), ("1G", "1G", 8)]
)
def test_a_nested_walk_has_up_to_24_loads(page: str, host: str, expected: int) -> None:
    """(guest levels) × (host levels + 1) + (host levels): kernel-laws §11.2."""
    result = run_trace(Machine(GENERIC, page, vm=True, host_page=host), loads(0x1234567000))
    assert (result.loads, result.data.most_loads, result.data.nested_loads) == (
        expected,
        expected,
        expected - {"4K": 4, "2M": 3, "1G": 2}[page],
    )


def test_page_walk_caches_leave_one_load_where_neighbours_were_walked_before() -> None:
    skylake = Machine(find("skylake"))
    assert run_trace(skylake, loads(0)).loads == 4
    assert run_trace(skylake, loads(0, 0x1000)).loads == 4 + 1  # same 2 MiB: the PDE is known
    assert run_trace(skylake, loads(0, 2 * MIB)).loads == 4 + 2  # same 1 GiB
    assert run_trace(skylake, loads(0, GIB)).loads == 4 + 3  # same 512 GiB
    assert run_trace(skylake, loads(0, TIB)).loads == 4 + 4
    assert run_trace(Machine(find("skylake"), "2M"), loads(0, 2 * MIB)).loads == 3 + 1


def test_a_huge_page_in_a_guest_on_small_host_pages_has_small_entries() -> None:
    addresses = [n * 4096 for n in range(64)]
    assert run_trace(Machine(GENERIC, "2M", vm=True), loads(*addresses)).walks == 64
    assert run_trace(Machine(GENERIC, "2M", vm=True, host_page="2M"), loads(*addresses)).walks == 1


def test_gigabyte_pages_are_kept_in_pieces_where_the_silicon_does() -> None:
    """Zen 2's second level knows 1 GiB pages only as 2 MiB pieces: forgotten by the first level, another piece is a new walk."""
    others = [(n + 1) * GIB for n in range(64)]  # push the page out of the first level
    near, far = 4096, 512 * MIB
    for name, walks in (("zen2", 66), ("generic", 65)):
        assert run_trace(Machine(find(name), "1G"), loads(near, *others, far)).walks == walks


def test_code_and_data_have_first_levels_of_their_own() -> None:
    result = run_trace(Machine(GENERIC), trace((LOAD, 0x1000), (FETCH, 0x1000), (FETCH, 0x1004), (LOAD, 0x1008)))
    assert (result.data.walks, result.code.l2_hits, result.code.l1_hits, result.data.l1_hits) == (1, 1, 1, 1)


def test_an_access_across_two_pages_is_two_look_ups_and_across_two_parts_of_a_huge_page_one() -> None:
    across = trace((LOAD, 0xFFC), (LOAD + STRADDLE, 0x1003))
    assert run_trace(Machine(GENERIC), across).accesses == 2
    assert run_trace(Machine(GENERIC, "2M"), across).accesses == 1
    assert run_trace(Machine(GENERIC, "2M"), trace((LOAD, 2 * MIB - 4), (LOAD + STRADDLE, 2 * MIB + 3))).walks == 2


# -------------------------------------------------------------------------------- switches, shootdowns, shares of huge pages


def shared(processes: int, *, pcid: bool = True, working_set: int = 128 * KIB) -> TlbResult:
    pattern = Pattern("uniform", working_set)
    return run_pattern(Machine(GENERIC, pcid=pcid), pattern, 200_000, warm_up=20_000, sharing=Sharing(processes, 500))


def test_with_pcid_a_task_finds_its_entries_again_and_without_it_does_not() -> None:
    with_tags, without = shared(2), shared(2, pcid=False)
    assert with_tags.walks == 0 and with_tags.flushes == 0
    assert without.flushes == without.switches == 400
    assert 400 * 30 < without.walks <= 400 * 32  # nearly each of the 32 pages anew in each turn of 500 accesses


def test_a_seventh_task_takes_a_tag_away() -> None:
    """Linux keeps six address spaces apart per CPU; seven in turn always meet a tag that was given away."""
    assert shared(6).walks == 0
    seven = shared(7)
    assert seven.flushes == seven.switches and seven.walks > 400 * 30


def test_a_shootdown_of_one_page_costs_its_entry_and_of_many_the_whole_address_space() -> None:
    def after(pages: int) -> TlbResult:
        sharing = Sharing(shootdown_every=1000, shootdown_pages=pages)
        return run_pattern(Machine(find("skylake")), Pattern("uniform", 128 * KIB), 100_000, warm_up=1000, sharing=sharing)

    one, many = after(1), after(34)
    assert one.shootdowns == many.shootdowns == 100 and one.flushes == 0 and many.flushes == 100
    assert one.walks == 100 and many.walks > 100 * 30
    assert one.cycles > 100 * find("skylake").shootdown


def test_the_more_is_huge_the_fewer_walks() -> None:
    walks = [
        run_pattern(Machine(GENERIC, huge_permille=share), Pattern("uniform", GIB), 50_000, warm_up=50_000).walks
        for share in (0, 250, 500, 750, 1000)
    ]
    assert walks == sorted(walks, reverse=True) and walks[-1] == 0
    assert walks[2] == pytest.approx(walks[0] / 2, rel=0.04)  # the huge half takes entries too


def test_a_snapshot_goes_on_as_the_original() -> None:
    """Pieces of any length are the same trace."""
    addresses = np.random.default_rng(3).integers(0, 4000, 5000) * 4096
    kinds = np.zeros(5000, np.int8)
    whole = run_trace(Machine(find("zen3")), [(addresses, kinds)])
    cut = run_trace(Machine(find("zen3")), [(addresses[i : i + 7], kinds[i : i + 7]) for i in range(0, 5000, 7)])
    assert whole == cut


# ------------------------------------------------------------------------------------------------------------ the naive twin

TINY = Profile(
    "tiny",
    "all kinds of parts, small enough that hypothesis fills them",
    (
        Part("L1D", 4, 2, "d4K d2M d1G"),
        Part("L1I", 2, 2, "i4K i2M i1G/2M"),
        Part("L2", 8, 2, "D4K D2M I4K I2M I1G/2M"),
        Part("L2 1G", 2, 1, "D1G"),
        Part("PDE", 2, 2, "PDE"),
        Part("PDPTE", 2, 1, "PDPTE"),
        Part("PML4E", 1, 1, "PML4E"),
        Part("nested", 2, 2, "n4K n2M n1G"),
        Part("nPDE", 2, 2, "nPDE"),
        Part("nPDPTE", 1, 1, "nPDPTE"),
    ),
    7,
    7,
    3,
    30,
    1000,
)
near = st.builds(lambda region, page, offset: (region << 21) + (page << 12) + offset, st.integers(0, 3), st.integers(0, 5), st.just(8))
far = st.sampled_from([1 << 30, 3 << 30, 1 << 39, (1 << 47) - 4096, -(1 << 47), -4096, -(1 << 21)])
records = st.one_of(
    st.tuples(st.sampled_from([LOAD, LOAD, LOAD, FETCH, LOAD + STRADDLE, FETCH + STRADDLE]), st.one_of(near, near, far)),
    st.tuples(st.just(SWITCH), st.integers(0, 8)),
    st.tuples(st.just(INVLPG), near),
    st.tuples(st.just(FLUSH), st.just(0)),
)
machines = st.builds(
    Machine,
    profile=st.sampled_from([TINY, TINY, find("zen2"), find("skylake")]),
    page=st.sampled_from(PAGE_SIZES),
    huge_permille=st.sampled_from([0, 0, 500]),
    levels=st.sampled_from([4, 5]),
    vm=st.booleans(),
    host_page=st.sampled_from(PAGE_SIZES),
    pcid=st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(machines, st.lists(records, min_size=1, max_size=60))
def test_the_simulator_equals_its_naive_twin(machine: Machine, steps: list[tuple[int, int]]) -> None:
    result = run_trace(machine, trace(*steps))
    twin = Twin(machine)
    twin.run(steps)
    for stream, counts in (("d", result.data), ("i", result.code)):
        assert (counts.accesses, counts.l1_hits, counts.l2_hits) == (
            twin.counts[stream],
            twin.counts[f"{stream} L1"],
            twin.counts[f"{stream} L2"],
        )
        assert (counts.walks, counts.loads) == (twin.counts[f"{stream} walks"], twin.counts[f"{stream} loads"])
    assert result.data.pde_hits + result.code.pde_hits == twin.counts["PDE"]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
@pytest.mark.parametrize("page", PAGE_SIZES)
def test_every_profile_equals_its_naive_twin_beyond_its_reach(profile: Profile, page: str) -> None:
    numbers = np.random.default_rng(5).zipf(1.2, 6000) % 5000
    addresses = [int(number) << PAGE_SHIFT[page] for number in numbers]
    machine = Machine(profile, page)
    result, twin = run_trace(machine, loads(*addresses)), Twin(machine)
    twin.run([(LOAD, address) for address in addresses])
    assert (result.data.l1_hits, result.data.l2_hits, result.loads) == (twin.counts["d L1"], twin.counts["d L2"], twin.counts["d loads"])


WIDE = Profile(
    "wide",
    "parts of many ways, of one set and of two, beside one that has few",
    (
        Part("L1D", 24, 24, "d4K d2M d1G"),
        Part("L1I", 48, 24, "i4K i2M i1G/2M"),
        Part("L2", 96, 48, "D4K D2M I4K I2M I1G/2M D1G"),
        Part("PDE", 24, 24, "PDE"),
        Part("PDPTE", 2, 1, "PDPTE"),
        Part("nested", 64, 32, "n4K n2M n1G"),
        Part("nPDE", 30, 30, "nPDE"),
    ),
    7,
    7,
    3,
    30,
    1000,
)


@pytest.mark.parametrize(
    "profile", [WIDE, *(find(name) for name in ("zen2", "zen3", "zen4", "neoverse-n1"))], ids=lambda profile: profile.name
)
@pytest.mark.parametrize("how", [{}, {"huge_permille": 400}, {"pcid": False}, {"vm": True, "host_page": "2M"}, {"page": "1G"}], ids=str)
def test_parts_of_many_ways_equal_the_naive_twin_access_by_access(profile: Profile, how: dict[str, Any]) -> None:
    """2500 accesses to two hundred pages, switches, invlpg and flushes among them: after each one the same counts as the twin's."""
    machine = Machine(profile, **how)
    luck = np.random.default_rng(7)
    kinds = luck.choice([LOAD, FETCH, LOAD + STRADDLE, SWITCH, INVLPG, FLUSH], 2500, p=[0.75, 0.2, 0.03, 0.006, 0.013, 0.001])
    shift = PAGE_SHIFT[machine.page]
    values = (luck.zipf(1.2, 2500) % 70 << shift) + (luck.integers(0, 3, 2500) << 21)
    core, twin = machine.core(), Twin(machine)
    for kind, value in zip(kinds.tolist(), values.tolist()):
        value = value % 9 if kind == SWITCH else value
        run(core, np.array([value], np.int64), np.array([kind], np.int8))
        twin.run([(kind, value)])
        for stream, counts in (("d", core["counts"][DATA]), ("i", core["counts"][1])):
            ours = tuple(int(counts[which]) for which in (ACCESSES, L1_HITS, L2_HITS, LOADS))
            assert ours == tuple(twin.counts[f"{stream}{what}"] for what in ("", " L1", " L2", " loads"))
    assert min(twin.counts["d L1"], twin.counts["d walks"]) > 60, "the trace must both hit and miss"
