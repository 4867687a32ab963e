# SPDX-License-Identifier: Apache-2.0
"""One Prometheus target being scraped: what is written down when it answers, and when it does not.

A scrape that is answered writes every series of the exporter's page and Prometheus' own report (`up` 1, duration, counts).
A scrape that fails (the host is too starved to answer within the timeout, or nobody listens) writes `up` 0, and, if it is the
first to fail, a staleness marker for every series of the page. All samples of a scrape carry the time at which it began.

Rules: an answer takes as long as the host lets it, found from what its pressure totals grew by since the last scrape, and only
if the host itself was short of memory: a container at its own limit, or a task waiting for its disk, can fill the host's `full`
pressure and starves no exporter. No clock is read. Times are int64 milliseconds and come from `schedule`. Samples wait in
arrays until they are drained.
Leaves out: time lost in the network; a page read half before and half after a change; relabelling, sample limits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fleetsim.law import law
from fleetsim.linux.mm_types import PSI_FULL, PSI_IO, PSI_MEM
from fleetsim.linux.vmstat_names import VMSTAT_FIELDS
from fleetsim.observe.catalog import BY_NAME, Profile
from fleetsim.observe.node_exporter import EXPORTER, NR_FACTS, Series, collect_reading, plan, read_kernel, series
from fleetsim.observe.node_exporter import SCRATCH as COLLECT_SCRATCH
from fleetsim.observe.schedule import schedule

__all__ = ["BASE_ANSWER_US", "STALE_NAN_BITS", "TargetScraper", "schedule"]

BASE_ANSWER_US = 10_000  # a calm host: the real node_exporter 1.5 answered in 6–12 ms on loopback
DEFAULT_TIMEOUT_MS = 10_000  # Prometheus' scrape_timeout
STALE_NAN_BITS = 0x7FF0000000000002  # Prometheus' staleness marker (model/value)

REFUSED_US = 500  # a refused connection is known at once
_ALLOCSTALL = np.array([i for i, field in enumerate(VMSTAT_FIELDS) if field.startswith("allocstall_")], dtype=np.int64)
_STALE = np.array([STALE_NAN_BITS], dtype=np.uint64).view(np.float64)  # only ever moved: arithmetic would lose the payload

REPORT = ("up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling", "scrape_series_added")
"""What Prometheus writes about each scrape, in this order."""
UP, DURATION, ADDED = 0, 1, 4

SAMPLE = np.dtype([("series", "i8"), ("t_ms", "i8"), ("value", "f8")])
SCRATCH = np.dtype([("collect", COLLECT_SCRATCH), ("values", "f8", (NR_FACTS,))])
"""Room to work in for the laws below; nothing in it outlives a call."""

SCRAPER = np.dtype(
    [
        ("boot_unix_s", "i8"),  # of the host at the last look: a change is a reboot
        ("seen_ns", "i8"),  # the host's clock at the last look
        ("seen_psi_ns", "i8"),  # when the pressure totals were up to date then
        ("seen_full_us", "i8", (2,)),  # memory and io pressure (full) then
        ("seen_allocstall", "i8"),  # direct reclaims of the whole host then
        ("answering", "i8"),  # 1 if the last scrape succeeded
        ("known", "i8"),  # 1 once Prometheus has the page's series in its cache
        ("page", "i8"),  # series on the page
        ("timeout_us", "i8"),
        ("exporter", EXPORTER),
    ]
)
"""All that a target's scraper remembers between scrapes: what a checkpoint must hold."""


@law
def answer_us(base_us, elapsed_us, stalled_us):  # type: ignore[no-untyped-def]
    """How long an answer takes that needs `base_us` of undisturbed time on a host that stood still for part of the time.

        base / (1 − stalled / elapsed)

    base_us     int64  > 0
    elapsed_us  int64  ≥ 0  since the last look
    stalled_us  int64  ≥ 0  of it with everybody stalled (PSI full)
    returns     int64  µs; −1 if it would never come

    Source: the meaning of PSI `full` (Documentation/accounting/psi.rst): time in which no task gets work done.
    Leaves out: that the exporter may fare worse or better than the average task; waiting for a CPU (PSI cpu).
    """
    if elapsed_us <= 0:
        return base_us
    if stalled_us >= elapsed_us:
        return -1
    return base_us * elapsed_us // (elapsed_us - stalled_us)


