# SPDX-License-Identifier: Apache-2.0
"""What must be true of all page tables of a host at once: `contradictions(row)` says in sentences what is not."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from fleetsim.hardware import mmu
from fleetsim.linux.hugetlb import pages_of
from fleetsim.linux.mm_types import AREA_ANON, AREA_FILE, AREA_FREE, AREA_HUGETLB, AREA_SHMEM, NR_AREAS
from fleetsim.linux.pgtable import mm_pgtables, nr_tables
from fleetsim.linux.rmap import find_mapping
from fleetsim.userland.frames import Frames, alive_tasks, zone_starts
from fleetsim.userland.page_place import GroupCounts
from fleetsim.userland.page_table import HUGE_PAGE, NOTHING, PAGE, SWAP, SWAP_CACHE, ZERO_PAGE, Entries, PageTables


class Host:
    """Every page-table entry of every process."""

    def __init__(self, row: Any) -> None:
        self.row, self.frames, self.wrong = row, Frames(row), []
        self.tables = {t: PageTables(row, t, frames=self.frames) for t in alive_tasks(row)}
        self.entries: dict[int, Entries] = {}
        for a in range(NR_AREAS):
            area = row["areas"][a]
            if int(area["kind"]) != AREA_FREE and int(area["task"]) in self.tables:
                t = int(area["task"])
                pages = self.tables[t].view(a).reach if int(area["kind"]) == AREA_ANON else int(area["pages"])
                if int(area["kind"]) == AREA_HUGETLB:
                    pages = -(-pages // pages_of(int(area["hstate"]))) * pages_of(int(area["hstate"]))
                self.entries[a] = self.tables[t].entries(a, np.arange(pages))

    def say(self, ok: bool, *words: object) -> None:
        if not ok:
            self.wrong.append(" ".join(map(str, words)))


def contradictions(row: Any) -> list[str]:
    host = Host(row)
    for t in host.tables:
        _one_process(host, t)
    for a, entries in host.entries.items():
        _one_area(host, a, entries)
    _frames(host)
    return host.wrong


def _one_process(host: Host, t: int) -> None:
    task, tables = host.row["tasks"][t], host.tables[t]
    mine = {a: e for a, e in host.entries.items() if int(host.row["areas"][a]["task"]) == t}
    present = dict.fromkeys((AREA_ANON, AREA_FILE, AREA_SHMEM), 0)
    for a, e in mine.items():
        kind = int(host.row["areas"][a]["kind"])
        if kind in present:
            present[kind] += int(((e.kind == PAGE) | (e.kind == HUGE_PAGE)).sum())
    swap = sum(int(((e.kind == SWAP) | (e.kind == SWAP_CACHE)).sum()) for e in mine.values())
    image = int(task["base_anon"] + task["base_shared"])
    host.say(present[AREA_ANON] + image == int(task["rss_anon"]), "task", t, "RssAnon", present[AREA_ANON] + image, int(task["rss_anon"]))
    host.say(present[AREA_FILE] + int(task["base_file"]) == int(task["rss_file"]), "task", t, "RssFile", present, int(task["rss_file"]))
    host.say(present[AREA_SHMEM] == int(task["rss_shmem"]), "task", t, "RssShmem", present, int(task["rss_shmem"]))
    host.say(swap == int(task["swapents"]), "task", t, "VmSwap", swap, int(task["swapents"]))
    counted = 4096 * (int(task["pgtables"]) + len(tables.pud_slots))
    host.say(counted == 4096 * int(mm_pgtables(host.row, t)), "task", t, "mm_pgtables", counted)
    host.say(tables.bytes == counted, "task", t, "VmPTE", tables.bytes, counted, "needed", int(nr_tables(host.row, t)))
    mapped = sum(vma.pages for vma in tables.vmas)
    host.say(mapped == int(task["total_vm"]), "task", t, "VmSize", mapped, int(task["total_vm"]))
    for one, other in pairwise(tables.vmas):
        host.say(one.end <= other.start, "task", t, one.name, hex(one.end), "overlaps", other.name, hex(other.start))


def _one_area(host: Host, a: int, e: Entries) -> None:
    row, area = host.row, host.row["areas"][a]
    kind = int(area["kind"])
    there = (e.kind == PAGE) | (e.kind == HUGE_PAGE)
    swapped = (e.kind == SWAP) | (e.kind == SWAP_CACHE)
    view = host.tables[int(area["task"])].view(a)
    used = np.flatnonzero(e.kind != NOTHING)
    if kind in (AREA_ANON, AREA_SHMEM) and len(used):
        first, last = int(area["cut"]) // 512, int(area["cut"]) // 512 + int(area["tables"])
        held = view.reach <= int(area["pages"])
        host.say(not held or (used[0] >= int(area["cut"]) and used[-1] // 512 < last), "area", a, "tables", first, last, used[[0, -1]])
    if kind == AREA_HUGETLB:
        size = int(pages_of(int(area["hstate"])))
        host.say(int(there.sum()) // size == -(-int(area["touched"]) // size), "area", a, "hugetlb", there.sum())
        return
    for top, _, _ in view.parts():
        for g in view.chain(top):
            group, counts = row["groups"][g], GroupCounts(row, g)
            mine = e.group == g
            if int(group["task"]) >= 0:
                want, out = counts.nr_mapped, counts.nr_out + counts.nr_cached
                dirty = int(((e.flags & np.uint64(mmu.DIRTY)) > 0)[mine & there].sum())
                host.say(
                    dirty == counts.nr_mapped - counts.nr_clean, "area", a, "group", g, "dirty", dirty, counts.nr_mapped, counts.nr_clean
                )
                huge = int((mine & (e.kind == HUGE_PAGE)).sum())
                host.say(huge == 512 * int(group["huge"]), "area", a, "group", g, "huge", huge / 512, int(group["huge"]))
                cached = int((mine & (e.kind == SWAP_CACHE)).sum())
                host.say(cached == counts.nr_cached, "area", a, "group", g, "swap cache", cached, counts.nr_cached)
            else:
                m = int(find_mapping(row, a, g))
                want, out = (int(row["mappings"][m]["mapped"]), int(row["mappings"][m]["swapped"])) if m >= 0 else (0, 0)
                if kind == AREA_FILE and int(area["accounted"]) == 0 and want == counts.nr_mapped:
                    dirty = int(((e.flags & np.uint64(mmu.DIRTY)) > 0)[mine & there].sum())
                    host.say(dirty == int(counts.cohorts["dirty"].sum()), "area", a, "file", g, "dirty", dirty)
            host.say(int((mine & there).sum()) == want, "area", a, "group", g, "present", int((mine & there).sum()), want)
            host.say(int((mine & swapped).sum()) == out, "area", a, "group", g, "swapped", int((mine & swapped).sum()), out)


def _frames(host: Host) -> None:
    row, starts = host.row, zone_starts(host.row)
    owner: dict[int, tuple[int, int]] = {}
    seen: dict[int, dict[int, tuple[int, int]]] = {}
    for a, e in host.entries.items():
        have = (e.frame >= 0) & (e.kind != ZERO_PAGE)
        frames = e.frame[have]
        host.say(len(np.unique(frames)) == len(frames), "area", a, "has a frame twice")
        for frame, g, position in zip(frames.tolist(), e.group[have].tolist(), np.flatnonzero(have).tolist(), strict=True):
            known = owner.setdefault(frame, (g, position))
            host.say(known == (g, position), "frame", frame, "is of", known, "and", (g, position), "area", a)
            other = seen.setdefault(g, {}).setdefault(position, (frame, a)) if g >= 0 else (frame, a)
            host.say(other[0] == frame, "group", g, "position", position, "has two frames", other, (frame, a))
    for frame in owner:
        inside = any(starts[z] <= frame < starts[z] + int(row["zones"][z]["managed"]) for z in range(len(starts)))
        host.say(inside, "frame", frame, "is in no zone")
    kernel = {int(f) for t, tables in host.tables.items() for f in _table_frames(tables)}
    host.say(not kernel & set(owner), "page tables and pages have frames in common", len(kernel & set(owner)))
    total = sum(tables.nr_ptes + len(tables.pmd_slots) for tables in host.tables.values())
    host.say(len(kernel) == total, "page tables have", len(kernel), "frames, not", total)


def _table_frames(tables: PageTables) -> list[int]:
    found = []
    for first, blocks, own in tables._blocks:
        found += [tables.table_frame(mmu.PTE, (first + b) << 21) for b in range(blocks if own else 0)]
    found += [tables.table_frame(mmu.PMD, slot << 30) for slot in tables.pmd_slots]
    assert None not in found
    return [frame for frame in found if frame is not None]
