# SPDX-License-Identifier: Apache-2.0
"""`validate_*`: functions that distrust a host's tables. Every page is in one place; every sum agrees with its parts.

Plain Python over a record (slow on purpose, obvious on purpose); `violations` says what is wrong in sentences.
`validate_fast` is the compiled part of it that production runs every epoch; it can never be switched off.
Source: kernel-laws §0 (conservation), design §3.1.
"""

from __future__ import annotations

from typing import Any

from fleetsim.law import law
from fleetsim.linux.fs_types import NR_FILES, NR_MAPPINGS, NR_MOUNTS, NR_PAGEVECS
from fleetsim.linux.holes import hole_pageblocks_of
from fleetsim.linux.hugetlb import pages_of
from fleetsim.linux.lru_gen import LRU_GEN_ANON, LRU_GEN_FILE, MAX_NR_GENS, MIN_NR_GENS, lru_gen_enabled, lru_gen_seq
from fleetsim.linux.mm_types import (
    ALL_NODES,
    LRU_ACTIVE_FILE,
    LRU_INACTIVE_FILE,
    LRU_NONE,
    LRU_UNEVICTABLE,
    NR_COHORTS,
    NR_GROUPS,
    NR_LRU_LISTS,
    NR_TASKS,
    NR_ZONES,
    TASK_EXITING,
    TASK_RUNNING,
)
from fleetsim.linux.per_cpu_pages import nr_pcp
from fleetsim.linux.slab_caches import CACHES
from fleetsim.linux.slab_types import NR_HSTATES
from fleetsim.linux.swap_check import swap_violations


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
    return total + row["zram"]["pages"] + row["zswap"]["pages"]


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
    huge = 0
    for h in range(NR_HSTATES):
        pool = row["hstates"][h]
        huge += pool["nr"] * pages_of(h)
        if pool["free"] < 0 or pool["free"] > pool["nr"] or pool["resv"] > pool["free"] or pool["surplus"] > pool["nr"]:
            return 6
    if huge != row["hugetlb"]:
        return 6
    for cg in range(row["nr_cgroups"]):
        group = row["cgroups"][cg]
        if group["usage"] < 0 or group["swap"] < 0 or group["anon"] < 0 or group["file"] < 0:
            return 4
    if row["nr_dirty"] != row["cgroups"][0]["file_dirty"] or row["nr_writeback"] != row["cgroups"][0]["file_writeback"]:
        return 5
    if row["nr_dirty"] < 0 or row["nr_writeback"] < 0 or row["nr_dirty"] > row["nr_file_lru"]:
        return 5
    return 0


RULES = (
    "sound",
    "the pools of the machine do not add up to MemTotal",
    "SwapFree is outside 0..SwapTotal",
    "a zone has negative free pages or lost pinned ones",
    "a cgroup's usage, swap, anon or file is negative",
    "dirty or written pages of the host and of the root cgroup disagree, or are more than the cache has",
    "a pool of huge pages does not add up",
)


def violations(row: Any) -> list[str]:
    """Everything that is wrong with a host's tables, in sentences; empty if it is sound."""
    found = []
    if code := validate_fast(row):
        found.append(RULES[code] + f" ({int(accounted_pages(row))} of {int(row['totalram'])} pages)")
    found += mark_violations(row)
    found += list_violations(row)
    found += generation_violations(row)
    found += group_violations(row)
    found += zone_violations(row)
    found += slab_violations(row)
    found += object_violations(row)
    found += dirty_violations(row)
    found += swap_violations(row)
    return found


