# SPDX-License-Identifier: Apache-2.0
"""/sys as text: the node's files and debugfs' view of fragmentation, and what the real node_exporter makes of them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetsim.linux.mmzone import ZONE
from fleetsim.userland import procfs, sysfs
from tests.host.worlds import World, world

NODE0 = "devices/system/node/node0/"
EXTFRAG = "kernel/debug/extfrag/"


def zone_of(**blocks: int) -> Any:
    zone = np.zeros(1, ZONE)[0]
    for name, count in blocks.items():
        zone["free_area"][1][int(name[1:])] = count
        zone["free"] += count << int(name[1:])
    return zone


def test_t_1_7_to_1_9_as_debugfs_prints_them() -> None:
    zones = {(0, "DMA"): zone_of(n0=10), (0, "DMA32"): zone_of(n0=1000, n1=500, n2=250), (0, "Normal"): zone_of(n0=100, n3=5)}
    lines = sysfs.extfrag(zones)[EXTFRAG + "extfrag_index"].splitlines()
    assert [line.split(" zone ")[0] for line in lines] == ["Node 0,"] * 3
    assert lines[0].split()[4 + 9] == "0.899", "T-1.8"
    assert lines[1].split()[4 + 9] == "0.997", "T-1.7"
    assert lines[2].split()[4 + 4] == "0.908", "T-1.9"
    assert lines[1].startswith("Node 0, zone    DMA32 -1.000 -1.000 -1.000  0.786 "), "a block of up to 4 pages can be had"


@pytest.mark.parametrize(
    ("blocks", "order", "unusable", "index"),
    [
        ({}, 0, "1.000", "0.000"),  # nothing is free
        ({"n8": 1}, 9, "1.000", "0.-500"),  # one block of half the size: C cuts towards zero and keeps the sign
        ({"n9": 2, "n0": 1024}, 9, "0.500", "-1.000"),
    ],
)
def test_corners_of_the_two_indices(blocks: dict[str, int], order: int, unusable: str, index: str) -> None:
    files = sysfs.extfrag({(0, "DMA32"): zone_of(**blocks)})
    assert files[EXTFRAG + "unusable_index"].split()[4 + order] == unusable
    assert files[EXTFRAG + "extfrag_index"].split()[4 + order] == index


GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_nodes_files_are_byte_for_byte_what_a_real_kernel_printed() -> None:
    """A guest of two nodes with Linux 6.1.192: the second one's files, right after boot."""
    text = (GOLDEN / "node1-meminfo.txt").read_text()
    lines = {name: int(value) for name, value in re.findall(r"^Node 1 (\S+): +(\d+)", text, re.M)}
    assert sysfs.node_meminfo(1, lines, lines) == text
    vm = {name: int(value) for name, value in (line.split() for line in (GOLDEN / "node1-vmstat.txt").read_text().splitlines())}
    assert sysfs.node_vmstat({**vm, "nr_dirty_threshold": 0, "pgfault": 7}) == (GOLDEN / "node1-vmstat.txt").read_text()
    assert sysfs.numastat(vm) == (GOLDEN / "node1-numastat.txt").read_text()
    assert sysfs.distance([21, 10]) == "21 10\n"
    assert (sysfs.cpulist(1, 1), sysfs.cpulist(0, 3)) == ("1\n", "0-3\n")


def test_free_lists_that_a_real_kernel_showed_give_the_indices_that_it_showed() -> None:
    """The same guest's buddyinfo and unusable_index of one instant, zone DMA of node 0."""
    blocks = [0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 3]
    found = sysfs.extfrag({(0, "DMA"): zone_of(**{f"n{order}": count for order, count in enumerate(blocks)})})[EXTFRAG + "unusable_index"]
    assert found == (GOLDEN / "extfrag-unusable_index.txt").read_text().splitlines(keepends=True)[0]


def busy(thp: str = "always") -> World:
    tasks = {"a": "mmap_anon A 300 | touch A 300 300 | sleep 99", "r": "read_file /f 100 200 | sleep 99"}
    return world(1024, thp=thp, files={"/f": 100}, tasks=tasks).at(3)


def test_the_only_node_has_all_that_the_host_has() -> None:
    w = busy()
    files, proc = sysfs.tree(w.row), procfs.tree(w.row)
    host = dict(re.findall(r"^(\S+): +(\d+)", proc["meminfo"], re.M))
    node = dict(re.findall(r"^Node 0 (\S+): +(\d+)", files[NODE0 + "meminfo"], re.M))
    assert {name: value for name, value in node.items() if name in host} == {name: host[name] for name in node if name in host}
    assert int(node["MemUsed"]) == int(host["MemTotal"]) - int(host["MemFree"])
    assert int(node["FilePages"]) == int(host["Cached"]) + int(host["Buffers"]) + int(host["SwapCached"])
    lines = proc["vmstat"].splitlines()
    assert files[NODE0 + "vmstat"].splitlines() == lines[: len(files[NODE0 + "vmstat"].splitlines())]
    assert len(files[NODE0 + "vmstat"].splitlines()) == 60


def test_a_page_is_a_hit_and_so_is_a_huge_page() -> None:
    small, huge = busy("never"), busy("always")
    for w in (small, huge):
        stat = dict(line.split() for line in sysfs.tree(w.row)[NODE0 + "numastat"].splitlines())
        taken = sum(w.vm(f"pgalloc_{zone}") for zone in ("dma", "dma32", "normal"))
        assert int(stat["numa_hit"]) == int(stat["local_node"]) == taken - 511 * w.vm("thp_fault_alloc")
        assert {stat[name] for name in ("numa_miss", "numa_foreign", "other_node")} == {"0"}
    assert huge.vm("thp_fault_alloc") == 150


def test_the_real_exporter_reads_the_node(require_tool: Callable[[str], Path], tmp_path: Path) -> None:
    program = require_tool("prometheus-node-exporter")
    w = busy()
    procfs.write_tree(sysfs.tree(w.row), tmp_path / "sys")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command: list[str | Path] = [program, "--collector.disable-defaults", "--collector.meminfo_numa", f"--path.sysfs={tmp_path / 'sys'}"]
    with Path(os.devnull).open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        page = ""
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
                    page = answer.read().decode()
                break
            except urllib.error.URLError:
                time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(10)
    shown = {name: float(value) for name, value in re.findall(r'^node_memory_numa_(\w+)\{node="0"\} (\S+)$', page, re.M)}
    meminfo = w.all_meminfo()
    for name in ("MemTotal", "MemFree", "Mapped", "AnonPages", "AnonHugePages", "SReclaimable"):
        assert shown[name] == meminfo[name] * 1024, name
    assert shown["Active_anon"] == meminfo["Active(anon)"] * 1024
    assert shown["numa_hit_total"] == shown["local_node_total"] == w.vm("numa_hit")
    assert shown["numa_miss_total"] == 0
