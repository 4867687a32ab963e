# SPDX-License-Identifier: Apache-2.0
"""The `batch` workload: at its time it streams a file, sorts what it read in memory of its own, writes a result, and is done.

It sorts as external sorting does: what is read fills the work memory; when that is full, or the input is at its end, the run is
sorted and written out, and the next one overwrites it. Without work memory what was read is written as it comes. Paced, it falls
behind when it is held up, and does not hurry afterwards to make up for more than a second.
Source: D. Knuth, The Art of Computer Programming 3, §5.4 (runs); kernel-laws §16.4.
Leaves out: the merge of the runs; direct I/O; posix_fadvise.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import (
    OP_END,
    OP_START,
    ORDERED,
    SYNC_DATA,
    SYNC_DONE,
    access,
    compute,
    creat,
    exit_group,
    file_size,
    fsync,
    map_anonymous,
    munmap,
    read_file,
    tell,
    touch,
    write_file,
)

CHUNK = 1024  # pages in one go, if it is not paced
CHUNK_MIN = 64
LAG_NS = 10**9
HOUR_NS = 3600 * 10**9
WAITING, OPENING, READING, HOLDING, WRITING, SYNCING, FREEING = range(7)

ARGUMENTS = (
    "input",
    "output",
    "input_pages",
    "work_pages",
    "output_permille",
    "page_ns",
    "cpu_ns",
    "with_fsync",
    "at_ns",
    "every_ns",
)
(
    INPUT,  # file
    OUTPUT,  # file, −1: none
    INPUT_PAGES,  # how much it reads, from the start again where the file ends; 0: the file once
    WORK_PAGES,  # work memory
    OUTPUT_PERMILLE,  # it writes so much of what it read
    PAGE_NS,  # pace of reading, 0: as fast as it can
    CPU_NS,  # processor time for a page
    WITH_FSYNC,
    AT_NS,  # when it begins, since the boot of the host
    EVERY_NS,  # … and again; 0: never, it exits when it is done
    STAGE,
    NEXT_NS,  # when it begins next
    READ,  # pages read
    FRESH,  # … of this slice from disk
    AREA,  # work memory, one more than its row
    HELD,  # pages of the run
    GOT,  # pages of the last chunk, not held yet
    TO_WRITE,
    WRITTEN,
    CARRY,
    SYNC,
    DEADLINE_NS,
) = range(22)


@law
def begin(row, th, batch):
    """Its time has come: open the files, map the work memory.

    Source: fleetsim's own.
    """
    if batch[OUTPUT_PERMILLE] > 0:
        opened = creat(row, th, batch[OUTPUT], ORDERED, 1)
        if opened < 0:
            exit_group(row, th, 1)
        if opened <= 0:
            return
    if batch[WORK_PAGES] > 0 and batch[AREA] == 0:
        batch[AREA] = map_anonymous(row, th, batch[WORK_PAGES], ORDERED, 0, 1) + 1
        if batch[AREA] == 0:
            exit_group(row, th, 1)
            return
    batch[STAGE] = READING
    batch[DEADLINE_NS] = row["now_ns"]
    tell(row, th, OP_START)


@law
def wanted(batch, size):
    """Pages that it reads in all.

    Source: fleetsim's own.
    """
    return batch[INPUT_PAGES] if batch[INPUT_PAGES] > 0 else size


@law
def read(row, th, batch):
    """Read a chunk, at the pace, as far as the work memory has room.

    Source: mm/filemap.c filemap_read.
    """
    size = file_size(row, batch[INPUT])
    left = wanted(batch, size) - batch[READ]
    chunk = CHUNK if batch[PAGE_NS] == 0 else max(CHUNK_MIN, row["tick_ns"] // batch[PAGE_NS])
    if batch[AREA] > 0:
        chunk = min(chunk, batch[WORK_PAGES] - batch[HELD])
    if size == 0 or left <= 0:
        batch[STAGE] = WRITING
        end_run(batch)
        return
    at = batch[READ] % size
    done, missed = read_file(row, th, batch[INPUT], at, min(min(chunk, left), size - at), batch[FRESH], ORDERED)
    if done < 0:
        exit_group(row, th, 1)
        return
    batch[FRESH] += missed
    batch[READ] += done
    f = row["files"][batch[INPUT]]
    if batch[READ] % size % row["groups"][f["group"]]["slice"] == 0:
        batch[FRESH] = 0
    compute(row, th, done * batch[CPU_NS])
    batch[GOT] = done
    batch[DEADLINE_NS] = max(batch[DEADLINE_NS] + done * batch[PAGE_NS], row["now_ns"] - LAG_NS)
    if done > 0:
        batch[STAGE] = HOLDING if batch[AREA] > 0 else WRITING
        if batch[AREA] == 0:
            batch[HELD] = done
            end_run(batch)
            if batch[TO_WRITE] == 0 and left > done:
                batch[STAGE] = READING


@law
def end_run(batch):
    """What is held becomes output, the memory that it was in is free for the next run.

    Source: see the module.
    """
    exact = batch[HELD] * batch[OUTPUT_PERMILLE] + batch[CARRY]
    batch[TO_WRITE] = exact // 1000
    batch[CARRY] = exact % 1000
    batch[HELD] = 0


@law
def hold(row, th, batch):
    """Put the last chunk into the work memory: into pages never touched before, then over those of the run before.

    Source: see the module.
    """
    a = batch[AREA] - 1
    area = row["areas"][a]
    if area["touched"] <= batch[HELD]:
        done = touch(row, th, a, batch[GOT])
    else:
        done = access(row, th, a, batch[HELD], min(batch[GOT], area["touched"] - batch[HELD]), 0, 1)
    batch[GOT] -= max(0, done)
    batch[HELD] += max(0, done)
    if batch[GOT] <= 0 or done < 0:
        full = batch[HELD] >= batch[WORK_PAGES]
        batch[STAGE] = WRITING if full else READING
        if full:
            end_run(batch)


@law
def write(row, th, batch):
    """Write the run out; then go on reading, or finish.

    Source: mm/filemap.c generic_perform_write: a writer that is too fast for the disk sleeps in balance_dirty_pages.
    """
    if batch[TO_WRITE] > 0:
        done = write_file(row, th, batch[OUTPUT], batch[WRITTEN], min(CHUNK, batch[TO_WRITE]))
        if done < 0:
            exit_group(row, th, 1)
        batch[TO_WRITE] -= max(0, done)
        batch[WRITTEN] += max(0, done)
        return
    batch[STAGE] = READING
    if batch[READ] >= wanted(batch, file_size(row, batch[INPUT])):
        batch[STAGE] = SYNCING if batch[WITH_FSYNC] > 0 and batch[WRITTEN] > 0 else FREEING
        batch[SYNC] = SYNC_DATA


@law
def end(row, th, batch):
    """Done: give the work memory back, and exit or wait for the next time.

    Source: fleetsim's own.
    """
    if batch[AREA] > 0:
        if munmap(row, th, batch[AREA] - 1):
            batch[AREA] = 0
        return
    tell(row, th, OP_END)
    if batch[EVERY_NS] == 0:
        exit_group(row, th, 0)
        return
    batch[READ:DEADLINE_NS] = 0
    batch[STAGE] = WAITING
    while batch[NEXT_NS] <= row["now_ns"]:
        batch[NEXT_NS] += batch[EVERY_NS]


@law
def step(row, th, w):
    """One chunk of work, or wait for its time.

    Source: see the module.
    """
    batch = row["works"][w]["slots"]
    thread = row["threads"][th]
    stage = batch[STAGE]
    until = row["now_ns"]
    if stage == WAITING:
        batch[NEXT_NS] = max(batch[NEXT_NS], batch[AT_NS])
        if batch[NEXT_NS] <= row["now_ns"]:
            batch[STAGE] = OPENING
        until = min(batch[NEXT_NS], row["now_ns"] + HOUR_NS)
    elif stage == OPENING:
        begin(row, th, batch)
    elif stage == READING:
        read(row, th, batch)
        until = batch[DEADLINE_NS] if batch[PAGE_NS] > 0 else until
    elif stage == HOLDING:
        hold(row, th, batch)
    elif stage == WRITING:
        write(row, th, batch)
    elif stage == SYNCING:
        batch[SYNC] = fsync(row, th, batch[OUTPUT], batch[SYNC])
        batch[STAGE] = FREEING if batch[SYNC] == SYNC_DONE else SYNCING
    else:
        end(row, th, batch)
    thread["ready_ns"] = max(until, row["now_ns"] + row["spent_ns"] + row["wait_ns"])
