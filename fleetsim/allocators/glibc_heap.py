# SPDX-License-Identifier: Apache-2.0
"""The tables behind a heap: finding it, and making, cutting, counting and joining its places and populations.

Source: fleetsim's own representation of malloc/malloc.c's state; see `glibc.py`.
"""

from __future__ import annotations

from fleetsim.allocators.glibc_laws import ALIGNMENT, MMAP_THRESHOLD, OVERHEAD, PAGE, TRIM_THRESHOLD, mean_chunk_q
from fleetsim.allocators.heap_rows import claim_heap
from fleetsim.allocators.tables import LIES_ALONE, NR_HEAPS, NR_PLACES, NR_POPULATIONS, PLACE_HEAP
from fleetsim.law import law
from fleetsim.linux.brk import new_area, release_area, resize_area
from fleetsim.linux.mmap_layout import place_heap

FIRST_BRK, FIRST_TOP = 34, 5824
"""Pages and bytes that a static program's start has taken of its heap: 132 KiB and what was there before (e20: arena, keepcost)."""
FIRST_PAGES = 2  # of those, pages written to: part of the program's image


@law
def header_page(top):
    """Pages below and with the header of a chunk at address `top`.

    Source: malloc/malloc.c set_head (a top chunk's size word is written whenever the top moves).
    """
    return (top + 2 * OVERHEAD + PAGE - 1) // PAGE


@law
def new_heap(row, th, most):
    """A heap for a thread, which is going to need up to `most` pages.

    returns  int64  heap row, −1: a table is full

    Source: malloc/malloc.c ptmalloc_init, tcache_init. Leaves out: arenas of further threads lie in mappings of 64 MiB.
    """
    h = claim_heap(row, th, most)
    if h < 0:
        return -1
    heap = row["heaps"][h]
    place_heap(row, heap["area"])
    heap["fast"] = 0
    heap["fixed"] = 0
    heap["carry"] = 0
    heap["carry_mapped"] = 0
    heap["carry_fit"] = 0
    heap["chunks_mapped"] = 0
    heap["brk"] = FIRST_BRK
    heap["top"] = FIRST_TOP
    heap["top_end"] = FIRST_BRK
    heap["top_pages"] = 0
    heap["top_keep"] = 0
    heap["rest_pages"] = 0
    heap["mapped"] = 0
    heap["mapped_bytes"] = 0
    heap["mmap_threshold"] = MMAP_THRESHOLD
    heap["trim_threshold"] = TRIM_THRESHOLD
    heap["pinned"] = 0
    heap["cached"] = 0
    heap["cached_bytes"] = 0
    return h


@law
def new_pointers(row, t, used, size):
    """The table in which a program keeps its blocks: `size` pages are mapped without reserve, the first `used` will be written to.

    returns  int64  area row, −1: ENOMEM

    Source: the recordings' driver (mmap MAP_NORESERVE; overcommit mode 2 counts it all the same).
    """
    a = new_area(row, t, min(used, size))
    if a < 0:
        return -1
    row["areas"][a]["accounted"] = 1 if row["sysctl"]["overcommit_memory"] == 2 else 0
    if not resize_area(row, a, size):
        release_area(row, a)
        return -1
    return a


@law
def kept_back(row, h):
    """Rows that heap `h` may not take of places or populations: one is kept for each heap that is still going to need its first.

    Source: fleetsim's own table.
    """
    have, mine = 0, False
    for q in range(NR_HEAPS):
        heap = row["heaps"][q]
        if heap["used"] and heap["slab"] < 0 and heap["blocks"] > 0:
            have += 1
            mine = mine or q == h
    return max(0, row["heaps_due"] - have) if mine else 0


@law
def free_places(row):
    """Unused rows of places.

    Source: fleetsim's own table.
    """
    free = 0
    for k in range(NR_PLACES):
        free += 1 - row["places"][k]["used"]
    return free


