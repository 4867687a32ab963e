# SPDX-License-Identifier: Apache-2.0
"""CPU profiles: what one operation costs, in nanoseconds. No law contains a nanosecond of its own.

`lab` is the emulated machine of the recordings (one instruction = 1 ns). Where its figures are from:
- measured unpaced by the calibration experiment e00_calib: anonymous fault, access, copy-on-write, cached read, exit
  (MADV_DONTNEED per page); the missing page is its cold read less the cached one less the disk's wait;
- reclaim, by least squares over kswapd's processor time in eleven recordings in which nearly all reclaim is its (e00, e02 to e05,
  e08a, e09 ×3, e23 ×2; residuals ≤ 10 %): 0.32 µs per page looked at and kept, 1.9 µs per file page dropped, 10.8 µs per page
  swapped out and freed, 1.15 µs per page of an active list; a visit to a cgroup from e08b (1.09 s in 11,138 fruitless runs of
  twelve passes over three cgroups);
- the first pass over memory that was all accessed, in which nothing else happens: 1.36 to 1.39 µs per page looked at and kept
  (e30: 500 ms of stalls for 368,900 pages, e03: 123 ms for 88,700), the look itself included;
- from e14: two writes to compact_memory, 117 ms for 18,614 pages moved and 129,000 looked at, 8.8 ms for 82 and 109,000;
- from the recordings' event times (a process's first op begins 1.8 ms after its start): starting a program;
- new pages of shared memory: the system time of e11 (490 ms for 89,600 faults), the unpaced write of e00 (119.2 ms for 25,600);
- fork: e00 and e10 (10.4 ms for 76,800 mapped pages, 12.2 ms for 89,600), what a fork costs without pages being an estimate;
- from e20_malloc's event times: malloc() and free() (240,000 to 750,000 calls in one go, 186 to 209 ns each), a madvise call (65.7 ms
  for 10,000 calls and 20,700 pages, 39 ms for 1,500 and 25,000);
- from e16 with the virtual clock: the writer's system time (0.83 s for 85,831 new pages, 1.62 s for 679,215 cached ones), and the
  host's system time beside it and the sampler's (0.18 s for 69,899 new pages written out, 0.63 s for 673,004 that had blocks);
- names and inodes: the negative stat and the create are e00_calib's; the stat of an uncached file is e12's (910 ms of system
  time for 30,000), the shrinker's cost e12's memory pressure while kswapd does nothing else (456 ms for 490,000 objects);
- huge pages: half of the huge fault measured by e00_calib, which zeroes twice; giving one back from e19 (6 ms for 350);
- from the event times of e14 (mlock on fault of 25,600 pages takes 19.5 ms) and e25 (MADV_FREE of as many 18.7 ms): moving a page
  to another list;
- compression: kswapd's memory pressure while it fills zram or zswap (h33, h35, h36: 8 to 22 µs a page on top of a page sent to a
  disk), and the system time of the process that sweeps them back (h35, h36: 3 and 4 µs on top of a swap-in);
- swap-in: system time of a process per page it reads in again (e25 8.6 µs, e03 10.3 µs), its fault included;
- estimates, not measured by themselves: a cached name, a pipe, a fault that only maps, a system call, the entry of a huge page.
`server` is bare metal of about 2020: kernel-laws §10.5, rows tagged [D] and [M] where there is one, else an estimate. It has a TLB: what an
access costs on top depends on how much memory is used, how, and in which pages (linux/translation.py). The emulator of `lab` has
none such: what its accesses cost is in what was measured.
`vm` is such a server's virtual machine with nested paging: what kernel-laws §10.2 and §10.5 measured in theirs [M], and elsewhere what
`server` costs. From there, the middle of each range: an anonymous fault whose page the hypervisor has behind it 2.2 to 3.0 µs, a
copy-on-write fault 4 to 8 µs, a fork 0.5 to 0.64 ms per GiB of huge pages, giving back 80 to 140 ms per GiB of small pages and 3 to 4
of huge ones, zeroing a huge page 227 µs. A fork of small pages took 17 to 26 ms per GiB there and 15 to 32 on the machine of
docs/calibration.md: 19 of it, 72 ns an entry. One without pages: `latest_fork_usec` of an empty Redis, 0.32 to 0.42 ms, less its
700 pages. Leaves out: the second table that a TLB miss walks; pages that the hypervisor must find first (7.5 to 11.5 µs a fault).
`lab-tcg` is `lab` times one factor, for recordings made with a real clock: the median, over the six repeats of e02, e03 and
e05 recorded both ways, of the ratio of total memory pressure (4.9, 5.1, 5.8, 7.9, 11.0, 17.8; median 6.9).
"""

from __future__ import annotations

# positions in a host's row["cost"]
FAULT_ANON, ACCESS, COW, READ_CACHED, READ_MISS, SCAN, RECLAIM, SWAP_OUT, SWAP_IN, EXIT, FAULT_MINOR, SYSCALL, TICK, START = range(14)
FAULT_SHMEM, SHMEM_WRITE, FORK_PAGE, FORK = range(14, 18)
REFILL, VISIT = 18, 19
MALLOC, MADVISE = 20, 21
WRITE_NEW, WRITE_CACHED, WRITE_OUT, ALLOC_BLOCKS = range(22, 26)
NAME_MISS, NAME_HIT, FILE_STAT, FILE_CREATE, PIPE, SLAB_SCAN = range(26, 32)
HUGE_CLEAR, HUGE_FREE, FAULT_HUGE, COMPACT_SCAN, MIGRATE = range(32, 37)
LRU_MOVE, REFERENCES, AGE_PTE = 37, 38, 39
COMPRESS, DECOMPRESS = 40, 41
FORK_HUGE = 42
TLB_MHZ = 43  # no operation: clock of the CPU whose TLB an access pays for (linux/translation.py); 0: it has none

