# SPDX-License-Identifier: Apache-2.0
"""The words of `--set` and `--drop-fault`: what they make of a plan, and what is refused in one sentence."""

from __future__ import annotations

import pytest

from fleetsim.errors import BadInput
from fleetsim.fleet.plan import Plan, make_plan
from fleetsim.fleet.scenario import load_scenario
from fleetsim.fleet.whatif import Change, check_in_time, what_if
from fleetsim.units import NS_PER_S
from tests.fleet.coupled import coupled_plan

AT = 20 * NS_PER_S
MIB = 1 << 20


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return coupled_plan(tmp_path_factory.mktemp("whatif"))


def commands(plan: Plan, *sets: str, on: str | None = None) -> list[tuple[str, str, tuple[object, ...]]]:
    changed = what_if(plan, AT, Change(sets=sets, on=on))
    assert all(command.t_ns == AT and command.author == "whatif" for command in changed.changes)
    assert changed.commands()[-len(changed.changes) :] or not changed.changes
    return [(command.host, command.kind, tuple(command.args.values())) for command in changed.changes]


def test_a_kernel_setting_is_set_on_every_host_or_where_it_is_said(plan: Plan) -> None:
    hosts = [spec.name for spec in plan.hosts]
    assert commands(plan, "vm.swappiness=1") == [(host, "sysctl", ("vm.swappiness", 1)) for host in hosts]
    nodes = [host for host in hosts if host.startswith("node-")]
    assert [host for host, *_ in commands(plan, "vm.swappiness=1", on="node")] == nodes != hosts
    assert [host for host, *_ in commands(plan, "vm.swappiness=1", on="shop-2")] == ["shop-2"]


def test_a_limit_is_written_to_container_and_pod_as_the_kubelet_does(plan: Plan) -> None:
    spec = next(pod for pod in plan.hosts[0].pods if pod.name == "app")
    written = commands(plan, "pod/shop-0/app.limits=200MiB")
    assert written == [("shop-0", "limit", (cgroup, "memory.max", 200 * MIB)) for cgroup in (spec.containers[0].cgroup, spec.cgroup)]
    assert [args[2] for *_, args in commands(plan, "pod/app.limits=max", on="shop-1")] == [-1, -1]
    assert commands(plan, "pod/app.memory.high=0", on="shop-0") == [("shop-0", "limit", (spec.containers[0].cgroup, "memory.high", 0))]


SEVERAL = """\
summary: x
duration: 1m
fleet:
  - hosts: 1
    name: a
    memory: 1GiB
    pods:
      - name: pair
        containers:
          - {name: one, workload: script, limits: 64MiB, ops: [sleep 9]}
          - {name: two, workload: script, limits: 32MiB, ops: [sleep 9]}
      - {name: site, workload: web, limits: 128MiB, working_set: 16MiB, load: 5/s}
  - hosts: 1
    name: d
    memory: 1GiB
    runtime: docker
    pods: [{name: box, workload: script, limits: 64MiB, ops: [sleep 9]}]
timeline:
  - {at: 10s, fault: leaking_allocator, on: a/pair, rate: 1MiB/s, for: 5s}
  - {at: 30s, fault: leaking_allocator, on: box, rate: 1MiB/s}
"""


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    file = tmp_path_factory.mktemp("several") / "x.yaml"
    file.write_text(SEVERAL, encoding="utf-8")
    return make_plan(load_scenario(file))


