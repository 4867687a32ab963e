# SPDX-License-Identifier: Apache-2.0
"""The ops by which a script uses a swap area or stops using it."""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import swapoff, swapon


@law
def do_swap(row, th, op, off):
    """swapon PATH [PRIORITY] or, if `off`, swapoff PATH.

    returns  bool  False: it is not done yet, come back

    Source: the recordings' driver (as it was extended for them).
    """
    if not off:
        swapon(row, op["handle"], op["time_ns"])
        return True
    program = row["programs"][th]
    program["done"] = swapoff(row, th, op["handle"], program["done"])
    return program["done"] < 0
