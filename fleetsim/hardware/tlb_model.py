# SPDX-License-Identifier: Apache-2.0
"""A cheap model of how often random accesses miss the TLB: cycles per access from what is accessed, without a trace.

Pages are told in *classes*: so many pages of one size that share a probability. Each access falls on a page by chance, whatever came
before (independent references). Then an LRU part keeps what was used within its characteristic time τ (Che et al. 2002):

    Σ pages · (1 − e^(−popularity · τ)) = entries            a page that was not used for longer misses

The second level sees only what missed in the first, so a page's visits to it are at least τ1 apart. Survival of a page between two
such visits: certain up to τ1, linear up to 2 τ1, exponential beyond, with the mean e^(p τ1) / p that it has exactly.
A set-associative part whose pages lie in its sets at random is worth a mixture of two fully associative ones: what fits into a set
before it is full has the moments of a gamma distribution (Gauss quadrature with two points; with all pages equally likely the
mixture is the part itself, as it is in life).
Page-walk caches are taken as uniformly used by what walks, or, where each class has memory of its own, by the same reasoning.

Leaves out: what the exact simulator (tlb.py) leaves out; code, switches, shootdowns, virtual machines; order (see tlb_sweep.py); that
the pieces of a 1 GiB page, where the second level keeps such, may not be equally popular.
`tests/hardware/test_tlb_model.py` holds it against the exact simulator: within 10 % of cycles per access.
Source: Che, Tung and Wang 2002; kernel-laws §11.2 (uniform: miss rate = 1 − reach / W, which this is for one class).
"""

from __future__ import annotations

import numpy as np

from fleetsim.hardware.tlb_fixed import LARGE, ONE, gap, scaled
from fleetsim.hardware.tlb_shape import ENTRIES, NUMBER, PIECES, SETS, WAYS
from fleetsim.law import law

CLASS = np.dtype(
    [
        ("pages", "i8"),
        ("weight", "i8"),  # probability of the class, · 2^30
        ("size", "i8"),  # of its pages: 0 4K, 1 2M, 2 1G
        ("rate", "i8"),  # popularity of each of its pages, · 2^20; 1 is the mean of all
        ("l1", "i8"),  # part that keeps them, level 1
        ("l2", "i8"),
        ("pieces", "i8"),  # entries of level 2 that stand for one page
        ("x1", "i8"),  # popularity times the characteristic time of its first level, · 2^40
        ("missed", "i8"),  # share of its accesses that miss the first level, · 2^40
        ("walked", "i8"),  # walks for its pages, per access of all classes, · 2^40
    ]
)
FOREVER = 1 << 56  # a characteristic time that all pages live through
WEIGHT_BITS = 30  # of a class's probability
RATE_BITS = 20  # of a page's popularity, 1 being the mean
PAGE_BITS = 20  # of pages that are in a part
PRECISION = 15  # characteristic times are found to one part in 2^15


