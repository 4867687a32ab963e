# SPDX-License-Identifier: Apache-2.0
"""Text of /proc/swaps, of zram's files below /sys/block/zram0, and the lines that zswap adds to meminfo and vmstat (Linux 6.1)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fleetsim.linux.swap_types import NR_SWAPFILES, ON_ZRAM, SWAP_OFF

PAGE = 4096
KB = PAGE // 1024
WIDE = 10_000_000  # numbers from here on take a tab stop less
HEAD = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


def default_paths(row: np.void) -> dict[str, int]:
    """What the areas are called where nobody named them: zram0, and virtio disks in order."""
    disks = iter("bcd")
    return {"/dev/zram0" if row["swap_info"][a]["disk"] == ON_ZRAM else f"/dev/vd{next(disks)}": a for a in range(NR_SWAPFILES)}


def swaps(row: np.void, paths: Mapping[str, int] | None = None) -> str:
    """/proc/swaps (mm/swapfile.c swap_show); `paths` are the areas' names and their rows."""
    text = HEAD
    for path, a in (paths or default_paths(row)).items():
        area = row["swap_info"][a]
        if area["state"] == SWAP_OFF or (area["pages"] == 0):
            continue
        plain = int(row["swap_total"]) - int(row["swap_free"])
        size, used = int(area["pages"]) * KB, (int(area["inuse"]) if row["swap_mode"] else plain) * KB
        kind = "file\t" if area["is_file"] else "partition"
        name = path + " " * max(1, 40 - len(path))
        tabs = ["\t" if number < WIDE else "" for number in (size, used)]
        text += f"{name}{kind}\t{size}\t{tabs[0]}{used}\t{tabs[1]}{int(area['prio'])}\n"
    return text


def mm_stat(zram: np.void) -> str:
    """/sys/block/zram0/mm_stat (drivers/block/zram/zram_drv.c mm_stat_show)."""
    in_bytes = [int(zram["stored"]) * PAGE, int(zram["compr_bytes"]), int(zram["pages"]) * PAGE]
    in_bytes += [int(zram["mem_limit"]) * PAGE, int(zram["max_pages"]) * PAGE]
    counts = [int(zram["same"]), 0, int(zram["huge"]), int(zram["huge_since"])]
    return " ".join(f"{n:8d}" for n in in_bytes + counts) + "\n"


def io_stat(zram: np.void) -> str:
    """/sys/block/zram0/io_stat: failed reads, failed writes, invalid requests, slots freed under the device (io_stat_show)."""
    return " ".join(f"{n:8d}" for n in (0, int(zram["failed_writes"]), 0, 0)) + "\n"


def sys_block(row: np.void) -> dict[str, str]:
    """Files below /sys/block of a host with zram."""
    if ON_ZRAM not in row["swap_info"]["disk"]:
        return {}
    zram = row["zram"]
    files = {"mm_stat": mm_stat(zram), "io_stat": io_stat(zram), "disksize": f"{int(zram['disksize']) * PAGE}\n"}
    return {f"zram0/{name}": text for name, text in files.items()}


def zswap_debugfs(row: np.void) -> dict[str, str]:
    """Files of /sys/kernel/debug/zswap (mm/zswap.c zswap_init_debugfs)."""
    zswap = row["zswap"]
    if not zswap["built_in"]:
        return {}
    numbers = {"pool_limit_hit": "pool_limit_hit", "written_back_pages": "written_back", "stored_pages": "stored"}
    numbers |= {name: name for name in ("reject_compress_poor", "reject_alloc_fail", "reject_reclaim_fail")}
    files = {name: int(zswap[field]) for name, field in numbers.items()} | {"same_filled_pages": int(zswap["same"])}
    files |= {"pool_total_size": int(zswap["pages"]) * PAGE, "reject_kmemcache_fail": 0, "duplicate_entry": 0}
    return {name: f"{number}\n" for name, number in files.items()}


def with_zswap(row: np.void, meminfo: str, vmstat: str) -> tuple[str, str]:
    """The same with the lines that a kernel with zswap has: after SwapFree, and after cow_ksm."""
    zswap = row["zswap"]
    if not zswap["built_in"]:
        return meminfo, vmstat
    sizes = {"Zswap": int(zswap["pages"]) * KB, "Zswapped": int(zswap["stored"]) * KB}
    more = "".join(f"{name + ':':<16}{value:8d} kB\n" for name, value in sizes.items())
    before, after = meminfo.split("Dirty:", 1)
    counters = f"zswpin {int(zswap['zswpin'])}\nzswpout {int(zswap['zswpout'])}\n"
    head, tail = vmstat.split("direct_map_level2_splits", 1)
    return f"{before}{more}Dirty:{after}", f"{head}{counters}direct_map_level2_splits{tail}"
