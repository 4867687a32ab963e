# SPDX-License-Identifier: Apache-2.0
"""The processes of a PostgreSQL server: the postmaster forks a backend for every connection, and they sort in memory of their own.

A backend's part of a batch is done on its own thread row, so that its faults and its pages are its own; when it goes on is the
postmaster's thread's business. It sleeps, and ends when its postmaster is gone.
Source: src/backend/postmaster/postmaster.c (BackendStartup, HandleChildCrash); kernel-laws §16.3.
Leaves out: the time that authentication takes; parallel workers; autovacuum.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.linux.syscalls import ORDERED, access_filled, exit_group, fork, is_running, map_anonymous, munmap, set_oom_score_adj, touch
from fleetsim.workloads.postgres_types import (
    ADJ,
    BACKEND_PAGES,
    CHECKPOINTER,
    CLIENT,
    IDLE_BACKENDS,
    IS_HUGE,
    NR_BACKENDS,
    PROTECT,
    SHARED,
    SORTS,
    TURN,
    WORK_PAGES,
)

CHUNK = 2048  # pages that are touched in one go
SPAWNED_AT_ONCE = 4  # forks between two batches
LOOKERS = 2  # backends whose looks at the shared buffers are made in one batch: the others' turn comes


@law
def free_thread(row):
    """A thread row without a program; −1: none is left.

    Source: fleetsim's own table.
    """
    for th in range(len(row["programs"])):
        program = row["programs"][th]
        if row["threads"][th]["used"] == 0 and program["work"] == 0 and program["ops"] == 0 and program["first"] >= 0:
            return th
    return -1


@law
def count(row, w, role):
    """Running processes of a role of the server in row `w`.

    Source: fleetsim's own table.
    """
    n = 0
    for b in range(row["backends_used"]):
        n += 1 if row["backends"][b]["owner"] == w + 1 and row["backends"][b]["role"] == role else 0
    return n


@law
def own_area(row, t, parent):
    """The area of task `t` that is a copy of its parent's area `parent`.

    Source: kernel/fork.c dup_mmap: a child's mappings are its parent's.
    """
    for a in range(len(row["areas"])):
        area = row["areas"][a]
        if area["kind"] != 0 and area["task"] == t and area["file"] == row["areas"][parent]["file"]:
            return a
    return -1


@law
def spawn(row, th, w, role):
    """Fork a child for a connection, or the checkpointer.

    returns  bool  False: there is no memory or no room for it

    Source: src/backend/postmaster/postmaster.c BackendStartup (fork_process sets oom_score_adj).
    """
    pg = row["works"][w]["slots"]
    b = 0
    while b < NR_BACKENDS and row["backends"][b]["owner"] > 0:
        b += 1
    child = free_thread(row)
    if b == NR_BACKENDS or child < 0:
        return False
    t = fork(row, th, child)
    if t < 0:
        return False
    backend = row["backends"][b]
    row["backends_used"] = max(row["backends_used"], b + 1)
    backend["owner"] = w + 1
    backend["role"] = role
    backend["th"] = child
    backend["sort"] = -1
    backend["private"] = -1
    backend["shared"] = own_area(row, t, pg[SHARED] - 1) if pg[IS_HUGE] == 0 else -1
    program = row["programs"][child]
    program["work"] = w + 1
    program["once"] = 0
    if pg[PROTECT] > 0:
        set_oom_score_adj(row, child, pg[ADJ])
    if pg[BACKEND_PAGES] > 0 and role == CLIENT:
        backend["private"] = map_anonymous(row, child, pg[BACKEND_PAGES], ORDERED, 0, 1)
    return True


@law
def release(row, w):
    """End what is left of the server's children, and forget those that are gone.

    returns  bool  True: none is left

    Source: src/backend/postmaster/postmaster.c HandleChildCrash: SIGQUIT to all.
    """
    left = 0
    for b in range(row["backends_used"]):
        backend = row["backends"][b]
        if backend["owner"] != w + 1:
            continue
        th = backend["th"]
        if is_running(row, row["threads"][th]["task"]) and row["threads"][th]["used"] > 0:
            exit_group(row, th, 2)
            left += 1
        elif row["threads"][th]["used"] > 0:  # it is on its way
            left += 1
        else:
            row["programs"][th]["work"] = 0
            backend["owner"] = 0
    return left == 0


@law
def crashed(row, w):
    """True if a child of the server in row `w` does not run any more.

    Source: src/backend/postmaster/postmaster.c reaper.
    """
    gone = False
    for b in range(row["backends_used"]):
        backend = row["backends"][b]
        if backend["owner"] == w + 1:
            gone = gone or row["threads"][backend["th"]]["used"] == 0 or not is_running(row, row["threads"][backend["th"]]["task"])
    return gone


@law
def connect(row, th, w):
    """As many backends as there are connections: those of the pools, and one for every request that is there at once.

    Source: one process for each connection, which stays when nothing is asked.
    """
    work = row["works"][w]
    wanted = min(work["server"]["workers"], max(work["slots"][IDLE_BACKENDS], work["server"]["present"]))
    missing = min(SPAWNED_AT_ONCE, wanted - count(row, w, CLIENT))
    while missing > 0 and spawn(row, th, w, CLIENT):
        missing -= 1


@law
def warm_up(row, w):
    """New backends fill their private memory: caches of the catalogue, of plans.

    returns  bool  True: all have

    Source: src/backend/utils/cache; kernel-laws §16.3.
    """
    for b in range(row["backends_used"]):
        backend = row["backends"][b]
        if backend["owner"] == w + 1 and backend["private"] >= 0:
            area = row["areas"][backend["private"]]
            if area["touched"] < area["pages"] and touch(row, backend["th"], backend["private"], CHUNK) == 0:
                return False
    return True


@law
def next_client(row, w):
    """The backend whose turn it is; −1: there is none.

    Source: fleetsim's own.
    """
    pg = row["works"][w]["slots"]
    for _ in range(row["backends_used"]):
        pg[TURN] = (pg[TURN] + 1) % row["backends_used"]
        backend = row["backends"][pg[TURN]]
        if backend["owner"] == w + 1 and backend["role"] == CLIENT:
            return pg[TURN]
    return -1


@law
def look(row, w, blocks):
    """Backends look at `blocks` blocks of the shared buffers, mapping what they have not mapped yet.

    Source: src/backend/storage/buffer/bufmgr.c ReadBuffer. Leaves out: all but LOOKERS backends in a batch: the others' turn comes.
    """
    for _ in range(LOOKERS):
        b = next_client(row, w)
        if b >= 0 and row["backends"][b]["shared"] >= 0:
            access_filled(row, row["backends"][b]["th"], row["backends"][b]["shared"], blocks // LOOKERS)


@law
def sort(row, w):
    """The sorts that go on at the same time have their memory: one more backend's, or a chunk of it.

    returns  bool  True: all have

    Source: src/backend/utils/sort/tuplesort.c: memory grows up to work_mem.
    """
    pg = row["works"][w]["slots"]
    left = pg[SORTS]
    for b in range(row["backends_used"]):
        backend = row["backends"][b]
        if left == 0:
            break
        if backend["owner"] != w + 1 or backend["role"] != CLIENT:
            continue
        left -= 1
        if backend["sort"] < 0:
            backend["sort"] = map_anonymous(row, backend["th"], pg[WORK_PAGES], ORDERED, 0, 1)
        if backend["sort"] >= 0 and row["areas"][backend["sort"]]["touched"] < pg[WORK_PAGES]:
            touch(row, backend["th"], backend["sort"], CHUNK)
            return False
    return True


@law
def end_sorts(row, w):
    """The sorts are done, their memory goes back.

    returns  bool  True: all of it

    Source: src/backend/utils/mmgr/aset.c AllocSetDelete; glibc's free() of a large block is munmap (kernel-laws §15.1).
    """
    for b in range(row["backends_used"]):
        backend = row["backends"][b]
        if backend["owner"] == w + 1 and backend["sort"] >= 0:
            if not munmap(row, backend["th"], backend["sort"]):
                return False
            backend["sort"] = -1
    return True


@law
def is_checkpointer(row, w, th):
    """Is thread `th` the checkpointer of the server in row `w`?

    Source: fleetsim's own table.
    """
    found = False
    for b in range(row["backends_used"]):
        backend = row["backends"][b]
        found = found or (backend["owner"] == w + 1 and backend["th"] == th and backend["role"] == CHECKPOINTER)
    return found
