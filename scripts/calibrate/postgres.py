# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL: what its backends take as their number grows, a cold page cache against a warm one, what a sort takes, what commits write.

`make measure PROGRAM=postgres`. A cluster of our own with pgbench's tables, on a unix socket. Cold is: the server started anew and the
pages of its files given up (posix_fadvise), which asks nothing of the rest of the machine.
Leaves out: huge pages, replication, parallel queries (switched off, so that a sort is one process).
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from scripts.calibrate.process import children, folder_of_its_own, kib_fields, smaps_rollup, status, unprivileged
from scripts.calibrate.record import Run, record, repeated

SCALE = 50  # of pgbench: 5 million accounts, about 750 MiB with the index
SHARED_BUFFERS = "256MB"
CONNECTIONS = (4, 16, 48)
SECONDS = 4
START_S = 60
SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": SHARED_BUFFERS,
    "huge_pages": "off",
    "max_connections": "60",
    "max_parallel_workers_per_gather": "0",
    "fsync": "off",  # nothing here is about durability
    "autovacuum": "off",  # it would run at its own time
    "max_wal_size": "4GB",
    "jit": "off",
}
UPDATES = (10_000, 40_000)  # commits between two checkpoints
SORT = "SELECT aid FROM pgbench_accounts WHERE aid <= 1000000 ORDER BY md5(aid::text)"


@dataclass
class Cluster:
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def call(self, tool: str, *arguments: str) -> str:
        command = [program(tool), *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, **unprivileged())
        if done.returncode:
            raise RuntimeError(f"{tool} failed: {done.stderr.strip()[-500:]}")
        return done.stdout

    def sql(self, *statements: str) -> list[str]:
        """The lines of what the statements, sent through one connection, answered."""
        chosen = [word for statement in statements for word in ("-c", statement)]
        return self.call("psql", "-XqAt", "-h", str(self.folder), "-U", "postgres", "-d", "postgres", *chosen).splitlines()

    def pgbench(self, *arguments: str) -> str:
        return self.call("pgbench", "-h", str(self.folder), "-U", "postgres", *arguments, "postgres")

    def start(self) -> None:
        settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        command = [program("postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder), *settings]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **unprivileged()
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(RuntimeError):
                self.sql("SELECT 1")
                return
            time.sleep(0.1)
        raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-500:]}")

    def stop(self) -> None:
        if self.process:
            self.process.send_signal(2)  # SIGINT: a fast shutdown, which ends the sessions
            self.process.wait(START_S)
            self.process = None

    def cool(self) -> None:
        """A server that has read nothing, and no page of its files in the page cache."""
        self.stop()
        os.sync()
        for path in (self.folder / "data").rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self.start()

    def backends(self) -> list[int]:
        """The processes that serve clients (`postgres: postgres postgres [local] …`)."""
        assert self.process
        found = []
        for pid in children(self.process.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"[local]" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found


def program(name: str) -> str:
    """On the PATH, or in the newest of the folders that Debian keeps for each version."""
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda folder: float(folder.split("/")[4]))
    found = shutil.which(name, path=os.pathsep.join([*reversed(folders), os.environ.get("PATH", "")]))
    if not found:
        raise FileNotFoundError(f"no {name} on this machine")
    return found


def version() -> str:
    return subprocess.run([program("postgres"), "--version"], capture_output=True, text=True, check=True).stdout.split()[2]


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    with folder_of_its_own() as folder:
        own = Cluster(folder)
        own.call("initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-N", "--locale=C", "-E", "UTF8")
        try:
            own.start()
            yield own
        finally:
            own.stop()


def parse_pgbench(text: str) -> dict[str, float]:
    """What pgbench sums up at its end: `latency average = 0.079 ms`, `tps = 50321.5 (without initial connection time)`."""
    figures = {}
    for name, pattern in (
        ("transactions_count", r"number of transactions actually processed: (\d+)"),
        ("failed_count", r"number of failed transactions: (\d+)"),
        ("latency_average_ms", r"latency average = ([\d.]+) ms"),
        ("transactions_per_s", r"tps = ([\d.]+)"),
    ):
        if found := re.search(pattern, text):
            figures[name] = float(found[1])
    if "transactions_per_s" not in figures:
        raise ValueError(f"no summary of pgbench: {text.strip()[-200:]!r}")
    return figures


def parse_sort(lines: Sequence[str]) -> tuple[str, float]:
    """EXPLAIN ANALYZE's `Sort Method: quicksort  Memory: 71452kB` or `external merge  Disk: 13752kB`."""
    for line in lines:
        if found := re.search(r"Sort Method: (.+?)  (?:Memory|Disk): (\d+)kB", line):
            return found[1], float(found[2])
    raise ValueError("no sort in this plan")


