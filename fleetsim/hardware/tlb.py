# SPDX-License-Identifier: Apache-2.0
"""An exact simulator of a CPU's TLBs over a trace of virtual addresses.

    access → L1 TLB (data or code, by page size) → L2 TLB → page walk, which begins below the deepest paging-structure cache that knows
             the region, and fills everything on its way back

Rules: each look-up that misses fills; the second level sees only what missed in the first. Tasks are told apart by tags as Linux
does it: six per CPU, reused in turn after a flush (arch/x86/mm/tlb.c); without PCID each switch empties everything. invlpg takes
one page of the current address space and all paging-structure caches of it (Intel SDM 3A §4.10.4.1). In a virtual machine
each entry of the guest's tables lies at a guest-physical address that must be translated by the host's tables first: up
to 4 × (4 + 1) + 4 = 24 loads.

Leaves out: speculative and prefetched walks, several walkers at once (walks are not overlapped with other work), global pages of
the kernel, data caches (a load by the walker costs the same wherever it hits), accessed and dirty bits being set, the cycles of a
switch itself. Guest-physical memory is laid out in the order of virtual addresses, tables above it.
Source: Intel SDM volume 3A §4.10 (caching translation information); kernel-laws §11.2; arch/x86/mm/tlb.c (Linux 6.1).
"""

from __future__ import annotations

from fleetsim.hardware.tlb_cache import ADDRESS_MASK, KEY_BITS, TAG_BITS, drop, drop_tag, key_of, look_up
from fleetsim.hardware.tlb_index import drop_indexed, drop_tag_indexed, look_up_indexed
from fleetsim.hardware.tlb_types import (
    ACCESSES,
    CODE,
    DATA,
    DROPPED,
    DYN_ASIDS,
    FETCH,
    FIRST,
    FLUSH,
    FLUSH_CEILING,
    FLUSHES,
    INVLPG,
    L1,
    L1_HITS,
    L2,
    L2_HITS,
    LOADS,
    MOST_LOADS,
    NESTED,
    NESTED_LOADS,
    NESTED_PDE,
    NO_PAGE,
    PDE,
    PDE_HITS,
    SET_MASK,
    SHIFT,
    SHOOTDOWNS,
    STRADDLE,
    STRIDE,
    SWITCH,
    SWITCHES,
    WALKS,
    WAYS,
)
from fleetsim.law import inlined, law

TABLES = 1 << 47  # guest-physical addresses of page tables: above all data, level in bits 48 and 49
TASK_BIT = 50
TABLE_SHIFT = 9  # a table has 512 entries


@inlined
def cached(core, role, address, tag):
    """Look up an address in the part that serves a role; filled if it was absent (there may be no such part: then never there).

    role     int64  row of core["geometry"]
    tag      int64  0..4095
    returns  bool

    Source: see the module.
    """
    part = core["geometry"][role]
    ways = part[WAYS]
    if ways == 0:
        return False
    key = key_of(address, part[SHIFT], tag)
    set_at = key_of(address, part[SHIFT], 0) >> 18 & part[SET_MASK]
    stride = part[STRIDE]
    if stride > ways:
        return look_up_indexed(core["entries"], part[FIRST] + set_at * stride, stride, ways, key)
    return look_up(core["entries"], part[FIRST] + set_at * ways, ways, key)


@law
def drop_of_tag(core, role, tag):
    """Take everything of one address space (−1: of all) out of the part that serves a role.

    role     int64  row of core["geometry"]
    returns  int64  entries dropped

    Source: see the module.
    """
    part = core["geometry"][role]
    sets, ways, stride = part[SET_MASK] + 1, part[WAYS], part[STRIDE]
    if ways == 0:
        return 0
    if stride > ways:
        return drop_tag_indexed(core["entries"], part[FIRST], sets, stride, ways, tag)
    return drop_tag(core["entries"], part[FIRST], sets * ways, ways, tag)


@law
def page_of(core, address):
    """Size of the page that an address lies in: 0 4K, 1 2M, 2 1G. Huge pages are spread over the 2 MiB regions evenly, but not
    in a rhythm that the sets of a cache could share (by nearly the golden section).

    Source: fleetsim's own (a heap of which khugepaged and the fault handler made a part huge).
    """
    share = core["huge_permille"]
    if share > 0 and (address >> 21) % 1000 * 619 % 1000 < share:
        return 1
    return core["page"]


@law
def nested_walk(core, physical):
    """Translate a guest-physical address by the host's tables.

    returns  int64  loads, 0 if the nested TLB knows it

    Source: Bhargava et al. 2008, "Accelerating two-dimensional page walks"; Intel SDM volume 3C §28.3 (EPT).
    """
    size = core["host_page"]
    if cached(core, NESTED + size, physical, 0):
        return 0
    loads = 1
    for role in range(NESTED_PDE + size, NESTED_PDE + 3):
        if cached(core, role, physical, 0):
            return loads
        loads += 1
    return loads


