# SPDX-License-Identifier: Apache-2.0
"""The part of `check.py` that distrusts swap areas, zram and zswap: every slot is somebody's, every compressed page has one."""

from __future__ import annotations

from typing import Any

from fleetsim.linux.mm_types import LRU_ACTIVE_FILE, LRU_INACTIVE_FILE
from fleetsim.linux.swap_types import NR_SWAPFILES, ON_ZRAM, SWAP_LEAVING, SWAP_OFF, SWAP_ON
from fleetsim.linux.zram_drv import HEADER_BYTES, zram_object
from fleetsim.linux.zsmalloc import PAGE_Q, zs_pages_q
from fleetsim.linux.zswap import stored_noise, zswap_object


def swap_violations(row: Any) -> list[str]:
    """Slots by area and by group agree, and zram and zswap hold what the groups say they do."""
    found = []
    info = row["swap_info"]
    if int(row["swap_mode"]) == 0:
        if info[1:]["state"].any() or (info[0]["disk"] == ON_ZRAM and info[0]["state"]) or row["zswap"]["built_in"]:
            found.append("slots are not counted by area, but there is more than one plain area")
        return found
    total = sum(int(a["pages"]) for a in info if a["state"] == SWAP_ON) + sum(int(a["inuse"]) for a in info if a["state"] == SWAP_LEAVING)
    free = sum(int(a["pages"]) - int(a["inuse"]) for a in info if a["state"] == SWAP_ON)
    if [total, free] != [int(row["swap_total"]), int(row["swap_free"])]:
        found.append(
            f"the areas have {total} slots, {free} free; SwapTotal and SwapFree say {int(row['swap_total'])}, {int(row['swap_free'])}"
        )
    groups = [(g, group) for g, group in enumerate(row["groups"]) if group["used"] and not group["is_file"]]
    for a in range(NR_SWAPFILES):
        held = sum(int(group["slots"][a]) for _, group in groups)
        if held != int(info[a]["inuse"]) or (held and info[a]["state"] == SWAP_OFF) or held > int(info[a]["pages"]):
            found.append(f"swap area {a}: groups have {held} slots of {int(info[a]['pages'])}, it says {int(info[a]['inuse'])}")
    for g, group in groups:
        cohorts = row["cohorts"][int(group["first"]) : int(group["first"]) + int(group["cohorts"])]
        kept = sum(int(c["clean"]) for c in cohorts if int(c["list"]) not in (LRU_INACTIVE_FILE, LRU_ACTIVE_FILE))
        slots = int(cohorts["swapped"].sum(dtype="i8")) + int(cohorts["wb"].sum(dtype="i8")) + kept
        if slots != int(group["slots"].sum(dtype="i8")) or group["slots"].min() < 0:
            found.append(f"group {g}: its cohorts have {slots} slots, by area it has {group['slots'].tolist()}")
        zram = sum(int(group["slots"][a]) for a in range(NR_SWAPFILES) if info[a]["disk"] == ON_ZRAM)
        if not 0 <= int(group["stored"]) <= (slots if row["zswap"]["built_in"] else zram):
            found.append(f"group {g}: {int(group['stored'])} pages are compressed in memory, with {slots} slots, {zram} of them in zram")
    return found + pool_violations(row, groups)


def pool_violations(row: Any, groups: list[tuple[int, Any]]) -> list[str]:
    """What the pools hold is what the groups have in them."""
    found = []
    zram, zswap = row["zram"], row["zswap"]
    stored = sum(int(group["stored"]) for _, group in groups)
    if zswap["built_in"]:
        held = [(int(group["stored"]), int(stored_noise(row, g))) for g, group in groups]
        used = sum(pages * zswap_object(row, noise) for pages, noise in held if noise > 0)
        if [stored, used] != [int(zswap["stored"]), int(zswap["used_q"])] or int(zswap["pages"]) * PAGE_Q < used:
            found.append(f"zswap holds {stored} pages in {used / PAGE_Q:.1f}, it says {zswap}")
        return found
    header = int(zram["stored"]) - stored
    sizes = [(int(group["stored"]), zram_object(int(group["noise"]))) for _, group in groups if group["noise"] > 0]
    used = sum(n * zs_pages_q(size) for n, size in sizes) + header * zs_pages_q(HEADER_BYTES)
    size = sum(n * size for n, size in sizes) + header * HEADER_BYTES
    if header not in (0, 1) or [used, size] != [int(zram["used_q"]), int(zram["compr_bytes"])] or int(zram["pages"]) * PAGE_Q < used:
        found.append(f"zram should hold {stored} pages of {size} bytes in {used / PAGE_Q:.1f} pages; it says {zram}")
    return found
