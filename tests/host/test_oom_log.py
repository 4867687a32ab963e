# SPDX-License-Identifier: Apache-2.0
"""The kernel log of two small disasters, whole, as goldens; and the few numbers of it that must agree with the host."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from fleetsim.host.oom_log import free_blocks
from tests.host.worlds import FAST_DISK, PAGES, World, world


def host_out_of_memory() -> World:
    return world(
        3400,
        swap_mib=64,
        swap_disk=FAST_DISK,
        files={"/f": 100},
        cgroups={"app": {}, "app/web": {}},
        tasks={
            "reader": "read_file /f 100 200 | sleep 100",
            "app/web/small": "mmap_anon A 20 | touch A 20 100 | sleep 100",
            "app/hog": "sleep 1 | mmap_anon A 3300 | touch A 3300 900 | sleep 100",
        },
        adj={"small": 300},
    ).at(12)


def cgroup_out_of_memory() -> World:
    return world(
        cgroups={"app": {"memory.max": 60, "memory.swap.max": 0}, "app/web": {"memory.oom.group": 1}},
        tasks={"app/web/hog": "mmap_anon A 100 | touch A 100 50 | sleep 100", "app/web/mate": "sleep 100", "app/other": "sleep 100"},
    ).at(5)


@pytest.mark.parametrize(("name", "draw"), [("oom-host.dmesg", host_out_of_memory), ("oom-cgroup.dmesg", cgroup_out_of_memory)])
def test_the_whole_report(name: str, draw: Callable[[], World], golden: Callable[[str, str], None]) -> None:
    golden(name, "\n".join(draw().shard.dmesg[0]) + "\n")


def test_the_report_agrees_with_the_event_and_with_itself() -> None:
    w = host_out_of_memory()
    text = "\n".join(w.shard.dmesg[0])
    (kill,) = w.events("oom_kill")
    assert f"[{kill.t_ns // 1000 / 1e6:12.6f}]" in text
    (anon_kb,) = re.findall(r"anon-rss:(\d+)kB", text)
    assert int(anon_kb) * 1024 == kill.data["anon_rss_bytes"]
    free = sum(int(kb) for kb in re.findall(r"Node 0 \w+ free:(\d+)kB", text))
    (total,) = re.findall(r" free:(\d+) free_pcp", text)
    assert free == int(total) * 4
    assert sum(int(kb) for kb in re.findall(r"= (\d+)kB$", text, re.M) if kb != "65536") >= free
    pages = [int(n) for n in re.findall(r"active_anon:(\d+)kB inactive_anon:(\d+)kB", text)[0]]
    assert sum(pages) > 3000 * PAGES


def test_the_blocks_of_every_order_add_up_to_the_free_pages_and_say_their_types() -> None:
    for zone in host_out_of_memory().row["zones"]:
        blocks = free_blocks(zone)
        assert sum(count << order for order, (count, _) in enumerate(blocks)) == zone["free"]
        assert len(blocks) == 11
        assert all((count > 0) == (types != "") for count, types in blocks)
