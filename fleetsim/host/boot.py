# SPDX-License-Identifier: Apache-2.0
"""From a `HostSpec` to a record: zones, watermarks, pools at boot, cgroups, files, tasks and their scripts.

A host booted from its size alone gets the pools a small Debian server shows when idle; one replayed from a recording
gets exactly what was measured at its start (`HostSpec.measured`).
"""

from __future__ import annotations

from typing import Any

from fleetsim.errors import BadInput
from fleetsim.hardware.cpu import PROFILES, costs
from fleetsim.host.boot_swap import disks, swap_areas
from fleetsim.host.cgroups import cgroups
from fleetsim.host.pods import add_pod, configure
from fleetsim.host.programs import Names, add_file, add_task, expect_files
from fleetsim.host.spec import HostSpec, KubeletSpec
from fleetsim.linux import mm_types as mm
from fleetsim.linux import mmzone
from fleetsim.linux.drop_caches import drop_pagecache
from fleetsim.linux.free_area import put_merged, take_blocks
from fleetsim.linux.fs_types import NR_MOUNTS
from fleetsim.linux.hugetlb import GIGANTIC, HUGE, resize_pool
from fleetsim.linux.oom_badness import OOM_HEURISTICS
from fleetsim.linux.page_alloc import calculate_min_free_kbytes, recommended_min_free_kbytes
from fleetsim.linux.page_writeback_laws import DIRTY_POLL_THRESH, INIT_BW
from fleetsim.linux.per_cpu_pages import OTHERS
from fleetsim.linux.proc_sysctl import setup_per_zone_wmarks
from fleetsim.linux.shmem import SHM_MNT
from fleetsim.linux.slab_caches import CACHES
from fleetsim.linux.slub import unpin_boot
from fleetsim.linux.sysctl import SYSCTL_NAMES, counterpart
from fleetsim.linux.sysctl_paths import lru_gen_caps

PAGE = 4096
DMA_PAGES = 3840  # 16 MiB less what the firmware keeps (kernel-laws §1.1)
DMA32_END = 3 * (1 << 30) // PAGE  # 4 GiB less the PCI hole
MEMMAP_PER_MILLE = 16  # 64 B of struct page per 4 KiB page
BOOT_PCP_PAGES = 1_750  # a CPU's lists after boot: 1,450 to 2,070 pages in six recordings (what came back when kswapd first ran)
FAR_SHARE = (2, 5)  # of what the kernel keeps at boot the node without the kernel's image has 4,453 of 11,474 pages (h51)
KERNEL_IMAGE_PAGES = 6_000  # text, data and early allocations of a distribution kernel
NEVER = 1 << 62
THP_ENABLED = ("never", "madvise", "always")
THP_DEFRAG = ("never", "madvise", "defer", "defer+madvise", "always")
THP_MEMORY_MIN = 512 << 20  # below it huge pages are off (mm/huge_memory.c hugepage_init)


