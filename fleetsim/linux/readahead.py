# SPDX-License-Identifier: Apache-2.0
"""How many pages are read when one is missing: file windows and swap windows. Scalar laws.

    file:  first miss → init_window, then next_window each time the reader meets the marked page (4, 8, 16, 32, 32 … pages)
    swap:  swapin_nr_pages, by how many of the last window were used

Rules: pages. `max` is read_ahead_kb / 4 (32) for files, 2^page-cluster (8) for swap.
Leaves out: context readahead (history found in the cache), read-around of file mappings, large folios.
Source: mm/readahead.c, mm/swap_state.c (Linux 6.1); kernel-laws §4.1, §12.2.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.math64 import roundup_pow_of_two


@law
def init_window(req: int, max: int) -> int:
    """The first window of a sequential reader.

        n = pow2ceil(req):  4n if n ≤ max/32;  2n if n ≤ max/4;  else max

    req      int64  pages asked for, ≥ 1
    max      int64  pages, the device's limit
    returns  int64  pages

    Source: mm/readahead.c get_init_ra_size; kernel-laws 4.1, T-4.1. Leaves out: nothing.
    """
    n = roundup_pow_of_two(req)
    if n <= max // 32:
        return 4 * n
    if n <= max // 4:
        return 2 * n
    return max


@law
def next_window(cur: int, max: int) -> int:
    """The window after this one.

        4 · cur if cur < max/16;  2 · cur if cur ≤ max/2;  else max

    cur      int64  pages of the current window
    max      int64  pages, the device's limit
    returns  int64  pages

    Source: mm/readahead.c get_next_ra_size; kernel-laws 4.1, T-4.1. Leaves out: nothing.
    """
    if cur < max // 16:
        return 4 * cur
    if cur <= max // 2:
        return 2 * cur
    return max


@law
def swapin_nr_pages(hits: int, adjacent: bool, last: int, max: int) -> int:
    """Pages to read at a swap fault: more if the last window was used, but never less than half of it at once.

        hits = 0:  2 if the fault is next to the previous one, else 1
        else:      pow2ceil(hits + 2), at least 4
        then at most max, then at least last/2

    hits      int64  pages of earlier windows found used since the last fault, ≥ 0
    adjacent  bool   this fault is one page before or after the previous one
    last      int64  pages of the last window
    max       int64  pages, 2^page-cluster; 1 switches readahead off
    returns   int64  pages, ≥ 1

    Source: mm/swap_state.c __swapin_nr_pages, swapin_nr_pages; kernel-laws 12.2, T-12.1. Leaves out: nothing.
    """
    if max <= 1:
        return 1
    if hits == 0:
        pages = 2 if adjacent else 1
    else:
        pages = 4
        while pages < hits + 2:
            pages <<= 1
    if pages > max:
        pages = max
    if pages < last // 2:
        pages = last // 2
    return pages
