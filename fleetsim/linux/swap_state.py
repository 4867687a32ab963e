# SPDX-License-Identifier: Apache-2.0
"""The swap cache: pages that are in memory and have a slot in swap as well (mm/swap_state.c, parts of mm/swapfile.c).

A cohort's `nr` pages are of four kinds:

    wb      unmapped: being written out, or written and waiting to be freed        slot held, counted in VmSwap
    clean   mapped, on an anonymous list: came back by a read fault                slot held by the cache alone
    clean   mapped, on a file list: MADV_FREE'd and not written since              no slot
    the rest                                                                       no slot

Clean pages are dropped without IO. A write makes them ordinary again; so does swap that is more than half full, when the
page comes in or is activated. `row["swap_clean"]` and `row["lazy"]` are the host's sums, so that a quiet host skips all this.
Leaves out: pages read ahead that nobody ever asks for (a sweep asks for all, random access reads none ahead in the long run).
"""

from __future__ import annotations

from fleetsim.hardware.cpu import RECLAIM
from fleetsim.law import law
from fleetsim.linux.memcontrol import add_anon, charge, count
from fleetsim.linux.mm_inline import account, is_file_lru, list_del
from fleetsim.linux.mm_types import (
    ACCESSED,
    CG,
    NR_WRITEBACK,
    REFERENCED,
    SETTLED,
    VM,
)
from fleetsim.linux.rmap import to_swap, unmap_anon
from fleetsim.linux.swapfile import release_slots
from fleetsim.linux.workingset_clock import workingset_eviction
from fleetsim.linux.zonelist import give_back

PGLAZYFREED, CG_LAZYFREED = VM["pglazyfreed"], CG["pglazyfreed"]


@law
def vm_swap_full(row):
    """True if more than half of all swap is in use: slots are not kept for pages that are in memory then.

    Source: include/linux/swap.h vm_swap_full; kernel-laws §12.1.
    """
    return row["swap_free"] * 2 < row["swap_total"]


@law
def mem_cgroup_swap_full(row, cg):
    """True if swap is half full for the host, or for `cg` or an ancestor by its memory.swap.max or memory.swap.high.

    Source: mm/memcontrol.c mem_cgroup_swap_full; kernel-laws §8.6.
    """
    if vm_swap_full(row):
        return True
    while cg > 0:
        group = row["cgroups"][cg]
        if group["swap"] * 2 >= min(group["swap_max"], group["swap_high"]):
            return True
        cg = group["parent"]
    return False


@law
def add_swap_cache(row, cg, pages):
    """Pages join (or, negative, leave) the swap cache (SwapCached, memory.stat `swapcached`), with all ancestors.

    Source: mm/swap_state.c add_to_swap_cache, __delete_from_swap_cache (NR_SWAPCACHE).
    """
    row["swap_cache"] += pages
    while cg >= 0:
        row["cgroups"][cg]["swapcached"] += pages
        cg = row["cgroups"][cg]["parent"]


@law
def is_lazy(cohort):
    """True if the cohort's clean pages are MADV_FREE'd ones: anonymous pages on a file list.

    Source: mm/swap.c lru_lazyfree_fn (swapbacked is cleared, so that the page counts as file).
    """
    return is_file_lru(cohort["list"])


@law
def keep_slots(row, i, pages):
    """`pages` pages of cohort `i` were mapped by a read fault and are in the swap cache: they stay there, clean.

    Source: mm/memory.c do_swap_page (should_try_to_free_swap said no).
    """
    row["cohorts"][i]["clean"] += pages
    row["swap_clean"] += pages


@law
def take_clean(row, i, pages):
    """`pages` clean pages of cohort `i` become ordinary ones: their slots are given back, or their MADV_FREE is off.

    Source: mm/swapfile.c folio_free_swap; mm/rmap.c try_to_unmap_one (a dirty lazyfree page is swapbacked again).
    """
    cohort = row["cohorts"][i]
    cohort["clean"] -= pages
    if is_lazy(cohort):
        row["lazy"] -= pages
    else:
        row["swap_clean"] -= pages
        add_swap_cache(row, cohort["cg"], -pages)
        release_slots(row, cohort["group"], cohort["cg"], pages, 1)


