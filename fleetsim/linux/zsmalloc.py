# SPDX-License-Identifier: Apache-2.0
"""zsmalloc and zbud: how much memory compressed pages take, and taking it (mm/zsmalloc.c, mm/zbud.c).

zsmalloc packs objects of one size class into zspages of one to four pages; zbud puts at most two into a page. What a pool has is
counted in 2^20ths of a page for each object, rounded up to whole pages for the pool. Its pages stand on no list and in no line of
meminfo but their absence (zswap has a line of its own).
Leaves out: zspages that random frees leave half empty, and their compaction; objects of unlike size in one page of zbud.
Source: mm/zsmalloc.c, mm/zbud.c (Linux 6.1); kernel-laws §12.3, §12.4.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.free_area import take_for_kernel
from fleetsim.linux.mm_types import NR_ZONES, VM
from fleetsim.linux.nodes import zonelist
from fleetsim.linux.per_cpu_pages import rmqueue_pcplist
from fleetsim.linux.zonelist import unpin

PAGE = 4096
PAGE_Q = 1 << 20
ZS_HANDLE_SIZE = 8
ZS_MIN_ALLOC_SIZE, ZS_SIZE_CLASS_DELTA, ZS_MAX_PAGES_PER_ZSPAGE = 32, 16, 4
ZBUD_CHUNK, ZBUD_CHUNKS = 64, 63  # of a page, less its header
PGALLOC = VM["pgalloc_dma"]


@law
def lzo_size(noise: int) -> int:
    """Bytes that lzo-rle makes of a page of which `noise` bytes are random and the rest is alike.

        noise + noise · 15 / 1024 + 15, at most what does not fit a page

    noise    int64  1..4096
    returns  int64  bytes

    Source: measured on the recordings' kernel (zram's compr_data_size: 1,537 bytes for 1,500, 2,653 for 2,600).
    """
    return noise + noise * 15 // 1024 + 15


@law
def zs_size_class(size: int) -> int:
    """The size class that an object of `size` bytes is put in, its handle included.

    returns  int64  bytes, 32, 48, .. 4096

    Source: mm/zsmalloc.c get_size_class_index, zs_malloc.
    """
    wanted = max(size + ZS_HANDLE_SIZE, ZS_MIN_ALLOC_SIZE)
    steps = (wanted - ZS_MIN_ALLOC_SIZE + ZS_SIZE_CLASS_DELTA - 1) // ZS_SIZE_CLASS_DELTA
    return min(PAGE, ZS_MIN_ALLOC_SIZE + steps * ZS_SIZE_CLASS_DELTA)


@law
def pages_per_zspage(size_class: int) -> int:
    """How many pages a zspage of this class has: of one to four the number that wastes least, in whole percent; the smallest of equals.

    Source: mm/zsmalloc.c get_pages_per_zspage.
    """
    best, most = 1, 0
    for pages in range(1, ZS_MAX_PAGES_PER_ZSPAGE + 1):
        whole = pages * PAGE
        used = (whole - whole % size_class) * 100 // whole
        if used > most:
            best, most = pages, used
    return best


@law
def zs_pages_q(size: int) -> int:
    """Memory that an object of `size` bytes takes in zsmalloc, 2^20ths of a page.

    Source: mm/zsmalloc.c alloc_zspage.
    """
    size_class = zs_size_class(size)
    pages = pages_per_zspage(size_class)
    return pages * PAGE_Q // (pages * PAGE // size_class)


@law
def zbud_pages_q(size: int) -> int:
    """Memory that an object of `size` bytes takes in zbud, 2^20ths of a page: half of one if two of them fit, 0 if none does.

    Source: mm/zbud.c zbud_alloc, num_free_chunks.
    """
    chunks = (size + ZBUD_CHUNK - 1) // ZBUD_CHUNK
    if size > PAGE - 2 * ZBUD_CHUNK:
        return 0
    return PAGE_Q // 2 if 2 * chunks <= ZBUD_CHUNKS else PAGE_Q


@law
def alloc_zspages(row, pages):
    """Take up to `pages` pages, down to the last one: who compresses pages to free memory is allowed to.

    returns  int64  pages taken

    Source: mm/page_alloc.c gfp_to_alloc_flags (PF_MEMALLOC: ALLOC_NO_WATERMARKS).
    """
    taken = 0
    for place in range(NR_ZONES):
        z = zonelist(row["preferred_node"], place)
        zone = row["zones"][z]
        k = 0
        if zone["managed"] > 0 and taken < pages:
            k = rmqueue_pcplist(zone, pages - taken, zone["free"])
            row["vm"][PGALLOC + zone["kind"]] += k
            taken += k
            zone["pinned"] += k
        row["got"][z] = k
    take_for_kernel(row)
    return taken


@law
def pool_fit(row, pool, per_q, objects, limit):
    """Make room in a pool for as many of `objects` objects as it may hold.

    pool     record  its `used_q` and `pages`
    per_q    int64   2^20ths of a page for each
    limit    int64   pages the pool may have
    returns  int64   objects that fit; they are booked

    Source: mm/zsmalloc.c zs_malloc.
    """
    most = max(0, (limit * PAGE_Q - pool["used_q"]) // per_q)
    fit = min(objects, most)
    need = max(0, (pool["used_q"] + fit * per_q + PAGE_Q - 1) // PAGE_Q - pool["pages"])
    if need > 0:
        got = alloc_zspages(row, need)
        pool["pages"] += got
        if got < need:
            fit = min(fit, max(0, (pool["pages"] * PAGE_Q - pool["used_q"]) // per_q))
    pool["used_q"] += fit * per_q
    return fit


@law
def pool_free(row, pool, per_q, objects):
    """`objects` objects leave a pool; pages without any go back.

    Source: mm/zsmalloc.c zs_free, free_zspage.
    """
    pool["used_q"] -= objects * per_q
    spare = pool["pages"] - (pool["used_q"] + PAGE_Q - 1) // PAGE_Q
    if spare > 0:
        pool["pages"] -= spare
        unpin(row, spare)