@law
def new_place(row, h, kind, start, size):
    """A place of `size` bytes at `start`, with nothing in it.

    returns  int64  place row, −1: the table is full

    Source: fleetsim's own representation.
    """
    if free_places(row) <= kept_back(row, h):
        return -1
    for k in range(NR_PLACES):
        place = row["places"][k]
        if place["used"] == 0:
            place["used"] = 1
            place["kind"] = kind
            place["heap"] = h
            place["start"] = start
            place["size"] = size
            place["scattered"] = 0
            place["live"] = 0
            place["waste"] = 0
            place["gaps"] = 1
            place["filled"] = 0
            place["free_slots"] = 1
            place["pages"] = 0
            place["keep"] = 0
            place["stir"] = 0
            return k
    return -1


@law
def place_at(row, h, address, by_end):
    """The place of a heap that begins (or, by_end, ends) at an address; −1 if none does.

    Source: fleetsim's own representation.
    """
    for k in range(NR_PLACES):
        place = row["places"][k]
        if place["used"] and place["heap"] == h and place["kind"] == PLACE_HEAP and place["size"] > 0:
            if place["start"] + (place["size"] if by_end else 0) == address:
                return k
    return -1


@law
def only_population(row, k):
    """The population of a place if it has only one and its blocks lie in the order of their numbers; −2: it has none; −1: else.

    Source: fleetsim's own representation.
    """
    found = -2
    for p in range(NR_POPULATIONS):
        population = row["populations"][p]
        if population["used"] and population["place"] == k:
            found = p if found == -2 and population["order"] == LIES_ALONE else -1
    return found


@law
def is_like(heap, population, least, most):
    """True if blocks of the loop under way, asked for with least..most bytes, may join a population.

    Source: fleetsim's own representation.
    """
    wide = (population["most"] - population["least"]) // 8  # a little wider or narrower is the same kind
    near = abs(population["least"] - least) <= wide and abs(population["most"] - most) <= wide
    return population["series"] == heap["series"] and population["every"] == 1 and near


@law
def place_for(row, h, kind, k, start, least, most):
    """Where blocks of the loop under way go on, side by side: place `k` if it is theirs, else a new one at `start`.

    returns  int64  place row; k if the table is full

    Source: fleetsim's own representation.
    """
    p = only_population(row, k) if k >= 0 else -1
    if p >= 0 and is_like(row["heaps"][h], row["populations"][p], least, most):
        return k
    fresh = new_place(row, h, kind, start, 0) if has_room(row, h) else -1
    if fresh < 0:
        return k
    row["places"][fresh]["gaps"] = 0
    row["places"][fresh]["free_slots"] = 0
    return fresh


@law
def has_room(row, h):
    """True if another population of heap `h` fits in the table.

    Source: fleetsim's own table.
    """
    free = 0
    for p in range(NR_POPULATIONS):
        free += 1 - row["populations"][p]["used"]
    return free > kept_back(row, h)


@law
def add_blocks(row, h, k, order, span, alive, least, most):
    """`alive` of the next `span` blocks of the loop under way lie in place `k`.

    Without a free row they join a population that is there: its pattern then stands for theirs.

    Source: fleetsim's own representation.
    """
    heap = row["heaps"][h]
    mine, other, free = -1, -1, -1
    for p in range(NR_POPULATIONS):
        population = row["populations"][p]
        if population["used"] == 0:
            free = p
        elif population["place"] == k:
            other = p
            if is_like(heap, population, least, most):
                mine = p
    if mine < 0:
        mine = free if other < 0 or has_room(row, h) else other
        if mine == free:
            population = row["populations"][mine]
            population["used"] = 1
            population["heap"] = h
            population["place"] = k
            population["order"] = order
            population["series"] = heap["series"]
            population["first"] = heap["blocks"]
            population["every"] = 1
            population["alive"] = 0
            population["least"] = least
            population["most"] = most
    population = row["populations"][mine]
    population["span"] = heap["blocks"] + span - population["first"]
    population["alive"] += alive


