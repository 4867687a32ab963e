# SPDX-License-Identifier: Apache-2.0
"""Memory on its way back: the top that is too large, malloc_trim, and making the kernel's pages what the allocator wants.

Source: malloc/malloc.c systrim, mtrim of glibc 2.36; kernel-laws §15.1. See `glibc.py` for the model.
"""

from __future__ import annotations

from fleetsim.allocators.glibc_heap import gap_of, header_page, kind_freed, only_population, place_at
from fleetsim.allocators.glibc_laws import MINSIZE, PAGE, whole_pages_q
from fleetsim.allocators.tables import NR_PLACES, PLACE_HEAP, PLACE_MAPPED
from fleetsim.hardware.cpu import MADVISE
from fleetsim.law import law
from fleetsim.linux.brk import bring_back, populate, resize_area, zap_range
from fleetsim.linux.pgtable import trim_tables

ZAP_BUDGET = 4096  # pages given back in one go
FAR = (1 << 31) - 1  # pages: behind the end of any area


@law
def systrim(row, h, pad):
    """Give the top back to the kernel, all but `pad` bytes.

    Source: malloc/malloc.c systrim.
    """
    heap = row["heaps"][h]
    spare = heap["brk"] * PAGE - heap["top"] - MINSIZE - 1 - pad
    if spare < PAGE:
        return
    extra = spare // PAGE
    span = heap["brk"] - header_page(heap["top"])
    heap["top_end"] = heap["brk"]
    heap["top_keep"] = heap["top_keep"] * (span - extra) // max(1, span)
    heap["brk"] -= extra
    row["spent_ns"] += row["cost"][MADVISE]
    resize_area(row, heap["area"], -extra)


@law
def absorb(row, h):
    """Free chunks that reach up to the top become part of it; a chunk that a tcache holds stops it.

    Source: malloc/malloc.c _int_free, malloc_consolidate (a chunk beside the top is merged into it).
    """
    heap = row["heaps"][h]
    for _ in range(NR_PLACES):
        k = place_at(row, h, heap["top"], True)
        if k < 0:
            return
        place = row["places"][k]
        p = only_population(row, k)
        free = 0
        if p == -2:
            free = place["size"]
        elif p >= 0:
            population = row["populations"][p]
            end = population["first"] + population["span"] - 1
            dead = end - end // population["every"] * population["every"]  # blocks behind the last that is alive
            free = place["size"] * min(dead, population["span"]) // population["span"]
            population["span"] -= dead
        free = min(free, heap["top"] - heap["pinned"])
        if free <= 0:
            return
        moved = place["pages"] * free // place["size"]
        heap["top"] -= free
        place["size"] -= free
        moved = max(0, min(moved, heap["brk"] - header_page(heap["top"]) - heap["top_pages"]))
        heap["top_pages"] += moved
        heap["top_keep"] += moved
        place["pages"] -= moved
        place["keep"] -= moved
        if place["size"] == 0:
            heap["rest_pages"] += place["pages"]
            place["used"] = 0


@law
def malloc_trim(row, h):
    """malloc_trim(0): merge what is free, give back the whole pages inside free chunks and all of the top.

    Source: malloc/malloc.c mtrim, systrim; kernel-laws §15.1.
    """
    heap = row["heaps"][h]
    heap["fast"] = 0
    absorb(row, h)
    for k in range(NR_PLACES):
        place = row["places"][k]
        if place["used"] == 0 or place["heap"] != h or place["kind"] != PLACE_HEAP or place["gaps"] <= 0:
            continue
        least, most = kind_freed(row, k)
        slots = place["free_slots"] // place["gaps"] if most > 0 else 2
        each_q = whole_pages_q(gap_of(place), slots, least, most)
        whole = header_page(place["start"] + place["size"]) - header_page(place["start"])
        place["keep"] = min(place["keep"], max(0, whole - (place["gaps"] * each_q >> 10)))
        row["spent_ns"] += place["gaps"] * min(1024, each_q) // 1024 * row["cost"][MADVISE]
    systrim(row, h, 0)


@law
def settle_place(row, th, h, k, budget):
    """Bring the pages of one place to what they are to be, `budget` of them at most are given back.

    returns  (int64 pages given back, bool nothing is left to do)

    Source: mm/memory.c, mm/madvise.c by way of linux/brk.py.
    """
    heap, place = row["heaps"][h], row["places"][k]
    area = heap["area"]
    start, end = header_page(place["start"]), header_page(place["start"] + place["size"])
    if place["kind"] == PLACE_MAPPED:
        area = heap["maps"]
        start, end = place["start"] // PAGE, (place["start"] + place["size"]) // PAGE
    while place["stir"] > 0:
        done = bring_back(row, th, area, start, end, place["stir"])
        if done == 0:
            return 0, False
        place["stir"] -= min(place["stir"], done) if done > 0 else place["stir"]
    while place["keep"] > place["pages"]:
        done = populate(row, th, area, start, end, place["keep"] - place["pages"])
        if done == 0:
            return 0, False
        place["pages"] += done
    if place["keep"] == place["pages"]:
        return 0, True
    wanted = min(budget, place["pages"] - place["keep"])
    done = zap_range(row, area, start, end, wanted)
    if done < wanted:  # some stand in slices beside it
        done += zap_range(row, area, 0, FAR, wanted - done)
    place["pages"] -= done
    return done, place["pages"] == place["keep"]


@law
def settle(row, th, h):
    """Do what the last calls made necessary: fault pages in, fetch them from swap, give them back.

    returns  bool  False: not all is done, come back

    Source: mm/memory.c, mm/madvise.c, mm/mmap.c by way of linux/brk.py.
    """
    heap = row["heaps"][h]
    budget = ZAP_BUDGET
    for k in range(NR_PLACES):
        place = row["places"][k]
        if place["used"] and place["heap"] == h:
            done, over = settle_place(row, th, h, k, budget)
            budget -= done
            if not over:
                return False
            if place["kind"] == PLACE_MAPPED and place["live"] == 0:
                heap["rest_pages"] += place["pages"]
                place["used"] = 0
    if heap["top_pages"] > heap["top_keep"]:
        at = header_page(heap["top"])
        wanted = min(budget, heap["top_pages"] - heap["top_keep"])
        done = zap_range(row, heap["area"], at, max(at + 1, heap["top_end"]), wanted)
        if done < wanted:
            done += zap_range(row, heap["area"], 0, FAR, wanted - done)
        heap["top_pages"] -= done
        if heap["top_pages"] > heap["top_keep"]:
            return False
        trim_tables(row, row["areas"][heap["area"]], heap["brk"])
    if heap["maps"] >= 0:
        trim_tables(row, row["areas"][heap["maps"]], row["areas"][heap["maps"]]["pages"])
    return True
