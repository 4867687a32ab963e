# SPDX-License-Identifier: Apache-2.0
"""The `script` workload: a thread that runs a list of operations, one after the other, at given rates.

It is the op language of the kernel recordings, read by `script_ops.py`: the same file drives a real kernel and this one. Paced work is
done in quanta of 256 KiB, or of one tick's worth if that is more: after each the deadline moves by quantum / rate and the thread sleeps
until it; when it is behind it goes on at once, but a lag above 100 ms is forgotten. So progress below rate × time measures stalls.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import (
    SYNC_DATA,
    SYNC_DONE,
    access,
    at_rest,
    creat,
    exit_group,
    file_size,
    fsync,
    map_file,
    map_hugetlb,
    map_shared,
    map_untouched,
    read_file,
    read_untouched,
    sched_setaffinity,
    set_mempolicy,
    touch,
    unlink,
    write_file,
    write_knob,
)
from fleetsim.workloads.heap_calls import heap_rest
from fleetsim.workloads.script_fork import CHILD, fork_hold
from fleetsim.workloads.script_madvise import do_memory, map_private
from fleetsim.workloads.script_malloc import heap_step
from fleetsim.workloads.script_names import do_names
from fleetsim.workloads.script_pace import LAG_NS, QUANTUM_PAGES, quantum_pages
from fleetsim.workloads.script_swap import do_swap
from fleetsim.workloads.script_types import (
    ON_A_HEAP,
    OP_ACCESS,
    OP_EXIT,
    OP_FORK_HOLD,
    OP_HUGETLB,
    OP_MALLOC,
    OP_MEMPOLICY,
    OP_MLOCK,
    OP_MMAP_ANON,
    OP_MMAP_FILE,
    OP_MUNMAP,
    OP_PIN,
    OP_PIPES,
    OP_PROBE,
    OP_READ_FILE,
    OP_SHM,
    OP_SLEEP,
    OP_STAT_MISSING,
    OP_SWAPOFF,
    OP_SWAPON,
    OP_SYSW,
    OP_TOUCH,
    OP_UNLINK,
    OP_UNTIL,
    OP_WRITE_FILE,
    PACED,
)

QUIET_TICKS = 5


@law
def ticks_at_once(row, op):
    """Ticks of work that may be done in one go: several while nothing can come of it but progress.

    That is so when all that the op goes over is resident and nobody reclaims: its accesses change neither the page
    counts nor the lists, and the accessed bits are the same however often it looks.

    Source: fleetsim's own (design §4: an adaptive tick); docs/benchmarks.md says what it gains and what it costs in score.
    """
    if op["code"] == OP_ACCESS:
        a = row["handles"][op["handle"]]
        if a >= 0 and at_rest(row, row["areas"][a]["group"], row["areas"][a]["groups"]):
            return QUIET_TICKS
    return 1


@law
def next_op(row, program):
    """The op under way is done: go to the next.

    Source: the recordings' driver.
    """
    program["due"] = program["progress"]  # what an op did not do in its time is not owed by the next
    program["op"] += 1
    program["fresh_op"] = 1
    program["quantum"] = 0


@law
def begin_program(row, th):
    """A thread starts at its first op; areas that its ops mapped in a former life are gone.

    Source: the recordings' driver.
    """
    program = row["programs"][th]
    program["op"] = 0
    program["fresh_op"] = 1
    program["quantum"] = 0
    program["progress"] = 0
    program["progress_bytes"] = 0
    program["counted"] = 0
    program["names"] = 0
    program["due"] = 0
    for i in range(program["first"], program["first"] + program["ops"]):
        op = row["ops"][i]
        if op["code"] in (OP_MMAP_ANON, OP_MMAP_FILE, OP_SHM, OP_HUGETLB):
            row["handles"][op["handle"]] = -1


@law
def begin_op(row, program, op):
    """Start an op: its cursor, its pace and its end begin now.

    With a quantum of a whole tick the first is done half a tick late, so that work is neither ahead of its pace nor
    behind it on average (at its begin it would always be ahead: a leak would fill a host half a tick too early).

    Source: the recordings' driver; the half tick is fleetsim's own.
    """
    program["fresh_op"] = 0
    program["done"] = 0
    program["at"] = 0
    program["fresh"] = 0
    program["stage"] = 0
    if op["code"] == OP_ACCESS and row["handles"][op["handle"]] >= 0:
        program["fresh"] = 1 if row["areas"][row["handles"][op["handle"]]]["touched"] == 0 else 0
    program["quantum"] = 0
    paced = op["code"] in PACED or op["code"] == OP_MALLOC
    late = op["ns_per_quantum"] * (quantum_pages(row, op, 1) // QUANTUM_PAGES - 1) // 2 if paced else 0
    program["deadline_ns"] = row["now_ns"] + late
    program["begun_ns"] = row["now_ns"]
    timed = op["code"] in (OP_ACCESS, OP_READ_FILE, OP_SLEEP, OP_FORK_HOLD)
    program["end_ns"] = row["now_ns"] + op["time_ns"] if timed and op["time_ns"] > 0 else 1 << 62


@law
def do_at_once(row, th, op):
    """Ops that are one call.

    returns  bool  False: it is not done yet, come back

    Source: the recordings' driver.
    """
    code = op["code"]
    if code == OP_MMAP_ANON:
        row["handles"][op["handle"]] = map_private(row, th, op)
    elif code == OP_SHM:
        row["handles"][op["handle"]] = map_shared(row, th, op["pages"], op["pattern"], op["hot_pages"])
    elif code == OP_FORK_HOLD:
        fork_hold(row, th)
    elif code == OP_MMAP_FILE:
        row["handles"][op["handle"]] = map_file(row, th, op["file"], op["pattern"], op["hot_pages"], op["accounted"])
    elif OP_MUNMAP <= code <= OP_MLOCK:
        return do_memory(row, th, op, code - OP_MUNMAP)
    elif code == OP_PROBE:
        row["programs"][th]["progress"] += map_untouched(row, th, op["hot_pages"], op["pages"])
    elif code == OP_UNLINK:
        return unlink(row, th, op["file"])
    elif code == OP_HUGETLB:
        row["handles"][op["handle"]] = map_hugetlb(row, th, op["pages"], op["thp"])
    elif code == OP_SYSW:
        done = row["programs"][th]["done"] = write_knob(row, th, op["handle"], op["file"], op["time_ns"], row["programs"][th]["done"])
        return done < 0
    elif code in (OP_SWAPON, OP_SWAPOFF):
        return do_swap(row, th, op, code == OP_SWAPOFF)
    elif code == OP_PIN:
        sched_setaffinity(row, row["threads"][th]["task"], op["pages"])
    elif code == OP_MEMPOLICY:
        set_mempolicy(row, row["threads"][th]["task"], op["pattern"], op["pages"])
    elif code == OP_EXIT:
        exit_group(row, th, op["time_ns"])
    return True


@law
def write_chunk(row, th, program, op, pages):
    """write_file: create or truncate the file at first, then write on, from its begin again after `wrap` pages.

    returns  int64  pages done; 0: come back; −1: it cannot be written

    Source: the recordings' driver.
    """
    if program["stage"] == 0:
        opened = creat(row, th, op["file"], op["pattern"], 0 if op["write"] else 1)
        if opened <= 0:
            return opened
        program["stage"] = 1
    if op["hot_pages"] > 0:
        if program["at"] >= op["hot_pages"]:
            program["at"] = 0
        pages = min(pages, op["hot_pages"] - program["at"])
    done = write_file(row, th, op["file"], program["at"], pages)
    program["at"] += max(0, done)
    return done


@law
def finish_write(row, th, program, op):
    """All pages of a write_file are written: close the file, after an fsync if the op wants one.

    Source: the recordings' driver.
    """
    if program["stage"] == 0:  # nothing was to be written: it is made, or emptied, all the same
        opened = creat(row, th, op["file"], op["pattern"], 0 if op["write"] else 1)
        program["stage"] = SYNC_DONE if opened < 0 else opened
    elif op["fsync"] and program["stage"] < SYNC_DONE:
        program["stage"] = fsync(row, th, op["file"], max(SYNC_DATA, program["stage"]))
    else:
        next_op(row, program)
    row["threads"][th]["ready_ns"] = row["now_ns"] + row["spent_ns"] + row["wait_ns"]


@law
def do_pages(row, th, program, op, pages):
    """Work on up to `pages` pages.

    returns  int64  pages done; 0: come back; −1: there is no more to do

    Source: the recordings' driver.
    """
    if op["code"] == OP_WRITE_FILE:
        return write_chunk(row, th, program, op, pages)
    if op["code"] >= OP_STAT_MISSING and op["code"] <= OP_PIPES:
        return do_names(row, th, program, op, op["code"] - OP_STAT_MISSING, pages)
    if op["code"] == OP_READ_FILE:
        size = file_size(row, op["file"])
        if size == 0:
            return -1
        at = program["at"] % size
        done, missed = read_file(row, th, op["file"], at, min(pages, size - at), program["fresh"], op["pattern"])
        if done < 0:
            return -1
        program["fresh"] += missed
        group = row["groups"][row["files"][op["file"]]["group"]]
        program["at"] = at + done
        if program["at"] % group["slice"] == 0 or program["at"] >= size:
            program["fresh"] = 0
        return done
    a = row["handles"][op["handle"]]
    if a < 0:
        return -1
    if op["code"] == OP_TOUCH:
        return touch(row, th, a, pages)
    area = row["areas"][a]
    if program["fresh"] and area["touched"] < area["pages"]:  # nothing was touched before: the first round over it is made of faults
        if op["write"]:
            return touch(row, th, a, pages)
        at = program["at"] % area["pages"]
        done = read_untouched(row, th, a, at, min(pages, area["pages"] - at), op["hot_q"])
        program["at"] = at + done
        return done
    size = area["touched"]
    at = program["at"] % size
    done = access(row, th, a, at, min(pages, size - at), op["hot_q"], op["write"])
    program["at"] = at + done
    return done


@law
def work(row, th, program, op):
    """One chunk of a paced op; sets when the thread goes on.

    Source: the recordings' driver (pacing, see the module).
    """
    thread = row["threads"][th]
    if program["quantum"] == 0:
        program["quantum"] = quantum_pages(row, op, ticks_at_once(row, op))
        program["planned"] = program["quantum"]
    pages = program["quantum"]
    if op["pages"] > 0:
        pages = min(pages, op["pages"] - program["done"])
    over = row["now_ns"] >= program["end_ns"]
    done = -1 if over else do_pages(row, th, program, op, pages)
    if done < 0:
        next_op(row, program)
        return
    program["done"] += done
    program["progress"] += done
    program["quantum"] -= done
    end = row["now_ns"] + row["spent_ns"] + row["wait_ns"]
    thread["ready_ns"] = end
    finished = op["pages"] > 0 and program["done"] >= op["pages"]
    if program["quantum"] == 0 and op["ns_per_quantum"] > 0:
        quanta = program["planned"] // QUANTUM_PAGES
        program["deadline_ns"] += op["ns_per_quantum"] * quanta
        program["deadline_ns"] = max(program["deadline_ns"], end - LAG_NS)
        early = op["ns_per_quantum"] * (quanta - 1) // 2 if finished else 0  # a quantum of a tick is centred in its time
        thread["ready_ns"] = max(end, program["deadline_ns"] - early)
    if finished and op["code"] != OP_WRITE_FILE:
        next_op(row, program)


@law
def step(row, th):
    """Run thread `th` once at the host's clock: at most one chunk of work or one call.

    Source: the recordings' driver.
    """
    thread = row["threads"][th]
    program = row["programs"][th]
    thread["ready_ns"] = row["now_ns"]
    if program["op"] >= program["ops"]:
        if program["once"]:
            thread["used"] = 0
        else:
            exit_group(row, th, 0)
        return
    op = row["ops"][program["first"] + program["op"]]
    if program["fresh_op"]:
        begin_op(row, program, op)
        if program["deadline_ns"] > row["now_ns"]:
            thread["ready_ns"] = program["deadline_ns"]
            return
    code = op["code"]
    if code == OP_WRITE_FILE and program["done"] >= op["pages"]:
        finish_write(row, th, program, op)
    elif code in PACED:
        work(row, th, program, op)
    elif code in ON_A_HEAP:
        if heap_step(row, th, program, op, OP_MALLOC, quantum_pages(row, op, 1) // QUANTUM_PAGES):
            next_op(row, program)
    elif code in (OP_SLEEP, OP_UNTIL) or program["once"] == CHILD:
        wake = op["time_ns"] if code == OP_UNTIL else program["end_ns"]
        if row["now_ns"] >= wake and program["once"] == CHILD:
            exit_group(row, th, 0)
        elif row["now_ns"] >= wake:
            next_op(row, program)
        else:
            thread["ready_ns"] = heap_rest(row, th, wake)
    else:
        if do_at_once(row, th, op):
            next_op(row, program)
        thread["ready_ns"] = row["now_ns"] + row["spent_ns"] + row["wait_ns"]