def mark_violations(row: Any) -> list[str]:
    """What lets laws skip work says the truth: rows of groups in use, and whether any cgroup is protected."""
    found = []
    used = row["groups"]["used"].nonzero()[0]
    if len(used) and int(used[-1]) >= int(row["nr_groups"]):
        found.append(f"group {int(used[-1])} is in use, nr_groups is {int(row['nr_groups'])}")
    protected = sum(int(abs(row["cgroups"][name]).sum()) for name in ("min", "low", "emin", "elow"))
    if protected and not row["protected"]:
        found.append("a cgroup has a memory.min or memory.low, but none is said to be protected")
    owed = row["cgroups"]["owed"][: int(row["nr_cgroups"])]
    if (owed < 0).any() or (owed.any() and not row["tick_ns"]):
        found.append(f"kswapd owes lruvecs {owed.tolist()} pages of scanning")
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


def generation_violations(row: Any) -> list[str]:
    """With MGLRU both lists of a type stand in order of age, the two youngest generations on the active one; without, nobody has one."""
    found = []
    for cg in range(int(row["nr_cgroups"])):
        lruvec = row["cgroups"][cg]
        youngest, nr = int(lruvec["max_seq"]), [int(lruvec["max_seq"] - seq) + 1 for seq in lruvec["min_seq"]]
        if not MIN_NR_GENS <= nr[LRU_GEN_FILE] <= nr[LRU_GEN_ANON] <= MAX_NR_GENS:
            found.append(f"cgroup {cg} has {nr[LRU_GEN_ANON]} generations of anonymous pages and {nr[LRU_GEN_FILE]} of the cache")
        for lru in range(LRU_UNEVICTABLE):
            i, before, steps = int(lruvec["head"][lru]), youngest, 0
            while i >= 0 and steps <= NR_COHORTS:
                seq, gen = int(lru_gen_seq(lruvec, row["cohorts"][i])), int(row["cohorts"][i]["gen"])
                on = bool(lru_gen_enabled(row))
                if on and (seq > before or (seq >= youngest - 1) != (lru & 1 > 0) or seq < int(lruvec["min_seq"][lru // 2])):
                    found.append(f"cohort {i} of generation {seq} stands on list {lru} of cgroup {cg} behind one of {before}")
                if not on and gen != 0:
                    found.append(f"cohort {i} is of generation {gen} without MGLRU")
                before, i, steps = seq, int(row["cohorts"][i]["next"]), steps + 1
    return found


def group_violations(row: Any) -> list[str]:
    """Groups agree with their cohorts, tasks with their groups, swap slots with whoever holds them."""
    found = []
    rss, swapents = mapping_sums(row)
    slots, anon, shmem = 0, int(row["unlisted_anon"]), 0
    clean, lazy, cached = 0, 0, 0
    for g in range(NR_GROUPS):
        group = row["groups"][g]
        if not group["used"]:
            continue
        rows = row["cohorts"][int(group["first"]) : int(group["first"]) + int(group["cohorts"])]
        sums = {name: int(rows[name].sum(dtype="i8")) for name in ("nr", "swapped", "evicted", "wb")}
        for name, field in (("nr", "resident"), ("swapped", "swapped"), ("evicted", "evicted")):
            if sums[name] != int(group[field]):
                found.append(f"group {g}: its cohorts hold {sums[name]} pages {field}, it says {int(group[field])}")
        if int(group["resident"]) > int(group["pages"]):
            found.append(f"group {g}: {int(group['resident'])} of its {int(group['pages'])} pages are resident")
        for cohort in rows:
            if cohort["list"] == LRU_NONE and cohort["nr"] > 0:
                found.append(f"group {g}: a cohort with {int(cohort['nr'])} pages stands on no list")
            if int(cohort["wb"]) + int(cohort["clean"]) > int(cohort["nr"]):
                found.append(f"group {g}: more pages unmapped or clean than resident in {cohort}")
            if cohort["nr"] < 0 or cohort["wb"] < 0 or cohort["clean"] < 0 or cohort["swapped"] < 0 or cohort["evicted"] < 0:
                found.append(f"group {g}: impossible counts in {cohort}")
        if int(group["huge"]) < 0 or int(group["huge"]) * 512 > sums["nr"] - sums["wb"]:
            found.append(f"group {g}: {int(group['huge'])} huge pages among {sums['nr'] - sums['wb']} mapped ones")
        unmapped = 0 if group["is_file"] else sums["wb"]  # a page that goes to swap is unmapped first, one that goes to its file is not
        found += mapping_violations(row, g, sums["nr"] - unmapped, sums["swapped"] + unmapped)
        if not group["is_file"]:
            on_file_list = [int(c["clean"]) for c in rows if int(c["list"]) in (LRU_INACTIVE_FILE, LRU_ACTIVE_FILE)]
            lazy += sum(on_file_list)
            kept = int(rows["clean"].sum(dtype="i8")) - sum(on_file_list)
            clean += kept
            cached += kept + sums["wb"]
            slots += sums["swapped"] + sums["wb"] + kept
            if group["shmem"]:
                shmem += sums["nr"] - sums["wb"]
            else:
                anon += sums["nr"] - sums["wb"]
        if int(group["task"]) >= 0:
            rss["anon"][int(group["task"])] += sums["nr"] - sums["wb"]
            swapents[int(group["task"])] += sums["swapped"] + sums["wb"]
    if int(row["groups"]["huge"][row["groups"]["used"] > 0].sum(dtype="i8")) != int(row["anon_thp"]):
        found.append(f"AnonHugePages counts {int(row['anon_thp'])} huge pages, the groups have others")
    if slots != int(row["swap_total"]) - int(row["swap_free"]):
        found.append(f"{slots} swap slots are held, {int(row['swap_total']) - int(row['swap_free'])} are missing from SwapFree")
    sums_of = {"swap_clean": clean, "lazy": lazy, "swap_cache": cached, "anon_mapped": anon, "shmem": shmem}
    for name, pages in sums_of.items():
        if int(row[name]) != pages:
            found.append(f"{name} is {int(row[name])} pages, the groups have {pages}")
    for t in range(NR_TASKS):
        task = row["tasks"][t]
        if int(task["state"]) in (TASK_RUNNING, TASK_EXITING):
            for kind, base in (("anon", int(task["base_anon"] + task["base_shared"])), ("file", int(task["base_file"])), ("shmem", 0)):
                if rss[kind][t] + base != int(task[f"rss_{kind}"]):
                    held = rss[kind][t] + base
                    found.append(f"task {t}: its resident {kind} pages are {int(task[f'rss_{kind}'])}, its areas hold {held}")
            if swapents[t] != int(task["swapents"]):
                found.append(f"task {t}: VmSwap is {int(task['swapents'])} pages, its groups hold {swapents[t]}")
    return found


def mapping_sums(row: Any) -> tuple[dict[str, list[int]], list[int]]:
    """Per task: resident pages by kind, and swap entries, of all pages that areas map together with others."""
    rss: dict[str, list[int]] = {kind: [0] * NR_TASKS for kind in ("anon", "file", "shmem")}
    swapents = [0] * NR_TASKS
    for mapping in row["mappings"]:
        if mapping["used"]:
            group = row["groups"][int(mapping["group"])]
            kind = "file" if group["is_file"] else "shmem" if group["shmem"] else "anon"
            t = int(row["areas"][int(mapping["area"])]["task"])
            rss[kind][t] += int(mapping["mapped"])
            swapents[t] += int(mapping["swapped"])
    return rss, swapents


def mapping_violations(row: Any, g: int, present: int, slots: int) -> list[str]:
    """The mappings of one group: nobody maps more than there is, and what all map together is what is mapped at all."""
    found = []
    group = row["groups"][g]
    mapped: list[int] = []
    m = int(group["maps"])
    while m >= 0 and len(mapped) <= NR_MAPPINGS:
        mapping = row["mappings"][m]
        if not mapping["used"] or int(mapping["group"]) != g:
            found.append(f"group {g}: mapping {m} does not know that it maps it")
        if not 0 <= int(mapping["mapped"]) <= present or not 0 <= int(mapping["swapped"]) <= slots:
            found.append(f"group {g}: impossible counts in {mapping} of {present} pages present, {slots} with a slot")
        mapped.append(int(mapping["mapped"]))
        m = int(mapping["next"])
    if mapped and int(group["task"]) >= 0:
        found.append(f"group {g}: is a task's own and has mappings")
    counted = group["is_file"] or group["shmem"]
    if counted and not max(mapped, default=0) <= int(group["mapped"]) <= min(present, sum(mapped)):
        found.append(f"group {g}: {int(group['mapped'])} of {present} pages are mapped, by tasks {mapped}")
    return found


def object_violations(row: Any) -> list[str]:
    """Shared objects: a mount's blocks are its files' pages, and Mapped counts each page once."""
    found = []
    blocks = [0] * NR_MOUNTS
    for f in range(NR_FILES):
        file = row["files"][f]
        if file["used"] and int(file["mount"]) >= 0 and int(file["group"]) >= 0:
            for g in range(int(file["group"]), int(file["group"] + file["groups"])):
                blocks[int(file["mount"])] += int(row["groups"][g]["resident"] + row["groups"][g]["swapped"])
    for number, held in enumerate(blocks):
        if held != int(row["mounts"][number]["blocks"]):
            found.append(f"tmpfs mount {number}: {int(row['mounts'][number]['blocks'])} blocks are in use, its files have {held}")
    used = row["groups"][row["groups"]["used"] > 0]
    mapped = int(row["boot_mapped"]) + int(used["mapped"].sum(dtype="i8"))
    if mapped != int(row["file_mapped"]):
        found.append(f"Mapped is {int(row['file_mapped'])} pages, the groups have {mapped}")
    return found


def dirty_violations(row: Any) -> list[str]:
    """Dirty pages and pages under writeback: cohorts, files, cgroups, the queue and the host agree."""
    found = []
    per_cg = {cg: [0, 0] for cg in range(int(row["nr_cgroups"]))}
    host, buffered = [0, 0], 0
    for f, file in enumerate(row["files"]):
        if int(file["mount"]) >= 0:  # tmpfs is never written back
            continue
        own = [0, 0]
        for g in range(int(file["group"]), int(file["group"]) + int(file["groups"])) if file["group"] >= 0 else ():
            group = row["groups"][g]
            buffered += int(group["buffered"])
            if not 0 <= int(group["buffered"]) <= int(group["resident"]):
                found.append(f"group {g}: {int(group['buffered'])} buffer_heads on {int(group['resident'])} pages")
            for cohort in row["cohorts"][int(group["first"]) : int(group["first"]) + int(group["cohorts"])]:
                dirty, wb = int(cohort["dirty"]), int(cohort["wb"])
                if not (0 <= dirty <= int(cohort["nr"]) and 0 <= wb <= int(cohort["nr"])):
                    found.append(f"group {g}: impossible dirty counts in {cohort}")
                own[0], own[1] = own[0] + dirty, own[1] + wb
                at = int(cohort["cg"])
                while at >= 0 and dirty + wb > 0:
                    per_cg[at][0] += dirty
                    per_cg[at][1] += wb
                    at = int(row["cgroups"][at]["parent"])
        if own != [int(file["dirty"]), int(file["writeback"])]:
            found.append(f"file {f}: its cohorts hold {own} pages dirty and under writeback, it says {file}")
        host = [host[0] + own[0], host[1] + own[1]]
    for cg, sums in per_cg.items():
        said = [int(row["cgroups"][cg]["file_dirty"]), int(row["cgroups"][cg]["file_writeback"])]
        if sums != said:
            found.append(f"cgroup {cg}: its pages dirty and under writeback are {sums}, it says {said}")
    queued = sum(int(row["pagevecs"][(int(row["pv_head"]) + k) % NR_PAGEVECS]["pages"]) for k in range(int(row["pv_count"])))
    if host != [int(row["nr_dirty"]), int(row["nr_writeback"])] or queued != host[1]:
        found.append(
            f"{host} pages are dirty and under writeback, {queued} queued; the host says {int(row['nr_dirty'])}, {int(row['nr_writeback'])}"
        )
    if buffered != int(row["nr_buffer_heads"]):
        found.append(f"{buffered} pages have buffer_heads, the host says {int(row['nr_buffer_heads'])}")
    return found


def zone_violations(row: Any) -> list[str]:
    """Every zone's managed pages are free, pinned, or on a list."""
    found = []
    rows = row["cohorts"]
    low = [int(rows["low_zone"][:, z].sum(dtype="i8")) for z in range(2)]
    far = int(rows["node1"].sum(dtype="i8"))
    listed = [*low, int(rows["nr"].sum(dtype="i8")) - sum(low) - far, far]
    if (rows["nr"] - rows["low_zone"].sum(axis=1) - rows["node1"]).min() < 0 or min(rows["low_zone"].min(), rows["node1"].min()) < 0:
        found.append("a cohort has more pages of one zone than pages")
    if (row["mems_allowed"], row["reclaim_nodes"], row["preferred_node"], row["interleave"]) != (ALL_NODES, ALL_NODES, 0, 0):
        found.append("somebody's restriction to a NUMA node has outlived what it was for")
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
        whole = sum(int(hole_pageblocks_of(r)) for r in row["regions"] if r["pages"] and r["zone"] == z)
        if whole != int(zone["hole_pageblocks"]):
            found.append(f"zone {z} says that {int(zone['hole_pageblocks'])} pageblocks lie in its regions' holes, they say {whole}")
        held = sum(int(r["held"]) for r in row["regions"] if r["pages"] and r["zone"] == z)
        if held != int(zone["held"]) or row["regions"]["held"].min() < 0:
            found.append(f"zone {z} holds {int(zone['held'])} pages of its regions on the per-cpu lists, they say {held}")
        boost, marks = int(zone["boost"]), zone["wmark"].tolist()
        if boost < 0 or not boost <= marks[0] <= marks[1] <= marks[2]:
            found.append(f"zone {z} has marks {marks} of which {boost} pages are boost")
    return found


def slab_violations(row: Any) -> list[str]:
    """Caches have room for their objects, the queue of unused names agrees with the cgroups, and the file system's blocks are cached."""
    found = []
    reclaimable = [0, 0]
    for slab, (name, _, per_slab, pages, kind, _, _) in zip(row["slab"], CACHES, strict=True):
        reclaimable[kind] += int(slab["slabs"]) * pages
        if not 0 <= int(slab["objects"]) <= int(slab["slabs"]) * per_slab:
            found.append(f"slab cache {name} has {int(slab['objects'])} objects in {int(slab['slabs'])} slabs of {per_slab}")
    for kind, field in ((1, "slab_reclaimable"), (0, "slab_unreclaimable")):
        if reclaimable[kind] > int(row[field]):
            found.append(f"caches hold {reclaimable[kind]} pages of slab, {field} is {int(row[field])}")
    queue = row["dentries"][: int(row["nr_dentries"])]
    for cg in range(int(row["nr_cgroups"])):
        group = row["cgroups"][cg]
        names = int(queue["names"][queue["cg"] == cg].sum())
        if names != int(group["dentries"]):
            found.append(f"cgroup {cg} counts {int(group['dentries'])} unused names, its queue holds {names}")
        if not 0 <= int(group["jinodes"]) <= int(group["inodes"]) or min(int(group["slab_r"]), int(group["slab_u"])) < 0:
            found.append(f"cgroup {cg} has impossible counts of inodes or slab bytes")
    if not 0 <= int(row["buffers"]) <= int(row["nr_file_lru"]):
        found.append(f"Buffers are {int(row['buffers'])} pages of {int(row['nr_file_lru'])} in the page cache")
    return found
