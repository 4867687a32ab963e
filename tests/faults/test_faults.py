# SPDX-License-Identifier: Apache-2.0
"""What each fault tells a host to do, and that none of them can do anything else."""

from __future__ import annotations

import dataclasses

import pytest
from pydantic import ValidationError

from fleetsim.containers.ops import check_op
from fleetsim.faults.base import FAULTS, Fault, Target
from fleetsim.fleet.scenario import load_plugins
from fleetsim.host.spec import Command, TaskSpec
from fleetsim.linux import sysctl
from fleetsim.units import NS_PER_S

load_plugins()
MIB, GIB = 1 << 20, 1 << 30

HOST = Target("x-1", "db-0", 8 * GIB, 2 * GIB, settings={**sysctl.defaults(), "vm.swappiness": 10})
POD = dataclasses.replace(HOST, pod="cache", task="cache", tasks=("cache",), cgroup="cri.scope", pod_cgroup="pod.slice", limit_bytes=GIB)

EXAMPLES: dict[str, dict[str, object]] = {
    "leaking_allocator": {"rate": "2MiB/s"},
    "memory_spike": {"size": "3GiB"},
    "page_cache_flood": {"rate": "100MiB/s"},
    "sysctl": {"name": "vm.swappiness", "value": 100},
    "swappiness": {"value": 100},
    "memory_limit": {"limit": "256MiB"},
}
COMMANDS = {"start_thread", "stop_thread", "start_task", "kill", "sysctl", "limit"}


def make(name: str, /, **parameters: object) -> Fault:
    return FAULTS[name].model_validate({**EXAMPLES[name], **parameters})


def ops_of(command: Command) -> tuple[str, ...]:
    spec = command.args.get("spec")
    ops = spec.ops if isinstance(spec, TaskSpec) else command.args["ops"]
    assert isinstance(ops, tuple)
    return ops


def mapped_mib(ops: tuple[str, ...]) -> list[int]:
    return [int(op.split()[2]) for op in ops if op.startswith("mmap_anon")]


def test_every_fault_has_an_example_here() -> None:
    assert set(FAULTS) == set(EXAMPLES)


