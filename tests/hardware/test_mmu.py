# SPDX-License-Identifier: Apache-2.0
"""x86-64 paging against what the manuals print, and against this machine's own /proc where it has an opinion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.hardware import mmu
from fleetsim.hardware.mmu import EXECUTE, PGD, PMD, PTE, PUD, READ, WRITE

ADDRESSES = st.integers(0, (1 << 64) - 1)
USER_LEAF = mmu.PRESENT | mmu.RW | mmu.USER
TABLES = [mmu.make_entry(n, USER_LEAF) for n in (1, 2, 3)]


@given(ADDRESSES, st.sampled_from([4, 5]))
def test_the_indices_and_the_offset_are_the_address_and_nothing_else(address: int, levels: int) -> None:
    rebuilt = address & (mmu.LEAF_SIZES[PTE] - 1)
    for level in mmu.levels_of(levels):
        rebuilt |= mmu.index_of(address, level, levels) << mmu.shift_of(level, levels)
    assert rebuilt == address & ((1 << mmu.address_bits(levels)) - 1)
    assert mmu.is_canonical(address, levels) == (
        rebuilt in (address, address & ((1 << mmu.address_bits(levels)) - 1)) and _signed(address, levels)
    )


def _signed(address: int, levels: int) -> bool:
    """Canonical the other way round: sign extension of the translated bits gives the address back."""
    bits = mmu.address_bits(levels)
    low = address & ((1 << bits) - 1)
    return (low | ((1 << 64) - (1 << bits) if low >> (bits - 1) else 0)) == address


@pytest.mark.parametrize(
    ("address", "levels", "canonical"),
    [
        (0x0000_7FFF_FFFF_FFFF, 4, True),
        (0x0000_8000_0000_0000, 4, False),
        (0x0000_8000_0000_0000, 5, True),
        (0xFFFF_7FFF_FFFF_FFFF, 4, False),
        (0xFFFF_8000_0000_0000, 4, True),
        (0x0100_0000_0000_0000, 5, False),
        (0xFF00_0000_0000_0000, 5, True),
    ],
)
def test_the_canonical_halves_have_their_edges_where_the_manual_draws_them(address: int, levels: int, canonical: bool) -> None:
    assert mmu.is_canonical(address, levels) is canonical


def test_one_entry_of_each_level_covers_what_the_tutorial_says() -> None:
    assert [1 << mmu.shift_of(level) for level in (PTE, PMD, PUD, PGD)] == [4 << 10, 2 << 20, 1 << 30, 512 << 30]
    assert mmu.shift_of(mmu.P4D, 5) == 39 and mmu.shift_of(PGD, 5) == 48
    assert 512 << mmu.shift_of(PGD) == 256 << 40, "256 TiB with four levels, of which a process has half"
    assert 1 << mmu.address_bits(5) == 128 << 50


@given(st.integers(0, (1 << 40) - 1), st.sets(st.sampled_from([bit for bit, _, _ in mmu.FLAGS])))
def test_frame_and_bits_of_an_entry_do_not_touch_each_other(frame: int, bits: set[int]) -> None:
    flags = sum(bits)
    entry = mmu.make_entry(frame, flags)
    assert mmu.frame_of(entry) == frame and entry & ~mmu.FRAME_MASK == flags
    assert len(mmu.words(entry)) == len(bits) == sum(letter != "-" for letter in mmu.letters(entry))


def test_a_data_page_that_a_kernel_log_showed_is_read_as_the_kernel_meant_it() -> None:
    """`PGD 1003a7067 P4D … PTE 8000000114e4a865`: as oopses print a read-only, dirty, no-execute user page."""
    entry = 0x8000000114E4A865
    assert mmu.frame_of(entry) == 0x114E4A
    assert mmu.words(entry) == ["present", "user", "accessed", "dirty", "soft-dirty", "no execute"]
    assert mmu.words(0x1003A7067) == ["present", "writable", "user", "accessed", "dirty"]


@given(st.integers(0, 31), st.integers(0, (1 << 50) - 1), st.sampled_from([0, mmu.SWP_SOFT_DIRTY, mmu.SWP_EXCLUSIVE]))
def test_a_swap_entry_comes_back_and_is_never_present(kind: int, slot: int, flags: int) -> None:
    entry = mmu.make_swap_entry(kind, slot, flags)
    assert mmu.swap_entry(entry) == (kind, slot)
    assert not entry & (mmu.PRESENT | mmu.PS | mmu.GLOBAL), "the processor and pmd_present() must see nothing there"
    assert entry & ~mmu.FRAME_MASK >> 59 << 59 or kind == 0


def test_the_offset_of_a_swap_entry_is_inverted_so_that_speculation_hits_no_memory() -> None:
    """L1TF: the frame bits of a swapped page must name memory beyond any that exists."""
    assert mmu.frame_of(mmu.make_swap_entry(0, 5)) << 12 > 1 << 51


@pytest.mark.parametrize(
    ("leaf", "access", "code"),
    [
        (0, READ, 4),
        (0, WRITE, 6),
        (0, EXECUTE, 0x14),
        (mmu.PRESENT | mmu.USER, WRITE, 7),
        (mmu.PRESENT | mmu.USER | mmu.NX, EXECUTE, 0x15),
        (mmu.PRESENT | mmu.RW, READ, 5),
        (USER_LEAF, READ, None),
        (USER_LEAF, WRITE, None),
        (USER_LEAF, EXECUTE, None),
    ],
)
def test_error_codes_are_those_that_segfault_lines_in_dmesg_show(leaf: int, access: str, code: int | None) -> None:
    fault = mmu.check_access([*TABLES, leaf], access)
    assert (None if fault is None else fault.error_code) == code
    assert fault is None or fault.exception == "#PF"


def test_one_upper_level_that_forbids_it_is_enough() -> None:
    leaf = USER_LEAF
    read_only = [mmu.make_entry(1, mmu.PRESENT | mmu.USER), leaf]
    assert mmu.check_access(read_only, WRITE) is not None and mmu.check_access(read_only, READ) is None
    no_execute = [mmu.make_entry(1, USER_LEAF | mmu.NX), leaf]
    assert mmu.check_access(no_execute, EXECUTE) is not None and mmu.check_access(no_execute, WRITE) is None


def test_a_protection_key_forbids_data_and_not_code() -> None:
    keyed = [*TABLES, USER_LEAF | 3 << mmu.PKEY_SHIFT]
    fault = mmu.check_access(keyed, READ, denied_keys=1 << 3)
    assert fault is not None and fault.error_code == mmu.PF_PROT | mmu.PF_USER | mmu.PF_PK
    assert mmu.check_access(keyed, EXECUTE, denied_keys=1 << 3) is None
    assert mmu.check_access(keyed, READ, denied_keys=1 << 2) is None


def test_an_address_that_is_not_canonical_never_gets_to_a_page_table() -> None:
    fault = mmu.check_access([0], READ, address=1 << 47)
    assert fault is not None and fault.exception == "#GP" and fault.error_code == 0


@given(st.sampled_from([PTE, PMD, PUD]), st.integers(0, (1 << 21) - 1), ADDRESSES)
def test_a_larger_page_keeps_more_of_the_address(level: int, number: int, address: int) -> None:
    size = mmu.LEAF_SIZES[level]
    entry = mmu.make_entry(number * size >> 12, USER_LEAF | (mmu.PS if level else 0))
    assert mmu.translate(entry, level, address) == number * size + address % size
