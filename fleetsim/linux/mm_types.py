# SPDX-License-Identifier: Apache-2.0
"""The kernel's tables: everything of the simulated kernel that changes on a host, declared once.

Pages, nanoseconds, `int64` where it is summed; narrower only in the big tables. Every field names its unit and its kernel
counterpart. Rows are passed to laws by reference (`row["zones"][i]["free"]`: the same code runs compiled and as plain Python).

How memory is represented (design §3.2, measured in a prototype): a *group* is the pages of one area that are alike. An **ordered** group
(swept or streamed) is cut into consecutive slices, one cohort each; a **uniform** group (random access) keeps its resident pages in
bags. Both are rows of `COHORT`: a count of pages that stand together on one LRU list.
"""

from __future__ import annotations

import numpy as np

from fleetsim.linux.capacity_classes import CAPACITY, CGROUP_LINK
from fleetsim.linux.fs_types import DISK, FS_FIELDS
from fleetsim.linux.mmzone import NODE_FIELDS, NR_NODES, NR_REGIONS, REGION, ZONE
from fleetsim.linux.slab_types import KERNEL_OWN_FIELDS
from fleetsim.linux.swap_types import NR_DISKS, NR_SWAPFILES, SWAP_FIELDS
from fleetsim.linux.sysctl import SYSCTL
from fleetsim.linux.vmstat_names import CGROUP_EVENTS, CGROUP_STAT, VMSTAT_FIELDS
from fleetsim.linux.workers import CPU, KSWAPD, LRU_GEN, SCAN_CONTROL

# --- capacities of the size class in use (a full table answers as the kernel would: ENOMEM, EAGAIN, and an event) ----
NR_ZONES = 4
NR_CGROUPS = CAPACITY.cgroups
NR_TASKS, NR_THREADS = CAPACITY.tasks, CAPACITY.threads
NR_AREAS, NR_GROUPS, NR_COHORTS = CAPACITY.areas, CAPACITY.groups, CAPACITY.cohorts
NR_WRITEBACK = CAPACITY.writeback
NR_EVENTS = CAPACITY.events
NR_CPUS = CAPACITY.cpus

# --- zones, in the order of physical addresses (include/linux/mmzone.h); the second NUMA node has one -----------------
ZONE_DMA, ZONE_DMA32, ZONE_NORMAL, ZONE_NODE1 = 0, 1, 2, 3
ZONE_NAMES = ("DMA", "DMA32", "Normal")  # of zone["kind"]
ALL_NODES = (1 << NR_NODES) - 1

# --- LRU lists (include/linux/mmzone.h, enum lru_list) ---------------------------------------------------------------
LRU_INACTIVE_ANON, LRU_ACTIVE_ANON, LRU_INACTIVE_FILE, LRU_ACTIVE_FILE, LRU_UNEVICTABLE = 0, 1, 2, 3, 4
NR_LRU_LISTS, LRU_NONE = 5, -1

SWAP_CLUSTER_MAX = 32  # pages a reclaimer aims at (include/linux/swap.h)
DEF_PRIORITY = 12  # where a reclaim pass begins (include/linux/mmzone.h)
MAX_RECLAIM_RETRIES = 16  # fruitless rounds before OOM (mm/internal.h)
MEMCG_CHARGE_BATCH = 64  # pages charged ahead (include/linux/memcontrol.h)
PAGE_SHIFT = 12
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
NEVER = 1 << 62  # an instant that does not come
NO_LIMIT = 1 << 50  # pages: "max" in a cgroup file
WMARK_MIN, WMARK_LOW, WMARK_HIGH = 0, 1, 2

# --- cohort flags ----------------------------------------------------------------------------------------------------
REFERENCED = 1  # PG_referenced
WORKINGSET = 2  # PG_workingset
SHADOW_WORKINGSET = 4  # the shadow left behind by the evicted pages had PG_workingset
ACCESSED = 8  # the PTE accessed bit is set on the pages (ordered groups; bags count instead)
RECLAIM = 16  # PG_reclaim: reclaim met the pages dirty or under writeback; once they are written they go first
SETTLED = 32  # of the pages in the swap cache some are written and not tracked: they go when a scan meets the cohort
IN_FILTER = 64  # MGLRU: the next aging walks the page tables of this ordered cohort (lru_gen_age.py)

