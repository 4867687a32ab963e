# SPDX-License-Identifier: Apache-2.0
"""Size classes: each is within its budget, and the same host has the same history and content in those it fits into."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from fleetsim.errors import BadInput
from fleetsim.law import SIZE_CLASS_VARIABLE, SIZE_CLASSES, size_class
from fleetsim.linux.capacity_classes import CLASSES

SIZES = """
import json
from fleetsim.host.state import HOST, HOST_BYTES_MAX
from fleetsim.law import CACHE_DIR
from fleetsim.linux.mm_types import COHORT
print(json.dumps([HOST.itemsize, HOST_BYTES_MAX, COHORT["cg"].itemsize, CACHE_DIR.name]))
"""

SAME = """
import hashlib, json
import numpy as np
from fleetsim.host.content import content_digest
from fleetsim.host.shard import Shard
from fleetsim.host.spec import CgroupSpec, HostSpec, TaskSpec
from fleetsim.linux.vmstat import MEMINFO_FIELDS, VMSTAT_FIELDS, meminfo, vmstat

spec = HostSpec("h", 640 << 20, cpus=2, swap_bytes=64 << 20, thp="always", files={"/f": 200 << 20},
    cgroups=(CgroupSpec("a", "", {"memory.max": 64 << 20, "memory.swap.max": 0}), CgroupSpec("b")),
    tasks=(
        TaskSpec("leak", ("mmap_anon heap 100", "touch heap 100 40"), 0, "a", restart_s=2),
        TaskSpec("reader", ("read_file /f 0 60",), 0.5, "b"),
        TaskSpec("writer", ("write_file /g 60 40",), 1, "b"),
        TaskSpec("sweep", ("mmap_anon big 250", "touch big 250 90", "rewrite big 0 50 seq"), 1.5, "b"),
        TaskSpec("parent", ("mmap_anon p 20", "touch p 20 0", "fork_hold 3", "rewrite p 20 10 random", "sleep 99"), 1),
        TaskSpec("heap", ("malloc 20000 64-2000", "mfree random:0.5", "sleep 100"), 1)))
shard = Shard([spec], 3)
shard.advance(0, 8_000_000_000)
row = shard.records[0]
events = shard.drain_events()
lines, counters = np.zeros(len(MEMINFO_FIELDS), np.int64), np.zeros(len(VMSTAT_FIELDS), np.int64)
meminfo(row, lines)
vmstat(row, counters)
print(json.dumps({
    "events": hashlib.sha256(repr(events).encode()).hexdigest(),
    "kinds": sorted({e.kind for e in events}),
    "shown": lines.tolist() + counters.tolist(),
    "content": content_digest(row.tobytes()).hex(),
    "bytes": row.nbytes,
}))
"""


def in_class(name: str, script: str) -> Any:
    """What a script prints in a process of its own, as plain Python."""
    environment = {**os.environ, SIZE_CLASS_VARIABLE: name, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", SIZE_CLASSES)
def test_a_record_is_within_the_budget_of_its_class_and_has_a_cache_of_its_own(name: str) -> None:
    size, most, link, cache = in_class(name, SIZES)
    assert size <= most == CLASSES[name].bytes_max == {"small": 32, "standard": 256, "large": 1536}[name] << 10
    assert link == (2 if CLASSES[name].cgroups > 127 else 1)
    assert cache.endswith(f"python-{name}" if name != "standard" else "python")


def test_large_has_room_for_a_database_and_for_a_full_node() -> None:
    large = CLASSES["large"]
    assert large.tasks >= 256 and large.threads >= 256
    assert large.cgroups >= 1 + 3 + 2 * 110, "the root, the tiers of kubepods, a slice and a scope for each pod"


def test_the_same_host_has_the_same_history_and_content_in_standard_and_large() -> None:
    """A kill, a restart, swap, write-back, huge pages, a fork, a heap: whatever is counted or chosen must not see how much is free."""
    standard, large = in_class("standard", SAME), in_class("large", SAME)
    assert {"oom_kill", "restart"} <= set(standard["kinds"])
    assert large.pop("bytes") > 4 * standard.pop("bytes")
    assert large == standard


def test_a_class_that_there_is_not_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIZE_CLASS_VARIABLE, "huge")
    with pytest.raises(BadInput, match="'huge'; size classes of simulated hosts are small, standard, large"):
        size_class()