@law
def nested_walks(core, address, page, tables):
    """Translate all guest-physical addresses that a guest's walk needs: of each table it loads from, and of the page.

    page     int64  0 4K, 1 2M, 2 1G: at which level the leaf is
    tables   int64  from how many tables it loads
    returns  int64  loads

    Source: as `nested_walk`.
    """
    owner = (core["task"] & 255) << TASK_BIT
    below = address & (TABLES - 1)
    loads = nested_walk(core, below | owner)
    for level in range(page, page + tables):
        table = below >> 21 + TABLE_SHIFT * level << 12
        loads += nested_walk(core, table | TABLES | (level & 3) << 48 | owner)
    return loads


@law
def walk(core, address, page, stream):
    """Walk the page table for an address: from below the deepest entry that a paging-structure cache knows down to the leaf.

    page     int64  0 4K, 1 2M, 2 1G: at which level the leaf is
    returns  int64  loads

    Source: Intel SDM volume 3A §4.10.3; kernel-laws §11.2.
    """
    counts = core["counts"][stream]
    loads = 1
    known = False
    for role in range(PDE + page, PDE + 3):
        if cached(core, role, address, core["asid"]):
            counts[PDE_HITS + role - PDE] += 1
            known = True
            break
        loads += 1
    if not known:
        loads += core["levels"] - 4
    if core["vm"]:
        nested = nested_walks(core, address, page, loads)
        counts[NESTED_LOADS] += nested
        loads += nested
    counts[WALKS] += 1
    counts[LOADS] += loads
    counts[MOST_LOADS] = max(counts[MOST_LOADS], loads)
    return loads


@law
def beyond_l1(core, address, page, size, stream):
    """Translate an address that the first level does not know: from the second, else by a walk.

    page     int64  size of the page: at which level the leaf is
    size     int64  size that an entry covers

    Source: see the module.
    """
    if cached(core, L2 + CODE * stream + size, address, core["asid"]):
        core["counts"][stream, L2_HITS] += 1
    else:
        walk(core, address, page, stream)


@law
def entry_size(core, page):
    """Size that an entry covers: in a virtual machine the smaller of the guest's and the host's page.

    Source: Intel SDM volume 3C §28.3.
    """
    return min(page, core["host_page"]) if core["vm"] else page


@law
def translate(core, address, stream):
    """Translate one address that is not in the page accessed last.

    Source: see the module.
    """
    core["counts"][stream, ACCESSES] += 1
    page = page_of(core, address)
    size = entry_size(core, page)
    if cached(core, L1 + CODE * stream + size, address, core["asid"]):
        core["counts"][stream, L1_HITS] += 1
    else:
        beyond_l1(core, address, page, size, stream)


@law
def flush(core, tag):
    """Empty all parts of the entries of one address space; −1: of everybody's, the host's included.

    Source: arch/x86/mm/tlb.c native_flush_tlb_local, native_flush_tlb_global.
    """
    core["last"][:] = NO_PAGE
    core["events"][FLUSHES] += 1
    for role in range(NESTED if tag >= 0 else NESTED_PDE + 3):
        core["events"][DROPPED] += drop_of_tag(core, role, tag)


@law
def context_switch(core, task):
    """Load the address space of another task. With PCID its entries may still be there, unless its tag was given away meanwhile.

    Source: arch/x86/mm/tlb.c choose_new_asid, switch_mm_irqs_off.
    """
    if task == core["task"]:
        return
    core["events"][SWITCHES] += 1
    core["last"][:] = NO_PAGE
    core["task"] = task
    if not core["pcid"]:
        flush(core, 0)
        return
    for asid in range(DYN_ASIDS):
        if core["asids"][asid] == task:
            core["asid"] = asid
            return
    if core["next_asid"] >= DYN_ASIDS:
        core["next_asid"] = 0
    core["asid"] = core["next_asid"]
    core["next_asid"] += 1
    if core["asids"][core["asid"]] >= 0:
        flush(core, core["asid"])
    core["asids"][core["asid"]] = task