# --- area and group kinds --------------------------------------------------------------------------------------------
AREA_FREE, AREA_ANON, AREA_FILE, AREA_SHMEM, AREA_HUGETLB = 0, 1, 2, 3, 8
ORDERED, UNIFORM = 0, 1
METADATA = 2  # group["is_file"]: blocks of a file system's own

# --- task states -----------------------------------------------------------------------------------------------------
OOM_KILLED, OOM_REAPED = 1, 2
TASK_FREE, TASK_WAITING, TASK_RUNNING, TASK_EXITING, TASK_DEAD = 0, 1, 2, 3, 4

# --- kswapd's states, who reclaims, kinds of stall ------------------------------------------------------------------------
KSWAPD_SLEEP, KSWAPD_RUN, KSWAPD_NAP = 0, 1, 2
BY_KSWAPD, BY_DIRECT, BY_MEMCG = 0, 1, 2
PSI_CPU, PSI_IO, PSI_MEM = 0, 1, 2
PSI_SOME, PSI_FULL = 0, 1

# --- what a CPU's time went into, in the order of /proc/stat ---------------------------------------------------------
HELD_BY_THREAD, HELD_BY_KSWAPD, HELD_BY_EXIT = 0, 1, 1 + NR_NODES
CPU_USER, CPU_NICE, CPU_SYSTEM, CPU_IDLE, CPU_IOWAIT = 0, 1, 2, 3, 4
VM = {name: i for i, name in enumerate(VMSTAT_FIELDS)}  # /proc/vmstat's names → position in row["vm"]
CG = {name: i for i, name in enumerate(CGROUP_STAT)}  # memory.stat's event counters → position in cgroup["stat"]
EV = {name: i for i, name in enumerate(CGROUP_EVENTS)}

CGROUP = np.dtype(
    [
        ("used", "i1"),  # 1 if the row is a cgroup
        ("parent", "i2"),  # row of the parent, −1 for the root; these come first as reclaim looks at them for every cgroup of every pass
        ("children", "i2"),  # cgroups right below it, removed ones included as long as they have a row
        ("owed", "i2"),  # pages of small scans of its inactive file pages that kswapd lets add up (kswapd_turns.py)
        ("dentries", "i4"),  # unused names and inodes on its LRU lists
        ("inodes", "i4"),
        ("shadow_nodes", "i4"),  # nodes of page-cache trees that hold nothing but shadows
        ("xa_nodes", "i4"),  # … all nodes
        ("xa_wanted", "i4"),  # … as many as its cached pages need
        ("swap_max", "i8"),
        ("size", "i8", (NR_LRU_LISTS,)),  # pages on each list of this lruvec
        ("tree", "i8", (NR_LRU_LISTS,)),  # … with all descendants
        ("usage", "i8"),  # memory.current, pages, with children; this and the next three are checked all the time
        ("swap", "i8"),  # memory.swap.current, pages
        ("anon", "i8"),  # memory.stat anon, pages, with children
        ("file", "i8"),  # memory.stat file
        ("slab_r", "i8"),  # bytes of slab objects charged to it alone, reclaimable …
        ("slab_u", "i8"),  # … and not
        ("head", "i2", (NR_LRU_LISTS,)),  # this lruvec's lists: newest cohort
        ("tail", "i2", (NR_LRU_LISTS,)),  # … and oldest, where reclaim looks
        ("nonresident_age", "i8"),  # the eviction clock (mm/workingset.c)
        ("peak", "i8"),
        ("max", "i8"),
        ("high", "i8"),
        ("min", "i8"),
        ("low", "i8"),
        ("swap_high", "i8"),
        ("zswap_max", "i4"),  # memory.zswap.max, pages, −1: max
        ("swapcached", "i4"),  # memory.stat swapcached: pages in the swap cache, with children
        ("oom_group", "i1"),
        ("cpuset_mems", "i1"),  # cpuset.mems: nodes, a bit each; 0: as the parent's
        ("emin", "i8"),  # effective protection, recomputed when reclaim visits
        ("elow", "i8"),
        ("shmem", "i8"),  # memory.stat shmem, part of file
        ("kernel", "i8"),  # page tables, stacks, slab
        ("pagetables", "i4"),
        ("file_dirty", "i8"),  # memory.stat file_dirty
        ("file_writeback", "i4"),
        ("anon_thp", "i4"),  # memory.stat anon_thp, pages
        ("anon_cost", "i8"),
        ("file_cost", "i8"),
        *LRU_GEN,  # MGLRU's generations, see lru_gen.py
        ("refaults", "i8", (2,)),  # workingset_activate_{anon,file} when the last reclaim ended
        ("stat", "i8", (len(CGROUP_STAT),)),  # with children
        ("events", "i4", (len(CGROUP_EVENTS),)),  # with children
        ("psi_total_ns", "i8", (3, 2)),
        ("psi_until_ns", "i8", (3, 2)),
        ("psi_full_to_ns", "i8", (3,)),
        ("psi_seen_us", "i4", (3, 2)),  # modulo 2^31
        ("psi_avg", "i4", (3, 2, 3)),
        ("jinodes", "i4"),  # … of its inodes, those once opened for writing
        ("deferred", "i4", (2,)),  # nr_deferred of the superblock's shrinker and of the shadow nodes'
    ]
)

