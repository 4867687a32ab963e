# SPDX-License-Identifier: Apache-2.0
"""What the kernel logs when it kills: the exact lines, from plain values. No law: text only.

    oom_invoked ─► mem_info (global)  or  memcg_info (cgroup limit) ─► task_dump ─► oom_kill ─► [oom_reaped]

Rules: a line is `<level>text` as in the kernel's ring buffer, `stamp` adds the time as `dmesg` shows it; every number stands in the
unit the line has in the kernel, converted here and nowhere else (arguments are pages unless they say `_kb` or `_bytes`). A record
longer than printk can hand out loses its last lines, as the real one does (memory.stat in a cgroup's report).
Leaves out: the CPU, hardware and stack dump, more than one huge page size.
Source: mm/oom_kill.c, lib/show_mem.c, mm/memcontrol.c, kernel/printk/printk.c (Linux 6.1); kernel-laws §7.4; checked line by
line against real logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fleetsim.linux.mm_types import NO_LIMIT

ERR, WARNING, INFO, DEFAULT = 3, 4, 6, 1  # DEFAULT: a printk without a level, on Debian's kernel started with `quiet`
PAGE_KB = 4
PAGE_COUNTER_MAX = (2**63 - 1) // 4096  # what "max" is inside the kernel, in pages
RECORD_BYTES_MAX = 1024 - 1  # of one printk record as dmesg reads it: every line with prefix and newline, less a terminator
PREFIX_BYTES = len("<6>[   37.796852] ")

GFP_NAMES: Mapping[int, str] = {
    0x140CCA: "GFP_HIGHUSER_MOVABLE|__GFP_COMP",  # page cache, swap-in, copy on write
    0x140DCA: "GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO",  # demand-zero fault
    0xCC0: "GFP_KERNEL",  # a charge to a cgroup
    0x400DC0: "GFP_KERNEL_ACCOUNT|__GFP_ZERO",  # a page table
}


@dataclass(frozen=True)
class OomTask:
    """One row of the task dump."""

    pid: int
    uid: int
    tgid: int
    total_vm: int  # pages, as rss and swapents
    rss: int
    pgtables_bytes: int
    swapents: int
    oom_score_adj: int
    name: str


@dataclass(frozen=True)
class ZoneInfo:
    """One zone, in pages; `blocks` is (count, migratetype letters such as "UME") for every order."""

    node: int
    name: str
    free: int
    boost: int
    min: int
    low: int
    high: int
    reserved_highatomic: int
    active_anon: int
    inactive_anon: int
    active_file: int
    inactive_file: int
    unevictable: int
    writepending: int
    present: int
    managed: int
    mlocked: int
    free_pcp: int
    local_pcp: int
    lowmem_reserve: tuple[int, ...]
    blocks: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class NodeInfo:
    """The memory of the host or of one of its nodes, in pages unless a name says otherwise."""

    active_anon: int
    inactive_anon: int
    active_file: int
    inactive_file: int
    unevictable: int
    dirty: int
    writeback: int
    slab_reclaimable: int
    slab_unreclaimable: int
    mapped: int
    shmem: int
    pagetables: int
    kernel_stack_kb: int
    free: int
    free_pcp: int
    anon_thp: int
    all_unreclaimable: bool
    file_pages: int  # "total pagecache pages": cache, shmem and swap cache
    swapcache: int
    free_swap: int
    total_swap: int
    ram: int  # pages the firmware reported
    reserved: int  # … of which never reached the allocator
    hugepages: tuple[int, int, int] = (0, 0, 0)  # total, free, surplus of 2 MiB
    isolated_anon: int = 0
    isolated_file: int = 0
    kernel_misc_reclaimable: int = 0


def _lines(level: int, texts: Iterable[str]) -> list[str]:
    return [f"<{level}>{text}" for text in texts]


def stamp(lines: Sequence[str], t_us: int) -> list[str]:
    """The same lines with the time since boot in microseconds, as `dmesg` prints them: `<6>[   37.796852] text`."""
    when = f"[{t_us // 1_000_000:5d}.{t_us % 1_000_000:06d}] "
    return [line[:3] + when + line[3:] for line in lines]


def oom_invoked(comm: str, gfp_mask: int, order: int, oom_score_adj: int) -> list[str]:
    """Who could not get memory (often not the one that will die)."""
    names = GFP_NAMES[gfp_mask]
    return _lines(WARNING, [f"{comm} invoked oom-killer: gfp_mask={gfp_mask:#x}({names}), order={order}, oom_score_adj={oom_score_adj}"])


def mem_info(host: NodeInfo, nodes: Mapping[int, NodeInfo], zones: Sequence[ZoneInfo]) -> list[str]:
    """The state of the host at a global OOM, and of the nodes that the allocation could have used (lib/show_mem.c show_free_areas)."""
    texts = ["Mem-Info:", *_mem_info_totals(host), *(_node_line(number, node) for number, node in nodes.items())]
    for zone in zones:
        texts += [_zone_line(zone), "lowmem_reserve[]:" + "".join(f" {pages}" for pages in zone.lowmem_reserve)]
    texts += [_blocks_line(zone) for zone in zones]
    for number, node in nodes.items():
        total, free, surplus = node.hugepages
        texts.append(f"Node {number} hugepages_total={total} hugepages_free={free} hugepages_surp={surplus} hugepages_size=2048kB")
    texts += [
        f"{host.file_pages} total pagecache pages",
        f"{host.swapcache} pages in swap cache",
        f"Free swap  = {host.free_swap * PAGE_KB}kB",
        f"Total swap = {host.total_swap * PAGE_KB}kB",
        f"{host.ram} pages RAM",
        "0 pages HighMem/MovableOnly",
        f"{host.reserved} pages reserved",
    ]
    return _lines(DEFAULT, texts)


def _mem_info_totals(n: NodeInfo) -> list[str]:
    return [
        f"active_anon:{n.active_anon} inactive_anon:{n.inactive_anon} isolated_anon:{n.isolated_anon}",
        f" active_file:{n.active_file} inactive_file:{n.inactive_file} isolated_file:{n.isolated_file}",
        f" unevictable:{n.unevictable} dirty:{n.dirty} writeback:{n.writeback}",
        f" slab_reclaimable:{n.slab_reclaimable} slab_unreclaimable:{n.slab_unreclaimable}",
        f" mapped:{n.mapped} shmem:{n.shmem} pagetables:{n.pagetables}",
        " sec_pagetables:0 bounce:0",
        f" kernel_misc_reclaimable:{n.kernel_misc_reclaimable}",
        f" free:{n.free} free_pcp:{n.free_pcp} free_cma:0",
    ]


def _node_line(number: int, n: NodeInfo) -> str:
    pages = {
        "active_anon:": n.active_anon,
        "inactive_anon:": n.inactive_anon,
        "active_file:": n.active_file,
        "inactive_file:": n.inactive_file,
        "unevictable:": n.unevictable,
        "isolated(anon):": n.isolated_anon,
        "isolated(file):": n.isolated_file,
        "mapped:": n.mapped,
        "dirty:": n.dirty,
        "writeback:": n.writeback,
        "shmem:": n.shmem,
        "shmem_thp: ": 0,
        "shmem_pmdmapped: ": 0,
        "anon_thp: ": n.anon_thp,
        "writeback_tmp:": 0,
    }
    counts = " ".join(f"{label}{count * PAGE_KB}kB" for label, count in pages.items())
    kernel = f"kernel_stack:{n.kernel_stack_kb}kB pagetables:{n.pagetables * PAGE_KB}kB sec_pagetables:0kB"
    return f"Node {number} {counts} {kernel} all_unreclaimable? {'yes' if n.all_unreclaimable else 'no'}"


def _zone_line(z: ZoneInfo) -> str:
    marks = {"free": z.free, "boost": z.boost, "min": z.min, "low": z.low, "high": z.high}
    pages = {
        "active_anon": z.active_anon,
        "inactive_anon": z.inactive_anon,
        "active_file": z.active_file,
        "inactive_file": z.inactive_file,
        "unevictable": z.unevictable,
        "writepending": z.writepending,
        "present": z.present,
        "managed": z.managed,
        "mlocked": z.mlocked,
        "bounce": 0,
        "free_pcp": z.free_pcp,
        "local_pcp": z.local_pcp,
        "free_cma": 0,
    }
    text = " ".join(f"{label}:{count * PAGE_KB}kB" for label, count in marks.items())
    text += f" reserved_highatomic:{z.reserved_highatomic * PAGE_KB}KB "  # KB, not kB: the kernel's own spelling
    return f"Node {z.node} {z.name} {text}" + " ".join(f"{label}:{count * PAGE_KB}kB" for label, count in pages.items())


def _blocks_line(z: ZoneInfo) -> str:
    parts = [f"{count}*{PAGE_KB << order}kB" + (f" ({types})" if count else "") for order, (count, types) in enumerate(z.blocks)]
    total = sum(count * (PAGE_KB << order) for order, (count, _) in enumerate(z.blocks))
    return f"Node {z.node} {z.name}: {' '.join(parts)} = {total}kB"


def memcg_info(
    memcg: str, usage: int, limit: int, failcnt: int, swap_usage: int, swap_limit: int, swap_failcnt: int, stat: Mapping[str, int]
) -> list[str]:
    """The state of a cgroup at its limit; `stat` is its memory.stat in order, bytes or events;
    a limit of mm_types.NO_LIMIT stands for "max"."""
    lines = _lines(
        INFO,
        [
            f"memory: usage {usage * PAGE_KB}kB, limit {_limit_kb(limit)}kB, failcnt {failcnt}",
            f"swap: usage {swap_usage * PAGE_KB}kB, limit {_limit_kb(swap_limit)}kB, failcnt {swap_failcnt}",
            f"Memory cgroup stats for {memcg}:",
        ],
    )
    return lines + _lines(INFO, _one_record([f"{key} {value}" for key, value in stat.items()]))


def _limit_kb(limit: int) -> int:
    return (PAGE_COUNTER_MAX if limit >= NO_LIMIT else limit) * PAGE_KB


def _one_record(texts: Sequence[str]) -> list[str]:
    """As many whole lines of one printk record as its reader is given (kernel/printk/printk.c record_print_text)."""
    kept, size = [], 0
    for text in texts:
        size += PREFIX_BYTES + len(text) + 1
        if size > RECORD_BYTES_MAX:
            break
        kept.append(text)
    return kept


def task_dump(tasks: Sequence[OomTask]) -> list[str]:
    """Every task that could have been chosen (vm.oom_dump_tasks = 1), in task-list order."""
    rows = [
        f"[{t.pid:>7}] {t.uid:>5} {t.tgid:>5} {t.total_vm:>8} {t.rss:>8} {t.pgtables_bytes:>8} {t.swapents:>8} "
        f"        {t.oom_score_adj:>5} {t.name}"
        for t in tasks
    ]
    head = ["Tasks state (memory values in pages):", "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"]
    return _lines(INFO, head + rows)


@dataclass(frozen=True)
class OomScope:
    """Which nodes the allocation that failed could have used, and why not all of them."""

    constraint: str = "CONSTRAINT_NONE"
    nodemask: str = "(null)"
    cpuset: str = "/"
    mems_allowed: str = "0"


def oom_kill(
    victim: OomTask,
    rss_pages: tuple[int, int, int],
    task_memcg: str,
    oom_memcg: str | None,
    *,
    group: str = "",
    where: OomScope = OomScope(),
) -> list[str]:
    """The choice and the kill. `rss_pages` is anon, file, shmem; `oom_memcg` is the cgroup at its limit, None for a global OOM;
    `group` names the cgroup whose memory.oom.group sends the others after the victim."""
    constraint = where.constraint if oom_memcg is None else "CONSTRAINT_MEMCG"
    scope = f"constraint={constraint},nodemask={where.nodemask},cpuset={where.cpuset},mems_allowed={where.mems_allowed},"
    scope += "global_oom" if oom_memcg is None else f"oom_memcg={oom_memcg}"
    summary = f"oom-kill:{scope},task_memcg={task_memcg},task={victim.name},pid={victim.pid},uid={victim.uid}"
    lines = _lines(INFO, [summary]) + oom_killed(victim, rss_pages, memcg=oom_memcg is not None)
    if group:
        lines += _lines(INFO, [f"Tasks in {group} are going to be killed due to memory.oom.group set"])
    return lines


def oom_killed(task: OomTask, rss_pages: tuple[int, int, int], *, memcg: bool) -> list[str]:
    """One kill: the victim's line, and again one for each task that memory.oom.group takes with it."""
    why = "Memory cgroup out of memory" if memcg else "Out of memory"
    anon, file, shmem = (pages * PAGE_KB for pages in rss_pages)
    return _lines(
        ERR,
        [
            f"{why}: Killed process {task.pid} ({task.name}) total-vm:{task.total_vm * PAGE_KB}kB, anon-rss:{anon}kB, "
            f"file-rss:{file}kB, shmem-rss:{shmem}kB, UID:{task.uid} pgtables:{task.pgtables_bytes >> 10}kB "
            f"oom_score_adj:{task.oom_score_adj}"
        ],
    )


def oom_reaped(pid: int, name: str, rss_pages: tuple[int, int, int]) -> list[str]:
    """The reaper took the victim's memory before the victim had exited; `rss_pages` is what is left."""
    anon, file, shmem = (pages * PAGE_KB for pages in rss_pages)
    return _lines(INFO, [f"oom_reaper: reaped process {pid} ({name}), now anon-rss:{anon}kB, file-rss:{file}kB, shmem-rss:{shmem}kB"])
