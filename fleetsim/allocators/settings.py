# SPDX-License-Identifier: Apache-2.0
"""A task's allocator, said in words: `jemalloc dirty_decay_ms=1000 background_thread`, `tcmalloc release_rate=1`.

Names, ranges and defaults are the allocators' own (MALLOC_CONF, TCMALLOC_…, GLIBC_TUNABLES), as far as the models of a fleet's tasks
know them; a mistake is a ValueError that says what would be right.
Source: jemalloc 5.3.0 opt.*, gperftools 2.10 tcmalloc.cc, glibc 2.36 manual (Memory Allocation Tunables).
Leaves out: arena_max and narenas (a thread that calls malloc has a heap of its own), tcache settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fleetsim.allocators.tables import GLIBC, JEMALLOC, TCMALLOC

KINDS = {"glibc": GLIBC, "jemalloc": JEMALLOC, "tcmalloc": TCMALLOC}
DECAY_MS = 10_000
OVERSIZE = 8 << 20
NO_THRESHOLD = 1 << 62
_RANGES = {
    "glibc": {"mmap_threshold": (0, 32 << 20), "trim_threshold": (0, 1 << 40)},
    "jemalloc": {"dirty_decay_ms": (-1, 1 << 30), "oversize_threshold": (0, 1 << 40)},
    "tcmalloc": {"release_rate": (0, 1000)},
}
_FLAGS = {"jemalloc": ("background_thread",)}


@dataclass(frozen=True)
class Allocator:
    """Which one a thread's calls of malloc() go to, and what was set."""

    name: str = "glibc"
    values: dict[str, float] = field(default_factory=dict)
    background: bool = False

    @property
    def kind(self) -> int:
        return KINDS[self.name]

    def as_numbers(self) -> tuple[int, int, int]:
        """As the laws take them: (dirty_decay_ms | release rate, 1024ths | mmap_threshold, −1 unset;
        oversize_threshold | 0 | trim_threshold, −1 unset; background thread)."""
        v = self.values
        if self.name == "jemalloc":
            return int(v.get("dirty_decay_ms", DECAY_MS)), int(v.get("oversize_threshold", OVERSIZE)) or NO_THRESHOLD, int(self.background)
        if self.name == "tcmalloc":
            return round(v.get("release_rate", 1.0) * 1024), 0, 0
        return int(v.get("mmap_threshold", -1)), int(v.get("trim_threshold", -1)), 0


def parse_allocator(words: Sequence[str]) -> Allocator:
    """The words behind `allocator`. ValueError, a sentence's end, if they are not right."""
    if not words or words[0] not in KINDS:
        raise ValueError(f"the allocator must be one of {', '.join(KINDS)}, not {words[0] if words else 'nothing'!r}")
    name, flags, ranges = words[0], _FLAGS.get(words[0], ()), _RANGES[words[0]]
    values: dict[str, float] = {}
    for word in words[1:]:
        key, equals, text = word.partition("=")
        if word in flags:
            continue
        if key not in ranges or not equals:
            raise ValueError(f"{name} has no setting {word!r} here; it takes {', '.join([*(f'{k}=NUMBER' for k in ranges), *flags])}")
        least, most = ranges[key]
        try:
            values[key] = float(text) if key == "release_rate" else int(text)
        except ValueError:
            raise ValueError(f"{key} must be a number, not {text!r}") from None
        if not least <= values[key] <= most:
            raise ValueError(f"{key} must be {least} to {most}, not {text}")
    return Allocator(name, values, any(word in flags for word in words[1:]))
