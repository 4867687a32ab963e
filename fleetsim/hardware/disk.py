# SPDX-License-Identifier: Apache-2.0
"""A block device: one queue for everybody, with a bandwidth, a latency and maybe a limit of requests per second.

A request waits until the device has moved what was asked of it before, then for its own pages, then for the latency. What
is queued counts as /proc/diskstats counts it: requests and sectors when they are done, and the time the device is busy.
A device can be slow (`slow_percent`: every time it takes is multiplied) and it can fail (`failing`: the caller gets an error).
Leaves out: seek order, separate read and write queues, write-back throttling of the block layer, merging of what others queued.
Source: block/ and Documentation/admin-guide/iostats.rst (Linux 6.1) for what is counted; the times are fleetsim's own model.
"""

from __future__ import annotations

from fleetsim.law import law

REQUEST_PAGES = 320  # max_sectors_kb 1280: the most that one request moves
READ, WRITE = 0, 1


@law
def submit(disk, now_ns, pages, direction):
    """Queue a transfer and say when it is done.

        requests = ⌈pages / 320⌉ ;  begin = max(now, free_at)
        free_at = begin + max(pages · ns_per_page, requests · ns_per_request) ;  done = free_at + latency

    disk       record  a row of `DISK`
    now_ns     int64   when it is submitted
    pages      int64   ≥ 0
    direction  int64   READ or WRITE
    returns    int64   ns, when the data is there

    Source: fleetsim's own device model; the latencies are data (kernel-laws §10.5).
    Leaves out: see the module.
    """
    requests = (pages + REQUEST_PAGES - 1) // REQUEST_PAGES
    slow = disk["slow_percent"]
    begin = max(now_ns, disk["free_at_ns"])
    took = max(pages * disk["ns_per_page"], requests * disk["ns_per_request"])
    latency = disk["latency_ns"]
    if slow != 100:
        took = took * slow // 100
        latency = latency * slow // 100
    disk["free_at_ns"] = begin + took
    done = disk["free_at_ns"] + latency
    disk["requests"][direction] += requests
    disk["pages"][direction] += pages
    disk["wait_ns"][direction] += requests * (done - now_ns)
    disk["busy_ns"] += done - max(now_ns, min(disk["busy_until_ns"], done))
    disk["busy_until_ns"] = max(disk["busy_until_ns"], done)
    return done


@law
def submit_chain(disk, now_ns, pages, window, direction):
    """Queue one transfer after the other, each when the one before is done, as a reader does who reads `window` pages at a time.

    What `submit` says for each of them, in closed form: behind the first, the device is free whenever the next one comes.

    window     int64  pages of each transfer but perhaps the last, 1 to REQUEST_PAGES
    returns    int64  ns, when the last data is there

    Source: as `submit`.
    """
    first = min(window, pages)
    done = submit(disk, now_ns, first, direction)
    full = (pages - first) // window
    rest = pages - first - full * window
    if full == 0 and rest == 0:
        return done
    slow = disk["slow_percent"]
    took = max(window * disk["ns_per_page"], disk["ns_per_request"])
    last_took = max(rest * disk["ns_per_page"], disk["ns_per_request"])
    latency = disk["latency_ns"]
    if slow != 100:
        took = took * slow // 100
        last_took = last_took * slow // 100
        latency = latency * slow // 100
    end = done + full * (took + latency)
    requests = full
    if rest > 0:
        end += last_took + latency
        requests += 1
    disk["free_at_ns"] = end - latency
    disk["requests"][direction] += requests
    disk["pages"][direction] += pages - first
    disk["wait_ns"][direction] += end - done
    disk["busy_ns"] += max(0, end - max(done, disk["busy_until_ns"]))
    disk["busy_until_ns"] = max(disk["busy_until_ns"], end)
    return end


@law
def submit_many(disk, now_ns, pages, window, at_once, direction):
    """Queue transfers of `window` pages each, `at_once` of them at the same time, each reader's next when its last one is done.

        took = max(window · ns_per_page, ns_per_request) for each;  requests = ⌈pages / window⌉
        done = begin + max(requests · took + latency, ⌈requests / at_once⌉ · (took + latency)) ;  free_at = begin + requests · took

    So few readers are held up by the latency, many by the device.

    window     int64  pages of each transfer, 1 to REQUEST_PAGES
    at_once    int64  ≥ 1
    returns    int64  ns, when the last data is there

    Source: as `submit`; Little's law.
    """
    slow = disk["slow_percent"]
    requests = (pages + window - 1) // window
    took = max(window * disk["ns_per_page"], disk["ns_per_request"])
    latency = disk["latency_ns"]
    if slow != 100:
        took = took * slow // 100
        latency = latency * slow // 100
    begin = max(now_ns, disk["free_at_ns"])
    rounds = (requests + at_once - 1) // at_once
    done = begin + max(requests * took + latency, rounds * (took + latency))
    disk["free_at_ns"] = begin + requests * took
    disk["requests"][direction] += requests
    disk["pages"][direction] += pages
    disk["wait_ns"][direction] += min(requests, at_once) * (done - now_ns)
    disk["busy_ns"] += max(0, done - max(now_ns, min(disk["busy_until_ns"], done)))
    disk["busy_until_ns"] = max(disk["busy_until_ns"], done)
    return done


@law
def busy_ms(disk, now_ns):
    """Milliseconds that the device had something to do, up to now (the queue's future is not counted yet).

    Source: block/genhd.c diskstats_show (io_ticks).
    """
    return (disk["busy_ns"] - max(0, disk["busy_until_ns"] - now_ns)) // 1_000_000