def test_the_pods_own_limit_is_the_sum_of_its_containers(several: Plan) -> None:
    written = commands(several, "pod/pair/one.limits=100MiB", "pod/pair/two.limits=50MiB")
    assert [args[2] // MIB for *_, args in written] == [100, 132, 50, 150]
    assert [args[2] for *_, args in commands(several, "pod/pair/two.limits=max")] == [-1, -1]


def test_docker_has_no_cgroup_around_a_container(several: Plan) -> None:
    assert [(args[1], args[2]) for *_, args in commands(several, "pod/box.limits=100MiB")] == [("memory.max", 100 * MIB)]


def test_a_load_goes_to_the_process_that_serves(several: Plan) -> None:
    assert commands(several, "pod/site.load=90/m") == [("a-0", "load", ("site", 1500))]


def test_a_services_load_holds_from_then_on(plan: Plan) -> None:
    changed = what_if(plan, AT, Change(sets=("service/checkout.load=7/s",)))
    service = next(one for one in changed.services if one.name == "checkout")
    assert service.load_from(AT - 1) == service.load and service.load_from(AT).low == service.load_from(2 * AT).high == 7000
    assert plan.services[0].load_from(AT) == plan.services[0].load, "the plan itself stays as it was"


def test_a_fault_is_taken_out_or_ends(plan: Plan) -> None:
    """The leak begins at 15 s and lasts, the spike is to come at 30 s."""
    changed = what_if(plan, AT, Change(dropped=("leaking_allocator", "memory_spike-2")))
    ((leak,), (spike,)) = ([f for f in plan.faults if f.id == name] for name in ("leaking_allocator-1", "memory_spike-2"))
    assert [(fault.id, fault.start_ns, fault.end_ns) for fault in changed.faults] == [(leak.id, leak.start_ns, AT)]
    assert leak.end_ns is None and spike in plan.faults
    assert {e.fault for e in changed.expectations} <= {None, leak.id}, "nothing is expected of what never was"
    assert what_if(plan, 55 * NS_PER_S, Change(dropped=("memory_spike",))).faults == plan.faults, "it was over"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Change(sets=("vm.swapiness=1",)), "did you mean 'vm.swappiness'"),
        (Change(sets=("vm.swappiness",)), "write NAME=VALUE"),
        (Change(sets=("vm.swappiness=high",)), "vm.swappiness must be a whole number"),
        (Change(sets=("vm.swappiness=300",)), "0 to 200"),
        (Change(sets=("pod/app.ops=sleep",)), "'ops' of a pod cannot be set; what can: limits, load, memory.max"),
        (Change(sets=("pod/ap.limits=1GiB",)), "nobody is called 'ap'; did you mean 'app'"),
        (Change(sets=("pod/app.limits=1GB",)), "sizes are binary"),
        (Change(sets=("pod/app.limits=0",)), "kills everybody"),
        (Change(sets=("pod/app.load=4/s",)), "does not serve requests"),
        (Change(sets=("pod/checkout.load=4/s",)), "set service/checkout.load"),
        (Change(sets=("pod/web.limits=1GiB",)), "is a Deployment"),
        (Change(sets=("pod/shop.limits=1GiB",)), "is not a pod"),
        (Change(sets=("pod/app.limits=1GiB",), on="node"), "is not on node"),
        (Change(sets=("pod/app/side.limits=1GiB",)), "write one of pod/app/app"),
        (Change(sets=("service/checkout.load=fast",)), "requests per second"),
        (Change(sets=("service/checkout.limits=1GiB",)), "only its load"),
        (Change(sets=("service/checkout.load=1/s",), on="shop"), "take --on out"),
        (Change(sets=("service/till.load=1/s",)), "known are checkout"),
        (Change(sets=("memory=1GiB",)), "what can be set: a kernel setting"),
        (Change(sets=("vm.swappiness=1",), on="nowhere"), "--on is 'nowhere'"),
        (Change(dropped=("leak",)), "known are leaking_allocator-1, memory_spike-2"),
    ],
)
def test_what_cannot_be_is_one_sentence(change: Change, words: str, plan: Plan) -> None:
    with pytest.raises(BadInput) as refused:
        what_if(plan, AT, change)
    assert words in refused.value.sentence and "\n" not in refused.value.sentence


def test_a_fault_is_named_by_id_where_its_kind_would_mean_several(several: Plan) -> None:
    with pytest.raises(BadInput, match="of which there are several; name one of leaking_allocator-1, leaking_allocator-2"):
        what_if(several, AT, Change(dropped=("leaking_allocator",)))
    with pytest.raises(BadInput, match="over at 15s; branch before that: --at is 20s"):
        check_in_time(several, AT, Change(dropped=("leaking_allocator-1",)))
    with pytest.raises(BadInput, match="pod/pair/one, pod/pair/two"):
        what_if(several, AT, Change(sets=("pod/pair.limits=1GiB",)))
    with pytest.raises(BadInput, match="--at is 1m, but the run ends at 1m"):
        what_if(several, 60 * NS_PER_S, Change(dropped=("leaking_allocator-2",)))


def test_a_fault_that_is_named_twice_is_dropped_once(plan: Plan) -> None:
    once = what_if(plan, 40 * NS_PER_S, Change(dropped=("leaking_allocator",)))
    assert what_if(plan, 40 * NS_PER_S, Change(dropped=("leaking_allocator", "leaking_allocator-1"))).commands() == once.commands()
    gone = what_if(plan, 5 * NS_PER_S, Change(dropped=("leaking_allocator", "leaking_allocator")))
    assert [fault.kind for fault in gone.faults] == [fault.kind for fault in plan.faults if fault.kind != "leaking_allocator"]
