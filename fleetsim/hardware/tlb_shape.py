# SPDX-License-Identifier: Apache-2.0
"""What the miss-rate model knows of a profile: sizes and penalties of what translates data, as one record."""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetsim.hardware.tlb_profiles import PAGE_SHIFT, PAGE_SIZES, WALK_CACHES, Profile

# columns of shape["l1"], shape["l2"]
NUMBER, ENTRIES, WAYS, SETS, PIECES = range(5)

SHAPE = np.dtype(
    [
        ("l1", "i8", (3, 5)),  # by page size; NUMBER tells parts that several page sizes share
        ("l2", "i8", (3, 5)),
        ("walk", "i8", (3, 5)),  # PDE, PDPTE, PML4E
        ("l1_miss", "i8"),  # cycles
        ("l2_miss", "i8"),
        ("load", "i8"),
        ("mhz", "i8"),
    ]
)


def shape_of(profile: Profile) -> Any:
    """The record of a profile."""
    shape = np.zeros(1, SHAPE)[0]
    for column, level in (("l1", "d"), ("l2", "D")):
        for size, name in enumerate(PAGE_SIZES):
            part = profile.part_of(f"{level}{name}")
            assert part is not None  # tlb_profiles checks it
            pieces = 1 << PAGE_SHIFT[name] - profile.shift_of(f"{level}{name}")
            shape[column][size] = (profile.parts.index(part), part.entries, part.ways, part.sets, pieces)
    for which, name in enumerate(WALK_CACHES):
        part = profile.part_of(name)
        shape["walk"][which] = (which, part.entries, part.ways, part.sets, 1) if part else (which, 0, 0, 1, 1)
    shape["l1_miss"], shape["l2_miss"], shape["load"], shape["mhz"] = profile.l1d_miss, profile.l2_miss, profile.load, profile.mhz
    return shape