@law
def reboot_seen(scraper, reading):  # type: ignore[no-untyped-def]
    """Forget what was seen of a kernel that is gone; the exporter starts anew with the host.

    Source: counters of /proc begin at 0 at boot. Leaves out: nothing.
    """
    if reading["boot_unix_s"] != scraper["boot_unix_s"] or reading["now_ns"] < scraper["seen_ns"]:
        scraper["boot_unix_s"] = reading["boot_unix_s"]
        scraper["seen_psi_ns"] = 0
        scraper["seen_full_us"][:] = 0
        scraper["seen_allocstall"] = 0
        scraper["exporter"]["start_unix_ns"] = reading["boot_unix_s"] * 1_000_000_000
        scraper["exporter"]["requests"] = 0
    scraper["seen_ns"] = reading["now_ns"]


@law
def stall_since(scraper, reading):  # type: ignore[no-untyped-def]
    """How long it is since the last look, and for how much of it the exporter could not work, in µs.

        stalled = growth of PSI full, memory or io, whichever grew more (they overlap), if allocstall_* grew; else 0

    returns  (int64 elapsed, int64 stalled)

    Source: mm/page_alloc.c (allocstall_* counts direct reclaim for the host, not for a cgroup's limit); design §6.
    Leaves out: how memory and io stalls overlap; that part of the stall may still be a cgroup's own.
    """
    memory_us = reading["psi_total_us"][PSI_MEM, PSI_FULL]
    io_us = reading["psi_total_us"][PSI_IO, PSI_FULL]
    allocstall = 0
    for i in range(len(_ALLOCSTALL)):
        allocstall += reading["vmstat"][_ALLOCSTALL[i]]
    elapsed_us = (reading["psi_at_ns"] - scraper["seen_psi_ns"]) // 1000
    stalled_us = 0
    if allocstall > scraper["seen_allocstall"]:
        stalled_us = max(memory_us - scraper["seen_full_us"][0], io_us - scraper["seen_full_us"][1])
    scraper["seen_psi_ns"] = reading["psi_at_ns"]
    scraper["seen_full_us"][0] = memory_us
    scraper["seen_full_us"][1] = io_us
    scraper["seen_allocstall"] = allocstall
    return elapsed_us, stalled_us


@law
def write_report(scraper, answered, took_us, t_ms, kept, samples, at):  # type: ignore[no-untyped-def]
    """Prometheus' own samples about a scrape.

    answered int64    1 if it succeeded, 0 if not
    kept     int64[]  which of REPORT the profile keeps; their series follow the page's `page` series
    returns  int64    the end of the samples

    Source: prometheus 2.42 scrape/scrape.go (report; `scrape_series_added` counts series new to the cache).
    Leaves out: metric relabelling (as many samples after it as before).
    """
    page = scraper["page"]
    for i in range(len(kept)):
        what = kept[i]
        value = float(page * answered)  # samples scraped, and left after relabelling
        if what == UP:
            value = float(answered)
        elif what == DURATION:
            value = took_us / 1e6
        elif what == ADDED and scraper["known"]:
            value = 0.0
        samples[at]["series"] = page + i
        samples[at]["t_ms"] = t_ms
        samples[at]["value"] = value
        at += 1
    return at


@law
def write_page(scratch, scraper, took_us, t_ms, chosen, samples, at):  # type: ignore[no-untyped-def]
    """The page's samples of an answered scrape; returns int64, their end.

    Source: prometheus 2.42 scrape/scrape.go. Leaves out: series that come and go (a page's are fixed here).
    """
    values = scratch["values"]
    collect_reading(scratch["collect"], scraper["exporter"], took_us / BASE_ANSWER_US, chosen, values)
    for i in range(len(chosen)):
        samples[at]["series"] = i
        samples[at]["t_ms"] = t_ms
        samples[at]["value"] = values[i]
        at += 1
    return at


@law
def write_failure(scraper, took_us, t_ms, kept, samples, at):  # type: ignore[no-untyped-def]
    """A failed scrape: staleness markers if the page was there before, and the report; returns int64, the end of its samples.

    Source: prometheus 2.42 scrape/scrape.go (an empty scrape marks what the last one had).
    Leaves out: nothing.
    """
    if scraper["answering"]:
        for i in range(scraper["page"]):
            samples[at]["series"] = i
            samples[at]["t_ms"] = t_ms
            samples[at]["value"] = _STALE[0]
            at += 1
    scraper["answering"] = 0
    return write_report(scraper, 0, took_us, t_ms, kept, samples, at)


