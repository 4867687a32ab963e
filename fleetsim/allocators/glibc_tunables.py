# SPDX-License-Identifier: Apache-2.0
"""The tunables of glibc's malloc, as GLIBC_TUNABLES takes them: `glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0`.

Rules: glibc passes over what it does not know and what is out of range; here it is refused, as it is a mistake in an experiment.
Leaves out: check, perturb and hugetlb.
Source: elf/dl-tunables.list and malloc/malloc.c (do_set_…) of glibc 2.36.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleetsim.errors import BadInput

PREFIX = "glibc.malloc."
SIZE_MAX = 1 << 40
NAMES = {  # least, most
    "top_pad": (0, SIZE_MAX),
    "mmap_threshold": (0, SIZE_MAX),
    "trim_threshold": (0, (1 << 64) - 1),
    "mmap_max": (0, 65_536),
    "arena_max": (1, 1024),
    "arena_test": (1, 1024),
    "tcache_max": (0, 1032),
    "tcache_count": (0, 65_535),
    "tcache_unsorted_limit": (0, SIZE_MAX),
    "mxfast": (0, 160),
}
NOT_HERE = ("check", "perturb", "hugetlb")
FIXING = ("top_pad", "mmap_threshold", "trim_threshold", "mmap_max")  # setting one of them ends the dynamic threshold
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}")


@dataclass(frozen=True)
class Tunables:
    """struct malloc_par, as it is when a process starts."""

    top_pad: int = 131_072
    mmap_threshold: int = 131_072
    trim_threshold: int = 131_072
    mmap_max: int = 65_536
    arena_max: int = 0  # 0: eight for each CPU
    arena_test: int = 8
    tcache_max: int = 1032
    tcache_count: int = 7
    tcache_unsorted_limit: int = 0
    mxfast: int = 128
    fixed: bool = False  # thresholds no longer follow what is freed

    @property
    def max_fast(self) -> int:
        """Largest chunk that goes into a fastbin (global_max_fast)."""
        return 16 if self.mxfast <= 7 else (self.mxfast + 8) // 16 * 16

    @property
    def tcache_bins(self) -> int:
        return (max(32, (self.tcache_max + 23) // 16 * 16) - 32 + 15) // 16 + 1


def parse_tunables(text: str) -> Tunables:
    """Of `glibc.malloc.NAME=VALUE:…`; the prefix may be left out."""
    values: dict[str, int] = {}
    for part in filter(None, text.split(":")):
        name, equals, value = part.partition("=")
        name = name.strip().removeprefix(PREFIX)
        if name in NOT_HERE:
            raise BadInput(f"the tunable {PREFIX}{name} is not simulated: there are {', '.join(NAMES)}")
        if name not in NAMES:
            raise BadInput(f"unknown tunable {name!r} in {part!r}: there are {', '.join(NAMES)} (as glibc.malloc.NAME=VALUE)")
        if not equals or not _NUMBER.fullmatch(value.strip()):
            raise BadInput(f"the tunable {PREFIX}{name} is {value!r}: it must be a whole number, such as {PREFIX}{name}=1")
        number = int(value, 0) if value.strip().lower().startswith("0x") else int(value)
        least, most = NAMES[name]
        if not least <= number <= most:
            raise BadInput(f"the tunable {PREFIX}{name} is {number}: it must be {least} to {most}")
        values[name] = min(number, 1 << 62)
    return Tunables(**values, fixed=any(name in values for name in FIXING))
