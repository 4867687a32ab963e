# SPDX-License-Identifier: Apache-2.0
"""zswap: a compressed cache in front of the swap areas (mm/zswap.c).

A page keeps its slot, but is not written: it is compressed into a pool that may have `max_pool_percent` of RAM. Once the pool was full
nothing is accepted until it is below `accept_threshold_percent` of that. Each refusal at the limit has the oldest page of a zbud pool
written to its slot; 6.1 does this once a refusal, and those below the limit ask for none, so that a full pool stays full of old pages.
The memory is charged to the cgroup of the page.
Leaves out: which of the stored pages is oldest (of each group a share is written back); loads free nothing, as in 6.1.
Source: mm/zswap.c, mm/zbud.c, mm/memcontrol.c obj_cgroup_charge_zswap (Linux 6.1); kernel-laws §12.3.
"""

from __future__ import annotations

from fleetsim.hardware.disk import WRITE, submit
from fleetsim.law import law
from fleetsim.linux.memcontrol import add_kernel, in_subtree
from fleetsim.linux.mm_types import NR_GROUPS, VM
from fleetsim.linux.swap_types import NR_SWAPFILES
from fleetsim.linux.zsmalloc import PAGE, PAGE_Q, lzo_size, pool_fit, pool_free, zbud_pages_q, zs_pages_q

ZBUD, ZSMALLOC = 0, 1
POOLS = ("zbud", "zsmalloc")
ZSWAP_HEADER = 8  # bytes before an object of a pool that can be written back
PSWPOUT, PGPGOUT, NR_WRITTEN = VM["pswpout"], VM["pgpgout"], VM["nr_written"]


@law
def zswap_max_pages(row):
    """Pages that the pool may have.

    Source: mm/zswap.c zswap_is_full.
    """
    return row["totalram"] * row["zswap"]["max_pool_percent"] // 100


@law
def zswap_can_accept(row):
    """True if the pool, once full, has shrunk enough to be used again.

    Source: mm/zswap.c zswap_can_accept.
    """
    zswap = row["zswap"]
    return row["totalram"] * zswap["accept_threshold_percent"] // 100 * zswap["max_pool_percent"] // 100 > zswap["pages"]


@law
def zswap_object(row, noise: int):
    """Memory that a page with `noise` bytes that do not compress takes in the pool, 2^20ths of a page; 0: it is refused.

    Source: mm/zswap.c zswap_frontswap_store.
    """
    size = lzo_size(noise)
    if size > PAGE:
        return 0
    return zbud_pages_q(size + ZSWAP_HEADER) if row["zswap"]["pool"] == ZBUD else zs_pages_q(size)


@law
def stored_noise(row, g):
    """Bytes of each of a group's pages that do not compress, as the pool takes them; 0: it only notes the word they are full of.

    Source: mm/zswap.c zswap_is_page_same_filled (same_filled_pages_enabled).
    """
    noise = int(row["groups"][g]["noise"])
    return noise if noise > 0 or row["zswap"]["same_filled"] > 0 else 1


@law
def stored_bytes(row, g):
    """Compressed bytes that zswap holds of group `g`.

    Source: mm/zswap.c (entry->length).
    """
    group = row["groups"][g]
    noise = stored_noise(row, g)
    return int(group["stored"]) * lzo_size(noise) if noise > 0 else 0


@law
def zswap_current(row, cg):
    """memory.zswap.current: compressed bytes of `cg` and its descendants (for 0 of all).

    Source: mm/memcontrol.c zswap_current_read.
    """
    total = 0
    for g in range(NR_GROUPS):
        group = row["groups"][g]
        if group["used"] > 0 and group["stored"] > 0 and in_subtree(row, group["zswap_cg"], cg):
            total += stored_bytes(row, g)
    return total


@law
def zswap_room(row, cg):
    """True if no memory.zswap.max of `cg` or an ancestor is reached.

    Source: mm/memcontrol.c obj_cgroup_may_zswap.
    """
    while cg > 0:
        most = row["cgroups"][cg]["zswap_max"]
        if most == 0 or (most > 0 and zswap_current(row, cg) >= int(most) * PAGE):
            return False
        cg = row["cgroups"][cg]["parent"]
    return True