OPERATIONS: dict[str, tuple[int, int, int]] = {
    # operation: (position, lab ns, server ns)                                   per page unless said
    "anonymous fault, page zeroed": (FAULT_ANON, 3_400, 700),
    "access to a mapped page": (ACCESS, 20, 5),
    "copy-on-write fault": (COW, 4_600, 1_500),
    "read() of a cached page": (READ_CACHED, 1_526, 400),
    "read() of a missing page, on top": (READ_MISS, 1_400, 500),
    "reclaim looks at a page": (SCAN, 320, 60),
    "reclaim finds a mapped page accessed and keeps it, on top": (REFERENCES, 1_050, 160),
    "reclaim drops a clean page, on top": (RECLAIM, 1_585, 340),
    "reclaim sends a page to swap, on top": (SWAP_OUT, 8_580, 1_900),
    "reclaim looks at a page of an active list": (REFILL, 1_150, 200),
    "reclaim visits a cgroup in a pass, shrinkers included": (VISIT, 2_700, 500),
    "swap-in of a page, processor time": (SWAP_IN, 9_500, 1_800),
    "exit or munmap gives a page back": (EXIT, 1_250, 200),
    "fault that only maps": (FAULT_MINOR, 1_500, 400),
    "mlock, MADV_FREE or MADV_COLD moves a page to another list": (LRU_MOVE, 750, 100),
    "MGLRU's aging looks at an entry of a page table": (AGE_PTE, 30, 8),
    "system call, per call": (SYSCALL, 500, 200),
    "fork, exec and set-up of a small program, per process": (START, 1_600_000, 600_000),
    "fault on a new page of shared memory": (FAULT_SHMEM, 5_450, 1_000),
    "write() of a new page of a tmpfs file": (SHMEM_WRITE, 4_656, 1_000),
    "fork copies the entry of a mapped page": (FORK_PAGE, 134, 35),
    "fork copies the entry of a huge page and sets a page table aside, per huge page": (FORK_HUGE, 2_000, 400),
    "fork of a small program, per process": (FORK, 200_000, 60_000),
    "malloc() or free(), user time": (MALLOC, 190, 40),
    "brk, mmap, munmap or madvise, per call": (MADVISE, 4_000, 1_000),
    "write() to a new page of the cache": (WRITE_NEW, 9_700, 1_800),
    "write() to a cached page": (WRITE_CACHED, 2_400, 600),
    "writeback of a page, processor time of the flusher or of fsync": (WRITE_OUT, 900, 200),
    "blocks for a page that has none yet, on top": (ALLOC_BLOCKS, 1_700, 300),
    "stat() of a name that does not exist, per call": (NAME_MISS, 8_000, 1_500),
    "stat() or open() of a cached name, per call": (NAME_HIT, 5_000, 900),
    "stat() of a file whose inode must be read, processor time, per call": (FILE_STAT, 33_000, 6_000),
    "open() that creates a file, and close(), per call": (FILE_CREATE, 127_000, 20_000),
    "pipe() and a write of one page, per pipe": (PIPE, 25_000, 5_000),
    "a shrinker looks at an object and frees it, per object": (SLAB_SCAN, 900, 120),
    "a huge page of 2 MiB is zeroed, per huge page": (HUGE_CLEAR, 850_000, 120_000),
    "a huge page of 2 MiB is given back, per huge page": (HUGE_FREE, 17_000, 3_000),
    "huge fault, 2 MiB zeroed, per fault": (FAULT_HUGE, 1_700_000, 200_000),
    "compaction looks at a page": (COMPACT_SCAN, 80, 15),
    "compaction moves a page": (MIGRATE, 5_800, 1_500),
    "zram or zswap compresses a page": (COMPRESS, 15_000, 3_000),
    "zram or zswap decompresses a page": (DECOMPRESS, 2_500, 400),
    "timer tick, HZ=250, per tick": (TICK, 4_000_000, 4_000_000),
}

VM: dict[int, int] = {
    # ns where a virtual machine differs from `server`
    FAULT_ANON: 2_600,
    COW: 6_000,
    EXIT: 420,
    FORK_PAGE: 72,
    FORK_HUGE: 1_100,
    FORK: 300_000,
    HUGE_CLEAR: 227_000,
    HUGE_FREE: 6_800,
    FAULT_HUGE: 260_000,
}

PROFILES = ("lab", "lab-tcg", "server", "vm")
TCG_FACTOR = 7
SERVER_MHZ = 3000


def costs(profile: str) -> list[int]:
    """The 48 entries of row["cost"] for a profile name (KeyError for an unknown one)."""
    column, factor = {"lab": (1, 1), "server": (2, 1), "vm": (2, 1), "lab-tcg": (1, TCG_FACTOR)}[profile]
    row = [0] * 48
    for entry in OPERATIONS.values():
        row[entry[0]] = entry[column] * (1 if entry[0] == TICK else factor)
    if profile == "vm":
        for place, ns in VM.items():
            row[place] = ns
    row[TLB_MHZ] = SERVER_MHZ if profile in ("server", "vm") else 0
    return row