TASK = np.dtype(
    [
        ("state", "i1"),
        ("pid", "i4"),
        ("cg", "i2"),
        ("oom_score_adj", "i4"),
        ("rss_anon", "i8"),  # pages
        ("rss_file", "i8"),
        ("rss_shmem", "i8"),
        ("swapents", "i8"),
        ("pgtables", "i8"),  # pages of page tables, without PUDs
        ("total_vm", "i8"),  # pages of address space
        ("data_vm", "i8"),
        ("untouched_vm", "i8"),  # … of it in mappings that are never touched and have no row of their own
        ("hwm", "i8"),  # most resident pages so far
        ("parent", "i2"),  # task that forked it, −1: started by exec
        ("base_file", "i4"),  # part of rss_file outside every area: the program's text
        ("base_shared", "i4"),  # part of rss_anon that a child shares with its parent's image
        ("base_anon", "i4"),  # part of rss_anon outside every area: stack, heap and data of the program itself
        ("base_stack", "i2"),  # … and of the kernel memory it brought with it
        ("base_slab", "i2"),
        ("mm_key", "i4"),  # whose address space it is: decides its layout, see mmap_layout.py
        ("hugetlb", "i4"),  # pages mapped of the hugetlb pools, in 4 KiB
        ("pipes", "i4"),  # pipes it has open, each with one page of data; of those that a fork shares, only the parent counts them
        ("inherited_pipes", "i4"),  # … pipes of its parent that it has open too
        ("minflt", "i8"),
        ("majflt", "i8"),
        ("utime_ns", "i8"),
        ("stime_ns", "i8"),
        ("blkio_ns", "i8"),
        ("started_ns", "i8"),
        ("exit_code", "i4"),
        ("exit_ready_ns", "i8"),  # next slice of the exit's teardown
        ("killed", "i1"),  # SIGKILL by the OOM killer; OOM_REAPED once the reaper took its memory (MMF_OOM_SKIP)
        ("nice", "i1"),
        ("superuser", "i1"),  # uid 0: only the historical OOM heuristic asks
        ("restart_ns", "i8"),  # pause after which a dead task starts again; −1: never
        ("exits", "i4"),  # deaths so far
        ("pid_ns", "i2"),  # one more than the row of its PID namespace's PID 1, 0: the host's own namespace
        ("main_thread", "i2"),
        ("node", "i1"),  # whose CPUs it runs on
        ("pinned", "i1"),  # 1: on no others (sched_setaffinity), 0: where there is room
        ("policy", "i1"),  # mempolicy.py MPOL_…
        ("policy_nodes", "i1"),  # … and its nodes, a bit each
        ("il_prev", "i1"),  # the node that interleaving used last
    ]
)

THREAD = np.dtype(
    [
        ("used", "i1"),
        ("task", "i2"),
        ("ready_ns", "i8"),  # when it can go on
        ("since_ns", "i8"),  # since when it could, had it had a CPU: of two that are ready the longer waiting goes first
        ("charge_retries", "i2"),  # fruitless rounds of the memcg charge in progress
        ("no_progress", "i2"),  # fruitless rounds of the page allocation in progress
        ("work_until_ns", "i8"),  # it is running and not stalled until then (see busy_until_ns)
        ("stalled", "i1"),  # … and then stalled: bits 1 << PSI_CPU, PSI_IO, PSI_MEM
        ("nr_dirtied", "i8"),  # pages dirtied since its last pause (current->nr_dirtied)
        ("nr_dirtied_pause", "i8"),  # … and at how many it pauses next
        ("dirty_paused_ns", "i8"),  # when its last pause for writeback ended
    ]
)

