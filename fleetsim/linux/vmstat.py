# SPDX-License-Identifier: Apache-2.0
"""meminfo and vmstat, computed once: procfs text and metrics are two renderings of what stands here.

Rules: the kernel's own names, order and units (`/proc/meminfo` in kB, `HugePages_*` as counts; `/proc/vmstat` in the
unit each line has in the kernel: pages, events, kB for `nr_kernel_stack`, `pgpgin`, `pgpgout`).
Source: fs/proc/meminfo.c, mm/vmstat.c (Linux 6.1); kernel-laws §5. The names are in `vmstat_names.py`.
Leaves out: what the simulated kernel has no pool for yet (huge pages, zswap, CMA, NUMA) reads 0.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.mm_types import NR_ZONES, VM, WMARK_LOW
from fleetsim.linux.mmap import commit_limit
from fleetsim.linux.mmzone import NR_NUMA_STATS
from fleetsim.linux.nodes import nr_free
from fleetsim.linux.page_alloc import si_mem_available
from fleetsim.linux.page_writeback import domain_dirty_limits, host_avail, swap_writeback
from fleetsim.linux.vmstat_names import MEMINFO_COUNTS, MEMINFO_FIELDS, VMSTAT_FIELDS
from fleetsim.linux.zswap import ZSMALLOC

__all__ = ["MEMINFO_COUNTS", "MEMINFO_FIELDS", "VMSTAT_FIELDS", "mem_available", "meminfo", "vmstat"]

M = {name: i for i, name in enumerate(MEMINFO_FIELDS)}
(MEM_TOTAL, MEM_FREE, MEM_AVAILABLE, BUFFERS, CACHED, SWAP_CACHED) = (
    M[n] for n in ("MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapCached")
)
(ACTIVE, INACTIVE, UNEVICTABLE, MLOCKED, SWAP_TOTAL, SWAP_FREE) = (
    M[n] for n in ("Active", "Inactive", "Unevictable", "Mlocked", "SwapTotal", "SwapFree")
)
(DIRTY, WRITEBACK, ANON_PAGES, MAPPED, KRECLAIMABLE, SLAB, SRECLAIMABLE, SUNRECLAIM) = (
    M[n] for n in ("Dirty", "Writeback", "AnonPages", "Mapped", "KReclaimable", "Slab", "SReclaimable", "SUnreclaim")
)
(KERNEL_STACK, PAGE_TABLES, COMMIT_LIMIT, COMMITTED_AS, VMALLOC_TOTAL, PERCPU) = (
    M[n] for n in ("KernelStack", "PageTables", "CommitLimit", "Committed_AS", "VmallocTotal", "Percpu")
)
(HUGEPAGES_TOTAL, HUGETLB) = (M[n] for n in ("HugePages_Total", "Hugetlb"))
(HUGEPAGESIZE, DIRECT_MAP_2M, LRU_FIRST, SHMEM, ANON_HUGE_PAGES) = (
    M[n] for n in ("Hugepagesize", "DirectMap2M", "Active(anon)", "Shmem", "AnonHugePages")
)
KB = 4  # kB per page
VMALLOC_TOTAL_KB = 34359738367  # 4-level paging
HUGEPAGE_KB = 2048


@law
def mem_available(row):
    """MemAvailable, pages.

    Source: mm/show_mem.c si_mem_available; kernel-laws §5.2, T-5.1.
    """
    low = 0
    for z in range(NR_ZONES):
        low += row["zones"][z]["wmark"][WMARK_LOW]
    tree = row["cgroups"][0]["tree"]
    return si_mem_available(nr_free(row), row["totalreserve"], tree[2] + tree[3], row["slab_reclaimable"], low)


@law
def meminfo(row, out):
    """The lines of /proc/meminfo, as the kernel prints them.

    out  int64[len(MEMINFO_FIELDS)]  kB (HugePages_*: counts)

    Source: fs/proc/meminfo.c meminfo_proc_show; kernel-laws §5.1.
    """
    tree = row["cgroups"][0]["tree"]
    out[:] = 0
    out[MEM_TOTAL] = row["totalram"] * KB
    out[MEM_FREE] = nr_free(row) * KB
    out[MEM_AVAILABLE] = mem_available(row) * KB
    out[BUFFERS] = row["buffers"] * KB
    out[CACHED] = (row["nr_file_lru"] + row["shmem"] + row["unlisted_file"] - row["buffers"]) * KB
    out[SHMEM] = row["shmem"] * KB
    out[SWAP_CACHED] = row["swap_cache"] * KB
    out[ACTIVE] = (tree[1] + tree[3]) * KB
    out[INACTIVE] = (tree[0] + tree[2]) * KB
    out[LRU_FIRST] = tree[1] * KB  # Active(anon) Inactive(anon) Active(file) Inactive(file)
    out[LRU_FIRST + 1] = tree[0] * KB
    out[LRU_FIRST + 2] = tree[3] * KB
    out[LRU_FIRST + 3] = tree[2] * KB
    out[UNEVICTABLE] = (tree[4] + row["mlocked"]) * KB
    out[MLOCKED] = (tree[4] + row["mlocked"]) * KB
    out[SWAP_TOTAL] = row["swap_total"] * KB
    out[SWAP_FREE] = row["swap_free"] * KB
    out[DIRTY] = (row["nr_dirty"] + row["ext4_journal"]["dirty"]) * KB
    out[WRITEBACK] = (row["nr_writeback"] + swap_writeback(row)) * KB
    out[ANON_PAGES] = row["anon_mapped"] * KB
    out[MAPPED] = row["file_mapped"] * KB
    out[KRECLAIMABLE] = row["slab_reclaimable"] * KB
    out[SLAB] = (row["slab_reclaimable"] + row["slab_unreclaimable"]) * KB
    out[SRECLAIMABLE] = row["slab_reclaimable"] * KB
    out[SUNRECLAIM] = row["slab_unreclaimable"] * KB
    out[KERNEL_STACK] = row["kernel_stack"] * KB
    out[ANON_HUGE_PAGES] = row["anon_thp"] * HUGEPAGE_KB
    out[PAGE_TABLES] = row["page_tables"] * KB
    sysctl = row["sysctl"]
    out[COMMIT_LIMIT] = KB * commit_limit(
        row["totalram"], row["hugetlb"], sysctl["overcommit_ratio"], sysctl["overcommit_kbytes"], row["swap_total"]
    )
    out[COMMITTED_AS] = row["committed"] * KB
    out[VMALLOC_TOTAL] = VMALLOC_TOTAL_KB
    out[PERCPU] = row["percpu"] * KB
    pool = row["hstates"][0]
    out[HUGEPAGES_TOTAL] = pool["nr"]
    out[HUGEPAGES_TOTAL + 1] = pool["free"]
    out[HUGEPAGES_TOTAL + 2] = pool["resv"]
    out[HUGEPAGES_TOTAL + 3] = pool["surplus"]
    out[HUGEPAGESIZE] = HUGEPAGE_KB
    out[HUGETLB] = row["hugetlb"] * KB
    out[DIRECT_MAP_2M] = row["totalram"] * KB // HUGEPAGE_KB * HUGEPAGE_KB


# the gauges among vmstat's lines, written from the tables at each reading; all others are event counters in row["vm"]
(NR_FREE_PAGES, NR_INACTIVE_ANON, NR_MLOCK, NR_SLAB_R, NR_SLAB_U, NR_ANON_PAGES, NR_MAPPED) = (
    VM[n]
    for n in (
        "nr_free_pages",
        "nr_inactive_anon",
        "nr_mlock",
        "nr_slab_reclaimable",
        "nr_slab_unreclaimable",
        "nr_anon_pages",
        "nr_mapped",
    )
)
(NR_SHMEM, NR_FILE_PAGES, NR_KERNEL_STACK, NR_PAGE_TABLE, NR_SWAPCACHED, NR_DIRTY_THRESHOLD, NR_ZONE_INACTIVE_ANON) = (
    VM[n]
    for n in (
        "nr_shmem",
        "nr_file_pages",
        "nr_kernel_stack",
        "nr_page_table_pages",
        "nr_swapcached",
        "nr_dirty_threshold",
        "nr_zone_inactive_anon",
    )
)
NR_DIRTY, NR_WRITEBACK, NR_ZONE_WRITE_PENDING = VM["nr_dirty"], VM["nr_writeback"], VM["nr_zone_write_pending"]
NR_ZSPAGES = VM["nr_zspages"]
NR_ANON_THPS = VM["nr_anon_transparent_hugepages"]
NUMA_HIT, NUMA_LOCAL = VM["numa_hit"], VM["numa_local"]

WORKINGSET_NODES = VM["workingset_nodes"]


@law
def vmstat(row, out):
    """The lines of /proc/vmstat, as the kernel prints them.

    out  int64[len(VMSTAT_FIELDS)]

    Source: mm/vmstat.c vmstat_start; kernel-laws §5.5.
    """
    tree = row["cgroups"][0]["tree"]
    for i in range(len(out)):  # a loop compiles two seconds faster than out[:] = (Numba's check of shapes)
        out[i] = row["vm"][i]
    free = nr_free(row)
    out[NR_FREE_PAGES] = free
    if row["nr_nodes"] == 1:  # every page is local
        out[NUMA_LOCAL] = out[NUMA_HIT]
    else:
        for node in range(row["nr_nodes"]):
            for stat in range(NR_NUMA_STATS):
                out[NUMA_HIT + stat] += row["numa"][node][stat]
    for lru in range(5):  # inactive_anon active_anon inactive_file active_file unevictable, in both orders the same
        pages = tree[lru] + (row["mlocked"] if lru == 4 else 0)
        out[NR_INACTIVE_ANON + lru] = pages
        out[NR_ZONE_INACTIVE_ANON + lru] = pages
    out[NR_MLOCK] = row["mlocked"] + tree[4]
    out[NR_SLAB_R] = row["slab_reclaimable"]
    out[NR_SLAB_U] = row["slab_unreclaimable"]
    out[NR_ANON_PAGES] = row["anon_mapped"]
    out[NR_MAPPED] = row["file_mapped"]
    out[NR_FILE_PAGES] = row["nr_file_lru"] + row["shmem"] + row["unlisted_file"] + row["swap_cache"]
    out[NR_SHMEM] = row["shmem"]
    out[WORKINGSET_NODES] = row["workingset_nodes"]
    out[NR_KERNEL_STACK] = row["kernel_stack"] * KB
    out[NR_PAGE_TABLE] = row["page_tables"]
    out[NR_SWAPCACHED] = row["swap_cache"]
    out[NR_DIRTY] = row["nr_dirty"] + row["ext4_journal"]["dirty"]
    out[NR_WRITEBACK] = row["nr_writeback"] + swap_writeback(row)
    out[NR_ZONE_WRITE_PENDING] = out[NR_DIRTY] + out[NR_WRITEBACK]
    thresh, background, _ = domain_dirty_limits(row, host_avail(row))
    out[NR_ZSPAGES] = row["zram"]["pages"] + (row["zswap"]["pages"] if row["zswap"]["pool"] == ZSMALLOC else 0)
    out[NR_ANON_THPS] = row["anon_thp"]
    out[NR_DIRTY_THRESHOLD] = thresh
    out[NR_DIRTY_THRESHOLD + 1] = background