@pytest.mark.parametrize("target", [HOST, POD], ids=["host", "pod"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_fault_speaks_in_commands_that_a_host_knows(name: str, target: Target) -> None:
    fault = make(name)
    if fault.refuse(target) is not None:
        return
    injected, cleared = fault.inject(target, 60 * NS_PER_S), fault.clear(target, 90 * NS_PER_S)
    assert injected and cleared, "what was begun can be ended"
    for command in injected + cleared:
        assert command.kind in COMMANDS
        assert command.host == target.host
        for op in ops_of(command) if command.kind in ("start_thread", "start_task") else ():
            check_op(op)
    assert {command.t_ns for command in injected} == {60 * NS_PER_S}
    assert {command.t_ns for command in cleared} == {90 * NS_PER_S}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_fault_says_what_it_is(name: str) -> None:
    assert FAULTS[name].__doc__
    assert all(field.description for field in FAULTS[name].model_fields.values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_parameters_are_checked(name: str) -> None:
    with pytest.raises(ValidationError, match="nonsense"):
        make(name, nonsense=1)


def test_a_leak_asks_for_more_than_there_is_but_never_at_once() -> None:
    """Overcommit mode 0 refuses one mapping above RAM + swap; a leak is many small ones."""
    for target, room_mib in ((HOST, 10 * 1024), (POD, 1024)):
        pieces = mapped_mib(ops_of(make("leaking_allocator").inject(target, 0)[0]))
        assert sum(pieces) > room_mib
        assert max(pieces) <= 4 * 1024, "half of the RAM"


def test_a_leak_with_a_limit_ends_there() -> None:
    pieces = mapped_mib(ops_of(make("leaking_allocator", limit="300MiB").inject(POD, 0)[0]))
    assert sum(pieces) == 300


def test_rates_reach_the_ops_in_mib_per_second() -> None:
    for rate, text in (("2MiB/s", "2"), ("512KiB/s", "0.5"), ("1GiB/s", "1024"), ("1KiB/s", "0.000977")):
        ops = ops_of(make("leaking_allocator", rate=rate).inject(POD, 0)[0])
        assert ops[1].split()[-1] == text


def test_in_a_container_it_is_a_thread_and_on_a_host_a_process_outside_all_containers() -> None:
    (thread,) = make("page_cache_flood").inject(POD, 0)
    assert (thread.kind, thread.args["task"]) == ("start_thread", "cache")
    (process,) = make("page_cache_flood").inject(HOST, 0)
    assert process.kind == "start_task"
    assert isinstance(process.args["spec"], TaskSpec)
    assert (process.args["spec"].cgroup, process.args["spec"].restart_s) == ("", None)


def test_a_flood_reads_a_file_that_it_asks_for() -> None:
    fault = make("page_cache_flood", file="10GiB")
    ((path, size),) = fault.files().items()
    assert size == 10 * GIB
    assert ops_of(fault.inject(HOST, 0)[0])[0].split()[:2] == ["read_file", path]


def test_harm_is_promised_only_where_it_is_certain() -> None:
    """2 MiB/s against a limit of 1 GiB: certain after more than 512 s; against 10 GiB of RAM and swap: after 5120 s."""
    leak = make("leaking_allocator")
    assert leak.harm == "killed"
    assert [leak.is_certain(POD, seconds * NS_PER_S) for seconds in (512, 513)] == [False, True]
    assert [leak.is_certain(HOST, seconds * NS_PER_S) for seconds in (5120, 5121)] == [False, True]
    assert not make("leaking_allocator", limit="100MiB").is_certain(POD, 10**6 * NS_PER_S)
    assert make("memory_spike").is_certain(POD, 0)
    assert not make("memory_spike").is_certain(HOST, 0)
    assert make("page_cache_flood").harm is None


def test_only_what_is_in_the_program_comes_back_after_a_restart() -> None:
    assert [name for name in FAULTS if FAULTS[name].returns_after_restart] == ["leaking_allocator"]


def test_a_spike_in_a_container_gives_its_memory_back_and_leaves_the_process_alone() -> None:
    spike = make("memory_spike")
    area = ops_of(spike.inject(POD, 0)[0])[0].split()[1]
    stop, give_back = spike.clear(POD, 1)
    assert stop.kind == "stop_thread"
    assert ops_of(give_back) == (f"free {area} munmap",)


def test_a_setting_is_put_back_to_what_the_host_had_booted_with() -> None:
    assert make("swappiness").inject(HOST, 0)[0].args == {"name": "vm.swappiness", "value": 100}
    assert make("swappiness").clear(HOST, 0)[0].args == {"name": "vm.swappiness", "value": 10}


def test_a_setting_out_of_its_range_is_refused_with_the_range() -> None:
    with pytest.raises(ValidationError, match="0 to 200"):
        make("swappiness", value=201)
    with pytest.raises(ValidationError, match=r"did you mean 'vm\.swappiness'"):
        make("sysctl", name="vm.swapiness")


def test_a_limit_is_put_back_to_what_the_pod_had() -> None:
    limit = make("memory_limit")
    assert [command.args["cgroup"] for command in limit.inject(POD, 0)] == ["pod.slice", "cri.scope"]
    assert limit.inject(POD, 0)[1].args == {"cgroup": "cri.scope", "file": "memory.max", "bytes": 256 * MIB}
    assert limit.clear(POD, 0)[0].args["bytes"] == GIB
    assert limit.clear(dataclasses.replace(POD, limit_bytes=None), 0)[0].args["bytes"] == -1


def test_a_pods_limit_is_the_sum_over_its_containers_if_all_have_one() -> None:
    """As the kubelet writes it (pkg/kubelet/cm/helpers_linux.go ResourceConfigForPod): the neighbours keep their room."""
    limit = make("memory_limit")

    def written(**more: object) -> list[object]:
        target = dataclasses.replace(POD, **more)  # type: ignore[arg-type]
        return [[command.args["bytes"] for command in told] for told in (limit.inject(target, 0), limit.clear(target, 0))]

    assert written(beside_bytes=GIB) == [[GIB + 256 * MIB, 256 * MIB], [2 * GIB, GIB]]
    assert written(beside_bytes=None) == [[-1, 256 * MIB], [-1, GIB]]
    assert written(beside_bytes=GIB, limit_bytes=None) == [[GIB + 256 * MIB, 256 * MIB], [-1, -1]]
    assert written(pod_cgroup="") == [[256 * MIB], [GIB]], "Docker and systemd have nothing around a container"


def test_settings_belong_to_hosts_and_limits_to_pods() -> None:
    assert make("swappiness").refuse(POD) and make("sysctl").refuse(POD) and make("memory_limit").refuse(HOST)
    assert not (make("swappiness").refuse(HOST) or make("memory_limit").refuse(POD))
    assert "computed by the kernel" in (make("sysctl", name="vm.min_free_kbytes", value=90000).refuse(HOST) or "")
