# SPDX-License-Identifier: Apache-2.0
"""Requests: how they arrive, wait, are served, given up, and how long each took. The part that all workloads with users share.

Arrivals are a rate, work is done in batches, and latencies come of a fluid model of the workers between two batches: a request
that finds them free takes its service time, one that does not waits until they have done what came before it (`free_ns`). So the
length of a batch is not part of any latency, and every stall is: a fault, reclaim, a throttled write, a collection of garbage, a
disk. Of a batch in which some requests waited for a disk only those are slow.

    take() → the workload's own calls of the kernel, each followed by in_parallel() → finish() → rest()

Leaves out: single requests, their order beyond first come first served, and random service times.
Source: Lindley's recursion for a queue with `workers` servers, on batches.
"""

from __future__ import annotations

from fleetsim.law import law
from fleetsim.workloads.arrivals import DONE, FAILED, IO, LATE, LE_MS, NR_BUCKETS, NS_PER_MS, arrive, lose, rate_now, share_of


@law
def give_up(server):
    """Clients that would wait longer than their timeout until a worker is free have gone away.

    Source: arrivals are even between the oldest one and the last look.
    """
    horizon = server["free_ns"] - server["timeout_ns"]
    if server["cancels"] == 0 or server["timeout_ns"] <= 0 or server["backlog"] == 0 or horizon <= server["oldest_ns"]:
        return
    gone = share_of(server["backlog"], horizon - server["oldest_ns"], server["since_ns"] - server["oldest_ns"])
    server["timed_out"] = lose(server, gone, server["timed_out"])
    server["oldest_ns"] = min(horizon, server["since_ns"])


