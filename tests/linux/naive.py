# SPDX-License-Identifier: Apache-2.0
"""The laws again, written for obviousness: real fractions, whole tables, `math`. Slow, plain, and never compiled.

Rules: each function takes the arguments of its law and says the rule in another way than the law does, with unbounded integers
and exact fractions, so that an overflow, a wrong rounding or a wrong order of tests shows as a difference.
Leaves out: laws that are one comparison or one product; their worked examples say all there is.
"""

from __future__ import annotations

import math
from fractions import Fraction

UP, DOWN = math.ceil, math.floor


def truncate(x: Fraction) -> int:
    return math.trunc(x)


def powers_up_to(x: int) -> list[int]:
    return [1 << k for k in range(x.bit_length() + 1)]


def roundup_pow_of_two(x: int) -> int:
    return min(p for p in powers_up_to(x) if p >= x)


def rounddown_pow_of_two(x: int) -> int:
    return max(p for p in powers_up_to(x) if p <= x)


# --- zones


def marks(min_free_kb: int, managed: list[int], scale: int) -> list[tuple[int, int, int]]:
    """min, low, high of every zone."""
    out = []
    for pages in managed:
        share = DOWN(Fraction(DOWN(Fraction(min_free_kb, 4)) * pages, sum(managed)))
        gap = max(DOWN(Fraction(share, 4)), DOWN(Fraction(pages * scale, 10_000)))
        out.append((share, share + gap, share + 2 * gap))
    return out


def zone_batchsize(managed: int) -> int:
    thousandth = min(managed / 1024, 256)
    quarter = max(1, int(int(thousandth) / 4))
    one_and_a_half = int(1.5 * quarter)
    return max(1, max(p for p in (1, 2, 4, 8, 16, 32, 64) if p <= one_and_a_half) - 1)


def fragmentation_index(blocks: list[int], order: int) -> int:
    """blocks[k]: free blocks of order k."""
    if not any(blocks):
        return 0
    if any(blocks[order:]):
        return -1000
    thousandths = DOWN(Fraction(1000 * sum(n << k for k, n in enumerate(blocks)), 1 << order))
    return 1000 - DOWN(Fraction(1000 + thousandths, sum(blocks)))


def unusable_free_index(blocks: list[int], order: int) -> int:
    pages = sum(n << k for k, n in enumerate(blocks))
    usable = sum(n << k for k, n in enumerate(blocks) if k >= order)
    return DOWN(Fraction(1000 * (pages - usable), pages)) if pages else 1000


# --- reclaim


def inactive_is_low(inactive: int, active: int) -> bool:
    whole_gib = (inactive + active) // (2**30 // 4096)
    ratio = math.isqrt(10 * whole_gib) if whole_gib else 1
    return inactive * ratio < active


def fract_anon_file(swappiness: int, anon_cost: int, file_cost: int) -> tuple[int, int]:
    a, f = 2 * anon_cost + file_cost, anon_cost + 2 * file_cost
    return (
        DOWN(Fraction(swappiness * (a + f + 1), a + 1)),
        DOWN(Fraction((200 - swappiness) * (a + f + 1), f + 1)),
    )


SCAN_BALANCE_RULES = (
    # condition on (can_swap, memcg_reclaim, swappiness, priority, tiny, trim) → balance; first match wins (kernel-laws 3.5)
    (lambda can_swap, memcg, s, p, tiny, trim: not can_swap, "FILE"),
    (lambda can_swap, memcg, s, p, tiny, trim: memcg and s == 0, "FILE"),
    (lambda can_swap, memcg, s, p, tiny, trim: p == 0 and s != 0, "EQUAL"),
    (lambda can_swap, memcg, s, p, tiny, trim: tiny, "ANON"),
    (lambda can_swap, memcg, s, p, tiny, trim: trim, "FILE"),
    (lambda can_swap, memcg, s, p, tiny, trim: True, "FRACT"),
)


def scan_balance(*pass_state: object) -> str:
    return next(balance for condition, balance in SCAN_BALANCE_RULES if condition(*pass_state))


def protected_size(size: int, usage: int, protection: int) -> int:
    if protection == 0:
        return size
    spared = DOWN(Fraction(size * protection, max(usage, protection) + 1))
    return max(32, size - spared)