@law
def scrape_reading(scratch, scraper, t_ms, chosen, kept, samples, at):  # type: ignore[no-untyped-def]
    """One scrape of a host that showed `scratch["collect"]["reading"]`; returns int64, the end of its samples.

    Source: design §6. Leaves out: as its parts.
    """
    reboot_seen(scraper, scratch["collect"]["reading"])
    elapsed_us, stalled_us = stall_since(scraper, scratch["collect"]["reading"])
    took_us = answer_us(BASE_ANSWER_US, elapsed_us, stalled_us)
    timeout_us = scraper["timeout_us"]
    if took_us < 0 or took_us >= timeout_us:
        at = write_failure(scraper, timeout_us, t_ms, kept, samples, at)
    else:
        at = write_page(scratch, scraper, took_us, t_ms, chosen, samples, at)
        at = write_report(scraper, 1, took_us, t_ms, kept, samples, at)
        scraper["answering"] = 1
        scraper["known"] = 1
    scraper["exporter"]["requests"] += 1  # a page that came too late was served all the same
    return at


@law
def scrape_row(rows, scratch, scraper, t_ms, chosen, kept, samples, at):  # type: ignore[no-untyped-def]
    """One scrape of a host's record, as `scrape_reading` says.

    rows, scratch, scraper  arrays of one: a bare record of a host's size takes Numba 18 µs to recognise at each call

    Source: design §6. Leaves out: as its parts.
    """
    read_kernel(rows[0], scratch[0]["collect"]["reading"])
    return scrape_reading(scratch[0], scraper[0], t_ms, chosen, kept, samples, at)


class TargetScraper:
    """One node_exporter target. `scrape` whenever `schedule` says; `drain` before the arrays grow large."""

    def __init__(
        self,
        profile: Profile,
        host: str,
        *,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        room: int = 512,
        scratch: NDArray[np.void] | None = None,
    ) -> None:
        """`room`: samples to make place for at first; the arrays double when they are full. `scratch`: one SCRATCH to work in, which
        targets that are scraped one after the other may share."""
        page = series(profile, host)
        kept = [i for i, name in enumerate(REPORT) if profile.keeps(BY_NAME[name])]
        self.series: list[Series] = page + [Series(REPORT[i]) for i in kept]
        self._chosen = plan(profile)
        self._kept = np.array(kept, dtype=np.int64)
        self._scratch = np.zeros(1, SCRATCH) if scratch is None else scratch
        self._state = np.zeros(1, SCRAPER)
        self._state["page"], self._state["timeout_us"] = len(page), timeout_ms * 1000
        self._samples = np.zeros(max(room, len(self.series)), SAMPLE)
        self._end = 0

    def scrape(self, row: np.ndarray | np.void, t_ms: int) -> None:
        """Scrape a host's record as it is now; the samples carry `t_ms`. Quick with an array of one: `records[i : i + 1]`."""
        rows = row if isinstance(row, np.ndarray) else np.array([row])
        self._make_room()
        self._end = scrape_row(rows, self._scratch, self._state, t_ms, self._chosen, self._kept, self._samples, self._end)

    def scrape_reading(self, reading: np.void, t_ms: int) -> None:
        """As `scrape`, for a host of which only a READING is at hand."""
        self._make_room()
        self._scratch["collect"]["reading"] = reading
        self._end = scrape_reading(self._scratch[0], self._state[0], t_ms, self._chosen, self._kept, self._samples, self._end)

    def refuse(self, t_ms: int) -> None:
        """A scrape to which nobody listens: the exporter is down, or the host is."""
        self._make_room()
        self._end = write_failure(self._state[0], REFUSED_US, t_ms, self._kept, self._samples, self._end)

    def restart_exporter(self, unix_ns: int) -> None:
        """The exporter's process starts again: its own counters do, the kernel's do not."""
        self._state["exporter"]["start_unix_ns"] = unix_ns
        self._state["exporter"]["requests"] = 0

    def drain(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """(positions in `series`, milliseconds, values) written since the last call, in order of time."""
        done = self._samples[: self._end]
        self._end = 0
        return done["series"].copy(), done["t_ms"].copy(), done["value"].copy()

    def snapshot(self) -> bytes:
        """What the scraper remembers of its target. Samples not drained are not in it."""
        assert self._end == 0, "drain before a snapshot"
        return self._state.tobytes()

    def restore(self, data: bytes) -> None:
        self._state[:] = np.frombuffer(data, SCRAPER)
        self._end = 0

    def _make_room(self) -> None:
        if self._end + len(self.series) > len(self._samples):
            self._samples = np.concatenate([self._samples, np.zeros_like(self._samples)])