AREA = np.dtype(
    [
        ("kind", "i2"),
        ("task", "i2"),
        ("file", "i2"),  # row of the mapped file or shared object, −1 for none
        ("group", "i2"),  # first of `groups` consecutive groups
        ("groups", "i2"),
        ("accounted", "i1"),  # 1 if counted in Committed_AS
        ("pages", "i8"),
        ("touched", "i8"),  # pages written for the first time, in order
        ("zero", "i4"),  # private anonymous: pages never written that were read, so that they map the zero page
        ("walk_key", "i4"),  # what `walk_cost` was computed from …
        ("walk_cost", "i4"),  # … 1024ths of a nanosecond that address translation adds to an access (translation.py)
        ("tables", "i4"),  # page tables that stand, see pgtable.py
        ("start", "i4"),  # vm_start, in 2 MiB
        ("cut", "i4"),  # pages unmapped at its front
        ("thp_flag", "i1"),  # 1 MADV_HUGEPAGE, −1 MADV_NOHUGEPAGE
        ("hstate", "i1"),  # AREA_HUGETLB: the pool its pages are of, 0: 2 MiB, 1: 1 GiB
        ("locked", "i1"),  # VM_LOCKED: 1 mlock, 2 mlock on fault
        ("ahead", "i2"),  # pages behind `touched` that are there because they lie in a huge page
        ("pte_upto", "i4"),  # pages from the beginning below which page tables stand, even if they map nothing any more
    ]
)

GROUP = np.dtype(
    [
        ("used", "i1"),
        ("kind", "i1"),  # ORDERED or UNIFORM
        ("is_file", "i1"),  # its pages stand on file lists; METADATA: blocks of a file system's own (Buffers)
        ("shmem", "i1"),  # pages of a shared object that are backed by swap
        ("locked", "i1"),  # 1: new pages are mlocked
        ("in_filter", "i1"),  # MGLRU: 1 if the next aging walks its page tables (UNIFORM)
        ("ra_win", "i1"),  # pages of the last swap readahead, 0: there was none
        ("task", "i2"),  # whose RSS counts the pages; −1: those of the areas that map it (`maps`)
        ("maps", "i2"),  # first row of MAPPING, −1: mapped by nobody
        ("first", "i2"),  # its cohorts: rows first .. first+cohorts−1
        ("cohorts", "i2"),
        ("pages", "i8"),  # size of the group
        ("slice", "i4"),  # pages per cohort (ORDERED)
        ("resident", "i8"),  # Σ over cohorts
        ("swapped", "i8"),
        ("evicted", "i8"),
        ("touches", "i8"),  # accesses so far (UNIFORM): a bag's accessed share follows from their growth
        ("carry", "i8"),  # 2^20ths of a page owed by expected-value rounding
        ("carry_split", "i8"),  # the same for the split between hot and cold part
        ("mapped", "i8"),  # pages of a file or shared object that at least one task maps
        ("buffered", "i4"),  # resident file pages with a buffer_head: those that were written to
        ("below", "i2"),  # layer that a fork left shared under it, −1; see anon_vma.py
        ("cow", "i8"),  # pages write-protected since a fork; of a layer: pages that went to the only user who still saw them
        ("slots", "i4", (NR_SWAPFILES,)),  # swap slots in each area (kept in swap_mode 1 only) …
        ("stored", "i4"),  # … of them with their page in zram or zswap
        ("noise", "i2"),  # bytes of each page that do not compress; 0: all words alike
        ("zswap_cg", "i2"),  # cgroup that pays for what zswap holds of it
        ("huge", "i4"),  # huge pages; the lowest positions are
        ("huge_gone", "i4"),  # pages that left them, less than 512
    ]
)

