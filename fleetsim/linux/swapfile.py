# SPDX-License-Identifier: Apache-2.0
"""Swap areas and their slots (mm/swapfile.c).

Leaves out: which slot a page has; swapoff.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.memcontrol import add_swap


@law
def get_swap_pages(row, cg, pages):
    """Take `pages` slots for pages of `cg` (the caller knows that there are as many).

    Source: mm/swapfile.c get_swap_pages, mm/memcontrol.c mem_cgroup_try_charge_swap.
    """
    row["swap_free"] -= pages
    add_swap(row, cg, pages)


@law
def release_slots(row, cg, pages):
    """Give slots back: the page was written to again, or its owner is gone.

    Source: mm/swapfile.c swap_free.
    """
    row["swap_free"] += pages
    add_swap(row, cg, -pages)
