# SPDX-License-Identifier: Apache-2.0
"""Overcommit: what is granted, and what is refused with ENOMEM."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.mmap import (
    ADMIN_RESERVE_KB_MAX,
    OVERCOMMIT_ALWAYS,
    OVERCOMMIT_GUESS,
    OVERCOMMIT_NEVER,
    USER_RESERVE_KB_MAX,
    commit_limit,
    reserve_kbytes,
    vm_enough_memory,
)

GIB = 1 << 18  # pages
PAGES = st.integers(0, 2**40)


def never(request: int, committed: int, limit: int, *, admin: int = 0, user: int = 0, total_vm: int = 0, root: bool = False) -> bool:
    return vm_enough_memory(OVERCOMMIT_NEVER, request, committed, limit, 0, admin, user, total_vm, root)


def test_commit_limit_is_half_of_memory_and_all_of_swap() -> None:
    """T-6.1 (live kernel), then the other two ways to set it."""
    assert commit_limit(24_684_096 // 4, 0, 50, 0, 0) * 4 == 12_342_048
    assert commit_limit(4 * GIB, GIB, 50, 0, GIB) == 3 * GIB // 2 + GIB
    assert commit_limit(4 * GIB, GIB, 50, 4 * 1000, GIB) == 1000 + GIB


@pytest.mark.parametrize("recording", ["e01_idle", "e15_overcommit_2", "e30_eight_gib"])
def test_commit_limit_and_reserves_are_those_of_the_recorded_hosts(recording: str, shared_dir: Path) -> None:
    start = json.loads((shared_dir / "recordings" / recording / "start.json").read_text())
    shown_kb = int(re.search(r"CommitLimit: +(\d+)", start["meminfo_before_t0"])[1])
    ratio, kbytes = (int(start["sysctl_vm"][name]) for name in ("overcommit_ratio", "overcommit_kbytes"))
    assert commit_limit(start["MemTotal_kB"] // 4, 0, ratio, kbytes, start["SwapTotal_kB"] // 4) * 4 == shown_kb
    assert reserve_kbytes(start["MemTotal_kB"], ADMIN_RESERVE_KB_MAX) == int(start["sysctl_vm"]["admin_reserve_kbytes"])


def test_user_reserve_is_a_thirtysecond_of_memory_up_to_128_mib() -> None:
    assert reserve_kbytes(976_800, USER_RESERVE_KB_MAX) == 30_525
    assert reserve_kbytes(8_140_244, USER_RESERVE_KB_MAX) == 131_072


def test_guessing_refuses_only_a_single_request_beyond_memory_and_swap() -> None:
    """T-6.2: 16 GiB and 2 GiB of swap."""
    everything = 18 * GIB
    assert vm_enough_memory(OVERCOMMIT_GUESS, everything, 100 * GIB, 0, everything, 0, 0, 0, False)
    assert not vm_enough_memory(OVERCOMMIT_GUESS, everything + 1, 0, 0, everything, 0, 0, 0, False)


def test_a_fork_of_private_memory_is_charged_again_in_mode_2() -> None:
    """T-6.3: 10 GiB, then 10 GiB more for the child; granted only strictly below the limit."""
    child = 10 * GIB
    assert never(child, 10 * GIB, 20 * GIB + 1)
    assert not never(child, 10 * GIB, 20 * GIB)


def test_mode_2_keeps_something_for_the_administrator_and_the_user() -> None:
    assert not never(100, 0, 200, admin=100)
    assert never(100, 0, 200, admin=100, root=True)
    assert never(100, 0, 200, user=100, total_vm=32 * 99)  # a small task leaves a 32nd of itself
    assert not never(100, 0, 200, user=100, total_vm=32 * 1000)  # a big one the whole reserve


@given(PAGES, PAGES, PAGES)
def test_mode_1_never_refuses(request: int, committed: int, limit: int) -> None:
    assert vm_enough_memory(OVERCOMMIT_ALWAYS, request, committed, limit, 0, 0, 0, 0, False)
