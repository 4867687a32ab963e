# SPDX-License-Identifier: Apache-2.0
"""`validate_*`: functions that distrust a host's tables. Every page is in one place; every sum agrees with its parts.

Plain Python over a record (slow on purpose, obvious on purpose); `violations` says what is wrong in sentences.
`validate_fast` is the compiled part of it that production runs every epoch; it can never be switched off.
Source: kernel-laws §0 (conservation), design §3.1.
"""

from __future__ import annotations

from typing import Any

from fleetsim.law import law
from fleetsim.linux.mm_types import LRU_NONE, NR_COHORTS, NR_GROUPS, NR_LRU_LISTS, NR_TASKS, NR_ZONES, TASK_EXITING, TASK_RUNNING
from fleetsim.linux.per_cpu_pages import nr_pcp


@law
def accounted_pages(row):
    """Σ of every pool of the machine; must be totalram.

    Source: kernel-laws §0; design §3.1.
    """
    total = row["slab_reclaimable"] + row["slab_unreclaimable"] + row["page_tables"] + row["kernel_stack"] + row["percpu"]
    total += row["hugetlb"] + row["unlisted_anon"] + row["unlisted_file"] + row["other_kernel"]
    for z in range(NR_ZONES):
        total += row["zones"][z]["free"]
    total += nr_pcp(row)
    for lru in range(NR_LRU_LISTS):
        total += row["cgroups"][0]["tree"][lru]
    return total


@law
def validate_fast(row):
    """0 if the host is sound, else the number of the first broken rule (RULES names them).

    Source: design §3.1.
    """
    if accounted_pages(row) != row["totalram"]:
        return 1
    if row["swap_free"] < 0 or row["swap_free"] > row["swap_total"]:
        return 2
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        if zone["free"] < 0 or zone["pinned"] < zone["boot_pinned"]:
            return 3
    for cg in range(row["nr_cgroups"]):
        group = row["cgroups"][cg]
        if group["usage"] < 0 or group["swap"] < 0 or group["anon"] < 0 or group["file"] < 0:
            return 4
    return 0


RULES = (
    "sound",
    "the pools of the machine do not add up to MemTotal",
    "SwapFree is outside 0..SwapTotal",
    "a zone has negative free pages or lost pinned ones",
    "a cgroup's usage, swap, anon or file is negative",
)


def violations(row: Any) -> list[str]:
    """Everything that is wrong with a host's tables, in sentences; empty if it is sound."""
    found = []
    if code := validate_fast(row):
        found.append(RULES[code] + f" ({int(accounted_pages(row))} of {int(row['totalram'])} pages)")
    found += list_violations(row)
    found += group_violations(row)
    found += zone_violations(row)
    return found


def list_violations(row: Any) -> list[str]:
    """Each list's links agree in both directions and its pages with its size."""
    found = []
    for cg in range(int(row["nr_cgroups"])):
        lruvec = row["cgroups"][cg]
        for lru in range(NR_LRU_LISTS):
            pages, before, i, steps = 0, -1, int(lruvec["head"][lru]), 0
            while i >= 0 and steps <= NR_COHORTS:
                cohort = row["cohorts"][i]
                if int(cohort["prev"]) != before or int(cohort["list"]) != lru or int(cohort["cg"]) != cg:
                    found.append(f"cohort {i} does not know that it stands on list {lru} of cgroup {cg}")
                pages, before, i, steps = pages + int(cohort["nr"]), i, int(cohort["next"]), steps + 1
            if int(lruvec["tail"][lru]) != before:
                found.append(f"list {lru} of cgroup {cg} ends elsewhere than its tail says")
            if pages != int(lruvec["size"][lru]):
                found.append(f"list {lru} of cgroup {cg} holds {pages} pages, its size says {int(lruvec['size'][lru])}")
    return found


def group_violations(row: Any) -> list[str]:
    """Groups agree with their cohorts, tasks with their groups, swap slots with whoever holds them."""
    found = []
    rss, swapents = [0] * NR_TASKS, [0] * NR_TASKS
    slots = 0
    for g in range(NR_GROUPS):
        group = row["groups"][g]
        if not group["used"]:
            continue
        rows = row["cohorts"][int(group["first"]) : int(group["first"]) + int(group["cohorts"])]
        sums = {name: int(rows[name].sum(dtype="i8")) for name in ("nr", "swapped", "evicted", "wb")}
        for name, field in (("nr", "resident"), ("swapped", "swapped"), ("evicted", "evicted")):
            if sums[name] != int(group[field]):
                found.append(f"group {g}: its cohorts hold {sums[name]} pages {field}, it says {int(group[field])}")
        for cohort in rows:
            if cohort["list"] == LRU_NONE and cohort["nr"] > 0:
                found.append(f"group {g}: a cohort with {int(cohort['nr'])} pages stands on no list")
            if cohort["nr"] < 0 or cohort["wb"] < 0 or cohort["wb"] > cohort["nr"] or cohort["swapped"] < 0 or cohort["evicted"] < 0:
                found.append(f"group {g}: impossible counts in {cohort}")
        if int(group["mapped"]) > int(group["resident"]):
            found.append(f"group {g}: more pages mapped than resident")
        if not group["is_file"]:
            rss[int(group["task"])] += sums["nr"] - sums["wb"]
            swapents[int(group["task"])] += sums["swapped"] + sums["wb"]
            slots += sums["swapped"] + sums["wb"]
    if slots != int(row["swap_total"]) - int(row["swap_free"]):
        found.append(f"{slots} swap slots are held, {int(row['swap_total']) - int(row['swap_free'])} are missing from SwapFree")
    for t in range(NR_TASKS):
        task = row["tasks"][t]
        if int(task["state"]) in (TASK_RUNNING, TASK_EXITING):
            if rss[t] + int(task["base_anon"]) != int(task["rss_anon"]):
                found.append(f"task {t}: RssAnon is {int(task['rss_anon'])} pages, its groups hold {rss[t] + int(task['base_anon'])}")
            if swapents[t] != int(task["swapents"]):
                found.append(f"task {t}: VmSwap is {int(task['swapents'])} pages, its groups hold {swapents[t]}")
    return found


def zone_violations(row: Any) -> list[str]:
    """Every zone's managed pages are free, pinned, or on a list."""
    found = []
    rows = row["cohorts"]
    low = [int(rows["low_zone"][:, z].sum(dtype="i8")) for z in range(NR_ZONES - 1)]
    listed = [*low, int(rows["nr"].sum(dtype="i8")) - sum(low)]
    for z in range(NR_ZONES):
        zone = row["zones"][z]
        have = int(zone["free"]) + int(zone["pcp"].sum()) + int(zone["pinned"]) + listed[z]
        if have != int(zone["managed"]):
            found.append(f"zone {z} manages {int(zone['managed'])} pages but {have} are accounted for")
        blocks = sum(int(n) << order for lists in zone["free_area"].tolist() for order, n in enumerate(lists))
        if not blocks == int(zone["listed"]) == int(zone["free"]) or zone["free_area"].min() < 0 or zone["pcp"].min() < 0:
            found.append(f"zone {z} has {int(zone['free'])} pages free, {blocks} of them in free blocks: {zone['free_area'].tolist()}")
        loose = sum(int(r["pages"] - r["used"]) for r in row["regions"] if r["pages"] and r["zone"] == z)
        if loose != int(zone["loose"]):
            found.append(f"zone {z} says that {int(zone['loose'])} pages are free in its regions, they say {loose}")
    return found