@law
def free_clean_slots(row, wanted):
    """Swap is short: give up slots that only the swap cache holds, until `wanted` are free or none is left.

    Source: mm/swapfile.c scan_swap_map_slots → __try_to_reclaim_swap (only when swap is more than half full).
    """
    if row["swap_clean"] == 0 or row["swap_free"] >= wanted or not vm_swap_full(row):
        return
    for i in range(len(row["cohorts"])):
        cohort = row["cohorts"][i]
        if cohort["clean"] > 0 and not is_lazy(cohort):
            take_clean(row, i, min(cohort["clean"], wanted - row["swap_free"]))
            if row["swap_free"] >= wanted:
                return


@law
def unmapped_to_swap(row, target, i, pages):
    """`pages` pages of cohort `i` leave memory; their content is in swap. Mapped ones were unmapped by the caller.

    target  int64  cgroup whose reclaim evicts

    Source: mm/vmscan.c __remove_mapping (swap-cache page), mm/workingset.c workingset_eviction.
    """
    cohort = row["cohorts"][i]
    group = row["groups"][cohort["group"]]
    give_back(row, cohort, pages)
    cohort["nr"] -= pages
    cohort["swapped"] += pages
    account(row, cohort["cg"], cohort["list"], -pages)
    group["resident"] -= pages
    group["swapped"] += pages
    add_swap_cache(row, cohort["cg"], -pages)
    charge(row, cohort["cg"], -pages)
    workingset_eviction(row, cohort, target, pages)
    if cohort["nr"] == 0:
        list_del(row, i)
        cohort["flags"] &= ~ACCESSED


@law
def free_cached(row, target, i, pages):
    """Free `pages` unmapped pages of cohort `i` that are written.

    Source: mm/vmscan.c shrink_folio_list (clean swap-cache page); kernel-laws §3.7.
    """
    row["cohorts"][i]["wb"] -= pages
    unmapped_to_swap(row, target, i, pages)


@law
def drop_clean(row, sc, i, pages):
    """Reclaim `pages` clean mapped pages of cohort `i`: no IO. What has a copy in swap goes back there, what is MADV_FREE'd is lost.

    Source: mm/vmscan.c shrink_folio_list; kernel-laws §3.7 (pglazyfreed).
    """
    cohort = row["cohorts"][i]
    g = cohort["group"]
    group = row["groups"][g]
    cg = cohort["cg"]
    add_anon(row, cg, -pages)
    sc["spent_ns"] += pages * row["cost"][RECLAIM]
    if not is_lazy(cohort):
        to_swap(row, g, pages)
        cohort["clean"] -= pages
        row["swap_clean"] -= pages
        unmapped_to_swap(row, sc["target"], i, pages)
        return
    unmap_anon(row, g, pages)
    cohort["clean"] -= pages
    row["lazy"] -= pages
    give_back(row, cohort, pages)
    cohort["nr"] -= pages
    account(row, cg, cohort["list"], -pages)
    group["resident"] -= pages
    charge(row, cg, -pages)
    row["vm"][PGLAZYFREED] += pages
    count(row, cg, CG_LAZYFREED, pages)
    if cohort["nr"] == 0:
        list_del(row, i)
        cohort["flags"] &= ~(ACCESSED | REFERENCED)


@law
def untracked(row, i):
    """Pages of cohort `i` in the swap cache, unmapped, whose write is not under way: written, or not to be written.

    Source: fleetsim's own table.
    """
    left = row["cohorts"][i]["wb"]
    for k in range(row["wb_count"]):
        entry = row["writeback"][(row["wb_head"] + k) % NR_WRITEBACK]
        if entry["cohort"] == i:
            left -= entry["pages"]
    return left


@law
def settled(row, i):
    """Pages of cohort `i` that are written, unmapped, and stand where the cohort stands: not tracked, freed when a scan meets them.

    Source: mm/swap.c folio_rotate_reclaimable (only a page that is on a list when its write ends is moved to the tail).
    """
    cohort = row["cohorts"][i]
    if not cohort["flags"] & SETTLED:
        return 0
    left = untracked(row, i)
    if left <= 0:
        cohort["flags"] &= ~SETTLED
    return max(0, left)


@law
def drop_settled(row, sc, i, budget):
    """Free up to `budget` settled pages of cohort `i`.

    returns  int64  pages freed

    Source: mm/vmscan.c shrink_folio_list (clean swap-cache page).
    """
    n = min(budget, settled(row, i))
    if n > 0:
        free_cached(row, sc["target"], i, n)
        sc["spent_ns"] += n * row["cost"][RECLAIM]
    return n
