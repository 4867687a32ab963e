# SPDX-License-Identifier: Apache-2.0
"""A small page-exact host: every page an object, every LRU list in true order. The oracle for the grouped model.

Follows kernel-laws §2 and §3 for order-0 user pages in plain Python: zones with watermarks and reserves, the allocation fast and
slow path, kswapd, direct reclaim, four LRU lists, referenced / accessed / workingset bits, shadows, swap with asynchronous write-out.
Decisions come from `tests/linux/naive.py`, never from a compiled law, so that the two can disagree.

Rules:
- Time passes only as `Costs` says: per fault, per scanned page, per throttled round. A write-out is done `write_ns` after it began; done
  writes go to the tail of their list before anything else happens.
- kswapd runs to its end the moment it is woken or its nap ends; everybody waits. So direct reclaim happens only where kswapd fails.
- An access is one page: `read` is a read() call (marks the page), `touch` goes through a mapping (sets its accessed bit).
- `check()` says that every page is in one place; tests call it after every operation.

Leaves out: file and swap readahead, dirty file pages, cgroups, high orders, per-CPU lists, mlock, program text.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.linux import naive
from tests.oracle import page_exact_reclaim as reclaim
from tests.oracle.page_exact_reclaim import ACTIVE_ANON, ACTIVE_FILE, CLUSTER, INACTIVE_ANON, INACTIVE_FILE, LISTS, PRIORITIES, Page, Zone

RETRIES = 16
TICK_NS = 4_000_000
NAP_NS = 100_000_000


class OutOfMemory(Exception):
    """The allocation may call the OOM killer now (kernel-laws §2.2 h)."""


@dataclass(frozen=True)
class Costs:
    fault_ns: int = 3_400
    hit_ns: int = 20
    scan_ns: int = 2_000
    write_ns: int = 200_000


@dataclass
class Host:
    zones: Sequence[Zone]  # ascending: DMA, DMA32, Normal
    swap_total: int = 0
    swappiness: int = 60
    costs: Costs = field(default_factory=Costs)
    now_ns: int = 0

    def __post_init__(self) -> None:
        self.lists: list[OrderedDict[Page, None]] = [OrderedDict() for _ in LISTS]  # first: tail, last: head
        self.events: Counter[str] = Counter()
        self.swap_free = self.swap_total
        self.nonresident_age = 0
        self.anon_cost = self.file_cost = 0
        self.kswapd_failures = 0
        self.nap_ends_ns: int | None = None  # kswapd looks again 100 ms after a run before it really sleeps
        self.busy = 0  # somebody is reclaiming: kswapd is not started inside of it
        self.seen_activations = {"anon": 0, "file": 0}
        self.writes: deque[tuple[int, Page]] = deque()
        self.taken = [zone.managed - zone.free for zone in self.zones]  # kernel, other users: never ours

    # --- what a task may do

    def touch(self, page: Page, write: bool = True) -> str:
        """Access through a mapping. Says what it took: hit, minor, zero (first touch, always a write), major."""
        self.elapse(self.costs.hit_ns)
        outcome = "hit"
        if page.zone is None:
            outcome = "major" if page.slot or page.is_file else "zero"
            self.elapse(self.costs.fault_ns)
            self._bring_in(page)
            self.events["pgmajfault"] += outcome == "major"
        elif not page.mapped:
            outcome = "minor"  # in the page cache or the swap cache
        page.mapped = page.accessed = True
        if not page.is_file and (write or outcome == "zero"):
            page.dirty = True
            self.drop_slot(page)
        elif page.slot and self.swap_free * 2 < self.swap_total:
            self.drop_slot(page)  # more than half full: the copy on disk is given up
        return outcome

    def read(self, page: Page) -> str:
        """read() of one page of a file: says hit or miss."""
        self.elapse(self.costs.hit_ns)
        outcome = "hit"
        if page.zone is None:
            outcome = "miss"
            self.elapse(self.costs.fault_ns)
            self._bring_in(page)
        self._mark_accessed(page)
        return outcome

    def release(self, pages: Sequence[Page]) -> None:
        """munmap or exit: anon pages and their slots are gone for good."""
        for page in pages:
            if page.lru is not None:
                self.unlink(page)
            if page.zone is not None:
                self._free(page)
            self._free_slot(page)
            page.shadow, page.workingset, page.dirty = None, False, False

    def counts(self) -> dict[str, int]:
        """Levels and events under the names of /proc/vmstat."""
        levels = {f"nr_{name}": len(pages) for name, pages in zip(LISTS, self.lists)}
        levels["nr_free_pages"] = self.free
        levels["nr_swapcached"] = sum(page.slot for pages in self.lists[:2] for page in pages)
        return {**levels, **self.events}

    @property
    def free(self) -> int:
        return sum(zone.free for zone in self.zones)

    def check(self) -> None:
        """Every page in one place, every slot somebody's."""
        resident: Counter[str] = Counter()
        for lru, pages in enumerate(self.lists):
            for page in pages:
                assert page.lru == lru and page.zone is not None
                assert page.is_file == (lru >= INACTIVE_FILE)
                resident[page.zone.name] += 1
        for zone, taken in zip(self.zones, self.taken):
            assert zone.free >= 0
            assert zone.free + taken + resident[zone.name] == zone.managed
        assert 0 <= self.swap_free <= self.swap_total
        assert all(page.writeback for _, page in self.writes)

    # --- time

    def elapse(self, ns: int) -> None:
        """Time passes: writes complete and a nap ends, each at its instant."""
        until = self.now_ns + ns
        while not self.busy and self.nap_ends_ns is not None and self.nap_ends_ns <= until:
            self._complete_writes(self.nap_ends_ns)
            self._end_nap()
        self._complete_writes(max(until, self.now_ns))

    def _complete_writes(self, until_ns: int) -> None:
        self.now_ns = max(self.now_ns, until_ns)
        while self.writes and self.writes[0][0] <= self.now_ns:
            _, page = self.writes.popleft()
            page.writeback = False
            if page.lru is not None:  # rotated to the tail of the inactive list, wherever it was
                self.unlink(page)
                self.link(page, INACTIVE_ANON, tail=True)
                self.events["pgrotated"] += 1

    # --- lists

    def link(self, page: Page, lru: int, tail: bool = False) -> None:
        page.lru = lru
        self.lists[lru][page] = None
        if tail:
            self.lists[lru].move_to_end(page, last=False)

    def unlink(self, page: Page) -> None:
        del self.lists[page.lru][page]
        page.lru = None

    def isolate(self, lru: int, count: int) -> list[Page]:
        batch = [page for page, _ in zip(self.lists[lru], range(count))]
        for page in batch:
            self.unlink(page)
        return batch

    def inactive_low(self, inactive: int) -> bool:
        return naive.inactive_is_low(len(self.lists[inactive]), len(self.lists[inactive + 1]))

    # --- a page comes, is used, goes

    def _bring_in(self, page: Page) -> None:
        page.zone = self._alloc()
        page.referenced = page.mapped = page.accessed = page.workingset = page.dirty = False
        active = False
        if page.slot:
            self.events["pswpin"] += 1
        if page.shadow is not None:
            active = self._refault(page)
            page.shadow = None
        self.link(page, (INACTIVE_FILE if page.is_file else INACTIVE_ANON) + active)

    def _refault(self, page: Page) -> bool:
        """mm/workingset.c workingset_refault; True: onto the active list."""
        kind = "file" if page.is_file else "anon"
        self.events[f"workingset_refault_{kind}"] += 1
        sizes = [len(self.lists[lru]) for lru in (ACTIVE_FILE, INACTIVE_FILE, ACTIVE_ANON, INACTIVE_ANON)]
        if not naive.refault_activates(page.is_file, self.nonresident_age - page.shadow, *sizes, self.swap_free > 0):
            return False
        self.nonresident_age += 1
        self.events[f"workingset_activate_{kind}"] += 1
        if page.shadow_workingset:
            page.workingset = True
            self.note_cost(page.is_file, 1)
            self.events[f"workingset_restore_{kind}"] += 1
        return True

    def _mark_accessed(self, page: Page) -> None:
        """mm/swap.c folio_mark_accessed: the second touch of an inactive page activates it."""
        if not page.referenced:
            page.referenced = True
        elif page.lru in (INACTIVE_ANON, INACTIVE_FILE):
            lru = page.lru
            self.unlink(page)
            self.link(page, lru + 1)
            page.referenced = False
            self.nonresident_age += 1
            self.events["pgactivate"] += 1

    def evict(self, page: Page) -> None:
        page.shadow, page.shadow_workingset = self.nonresident_age, page.workingset
        self.nonresident_age += 1
        self._free(page)

    def _free(self, page: Page) -> None:
        page.zone.free += 1
        page.zone = None

    def drop_slot(self, page: Page) -> None:
        if page.slot and not page.writeback:
            self._free_slot(page)
            page.dirty = True

    def _free_slot(self, page: Page) -> None:
        self.swap_free += page.slot
        page.slot = False

    def note_cost(self, is_file: bool, pages: int) -> None:
        if is_file:
            self.file_cost += pages
        else:
            self.anon_cost += pages
        if self.anon_cost + self.file_cost > sum(map(len, self.lists)) // 4:
            self.anon_cost //= 2
            self.file_cost //= 2

    # --- allocation (kernel-laws §2.2)

    def _take(self, mark: str) -> Zone | None:
        for zone in reversed(self.zones):
            if zone.free > getattr(zone, mark) + zone.reserve:
                zone.free -= 1
                return zone
        return None

    def _alloc(self) -> Zone:
        zone = self._take("low")
        if zone is None:
            self._wake_kswapd()
            zone = self._take("min")
        fruitless = 0
        while zone is None:
            progress = self._direct_reclaim()
            if zone := self._take("min"):
                break
            fruitless = 0 if progress else fruitless + 1
            if fruitless <= RETRIES and self._could_ever_pass():
                continue
            if zone := self._take("high"):
                break
            raise OutOfMemory
        return zone

    def _could_ever_pass(self) -> bool:
        """Would some zone be above min if everything reclaimable were free?"""
        in_zone: Counter[str] = Counter()
        for pages in self.lists if self.swap_free else self.lists[INACTIVE_FILE:]:
            in_zone.update(page.zone.name for page in pages)
        return any(zone.free + in_zone[zone.name] > zone.min + zone.reserve for zone in self.zones)

    def _direct_reclaim(self) -> int:
        self.busy += 1
        for force in (False, True):
            self.events["allocstall_movable"] += 1
            skipped, reclaimed = False, 0
            for priority in range(PRIORITIES, -1, -1):
                scan = reclaim.shrink_node(self, priority, kswapd=False, target=CLUSTER, force=force)
                reclaimed += scan.reclaimed
                skipped |= scan.skipped_deactivate
                if reclaimed >= CLUSTER:
                    break
                if priority == 1 and not reclaimed:
                    self.elapse(TICK_NS)  # throttled: others, and the disk, go on
            self._snapshot_activations()
            if reclaimed or not skipped:
                break
        self.busy -= 1
        return reclaimed

    # --- kswapd (kernel-laws §3.9)

    def _balanced(self) -> bool:
        return any(zone.free > zone.high + zone.reserve for zone in self.zones)

    def _wake_kswapd(self) -> None:
        """An allocation missed the low mark."""
        if self.kswapd_failures >= RETRIES or self._balanced():
            return
        if self.nap_ends_ns is not None:
            self.events["kswapd_low_wmark_hit_quickly"] += 1
        self._kswapd()

    def _end_nap(self) -> None:
        """Was it too early to sleep? Then once more, although nobody has missed the low mark yet."""
        self.nap_ends_ns = None
        if not self._may_sleep():
            self.events["kswapd_high_wmark_hit_quickly"] += 1
            self._kswapd()

    def _may_sleep(self) -> bool:
        return self.kswapd_failures >= RETRIES or self._balanced()

    def _kswapd(self) -> None:
        """Run after run until it may nap; a run that ends below the high mark is followed by the next one at once."""
        self.nap_ends_ns = None
        self.busy += 1
        self._balance_pgdat()
        while not self._may_sleep():
            self.events["kswapd_high_wmark_hit_quickly"] += 1
            self._balance_pgdat()
        self.busy -= 1
        self.nap_ends_ns = self.now_ns + NAP_NS

    def _balance_pgdat(self) -> None:
        self.events["pageoutrun"] += 1
        target = sum(max(zone.high, CLUSTER) for zone in self.zones)
        priority, total = PRIORITIES, 0
        while priority >= 1 and not self._balanced():
            if self.swap_total and self.inactive_low(INACTIVE_ANON):
                reclaim.shrink_active(self, ACTIVE_ANON, CLUSTER)
            scan = reclaim.shrink_node(self, priority, kswapd=True, target=target)
            total += scan.reclaimed
            if scan.scanned < target or not scan.reclaimed:
                priority -= 1
        if not total and priority < 1:
            self.kswapd_failures += 1
        self._snapshot_activations()

    def _snapshot_activations(self) -> None:
        self.seen_activations = {kind: self.events[f"workingset_activate_{kind}"] for kind in ("anon", "file")}

    def activated_since(self, kind: str) -> bool:
        return self.events[f"workingset_activate_{kind}"] != self.seen_activations[kind]
