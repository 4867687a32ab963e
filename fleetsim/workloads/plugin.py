# SPDX-License-Identifier: Apache-2.0
"""The `plugin` workload: a process whose program is Python, written by a user. This is its compiled half.

A compiled host cannot call Python, so it stops: when the thread has a CPU it notes itself in `asking` and the host's loop returns.
Whoever ran the host (`fleetsim/host/shard.py`) goes on with the program, which puts one system call at a time into its slots and runs
the host again; the call is made here, the loop returns with the result, and so on until the call is END. All that is between two
calls takes no simulated time, and all calls of a turn are on one bill, as those of a compiled workload are.

Leaves out: fork, shared memory, several threads.
Source: fleetsim's own; the calls are those of `linux/syscalls.py`, the requests those of `requests.py`.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import (
    access,
    compute,
    creat,
    exit_group,
    file_size,
    free_range,
    fsync,
    is_resident,
    is_running,
    madvise,
    map_anonymous,
    map_file,
    mlock,
    munmap,
    open_random,
    pread,
    read_file,
    tell,
    touch,
    unlink,
    write_file,
)
from fleetsim.workloads.requests import come_up, fail, finish, in_parallel, note_slow, pause, rest, take

ARGUMENTS = ()  # its arguments are Python's

CALLS = (
    "end",
    "map_anonymous",
    "map_file",
    "munmap",
    "touch",
    "access",
    "madvise",
    "free_range",
    "mlock",
    "is_resident",
    "creat",
    "read_file",
    "pread",
    "write_file",
    "fsync",
    "unlink",
    "file_size",
    "compute",
    "exit_group",
    "tell",
    "come_up",
    "take",
    "finish",
    "fail",
    "pause",
)
"""What a program may ask for, by number. `end` ends its turn."""
(
    END,
    MAP_ANONYMOUS,
    MAP_FILE,
    MUNMAP,
    TOUCH,
    ACCESS,
    MADVISE,
    FREE_RANGE,
    MLOCK,
    IS_RESIDENT,
    CREAT,
    READ_FILE,
    PREAD,
    WRITE_FILE,
    FSYNC,
    UNLINK,
    FILE_SIZE,
    COMPUTE,
    EXIT_GROUP,
    TELL,
    COME_UP,
    TAKE,
    FINISH,
    FAIL,
    PAUSE,
) = range(len(CALLS))

AFTER, UNTIL, REST = range(3)
"""How a turn ends: the thread goes on so many ns after its bill is paid, at an instant, or as a server rests (requests.py)."""

CALL, ARGUMENT, RESULT, MORE, TOUCHED, COST, GONE = 0, 1, 7, 8, 9, 10, 11
"""Its slots: the call, up to six arguments, and what is answered."""


@law
def end_turn(row, th, server, how, ns):
    """The program has done what it wanted to do this time: when does its thread go on?

    how, ns  int64  AFTER, UNTIL or REST, and its ns

    Source: fleetsim's own pacing. What a batch of requests did in this turn they did side by side.
    """
    if server["batch"] > 0:
        in_parallel(row, server)
    if how == REST:
        rest(row, th, server, ns)
        return
    paid = row["now_ns"] + row["spent_ns"] + row["wait_ns"]
    row["threads"][th]["ready_ns"] = paid + ns if how == AFTER else max(paid, ns)


@law
def ask_memory(row, th, call, ask):
    """Carry out a call about memory.

    returns  int64  what it returned

    Source: linux/syscalls.py.
    """
    a, n = ask[ARGUMENT], ask[ARGUMENT + 1]
    result = 0
    if call == MAP_ANONYMOUS:
        return map_anonymous(row, th, a, n, ask[ARGUMENT + 2], ask[ARGUMENT + 3])
    if call == MAP_FILE:
        return map_file(row, th, a, n, ask[ARGUMENT + 2], ask[ARGUMENT + 3])
    if call == TOUCH:
        result = touch(row, th, a, n)
    elif call == ACCESS:
        result = access(row, th, a, n, ask[ARGUMENT + 2], ask[ARGUMENT + 3], ask[ARGUMENT + 4])
    elif call == MADVISE:
        result = 1 if madvise(row, th, a, n) else 0
    elif call == FREE_RANGE:
        free_range(row, th, a, n, ask[ARGUMENT + 2], ask[ARGUMENT + 3])
    elif call == MLOCK:
        result = 1 if mlock(row, th, a, n) else 0
    elif call == IS_RESIDENT:
        result = 1 if is_resident(row, a) else 0
    elif call == MUNMAP:
        result = 1 if munmap(row, th, a) else 0
    ask[TOUCHED] = row["areas"][a]["touched"]
    return result


@law
def ask_file(row, th, call, ask):
    """Carry out a call about a file; what it read from disk goes into MORE.

    returns  int64  what it returned

    Source: linux/syscalls.py.
    """
    f, at, pages = ask[ARGUMENT], ask[ARGUMENT + 1], ask[ARGUMENT + 2]
    if call == CREAT:
        return creat(row, th, f, at, pages)
    if call == READ_FILE:
        done, missed = read_file(row, th, f, at, pages, ask[ARGUMENT + 3], ask[ARGUMENT + 4])
        ask[MORE] = ask[ARGUMENT + 3] + missed
        file = row["files"][f]
        if done >= 0 and file["mount"] < 0 and (at + done) % file["size"] % row["groups"][file["group"]]["slice"] == 0:
            ask[MORE] = 0
        return done
    if call == PREAD:
        if row["files"][f]["group"] < 0 and not open_random(row, f, 0):
            return -1
        done, missed = pread(row, th, f, at, pages, ask[ARGUMENT + 3], ask[ARGUMENT + 4])
        ask[MORE] = missed
        return done
    if call == WRITE_FILE:
        return write_file(row, th, f, at, pages)
    if call == FSYNC:
        return fsync(row, th, f, at)
    if call == UNLINK:
        return 1 if unlink(row, th, f) else 0
    return file_size(row, f)


@law
def ask_requests(row, th, call, server, n):
    """Carry out a call about its users' requests.

    returns  int64  what it returned

    Source: requests.py.
    """
    if call == COME_UP:
        come_up(row, server)
    elif call == TAKE:
        return take(row, th, server, n)
    elif call == FINISH:
        in_parallel(row, server)
        note_slow(server, n)
        finish(row, th, server)
    elif call == FAIL:
        fail(server, n)
    elif call == PAUSE:
        pause(row, server, n)
    return server["backlog"]


@law
def step(row, th, w):
    """Stop for the program, or carry out the call that it has made meanwhile.

    Source: fleetsim's own; see the module.
    """
    ask, server = row["works"][w]["slots"], row["works"][w]["server"]
    if row["asking"] == 0:
        row["asking"] = th + 1
        return
    call, n = ask[CALL], ask[ARGUMENT]
    if call == END:
        end_turn(row, th, server, n, ask[ARGUMENT + 1])
        ask[:] = 0
        row["asking"] = 0
        return
    ask[MORE] = 0
    if call <= IS_RESIDENT:
        ask[RESULT] = ask_memory(row, th, call, ask)
    elif call <= FILE_SIZE:
        ask[RESULT] = ask_file(row, th, call, ask)
    elif call >= COME_UP:
        ask[RESULT] = ask_requests(row, th, call, server, n)
    elif call == COMPUTE:
        compute(row, th, n)
    elif call == EXIT_GROUP:
        exit_group(row, th, n)
    elif call == TELL:
        tell(row, th, n)
    ask[COST] = row["spent_ns"] + row["wait_ns"]
    ask[GONE] = 0 if is_running(row, row["works"][w]["task"]) else 1
