# SPDX-License-Identifier: Apache-2.0
"""zram: a block device whose pages are compressed in memory (drivers/block/zram/zram_drv.c).

Write and read are synchronous: who swaps out pays for the compression, and the page is free in the same scan. Pages all of whose words
are alike take nothing; those that compress badly are kept whole. When its memory limit is reached, or there is no memory left, a write
fails. Leaves out: several devices, backing device and idle pages, streams, recompression.
Source: drivers/block/zram/zram_drv.c (Linux 6.1); kernel-laws §12.4.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.zsmalloc import PAGE, lzo_size, pool_fit, pool_free, zs_pages_q

HUGE_CLASS_SIZE = 3257  # bytes: from here on a page is stored as it is (mm/zsmalloc.c zs_huge_class_size with pages of 4 KiB)
HEADER_BYTES = 52  # what mkswap writes into the first page compresses to that
NO_LIMIT = 1 << 40


@law
def zram_object(noise: int) -> int:
    """Bytes stored of a page with `noise` bytes that do not compress.

    Source: drivers/block/zram/zram_drv.c __zram_bvec_write.
    """
    size = lzo_size(noise)
    return PAGE if size >= HUGE_CLASS_SIZE else size


@law
def zram_bvec_write(row, g, pages):
    """Store up to `pages` pages of group `g`.

    returns  int64  pages stored; the others failed (ENOMEM)

    Source: drivers/block/zram/zram_drv.c __zram_bvec_write.
    """
    zram, group = row["zram"], row["groups"][g]
    noise = int(group["noise"])
    if noise == 0:
        zram["same"] += pages
        zram["stored"] += pages
        group["stored"] += pages
        return pages
    size = zram_object(noise)
    limit = zram["mem_limit"] if zram["mem_limit"] > 0 else NO_LIMIT
    done = pool_fit(row, zram, zs_pages_q(size), pages, limit)
    zram["stored"] += done
    zram["compr_bytes"] += done * size
    zram["max_pages"] = max(zram["max_pages"], zram["pages"])
    if size == PAGE:
        zram["huge"] += done
        zram["huge_since"] += done
    zram["failed_writes"] += 2 * (pages - done)  # as a page, then once more as a bio
    group["stored"] += done
    return done


@law
def zram_slot_free(row, g, pages):
    """`pages` stored pages of group `g` are wanted no longer.

    Source: drivers/block/zram/zram_drv.c zram_free_page.
    """
    zram, group = row["zram"], row["groups"][g]
    noise = int(group["noise"])
    group["stored"] -= pages
    zram["stored"] -= pages
    if noise == 0:
        zram["same"] -= pages
        return
    size = zram_object(noise)
    zram["compr_bytes"] -= pages * size
    if size == PAGE:
        zram["huge"] -= pages
    pool_free(row, zram, zs_pages_q(size), pages)


@law
def zram_header(row):
    """mkswap writes the area's first page.

    Source: drivers/block/zram/zram_drv.c zram_bvec_rw.
    """
    zram = row["zram"]
    zram["stored"] += 1
    zram["compr_bytes"] += HEADER_BYTES
    pool_fit(row, zram, zs_pages_q(HEADER_BYTES), 1, NO_LIMIT)
    zram["max_pages"] = max(zram["max_pages"], zram["pages"])
