# SPDX-License-Identifier: Apache-2.0
"""buffer_heads: what a written page of the cache costs beside itself (fs/buffer.c).

A page that is written to gets a buffer_head of 104 bytes, 39 to a slab page, and keeps it until it leaves the cache: 400 MiB
written are 10.5 MiB of reclaimable slab (recordings e16: 11.5). Pages that were only read have none.
Leaves out: block sizes below a page (more heads per page), slab pages that stay partly full.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import WMARK_MIN
from fleetsim.linux.zonelist import pin_got, rmqueue, unpin

PER_SLAB_PAGE = 39


@law
def resize_slab(row):
    """Take or give back slab pages until they hold the buffer_heads that there are.

    Source: mm/slub.c new_slab, discard_slab, as if every slab were full. No page to be had: the heads share what there is.
    Leaves out: the charge to the writer's cgroup.
    """
    wanted = (row["nr_buffer_heads"] + PER_SLAB_PAGE - 1) // PER_SLAB_PAGE
    more = wanted - row["bh_pages"]
    if more > 0:
        got = rmqueue(row, more, WMARK_MIN)
        pin_got(row)
        row["bh_pages"] += got
        row["slab_reclaimable"] += got
    elif more < 0:
        unpin(row, -more)
        row["bh_pages"] += more
        row["slab_reclaimable"] += more


@law
def create_empty_buffers(row, group, pages):
    """`pages` pages of a group were written to: those that have no buffer_head yet get one.

    Source: fs/buffer.c create_empty_buffers.
    """
    n = min(pages, group["resident"] - group["buffered"])
    if n > 0:
        group["buffered"] += n
        row["nr_buffer_heads"] += n
        resize_slab(row)


@law
def free_buffers(row, group, pages):
    """`pages` pages are about to leave the cache, and their share of the group's buffer_heads goes with them.

    pages  int64  of group["resident"], which still counts them

    Source: fs/buffer.c try_to_free_buffers. The share is an expected value.
    """
    if group["buffered"] > 0:
        left = (group["resident"] - pages) * group["buffered"] // group["resident"]
        row["nr_buffer_heads"] -= group["buffered"] - left
        group["buffered"] = left
        resize_slab(row)
