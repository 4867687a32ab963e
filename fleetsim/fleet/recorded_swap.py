# SPDX-License-Identifier: Apache-2.0
"""What a recording says of its swap areas, its zram device and zswap, as parts of a `HostSpec`; and the columns of the same in a trace."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fleetsim.host.spec import DiskSpec, SwapSpec, ZswapSpec
from fleetsim.linux.swap_types import ON_ZRAM, SWAP_OFF
from fleetsim.linux.zswap import zswap_current

PAGE = 4096
KB = PAGE // 1024
SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
ZSWAP_PARAMETERS = "/sys/module/zswap/parameters/"
DRIVER_NOISE = 8
"""Bytes that the recordings' driver writes into each page: a counter (an area with `noise=` has more)."""
ZRAM_COLUMNS = {"orig_data_size": ("stored", PAGE), "compr_data_size": ("compr_bytes", 1), "mem_used_total": ("pages", PAGE)}
ZRAM_COLUMNS |= {"mem_limit": ("mem_limit", PAGE), "mem_used_max": ("max_pages", PAGE), "same_pages": ("same", 1)}
ZRAM_COLUMNS |= {"huge_pages": ("huge", 1), "huge_pages_since": ("huge_since", 1), "failed_writes": ("failed_writes", 1)}
ZSWAP_COLUMNS = {"stored_pages": ("stored", 1), "same_filled_pages": ("same", 1), "pool_total_size": ("pages", PAGE)}
ZSWAP_COLUMNS |= {"written_back_pages": ("written_back", 1)}
ZSWAP_COLUMNS |= {name: (name, 1) for name in ("pool_limit_hit", "reject_compress_poor", "reject_alloc_fail", "reject_reclaim_fail")}


def swaps_of(text: str, machine: Mapping[str, Any], disk_of: Callable[[str], DiskSpec]) -> tuple[SwapSpec, ...]:
    """The areas of /proc/swaps at the start, if there are several or one is zram; none: the host's one area is told by SwapTotal."""
    rows = [line.split() for line in text.splitlines()[1:] if line.split()]
    if len(rows) < 2 and not any("zram" in row[0] for row in rows):
        return ()
    devices = {f"/dev/{disk['dev']}": name for name, disk in machine.get("disks", {}).items()}
    areas = []
    for path, kind, size, _, priority in rows:
        settings = {k.rsplit("/", 1)[1]: str(v) for k, v in machine.get("sysfs", {}).items() if k.startswith("/sys/block/zram0/")}
        zram = "zram" in path
        areas.append(
            SwapSpec(
                path,
                int(size) * 1024 + PAGE,
                max(-1, int(priority)),
                "zram" if zram else kind,
                None if zram else disk_of(devices.get(path, "swap")),
                mem_limit_bytes=in_bytes(settings.get("mem_limit", "0")) if zram else 0,
            )
        )
    return tuple(areas)


def in_bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    return int(match[1]) * SIZES[match[2]] if match else 0


def zswap_of(cmdline: str, machine: Mapping[str, Any], meminfo: Mapping[str, int]) -> ZswapSpec | None:
    """zswap's parameters, from the kernel's command line and from what was written to its files; None where it is not built in."""
    if "Zswap" not in meminfo:
        return None
    given = dict(re.findall(r"zswap\.(\w+)=(\S+)", cmdline))
    given |= {k.removeprefix(ZSWAP_PARAMETERS): str(v) for k, v in machine.get("sysfs", {}).items() if k.startswith(ZSWAP_PARAMETERS)}
    return ZswapSpec(
        int(given.get("max_pool_percent", 20)),
        int(given.get("accept_threshold_percent", 90)),
        given.get("zpool", "zbud"),
        given.get("same_filled_pages_enabled", "Y") in "Yy1",
        given.get("enabled", "N") in "Yy1",
    )


def swap_columns(row: Any, paths: Mapping[str, int]) -> dict[str, object]:
    """swaps.DEVICE.*, zram0.*, zswap.*: what the recorder reads of /proc/swaps, mm_stat, io_stat and debugfs."""
    columns: dict[str, object] = {}
    if row["swap_mode"] == 0:
        return columns
    for path, a in paths.items():
        area = row["swap_info"][a]
        if area["state"] != SWAP_OFF:
            at = f"swaps.{path.rsplit('/', 1)[-1]}."
            columns |= {
                at + "size_kB": int(area["pages"]) * KB,
                at + "used_kB": int(area["inuse"]) * KB,
                at + "priority": int(area["prio"]),
            }
    if ON_ZRAM in row["swap_info"]["disk"]:
        columns |= {f"zram0.{name}": int(row["zram"][field]) * unit for name, (field, unit) in ZRAM_COLUMNS.items()}
    zswap = row["zswap"]
    if zswap["built_in"]:
        columns |= {f"zswap.{name}": int(zswap[field]) * unit for name, (field, unit) in ZSWAP_COLUMNS.items()}
        columns |= {"meminfo.Zswap_kB": int(zswap["pages"]) * KB, "meminfo.Zswapped_kB": int(zswap["stored"]) * KB}
        columns |= {"vmstat.zswpin": int(zswap["zswpin"]), "vmstat.zswpout": int(zswap["zswpout"])}
    return columns


def zswap_cgroup_columns(row: Any, name: str, cg: int) -> dict[str, object]:
    if not row["zswap"]["built_in"]:
        return {}
    return {f"cg.{name}.zswap_current": int(zswap_current(row, cg)), f"cg.{name}.stat.zswap": int(zswap_current(row, cg))}