COHORT = np.dtype(
    [
        ("prev", "i2"),  # towards the head (newer)
        ("next", "i2"),  # towards the tail (older)
        ("group", "i2"),
        ("cg", CGROUP_LINK),  # lruvec it is charged to
        ("shadow_cg", CGROUP_LINK),  # whose reclaim evicted: its clock the shadow counts; MGLRU: the lruvec it was evicted from
        ("list", "i1"),
        ("gen", "i1"),  # MGLRU: its generation's seq modulo MAX_NR_GENS
        ("refs", "i1"),  # MGLRU: accesses through file descriptors, as far as they are counted (lru_gen.py)
        ("flags", "i1"),
        ("nr", "i4"),  # pages on the list
        ("low_zone", "i4", (2,)),  # … of them in DMA and DMA32
        ("node1", "i4"),  # … of them on the second NUMA node
        ("wb", "i4"),  # anon: … in the swap cache, unmapped: being written out, or written and waiting to be freed; file: under writeback
        ("dirty", "i4"),  # … of them dirty (a page under writeback that was written to again is both)
        ("clean", "i4"),  # anonymous, mapped, dropped without IO: on an anon list they have a copy in swap, on a file list MADV_FREE
        ("swapped", "i4"),  # pages in swap only
        ("evicted", "i4"),  # file pages dropped
        ("off", "i4"),  # scan budget already spent on it at a tail
        ("home", "i1"),  # region its newest pages lie in, −1
        ("shadow", "i8"),  # eviction clock of the last page evicted; MGLRU: its min_seq and tier (workingset_clock.py)
        ("base", "i8"),  # UNIFORM: group["touches"] when the pages' accessed bits were last clear
        ("born", "i4"),  # UNIFORM: when the bag was opened, in 2^20 ns, modulo 2^31
    ]
)

WRITEBACK = np.dtype([("cohort", "i2"), ("pages", "i4"), ("done_ns", "i8")])  # swap-outs in flight, oldest first

EVENT = np.dtype([("t_ns", "i8"), ("seq", "i4"), ("kind", "i1"), ("subject", "i2"), ("arg", "i4", (8,))])