@law
def queue_up(row, server):
    """How many of the backlog had to queue, because the workers could not take them as they came; those who found the queue full
    are refused.

    Source: a listen queue that is full refuses (net/core/request_sock.c, net.core.somaxconn).
    """
    could_until = server["held_ns"] if server["held_ns"] > 0 else row["now_ns"]
    span = could_until - max(server["free_ns"], server["oldest_ns"])
    queued = server["backlog"]
    if span > 0:
        queued -= server["backlog"] if server["pace_ns"] == 0 else span // server["pace_ns"]
    over = queued - server["queue_max"]
    if over > 0:
        server["refused"] = lose(server, over, server["refused"])
    queued = max(0, min(queued, server["queue_max"]))
    busy = server["workers"]
    if queued == 0:
        busy = min(busy, server["backlog"] * server["service_ns"] // max(1, row["now_ns"] - server["oldest_ns"]) + 1)
    server["present"] = queued + min(busy, server["backlog"])


@law
def hold(row, server):
    """What delayed the batch (a CPU that was not free, a stall of the whole process) delays those who came meanwhile, and nobody else.

    returns  int64  requests of the backlog that came before it; the others wait until now, and are another batch

    Source: arrivals are even. Leaves out: delays of a millisecond and less.
    """
    if server["wake_ns"] > 0 and row["now_ns"] - server["wake_ns"] > NS_PER_MS and server["backlog"] > 0:
        server["held_ns"] = server["held_ns"] if server["held_ns"] > 0 else server["wake_ns"]
        server["released_ns"] = row["now_ns"]
    if server["held_ns"] > 0:
        before = share_of(server["backlog"], server["held_ns"] - server["oldest_ns"], server["since_ns"] - server["oldest_ns"])
        if before > 0:
            return before
        server["free_ns"] = max(server["free_ns"], server["released_ns"])
        server["held_ns"] = 0
    return server["backlog"]


@law
def take(row, th, server, most):
    """Begin a batch of up to `most` requests: those that wait longest.

    returns  int64  requests; 0: nobody waits

    Source: first come, first served.
    """
    arrive(row, server)
    hold(row, server)
    give_up(server)
    queue_up(row, server)
    server["batch"] = min(max(1, most), hold(row, server))
    server["began_ns"] = row["now_ns"]
    server["work_ns"] = 0
    server["room_ns"] = 0
    server["io_ns"] = 0
    server["majflt"] = row["tasks"][row["threads"][th]["task"]]["majflt"]
    return server["batch"]


@law
def in_parallel(row, server):
    """What a batch's requests do one after the other on this thread they do side by side on the workers: the bill shrinks to the time
    that passes.

    Source: the time of n requests on w workers is that of n/w; leaves out workers that wait for one another.
    """
    side_by_side = max(1, min(server["workers"], server["batch"]))
    server["io_ns"] += row["stall_ns"][IO]
    server["work_ns"] += row["spent_ns"] + row["wait_ns"]
    server["room_ns"] += row["spent_ns"] // max(1, min(server["workers"], row["cpus"])) + row["wait_ns"] // max(1, server["workers"])
    row["wait_ns"] //= side_by_side
    for kind in range(len(row["stall_ns"])):
        row["stall_ns"][kind] //= side_by_side
    computing = max(1, min(side_by_side, row["cpus"]))
    row["spent_ns"] //= computing
    row["reclaim_ns"] //= computing


@law
def together(row, server, n):
    """What is on the thread's bill `n` requests of the batch waited for, as many at a time as there are workers (a group commit). The
    bill stays: it is the time that passes.

    Source: one flush of a log serves all who wait for it.
    """
    took = row["spent_ns"] + row["wait_ns"]
    server["io_ns"] += row["stall_ns"][IO] * n
    server["work_ns"] += took * n
    server["room_ns"] += took * n // max(1, server["workers"])


@law
def note_slow(server, n):
    """`n` requests of the batch waited for a disk in a call that is no fault: they are the slow ones.

    Source: read() counts no major fault.
    """
    server["majflt"] -= n


@law
def count_latencies(server, n, low, high):
    """`n` requests took between `low` and `high` ns, evenly. Those that took longer than the timeout were answered to nobody.

    Source: a Prometheus histogram with the bounds LE_MS.
    """
    if n <= 0:
        return
    high = max(high, low + 1)
    patience = server["timeout_ns"]
    if patience > 0 and high > patience:
        lost = n if low >= patience else share_of(n, high - patience, high - low)
        server["timed_out"] += lost
        server["window"][FAILED] += lost
        n -= lost
        high = max(low + 1, patience)
    server["served"] += n
    below = 0
    for k in range(NR_BUCKETS):
        upto = n
        if k < NR_BUCKETS - 1:
            bound = LE_MS[k] * NS_PER_MS
            upto = n if bound >= high else (0 if bound <= low else share_of(n, bound - low, high - low))
        server["buckets"][k] += upto - below
        below = max(below, upto)
    late = 0
    if server["slo_ns"] > 0 and high > server["slo_ns"]:
        late = n if low >= server["slo_ns"] else share_of(n, high - server["slo_ns"], high - low)
    server["window"][DONE] += n
    server["window"][LATE] += late
    server["late"] += late
    server["latency_sum_us"] += n * ((low + high) // 2000)


@law
def finish(row, th, server):
    """The batch is done, with the last call that is on the thread's bill. Those of its requests that waited for a disk were slow.

    Source: see the module. Leaves out: which of them waited more than once.
    """
    n = server["batch"]
    if n <= 0:
        return
    end = row["now_ns"] + row["spent_ns"] + row["wait_ns"]
    wall = end - server["began_ns"]
    slow = min(n, row["tasks"][row["threads"][th]["task"]]["majflt"] - server["majflt"])
    slow_ns = server["io_ns"] // slow if slow > 0 else 0
    service = (server["work_ns"] - (server["io_ns"] if slow > 0 else 0)) // n
    first = server["oldest_ns"]
    last = first + (server["since_ns"] - first) // server["backlog"] * n
    started = max(server["free_ns"], first)
    server["free_ns"] = started + wall
    server["service_ns"] = service
    server["pace_ns"] = server["room_ns"] // n
    server["backlog"] -= n
    server["oldest_ns"] = last
    server["batch"] = 0
    low, high = started - first, max(0, started + wall - last - service)
    low, high = min(low, high) + service // 2, max(low, high) + 3 * service // 2
    count_latencies(server, n - slow, low, high)
    count_latencies(server, slow, low + slow_ns // 2, high + 3 * slow_ns // 2)


@law
def fail(server, n):
    """`n` of the requests just finished were answered with an error.

    Source: fleetsim's own; how long they took stays in the histogram.
    """
    server["served"] -= n
    server["broken"] += n
    server["window"][DONE] -= n
    server["window"][FAILED] += n


@law
def rest(row, th, server, ns):
    """The thread goes on when its bill is paid, and not before `ns` from now: its next batch gathers until then.

    Source: fleetsim's own pacing.
    """
    end = max(row["now_ns"] + row["spent_ns"] + row["wait_ns"], row["now_ns"] + ns)
    server["wake_ns"] = end
    row["threads"][th]["ready_ns"] = end


@law
def expected(row, server, ns):
    """Requests that will come in `ns` from now, at the present rate.

    Source: arrivals.py.
    """
    return rate_now(server, row["now_ns"]) * (ns // 1_000_000) // 1_000_000 + 1


@law
def pause(row, server, ns):
    """The whole process stands still for `ns` from now: whoever arrives meanwhile waits.

    Source: a stop-the-world pause, a fork, a signal: no worker runs.
    """
    server["free_ns"] = max(server["free_ns"], row["now_ns"]) + ns


@law
def stuck_ns(row, server):
    """For how long the workers have been held up: a batch that takes longer than the last ones, or that waits for a CPU.

    Source: fleetsim's own; twice the last pace is not yet held up.
    """
    if server["batch"] > 0:
        return max(0, row["now_ns"] - server["began_ns"] - 2 * server["batch"] * server["pace_ns"])
    return max(0, row["now_ns"] - server["wake_ns"]) if server["wake_ns"] > 0 else 0


@law
def answer_ns(row, server):
    """How long a request that arrived now would take to be answered, as far as can be known now.

    Source: what waits before it, at the present pace of the workers.
    """
    done = max(server["free_ns"], server["oldest_ns"]) + server["backlog"] * server["pace_ns"]
    behind = max(stuck_ns(row, server), done - row["now_ns"] if server["backlog"] > 0 else server["free_ns"] - row["now_ns"])
    return max(0, behind) + server["service_ns"]


@law
def come_up(row, server):
    """From now on it answers; who came before was refused.

    Source: listen(2).
    """
    refuse_all(row, server)
    server["ready"] = 1
    server["known"] = 1


@law
def answer_the_gathered(row, server):
    """A server that is not held up has answered who came while its next batch gathers, but for those of the last service time. That they
    are counted in one go later must not matter to whoever looks, or ends it, in between.

    Source: as `finish`; leaves out what they would have cost.
    """
    if server["ready"] == 0 or server["batch"] > 0 or server["held_ns"] > 0 or server["service_ns"] <= 0 or stuck_ns(row, server) > 0:
        return
    first, waits = server["oldest_ns"], server["backlog"]
    until = server["since_ns"] - (0 if server["closing"] > 0 else server["service_ns"])  # nobody came lately, if it is closing
    done = share_of(waits, until - first, server["since_ns"] - first)
    if server["pace_ns"] > 0:
        done = min(done, max(0, until - max(server["free_ns"], first)) // server["pace_ns"])
    if done <= 0:
        return
    server["oldest_ns"] += (server["since_ns"] - first) // waits * done
    server["backlog"] -= done
    count_latencies(server, done, server["service_ns"] // 2, 3 * server["service_ns"] // 2)


@law
def go_down(row, server):
    """The process is gone: what it was serving or was waiting there is lost, and it does not answer.

    Source: connections are reset.
    """
    if server["known"] > 0:
        arrive(row, server)
    answer_the_gathered(row, server)
    server["ready"] = 0
    server["broken"] = lose(server, server["backlog"], server["broken"])
    server["batch"] = 0
    server["free_ns"] = 0
    server["wake_ns"] = 0
    server["held_ns"] = 0
    server["closing"] = 0


@law
def refuse_all(row, server):
    """Nobody is there to answer: whoever came since the last look is refused.

    Source: net/ipv4/tcp_ipv4.c (a reset for a port that nobody listens on). Before it was up for the first time nobody comes.
    """
    if server["known"] == 0:
        server["since_ns"] = row["now_ns"]
        return
    arrive(row, server)
    server["refused"] = lose(server, server["backlog"], server["refused"])


@law
def observe(row, server):
    """Count what has come up to now, so that the counters can be read.

    Source: fleetsim's own.
    """
    if server["ready"] == 0:
        refuse_all(row, server)
    else:
        arrive(row, server)
