# SPDX-License-Identifier: Apache-2.0
"""Fixed-point numbers of the TLB's miss-rate model: integers only, so that a history is the same on every machine.

Shares and exponents have 40 bits behind the point. Products keep at least 30 significant bits.
"""

from __future__ import annotations

from fleetsim.law import law

ONE = 1 << 40
LARGE = 28 * ONE  # e^−28 is below 2^−40
ROOM = 1 << 62


@law
def scaled(a, b, shift):
    """a · b / 2^shift, without overflow of the product.

    a, b     int64  0..2^61
    shift    int64  0..62
    returns  int64  2^61 if it is more

    Source: fleetsim's own.
    """
    if a < 1 << 31 and b < 1 << 31:
        return a * b >> shift
    while a > 0 and b > ROOM // a:
        if shift == 0:
            return ROOM >> 1
        if a > b:
            a >>= 1
        else:
            b >>= 1
        shift -= 1
    return a * b >> shift


@law
def gap(x):
    """1 − e^(−x), exact to some 20 bits however small x is.

        halve x until it is below 1/32, take x − x²/2 + x³/6, and back up by 1 − e^(−2x) = g · (2 − g)

    x        int64  · 2^40, ≥ 0
    returns  int64  · 2^40, 0..2^40

    Source: Taylor series; own arithmetic (`exp_neg_q` of fleetsim.law has 20 bits behind the point, too few for rare pages).
    """
    if x >= LARGE:
        return ONE
    halvings = 0
    while x > ONE >> 5:
        x >>= 1
        halvings += 1
    square = scaled(x, x, 40)
    g = x - square // 2 + scaled(square, x, 40) // 6
    for _ in range(halvings):
        g = 2 * g - scaled(g, g, 40)
    return min(g, ONE)  # the product is rounded down


@law
def minus_log(share):
    """−ln(1 − share): the x whose `gap` is the share.

    share    int64  · 2^40, 0..2^40
    returns  int64  · 2^40

    Source: bisection.
    """
    low, high = 0, LARGE
    while high - low > 1 << 12:
        middle = (low + high) >> 1
        if gap(middle) < share:
            low = middle
        else:
            high = middle
    return high