KERNEL_FIELDS = [
    # clocks
    ("now_ns", "i8"),
    ("boot_unix_s", "i8"),
    ("host_key", "i8"),  # keys this host's luck together with the seed
    # memory
    ("totalram", "i8"),
    ("zones", ZONE, (NR_ZONES,)),
    ("got", "i8", (NR_ZONES,)),  # result of the last allocation, by zone
    *NODE_FIELDS,
    ("regions", REGION, (NR_REGIONS,)),
    ("free_run", "i8"),  # how the pages given back now lie: 0 as they were taken, n in runs of n, −1 anywhere
    ("totalreserve", "i8"),
    ("slab_reclaimable", "i8"),
    ("slab_unreclaimable", "i8"),
    ("kernel_stack", "i8"),
    ("page_tables", "i8"),
    ("percpu", "i8"),
    ("hugetlb", "i8"),
    ("other_kernel", "i8"),  # pages with no meminfo field: drivers, network rings, the remainder at boot
    ("unlisted_anon", "i8"),  # anonymous pages of programs' own images: resident, on no list that reclaim looks at
    ("unlisted_file", "i8"),  # file pages pinned since boot (ramfs text, kernel threads)
    ("mlocked", "i8"),
    ("buffers", "i8"),
    ("committed", "i8"),
    ("swap_total", "i8"),
    ("swap_free", "i8"),
    ("swap_cache", "i8"),
    ("shmem", "i8"),  # NR_SHMEM
    ("lazy", "i8"),  # MADV_FREE'd pages that nobody wrote to since
    ("swap_clean", "i8"),  # slots held by mapped clean pages alone: given up when swap is more than half full
    ("anon_mapped", "i8"),  # NR_ANON_MAPPED
    ("anon_thp", "i4"),  # huge pages mapped
    ("thp_enabled", "i8"),  # transparent_hugepage/enabled and /defrag, see huge_memory.py
    ("thp_defrag", "i8"),
    ("lru_gen", "i8"),  # lru_gen/enabled, see lru_gen.py
    ("lru_gen_min_ttl", "i8"),  # lru_gen/min_ttl_ms, ns
    ("in_lru_fault", "i8"),  # 1: what runs just now touches mapped memory, 0: it is a system call (current->in_lru_fault)
    ("kcompactd_next_ns", "i8"),
    ("kcompactd_max_order", "i8"),  # order it was asked to compact for, 0: nobody asked
    ("boosted", "i8"),  # 1: some zone is `boosted`
    ("khugepaged_next_ns", "i8"),
    ("khugepaged_area", "i8"),
    ("khugepaged_at", "i8"),
    ("file_mapped", "i8"),
    ("boot_mapped", "i8"),  # … of them mapped by what ran when the host was up
    ("nr_file_lru", "i8"),
    ("vm", "i8", (len(VMSTAT_FIELDS),)),
    ("sysctl", SYSCTL),
    *KERNEL_OWN_FIELDS,
    ("cost", "i8", (48,)),  # the CPU profile, see hardware/cpu.py
    ("cpus", "i8"),
    ("cpu", CPU, (NR_CPUS,)),
    ("cpu_ns", "i8", (8,)),  # Σ over CPUs at the last look, in the order of /proc/stat (account_cpus)
    ("loadavg", "i8", (3,)),
    ("disk", DISK, (NR_DISKS,)),  # 0 data, then those of swap areas
    ("swap_disk", "i8"),  # the disk of area 0
    *SWAP_FIELDS,
    ("kswapd", KSWAPD, (NR_NODES,)),
    ("scan", SCAN_CONTROL, (3,)),  # 0 kswapd's, 1 of whoever reclaims directly just now, 2 of the second node's kswapd
    ("writeback", WRITEBACK, (NR_WRITEBACK,)),
    ("wb_head", "i8"),
    ("wb_count", "i8"),
    ("next_pid", "i8"),
    ("nr_exits", "i8"),  # processes that are gone so far
    # what the syscall in progress cost its caller, see linux/syscalls.py
    ("spent_ns", "i8"),  # CPU time
    ("protected", "i8"),  # 1: some cgroup had a memory.min or memory.low, so effective protections must be computed
    ("oom_heuristic", "i8"),  # OOM_PROPORTIONAL, or OOM_2_6_11: the badness of kernels before 2.6.36
    ("current", "i8"),  # thread that runs just now
    ("reclaim_ns", "i8"),  # … of it in reclaim
    ("wait_ns", "i8"),  # asleep
    ("stall_ns", "i8", (3,)),  # time lost to IO and to memory, of both; by kind
    # PSI
    ("psi_total_ns", "i8", (3, 2)),
    ("psi_until_ns", "i8", (3, 2)),
    ("psi_full_to_ns", "i8", (3,)),  # a stall under way lasts until then; it is full as far as nobody works meanwhile
    ("psi_total_us", "i8", (3, 2)),
    ("psi_seen_us", "i8", (3, 2)),
    ("psi_avg", "i8", (3, 2, 3)),
    ("psi_next_ns", "i8"),
    ("psi_awake", "u1", ((NR_CGROUPS + 7) // 8,)),  # a bit for each cgroup that has had a stall, until its averages are at rest
    ("load_next_ns", "i8"),
    ("cgroups", CGROUP, (NR_CGROUPS,)),
    ("nr_cgroups", "i8"),
    ("tasks", TASK, (NR_TASKS,)),
    ("nr_tasks", "i8"),  # rows in use so far
    ("nr_threads", "i8"),
    ("threads", THREAD, (NR_THREADS,)),
    ("busy_until_ns", "i8", (NR_THREADS,)),  # until then each thread is running or waiting for something (load average, PSI)
    ("due_ns", "i8", (NR_THREADS,)),  # when each thread can go on, NEVER if it cannot: what the main loop looks through
    ("task_due_ns", "i8"),  # when the next start or slice of an exit is due
    ("reschedule", "i8"),  # 1: a task's state changed, so both must be made anew
    ("areas", AREA, (NR_AREAS,)),
    ("groups", GROUP, (NR_GROUPS,)),
    ("nr_groups", "i8"),  # rows in use so far
    ("cohorts", COHORT, (NR_COHORTS,)),
    *FS_FIELDS,
    ("events", EVENT, (NR_EVENTS,)),
    ("nr_events", "i8"),
    ("event_seq", "i8"),
    ("free_steps", "i8"),  # steps of threads, one after the other, that took no time
    ("asking", "i4"),  # 0: no turn of a plug-in is under way, else one more than the row of its thread (workloads/plugin.py)
    ("attention", "i4"),  # 1: stop here, somebody outside wants to look (an OOM report is written at the instant of the kill)
]
"""The kernel's part of a host's record; `host/state.py` adds the workloads' own."""
