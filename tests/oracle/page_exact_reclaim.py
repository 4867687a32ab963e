# SPDX-License-Identifier: Apache-2.0
"""Reclaim of the page-exact host: one pass over the node, list by list, page by page (kernel-laws §3.4 to §3.7).

    shrink_node ─► scan_count (how much of each list) ─► shrink_inactive ─► judge (one page's fate)
                                                     └► shrink_active

Rules: a batch leaves its list, is judged in order, and every page goes on to the head of some list, or away. Time passes per page.
Leaves out: what `page_exact.py` leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.linux import naive

if TYPE_CHECKING:
    from tests.oracle.page_exact import Host

CLUSTER = 32
PRIORITIES = 12
INACTIVE_ANON, ACTIVE_ANON, INACTIVE_FILE, ACTIVE_FILE = range(4)
LISTS = ("inactive_anon", "active_anon", "inactive_file", "active_file")


@dataclass
class Zone:
    """Pages. `reserve` is what a user page's request must leave beyond the mark."""

    name: str
    managed: int
    free: int
    min: int
    low: int
    high: int
    reserve: int = 0


@dataclass(eq=False, slots=True)
class Page:
    is_file: bool
    zone: Zone | None = None  # None: not in memory
    lru: int | None = None
    referenced: bool = False  # PG_referenced
    mapped: bool = False  # some page table points at it
    accessed: bool = False  # accessed bit of the mapping
    workingset: bool = False  # PG_workingset
    dirty: bool = False  # anon: differs from its slot
    slot: bool = False  # has a swap slot; in memory as well: swap cache
    writeback: bool = False
    shadow: int | None = None  # the clock at eviction …
    shadow_workingset: bool = False  # … and whether it had PG_workingset


@dataclass
class Scan:
    """What one pass (node, priority) decided, and what came of it."""

    priority: int
    kswapd: bool
    deactivate_anon: bool
    deactivate_file: bool
    target: int
    scanned: int = 0
    reclaimed: int = 0
    skipped_deactivate: bool = False


def shrink_node(host: Host, priority: int, *, kswapd: bool, target: int, force: bool = False) -> Scan:
    deactivate_anon = force or host.activated_since("anon") or host.inactive_low(INACTIVE_ANON)
    deactivate_file = force or host.activated_since("file") or host.inactive_low(INACTIVE_FILE)
    scan = Scan(priority, kswapd, deactivate_anon, deactivate_file, target)
    targets = scan_count(host, scan)
    todo = list(targets)
    adjusted = not kswapd and priority == PRIORITIES
    while todo[INACTIVE_ANON] or todo[ACTIVE_FILE] or todo[INACTIVE_FILE]:
        for lru in range(len(LISTS)):
            chunk = min(todo[lru], CLUSTER)
            todo[lru] -= chunk
            if chunk:
                shrink_list(host, lru, chunk, scan)
        if scan.reclaimed < target or adjusted:
            continue
        anon, file = sum(todo[:2]), sum(todo[2:])
        if not anon or not file:
            break
        finish_in_proportion(todo, targets, anon, file)
        adjusted = True
    if host.swap_total and host.inactive_low(INACTIVE_ANON):
        shrink_active(host, ACTIVE_ANON, CLUSTER)
    if scan.reclaimed:
        host.kswapd_failures = 0
    return scan


def scan_count(host: Host, scan: Scan) -> list[int]:
    sizes = [len(pages) for pages in host.lists]
    trim = sizes[INACTIVE_FILE] >> scan.priority > 0 and not scan.deactivate_file
    little = sizes[INACTIVE_FILE] + sizes[ACTIVE_FILE] + host.free <= sum(zone.high for zone in host.zones)
    tiny = little and not scan.deactivate_anon and sizes[INACTIVE_ANON] >> scan.priority > 0
    balance = naive.scan_balance(host.swap_free > 0, False, host.swappiness, scan.priority, tiny, trim)
    anon, file = {"FILE": (0, 1), "ANON": (1, 0), "EQUAL": (1, 1)}.get(balance, (None, None))
    whole = 1
    if anon is None:
        anon, file = naive.fract_anon_file(host.swappiness, host.anon_cost, host.file_cost)
        whole = anon + file
    return [(size >> scan.priority) * (anon if lru < INACTIVE_FILE else file) // whole for lru, size in enumerate(sizes)]


def finish_in_proportion(todo: list[int], targets: list[int], anon: int, file: int) -> None:
    """The target is met: drop the smaller rest, and scan as much of the larger as was scanned of the smaller."""
    small, large = (0, 2) if file > anon else (2, 0)
    percent = min(anon, file) * 100 // (targets[small] + targets[small + 1] + 1)
    for lru in (0, 1):
        todo[small + lru] = 0
        done = targets[large + lru] - todo[large + lru]
        todo[large + lru] = max(targets[large + lru] * (100 - percent) // 100 - done, 0)


def shrink_list(host: Host, lru: int, count: int, scan: Scan) -> None:
    if lru in (INACTIVE_ANON, INACTIVE_FILE):
        shrink_inactive(host, lru, count, scan)
    elif scan.deactivate_anon if lru == ACTIVE_ANON else scan.deactivate_file:
        shrink_active(host, lru, count)
    else:
        scan.skipped_deactivate = True


def shrink_active(host: Host, lru: int, count: int) -> None:
    batch = host.isolate(lru, count)
    for page in batch:
        host.elapse(host.costs.scan_ns)
        page.accessed, page.workingset = False, True
        host.link(page, lru - 1)
    host.events["pgrefill"] += len(batch)
    host.events["pgdeactivate"] += len(batch)


def shrink_inactive(host: Host, lru: int, count: int, scan: Scan) -> None:
    batch = host.isolate(lru, count)
    freed = written = 0
    for page in batch:
        host.elapse(host.costs.scan_ns)
        fate = judge(host, page)
        if fate == "free":
            host.evict(page)
            freed += 1
            continue
        if fate == "write":
            written += 1
        if fate == "activate":
            host.events["pgactivate"] += 1
            host.nonresident_age += 1
        host.link(page, lru + (fate == "activate"))
    if written:
        host.note_cost(False, written)
    who, kind = "kswapd" if scan.kswapd else "direct", "file" if lru == INACTIVE_FILE else "anon"
    for event, pages in (("pgscan", len(batch)), ("pgsteal", freed)):
        host.events[f"{event}_{who}"] += pages
        host.events[f"{event}_{kind}"] += pages
    scan.scanned += len(batch)
    scan.reclaimed += freed


def judge(host: Host, page: Page) -> str:
    """mm/vmscan.c shrink_folio_list for one page: free, write, keep or activate."""
    if page.writeback:
        return "activate"  # back at the tail when the write is done
    touched, page.accessed = page.accessed, False
    verdict = naive.check_references(int(touched), page.referenced, page.is_file, False, False)
    page.referenced = touched
    if verdict == "KEEP":
        return "keep"
    if verdict == "ACTIVATE" or (not page.is_file and not page.slot and not host.swap_free):
        if host.swap_free * 2 < host.swap_total:
            host.drop_slot(page)
        return "activate"
    if page.is_file or (page.slot and not page.dirty):
        return "free"
    if not page.slot:
        host.swap_free -= 1
        page.slot = True
    page.dirty, page.mapped, page.writeback = False, False, True
    host.writes.append((host.now_ns + host.costs.write_ns, page))
    host.events["pswpout"] += 1
    return "write"
