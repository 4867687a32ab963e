# SPDX-License-Identifier: Apache-2.0
"""What address translation adds to an access: TLB misses and page walks, by how much memory is used, how, and in which pages.

An access costs what the CPU profile says, and on a profile that has a TLB the nanoseconds of the miss-rate model (hardware/tlb_model.py)
on top. An area is at most four classes of pages to it: hot and cold part, each in huge and in small pages. So transparent huge pages
and hugetlb make random access to a large area faster, and splitting them makes it slower again, by as much as a TLB would.

Rules: the model is asked when something it depends on has changed (size to a thirty-second, the share of huge pages by 64ths, the share
of hot accesses), which is seldom; between, the answer stands in the area. Profiles without a TLB (the emulated machines of the
recordings) pay nothing.
Leaves out: other tasks on the same CPU, caches of data, the walker's misses in them, that a sweep over hugetlb pages is one (it is
taken as random access, for the kernel is not told), huge pages that a fork shares, misses by code.
Source: kernel-laws §11.2; the profile is `skylake` (Cascade Lake, bare metal of about 2020, as `server`).
"""

from __future__ import annotations

import numpy as np

from fleetsim.hardware.cpu import TLB_MHZ
from fleetsim.hardware.tlb_model import CLASS, WEIGHT_BITS, estimate
from fleetsim.hardware.tlb_profiles import find
from fleetsim.hardware.tlb_shape import SETS, SHAPE, shape_of
from fleetsim.hardware.tlb_sweep import estimate_order
from fleetsim.law import ONE_Q, Q, law
from fleetsim.linux.mm_types import AREA_HUGETLB, ORDERED
from fleetsim.linux.mmap_layout import is_gigantic

SHAPES = np.zeros(1, SHAPE)
SHAPES[0] = shape_of(find("skylake"))
CHANCE = SHAPES.copy()  # for random access: pages that lie side by side fill all sets alike, and LRU over all of them is as good
for _level in ("l1", "l2"):
    CHANCE[0][_level][:, SETS] = 1
PAGE_BYTES, PTES = 4096, 512
SHARE_PARTS = 64  # the share of huge pages is looked at in so many parts
COST_BITS = 10  # area["walk_cost"] is in 1024ths of a nanosecond
SIZE_BITS = 5  # of a size that the model is told: a heap that breathes by a percent at every collection is not asked about anew
M31 = (1 << 31) - 1


@law
def about(pages):
    """`pages` to SIZE_BITS binary digits: at most 3 % off, and exact below 32 pages.

    Source: the model's own error is of that order around the knees (docs/benchmarks.md, "The TLB simulator").
    """
    grain = 1
    while pages >> SIZE_BITS >= grain:
        grain <<= 1
    return (pages + grain // 2) // grain * grain


@law
def huge_part(row, g, pages):
    """Share of the first `pages` pages of a group that lie in huge pages, 64ths.

    Source: fleetsim's own representation.
    """
    if row["groups"][g]["huge"] == 0:
        return 0
    return min(SHARE_PARTS, row["groups"][g]["huge"] * PTES * SHARE_PARTS // max(1, pages))


@law
def random_ns(hot_pages, cold_pages, hot_huge, cold_huge, hot_q, gigantic, mhz):
    """Translation time of a random access.

    hot_pages, cold_pages  int64  4 KiB pages of both parts (without parts: cold)
    hot_huge, cold_huge    int64  share of them in huge pages, 64ths
    hot_q                  int64  share of accesses that go to the hot part, 2^20ths
    gigantic               bool   the huge pages are of 1 GiB
    returns                int64  1024ths of a nanosecond

    Source: tlb_model.py.
    """
    classes, walks = np.zeros(4, CLASS), np.zeros(3, np.int64)
    for k in range(4):
        hot = k < 2
        pages = hot_pages if hot else cold_pages
        parts = hot_huge if hot else cold_huge
        if k % 2 == 0:
            parts = SHARE_PARTS - parts
        one = classes[k]
        one["size"] = k % 2 * (2 if gigantic else 1)
        one["weight"] = ((hot_q if hot else ONE_Q - hot_q) << WEIGHT_BITS - Q) // SHARE_PARTS * parts
        per = 1 << 9 * one["size"]
        one["pages"] = (pages * parts // SHARE_PARTS + per - 1) // per
    cycles, _, _ = estimate(classes, CHANCE[0], 1, walks)
    return cycles * 1000 // mhz >> 20 - COST_BITS


@law
def sweep_ns(pages, huge, mhz):
    """Translation time of an access in a sweep that touches page by page.

    pages    int64  4 KiB pages
    huge     int64  share of them in huge pages, 64ths
    returns  int64  1024ths of a nanosecond

    Source: tlb_sweep.py.
    """
    walks = np.zeros(3, np.int64)
    cycles = 0
    for size in range(2):
        parts = huge if size else SHARE_PARTS - huge
        places = pages * parts // SHARE_PARTS
        if places > 0:
            of_part, _, _ = estimate_order(SHAPES[0], size, places, PAGE_BYTES, 0, walks)
            cycles += of_part * parts // SHARE_PARTS
    return cycles * 1000 // mhz >> 20 - COST_BITS


@law
def walk_cost(row, a, hot_q):
    """Translation time of an access to an area, from what stands in the area if nothing has changed.

    returns  int64  1024ths of a nanosecond

    Source: see the module.
    """
    area = row["areas"][a]
    reach = about(area["touched"] if area["touched"] > 0 else area["pages"])
    hot, cold_huge, hot_huge, ordered = 0, SHARE_PARTS, 0, 0
    if area["kind"] != AREA_HUGETLB:
        g = area["group"]
        ordered = 1 if row["groups"][g]["kind"] == ORDERED else 0
        if area["groups"] == 2:
            hot = min(reach, row["groups"][g]["pages"])
            hot_huge = huge_part(row, g, hot)
            g += 1
        cold_huge = huge_part(row, g, reach - hot)
    key = (reach * 8191 + hot_huge * 66 + cold_huge) & M31
    gigantic = is_gigantic(area)
    key = (key * 1048573 + hot_q * 4 + ordered * 2 + (1 if gigantic else 0)) & M31
    if area["walk_key"] != key:
        mhz = row["cost"][TLB_MHZ]
        area["walk_key"] = key
        if ordered:
            area["walk_cost"] = sweep_ns(reach, cold_huge, mhz)
        else:
            area["walk_cost"] = random_ns(hot, reach - hot, hot_huge, cold_huge, hot_q, gigantic, mhz)
    return area["walk_cost"]


@law
def account_walks(row, th, a, accesses, hot_q):
    """Bill a thread for the translation of accesses it has made to an area.

    hot_q    int64  share of them that go to the hot part, 2^20ths; 0 if the area has none

    Source: see the module.
    """
    if row["cost"][TLB_MHZ] == 0 or accesses <= 0:
        return
    spent = accesses * walk_cost(row, a, hot_q if row["areas"][a]["groups"] == 2 else 0) >> COST_BITS
    row["spent_ns"] += spent
    row["tasks"][row["areas"][a]["task"]]["utime_ns"] += spent