CHECK_REFERENCES = {
    # (touched 0/1/2+, Referenced flag, file, executable) → what becomes of the page; mlocked pages aside (kernel-laws 3.1)
    (0, False, False): "RECLAIM",
    (0, False, True): "RECLAIM",
    (0, True, False): "RECLAIM",
    (0, True, True): "RECLAIM_CLEAN",
    (1, False, False): "KEEP",
    (1, False, True): "KEEP",
    (1, True, False): "ACTIVATE",
    (1, True, True): "ACTIVATE",
    (2, False, False): "ACTIVATE",
    (2, False, True): "ACTIVATE",
    (2, True, False): "ACTIVATE",
    (2, True, True): "ACTIVATE",
}


def check_references(pte_refs: int, referenced: bool, is_file: bool, is_exec: bool, mlocked: bool) -> str:
    if mlocked or (is_exec and is_file and pte_refs):
        return "ACTIVATE"
    return CHECK_REFERENCES[min(pte_refs, 2), referenced, is_file]


def refault_activates(is_file: bool, distance: int, af: int, inf: int, aa: int, ina: int, swap: bool) -> bool:
    """Everything that could have been given up instead of this page, if its own inactive list is left alone."""
    competitors = {"active_file": af, "inactive_file": inf, "active_anon": aa, "inactive_anon": ina}
    del competitors["inactive_file" if is_file else "inactive_anon"]
    if not swap:
        competitors = {name: pages for name, pages in competitors.items() if name.endswith("file")}
    return distance <= sum(competitors.values())


# --- dirty limits, readahead, overcommit, OOM


def dirty_thresholds(dirtyable: int, ratio: int, bg_ratio: int) -> tuple[int, int, int]:
    thresh, bg = (DOWN(Fraction(dirtyable * DOWN(Fraction(r * 4096, 100)), 4096)) for r in (ratio, bg_ratio))
    bg = DOWN(Fraction(thresh, 2)) if bg >= thresh else bg
    return thresh, bg, DOWN(Fraction(thresh + bg, 2))


def pos_ratio_real(setpoint: int, dirty: int, limit: int) -> float:
    """The curve itself, in real numbers: the fixed-point law may differ by a few thousandths."""
    x = (setpoint - dirty) / (limit - setpoint)
    return min(max(1 + x**3, 0.0), 2.0)


def sequential_windows(req: int, biggest: int, count: int) -> list[int]:
    n = roundup_pow_of_two(req)
    windows = [4 * n if n * 32 <= biggest else 2 * n if n * 4 <= biggest else biggest]
    while len(windows) < count:
        cur = windows[-1]
        windows.append(4 * cur if cur < biggest // 16 else 2 * cur if cur <= biggest // 2 else biggest)
    return windows


def swapin_nr_pages(hits: int, adjacent: bool, last: int, biggest: int) -> int:
    if biggest <= 1:
        return 1
    if hits:
        wanted = max(4, roundup_pow_of_two(hits + 2))
    else:
        wanted = 2 if adjacent else 1
    return max(min(wanted, biggest), last // 2)


def proc_oom_score(points: int, totalpages: int) -> int:
    return truncate(Fraction((1000 + truncate(Fraction(points * 1000, totalpages))) * 2, 3))


# --- cgroups


def effective_protection(u: int, parent_u: int, setting: int, parent_e: int, siblings: int, recursive: bool) -> Fraction:
    """In real numbers, unclamped: what the parent has and nobody claims goes to unprotected usage in proportion."""
    claimed = Fraction(min(u, setting))
    if siblings > parent_e:
        return claimed * parent_e / siblings
    if recursive and parent_e > siblings and parent_u > siblings and u > claimed:
        claimed += Fraction(parent_e - siblings) * (u - claimed) / (parent_u - siblings)
    return claimed


def high_delay_seconds(usage: int, high: int, pages: int) -> float:
    """f² · pages seconds, f the overage as a share of memory.high; at most two."""
    if usage <= high:
        return 0.0
    f = (usage - max(high, 1)) / max(high, 1)
    return min(f * f * pages, 2.0)


# --- pressure


def rounded_product(x: int, y: int) -> int:
    return DOWN(Fraction(x * y, 2048) + Fraction(1, 2))


def fixed_power(x: int, n: int) -> int:
    """The powers x, x², x⁴ … that n is made of, multiplied from the smallest up."""
    squares = [x]
    while len(squares) < max(n.bit_length(), 1):
        squares.append(rounded_product(squares[-1], squares[-1]))
    result = 2048
    for k, square in enumerate(squares):
        if n >> k & 1:
            result = rounded_product(result, square)
    return result


def psi_avg(avg: int, exp: int, samples: list[int]) -> int:
    """An average after these periods, each of so many per cent."""
    for pct in samples:
        exact = Fraction(avg * exp + pct * 2048 * (2048 - exp), 2048)
        avg = UP(exact) if pct * 2048 >= avg else DOWN(exact)
    return avg
