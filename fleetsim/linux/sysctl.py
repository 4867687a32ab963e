# SPDX-License-Identifier: Apache-2.0
"""The vm.* knobs of a host, and kernel.randomize_va_space: the kernel's own names, defaults and bounds, as data.

Rules: a knob's bounds are those the kernel refuses a write by (EINVAL); a default of None is computed at boot from the size of the
host (`page_alloc.calculate_min_free_kbytes`, `mmap.reserve_kbytes`). `vm.dirty_ratio` and `vm.dirty_bytes` are two faces of one
limit, as are the two background ones: writing one makes the other 0 (`counterpart`).
Leaves out: NUMA balancing, memory failure, and
`vm.lowmem_reserve_ratio`, which is five numbers (`LOWMEM_RESERVE_RATIO`) and cannot be set yet.
Source: kernel/sysctl.c vm_table (Linux 6.1) and the files that own the variables; kernel-laws §20b; defaults as recorded there.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from fleetsim.errors import BadInput

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1
LOWMEM_RESERVE_RATIO = (256, 256, 32, 0, 0)  # DMA, DMA32, Normal, Movable, Device


@dataclass(frozen=True)
class Sysctl:
    name: str  # as in /proc/sys, with dots: vm.swappiness
    default: int | None  # None: computed at boot
    low: int
    high: int
    unit: str = ""
    write_only: bool = False  # an order, not a setting
    also_zero: bool = False  # 0 is allowed below `low` (switches the knob off)

    @property
    def range_text(self) -> str:
        top = "" if self.high in (INT_MAX, LONG_MAX) else f" to {self.high}"
        more = " or more" if not top else ""
        zero = "0 (off) or " if self.also_zero else ""
        return f"{zero}{self.low}{top}{more}{' ' + self.unit if self.unit else ''}"


_KNOBS = (
    Sysctl("kernel.randomize_va_space", 2, 0, 2),
    Sysctl("vm.admin_reserve_kbytes", None, 0, LONG_MAX, "kB"),
    Sysctl("vm.compact_memory", None, 1, 1, write_only=True),
    Sysctl("vm.compact_unevictable_allowed", 1, 0, 1),
    Sysctl("vm.compaction_proactiveness", 20, 0, 100),
    Sysctl("vm.dirty_background_bytes", 0, 1, LONG_MAX, "bytes"),  # 0 only by writing the ratio
    Sysctl("vm.dirty_background_ratio", 10, 0, 100, "%"),
    Sysctl("vm.dirty_bytes", 0, 8192, LONG_MAX, "bytes"),  # at least two pages; 0 only by writing the ratio
    Sysctl("vm.dirty_expire_centisecs", 3000, 0, INT_MAX, "1/100 s"),
    Sysctl("vm.dirty_ratio", 20, 0, 100, "%"),
    Sysctl("vm.dirty_writeback_centisecs", 500, 0, INT_MAX, "1/100 s"),
    Sysctl("vm.dirtytime_expire_seconds", 43_200, 0, INT_MAX, "s"),
    Sysctl("vm.drop_caches", None, 1, 4, write_only=True),
    Sysctl("vm.extfrag_threshold", 500, 0, 1000),
    Sysctl("vm.hugetlb_shm_group", 0, 0, INT_MAX),
    Sysctl("vm.laptop_mode", 0, 0, INT_MAX, "s"),
    Sysctl("vm.legacy_va_layout", 0, 0, INT_MAX),
    Sysctl("vm.max_map_count", 65_530, 0, INT_MAX),
    Sysctl("vm.min_free_kbytes", None, 0, INT_MAX, "kB"),
    Sysctl("vm.min_slab_ratio", 5, 0, 100, "%"),
    Sysctl("vm.min_unmapped_ratio", 1, 0, 100, "%"),
    Sysctl("vm.nr_hugepages", 0, 0, LONG_MAX, "huge pages"),
    Sysctl("vm.nr_overcommit_hugepages", 0, 0, LONG_MAX, "huge pages"),
    Sysctl("vm.numa_stat", 1, 0, 1),
    Sysctl("vm.oom_dump_tasks", 1, 0, INT_MAX),
    Sysctl("vm.oom_kill_allocating_task", 0, 0, INT_MAX),
    Sysctl("vm.overcommit_kbytes", 0, 0, LONG_MAX, "kB"),
    Sysctl("vm.overcommit_memory", 0, 0, 2),
    Sysctl("vm.overcommit_ratio", 50, 0, INT_MAX, "%"),
    Sysctl("vm.page-cluster", 3, 0, 31),
    Sysctl("vm.page_lock_unfairness", 5, 0, INT_MAX),
    Sysctl("vm.panic_on_oom", 0, 0, 2),
    Sysctl("vm.percpu_pagelist_high_fraction", 0, 8, INT_MAX, also_zero=True),
    Sysctl("vm.stat_interval", 1, 0, INT_MAX, "s"),
    Sysctl("vm.swappiness", 60, 0, 200),
    Sysctl("vm.user_reserve_kbytes", None, 0, LONG_MAX, "kB"),
    Sysctl("vm.vfs_cache_pressure", 100, 0, INT_MAX),
    Sysctl("vm.watermark_boost_factor", 15_000, 0, INT_MAX, "1/10000"),
    Sysctl("vm.watermark_scale_factor", 10, 1, 3000, "1/10000"),
    Sysctl("vm.zone_reclaim_mode", 0, 0, INT_MAX),
)
SYSCTLS: dict[str, Sysctl] = {knob.name: knob for knob in _KNOBS}

COUNTERPART = {
    "vm.dirty_ratio": "vm.dirty_bytes",
    "vm.dirty_bytes": "vm.dirty_ratio",
    "vm.dirty_background_ratio": "vm.dirty_background_bytes",
    "vm.dirty_background_bytes": "vm.dirty_background_ratio",
    "vm.overcommit_ratio": "vm.overcommit_kbytes",
    "vm.overcommit_kbytes": "vm.overcommit_ratio",
}

# those that some law reads: fields of a host's record
SYSCTL_NAMES = (
    "swappiness overcommit_memory overcommit_ratio overcommit_kbytes admin_reserve_kbytes user_reserve_kbytes page_cluster "
    "dirty_ratio dirty_background_ratio dirty_bytes dirty_background_bytes dirty_expire_centisecs dirty_writeback_centisecs "
    "panic_on_oom oom_kill_allocating_task min_free_kbytes watermark_scale_factor vfs_cache_pressure "
    "compaction_proactiveness compact_unevictable_allowed extfrag_threshold watermark_boost_factor zone_reclaim_mode min_unmapped_ratio"
).split()
SYSCTL = np.dtype([(name, "i8") for name in SYSCTL_NAMES])

assert list(SYSCTLS) == sorted(SYSCTLS)
assert all(knob.default is None or knob.default == 0 or knob.low <= knob.default <= knob.high for knob in _KNOBS)


def counterpart(name: str) -> str | None:
    """The knob that becomes 0 when this one is written, if there is one (mm/page-writeback.c dirty_ratio_handler and friends)."""
    return COUNTERPART.get(name)


def defaults() -> dict[str, int]:
    """Every setting whose default does not depend on the host."""
    return {knob.name: knob.default for knob in _KNOBS if knob.default is not None}


def validate(name: str, value: object, *, file: str | None = None, line: int | None = None) -> int:
    """The value, if the kernel would accept this write; else BadInput with the range that would be right."""
    knob = SYSCTLS.get(name)
    if knob is None:
        near = get_close_matches(name, SYSCTLS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(SYSCTLS)}"
        raise BadInput(f"unknown sysctl {name!r}; {hint}", file=file, line=line)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadInput(f"{name} must be a whole number, {knob.range_text}; it is {value!r}", file=file, line=line)
    if not (knob.low <= value <= knob.high or (knob.also_zero and value == 0)):
        raise BadInput(f"{name} must be {knob.range_text}; it is {value}", file=file, line=line)
    return value
