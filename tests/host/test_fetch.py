# SPDX-License-Identifier: Apache-2.0
"""A record is read through before its host is stepped, where that pays, and nothing in it changes."""

from __future__ import annotations

from fleetsim.host.fetch import CACHE_LINE, PGSCAN_KSWAPD, fetch_host
from tests.host.worlds import world


def test_every_cache_line_is_read_where_kswapd_has_worked_since_the_last_time() -> None:
    w = world()
    shard = w.shard
    before = shard.snapshot()
    assert fetch_host(shard.records, shard.lines, shard.scanned, 0) == 0, "it has not"
    w.row["vm"][PGSCAN_KSWAPD] = 32
    read = int(shard.lines[0, ::CACHE_LINE].sum())
    assert fetch_host(shard.records, shard.lines, shard.scanned, 0) == read > 0
    assert fetch_host(shard.records, shard.lines, shard.scanned, 0) == 0, "not again"
    w.row["vm"][PGSCAN_KSWAPD] = 0
    assert shard.snapshot() == before
