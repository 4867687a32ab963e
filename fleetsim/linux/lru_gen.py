# SPDX-License-Identifier: Apache-2.0
"""MGLRU: the generations of an lruvec and where a page joins them (include/linux/mm_inline.h lru_gen_*, Documentation/mm/multigen_lru.rst).

Chosen by /sys/kernel/mm/lru_gen/enabled. Generations are numbered: `max_seq` is the youngest, `min_seq[type]` the oldest, two to
four of them exist per type. Aging (lru_gen_age.py) opens a new youngest one, eviction (lru_gen_evict.py) empties the oldest one.

    max_seq, max_seq − 1         stand on the active list, the younger ones towards its head: they are `Active` in meminfo
    max_seq − 2, max_seq − 3     stand on the inactive list in the same way

So both lists stay in order of age, and every law that only asks "active or not" asks the same as before.
A page that was accessed through file descriptors counts its accesses (`refs`: up to 5); how many say in which *tier* it is, and
tiers above the first may be protected by eviction (lru_gen_pid.py). WORKINGSET on a cohort means: refaulted, all counts set.
Leaves out: accesses of shared memory through file descriptors (its pages have no tiers).
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import LRU_ACTIVE_ANON, LRU_INACTIVE_FILE, RECLAIM, WORKINGSET

LRU_GEN_CORE, LRU_GEN_MM_WALK, LRU_GEN_NONLEAF_YOUNG = 1, 2, 4  # bits of lru_gen/enabled
LRU_GEN_ANON, LRU_GEN_FILE = 0, 1
MIN_NR_GENS, MAX_NR_GENS = 2, 4
MAX_NR_TIERS = 4
LRU_REFS_MAX = 4  # BIT(LRU_REFS_WIDTH): accesses beyond the first that are counted
MIN_LRU_BATCH, MAX_LRU_BATCH = 64, 4096
JIFFY_NS = 4_000_000


@law
def lru_gen_init_lruvec(row, cg):
    """The generations of a new lruvec: four empty ones.

    Source: mm/vmscan.c lru_gen_init_lruvec.
    """
    lruvec = row["cgroups"][cg]
    lruvec["max_seq"] = MIN_NR_GENS + 1
    for kind in range(2):
        lruvec["min_seq"][kind] = 0
    for gen in range(MAX_NR_GENS):
        lruvec["timestamps"][gen] = row["now_ns"] // JIFFY_NS


@law
def lru_gen_enabled(row):
    """True if pages stand in generations.

    Source: include/linux/mmzone.h lru_gen_enabled.
    """
    return row["lru_gen"] & LRU_GEN_CORE > 0


@law
def lru_gen_seq(lruvec, cohort):
    """The generation a cohort on an evictable list stands in.

    Source: include/linux/mm_inline.h folio_lru_gen, turned back into a sequence number.
    """
    return lruvec["max_seq"] - ((lruvec["max_seq"] - cohort["gen"]) & (MAX_NR_GENS - 1))


@law
def get_nr_gens(lruvec, kind):
    """How many generations a type has.

    Source: mm/vmscan.c get_nr_gens.
    """
    return lruvec["max_seq"] - lruvec["min_seq"][kind] + 1


@law
def folio_lru_refs(cohort):
    """Accesses through file descriptors beyond the first, 0 .. LRU_REFS_MAX.

    Source: include/linux/mm_inline.h folio_lru_refs.
    """
    if cohort["flags"] & WORKINGSET:
        return LRU_REFS_MAX
    return max(0, cohort["refs"] - 1)


@law
def lru_tier_from_refs(refs):
    """Tier of a page with that many accesses beyond the first: log2(refs + 1), rounded up.

    Source: include/linux/mm_inline.h lru_tier_from_refs.
    """
    if refs == 0:
        return 0
    if refs == 1:
        return 1
    return 2 if refs < LRU_REFS_MAX else 3


@law
def folio_inc_refs(cohort):
    """The pages of a cohort were read or written through a file descriptor once more.

    Source: mm/swap.c folio_inc_refs (folio_mark_accessed).
    """
    if cohort["refs"] <= LRU_REFS_MAX:
        cohort["refs"] += 1


@law
def clear_refs(cohort):
    """The pages change their generation: what was counted of them is forgotten.

    Source: mm/vmscan.c folio_inc_gen, folio_update_gen (LRU_REFS_MASK | LRU_REFS_FLAGS).
    """
    cohort["refs"] = 0
    cohort["flags"] &= ~WORKINGSET


@law
def lru_gen_add_seq(row, cg, lru, rejected):
    """The generation that pages join which come to an lruvec.

        freshly faulted in, or active                       the youngest
        anonymous, or dirty and met by reclaim (rejected)   the second youngest
        else                                                the second oldest of four, the oldest of fewer

    lru  int64  list the classic LRU would take

    Source: include/linux/mm_inline.h lru_gen_add_folio (6.1.69 and later); mm/swap.c folio_add_lru.
    """
    lruvec = row["cgroups"][cg]
    if lru & 1 or row["in_lru_fault"] > 0:
        return lruvec["max_seq"]
    if lru < LRU_INACTIVE_FILE or rejected > 0:
        return lruvec["max_seq"] - 1
    oldest = lruvec["min_seq"][LRU_GEN_FILE]
    return oldest if oldest + MIN_NR_GENS >= lruvec["max_seq"] else oldest + 1


@law
def lru_gen_list(lruvec, kind, seq):
    """The list on which a generation of a type stands.

    Source: include/linux/mm_inline.h lru_gen_is_active.
    """
    return 2 * kind + (1 if seq >= lruvec["max_seq"] - 1 else 0)


@law
def younger_neighbour(row, cg, lru, seq, at_tail):
    """The cohort behind which one is to be put to join generation `seq` of a list at its head, or at its tail; −1: the list's head.

    Source: fleetsim's own representation: two generations share a list, in order.
    """
    cohorts, lruvec = row["cohorts"], row["cgroups"][cg]
    if at_tail:
        i = lruvec["tail"][lru]
        while i >= 0 and lru_gen_seq(lruvec, cohorts[i]) < seq:
            i = cohorts[i]["prev"]
        return i
    if seq == lruvec["max_seq"] or seq == lruvec["max_seq"] - MIN_NR_GENS:
        return -1
    i, above = lruvec["head"][lru], -1
    while i >= 0 and lru_gen_seq(lruvec, cohorts[i]) > seq:
        above = i
        i = cohorts[i]["next"]
    return above


@law
def rejected_by_reclaim(cohort):
    """True for pages that reclaim met dirty or under writeback.

    Source: include/linux/mm_inline.h lru_gen_add_folio (folio_test_reclaim).
    """
    return cohort["flags"] & RECLAIM > 0 and cohort["dirty"] + cohort["wb"] > 0


@law
def set_all_gens(row, cg, lru, gen):
    """Every cohort of a list is of one generation now, whatever it was.

    Source: fleetsim's own representation.
    """
    i = row["cgroups"][cg]["head"][lru]
    while i >= 0:
        row["cohorts"][i]["gen"] = gen
        clear_refs(row["cohorts"][i])
        i = row["cohorts"][i]["next"]


assert LRU_ACTIVE_ANON == 2 * LRU_GEN_ANON + 1 and LRU_INACTIVE_FILE == 2 * LRU_GEN_FILE
assert MAX_NR_GENS & (MAX_NR_GENS - 1) == 0