@law
def count_stored(row, g, pages):
    """`pages` more (or fewer) pages of group `g` are in the pool; what they take is charged to their cgroup.

    Source: mm/memcontrol.c obj_cgroup_charge_zswap, obj_cgroup_uncharge_zswap (by the byte; here whole pages of a group's bytes).
    """
    zswap, group = row["zswap"], row["groups"][g]
    before = (stored_bytes(row, g) + PAGE - 1) // PAGE
    group["stored"] += pages
    zswap["stored"] += pages
    if group["noise"] == 0 and zswap["same_filled"] > 0:
        zswap["same"] += pages
    after = (stored_bytes(row, g) + PAGE - 1) // PAGE
    if after != before:
        add_kernel(row, group["zswap_cg"], after - before)


@law
def zswap_frontswap_store(row, g, cg, pages):
    """Offer `pages` pages of group `g`, charged to `cg`, to the pool.

    returns  int64  pages it took; the others go to the disk

    Source: mm/zswap.c zswap_frontswap_store.
    """
    zswap, group = row["zswap"], row["groups"][g]
    if zswap["enabled"] == 0 or not zswap_room(row, cg):
        return 0
    if group["stored"] == 0:
        group["zswap_cg"] = cg
    noise = int(group["noise"])
    refused = pages
    if zswap["full"] > 0 and zswap["pages"] <= zswap_max_pages(row) and not zswap_can_accept(row):
        return 0
    if zswap["pages"] <= zswap_max_pages(row):
        zswap["full"] = 0
        if noise == 0 and zswap["same_filled"] > 0:
            count_stored(row, g, pages)
            zswap["zswpout"] += pages
            return pages
        per_q = zswap_object(row, max(1, noise))
        if per_q == 0:
            zswap["reject_compress_poor"] += pages
            return 0
        done = pool_fit(row, zswap, per_q, pages, zswap_max_pages(row) + 1)
        count_stored(row, g, done)
        zswap["zswpout"] += done
        refused = pages - done
        if refused == 0:
            return pages
        if zswap["pages"] <= zswap_max_pages(row):
            zswap["reject_alloc_fail"] += refused
            return done
    zswap["pool_limit_hit"] += 1
    zswap["full"] = 1
    shrink_worker(row)
    return pages - refused


@law
def shrink_worker(row):
    """Write the pages of one page of the pool to their slots.

    Source: mm/zswap.c shrink_worker, zswap_writeback_entry; mm/zbud.c zbud_reclaim_page. zsmalloc cannot be written back in 6.1.
    """
    zswap = row["zswap"]
    if zswap["pool"] != ZBUD or zswap["stored"] == 0:
        zswap["reject_reclaim_fail"] += 1
        return
    row["swap_turn"] += 1
    at = row["swap_turn"] % zswap["stored"]
    for g in range(NR_GROUPS):
        group = row["groups"][g]
        if group["used"] == 0 or group["stored"] == 0:
            continue
        at -= group["stored"]
        if at < 0 and stored_noise(row, g) > 0:
            per_q = zswap_object(row, stored_noise(row, g))
            pages = min(int(group["stored"]), PAGE_Q // per_q)
            write_back(row, g, per_q, pages)
            return
    zswap["reject_reclaim_fail"] += 1


@law
def write_back(row, g, per_q, pages):
    """`pages` pages of group `g` leave the pool for their slots, in the area in which it has most.

    Source: mm/zswap.c zswap_writeback_entry.
    """
    area = 0
    for a in range(1, NR_SWAPFILES):
        if row["groups"][g]["slots"][a] > row["groups"][g]["slots"][area]:
            area = a
    submit(row["disk"][row["swap_info"][area]["disk"]], row["now_ns"], pages, WRITE)
    count_stored(row, g, -pages)
    pool_free(row, row["zswap"], per_q, pages)
    row["zswap"]["written_back"] += pages
    row["vm"][PSWPOUT] += pages
    row["vm"][NR_WRITTEN] += pages
    row["vm"][PGPGOUT] += 4 * pages


@law
def zswap_invalidate(row, g, pages):
    """The slots of `pages` stored pages of group `g` are given back.

    Source: mm/zswap.c zswap_frontswap_invalidate_page.
    """
    if pages == 0:
        return
    group = row["groups"][g]
    count_stored(row, g, -pages)
    if group["noise"] > 0 or row["zswap"]["same_filled"] == 0:
        pool_free(row, row["zswap"], zswap_object(row, max(1, int(group["noise"]))), pages)


@law
def zswap_move(row, source, target, pages):
    """`pages` stored pages of one group become another's of the same content.

    Source: fleetsim's own representation.
    """
    if pages > 0:
        if row["groups"][target]["stored"] == 0:
            row["groups"][target]["zswap_cg"] = row["groups"][source]["zswap_cg"]
        count_stored(row, source, -pages)
        count_stored(row, target, pages)
