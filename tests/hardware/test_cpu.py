# SPDX-License-Identifier: Apache-2.0
"""CPU profiles: the calibrated figures stand where laws look for them, and a profile is a factor, not a special case."""

from __future__ import annotations

import pytest

from fleetsim.hardware.cpu import ACCESS, COW, EXIT, FAULT_ANON, OPERATIONS, TCG_FACTOR, TICK, TLB_MHZ, costs


def test_the_lab_machine_is_the_one_that_was_calibrated() -> None:
    """recordings e00_calib: anonymous fault 3.4 µs, rewrite of a resident page 20 ns, COW 4.6 µs, giving back 1.25 µs."""
    lab = costs("lab")
    assert [lab[i] for i in (FAULT_ANON, ACCESS, COW, EXIT)] == [3400, 20, 4600, 1250]


def test_the_slower_emulator_is_one_factor_on_everything_but_the_clock() -> None:
    lab, slow = costs("lab"), costs("lab-tcg")
    for i, (a, b) in enumerate(zip(lab, slow, strict=True)):
        assert b == (a if i == TICK else a * TCG_FACTOR)


def test_only_bare_metal_pays_for_its_tlb() -> None:
    assert [costs(profile)[TLB_MHZ] for profile in ("lab", "lab-tcg", "server")] == [0, 0, 3000]


def test_every_operation_has_its_own_place_and_bare_metal_is_never_slower() -> None:
    places = [place for place, _, _ in OPERATIONS.values()]
    assert sorted(places) == list(range(len(OPERATIONS)))
    assert all(0 < server <= lab for _, lab, server in OPERATIONS.values())


def test_an_unknown_profile_is_an_error() -> None:
    with pytest.raises(KeyError):
        costs("abacus")
