# SPDX-License-Identifier: Apache-2.0
"""Two NUMA nodes: what a host with them is made of, where pages come from when nobody says, and who reclaims them.

Outside truth: the recordings h51 to h55 of a real kernel on two nodes of 512 MiB (`tests/ground_truth/`).
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fleetsim.errors import BadInput
from fleetsim.fleet.fidelity import run_fidelity
from fleetsim.fleet.recording import read_experiment
from fleetsim.host.shard import Shard
from fleetsim.linux.mm_types import ALL_NODES, KSWAPD_RUN, ZONE_DMA32, ZONE_NODE1, ZONE_NORMAL
from fleetsim.linux.mmzone import NUMA_FOREIGN, NUMA_HIT, NUMA_LOCAL, NUMA_MISS, NUMA_OTHER
from fleetsim.linux.node_stat import node_counts
from fleetsim.linux.nodes import next_on_nodes, nr_free_in, of_second_node, pages_on_nodes, zonelist
from fleetsim.userland import procfs, sysfs
from tests.host.worlds import PAGES, World, world

GROUND_TRUTH = Path(__file__).resolve().parents[1] / "ground_truth"
NUMA = sorted(p.name for p in GROUND_TRUTH.iterdir() if re.fullmatch(r"h5[1-5]_.*", p.name))


def two_nodes(memory_mib: int = 1024, **drawn: Any) -> World:
    return world(memory_mib, **({"numa_nodes": 2, "cpus": 2} | drawn))


def anon(w: World) -> list[int]:
    """Anonymous pages on each node."""
    return [node_counts(w.row, node)["anon"] for node in (0, 1)]


def test_the_order_in_which_zones_are_asked_is_that_of_the_nodes_own_then_the_others() -> None:
    """The recorded guest logs "Fallback order for Node 0: 0 1" and "Node 1: 1 0"; within a node the highest zone comes first."""
    assert [int(zonelist(0, place)) for place in range(4)] == [ZONE_NORMAL, ZONE_DMA32, 0, ZONE_NODE1]
    assert [int(zonelist(1, place)) for place in range(4)] == [ZONE_NODE1, ZONE_NORMAL, ZONE_DMA32, 0]


def test_each_node_has_half_of_the_memory_and_a_small_machine_has_no_normal_zone() -> None:
    w = two_nodes(1024)
    totals = [node_counts(w.row, node)["total"] for node in (0, 1)]
    assert abs(totals[0] - totals[1]) <= 1
    assert [int(kind) for kind in w.row["zones"]["kind"]] == [0, 1, 2, ZONE_DMA32]
    assert int(w.row["zones"][ZONE_NORMAL]["managed"]) == 0
    large = two_nodes(16 << 10)
    assert int(large.row["zones"][ZONE_NODE1]["kind"]) == ZONE_NORMAL
    assert int(large.row["zones"][ZONE_NODE1]["reserve"]) == 0, "it is its node's only zone"


def test_one_or_two_nodes_and_a_cpu_for_each() -> None:
    for nodes, cpus in ((3, 8), (0, 8), (2, 1)):
        with pytest.raises(BadInput, match="1 or 2 NUMA nodes"):
            world(1024, numa_nodes=nodes, cpus=cpus)


@pytest.mark.parametrize("recording", NUMA)
def test_watermarks_and_reserves_of_the_recorded_hosts_follow_from_managed_pages_alone(recording: str) -> None:
    start = json.loads((GROUND_TRUTH / recording / "start.json").read_text())["zones"]
    row = Shard([read_experiment(GROUND_TRUTH / recording).spec], seed=1).records[0]
    for name, z in (("DMA", 0), ("DMA32", ZONE_DMA32), ("N1.DMA32", ZONE_NODE1)):
        zone = row["zones"][z]
        assert [int(n) for n in zone["wmark"]] == [start[name][f"{mark}_pages"] for mark in ("min", "low", "high")], name
        protection = [int(n) for n in re.findall(r"\d+", start[name]["protection"])]
        assert zone["protection"].tolist() == pytest.approx(protection, abs=8), "set before the kernel's init memory (8 MiB) was freed"


def test_a_page_is_taken_where_its_task_runs_and_from_the_other_node_only_when_that_is_down_to_its_low_mark() -> None:
    w = two_nodes(
        tasks={"near": "pin 0 | mmap_anon A 100 | touch A 100 0 | sleep 99", "far": "pin 1 | mmap_anon A 200 | touch A 200 0 | sleep 99"}
    )
    before = anon(w)
    w.at(3)
    assert [(b - a) // PAGES for a, b in zip(before, anon(w), strict=True)] == pytest.approx([100, 200], abs=3)
    assert w.row["numa"][:, NUMA_MISS].tolist() == [0, 0]
    assert (w.row["numa"][:, NUMA_LOCAL] == w.row["numa"][:, NUMA_HIT]).all()


def test_when_a_node_is_full_its_pages_come_from_the_other_one_and_nobody_reclaims_until_that_is_full_too() -> None:
    """h51: node 0 stays at its low mark for nine seconds without kswapd (but for a run that boosted marks of zone DMA begin)."""
    w = two_nodes(swap_mib=512, tasks={"hog": "pin 0 | mmap_anon A 1100 | touch A 1100 100 | sleep 99"})
    missed_without_kswapd = 0
    for quarter in range(1, 41):
        w.at(quarter / 4)
        if w.vm("pgscan_kswapd") == 0:
            missed_without_kswapd = int(w.row["numa"][1][NUMA_MISS])
    assert missed_without_kswapd > 180 * PAGES
    assert int(w.row["numa"][0][NUMA_FOREIGN]) == int(w.row["numa"][1][NUMA_MISS]), "whoever asked here was served there"
    assert int(w.row["numa"][1][NUMA_OTHER]) == int(w.row["numa"][1][NUMA_MISS])
    assert w.vm("pgscan_kswapd") > 0
    assert w.vm("pswpout") > 0


def test_the_hosts_counters_are_the_sum_of_its_nodes() -> None:
    w = two_nodes(tasks={"hog": "pin 0 | mmap_anon A 600 | touch A 600 0 | sleep 99"}).at(5)
    names = ("numa_hit", "numa_miss", "numa_foreign", "numa_interleave", "numa_local", "numa_other")
    assert [w.vm(name) for name in names] == w.row["numa"].sum(axis=0).tolist()
    assert w.vm("numa_hit") + w.vm("numa_miss") == w.vm("numa_local") + w.vm("numa_other")


def full_of_cache() -> World:
    """Both nodes hold page cache of their own reader."""
    readers = {f"r{node}": f"pin {node} | read_file /f{node} 300 0 | sleep 99" for node in (0, 1)}
    return two_nodes(files={"/f0": 300, "/f1": 300}, tasks=readers).at(4)


def test_a_nodes_kswapd_takes_pages_of_its_own_node_only() -> None:
    w = full_of_cache()
    files = [node_counts(w.row, node)["inactive_file"] for node in (0, 1)]
    assert min(files) > 250 * PAGES
    w.row["zones"][ZONE_NODE1]["wmark"] += 1000 + int(w.row["zones"][ZONE_NODE1]["free"]) - int(w.row["zones"][ZONE_NODE1]["wmark"][1])
    w.command(4.1, "start_thread", task="r1", thread="t", ops=("mempolicy bind:1", "mmap_anon B 20", "touch B 20 0"))
    w.at(6)
    after = [node_counts(w.row, node)["inactive_file"] for node in (0, 1)]
    assert w.vm("pgscan_kswapd") > 0
    assert after[0] == files[0]
    assert after[1] < files[1]


def test_reclaim_of_a_node_passes_over_cohorts_of_the_other_and_takes_its_share_of_mixed_ones() -> None:
    w = full_of_cache()
    row = w.row
    mixed = next(i for i in range(len(row["cohorts"])) if row["cohorts"][i]["node1"] > 100)
    cohort = row["cohorts"][mixed]
    cohort["nr"], cohort["node1"] = 150, 100
    assert [int(of_second_node(row, cohort, n)) for n in (3, 60, 150)] == [2, 40, 100]
    for nodes, there, share in ((1, 50, [0, 10, 100]), (2, 100, [3, 60, 100])):
        row["reclaim_nodes"] = nodes
        assert int(pages_on_nodes(row, cohort)) == there
        assert [int(of_second_node(row, cohort, n)) for n in (3, 60, 150)] == share
    tail = int(row["cgroups"][0]["tail"][2])
    own = 1 if row["cohorts"][tail]["node1"] == 0 else 2
    row["reclaim_nodes"] = own
    assert int(next_on_nodes(row, tail)) == tail
    row["reclaim_nodes"] = ALL_NODES - own
    other = int(next_on_nodes(row, tail))
    assert other != tail
    assert int(pages_on_nodes(row, row["cohorts"][other])) > 0


def test_both_kswapds_are_asleep_on_a_host_with_room() -> None:
    w = full_of_cache()
    assert all(int(state) != KSWAPD_RUN for state in w.row["kswapd"]["state"])
    assert int(nr_free_in(w.row, 1)) + int(nr_free_in(w.row, 2)) == w.all_meminfo()["MemFree"] // 4


def test_the_files_of_each_node_add_up_to_the_hosts() -> None:
    w = full_of_cache()
    files, proc = sysfs.tree(w.row), procfs.tree(w.row)
    host = {name: int(kb) for name, kb in re.findall(r"^(\S+): +(\d+)", proc["meminfo"], re.M)}
    nodes = [dict(re.findall(rf"^Node {n} (\S+): +(\d+)", files[f"devices/system/node/node{n}/meminfo"], re.M)) for n in (0, 1)]
    for name in ("MemTotal", "MemFree", "Active(file)", "Inactive(file)", "Active(anon)", "Inactive(anon)", "Shmem"):
        assert sum(int(node[name]) for node in nodes) == host[name], name
    for name in ("AnonPages", "Slab", "PageTables", "Mapped"):
        assert sum(int(node[name]) for node in nodes) == pytest.approx(host[name], abs=16), name
    assert files["devices/system/node/online"] == "0-1\n"
    assert [files[f"devices/system/node/node{n}/distance"] for n in (0, 1)] == ["10 21\n", "21 10\n"]
    assert [files[f"devices/system/node/node{n}/cpulist"] for n in (0, 1)] == ["0\n", "1\n"]
    lines = proc["buddyinfo"].splitlines()
    assert [line.split(",")[0] for line in lines] == ["Node 0", "Node 0", "Node 1"]
    assert proc["zoneinfo"].count("per-node stats") == 2
    assert proc["pagetypeinfo"].count("Page block order") == 2


@pytest.mark.parametrize("recording", ["h51_numa", "h53_numa_interleave"])
def test_free_memory_of_each_node_is_that_of_a_real_kernel(recording: str, tmp_path: Path) -> None:
    """Placement and kswapd of each node: within 2 % of the node's memory on average, second by second."""
    run_fidelity([GROUND_TRUTH / recording], tmp_path, tick_ns=0)
    with gzip.open(GROUND_TRUTH / recording / "trace.csv.gz", "rt") as f:
        real = list(csv.DictReader(f))
    with gzip.open(tmp_path / recording / "trace.csv.gz", "rt") as f:
        ours = list(csv.DictReader(f))
    for node in (0, 1):
        name = f"node{node}.meminfo.MemFree_kB"
        errors = [abs(int(a[name]) - int(b[name])) for a, b in zip(real, ours, strict=False)]
        assert sum(errors) / len(errors) < 0.02 * 512 * 1024, node


