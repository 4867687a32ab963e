# SPDX-License-Identifier: Apache-2.0
"""CPU profiles: the calibrated figures stand where laws look for them, and a profile is a factor, not a special case."""

from __future__ import annotations

import pytest

from fleetsim.hardware.cpu import (
    ACCESS,
    COW,
    EXIT,
    FAULT_ANON,
    FORK_HUGE,
    FORK_PAGE,
    HUGE_FREE,
    OPERATIONS,
    PROFILES,
    TCG_FACTOR,
    TICK,
    TLB_MHZ,
    VM,
    costs,
)


def test_the_lab_machine_is_the_one_that_was_calibrated() -> None:
    """recordings e00_calib: anonymous fault 3.4 µs, rewrite of a resident page 20 ns, COW 4.6 µs, giving back 1.25 µs."""
    lab = costs("lab")
    assert [lab[i] for i in (FAULT_ANON, ACCESS, COW, EXIT)] == [3400, 20, 4600, 1250]


def test_the_slower_emulator_is_one_factor_on_everything_but_the_clock() -> None:
    lab, slow = costs("lab"), costs("lab-tcg")
    for i, (a, b) in enumerate(zip(lab, slow, strict=True)):
        assert b == (a if i == TICK else a * TCG_FACTOR)


def test_only_an_emulator_does_not_pay_for_its_tlb() -> None:
    assert {profile: costs(profile)[TLB_MHZ] for profile in PROFILES} == {"lab": 0, "lab-tcg": 0, "server": 3000, "vm": 3000}


def test_a_virtual_machine_costs_what_was_measured_in_one_and_elsewhere_what_its_server_costs() -> None:
    """kernel-laws §10.2 and §10.5; of small pages docs/calibration.md's as well. Pages of a GiB: 262,144 small ones, 512 huge ones."""
    vm, server = costs("vm"), costs("server")
    assert 2_200 <= vm[FAULT_ANON] <= 3_000
    assert 4_000 <= vm[COW] <= 8_000
    assert 80e6 <= 262_144 * vm[EXIT] <= 140e6
    assert 3e6 <= 512 * vm[HUGE_FREE] <= 4e6
    assert 0.5e6 <= 512 * vm[FORK_HUGE] <= 0.64e6
    assert 15e6 <= 262_144 * vm[FORK_PAGE] <= 26e6
    assert all(mine == bare for place, (mine, bare) in enumerate(zip(vm, server, strict=True)) if place not in VM)
    assert all(vm[place] > server[place] for place in VM)


def test_every_operation_has_its_own_place_and_bare_metal_is_never_slower() -> None:
    places = [place for place, _, _ in OPERATIONS.values()]
    assert sorted(places) == list(range(len(OPERATIONS)))
    assert all(0 < server <= lab for _, lab, server in OPERATIONS.values())


def test_an_unknown_profile_is_an_error() -> None:
    with pytest.raises(KeyError):
        costs("abacus")
