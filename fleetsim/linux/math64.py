# SPDX-License-Identifier: Apache-2.0
"""The kernel's integer arithmetic where Python's differs or lacks it: C division, integer square root, powers of two.

Rules: `//` of Python (and of Numba) rounds towards minus infinity, C's `/` towards zero. A law whose operands cannot be
negative writes `//`; a law whose operands can writes `div64_s64`. Nothing here uses a floating-point number.
Leaves out: everything the memory laws do not need.
Source: include/linux/math64.h, include/linux/log2.h, lib/math/int_sqrt.c (Linux 6.1).
"""

from __future__ import annotations

from fleetsim.law import law


@law
def div64_s64(a: int, b: int) -> int:
    """a / b rounded towards zero, as C does.

    a        int64  any but −2^63
    b        int64  not 0, not −2^63
    returns  int64

    Source: include/linux/math64.h div64_s64. Leaves out: nothing.
    """
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


@law
def int_sqrt(x: int) -> int:
    """floor(√x), digit by digit from the highest even bit down.

    x        int64  0..2^62
    returns  int64  0 for x ≤ 0

    Source: lib/math/int_sqrt.c int_sqrt. Leaves out: nothing.
    """
    if x <= 0:
        return 0
    bit = 1
    while bit <= x >> 2:
        bit <<= 2
    root = 0
    while bit > 0:
        if x >= root + bit:
            x -= root + bit
            root = (root >> 1) + bit
        else:
            root >>= 1
        bit >>= 2
    return root


@law
def roundup_pow_of_two(x: int) -> int:
    """The smallest power of two ≥ x.

    x        int64  1..2^62
    returns  int64  1 for x ≤ 1

    Source: include/linux/log2.h roundup_pow_of_two. Leaves out: nothing.
    """
    power = 1
    while power < x:
        power <<= 1
    return power


@law
def rounddown_pow_of_two(x: int) -> int:
    """The largest power of two ≤ x.

    x        int64  1..2^62
    returns  int64  1 for x ≤ 1

    Source: include/linux/log2.h rounddown_pow_of_two. Leaves out: nothing.
    """
    power = 1
    while power <= x >> 1:
        power <<= 1
    return power
