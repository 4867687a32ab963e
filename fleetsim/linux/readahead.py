# SPDX-License-Identifier: Apache-2.0
"""How many pages are read when one is missing: file windows and swap windows. Scalar laws.

    file:  first miss → init_window, then next_window each time the reader meets the marked page (4, 8, 16, 32, 32 … pages)
    swap:  swapin_nr_pages, by how many of the last window were used

Rules: pages. `max` is read_ahead_kb / 4 (32) for files, 2^page-cluster (8) for swap.
Leaves out: context readahead (history found in the cache), large folios.
Source: mm/readahead.c, mm/swap_state.c (Linux 6.1); kernel-laws §4.1, §12.2.
"""

from __future__ import annotations

from fleetsim.law import ONE_Q, law
from fleetsim.linux.math64 import int_sqrt, roundup_pow_of_two

ROOT_SHIFT = 14  # fixed point of the roots in `clustered`


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
def clustered(share: int, pages: int, window: int) -> int:
    """How many pages of a window around a page of some kind are expected to be of that kind too, it included, where the others
    came in windows of the same size.

    With intervals thrown at random on a line, a share m of which stays uncovered, a place at distance d from an uncovered one is
    uncovered with probability m^(d/window). The mean over the window, distances up to its half, by Simpson's rule:

        window · (1 + 4 · m^¼ + m^½) / 6

    share    int64  pages of the kind, 1..pages
    pages    int64  pages of the file, up to 2^32
    window   int64  pages
    returns  int64  pages, 1..window

    Source: fleetsim's own expected value for windows that are centred on a fault. Leaves out: the edges of the file.
    """
    root = int_sqrt((share << 2 * ROOT_SHIFT) // pages)
    fourth = int_sqrt(root << ROOT_SHIFT)
    return max(1, window * ((1 << ROOT_SHIFT) + 4 * fourth + root) // (6 << ROOT_SHIFT))


@law
def read_around(missing: int, evicted: int, pages: int, window: int, kept_q: int) -> int:
    """Pages that one major fault on a mapped file brings in: those of the window around it that are missing.

    What was never read lies together (`clustered`). What reclaim took came and went together too, but for what had been
    accessed: where a share y was kept, only 1 − y of the neighbours went with a page, the others as chance has it.

    missing  int64  pages of the file that are not resident, 1..pages
    evicted  int64  … of them once resident
    pages    int64  pages of the file, up to 2^32
    window   int64  pages, the device's readahead
    kept_q   int64  y in 2^20ths: share of the pages at the tail of the list that were accessed
    returns  int64  pages, 1..window

    Source: mm/filemap.c do_sync_mmap_readahead; expected values (kernel-laws §20.2). Leaves out: the edges of the file.
    """
    together = clustered(missing, pages, window)
    strewn = 1 + window * missing // pages
    return min(window, max(1, together - (together - strewn) * evicted // missing * kept_q // ONE_Q))


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