def test_with_generations_a_nodes_kswapd_finds_its_pages_behind_older_ones_of_the_other_node() -> None:
    """Both nodes share their generations: what is old on one must not keep the other from reclaiming, nor hold it up for ever."""
    tasks = {
        "old": "pin 0 | mempolicy bind:0 | mmap_anon A 250 | touch A 250 0 | sleep 99",
        "hot": "pin 0 | mempolicy bind:0 | mmap_anon B 100 | touch B 100 0 | rewrite B 0 50 random",
        "far": "sleep 1 | pin 1 | mempolicy bind:1 | mmap_anon C 700 | touch C 700 100 | rewrite C 0 50 seq",
    }
    w = two_nodes(swap_mib=1024, lru_gen="y", tasks=tasks).at(15)
    assert w.kills() == []
    assert int(w.task("far")["swapents"]) > 150 * PAGES
    assert int(w.task("old")["swapents"]) == 0, "its node has room"


def test_a_small_machine_boots_with_two_nodes_and_too_small_a_one_says_so() -> None:
    w = two_nodes(128).at(1)
    assert min(node_counts(w.row, node)["free"] for node in (0, 1)) > 0
    with pytest.raises(BadInput, match="at least 128MiB"):
        two_nodes(82)


def test_a_page_of_a_pool_is_one_hit_of_the_node_it_is_on() -> None:
    w = two_nodes(tasks={"t": "pin 0 | sysw /proc/sys/vm/nr_hugepages 20 | sleep 99"})
    before = w.row["numa"].copy()
    w.at(2)
    assert int(w.row["hstates"][0]["nr"]) == 20
    grown = w.row["numa"] - before
    assert grown.min() >= 0
    assert int(grown[0][NUMA_HIT]) >= 20
    assert int(grown[0][NUMA_HIT]) < 20 + 2 * PAGES, "not one for each of its 512 pages"
