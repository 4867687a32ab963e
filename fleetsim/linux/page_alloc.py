# SPDX-License-Identifier: Apache-2.0
"""Zones: how much must stay free, and how far free memory is usable. Scalar laws; loops over zones are the caller's.

    min_free_kbytes ─► wmark_min ─► + wmark_gap = low ─► + gap = high        per zone
    managed pages of the zones above ─► lowmem_reserve                       per zone and request

Rules: everything in pages (4 KiB) unless a name says `_kb`; integer division as the kernel's (all operands ≥ 0).
Leaves out: NUMA (one node), highmem zones, the promo watermark of memory tiering, the free lists themselves.
Source: mm/page_alloc.c, mm/khugepaged.c, mm/vmstat.c (Linux 6.1); kernel-laws §1, §5.2.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.math64 import int_sqrt, rounddown_pow_of_two

PAGE_KB = 4
PAGEBLOCK_PAGES = 512  # 2 MiB, order 9: one huge page on x86-64
PCP_MIGRATETYPES = 3  # unmovable, movable, reclaimable
MIN_FREE_KB_MIN, MIN_FREE_KB_MAX = 128, 262_144
BATCH_PAGES_MAX = 256  # 1 MiB

assert MIN_FREE_KB_MIN < MIN_FREE_KB_MAX


@law
def calculate_min_free_kbytes(lowmem_kb: int) -> int:
    """vm.min_free_kbytes as boot computes it, before khugepaged raises it.

        clamp(isqrt(lowmem_kb · 16), 128, 262144)

    lowmem_kb  int64  kB, Σ over zones up to Normal of max(0, managed − high watermark) · 4, 0..2^48
    returns    int64  kB

    Source: mm/page_alloc.c calculate_min_free_kbytes; kernel-laws 1.2, T-1.1.
    Leaves out: a value written by the user wins over a lower computed one (the caller's choice).
    """
    return min(max(int_sqrt(lowmem_kb * 16), MIN_FREE_KB_MIN), MIN_FREE_KB_MAX)


@law
def recommended_min_free_kbytes(base_kb: int, nr_zones: int, free_buffer_pages: int) -> int:
    """vm.min_free_kbytes once khugepaged runs (transparent huge pages `always` or `madvise`).

        max(base_kb, 4 · min(512 · nr_zones · (2 + 3·3), free_buffer_pages / 20))

    base_kb            int64  kB, what calculate_min_free_kbytes gave
    nr_zones           int64  populated zones up to Normal, 1..
    free_buffer_pages  int64  pages above the high watermark in them
    returns            int64  kB, never below base_kb

    Source: mm/khugepaged.c set_recommended_min_free_kbytes; kernel-laws 1.2, T-1.2, T-1.3.
    Leaves out: the move back to the base when huge pages are switched off (the caller asks for the base).
    """
    wanted = PAGEBLOCK_PAGES * nr_zones * (2 + PCP_MIGRATETYPES * PCP_MIGRATETYPES)
    return max(base_kb, min(wanted, free_buffer_pages // 20) * PAGE_KB)


@law
def wmark_min(min_free_kb: int, managed: int, managed_total: int) -> int:
    """The zone's min watermark: its share of vm.min_free_kbytes.

        (min_free_kb / 4) · managed / managed_total

    min_free_kb    int64  kB, 0..
    managed        int64  pages of this zone
    managed_total  int64  pages of all zones up to Normal, > 0
    returns        int64  pages

    Source: mm/page_alloc.c __setup_per_zone_wmarks; kernel-laws 1.3, T-1.4.
    Leaves out: highmem zones; the boost, which checks add to every mark.
    """
    return min_free_kb // PAGE_KB * managed // managed_total


@law
def wmark_gap(share: int, managed: int, scale_factor: int) -> int:
    """The distance from min to low, and again from low to high.

        max(share / 4, managed · scale_factor / 10000)

    share         int64  pages, the zone's wmark_min
    managed       int64  pages of this zone
    scale_factor  int64  vm.watermark_scale_factor, 1..3000 (1/10000)
    returns       int64  pages

    Source: mm/page_alloc.c __setup_per_zone_wmarks; kernel-laws 1.3, T-1.4. Leaves out: nothing.
    """
    return max(share >> 2, managed * scale_factor // 10_000)


@law
def lowmem_reserve(upper_managed_sum: int, ratio: int) -> int:
    """What a request that could use higher zones must leave in this one, on top of the watermark.

        upper_managed_sum / ratio,   0 if ratio < 1

    upper_managed_sum  int64  pages managed in the zones above this one, up to the highest the request may use
    ratio              int64  this zone's vm.lowmem_reserve_ratio
    returns            int64  pages

    Source: mm/page_alloc.c setup_per_zone_lowmem_reserve; kernel-laws 1.4, T-1.5.
    Leaves out: a zone without pages has no reserve (the caller has no such zone).
    """
    if ratio < 1:
        return 0
    return upper_managed_sum // ratio


@law
def totalreserve_of_zone(managed: int, max_reserve: int, high: int) -> int:
    """The zone's part of totalreserve_pages, which MemAvailable and the dirty limits do not count on.

        min(managed, max_reserve + high)

    managed      int64  pages of the zone
    max_reserve  int64  pages, the largest of its lowmem reserves
    high         int64  pages, its high watermark
    returns      int64  pages

    Source: mm/page_alloc.c calculate_totalreserve_pages; kernel-laws 1.4. Leaves out: nothing.
    """
    return min(managed, max_reserve + high)


@law
def si_mem_available(free: int, totalreserve: int, pagecache: int, reclaimable: int, low_sum: int) -> int:
    """MemAvailable: what a new workload could have without swapping.

        free − totalreserve + (pagecache − min(pagecache/2, low_sum)) + (reclaimable − min(reclaimable/2, low_sum)),  ≥ 0

    free          int64  pages, MemFree
    totalreserve  int64  pages, Σ totalreserve_of_zone
    pagecache     int64  pages on the active and inactive file lists (shmem is not there)
    reclaimable   int64  pages, SReclaimable + other reclaimable kernel memory
    low_sum       int64  pages, Σ low watermarks with their boosts
    returns       int64  pages, ≥ 0

    Source: mm/page_alloc.c si_mem_available; kernel-laws 5.2, T-5.1. Leaves out: nothing.
    """
    available = free - totalreserve
    available += pagecache - min(pagecache // 2, low_sum)
    available += reclaimable - min(reclaimable // 2, low_sum)
    return max(available, 0)


@law
def watermark_for(mark: int, alloc_high: bool, alloc_harder: bool, oom_victim: bool) -> int:
    """How deep below a watermark this caller may go.

        __GFP_HIGH: m −= m/2;  and cannot block: m −= m/4;  OOM victim instead: m −= m/2      (in this order)

    mark          int64  pages, min, low or high with its boost
    alloc_high    bool   __GFP_HIGH
    alloc_harder  bool   GFP_ATOMIC or a real-time task
    oom_victim    bool   chosen by the OOM killer and not yet gone
    returns       int64  pages

    Source: mm/page_alloc.c __zone_watermark_ok, gfp_to_alloc_flags; kernel-laws 1.5.
    Leaves out: PF_MEMALLOC (no mark at all: such a caller does not ask).
    """
    if alloc_high:
        mark -= mark // 2
    if oom_victim:
        mark -= mark // 2
    elif alloc_harder:
        mark -= mark // 4
    return mark


@law
def zone_watermark_usable(free: int, order: int, reserved_highatomic: int, free_cma: int) -> int:
    """Free pages that count for a request of this order.

        free − (2^order − 1) − reserved_highatomic − free_cma

    free                 int64  pages on the zone's free lists
    order                int64  0..10
    reserved_highatomic  int64  pages; 0 if the caller may use the reserve
    free_cma             int64  pages; 0 if the caller may use CMA
    returns              int64  pages, may be negative

    Source: mm/page_alloc.c __zone_watermark_unusable_free; kernel-laws 1.5. Leaves out: nothing.
    """
    return free - ((1 << order) - 1) - reserved_highatomic - free_cma


@law
def zone_watermark_ok(usable: int, mark: int, reserve: int, order: int, suitable_blocks: int) -> bool:
    """May this zone give a block of the order now?

        usable > mark + reserve, and for order > 0 some block of at least that order is free

    usable           int64  pages, from zone_watermark_usable
    mark             int64  pages, from watermark_for
    reserve          int64  pages, the zone's lowmem reserve against the request's highest zone
    order            int64  0..10
    suitable_blocks  int64  free blocks of order ≥ `order` of a migratetype the caller may use (not looked at for order 0)
    returns          bool

    Source: mm/page_alloc.c __zone_watermark_ok; kernel-laws 1.5. Leaves out: nothing.
    """
    if usable <= mark + reserve:
        return False
    return order == 0 or suitable_blocks > 0


@law
def boost_watermark(boost: int, high: int, managed: int, boost_factor: int) -> int:
    """The zone's watermark boost after one more allocation took a pageblock of another migratetype.

        min(boost + 512, max(512, high · boost_factor / 10000));  unchanged if the factor is 0 or the zone is below 4 pageblocks

    boost         int64  pages, before
    high          int64  pages, the high watermark without boost
    managed       int64  pages of the zone
    boost_factor  int64  vm.watermark_boost_factor, 0.. (1/10000)
    returns       int64  pages

    Source: mm/page_alloc.c boost_watermark; kernel-laws 1.3 Boost.
    Leaves out: waking kswapd, and the clearing after it reclaimed that much (the caller's).
    """
    if boost_factor == 0 or managed < 4 * PAGEBLOCK_PAGES:
        return boost
    limit = high * boost_factor // 10_000
    if limit == 0:  # a zone without watermarks yet: early boot
        return boost
    return min(boost + PAGEBLOCK_PAGES, max(PAGEBLOCK_PAGES, limit))


@law
def zone_batchsize(managed: int) -> int:
    """Pages moved at once between a per-CPU list and the zone.

        b = max(1, min(managed / 1024, 256) / 4);  max(1, rounddown_pow2(1.5 b) − 1)

    managed  int64  pages of the zone
    returns  int64  pages, 1..63

    Source: mm/page_alloc.c zone_batchsize, zone_set_pageset_high_and_batch; kernel-laws 1.7, T-1.6. Leaves out: nothing.
    """
    batch = max(1, min(managed >> 10, BATCH_PAGES_MAX) // 4)
    return max(1, rounddown_pow_of_two(batch + batch // 2) - 1)


@law
def zone_pcp_high(low: int, cpus: int, batch: int) -> int:
    """Pages one CPU may keep on its lists of a zone before it gives some back.

        max(low / cpus, 4 · batch)

    low      int64  pages, the zone's low watermark
    cpus     int64  CPUs of the node, ≥ 1
    batch    int64  pages, from zone_batchsize
    returns  int64  pages

    Source: mm/page_alloc.c zone_highsize; kernel-laws 1.7, T-1.6.
    Leaves out: vm.percpu_pagelist_high_fraction; the cap at 4 · batch while kswapd reclaims the zone.
    """
    return max(low // cpus, 4 * batch)


@law
def fragmentation_index(free_blocks: int, free_pages: int, suitable_blocks: int, order: int) -> int:
    """How far a failed high-order request is from lack of memory (near 0) towards fragmentation (near 1000).

        1000 − (1000 + free_pages · 1000 / 2^order) / free_blocks
        −1000 if a block of the order is free,  0 if no block is free at all

    free_blocks      int64  blocks of any order on the zone's free lists
    free_pages       int64  pages in them
    suitable_blocks  int64  blocks of at least this order
    order            int64  0..10
    returns          int64  thousandths, −1000 or −999..1000

    Source: mm/vmstat.c __fragmentation_index; kernel-laws 1.8, T-1.7 to T-1.9. Leaves out: nothing.
    """
    if free_blocks == 0:
        return 0
    if suitable_blocks > 0:
        return -1000
    return 1000 - (1000 + free_pages * 1000 // (1 << order)) // free_blocks


@law
def unusable_free_index(free_pages: int, suitable_blocks: int, order: int) -> int:
    """The share of free memory that cannot serve a request of this order.

        (free_pages − suitable_blocks · 2^order) · 1000 / free_pages,   1000 if nothing is free

    free_pages       int64  pages on the zone's free lists
    suitable_blocks  int64  how many blocks of this order fit in the free blocks of at least this order
    order            int64  0..10
    returns          int64  thousandths, 0..1000

    Source: mm/vmstat.c unusable_free_index; kernel-laws 1.8. Leaves out: nothing.
    """
    if free_pages == 0:
        return 1000
    return (free_pages - (suitable_blocks << order)) * 1000 // free_pages