def with_connections(own: Cluster, number: int) -> Run:
    """Backends under point reads: what each takes, when all have had some seconds to touch the shared buffers."""
    seconds = SECONDS + 2 + number // 6  # to look at one takes the kernel a while: it walks all it has mapped
    load = [program("pgbench"), "-h", str(own.folder), "-U", "postgres", "-n", "-S", "-c", str(number), "-T", str(seconds), "postgres"]
    with subprocess.Popen(load, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as bench:
        time.sleep(SECONDS)
        pids = own.backends()
        of_status, of_smaps = [status(pid) for pid in pids], [smaps_rollup(pid) for pid in pids]
        said = parse_pgbench(bench.communicate()[0])
    private = [fields["Private_Clean"] + fields["Private_Dirty"] for fields in of_smaps]
    return {
        "backends_count": len(pids),
        "rss_per_backend_kib": median(fields["VmRSS"] for fields in of_status),
        "anon_per_backend_kib": median(fields["RssAnon"] for fields in of_status),
        "shmem_per_backend_kib": median(fields["RssShmem"] for fields in of_status),
        "pss_per_backend_kib": median(fields["Pss"] for fields in of_smaps),
        "private_per_backend_kib": median(private),
        "page_tables_per_backend_kib": median(fields["VmPTE"] for fields in of_status),
        "rss_sum_kib": sum(fields["VmRSS"] for fields in of_status),
        "pss_sum_kib": sum(fields["Pss"] for fields in of_smaps),
        "page_tables_sum_kib": sum(fields["VmPTE"] for fields in of_status),
        "transactions_per_s": said["transactions_per_s"],
    }


def cold_and_warm(own: Cluster) -> Run:
    own.cool()
    figures: dict[str, float] = {}
    for name in ("cold", "warming"):
        figures |= {f"{name}_{key}": value for key, value in reads(own).items()}
    own.sql("SELECT sum(abalance) FROM pgbench_accounts")  # the whole table, through the page cache
    return figures | {f"warm_{key}": value for key, value in reads(own).items()}


def reads(own: Cluster) -> dict[str, float]:
    own.sql("SELECT pg_stat_reset()")
    said = parse_pgbench(own.pgbench("-n", "-S", "-c", "2", "-T", str(SECONDS)))
    time.sleep(0.7)  # backends hand in their counts as they end
    asked = "SELECT sum(heap_blks_hit + idx_blks_hit), sum(heap_blks_read + idx_blks_read) FROM pg_statio_user_tables"
    hit, read = (float(word) for word in own.sql(asked)[0].split("|"))
    kept = {name: said[name] for name in ("latency_average_ms", "transactions_per_s")}
    return {**kept, "shared_buffers_hit_percent": 100 * hit / (hit + read)}


def writes(own: Cluster, commits: int) -> Run:
    """From one checkpoint to the next: updates of random accounts, the log that they write, and the blocks, by whom they were written."""
    own.sql("CHECKPOINT")
    own.sql("SELECT pg_stat_reset_shared('bgwriter')", "SELECT pg_stat_reset_shared('wal')")
    own.pgbench("-n", "-N", "-c", "2", "-t", str(commits // 2))  # an update of an account, a look at it, a line of history
    time.sleep(0.7)
    wal_bytes, images = (float(word) for word in own.sql("SELECT wal_bytes, wal_fpi FROM pg_stat_wal")[0].split("|"))
    own.sql("CHECKPOINT")
    time.sleep(0.7)
    asked = "SELECT buffers_checkpoint, buffers_clean + buffers_backend FROM pg_stat_bgwriter"
    by_checkpoint, before = (float(word) for word in own.sql(asked)[0].split("|"))
    return {
        "wal_per_commit_bytes": wal_bytes / commits,
        "full_pages_per_commit": images / commits,
        "blocks_by_checkpoint_count": by_checkpoint,
        "blocks_before_count": before,
        "blocks_count": by_checkpoint + before,
    }


def sort(own: Cluster, work_mem: str) -> Run:
    """One backend's peak RSS before and after a sort of a million rows, and what the sort says of itself."""
    peak = "SELECT pg_read_file('/proc/self/status')"
    explain = f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {SORT}"
    # Read once before, so that the shared buffers it maps are in both figures.
    before, after = ("SELECT count(*) FROM pgbench_accounts WHERE aid <= 1000000", peak), (f"SET work_mem = '{work_mem}'", explain, peak)
    lines = own.sql(*before, *after)
    texts = "\n".join(lines).split("Name:")[1:]  # two of /proc/self/status, the plan after the first
    first, last = (kib_fields(text) for text in texts)
    method, size = parse_sort(lines)
    return {
        "method": method,
        "sort_says_kib": size,
        "peak_rss_before_kib": first["VmHWM"],
        "peak_rss_kib": last["VmHWM"],
        "anon_at_the_end_kib": last["RssAnon"],
        "spike_kib": last["VmHWM"] - first["VmHWM"],
    }


def measure() -> list[dict[str, Any]]:
    parameters = {"scale": SCALE, "shared_buffers": SHARED_BUFFERS}
    records = []
    with cluster() as own:
        own.pgbench("-i", "-q", "-s", str(SCALE))
        print("postgres: tables made", file=sys.stderr, flush=True)
        for number in CONNECTIONS:
            runs = repeated(f"postgres: {number} connections", with_connections, own, number)
            records.append(record("postgres", version(), "backends", {**parameters, "connections": number}, runs))
        for work_mem in ("4MB", "64MB", "256MB"):
            runs = repeated(f"postgres: sort with work_mem {work_mem}", sort, own, work_mem)
            records.append(record("postgres", version(), "sort", {**parameters, "work_mem": work_mem, "rows": 1_000_000}, runs))
        runs = repeated("postgres: page cache cold and warm", cold_and_warm, own)
        records.append(record("postgres", version(), "page cache", {**parameters, "connections": 2}, runs))
        for commits in UPDATES:
            runs = repeated(f"postgres: {commits} commits between checkpoints", writes, own, commits)
            records.append(record("postgres", version(), "writes", {**parameters, "commits": commits}, runs))
    return records
