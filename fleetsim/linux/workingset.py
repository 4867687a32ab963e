# SPDX-License-Identifier: Apache-2.0
"""Refaults: was an evicted page thrown out too early, and what does that teach the next scan?

Every lruvec has a clock that counts evictions and activations. Its value is left behind as a shadow; the distance between
now and then is how many more pages of memory would have kept the page.
Rules: pages; distances and sizes are those of the lruvec the page was evicted from.
Leaves out: the shadows' limited precision (bucket_order) and the shrinker of shadow nodes.
Source: mm/workingset.c, mm/swap.c (Linux 6.1); kernel-laws §3.6, §3.8.
"""

from __future__ import annotations

from fleetsim.law import law


@law
def refault_activates(
    is_file: bool, distance: int, active_file: int, inactive_file: int, active_anon: int, inactive_anon: int, swap_available: bool
) -> bool:
    """Does a page that comes back go straight to the active list?

        size = active_file (+ inactive_file for an anon page),  with swap + active_anon (+ inactive_anon for a file page)
        distance ≤ size

    is_file         bool   the page is on a file list
    distance        int64  evictions and activations since it was evicted, ≥ 0
    active_file     int64  pages, as the other three list sizes
    inactive_file   int64
    active_anon     int64
    inactive_anon   int64
    swap_available  bool   the cgroup can still swap
    returns         bool

    Source: mm/workingset.c workingset_refault; kernel-laws 3.8, T-3.8. Leaves out: nothing.
    """
    size = active_file
    if not is_file:
        size += inactive_file
    if swap_available:
        size += active_anon
        if is_file:
            size += inactive_anon
    return distance <= size


@law
def lru_note_cost(anon_cost: int, file_cost: int, is_file: bool, pages: int, lru_total: int) -> tuple[int, int]:
    """The two costs of an lruvec after `pages` more were written out by reclaim or came back too early.

        add to the page's side;  if anon_cost + file_cost > lru_total / 4: halve both

    anon_cost  int64  before, ≥ 0
    file_cost  int64  before, ≥ 0
    is_file    bool   which side pays
    pages      int64  ≥ 0
    lru_total  int64  pages on the four lists of the lruvec
    returns    (int64, int64)  anon_cost, file_cost

    Source: mm/swap.c lru_note_cost; kernel-laws 3.6.
    Leaves out: the walk up the ancestors (the caller's loop).
    """
    if is_file:
        file_cost += pages
    else:
        anon_cost += pages
    if anon_cost + file_cost > lru_total // 4:
        anon_cost //= 2
        file_cost //= 2
    return anon_cost, file_cost
