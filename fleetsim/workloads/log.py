# SPDX-License-Identifier: Apache-2.0
"""The `log` workload: a broker that appends what producers send to segments, deletes old segments, and lets consumers read.

A produce request is a write() into the page cache: it is as fast as memory until the kernel brakes the writer, because its disk does
not keep up (balance_dirty_pages), and then as slow as the disk. Nothing is flushed by the broker itself. Consumers at the tail read
what was just written, from the page cache; one that lags reads what has left the cache from disk, in the way of the producers.
Segments are files that are used in turn: the next one is emptied when it becomes the active one, which is how retention by size deletes.
Source: Apache Kafka's documentation, "Design: Persistence" and log.segment.bytes, log.retention.bytes; kernel-laws §4.2.
Leaves out: replication, index files, retention by time, flush.messages.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import ORDERED, compute, creat, exit_group, file_size, map_anonymous, read_file, touch, unlink, write_file
from fleetsim.workloads.arrivals import lose
from fleetsim.workloads.requests import come_up, finish, in_parallel, rest, take, together

PAGE = 4096
QUIET_TICKS = 5  # ticks between two batches while nobody waits for a disk
BUSY_NS = 100_000_000
READ_PAGES = 256  # in one go (fetch.max.bytes 1 MiB)
CHUNK = 2048
NR_SEGMENTS = 8
STARTING, SERVING = 0, 1
WRITING, ROLLING = 0, 1

ARGUMENTS = (
    "heap_pages",
    "record_bytes",
    "segment_pages",
    "segments",
    "cpu_ns",
    "consumers",
    "lag_pages",
    *(f"segment{k}" for k in range(NR_SEGMENTS)),
)
(
    HEAP_PAGES,  # the broker's own memory
    RECORD_BYTES,  # what a produce request appends
    SEGMENT_PAGES,
    SEGMENTS,  # that are kept, the active one included
    CPU_NS,  # processor time of a request
    CONSUMERS,  # 1: somebody reads all that is written …
    LAG_PAGES,  # … and one more, that is so far behind; 0: there is none
    SEGMENT0,  # their files
) = range(8)
(
    STAGE,
    HEAP,  # area, one more than its row
    PHASE,
    LEFT,  # pages of the batch under way that are still to be written
    CARRY,  # bytes of a page that is not full
    ACTIVE,  # segment that is written
    AT,  # … up to here
    END,  # pages appended since the start: the log's end offset
    TAIL,  # up to where the consumers at the tail have read
    BEHIND,  # … and the one that lags
    FRESH,  # pages of its slice that came from disk
    FROM_DISK,  # pages that consumers had to read from disk
    FETCH_UNTIL,  # consumers have their turn until then
    LOST,  # pages that were deleted before the one that lags had read them
) = range(SEGMENT0 + NR_SEGMENTS, SEGMENT0 + NR_SEGMENTS + 14)


@law
def start(row, th, w):
    """Map and fill the heap, create the first segment.

    returns  bool  True: it is up

    Source: fleetsim's own.
    """
    log = row["works"][w]["slots"]
    if log[HEAP] == 0 and log[HEAP_PAGES] > 0:
        log[HEAP] = map_anonymous(row, th, log[HEAP_PAGES], ORDERED, 0, 1) + 1
    if log[HEAP] > 0 and touch(row, th, log[HEAP] - 1, CHUNK) >= 0:
        return False
    opened = creat(row, th, log[SEGMENT0], ORDERED, 1)
    if opened < 0:
        exit_group(row, th, 1)
    return opened > 0


@law
def roll(row, th, log):
    """The active segment is full: delete the oldest, whose file is the next active one.

    Source: log.segment.bytes, log.retention.bytes: unlink, then a new file.
    """
    following = (log[ACTIVE] + 1) % log[SEGMENTS]
    if file_size(row, log[SEGMENT0 + following]) > 0 and not unlink(row, th, log[SEGMENT0 + following]):
        return
    if creat(row, th, log[SEGMENT0 + following], ORDERED, 1) > 0:
        log[ACTIVE] = following
        log[AT] = 0
        log[PHASE] = WRITING


@law
def append(row, th, w):
    """Append the batch.

    returns  bool  True: it is written

    Source: mm/filemap.c generic_perform_write.
    """
    work = row["works"][w]
    log, server = work["slots"], work["server"]
    if log[AT] >= log[SEGMENT_PAGES]:
        log[PHASE] = ROLLING
        return False
    if log[LEFT] > 0:
        done = write_file(row, th, log[SEGMENT0 + log[ACTIVE]], log[AT], min(log[LEFT], log[SEGMENT_PAGES] - log[AT]))
        if done < 0:
            server["broken"] = lose(server, server["batch"], server["broken"])
            server["batch"] = 0
            return False
        log[AT] += done
        log[END] += done
        log[LEFT] -= done
    return log[LEFT] == 0


@law
def segment_of(log, offset):
    """Which segment the page at an offset of the log is in; −1: it has been deleted.

    Source: fleetsim's own.
    """
    back = (log[END] - log[AT] - offset + log[SEGMENT_PAGES] - 1) // log[SEGMENT_PAGES] if offset < log[END] - log[AT] else 0
    return (log[ACTIVE] - back) % log[SEGMENTS] if back < log[SEGMENTS] else -1


@law
def fetch(row, th, log, offset, pages, fresh):
    """A consumer reads up to `pages` pages at an offset of the log, of one segment.

    returns  (int64 pages (0: come back, −1: they are deleted), int64 of them from disk)

    Source: mm/filemap.c filemap_read (sendfile reads the same pages).
    """
    k = segment_of(log, offset)
    if k < 0:
        return -1, 0
    at = offset % log[SEGMENT_PAGES]
    pages = min(min(pages, log[END] - offset), log[SEGMENT_PAGES] - at)
    return read_file(row, th, log[SEGMENT0 + k], at, pages, fresh, ORDERED)


@law
def consume(row, th, w):
    """Consumers fetch what there is: those at the tail all that is new, the one that lags as much as was appended, further back.

    returns  bool  True: they have, or the producers' turn has come

    Source: Apache Kafka, "Design: Efficiency". Leaves out: one fetch for each of the consumers at the tail (they read the same pages).
    """
    log = row["works"][w]["slots"]
    if row["now_ns"] >= log[FETCH_UNTIL]:
        return True
    if log[CONSUMERS] > 0 and log[TAIL] < log[END]:
        done, missed = fetch(row, th, log, log[TAIL], READ_PAGES, 0)
        log[TAIL] = log[END] if done < 0 else log[TAIL] + done
        log[FROM_DISK] += max(0, missed)
        return False
    behind = log[END] - log[LAG_PAGES]
    if log[LAG_PAGES] > 0 and log[BEHIND] < behind:
        done, missed = fetch(row, th, log, log[BEHIND], READ_PAGES, log[FRESH])
        log[FRESH] = 0 if done <= 0 else log[FRESH] + missed
        log[FROM_DISK] += max(0, missed)
        if done < 0:  # OFFSET_OUT_OF_RANGE: it goes on at the oldest there is
            oldest = log[END] - log[AT] - (log[SEGMENTS] - 1) * log[SEGMENT_PAGES]
            log[LOST] += oldest - log[BEHIND]
            log[BEHIND] = oldest
        else:
            log[BEHIND] += done
        return False
    return True


@law
def step(row, th, w):
    """Start, append what producers have sent since the last time, or let consumers read.

    Source: see the module.
    """
    work = row["works"][w]
    log, server = work["slots"], work["server"]
    if log[STAGE] == STARTING:
        if start(row, th, w):
            log[STAGE] = SERVING
            come_up(row, server)
        rest(row, th, server, 0)
        return
    if server["batch"] == 0:
        if not consume(row, th, w):
            rest(row, th, server, 0)
            return
        most = server["workers"] * BUSY_NS // max(1, server["service_ns"])
        n = take(row, th, server, max(server["workers"], most))
        if n == 0:
            rest(row, th, server, row["tick_ns"])
            return
        compute(row, th, n * log[CPU_NS])
        in_parallel(row, server)
        exact = n * log[RECORD_BYTES] + log[CARRY]
        log[LEFT] = exact // PAGE
        log[CARRY] = exact % PAGE
        log[PHASE] = WRITING
        rest(row, th, server, 0)
        return
    done = False
    if log[PHASE] == ROLLING:
        roll(row, th, log)
    else:
        done = append(row, th, w)
    together(row, server, min(server["workers"], server["batch"]))  # all writers are braked to what the disk can do, however many
    if done:
        finish(row, th, server)
    ticks = QUIET_TICKS if server["io_ns"] == 0 else 1
    rest(row, th, server, ticks * row["tick_ns"] if done and server["backlog"] == 0 else 0)
    if done:
        log[FETCH_UNTIL] = server["wake_ns"] + row["tick_ns"] // 2
