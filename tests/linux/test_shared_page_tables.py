# SPDX-License-Identifier: Apache-2.0
"""T-11.2: what page tables cost a database with a process for each connection, on a host of size class large.

Each process has page tables of its own for the same shared memory; huge pages need none below the second level. Shared mappings of
the hugetlb pool are not simulated, so there each process has pages of its own, on a host of 2 TiB: page tables are the same
(a real kernel may besides share tables of whole GiB between such mappings, and VmPTE counts each process's all the same).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

BACKENDS, SHARED_MIB = 200, 8192
GIB = 1 << 30

HOST = """
import json
import numpy as np
from fleetsim.host.shard import Shard
from fleetsim.host.spec import HostSpec, TaskSpec
from fleetsim.linux.check import violations
from fleetsim.linux.mm_types import AREA_HUGETLB, AREA_SHMEM, TASK_RUNNING
from fleetsim.linux.vmstat import MEMINFO_FIELDS, meminfo

def look(first, ops, **more):
    tasks = (TaskSpec("postmaster", first), *(TaskSpec(f"backend{i}", ops, start_s=10 + i / 2) for i in range(BACKENDS)))
    shard = Shard([HostSpec("db", cpus=32, tasks=tasks, **more)], 1)
    row = shard.records[0]
    before = int(row["page_tables"])
    shard.advance(0, 130_000_000_000)
    assert not violations(row), violations(row)
    kinds = (AREA_SHMEM, AREA_HUGETLB)
    lines = np.zeros(len(MEMINFO_FIELDS), np.int64)
    meminfo(row, lines)
    kb = dict(zip(MEMINFO_FIELDS, lines.tolist()))
    return {
        "running": int((row["tasks"]["state"] == TASK_RUNNING).sum()),
        "of_areas": sum(int(a["tables"]) for a in row["areas"] if int(a["kind"]) in kinds),
        "of_tasks": [int(t["pgtables"]) for t in row["tasks"][1 : 1 + BACKENDS]],
        "all": int(row["page_tables"]) - before,
        "meminfo_kb": kb["PageTables"],
        "shmem_kb": kb["Shmem"],
        "touched": [int(a["touched"]) for a in row["areas"] if int(a["kind"]) in kinds],
        "bytes": row.nbytes,
    }

"""


def look(call: str) -> dict[str, Any]:
    """What `call` finds on a host in a process of its own, whose records are of class large."""
    script = HOST.replace("BACKENDS", str(BACKENDS)) + f"print(json.dumps({call}))"
    environment = {**os.environ, "FLEETSIM_SIZE_CLASS": "large"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def small_pages() -> dict[str, Any]:
    first = ("write_file /dev/shm/PostgreSQL.1 8192 0", "sleep 999")
    ops = ("mmap_file S /dev/shm/PostgreSQL.1 shared", "read S 8192 0 seq", "sleep 999")
    return look(f"look({first}, {ops}, memory_bytes=64 << 30)")


@pytest.fixture(scope="module")
def huge_pages() -> dict[str, Any]:
    pool = BACKENDS * SHARED_MIB // 2
    ops = ("hugetlb S 8192", "touch S 8192 0", "sleep 999")
    return look(f"look(('sleep 999',), {ops}, memory_bytes=2 << 40, sysctl={{'vm.nr_hugepages': {pool}}})")


@pytest.mark.slow  # compiles the kernel for records of class large
def test_two_hundred_processes_that_map_the_same_eight_gib_have_three_gib_of_page_tables(small_pages: dict[str, Any]) -> None:
    """T-11.2: 200 × 16 MiB = 3.1 GiB, more than a third of the memory that is mapped; the memory itself is there once."""
    found = small_pages
    assert found["running"] == BACKENDS + 1
    assert found["shmem_kb"] == SHARED_MIB * 1024
    assert found["of_areas"] * 4096 == BACKENDS * (16 << 20)
    assert 3.1 <= found["of_areas"] * 4096 / GIB <= 3.13
    assert found["touched"] == [SHARED_MIB * 256] * BACKENDS
    assert 0 <= found["all"] - sum(found["of_tasks"]) <= 10, "and the postmaster's own"
    assert 4096 + 8 <= min(found["of_tasks"]) <= max(found["of_tasks"]) <= 4096 + 1 + 9 + 10  # PTE tables, PMD tables, the image's
    assert found["meminfo_kb"] / (1 << 20) == pytest.approx(3.14, abs=0.02)


@pytest.mark.slow
def test_with_hugetlb_each_of_them_has_32_kib(huge_pages: dict[str, Any]) -> None:
    """T-11.2: eight PMD tables of 4 KiB each map 8 GiB in pages of 2 MiB (a ninth if the area does not begin at a GiB)."""
    found = huge_pages
    assert found["running"] == BACKENDS + 1
    assert found["touched"] == [SHARED_MIB * 256] * BACKENDS
    assert found["of_areas"] == 0
    image = 8 + 1  # tables of a program alone, some shared with the mapping's
    assert all(8 <= tables <= 9 + image for tables in found["of_tasks"])
    assert found["all"] * 4096 < BACKENDS * (32 + 40) << 10


@pytest.mark.slow
def test_such_a_host_is_within_the_budget_of_its_class(small_pages: dict[str, Any]) -> None:
    assert 1 << 20 < small_pages["bytes"] <= 1536 << 10