def boot(spec: HostSpec, row: Any, host_key: int, tick_ns: int) -> Names:
    """Fill `row` (zeroed) from `spec`; the result holds the names beside it.

    BadInput if the host cannot be built: too many tasks, unknown cgroup, limits for a cgroup file we do not have …
    """
    names = Names(spec.name)
    row["host_key"], row["boot_unix_s"], row["tick_ns"] = host_key, spec.boot_unix_s, tick_ns
    row["cpus"] = spec.cpus
    if spec.numa_nodes not in (1, 2) or spec.numa_nodes > spec.cpus:
        raise BadInput(f"host {spec.name}: it can have 1 or 2 NUMA nodes with at least one CPU each, not {spec.numa_nodes}")
    if spec.oom_heuristic not in OOM_HEURISTICS:
        raise BadInput(f"host {spec.name}: unknown OOM heuristic {spec.oom_heuristic!r}; known are {', '.join(OOM_HEURISTICS)}")
    row["oom_heuristic"] = OOM_HEURISTICS.index(spec.oom_heuristic)
    try:
        row["cost"] = costs(spec.cpu_profile)
    except KeyError:
        raise BadInput(f"host {spec.name}: unknown CPU profile {spec.cpu_profile!r}; known are {', '.join(PROFILES)}") from None
    clear_tables(row)
    row["nr_nodes"] = spec.numa_nodes
    if spec.measured:
        measured_pools(row, spec.measured)
    else:
        default_pools(row, spec)
    set_sysctls(row, spec)
    setup_per_zone_wmarks(row)
    fill_free_lists(row, spec.measured)
    if not spec.measured:
        resize_pool(row, 1, spec.hugepages_1gib)
        resize_pool(row, 0, int(spec.sysctl.get("vm.nr_hugepages", 0)))
    row["hstates"][0]["overcommit"] = int(spec.sysctl.get("vm.nr_overcommit_hugepages", 0))
    disks(row, spec)
    swap_areas(row, spec, names)
    cgroups(row, spec, names)
    mount_tmpfs(row, spec, names)
    for path, size in spec.files.items():
        add_file(row, names, path, max(1, size // PAGE))
    names.directories.update(spec.directories)
    for task in spec.tasks:
        expect_files(row, names, task.ops)
    for task in spec.tasks:
        add_task(row, names, task, started=True)
    for pod in spec.pods:
        add_pod(row, names, pod, at_boot=True)
    if spec.pods or spec.kubelet != KubeletSpec():
        configure(row, spec.kubelet)
    row["next_pid"] = 83
    return names


def clear_tables(row: Any) -> None:
    row["cohorts"]["group"] = -1
    row["cohorts"]["list"] = mm.LRU_NONE
    row["cohorts"]["home"] = -1
    row["zones"]["region"] = -1
    row["files"]["group"] = -1
    row["handles"] = -1
    row["name_trees"]["kind"] = -1
    row["ext4_journal"]["commit_ns"] = row["ext4_journal"]["write_ns"] = row["ext4_journal"]["next_ns"] = NEVER
    row["user_min_free_kbytes"] = -1
    row["kswapd"]["next_ns"] = NEVER
    row["mems_allowed"] = row["reclaim_nodes"] = mm.ALL_NODES
    row["zones"]["kind"] = (mm.ZONE_DMA, mm.ZONE_DMA32, mm.ZONE_NORMAL, mm.ZONE_NORMAL)
    row["zones"]["node"][mm.ZONE_NODE1] = 1
    row["bdi"]["next_ns"] = row["bdi"]["wake_ns"] = NEVER
    for estimate in ("write_bandwidth", "avg_write_bandwidth", "dirty_ratelimit", "balanced_dirty_ratelimit"):
        row["bdi"][estimate] = INIT_BW
    row["journal"]["begun_ns"], row["journal"]["next_ns"] = -1, NEVER
    row["threads"]["nr_dirtied_pause"] = DIRTY_POLL_THRESH
    row["kswapd"]["cursor"] = -1
    row["kcompactd_next_ns"] = NEVER
    row["khugepaged_next_ns"] = NEVER
    row["psi_next_ns"] = 2 * mm.NS_PER_S
    row["reschedule"] = 1
    row["load_next_ns"] = 5 * mm.NS_PER_S
    row["slow_next_ns"] = 10 * mm.NS_PER_S
    row["scan"]["priority"] = mm.DEF_PRIORITY


def mount_tmpfs(row: Any, spec: HostSpec, names: Names) -> None:
    """The kernel's own mount, which has no limit, and those of the specification; half of MemTotal where no size is given."""
    row["mounts"][SHM_MNT] = (1, mm.NO_LIMIT, 0)
    if len(spec.tmpfs) >= NR_MOUNTS:
        raise BadInput(f"host {spec.name}: more than {NR_MOUNTS - 1} tmpfs mounts")
    for path, size in spec.tmpfs.items():
        number = len(names.mounts) + 1
        names.mounts[path.rstrip("/")] = number
        row["mounts"][number] = (1, size // PAGE if size else int(row["totalram"]) // 2, 0)


def mem_total_pages(memory_bytes: int) -> int:
    """MemTotal of a host with so much installed RAM, in pages: a Kubernetes node's capacity."""
    installed = memory_bytes // PAGE
    return installed - installed * MEMMAP_PER_MILLE // 1000 - KERNEL_IMAGE_PAGES


def default_pools(row: Any, spec: HostSpec) -> None:
    """Pools of an idle server of this size: what the kernel keeps grows with the machine, the image does not."""
    total = mem_total_pages(spec.memory_bytes)
    if total < 4 * DMA_PAGES:
        raise BadInput(f"host {spec.name}: {spec.memory_bytes} bytes of memory are too few to boot; give it at least 128MiB")
    row["totalram"] = total
    far = total // 2 if spec.numa_nodes > 1 else 0
    near = total - far
    dma32 = min(near - DMA_PAGES, DMA32_END)
    for z, managed in enumerate((DMA_PAGES, dma32, near - DMA_PAGES - dma32, far)):
        row["zones"][z]["managed"] = managed
    if total <= DMA32_END:  # all of it below 4 GiB
        row["zones"][mm.ZONE_NODE1]["kind"] = mm.ZONE_DMA32
    row["slab_reclaimable"] = 4_000 + total // 512
    row["slab_unreclaimable"] = 3_000 + total // 512
    row["kernel_stack"] = 300 + 16 * spec.cpus
    row["page_tables"] = 200
    row["percpu"] = 64 * spec.cpus
    row["other_kernel"] = 2_000 + total // 256
    row["unlisted_file"] = 1_500
    row["unlisted_anon"] = 1_000
    row["slab"]["objects"], row["slab"]["slabs"] = [c[5] for c in CACHES], [c[6] for c in CACHES]
    used = sum(int(row[name]) for name in KERNEL_POOLS)
    pin_at_boot(row, used)
    row["anon_mapped"] = row["unlisted_anon"]


KERNEL_POOLS = (
    "slab_reclaimable",
    "slab_unreclaimable",
    "kernel_stack",
    "page_tables",
    "percpu",
    "other_kernel",
    "unlisted_file",
    "unlisted_anon",
    "hugetlb",
)


def pin_at_boot(row: Any, used: int) -> None:
    """Take `used` pages from the highest zone down, leaving each lower zone as full as can be; some of them from the second node."""
    rest = used
    for z in (3, 2, 1, 0):
        zone = row["zones"][z]
        taken = min(rest, int(zone["managed"]) * 9 // 10 if z else int(zone["managed"]))
        if z == mm.ZONE_NODE1:
            taken = min(taken, used * FAR_SHARE[0] // FAR_SHARE[1])
        zone["pinned"] = zone["boot_pinned"] = taken
        zone["free"] = zone["managed"] - taken
        rest -= taken
    far = row["zones"][mm.ZONE_NODE1]
    taken = min(rest, int(far["free"]) // 2)  # a first node too small for it all
    far["pinned"] += taken
    far["boot_pinned"] += taken
    far["free"] -= taken
    if rest > taken:
        raise BadInput(f"{int(row['totalram']) // 256} MiB are too few to boot with two NUMA nodes; give the host at least 128MiB")


def measured_pools(row: Any, start: Any) -> None:
    """Pools of a recorded host: `start` has `zones` (managed_pages, free_pages) and `meminfo` (kB) as read at its start."""
    info, zones = start["meminfo"], start["zones"]
    row["totalram"] = start["MemTotal_kB"] // 4
    free = 0
    names = dict(enumerate(mm.ZONE_NAMES))
    for kind, name in enumerate(mm.ZONE_NAMES):  # the second node's only zone with pages
        if zones.get(f"N1.{name}", {}).get("managed_pages", 0) > 0:
            names[mm.ZONE_NODE1], row["zones"][mm.ZONE_NODE1]["kind"] = f"N1.{name}", kind
    for z, name in names.items():
        if name not in zones:
            continue
        zone = row["zones"][z]
        zone["managed"], zone["free"] = zones[name]["managed_pages"], zones[name]["free_pages"]
        zone["pinned"] = zone["boot_pinned"] = zone["managed"] - zone["free"]
        free += int(zone["free"])
    for field, key in (
        ("slab_reclaimable", "SReclaimable"),
        ("slab_unreclaimable", "SUnreclaim"),
        ("kernel_stack", "KernelStack"),
        ("page_tables", "PageTables"),
        ("percpu", "Percpu"),
        ("hugetlb", "Hugetlb"),
        ("mlocked", "Mlocked"),
        ("unlisted_anon", "AnonPages"),
        ("unlisted_file", "Cached"),
    ):
        row[field] = info.get(key, 0) // 4
    row["anon_mapped"] = row["unlisted_anon"]
    row["file_mapped"] = row["boot_mapped"] = info.get("Mapped", 0) // 4
    row["committed"] = info.get("Committed_AS", 0) // 4
    for i, cache in enumerate(CACHES):
        row["slab"][i]["objects"], row["slab"][i]["slabs"] = start.get("slabs", {}).get(cache[0], cache[5:7])
    pool = row["hstates"][0]
    pool["nr"], pool["free"] = info.get("HugePages_Total", 0), info.get("HugePages_Free", 0)
    pool["resv"], pool["surplus"] = info.get("HugePages_Rsvd", 0), info.get("HugePages_Surp", 0)
    row["hstates"][1]["nr"] = row["hstates"][1]["free"] = (int(row["hugetlb"]) - int(pool["nr"]) * HUGE) // GIGANTIC
    unpin_boot(row, int(row["hugetlb"]))
    named = sum(int(row[name]) for name in KERNEL_POOLS if name != "other_kernel")
    row["other_kernel"] = int(row["totalram"]) - free - named


def set_sysctls(row: Any, spec: HostSpec) -> None:
    sysctl = row["sysctl"]
    sysctl["swappiness"], sysctl["overcommit_ratio"], sysctl["page_cluster"] = 60, 50, 3
    sysctl["vfs_cache_pressure"] = 100
    row["randomize_va_space"] = 2
    sysctl["min_unmapped_ratio"] = 1
    sysctl["compaction_proactiveness"], sysctl["compact_unevictable_allowed"], sysctl["extfrag_threshold"] = 20, 1, 500
    sysctl["watermark_boost_factor"] = 15_000
    row["thp_enabled"] = THP_ENABLED.index(spec.thp) if spec.memory_bytes >= THP_MEMORY_MIN else 0
    row["lru_gen"] = lru_gen_caps(spec.lru_gen, "lru_gen")
    row["lru_gen_min_ttl"] = spec.lru_gen_min_ttl_ms * mm.NS_PER_MS
    row["thp_defrag"] = THP_DEFRAG.index(spec.thp_defrag)
    sysctl["dirty_ratio"], sysctl["dirty_background_ratio"], sysctl["watermark_scale_factor"] = 20, 10, 10
    sysctl["dirty_expire_centisecs"], sysctl["dirty_writeback_centisecs"] = 3_000, 500
    free_kb = sum(int(z["free"]) for z in row["zones"]) * 4
    sysctl["admin_reserve_kbytes"] = min(free_kb // 32, 8_192)
    sysctl["user_reserve_kbytes"] = min(free_kb // 32, 131_072)
    zones = [z for z in row["zones"] if z["managed"] > 0]
    managed = sum(int(z["managed"]) for z in zones)
    base = calculate_min_free_kbytes(managed * 4)
    sysctl["min_free_kbytes"] = base if spec.thp == "never" else recommended_min_free_kbytes(base, len(zones), managed)
    for name, value in spec.sysctl.items():
        set_sysctl(row, name, int(value))


def set_sysctl(row: Any, name: str, value: int) -> bool:
    """Write one `vm.*` knob; False if this kernel does not simulate it (it exists, but nothing here reads it)."""
    field = name.removeprefix("vm.").replace("-", "_")
    if field == "drop_caches" and value & 1:
        drop_pagecache(row)
    if field == "nr_hugepages" and int(row["totalreserve"]) > 0:  # the host is up
        resize_pool(row, 0, value)
        return True
    if name == "kernel.randomize_va_space":
        row["randomize_va_space"] = value
        return True
    if field not in SYSCTL_NAMES:
        return False
    row["sysctl"][field] = value
    twin = counterpart("vm." + field)
    if twin and value > 0 and twin.removeprefix("vm.") in SYSCTL_NAMES:
        row["sysctl"][twin.removeprefix("vm.")] = 0
    if field in ("min_free_kbytes", "watermark_scale_factor", "watermark_boost_factor"):
        setup_per_zone_wmarks(row)
    return True


def fill_free_lists(row: Any, measured: Any) -> None:
    """Free blocks at boot: as recorded, else whole but for the remainder; and what boot left on the per-cpu lists."""
    recorded = pagetypeinfo(measured.get("pagetypeinfo", "")) if measured else {}
    for zone in row["zones"]:
        if not zone["managed"]:
            continue
        lists, blocks = recorded.get((int(zone["node"]), mm.ZONE_NAMES[int(zone["kind"])]), ([], []))
        zone["pageblocks"] = blocks or (0, (int(zone["managed"]) + 511) >> mmzone.PAGEBLOCK_ORDER, 0)
        for mt, counts in enumerate(lists):
            zone["free_area"][mt] = counts
            zone["listed"] += sum(n << order for order, n in enumerate(counts))
        missing = int(zone["free"]) - int(zone["listed"])
        if missing > 0:
            put_merged(zone, mmzone.MIGRATE_MOVABLE, missing)
        elif missing < 0:
            take_blocks(zone, mmzone.MIGRATE_MOVABLE, -missing)
    top = max(z for z in range(mm.ZONE_NODE1) if row["zones"][z]["managed"])
    zone = row["zones"][top]
    left = min(BOOT_PCP_PAGES, int(zone["pcp_high"]) // 2, int(row["other_kernel"]) // 2, int(zone["pinned"]) // 2)
    zone["pcp"][OTHERS] = left
    zone["pinned"] -= left
    zone["boot_pinned"] -= left
    row["other_kernel"] -= left


def pagetypeinfo(text: str) -> dict[tuple[int, str], tuple[list[list[int]], list[int]]]:
    """/proc/pagetypeinfo → (node, zone) → (free blocks of the three types by order, pageblocks of the three types)."""
    lists: dict[tuple[int, str], list[list[int]]] = {}
    blocks: dict[tuple[int, str], list[int]] = {}
    for line in text.splitlines():
        words = line.replace(",", " ").replace(">", " ").split()
        if words[:1] != ["Node"]:
            continue
        zone = int(words[1]), words[3]
        if "type" in words:
            lists.setdefault(zone, []).append([int(n) for n in words[6 : 6 + mmzone.NR_ORDERS]])
        else:
            blocks[zone] = [int(n) for n in words[4 : 4 + mmzone.NR_MIGRATETYPES]]
    return {zone: (rows[: mmzone.NR_MIGRATETYPES], blocks.get(zone, [])) for zone, rows in lists.items()}