@law
def sqrt40(share):
    """√share.

    share    int64  · 2^40, 0..2^42
    returns  int64  · 2^40

    Source: Newton's method from above.
    """
    if share <= 0:
        return 0
    root = 2 * ONE
    while True:
        better = (root + (share << 20) // max(1, root >> 20)) >> 1
        if better >= root:
            return root
        root = better


@law
def pages_kept(classes, part, time):
    """Pages kept in a part of the first level that were used within a time, · 2^20.

    Source: see the module.
    """
    kept = 0
    for i in range(len(classes)):
        if classes[i]["l1"] == part:
            kept += scaled(classes[i]["pages"], gap(min(LARGE, scaled(classes[i]["rate"], time, RATE_BITS))), 40 - PAGE_BITS)
    return kept


@law
def characteristic_time(classes, part, wanted):
    """How long a page stays that is not used, if the part holds `wanted` pages (· 2^20).

    returns  int64  accesses per page of the working set, · 2^40

    Source: Che et al. 2002.
    """
    high = 1 << 12
    while pages_kept(classes, part, high) < wanted:
        high *= 2
        if high >= FOREVER:
            return FOREVER
    low = high // 2
    while high - low > max(1, low >> PRECISION):
        middle = (low + high) // 2
        if pages_kept(classes, part, middle) < wanted:
            low = middle
        else:
            high = middle
    return high


@law
def worth(entries, ways, sets, pages, point):
    """A set-associative part as a mixture of two fully associative ones: the size of one of them and its weight.

    pages    int64  that share the part, > entries
    point    int64  0 the smaller, 1 the larger
    returns  (int64 entries · 2^20, int64 weight · 2^40)

    Source: Gauss–Laguerre quadrature of the gamma distribution with `ways` degrees; see the module.
    """
    size = entries << PAGE_BITS
    if sets == 1:
        return size, (ONE if point == 0 else 0)
    full = (entries << 40) // pages
    root = sqrt40((ways + 1) * (ONE >> 6)) * 8
    lower, upper = ((ways + 1) * ONE - root) // ways, ((ways + 1) * ONE + root) // ways
    weight = ((upper - ONE) << 20) // ((upper - lower) >> 20)
    even = ONE if pages >= 1 << 20 else (pages << 40) // (pages + sets)
    narrow = sqrt40(scaled(ONE - full, even, 40))  # sets are not endless, and filled evenly
    if pages < 4 * entries:  # nobody holds more than all pages
        narrow = min(narrow, (((pages - entries) << 40) // entries << 20) // ((upper - ONE) >> 20))
    if point == 0:
        return size - scaled(size, scaled(ONE - lower, narrow, 40), 40), weight
    return size + scaled(size, scaled(upper - ONE, narrow, 40), 40), ONE - weight


@law
def pages_of(classes, level, number):
    """Entries that all pages kept in a part would take.

    level    int64  1 or 2
    number   int64  of the part

    Source: see the module.
    """
    pages = 0
    for i in range(len(classes)):
        if level == 1 and classes[i]["l1"] == number:
            pages += classes[i]["pages"]
        if level == 2 and classes[i]["l2"] == number:
            pages += classes[i]["pages"] * classes[i]["pieces"]
    return pages


@law
def l1_misses(classes, part):
    """What misses one part of the first level: sets `x1` and `missed` of the classes it keeps.

    Source: see the module.
    """
    number = part[NUMBER]
    pages = pages_of(classes, 1, number)
    for point in range(-1, 2):
        wanted, weight = part[ENTRIES] << PAGE_BITS, 0
        if point >= 0 and pages > part[ENTRIES]:
            wanted, weight = worth(part[ENTRIES], part[WAYS], part[SETS], pages, point)
        time = FOREVER if wanted >= pages << PAGE_BITS else characteristic_time(classes, number, wanted)
        for i in range(len(classes)):
            if classes[i]["l1"] == number:
                x = LARGE if time >= FOREVER else min(LARGE, scaled(classes[i]["rate"], time, RATE_BITS))
                if point < 0:
                    classes[i]["x1"] = x
                    classes[i]["missed"] = 0
                elif time < FOREVER:
                    classes[i]["missed"] += scaled(ONE - gap(x), weight, 40)


@law
def survival(x1, x2, pieces):
    """A page between two visits to the second level.

        A = x1 · e^(−x1)        mean of the exponential part beyond 2 · x1: (1 − 2A + A²/2) / ((1 − A) · e^(−x1))

    x1, x2   int64  characteristic times of both levels times the page's popularity, · 2^40
    pieces   int64  entries that stand for the page in the second level; if more than one, the visits to each are rare: exponential
    returns  (int64 share of its visits that come later than x2, int64 share of time that it is in the second level), · 2^40

    Source: renewal theory: a visit is an access after a pause of at least x1; see the module.
    """
    miss = ONE - gap(x1)
    if pieces > 1:
        held = gap(scaled(x2, miss, 40) // pieces)
        return ONE - held, held
    a = scaled(x1, miss, 40)
    if x2 <= x1:
        return ONE, scaled(miss, x2, 40)
    if x2 <= 2 * x1:
        v = scaled(miss, x2 - x1, 40)
        return ONE - v, a + v - scaled(v, v, 41)
    later = ONE - 2 * a + scaled(a, a, 41)
    theta = min(LARGE, scaled(x2 - 2 * x1, (scaled(ONE - a, miss, 40) << 20) // (later >> 20), 40))
    gone = gap(theta)
    return scaled(ONE - a, ONE - gone, 40), ONE - later + scaled(later, gone, 40)


@law
def pages_held(classes, number, time):
    """Entries of a part of the second level that were visited within a time, · 2^20.

    Source: see the module.
    """
    held = 0
    for i in range(len(classes)):
        if classes[i]["l2"] == number:
            x2 = min(LARGE * classes[i]["pieces"], scaled(classes[i]["rate"], time, RATE_BITS))
            _, share = survival(classes[i]["x1"], x2, classes[i]["pieces"])
            held += scaled(classes[i]["pages"] * classes[i]["pieces"], share, 40 - PAGE_BITS)
    return held


@law
def l2_time(classes, number, wanted):
    """As `characteristic_time`, of a part of the second level.

    Source: see the module.
    """
    high = 1 << 12
    while pages_held(classes, number, high) < wanted:
        high *= 2
        if high >= FOREVER:
            return FOREVER
    low = high // 2
    while high - low > max(1, low >> PRECISION):
        middle = (low + high) // 2
        if pages_held(classes, number, middle) < wanted:
            low = middle
        else:
            high = middle
    return high


@law
def l2_misses(classes, part):
    """What misses one part of the second level too: adds to `walked` of the classes it keeps.

    Source: see the module.
    """
    number = part[NUMBER]
    pages = pages_of(classes, 2, number)
    if pages <= part[ENTRIES]:
        return
    for point in range(2):
        wanted, weight = worth(part[ENTRIES], part[WAYS], part[SETS], pages, point)
        if weight == 0 or wanted >= pages << PAGE_BITS:
            continue
        time = l2_time(classes, number, wanted)
        if time >= FOREVER:
            continue
        for i in range(len(classes)):
            if classes[i]["l2"] == number:
                x2 = min(LARGE * classes[i]["pieces"], scaled(classes[i]["rate"], time, RATE_BITS))
                late, _ = survival(classes[i]["x1"], x2, classes[i]["pieces"])
                missed = scaled(ONE - gap(classes[i]["x1"]), late, 40)
                late_too = scaled(classes[i]["weight"], min(missed, classes[i]["missed"]), WEIGHT_BITS)
                classes[i]["walked"] += scaled(late_too, weight, 40)


@law
def walk_loads(shape, size, span_bytes, all_bytes):
    """Loads of a walk whose page is anywhere in a span of memory.

    size        int64  of the page: 0 4K, 1 2M, 2 1G
    span_bytes  int64  of pages of that size; they alone use the lowest of the caches
    all_bytes   int64  of pages of all sizes, which share the others
    returns     int64  · 2^40

    Source: kernel-laws §11.2; each paging-structure cache is used uniformly and knows what the one below it knows.
    """
    loads = ONE
    for which in range(size, 3):
        reach = shape["walk"][which, ENTRIES] << 21 + 9 * which
        span = span_bytes if which == size else all_bytes
        if reach < span:
            loads += ONE - (reach >> 12 << 20) // (span >> 12) * (1 << 20)
    return loads


@law
def unknown_regions(classes, entries, which):
    """Walks that a paging-structure cache does not help, if each class has memory of its own.

    entries  int64  of the cache
    which    int64  0 PDE, 1 PDPTE, 2 PML4E
    returns  int64  per access, · 2^40

    Source: Che et al. 2002, for regions instead of pages.
    """
    regions = np.zeros(len(classes), CLASS)
    total = walked = 0
    for i in range(len(classes)):
        regions[i]["l1"] = -1
        if classes[i]["size"] <= which and classes[i]["walked"] > 0:
            regions[i]["l1"] = 0
            regions[i]["pages"] = (classes[i]["pages"] - 1 >> 9 * (which + 1 - classes[i]["size"])) + 1
            total += regions[i]["pages"]
            walked += classes[i]["walked"]
    if total <= entries:
        return 0
    if entries == 0:
        return walked
    for i in range(len(classes)):
        if regions[i]["l1"] == 0:
            regions[i]["rate"] = scaled((classes[i]["walked"] << 20) // max(1, walked >> 20), total, 40 - RATE_BITS) // regions[i]["pages"]
    time = characteristic_time(regions, 0, entries << PAGE_BITS)
    unknown = 0
    for i in range(len(classes)):
        if regions[i]["l1"] == 0:
            unknown += scaled(classes[i]["walked"], ONE - gap(min(LARGE, scaled(regions[i]["rate"], time, RATE_BITS))), 40)
    return unknown


@law
def pages_bytes(classes, size):
    """Bytes of all pages of one size.

    Source: arithmetic.
    """
    total = 0
    for i in range(len(classes)):
        if classes[i]["size"] == size:
            total += classes[i]["pages"] << 12 + 9 * size
    return total


@law
def prepare(classes, shape):
    """Fill in what follows from pages, weights and sizes: popularities and parts.

    Source: see the module.
    """
    total = 0
    for i in range(len(classes)):
        total += classes[i]["pages"]
    for i in range(len(classes)):
        one = classes[i]
        one["rate"] = scaled(one["weight"], total, WEIGHT_BITS - RATE_BITS) // max(1, one["pages"])
        one["l1"] = shape["l1"][one["size"], NUMBER]
        one["l2"] = shape["l2"][one["size"], NUMBER]
        one["pieces"] = shape["l2"][one["size"], PIECES]
        one["missed"] = one["walked"] = 0


@law
def estimate(classes, shape, apart, walks):
    """Cycles per access of random accesses to some classes of pages.

    classes  record[:]  rows of CLASS: `pages`, `weight` and `size` are given, the rest is filled in
    shape    record     the processor (tlb_shape.shape_of)
    apart    int64      1: each class lies in memory of its own; 0: all are scattered over the same
    walks    int64[3]   set to the walks per access, by page size, · 2^40
    returns  (int64 cycles per access · 2^20, int64 share of accesses that miss the first level · 2^40, int64 loads per access · 2^40)

    Source: see the module.
    """
    prepare(classes, shape)
    walks[:] = 0
    for level in range(2):
        for size in range(3):
            part = shape["l1"][size] if level == 0 else shape["l2"][size]
            known = False
            for before in range(size):
                known = known or (shape["l1"][before, NUMBER] if level == 0 else shape["l2"][before, NUMBER]) == part[NUMBER]
            if not known and level == 0:
                l1_misses(classes, part)
            elif not known:
                l2_misses(classes, part)
    missed = loads = walked = 0
    for i in range(len(classes)):
        missed += scaled(classes[i]["weight"], classes[i]["missed"], WEIGHT_BITS)
        walks[classes[i]["size"]] += classes[i]["walked"]
        walked += classes[i]["walked"]
    if apart:
        loads = walked
        for which in range(3):
            loads += unknown_regions(classes, shape["walk"][which, ENTRIES], which)
    else:
        spans = (pages_bytes(classes, 0), pages_bytes(classes, 1), pages_bytes(classes, 2))
        for size in range(3):
            if walks[size] > 0:
                loads += scaled(walks[size], walk_loads(shape, size, spans[size], spans[0] + spans[1] + spans[2]), 40)
    cycles = missed * shape["l1_miss"] + walked * shape["l2_miss"] + loads * shape["load"]
    return cycles >> 20, missed, loads
