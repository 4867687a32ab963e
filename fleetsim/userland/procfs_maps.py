# SPDX-License-Identifier: Apache-2.0
"""/proc/PID/maps, smaps and pagemap of a simulated process, byte for byte in the format of Linux 6.1.

All three are read off the same page tables that a walk goes through, so they agree with each other and with it, page by page.
Leaves out: VmFlags beyond read, write, execute, share and their limits; Pss in 1/4096 of a page (it is rounded per area).
Source: fs/proc/task_mmu.c show_map_vma, show_smap, pagemap_read; Documentation/admin-guide/mm/pagemap.rst.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from fleetsim.hardware import mmu
from fleetsim.linux.hugetlb import pages_of
from fleetsim.linux.mm_types import AREA_ANON, AREA_HUGETLB, AREA_SHMEM
from fleetsim.userland.address_space import ANON_ORDER, PAGE_SHIFT, Vma
from fleetsim.userland.frames import alive_tasks
from fleetsim.userland.page_place import Ints
from fleetsim.userland.page_table import HUGE_PAGE, NOTHING, PAGE, SWAP, SWAP_CACHE, ZERO_PAGE, Entries, PageTables, Words
from fleetsim.userland.procfs_pid import NAME_COLUMN

VSYSCALL = "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
PM_SOFT_DIRTY, PM_MMAP_EXCLUSIVE, PM_FILE, PM_SWAP, PM_PRESENT = (np.uint64(1 << bit) for bit in (55, 56, 61, 62, 63))
KB = 4
FIELDS = (
    "Rss Pss Pss_Dirty Shared_Clean Shared_Dirty Private_Clean Private_Dirty Referenced Anonymous LazyFree AnonHugePages "
    "ShmemPmdMapped FilePmdMapped Shared_Hugetlb Private_Hugetlb Swap SwapPss Locked"
).split()


def map_line(vma: Vma) -> str:
    """One area in the form of /proc/PID/maps."""
    head = f"{vma.start:08x}-{vma.end:08x} {vma.prot} {vma.offset << PAGE_SHIFT:08x} {vma.device} {vma.inode} "
    return (head.ljust(NAME_COLUMN) + vma.path if vma.path else head) + "\n"


def maps(tables: PageTables) -> str:
    """/proc/PID/maps."""
    return "".join(map_line(vma) for vma in tables.vmas) + VSYSCALL


def all_entries(tables: PageTables, vma: Vma) -> Entries:
    """The entries of all pages of an area."""
    found = [_of_piece(tables, piece) for piece in vma.pieces]
    return Entries(*(np.concatenate([getattr(e, name) for e in found]) for name in ("kind", "frame", "flags", "swap", "group", "shared")))


def _of_piece(tables: PageTables, piece: Any) -> Entries:
    if piece.area >= 0:
        return tables.entries(piece.area, np.arange(piece.position, piece.position + piece.pages))
    out = tables.nothing(piece.pages)
    if piece.part is not None:
        for page in range(piece.pages):
            kind, entry = tables.image_entry(piece, piece.first + page)
            out.kind[page], out.frame[page] = kind, mmu.frame_of(entry) if kind == PAGE else -1
            out.flags[page] = entry & ~mmu.FRAME_MASK
            out.shared[page] = piece.part not in ANON_ORDER or not entry & mmu.RW
    return out


def smaps(tables: PageTables) -> str:
    """/proc/PID/smaps: shared pages are counted by who else maps their frames just now."""
    mappers = frame_mappers(tables)
    return "".join(_smap(tables, vma, mappers) for vma in tables.vmas)


def smaps_rollup(tables: PageTables) -> str:
    """/proc/PID/smaps_rollup: the sum of all areas of `smaps` (fs/proc/task_mmu.c show_smaps_rollup)."""
    mappers = frame_mappers(tables)
    total, of_kind = dict.fromkeys(FIELDS, 0), dict.fromkeys(("Pss_Anon", "Pss_File", "Pss_Shmem"), 0)
    for vma in tables.vmas:
        counts = smap_counts(tables, vma, mappers)
        for name, pages in counts.items():
            total[name] += pages
        shmem = vma.area >= 0 and int(tables.row["areas"][vma.area]["kind"]) == AREA_SHMEM
        of_kind["Pss_Anon" if counts["Anonymous"] else "Pss_Shmem" if shmem else "Pss_File"] += counts["Pss"]
    values = {name: total[name] for name in FIELDS[:3]} | of_kind | {name: total[name] for name in FIELDS[3:]}
    head = f"{tables.vmas[0].start:08x}-{tables.vmas[-1].end:08x} ---p 00000000 00:00 0 ".ljust(NAME_COLUMN) + "[rollup]\n"
    return head + "".join(f"{name + ':':<16}{pages * KB:>{23 - max(15, len(name))}d} kB\n" for name, pages in values.items())


def frame_mappers(tables: PageTables) -> Counter[int]:
    """How many processes map each frame that may be shared."""
    counter: Counter[int] = Counter()
    for t in alive_tasks(tables.row):
        other = tables if t == tables.t else PageTables(tables.row, t, frames=tables.frames)
        for vma in other.vmas:
            e = all_entries(other, vma)
            counter.update(e.frame[e.shared & _mapped(e)].tolist())
    return counter


def _mapped(e: Entries) -> Any:
    return (e.kind == PAGE) | (e.kind == HUGE_PAGE)


def smap_counts(tables: PageTables, vma: Vma, mappers: Counter[int]) -> dict[str, int]:
    """Pages (Pss: rounded) of each kind in an area."""
    e = all_entries(tables, vma)
    row, a = tables.row, vma.area
    kind = int(row["areas"][a]["kind"]) if a >= 0 else -1
    out = dict.fromkeys(FIELDS, 0)
    there = _mapped(e) & (vma.name != "vvar")  # mapped by frame number: no page of the process's (vm_normal_page)
    swap = (e.kind == SWAP) | (e.kind == SWAP_CACHE)
    if kind == AREA_HUGETLB:  # not in Rss
        out["Private_Hugetlb"] = int(there.sum())
        return out
    sharers = np.array([mappers.get(int(f), 1) if s else 1 for f, s in zip(e.frame[there], e.shared[there], strict=True)], np.int64)
    dirty = (e.flags[there] & np.uint64(mmu.DIRTY)) > 0
    share = 1 / np.maximum(sharers, 1)
    anonymous = kind == AREA_ANON or (a < 0 and vma.pieces[0].part in ANON_ORDER)
    out["Rss"], out["Pss"], out["Pss_Dirty"] = int(there.sum()), round(float(share.sum())), round(float(share[dirty].sum()))
    for word, alone in (("Shared", sharers > 1), ("Private", sharers <= 1)):
        out[f"{word}_Clean"], out[f"{word}_Dirty"] = int((alone & ~dirty).sum()), int((alone & dirty).sum())
    out["Referenced"] = int(((e.flags[there] & np.uint64(mmu.ACCESSED)) > 0).sum())
    out["Anonymous"] = int(there.sum()) if anonymous else 0
    out["LazyFree"] = int((~dirty & ((e.flags[there] & np.uint64(mmu.RW)) > 0)).sum()) if kind == AREA_ANON else 0
    out["AnonHugePages"] = int((e.kind == HUGE_PAGE).sum())
    out["Swap"] = out["SwapPss"] = int(swap.sum())
    out["Locked"] = out["Pss"] if a >= 0 and int(row["areas"][a]["locked"]) > 0 else 0
    return out


def _smap(tables: PageTables, vma: Vma, mappers: Counter[int]) -> str:
    size = vma.pages * KB
    kind = int(tables.row["areas"][vma.area]["kind"]) if vma.area >= 0 else -1
    page = KB
    if kind == AREA_HUGETLB:
        page = int(pages_of(int(tables.row["areas"][vma.area]["hstate"]))) * KB
    lines = [("Size", size), ("KernelPageSize", page), ("MMUPageSize", page)]
    lines += [(name, pages * KB) for name, pages in smap_counts(tables, vma, mappers).items()]
    text = "".join(f"{name + ':':<16}{kb:>{23 - max(15, len(name))}d} kB\n" for name, kb in lines)
    huge = int(vma.area >= 0 and int(tables.row["thp_enabled"]) > 0 and kind == AREA_ANON)
    letters = {"r": "rd", "w": "wr", "x": "ex", "s": "sh"}
    flags = " ".join([letters[c] for c in vma.prot if c in letters] + ["mr", "mw", "me"] + (["ms"] if "s" in vma.prot else []))
    return map_line(vma) + text + f"THPeligible:    {huge:d}\nVmFlags: {flags} \n"


def pagemap(tables: PageTables, first: int, pages: int) -> Words:
    """/proc/PID/pagemap: one 64-bit word for each page from page number `first` on, with frame numbers as root sees them."""
    out = np.zeros(pages, np.uint64)
    for vma in tables.vmas:
        low, high = max(first, vma.first), min(first + pages, vma.first + vma.pages)
        if low < high:
            words = pagemap_words(all_entries(tables, vma), vma, tables)
            out[low - first : high - first] = words[low - vma.first : high - vma.first]
    return out


def pagemap_words(e: Entries, vma: Vma, tables: PageTables) -> Words:
    """Bit 63 present, with the frame; 62 in swap, with type (bits 0–4) and slot; 61 file or shared; 56 nobody else's; 55 soft-dirty."""
    word = np.zeros(len(e.kind), np.uint64)
    there = _mapped(e) | (e.kind == ZERO_PAGE)
    word[there] = PM_PRESENT | e.frame[there].astype(np.uint64)
    swap = (e.kind == SWAP) | (e.kind == SWAP_CACHE)
    slots: Ints = e.swap[swap]
    word[swap] = PM_SWAP | ((slots >> 50) | (slots & ((1 << 50) - 1)) << 5).astype(np.uint64)
    soft = ((e.flags & np.uint64(mmu.SOFT_DIRTY)) > 0) & there | ((e.flags & np.uint64(mmu.SWP_SOFT_DIRTY)) > 0) & swap
    word[soft] |= PM_SOFT_DIRTY
    word[_mapped(e) & ~e.shared] |= PM_MMAP_EXCLUSIVE
    of_file = (vma.path.startswith("/") and "w" not in vma.prot) or vma.prot.endswith("s")
    if of_file:
        word[_mapped(e)] |= PM_FILE
    word[e.kind == NOTHING] = 0
    return word