@law
def recount(row, k, ends_only):
    """Live bytes and free chunks of a place, after some of its blocks were freed.

    ends_only  int64  1: only whole ranges of blocks were freed, and their free chunks are counted already if they lay among others

    A free chunk ends at the next live one: there are as many as live blocks, or as free ones if those are fewer; where
    blocks were freed at random, one begins behind each live block whose successor is free: alive · free / all.

    Source: malloc/malloc.c _int_free (neighbours that are free are merged).
    """
    place = row["places"][k]
    live, alive, kinds = 0, 0, 0
    for p in range(NR_POPULATIONS):
        population = row["populations"][p]
        if population["used"] and population["place"] == k:
            mean_q = mean_chunk_q(population["least"], population["most"])
            live += population["alive"] * mean_q >> 10
            alive += population["alive"]
            kinds += 1
    place["live"] = min(live, place["size"])
    place["waste"] = 0
    if alive == 0:
        place["gaps"] = 1
        place["filled"] = 0
        place["live"] = 0
        return
    mean = max(1, live // alive)
    place["free_slots"] = (place["size"] - place["live"] + mean // 2) // mean
    if ends_only and (kinds > 1 or place["filled"] > 0):
        place["gaps"] = max(1, min(place["gaps"], place["free_slots"]))
        return
    place["filled"] = 0
    place["gaps"] = min(alive, place["free_slots"])
    if place["scattered"]:
        place["gaps"] = alive * place["free_slots"] // (alive + place["free_slots"])


@law
def cut_place(row, h, k, size, high):
    """Split the lowest `size` bytes of a place off (or, high, all above them): what is split off is free altogether.

    Source: fleetsim's own representation.
    """
    place = row["places"][k]
    free = size if not high else place["size"] - size
    start = place["start"] if not high else place["start"] + size
    if free <= 0 or free >= place["size"]:
        return
    other = new_place(row, h, place["kind"], start, free)
    if other < 0:
        return
    part = row["places"][other]
    part["pages"] = place["pages"] * free // place["size"]
    part["keep"] = part["pages"]
    place["pages"] -= part["pages"]
    place["keep"] -= part["keep"]
    place["size"] -= free
    if not high:
        place["start"] += free


@law
def join_free(row, h):
    """Free places beside each other become one.

    Source: malloc/malloc.c _int_free (unlink_chunk of free neighbours).
    """
    for k in range(NR_PLACES):
        place = row["places"][k]
        if place["used"] == 0 or place["heap"] != h or place["kind"] != PLACE_HEAP or place["live"] > 0:
            continue
        for _ in range(NR_PLACES):
            other = place_at(row, h, place["start"] + place["size"], False)
            if other < 0 or row["places"][other]["live"] > 0:
                break
            part = row["places"][other]
            place["size"] += part["size"]
            place["pages"] += part["pages"]
            place["keep"] += part["keep"]
            place["free_slots"] += part["free_slots"]
            part["used"] = 0


@law
def kind_freed(row, k):
    """Of what sizes the blocks were whose room lies free in a place: as those that are left.

    returns  (int64 least, int64 most)  bytes asked for

    Source: fleetsim's own representation.
    """
    least, most = 0, 0
    for p in range(NR_POPULATIONS):
        population = row["populations"][p]
        if population["used"] and population["place"] == k and (most == 0 or population["order"] == LIES_ALONE):
            least, most = population["least"], population["most"]
    return least, most


@law
def gap_of(place):
    """Mean size of a free chunk of a place, bytes, a multiple of 16 as chunks are; 0: it has none to speak of.

    Source: fleetsim's own representation.
    """
    if place["gaps"] <= 0:
        return 0
    mean = max(0, place["size"] - place["live"] - place["waste"]) // place["gaps"]
    return (mean + ALIGNMENT // 2) // ALIGNMENT * ALIGNMENT
