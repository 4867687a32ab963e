# SPDX-License-Identifier: Apache-2.0
"""Writes to /proc/sys, /sys and cgroup files from within a host: where they go, and what they set in motion."""

from __future__ import annotations

import pytest

from fleetsim.errors import BadInput
from fleetsim.linux.mm_types import NO_LIMIT
from fleetsim.linux.proc_sysctl import KNOB, KNOBS
from fleetsim.linux.sysctl import SYSCTL_NAMES
from fleetsim.linux.sysctl_paths import Write, resolve
from tests.host.worlds import PAGES, world


@pytest.mark.parametrize(
    ("path", "text", "right"),
    [
        ("/proc/sys/vm/swappiness", "10", Write(KNOB["swappiness"], 10)),
        ("/proc/sys/vm/page-cluster", "0", Write(KNOB["page_cluster"], 0)),
        ("/proc/sys/vm/drop_caches", "3", Write(KNOB["drop_caches"], 3)),
        ("/cg/app/memory.max", "200M", Write(KNOB["memory.max"], 200 * PAGES, cgroup="app")),
        ("/sys/fs/cgroup/a/b/memory.high", "max", Write(KNOB["memory.high"], NO_LIMIT, cgroup="a/b")),
        ("/sys/fs/cgroup/app/memory.oom.group", "1", Write(KNOB["memory.oom.group"], 1, cgroup="app")),
        ("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "2", Write(KNOB["nr_hugepages"], 2, which=1)),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "never", Write(KNOB["thp_enabled"], 0)),
        ("/sys/kernel/mm/lru_gen/enabled", "y", Write(KNOB["lru_gen"], 7)),
        ("/sys/kernel/mm/lru_gen/enabled", "No", Write(KNOB["lru_gen"], 0)),
        ("/sys/kernel/mm/lru_gen/enabled", "0x0003", Write(KNOB["lru_gen"], 3)),
        ("/sys/kernel/mm/lru_gen/min_ttl_ms", "1000", Write(KNOB["lru_gen_min_ttl"], 1000)),
        ("/proc/sys/kernel/panic", "1", Write(0)),
    ],
)
def test_a_path_and_its_text_are_one_knob_and_one_number(path: str, text: str, right: Write) -> None:
    assert resolve(path, text) == right


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/proc/sys/vm/swapiness", "10"),
        ("/proc/sys/vm/swappiness", "300"),
        ("/proc/sys/vm/swappiness", "much"),
        ("/sys/fs/cgroup/app/memory.maximum", "1M"),
        ("/sys/fs/cgroup/app/memory.max", "a lot"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "sometimes"),
        ("/sys/kernel/mm/lru_gen/enabled", "perhaps"),
        ("/etc/passwd", "x"),
    ],
)
def test_what_no_kernel_would_take_is_refused_with_a_sentence(path: str, text: str) -> None:
    with pytest.raises(BadInput, match=r"\w+ .* \w+"):
        resolve(path, text)


def test_every_setting_that_is_kept_has_a_knob() -> None:
    assert set(KNOBS) >= set(SYSCTL_NAMES)


def test_min_free_kbytes_moves_the_watermarks_and_huge_pages_move_it_back() -> None:
    """README of the recordings, fact 2: writing transparent_hugepage/enabled overwrites a lower value; `never` ends khugepaged's part."""
    enabled = "/sys/kernel/mm/transparent_hugepage/enabled"
    ops = f"sysw /proc/sys/vm/min_free_kbytes 2000 | sleep 1 | sysw {enabled} madvise | sleep 1 | sysw {enabled} never | sleep 9"
    w = world(512, thp="madvise", tasks={"app": ops}).at(0)
    raised = int(w.row["sysctl"]["min_free_kbytes"])
    seen = []
    for t in (0.5, 1.5, 2.5):
        seen.append(int(w.at(t).row["sysctl"]["min_free_kbytes"]))
        low = sum(int(z["wmark"][0]) for z in w.row["zones"])
        assert low == pytest.approx(seen[-1] / 4, abs=3)
    assert seen[0] == 2000
    assert seen[1] == pytest.approx(raised, rel=0.05)
    assert 2000 < seen[2] < seen[1] / 4


def test_memory_reclaim_takes_what_was_asked_for_and_gives_up_on_what_cannot_be_had() -> None:
    box = "/sys/fs/cgroup/box/memory.reclaim"
    ops = f"sleep 2 | sysw {box} 20M | sleep 2 | sysw {box} 500M | sleep 2 | exit 0"
    w = world(files={"/f": 60}, cgroups={"box": {}}, tasks={"box/app": "read_file /f 60 0 | sleep 100", "admin": ops})
    before = int(w.at(1.5).cg("box")["usage"])
    freed = before - int(w.at(3.5).cg("box")["usage"])
    assert 20 * PAGES <= freed <= 30 * PAGES, "at least; a pass is not cut short in its middle"
    w.at(9)
    assert int(w.cg("box")["usage"]) < 2 * PAGES
    assert int(w.task("admin")["exits"]) == 1, "sixteen fruitless rounds are EAGAIN, the writer goes on"
    assert w.vm("pgscan_direct") == 0, "it is the cgroup's reclaim, not the host's"


def test_a_lowered_memory_max_reclaims_at_once_and_the_writer_waits() -> None:
    ops = "sleep 2 | sysw /sys/fs/cgroup/box/memory.max 20M | exit 0"
    w = world(files={"/f": 60}, cgroups={"box": {}}, tasks={"box/app": "read_file /f 60 0 | sleep 100", "admin": ops}).at(4)
    assert int(w.cg("box")["usage"]) <= 20 * PAGES
    assert int(w.task("admin")["exits"]) == 1


def test_an_unknown_cgroup_is_refused_before_the_run() -> None:
    with pytest.raises(BadInput, match="unknown cgroup"):
        world(tasks={"app": "sysw /sys/fs/cgroup/nobody/memory.max 20M"})
