# SPDX-License-Identifier: Apache-2.0
"""Redis saving: what a fork costs per GiB, what is copied on write while the child saves, what clients feel, how a fork fails.

`make measure PROGRAM=redis_save`. Copy-on-write is what the child says at its end (`rdb_last_cow_size`: its Private_Dirty) beside the
number of keys written meanwhile. Writers are paced (open loop), so a stall is felt by every command that was due in it. A fork's time is
wall-clock; beside it is how long the server was on a processor for the whole command, which a busy machine stretches less.
Leaves out: vm.overcommit_memory=2, a setting of the whole machine. The two ways a fork fails here are a limit on processes (EAGAIN) and
ENOMEM, the error overcommit gives, put in the place of the system call's answer by strace: what Redis then says and does is its own.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.calibrate.process import children, has_ended, on_processor_s, processor_s, smaps_rollup, stop, unprivileged
from scripts.calibrate.record import Run, record, repeated
from scripts.calibrate.redis_client import ErrorReply, command
from scripts.calibrate.redis_server import MIB, Redis, key, load, redis, version

FORKS = 8
TICK_S = 0.001
SAVE_TIMEOUT_S = 120
HUGE = {"MALLOC_CONF": "thp:always"}  # jemalloc then asks for huge pages with madvise, as the machine's setting may demand
FORK_SIZES_MIB = (256, 1024, 2048)
SAVED = (600_000, 1024)  # keys, bytes of each
WRITE_RATES = (0, 1000, 5000, 20_000)


# ------------------------------------------------------------------------------------------------------------------ fork


def forks(mib: int, huge: bool) -> list[Run]:
    """Forks of one server with so much data; each child is ended as Redis itself ends one (SIGUSR1), its save is not waited for."""
    with redis(*(["--disable-thp", "no"] if huge else []), env=HUGE if huge else None) as server:
        load(server.client, mib * MIB // (4096 + 100), 4096)
        runs: list[Run] = []
        for _ in range(FORKS):
            memory = server.memory()
            rollup = smaps_rollup(server.process.pid)
            began_s = on_processor_s(server.process.pid)
            server.client.ask("BGSAVE")
            processor_us = 1e6 * (on_processor_s(server.process.pid) - began_s)
            for child in children(server.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGUSR1)
            wait_for_child(server, "rdb_bgsave_in_progress")
            gib = memory["vmrss_bytes"] / 2**30
            fork_us = float(server.client.info("stats")["latest_fork_usec"])
            runs.append(
                {
                    "vmrss_bytes": memory["vmrss_bytes"],
                    "huge_share_percent": 100 * rollup["AnonHugePages"] / rollup["Rss"],
                    "fork_us": fork_us,
                    "fork_per_gib_us": fork_us / gib,
                    "command_processor_per_gib_us": processor_us / gib,
                }
            )
        return runs


def wait_for_child(server: Redis, flag: str) -> dict[str, str]:
    deadline = time.monotonic() + SAVE_TIMEOUT_S
    while time.monotonic() < deadline:
        info = server.client.info("persistence")
        if info[flag] == "0":
            return info
        time.sleep(0.05)
    raise TimeoutError(f"{flag} was still set after {SAVE_TIMEOUT_S} s")


# ------------------------------------------------------------------------------------------------- saves while clients write


class Writer:
    """Sets random keys to values of the same size, so many a second, and keeps how long each command was late."""

    def __init__(self, server: Redis, keys: int, size: int, rate: int, in_place: bool = False) -> None:
        self.server, self.keys, self.rate = server, keys, rate
        self.draw = random.Random(4)
        pool = self.draw.randbytes(size)
        # SETRANGE writes into the value that is there; SET allocates a new one and frees the old.
        self.words = (lambda k: command(b"SETRANGE", k, 0, b"new")) if in_place else (lambda k: command(b"SET", k, pool))
        self.late_ms: list[float] = []
        self.written: set[int] = set()
        self.writes = 0
        self.child_s = 0.0

    def tick(self, due: float) -> None:
        """The commands of one tick (one GET where nothing is written), sent at `due`; late is from when they were due to the reply."""
        time.sleep(max(0.0, due - time.monotonic()))
        numbers = [self.draw.randrange(self.keys) for _ in range(max(1, round(self.rate * TICK_S)))]
        if self.rate:
            self.server.client.checked([self.words(key(number)) for number in numbers])
            self.written.update(numbers)
            self.writes += len(numbers)
        else:
            self.server.client.ask("GET", key(numbers[0]))
        self.late_ms.append((time.monotonic() - due) * 1000)

    def run(self, seconds: float, child: int = 0) -> float:
        """For so long, or until the child process has ended (looked at every 20 ms). The seconds it took."""
        began = time.monotonic()
        ticks = 0
        while time.monotonic() - began < seconds:
            self.tick(began + ticks * TICK_S)
            ticks += 1
            if child and ticks % 20 == 0:
                if has_ended(child):
                    break
                self.child_s = processor_s(child)
        return time.monotonic() - began


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def lateness(prefix: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{prefix}_p50_ms": percentile(values, 50), f"{prefix}_p99_ms": percentile(values, 99), f"{prefix}_max_ms": max(values)}


def save(server: Redis, rate: int, in_place: bool) -> Run:
    """One BGSAVE with clients writing: before it two seconds of the same load, to compare with."""
    keys, size = SAVED
    before = Writer(server, keys, size, rate, in_place)
    before.run(2)
    during = Writer(server, keys, size, rate, in_place)
    memory = server.memory()
    server.client.ask("BGSAVE")
    child = children(server.process.pid)[0]
    seconds = during.run(SAVE_TIMEOUT_S, child)
    child_s = during.child_s
    info = wait_for_child(server, "rdb_bgsave_in_progress")
    if info["rdb_last_bgsave_status"] != "ok":
        raise RuntimeError(f"BGSAVE failed: {server.log[-500:]}")
    cow = float(info["rdb_last_cow_size"])
    return {
        "vmrss_bytes": memory["vmrss_bytes"],
        "fork_us": float(server.client.info("stats")["latest_fork_usec"]),
        "save_s": seconds,
        "save_processor_s": child_s,
        "save_per_gib_s": seconds / (memory["used_memory_bytes"] / 2**30),
        "save_processor_per_gib_s": child_s / (memory["used_memory_bytes"] / 2**30),
        "writes_count": during.writes,
        "keys_written_count": len(during.written),
        "cow_bytes": cow,
        "cow_per_key_written_bytes": cow / len(during.written) if during.written else None,
        "cow_of_rss_percent": 100 * cow / memory["vmrss_bytes"],
        "rdb_bytes": float((server.folder / "dump.rdb").stat().st_size),
        **lateness("before", before.late_ms),
        **lateness("during", during.late_ms),
    }


def saves(loads: Sequence[tuple[int, bool]], huge: bool = False, compression: bool = True) -> list[dict[str, Any]]:
    """A server and its saves at each (writes a second, whether in place)."""
    keys, size = SAVED
    records = []
    settings = ["--rdbcompression", "yes" if compression else "no", *(["--disable-thp", "no"] if huge else [])]
    with redis(*settings, env=HUGE if huge else None) as server:
        load(server.client, keys, size)
        for rate, in_place in loads:
            kind = "SETRANGE" if in_place else "SET"
            what = f"redis: BGSAVE, {rate} {kind}/s{', huge pages' if huge else ''}{'' if compression else ', uncompressed'}"
            runs = repeated(what, save, server, rate, in_place)
            parameters = {"keys": keys, "value_bytes": size, "writes_per_s": rate, "command": kind, "huge_pages": huge}
            parameters["rdbcompression"] = compression
            records.append(record("redis", version(), "save under writes", parameters, runs))
    return records


def rewrite() -> Run:
    """BGREWRITEAOF of a log in which every key was set three times."""
    keys, size = 200_000, 1024
    with redis("--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0") as server:
        for seed in (1, 2, 3):
            load(server.client, keys, size, seed)
        before = folder_bytes(server.folder / "appendonlydir")
        began = time.monotonic()
        server.client.ask("BGREWRITEAOF")
        info = wait_for_child(server, "aof_rewrite_in_progress")
        seconds = time.monotonic() - began
        used = server.memory()["used_memory_bytes"]
        return {
            "log_before_bytes": before,
            "log_after_bytes": folder_bytes(server.folder / "appendonlydir"),
            "rewrite_s": seconds,
            "rewrite_per_gib_s": seconds / (used / 2**30),
            "cow_bytes": float(info["aof_last_cow_size"]),
            "fork_us": float(server.client.info("stats")["latest_fork_usec"]),
        }


def folder_bytes(folder: Path) -> float:
    return float(sum(path.stat().st_size for path in folder.iterdir()))


# --------------------------------------------------------------------------------------------------------- forks that fail


def failed_fork(server: Redis) -> Run:
    answers = []
    for words in (("BGSAVE",), ("SET", "a", "b")):
        try:
            answers.append(str(server.client.ask(*words)))
        except ErrorReply as refused:
            answers.append(str(refused))
    line = next(line for line in server.log.splitlines() if "Can't save" in line)
    info = server.client.info("persistence")
    return {
        "answer_to_bgsave": answers[0],
        "log": line.split(" # ", 1)[-1],
        "rdb_last_bgsave_status": info["rdb_last_bgsave_status"],
        "answer_to_the_next_write": answers[1],
        "total_forks_count": float(server.client.info("stats")["total_forks"]),
    }


def fork_refused_by_a_limit() -> Run:
    """No further process for the server's user (RLIMIT_NPROC 0, set on the running server): fork() gives EAGAIN."""
    with redis("--save", "3600 1") as server:
        limit = ["prlimit", "--nproc=0:0", "--pid", str(server.process.pid)]
        subprocess.run(limit, check=True, stdin=subprocess.DEVNULL, **unprivileged())
        return failed_fork(server)


