# SPDX-License-Identifier: Apache-2.0
"""Disks and swap areas of a host at boot: `swap_bytes` for one area on a disk, `swaps` for several, zram among them; zswap."""

from __future__ import annotations

from typing import Any

from fleetsim.errors import BadInput
from fleetsim.host.programs import Names
from fleetsim.host.spec import DiskSpec, HostSpec, SwapSpec
from fleetsim.linux import mm_types as mm
from fleetsim.linux.swap_types import NR_DISKS, NR_SWAPFILES, ON_ZRAM, SWAP_ON
from fleetsim.linux.swapfile import count_slots
from fleetsim.linux.swapoff import LOWEST, swapon
from fleetsim.linux.zswap import POOLS

PAGE = 4096
KINDS = ("partition", "file", "zram")
SWAP_PATH = "/dev/vdb"  # what the area of `swap_bytes` is called


def fill_disk(row: Any, i: int, disk: DiskSpec) -> None:
    row["disk"][i]["latency_ns"] = int(disk.latency_us * 1000)
    row["disk"][i]["ns_per_page"] = mm.NS_PER_S * PAGE // disk.bytes_per_s
    row["disk"][i]["ns_per_request"] = mm.NS_PER_S // disk.iops if disk.iops else 0
    row["disk"][i]["slow_percent"] = 100


def disks(row: Any, spec: HostSpec) -> None:
    fill_disk(row, 0, spec.disk)
    if spec.swap_disk is not None and not spec.swaps:
        fill_disk(row, 1, spec.swap_disk)
        row["swap_disk"] = 1


def swap_areas(row: Any, spec: HostSpec, names: Names) -> None:
    """BadInput if the areas cannot be had: too many, two of a name, an unknown kind, zswap in front of zram."""
    row["noise"] = spec.page_noise
    if spec.swap_bytes and spec.swaps:
        raise BadInput(f"host {spec.name}: it takes either swap_bytes or swaps, not both")
    if len(spec.swaps) > NR_SWAPFILES:
        raise BadInput(f"host {spec.name}: more than {NR_SWAPFILES} swap areas")
    if spec.swap_bytes:
        area = row["swap_info"][0]
        area["state"], area["prio"], area["disk"], area["pages"] = SWAP_ON, LOWEST, row["swap_disk"], spec.swap_bytes // PAGE
        row["swap_total"] = row["swap_free"] = spec.swap_bytes // PAGE
        names.swaps[SWAP_PATH] = 0
    for a, swap in enumerate(spec.swaps):
        add_area(row, spec, names, a, swap)
    if spec.zswap is not None:
        set_zswap(row, spec)
    for swap in spec.swaps:
        if swap.on:
            swapon(row, names.swaps[swap.path], swap.priority)


def add_area(row: Any, spec: HostSpec, names: Names, a: int, swap: SwapSpec) -> None:
    where = f"host {spec.name}: swap area {swap.path!r}"
    if swap.path in names.swaps:
        raise BadInput(f"{where} is there twice")
    if swap.kind not in KINDS:
        raise BadInput(f"{where} is of the unknown kind {swap.kind!r}; known are {', '.join(KINDS)}")
    if swap.bytes < 10 * PAGE:
        raise BadInput(f"{where} has {swap.bytes} bytes; mkswap wants at least {10 * PAGE}")
    names.swaps[swap.path] = a
    area = row["swap_info"][a]
    area["pages"], area["is_file"] = swap.bytes // PAGE - 1, swap.kind == "file"  # the first page is the header
    if swap.kind == "zram":
        if any(row["swap_info"][b]["disk"] == ON_ZRAM for b in range(a)):
            raise BadInput(f"{where}: a host has one zram device")
        if swap.disk is not None:
            raise BadInput(f"{where} is in memory and has no disk")
        if spec.zswap is not None:
            raise BadInput(f"{where} is zram: with zswap in front of it pages would be compressed twice; choose one")
        area["disk"] = ON_ZRAM
        row["zram"]["disksize"], row["zram"]["mem_limit"] = swap.bytes // PAGE, swap.mem_limit_bytes // PAGE
    elif swap.disk is not None:
        used = [int(other["disk"]) for other in row["swap_info"][:a]]
        number = max([0, *used]) + 1
        if number == NR_DISKS:
            raise BadInput(f"{where}: more than {NR_DISKS - 1} swap disks")
        fill_disk(row, number, swap.disk)
        area["disk"] = number
    if area["disk"] > 0 and row["swap_disk"] == 0:
        row["swap_disk"] = area["disk"]


def set_zswap(row: Any, spec: HostSpec) -> None:
    zswap = spec.zswap
    assert zswap is not None
    if zswap.zpool not in POOLS:
        raise BadInput(f"host {spec.name}: unknown zpool {zswap.zpool!r}; known are {', '.join(POOLS)}")
    for name in ("max_pool_percent", "accept_threshold_percent"):
        if not 0 <= getattr(zswap, name) <= 100:
            raise BadInput(f"host {spec.name}: zswap's {name} is a percentage, not {getattr(zswap, name)}")
        row["zswap"][name] = getattr(zswap, name)
    row["zswap"]["built_in"], row["zswap"]["enabled"] = 1, int(zswap.enabled)
    row["zswap"]["pool"], row["zswap"]["same_filled"] = POOLS.index(zswap.zpool), int(zswap.same_filled_pages_enabled)
    count_slots(row)
