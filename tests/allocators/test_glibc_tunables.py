# SPDX-License-Identifier: Apache-2.0
"""GLIBC_TUNABLES as text: what each setting becomes, and what is refused."""

from __future__ import annotations

import pytest

from fleetsim.allocators.glibc_tunables import Tunables, parse_tunables
from fleetsim.errors import BadInput


def test_without_any_they_are_the_defaults_of_2_36() -> None:
    t = parse_tunables("")
    assert t == Tunables()
    assert (t.max_fast, t.tcache_bins, t.fixed) == (128, 64, False)


@pytest.mark.parametrize(
    ("text", "max_fast", "bins", "fixed"),
    [
        ("glibc.malloc.mxfast=0", 16, 64, False),  # below the smallest chunk: no fastbins
        ("glibc.malloc.mxfast=7", 16, 64, False),
        ("glibc.malloc.mxfast=8", 16, 64, False),
        ("glibc.malloc.mxfast=24", 32, 64, False),
        ("glibc.malloc.mxfast=160", 160, 64, False),
        ("glibc.malloc.tcache_max=0", 128, 1, False),
        ("glibc.malloc.tcache_max=25", 128, 2, False),
        ("glibc.malloc.tcache_max=0x408", 128, 64, False),
        ("glibc.malloc.top_pad=0:glibc.malloc.arena_max=3", 128, 64, True),
        ("mmap_max=0", 128, 64, True),
    ],
)
def test_what_settings_become(text: str, max_fast: int, bins: int, fixed: bool) -> None:
    t = parse_tunables(text)
    assert (t.max_fast, t.tcache_bins, t.fixed) == (max_fast, bins, fixed)


@pytest.mark.parametrize(
    "text", ["glibc.malloc.arena_max=0", "x=1", "arena_max=-1", "arena_max=1.5", "tcache_count=65536", "perturb=1", "mxfast"]
)
def test_what_glibc_would_pass_over_in_silence_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_tunables(text)