def fork_without_memory() -> Run:
    """strace answers the server's fork() with ENOMEM, as the kernel does where the copy would not fit its commit limit."""
    with redis("--save", "3600 1") as server:
        calls = "clone,clone3,fork,vfork"
        attach = ["strace", "-q", "-p", str(server.process.pid), "-e", f"trace={calls}", "-e", f"inject={calls}:error=ENOMEM"]
        with (server.folder / "strace").open("wb") as said:
            tracer = subprocess.Popen(attach, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            while "TracerPid:\t0" in Path(f"/proc/{server.process.pid}/status").read_text():
                if tracer.poll() is not None:
                    raise RuntimeError(f"strace did not attach: {(server.folder / 'strace').read_text().strip()}")
                time.sleep(0.02)
            return failed_fork(server)
        finally:
            stop(tracer)


def measure() -> list[dict[str, Any]]:
    records = []
    for huge in (False, True):
        for mib in FORK_SIZES_MIB:
            runs = forks(mib, huge)
            parameters = {"data_mib": mib, "huge_pages": huge}
            records.append(record("redis", version(), "fork", parameters, runs))
            print(f"redis: {len(runs)} forks of {mib} MiB{' in huge pages' if huge else ''}", flush=True)
    records += saves([*((rate, False) for rate in WRITE_RATES), (5000, True)])
    records += saves([(5000, False)], huge=True)
    records += saves([(0, False)], compression=False)
    runs = repeated("redis: BGREWRITEAOF", rewrite)
    records.append(record("redis", version(), "append-only file rewritten", {"keys": 200_000, "value_bytes": 1024, "times_set": 3}, runs))
    for name, one in (("a limit on processes", fork_refused_by_a_limit), ("fork gives ENOMEM", fork_without_memory)):
        records.append(record("redis", version(), "failed fork", {"cause": name}, repeated(f"redis: {name}", one)))
    return records