@law
def invlpg(core, address):
    """Forget the translation of one page of the current address space, and what paging-structure caches hold of that space.

    Source: Intel SDM volume 3A §4.10.4.1; arch/x86/mm/tlb.c flush_tlb_one_user.
    """
    core["last"][:] = NO_PAGE
    page = page_of(core, address)
    size = entry_size(core, page)
    for role in (L1 + size, L1 + CODE + size, L2 + size, L2 + CODE + size):
        part = core["geometry"][role]
        pieces = 1 << max(0, 12 + 9 * size - part[SHIFT])  # of a 1 GiB page that is kept as pieces of 2 MiB, all of them
        start = address >> 12 + 9 * size << 12 + 9 * size
        for i in range(pieces):
            piece = start + (i << part[SHIFT])
            set_at = key_of(piece, part[SHIFT], 0) >> 18 & part[SET_MASK]
            key = key_of(piece, part[SHIFT], core["asid"])
            at = part[FIRST] + set_at * part[STRIDE]
            if part[STRIDE] > part[WAYS]:
                core["events"][DROPPED] += drop_indexed(core["entries"], at, part[STRIDE], part[WAYS], key)
            else:
                core["events"][DROPPED] += drop(core["entries"], at, part[WAYS], key)
    for role in range(PDE, PDE + 3):
        core["events"][DROPPED] += drop_of_tag(core, role, core["asid"])


@law
def shootdown(core, address, pages):
    """Another CPU changed the mapping of some pages and interrupts this one to make it forget them.

    pages  int64  4 KiB pages, ≥ 1; beyond 33 the whole address space is flushed

    Source: arch/x86/mm/tlb.c flush_tlb_mm_range, flush_tlb_func (tlb_single_page_flush_ceiling).
    """
    core["events"][SHOOTDOWNS] += 1
    stride = 1 << 12 + 9 * page_of(core, address)
    count = max(1, ((pages << 12) + stride - 1) // stride)
    if count > FLUSH_CEILING:
        flush(core, core["asid"])
        return
    for i in range(count):
        invlpg(core, address + i * stride)


@law
def event(core, kind, value):
    """What a trace says besides accesses.

    kind   int64  SWITCH (value: the task), INVLPG (value: an address) or FLUSH

    Source: see the module.
    """
    if kind == SWITCH:
        context_switch(core, value)
    elif kind == INVLPG:
        shootdown(core, value, 1)
    elif kind == FLUSH:
        flush(core, core["asid"])


@law
def same_page(core, page, before):
    """True if two 4 KiB pages are parts of one page: then an access across their border is one look-up.

    Source: fleetsim's own.
    """
    within = 9 * page_of(core, page << 12)
    return page >> within == before >> within


@law
def add_hits(core, stream, hits, page):
    """Accesses that hit in the first level and were counted apart; `page` was accessed last.

    Source: fleetsim's own.
    """
    core["counts"][stream, ACCESSES] += hits
    core["counts"][stream, L1_HITS] += hits
    core["last"][stream] = page


@law
def run(core, addresses, kinds):
    """Run a stretch of a trace through a CPU.

    An access to the page accessed last is a hit that changes nothing. Data in pages of one size takes a short way: what does not
    change from access to access is read once (twice as fast, measured).
    addresses  int64[:]  virtual addresses (of an event: its value)
    kinds      int8[:]   LOAD … FLUSH, each maybe with STRADDLE

    Source: see the module.
    """
    last_page, last_fetched = core["last"][DATA], core["last"][1]
    hits = fetch_hits = 0
    size = entry_size(core, core["page"])
    part = core["geometry"][L1 + size]
    first, set_mask, ways, shift, stride = part[FIRST], part[SET_MASK], part[WAYS], part[SHIFT], part[STRIDE]
    entries, one_size = core["entries"], core["huge_permille"] == 0
    tag = shift << TAG_BITS | core["asid"]
    for i in range(len(addresses)):
        address = addresses[i]
        kind = kinds[i]
        page = address >> 12
        if kind < FETCH:
            if page == last_page:
                hits += 1
                continue
            last_page = page
            if one_size:
                number = (address & ADDRESS_MASK) >> shift
                at = first + (number & set_mask) * stride
                key = number << KEY_BITS | tag
                if look_up(entries, at, ways, key) if stride == ways else look_up_indexed(entries, at, stride, ways, key):
                    hits += 1
                else:
                    core["counts"][DATA, ACCESSES] += 1
                    beyond_l1(core, address, core["page"], size, DATA)
            else:
                translate(core, address, DATA)
        elif kind == FETCH or kind == FETCH + STRADDLE:
            if page == last_fetched:
                fetch_hits += 1 if kind == FETCH else 0
            elif kind == FETCH or not same_page(core, page, last_fetched):
                translate(core, address, 1)
            last_fetched = page
        elif kind < STRADDLE:
            event(core, kind, address)
            last_page = last_fetched = NO_PAGE
            tag = shift << TAG_BITS | core["asid"]
        elif page != last_page:
            if not same_page(core, page, last_page):
                translate(core, address, DATA)
            last_page = page
    add_hits(core, DATA, hits, last_page)
    add_hits(core, 1, fetch_hits, last_fetched)
