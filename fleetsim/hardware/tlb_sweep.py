# SPDX-License-Identifier: Apache-2.0
"""How often accesses in a fixed order miss the TLB: a sweep with any step, and a pointer chase.

    cyclic  a set that is asked for more pages than it has ways, always in the same order, hits never (LRU); one that is not, always
    chase   the nodes of a page lie at random places of the round: with k of them, 1 − (1 − c)^((k − 1) / k) hit where a share c of all
            pages fits; with one, it is a cycle; with many, as good as uniform

A step that is a multiple of the page by a power of two uses only every so many sets.
Leaves out: steps above a page that are no multiple of it (taken as evenly spread over the sets), what the exact simulator leaves out.
Source: Mattson et al. 1970 (stack distances); own arithmetic for the rest. `tests/hardware/test_tlb_model.py` holds it against tlb.py.
"""

from __future__ import annotations

from fleetsim.hardware.tlb_fixed import LARGE, ONE, gap, minus_log, scaled
from fleetsim.hardware.tlb_shape import ENTRIES, PIECES, SETS, WAYS
from fleetsim.law import law


@law
def gcd(a, b):
    """Greatest common divisor.

    Source: Euclid.
    """
    while b > 0:
        a, b = b, a % b
    return a


@law
def share_of(count, whole):
    """count / whole, · 2^40.

    count    int64  0 to 4 · whole
    whole    int64  1..2^46

    Source: own arithmetic.
    """
    while whole >= 1 << 20:
        count >>= 1
        whole >>= 1
    return (count << 40) // whole


@law
def visited(places, step, shift):
    """Distinct regions of 2^shift bytes that `places` places `step` bytes apart lie in.

    Source: arithmetic.
    """
    if step >= 1 << shift:
        return places
    return max(1, ((places - 1) * step >> shift) + 1)


@law
def cyclic_misses(part, regions, step, shift):
    """Misses per round of a part that is asked for `regions` regions in a fixed order.

    Source: see the module.
    """
    sets, ways = part[SETS], part[WAYS]
    if step >= 1 << shift and step & ((1 << shift) - 1) == 0:
        sets //= gcd(sets, step >> shift)
    each, more = regions // sets, regions % sets  # `more` sets have one region more
    missed = 0
    if each + 1 > ways:
        missed += more * (each + 1)
    if each > ways:
        missed += (sets - more) * each
    return missed


@law
def chase_miss(part, places, step, shift):
    """Share of visits that a part misses when places are visited in a random order, round after round, · 2^40.

    Source: see the module.
    """
    regions = visited(places, step, shift)
    if part[ENTRIES] == 0:
        return ONE
    if places < 2 * regions:  # one place each
        return share_of(cyclic_misses(part, regions, step, shift), regions)
    if regions <= part[ENTRIES]:
        return 0
    each = places // regions
    fewer, more = regions // part[SETS], regions % part[SETS]
    missed = 0
    for kept, count in ((fewer, (part[SETS] - more) * fewer), (fewer + 1, more * (fewer + 1))):
        if kept > part[WAYS]:
            late = ONE - gap(min(LARGE, minus_log((part[WAYS] << 40) // kept) // each * (each - 1)))
            missed += scaled(share_of(count, regions), late, 40)
    return missed


@law
def estimate_order(shape, size, places, step, chase, walks):
    """Cycles per access of a sweep or a chase.

    size     int64     of pages: 0 4K, 1 2M, 2 1G
    places   int64     that are visited, one after the other and again
    step     int64     bytes between two of them
    chase    int64     1: in a random order
    walks    int64[3]  as for tlb_model.estimate
    returns  as tlb_model.estimate

    Source: see the module.
    """
    walks[:] = 0
    shift = 12 + 9 * size
    l1, l2 = shape["l1"][size], shape["l2"][size]
    piece = shift
    while 1 << shift - piece < l2[PIECES]:
        piece -= 9
    if chase:
        missed = chase_miss(l1, places, step, shift)
        walked = min(missed, chase_miss(l2, places, step, piece))
        loads = walked
        for which in range(size, 3):
            loads += scaled(walked, chase_miss(shape["walk"][which], places, step, 21 + 9 * which), 40)
    else:
        of_round = cyclic_misses(l1, visited(places, step, shift), step, shift)
        in_pieces = cyclic_misses(l2, visited(places, step, piece), step, piece)
        in_round = min(of_round, in_pieces)
        all_loads = in_round
        for which in range(size, 3):
            part = shape["walk"][which]
            unknown = cyclic_misses(part, visited(places, step, 21 + 9 * which), step, 21 + 9 * which)
            all_loads += min(in_round, unknown) if part[ENTRIES] > 0 else in_round
        missed, walked, loads = share_of(of_round, places), share_of(in_round, places), share_of(all_loads, places)
    walks[size] = walked
    return (missed * shape["l1_miss"] + walked * shape["l2_miss"] + loads * shape["load"]) >> 20, missed, loads
