# SPDX-License-Identifier: Apache-2.0
"""A scenario file that cannot be used gets ONE sentence: file, line, the value, what would be right. Nothing is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetsim.errors import EXIT_BAD_INPUT, BadInput
from fleetsim.fleet.hosts import host_specs
from fleetsim.fleet.plan import make_plan
from fleetsim.fleet.scenario import load_scenario

GOOD = """\
summary: One container leaks.
seed: 7
duration: 30m
fleet:
  - hosts: 6
    name: web
    memory: 4GiB
    pods:
      - name: checkout
        workload: script
        requests: 512MiB
        limits: 1GiB
        ops: [mmap_anon heap 300, touch heap 300 40]
timeline:
  - at: 5m
    fault: leaking_allocator
    on: one checkout
    rate: 2MiB/s
    for: 10m
expect:
  - alert: HostMemoryAvailableLow
    on: the target
    within: 20m
"""

# what is replaced in GOOD, by what, the line that is blamed, and what the sentence must say: the value and the right thing
BAD: dict[str, tuple[str, str, int, list[str]]] = {
    "unknown key at the top": ("seed: 7", "sead: 7", 2, ["'sead'", "did you mean 'seed'?", "duration"]),
    "unknown key of a host group": ("    memory: 4GiB", "    memroy: 4GiB", 7, ["'memroy'", "did you mean 'memory'?"]),
    "unknown key of a pod": ("        limits: 1GiB", "        limit: 1GiB", 12, ["'limit'", "did you mean 'limits'?", "ops"]),
    "unknown key of a fault": ("    rate: 2MiB/s", "    speed: 2MiB/s", 18, ["'speed'", "rate", "limit"]),
    "unknown key of an expectation": ("    within: 20m", "    wihtin: 20m", 23, ["'wihtin'", "did you mean 'within'?"]),
    "missing key": ("    memory: 4GiB\n", "", 5, ["'memory'", "64GiB"]),
    "a number without unit": ("duration: 30m", "duration: 30", 3, ["30", "90s, 5m or 2h"]),
    "a decimal unit": ("memory: 4GiB", "memory: 4GB", 7, ["'4GB'", "GiB"]),
    "a fraction": ("memory: 4GiB", "memory: 1.5GiB", 7, ["'1.5GiB'", "512MiB"]),
    "a rate without time": ("rate: 2MiB/s", "rate: 2MiB", 18, ["'2MiB'", "20MiB/s"]),
    "a zero rate": ("rate: 2MiB/s", "rate: 0MiB/s", 18, ["'0MiB/s'", "above zero"]),
    "a zero duration": ("duration: 30m", "duration: 0s", 3, ["'0s'", "above zero"]),
    "a fault that lasts for nothing": ("for: 10m", "for: 0s", 19, ["'0s'", "above zero"]),
    "a negative number": ("hosts: 6", "hosts: -6", 5, ["-6", "at least 1"]),
    "no host at all": ("hosts: 6", "hosts: 0", 5, ["0", "at least 1"]),
    "too many hosts": ("hosts: 6", "hosts: 10000000", 5, ["10000000", "at most 1000000"]),
    "text for a number": ("hosts: 6", "hosts: six", 5, ["'six'", "whole number"]),
    "a number for text": ("summary: One container leaks.", "summary: 5", 1, ["5", "text"]),
    "nothing for a value": ("summary: One container leaks.", "summary:", 1, ["empty", "text"]),
    "a seed that is no number": ("seed: 7", "seed: 7.5", 2, ["7.5", "whole number"]),
    "limits above the host": ("limits: 1GiB", "limits: 8GiB", 12, ["8GiB", "host's memory of 4GiB", "at most 4GiB"]),
    "requests above limits": ("requests: 512MiB", "requests: 2GiB", 11, ["2GiB", "limits of 1GiB"]),
    "requests above the host": ("requests: 512MiB\n        limits: 1GiB", "requests: 5GiB", 11, ["5GiB", "4GiB"]),
    "a host too small for any kernel": ("memory: 4GiB", "memory: 64MiB", 7, ["'64MiB'", "256MiB to 16TiB"]),
    "swap without a disk": ("memory: 4GiB", "memory: 4GiB\n    swap: 1GiB", 8, ["'swap'", "1GiB", "disk: nvme"]),
    "an unknown disk": ("memory: 4GiB", "memory: 4GiB\n    disk: floppy", 8, ["'floppy'", "nvme, ssd, hdd, network"]),
    "an unknown sysctl": (
        "memory: 4GiB",
        "memory: 4GiB\n    sysctl: {vm.swapiness: 10}",
        8,
        ["'vm.swapiness'", "did you mean 'vm.swappiness'?"],
    ),
    "swap and swaps": (
        "memory: 4GiB",
        "memory: 4GiB\n    disk: nvme\n    swap: 1GiB\n    swaps: [{path: /dev/sdb, size: 1GiB}]",
        10,
        ["either 'swap' or 'swaps'"],
    ),
    "zram with a disk": (
        "memory: 4GiB",
        "memory: 4GiB\n    swaps: [{path: /dev/zram0, size: 1GiB, type: zram, disk: ssd}]",
        8,
        ["zram is in memory", "take 'disk' out"],
    ),
    "zswap in front of zram": (
        "memory: 4GiB",
        "memory: 4GiB\n    zswap: {}\n    swaps: [{path: /dev/zram0, size: 1GiB, type: zram}]",
        8,
        ["compressed twice"],
    ),
    "a sysctl out of range": ("memory: 4GiB", "memory: 4GiB\n    sysctl: {vm.swappiness: 300}", 8, ["300", "0 to 200"]),
    "an unknown thp mode": ("memory: 4GiB", "memory: 4GiB\n    thp: sometimes", 8, ["'sometimes'", "'always', 'madvise' or 'never'"]),
    "a label that Prometheus owns": ("memory: 4GiB", "memory: 4GiB\n    labels: {__site: mine}", 8, ["'__site'", "label"]),
    "a file without a path": ("memory: 4GiB", "memory: 4GiB\n    files: {big: 1GiB}", 8, ["'big'", "/data/big.bin"]),
    "a file of nothing": ("memory: 4GiB", "memory: 4GiB\n    files: {/data/a: 0}", 8, ["0", "512MiB"]),
    "a bad name": ("name: web", "name: Web_1", 6, ["'Web_1'", "small letters"]),
    "a name that is a word of targets": ("name: web", "name: all", 6, ["'all'", "not 'all'"]),
    "an unknown workload": ("workload: script", "workload: skript", 10, ["'skript'", "did you mean 'script'?", "known are"]),
    "an unknown op": ("touch heap 300 40", "tuoch heap 300 40", 13, ["'tuoch heap 300 40'", "did you mean 'touch'?"]),
    "an op with a word missing": ("touch heap 300 40", "touch heap 300", 13, ["'touch heap 300'", "rate", "touch ID MIB RATE"]),
    "an op with a word too much": ("touch heap 300 40", "touch heap 300 40 seq", 13, ["'seq'", "touch ID MIB RATE"]),
    "no op at all": ("[mmap_anon heap 300, touch heap 300 40]", "[]", 13, ["at least 1"]),
    "a file nobody has": ("touch heap 300 40]", "read_file /data/x 0 5]", 9, ["'/data/x'", "files"]),
    "an unknown fault": (
        "leaking_allocator",
        "leeking_allocator",
        16,
        ["'leeking_allocator'", "did you mean 'leaking_allocator'?", "page_cache_flood"],
    ),
    "an unknown target": ("on: one checkout", "on: one chekout", 17, ["'chekout'", "did you mean 'checkout'?", "web/checkout"]),
    "more than there are": ("on: one checkout", "on: 7 checkout", 17, ["'7 checkout'", "only 6"]),
    "no sentence of a target": ("on: one checkout", "on: some of the checkout", 17, ["'some of the checkout'", "a third of X"]),
    "a target before any": ("on: one checkout", "on: the target", 17, ["'the target'", "before it"]),
    "a fault after the end": ("at: 5m", "at: 30m", 15, ["30m", "less than 30m"]),
    "a part of the grammar that is to come": ("at: 5m", "every: 5m", 15, ["'every'", "not supported yet"]),
    "another part that is to come": ("for: 10m", "after: boot", 19, ["'after'", "not supported yet"]),
    "the third part that is to come": ("for: 10m", "between: [1m, 2m]", 19, ["'between'", "not supported yet"]),
    "an expectation of two things": ("    within: 20m", "    silent: X", 21, ["alert and silent", "exactly one"]),
    "an expectation of nothing": ("  - alert: HostMemoryAvailableLow\n    on", "  - on", 21, ["says nothing", "exactly one"]),
    "an unknown impact": ("alert: HostMemoryAvailableLow", "impact: sad", 21, ["'sad'", "write 'killed', 'slow'"]),
    "before something else": ("    within: 20m", "    before: dawn", 23, ["'dawn'", "'impact'"]),
    "within of a silence": ("alert: HostMemoryAvailableLow", "silent: HostMemoryAvailableLow", 23, ["'within'", "remove it"]),
    "luck in an expectation": ("on: the target", "on: one web", 22, ["'one web'", "the target"]),
    "a future format": ("seed: 7", "format: 2", 2, ["2", "write 1"]),
    "a rule file that is not there": ("seed: 7", "rules: [rules/none.yml]", 2, ["'rules/none.yml'", "relative"]),
    "a fleet of nobody": (GOOD[GOOD.index("fleet:") :], "fleet: []\n", 4, ["at least 1"]),
    "a fleet that is no list": (GOOD[GOOD.index("fleet:") :], "fleet: web\n", 4, ["'web'", "list"]),
    "a key that stands twice": ("seed: 7", "seed: 7\nseed: 8", 3, ["'seed'", "twice"]),
}


def write(folder: Path, text: str) -> Path:
    file = folder / "incident.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_scenario_that_all_bad_ones_are_made_of_is_good(tmp_path: Path) -> None:
    plan = make_plan(load_scenario(write(tmp_path, GOOD)))
    assert [host.name for host in plan.hosts] == [f"web-{number}" for number in range(6)]
    assert [fault.kind for fault in plan.faults] == ["leaking_allocator"]
    assert [expectation.kind for expectation in plan.expectations] == ["alert", "impact"], "the second is the fault's own"


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence_with_file_line_value_and_what_is_right(case: str, tmp_path: Path) -> None:
    old, new, line, words = BAD[case]
    assert GOOD.count(old) == 1, "the table names one place"
    file = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(BadInput) as caught:
        make_plan(load_scenario(file))
    sentence = str(caught.value)
    assert sentence.startswith(f"{file}:{line}: "), sentence
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence
    assert caught.value.exit_code == EXIT_BAD_INPUT
    assert [path.name for path in tmp_path.iterdir()] == ["incident.yaml"], "nothing was written"


CLASHES = {
    "two groups of one name": ("  - {hosts: 1, name: a, memory: 1GiB}\n  - {hosts: 1, name: a, memory: 1GiB}\n", 5, "host group"),
    "a group called like a host": ("  - {hosts: 2, name: a, memory: 1GiB}\n  - {hosts: 1, name: a-1, memory: 1GiB}\n", 4, "host group"),
    "a pod called like a group": (
        "  - {hosts: 1, name: a, memory: 1GiB}\n  - {hosts: 1, name: b, memory: 1Gi, pods: [{name: a, workload: script, ops: [exit 0]}]}\n",
        5,
        "host group",
    ),
    "two pods of one name": (
        "  - hosts: 1\n    name: a\n    memory: 1GiB\n    pods:\n"
        "      - {name: p, workload: script, ops: [sleep 1]}\n      - {name: p, workload: script, ops: [sleep 1]}\n",
        9,
        "each its own name",
    ),
    "two processes of one name": (
        "  - hosts: 1\n    name: a\n    memory: 1GiB\n    pods:\n      - {name: p, workload: script, ops: [sleep 1]}\n"
        "      - {name: q, workload: script, processes: [{name: p, ops: [sleep 1]}]}\n",
        9,
        "unique on a host",
    ),
    "requests that no scheduler would place": (
        "  - hosts: 1\n    name: a\n    memory: 1GiB\n    pods:\n      - {name: p, workload: script, requests: 600MiB, ops: [sleep 1]}\n"
        "      - {name: q, workload: script, limits: 600MiB, ops: [sleep 1]}\n",
        7,
        "1200MiB together",
    ),
    "more files than a host's record holds": (
        "  - hosts: 1\n    name: a\n    memory: 1GiB\n    files: {" + ", ".join(f"/f{n}: 1MiB" for n in range(160)) + "}\n",
        4,
        "160 files",
    ),
}


@pytest.mark.parametrize("case", CLASHES)
def test_what_cannot_stand_together_is_refused_where_it_stands(case: str, tmp_path: Path) -> None:
    fleet, line, word = CLASHES[case]
    file = write(tmp_path, f"summary: x\nduration: 1m\nfleet:\n{fleet}")
    with pytest.raises(BadInput) as caught:
        make_plan(load_scenario(file))
    assert str(caught.value).startswith(f"{file}:{line}: "), caught.value
    assert word in str(caught.value)


def test_of_two_mistakes_the_first_in_the_file_is_told(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD.replace("seed: 7", "seed: no").replace("duration: 30m", "duration: long"))
    with pytest.raises(BadInput, match=r":2: 'seed'"):
        load_scenario(file)


def test_a_scenario_may_leave_out_all_that_has_a_default(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, "summary: Nothing happens.\nduration: 1m\nfleet: [{hosts: 1, name: a, memory: 1GiB}]\n"))
    assert (scenario.keys.seed, scenario.timeline, scenario.expect) == (0, (), ())
    host = make_plan(scenario).hosts[0]
    assert (host.cpus, host.swap_bytes, host.thp, host.tasks) == (4, 0, "madvise", ())


def test_a_group_of_hosts_may_reclaim_by_generations(tmp_path: Path) -> None:
    plan = make_plan(load_scenario(write(tmp_path, GOOD.replace("memory: 4GiB", "memory: 4GiB\n    lru_gen: true"))))
    assert {host.lru_gen for host in plan.hosts} == {"y"}
    assert {host.lru_gen for host in make_plan(load_scenario(write(tmp_path, GOOD))).hosts} == {"n"}


@pytest.mark.parametrize(("said", "profile"), [("", "server"), ("\n    cpu_profile: vm", "vm")])
def test_a_host_costs_what_bare_metal_or_a_virtual_machine_does(said: str, profile: str, tmp_path: Path) -> None:
    plan = make_plan(load_scenario(write(tmp_path, GOOD.replace("memory: 4GiB", f"memory: 4GiB{said}"))))
    assert {host.cpu_profile for host in plan.hosts} == {profile}
    with pytest.raises(BadInput, match="cpu_profile"):
        load_scenario(write(tmp_path, GOOD.replace("memory: 4GiB", "memory: 4GiB\n    cpu_profile: lab")))


def test_hosts_may_have_two_numa_nodes_and_pods_be_confined_to_one(tmp_path: Path) -> None:
    two = GOOD.replace("memory: 4GiB", "memory: 4GiB\n    numa_nodes: 2").replace(
        "workload: script", "workload: script\n        numa_node: 1", 1
    )
    host = make_plan(load_scenario(write(tmp_path, two))).hosts[0]
    assert host.numa_nodes == 2
    assert [cgroup.limits["cpuset.mems"] for pod in host.pods for cgroup in pod.cgroups if "cpuset.mems" in cgroup.limits] == [2]
    for wrong, right in (
        (two.replace("numa_nodes: 2", "numa_nodes: 1"), "add numa_nodes: 2"),
        (two.replace("numa_nodes: 2", "numa_nodes: 2\n    cpus: 1"), "each needs one"),
        (two.replace("numa_nodes: 2", "numa_nodes: 3"), "numa_nodes"),
    ):
        with pytest.raises(BadInput, match=right):
            load_scenario(write(tmp_path, wrong))


def test_sizes_may_be_written_with_and_without_the_b(tmp_path: Path) -> None:
    plan = make_plan(load_scenario(write(tmp_path, GOOD.replace("4GiB", "4Gi").replace("2MiB/s", "2Mi/s"))))
    assert plan.hosts[0].memory_bytes == 4 << 30


def test_a_setting_that_no_law_reads_is_told_and_not_passed_over(tmp_path: Path) -> None:
    with_both = GOOD.replace("memory: 4GiB", "memory: 4GiB\n    sysctl: {vm.laptop_mode: 5, vm.swappiness: 10}")
    notes = make_plan(load_scenario(write(tmp_path, with_both))).notes
    assert [note.split()[0] for note in notes] == ["vm.laptop_mode"]


def test_swap_areas_and_zswap_reach_the_host(tmp_path: Path) -> None:
    areas = "[{path: /dev/sdb, size: 2GiB, priority: 7, disk: ssd}, {path: /swap, size: 1GiB, type: file, swapon: false}]"
    text = GOOD.replace("memory: 4GiB", f"memory: 4GiB\n    disk: nvme\n    zswap: {{max_pool_percent: 30}}\n    swaps: {areas}")
    scenario = load_scenario(write(tmp_path, text))
    group = scenario.groups[0]
    host, *_ = host_specs(group, dict.fromkeys(group.host_names, group.pods), {})
    assert [(area.path, area.bytes >> 30, area.priority, area.kind, area.on) for area in host.swaps] == [
        ("/dev/sdb", 2, 7, "partition", True),
        ("/swap", 1, -1, "file", False),
    ]
    assert host.zswap is not None
    assert (host.zswap.max_pool_percent, host.zswap.zpool) == (30, "zbud")
    assert scenario.groups[0].keys.swap_bytes == 3 << 30


def test_a_kubelet_that_nothing_is_said_of_has_kubernetes_defaults(tmp_path: Path) -> None:
    """evictionHard memory.available<100Mi; Docker and systemd evict nobody."""
    for more, evicts in (
        ("", 100 << 20),
        ("    kubelet: {}\n", 100 << 20),
        ("    kubelet: {eviction_hard: 0}\n", 0),
        ("    runtime: docker\n", 0),
        ("    runtime: systemd\n", 0),
    ):
        plan = make_plan(load_scenario(write(tmp_path, GOOD.replace("    memory: 4GiB\n", "    memory: 4GiB\n" + more))))
        assert {host.kubelet.eviction_hard_bytes for host in plan.hosts} == {evicts}, more


SHOP = """\
summary: x
duration: 5m
fleet:
  - hosts: 2
    name: node
    memory: 2GiB
    deployments:
      - {name: web, replicas: 3, workload: web, working_set: 16MiB, slo: {latency: 50ms}}
