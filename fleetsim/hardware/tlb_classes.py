# SPDX-License-Identifier: Apache-2.0
"""What the miss-rate model is told of a pattern: its classes of pages.

The nodes of a linked list are as good as uniform when a page has many of them; when it has few, their order counts (tlb_sweep.py).
Leaves out: in which sets the popular pages meet; more than 262,144 of the most popular pages when they are scattered over larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fleetsim.hardware.tlb_model import CLASS, WEIGHT_BITS, estimate
from fleetsim.hardware.tlb_patterns import PAGE, PROBABILITY_BITS, Pattern, fill_permuted, zipf_classes
from fleetsim.hardware.tlb_profiles import PAGE_SHIFT, PAGE_SIZES
from fleetsim.hardware.tlb_run import Machine
from fleetsim.hardware.tlb_shape import shape_of
from fleetsim.hardware.tlb_sweep import estimate_order

EXACT, STEP = 64, 8  # the most popular one by one, the others in classes 1/8 of their rank wide
PLACED_PER_REGION, PLACED_MAX = 8, 1 << 18
NODES_PER_PAGE = 64  # of a linked list: beyond, its order is as good as chance
ONE = 1 << 40


@dataclass(frozen=True)
class Estimate:
    cycles_per_access: float
    l1_misses: float  # per access
    walks: float
    loads: float


def class_rows(pages: list[int], weights: list[int], sizes: list[int]) -> np.ndarray:
    """Rows of CLASS; weights are probabilities · 2^30."""
    rows = np.zeros(len(pages), CLASS)
    rows["pages"], rows["weight"], rows["size"] = pages, weights, sizes
    return rows[rows["pages"] > 0]


def ranges(count: int) -> list[int]:
    """Borders of classes of ranks: every rank at first, then wider and wider."""
    borders = list(range(min(count, EXACT)))
    while borders[-1] < count:
        borders.append(min(count, borders[-1] + max(1, borders[-1] // STEP)))
    return borders


def zipf_by_rank(pages: int, skew_percent: int, borders: list[int]) -> np.ndarray:
    """Probability of each class of ranks, · 2^52."""
    reached, ranks = zipf_classes(pages, skew_percent)
    cumulated = np.concatenate([[0], reached]).astype(np.float64)
    return np.diff(np.interp(borders, ranks.astype(np.float64), cumulated))


def zipf_rows(pages: int, skew_percent: int, size: int, seed: int) -> tuple[list[int], np.ndarray]:
    """(pages, probability · 2^52) of classes of pages of a size over which popular 4 KiB pages are scattered."""
    if size == 0:
        borders = ranges(pages)
        return [int(n) for n in np.diff(borders)], zipf_by_rank(pages, skew_percent, borders)
    small = 1 << 9 * size
    regions = max(1, -(-pages // small))
    placed = min(pages, PLACED_PER_REGION * regions, PLACED_MAX)
    each = zipf_by_rank(pages, skew_percent, list(range(placed + 1)))
    where = np.empty(placed, np.int64)
    fill_permuted(where, seed, pages)
    popular = np.bincount(where // small, each, regions)
    part = np.full(regions, float(small))
    part[-1] -= regions * small - pages  # the last one is not whole
    popular += ((1 << PROBABILITY_BITS) - each.sum()) * part / pages
    popular = np.concatenate([[0.0], np.cumsum(np.sort(popular)[::-1])])
    borders = ranges(regions)
    return [int(n) for n in np.diff(borders)], np.diff(popular[borders])


def classes_of(machine: Machine, pattern: Pattern) -> np.ndarray:
    """Rows of CLASS of a pattern that goes by chance."""
    base, huge = PAGE_SIZES.index(machine.page), machine.huge_permille
    total = pattern.working_set // PAGE
    pages: list[int] = []
    weights: list[int] = []
    sizes: list[int] = []
    for size, share in ((base, 1000 - huge), (1, huge)):
        if share == 0:
            continue
        if pattern.name == "zipf":
            counts, probabilities = zipf_rows(total, pattern.skew_percent, size, pattern.seed)
        else:
            whole, rest = divmod(total, 1 << 9 * size)  # the last page may be used less, as less of it is
            used = (rest << PROBABILITY_BITS) // total
            counts, probabilities = [whole, int(rest > 0)], np.array([(1 << PROBABILITY_BITS) - used, used])
        pages += [max(int(count > 0), count * share // 1000) for count in counts]
        weights += [int(p) * share // 1000 >> PROBABILITY_BITS - WEIGHT_BITS for p in probabilities]
        sizes += [size] * len(counts)
    return class_rows(pages, weights, sizes)


def estimate_pattern(machine: Machine, pattern: Pattern) -> Estimate:
    """What the model says of a pattern on a machine (not a virtual one), once all parts are warm."""
    shape: Any = shape_of(machine.profile)
    walks = np.zeros(3, np.int64)
    by_chance = pattern.name == "chase" and pattern.step_bytes * NODES_PER_PAGE <= 1 << PAGE_SHIFT[machine.page]
    if by_chance or pattern.name in ("uniform", "zipf"):
        cycles, missed, loads = estimate(classes_of(machine, pattern), shape, 0, walks)
    else:
        size = PAGE_SIZES.index(machine.page)
        chase = int(pattern.name == "chase")
        cycles, missed, loads = estimate_order(shape, size, pattern.places, pattern.step_bytes, chase, walks)
    return Estimate(cycles / (1 << 20), missed / ONE, int(walks.sum()) / ONE, loads / ONE)


assert all(PAGE_SHIFT[name] == 12 + 9 * size for size, name in enumerate(PAGE_SIZES))
