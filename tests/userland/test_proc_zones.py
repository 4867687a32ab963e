# SPDX-License-Identifier: Apache-2.0
"""buddyinfo, pagetypeinfo and zoneinfo: byte for byte what a real kernel printed, and agreeing with the host they are of."""

from __future__ import annotations

import json
from pathlib import Path

from fleetsim.host.boot import pagetypeinfo as read_pagetypeinfo
from fleetsim.userland import proc_zones, procfs
from tests.host.worlds import world


def test_the_free_lists_are_byte_for_byte_what_a_real_kernel_printed(shared_dir: Path) -> None:
    recordings = sorted((shared_dir / "recordings").glob("*/start.json"))
    assert len(recordings) > 20
    for path in recordings:
        start = json.loads(path.read_text())
        zones = read_pagetypeinfo(start["pagetypeinfo_start"])
        assert proc_zones.pagetypeinfo(zones).rstrip("\n") == start["pagetypeinfo_start"].rstrip("\n"), path.parent.name
        lines = start["buddyinfo_start"].strip().splitlines()
        blocks = {(int(line.split()[1][:-1]), line.split()[3]): [int(n) for n in line.split()[4:]] for line in lines}
        assert proc_zones.buddyinfo(blocks).rstrip("\n") == start["buddyinfo_start"].rstrip("\n"), path.parent.name


def test_a_long_list_is_cut_at_a_hundred_thousand() -> None:
    assert ">100000 " in proc_zones.pagetypeinfo({(0, "DMA32"): ([[123_456] + [0] * 10], [1])})


def test_the_three_files_agree_with_the_host() -> None:
    w = world(5000, tasks={"a": "mmap_anon A 300 | touch A 300 300 | sleep 9"}).at(3)
    files = procfs.tree(w.row)
    free = {}
    for line in files["buddyinfo"].splitlines():
        words = line.split()
        free[words[3]] = sum(int(n) << order for order, n in enumerate(words[4:]))
    assert free == {name: int(w.row["zones"][z]["free"]) for z, name in enumerate(("DMA", "DMA32", "Normal"))}
    for name, pages in free.items():
        block = files["zoneinfo"].split(f"zone {name:>8}\n")[1].split("Node 0")[0]
        assert f"  pages free     {pages}\n" in block
        assert "  node_unreclaimable:  0\n" in block
    assert files["zoneinfo"].count("per-node stats") == 1
    protection = [line.strip() for line in files["zoneinfo"].splitlines() if "protection" in line]
    assert protection[0].startswith("protection: (0, "), "kernel-laws T-1.5"
    assert protection[-1] == "protection: (0, 0, 0, 0, 0)"