services:
  - {name: shop, pods: web, load: 10/s}
"""


def test_a_service_may_have_the_pods_of_a_deployment(tmp_path: Path) -> None:
    plan = make_plan(load_scenario(write(tmp_path, SHOP)))
    (service,) = plan.services
    assert service.deployment == "web" and len(service.replicas) == 3 and service.has_slo
    assert {host for host, _ in service.replicas} == {"node-0", "node-1"}
    assert (service.drain_ns, service.connections) == (None, 0)


@pytest.mark.parametrize(
    ("old", "new", "line", "word"),
    [
        ("working_set: 16MiB", "working_set: 16MiB, load: 5/s", 10, "has a load of its own"),
        ("workload: web, working_set: 16MiB, slo: {latency: 50ms}", "workload: idle", 10, "does not serve requests"),
        ("load: 10/s}", "load: 10/s, connection_age: 5m}", 10, "'connection_age' needs 'connections'"),
        ("load: 10/s}", "load: 10/s, drain: 30}", 10, "90s, 5m or 2h"),
        ("pods: web", "pods: wep", 10, "did you mean 'web'?"),
        ("working_set: 16MiB", "working_set: 16MiB, pre_stop: 1m", 8, "longer than 'grace'"),
    ],
)
def test_what_is_wrong_with_a_service_is_told_where_it_stands(old: str, new: str, line: int, word: str, tmp_path: Path) -> None:
    file = write(tmp_path, SHOP.replace(old, new))
    with pytest.raises(BadInput) as caught:
        make_plan(load_scenario(file))
    assert str(caught.value).startswith(f"{file}:{line}: "), caught.value
    assert word in str(caught.value)
