# SPDX-License-Identifier: Apache-2.0
"""Reading a scenario file: every key, name and size checked, nothing simulated yet.

Rules: the first thing wrong with the file becomes one sentence (BadInput) with the line it stands on; what this module
returns can be planned for any seed, but for targets, which need the whole fleet (`plan.py`).
Leaves out: `every`, `after` and `between` in the timeline: part of the grammar, refused as not supported yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetsim.containers.plugin import load_entry_points, origin_of
from fleetsim.containers.pod import Pod
from fleetsim.containers.workload import WORKLOADS
from fleetsim.errors import BadInput
from fleetsim.faults.base import FAULTS, Fault
from fleetsim.fleet.deployments import Deployment
from fleetsim.fleet.models import HOSTS_MAX, ExpectKeys, HostKeys, ScenarioKeys, TimelineKeys
from fleetsim.fleet.pods import POD_KEYS, check_pod, check_pods, field_names, read_deployment, read_pod, refuse_unknown
from fleetsim.fleet.refusal import build, unknown_name
from fleetsim.fleet.yaml_source import Place, Source, read_yaml
from fleetsim.linux import sysctl
from fleetsim.registry import import_all
from fleetsim.units import show_bytes, show_duration

NOT_YET = ("every", "after", "between")


@dataclass(frozen=True)
class Group:
    """Hosts that are alike, and the pods on each of them."""

    keys: HostKeys
    pods: tuple[Pod, ...]
    place: Place
    deployments: tuple[Deployment, ...] = ()

    @property
    def host_names(self) -> list[str]:
        return [f"{self.keys.name}-{number}" for number in range(self.keys.hosts)]


@dataclass(frozen=True)
class TimelineEntry:
    keys: TimelineKeys
    fault: Fault
    place: Place


@dataclass(frozen=True)
class ExpectEntry:
    """`kind` is the one of impact, alert, silent, false_alarm that was given; `name` its value."""

    keys: ExpectKeys
    kind: str
    name: str
    place: Place


@dataclass(frozen=True)
class Scenario:
    source: Source
    keys: ScenarioKeys
    groups: tuple[Group, ...]
    timeline: tuple[TimelineEntry, ...]
    expect: tuple[ExpectEntry, ...]

    @property
    def name(self) -> str:
        return self.source.file.stem

    @property
    def rule_files(self) -> list[Path]:
        return [self.source.file.parent / path for path in self.keys.rules]


def load_plugins() -> None:
    """Every fault and workload registers itself; workloads that users have written are found by their entry points."""
    import_all("fleetsim.faults")
    import_all("fleetsim.containers")
    load_entry_points()
    for name in WORKLOADS:
        if taken := sorted({*field_names(WORKLOADS[name])} & POD_KEYS):
            whose = f"the workload {name!r} of {origin_of(WORKLOADS[name])}"
            raise BadInput(f"{whose} has the argument {taken[0]!r}, which is a key of pods; rename it there")


def load_scenario(path: Path) -> Scenario:
    """Read and check one scenario file."""
    load_plugins()
    source = read_yaml(path)
    if not isinstance(source.data, dict):
        raise source.refuse((), "a scenario is a mapping with the keys summary, duration and fleet")
    keys = build(ScenarioKeys, source.data, source, (), "a scenario")
    groups = tuple(_group(entry, source, ("fleet", index)) for index, entry in enumerate(keys.fleet))
    _refuse_clashes(groups, source)
    timeline = tuple(_timeline(entry, keys, source, ("timeline", index)) for index, entry in enumerate(keys.timeline))
    expect = tuple(_expect(entry, source, ("expect", index)) for index, entry in enumerate(keys.expect))
    for index, rule_file in enumerate(keys.rules):
        if not (path.parent / rule_file).is_file():
            raise source.refuse(
                ("rules", index), f"there is no rule file {rule_file!r} beside the scenario; write its path relative to {path.name}"
            )
    return Scenario(source, keys, groups, timeline, expect)


# --- the fleet --------------------------------------------------------------------------------------------------------


def _check_swaps(keys: HostKeys, source: Source, place: Place) -> None:
    """What one area cannot know of the others."""
    if keys.swap and keys.swaps:
        raise source.refuse((*place, "swaps"), "a host takes either 'swap' or 'swaps'; put the size into an entry of 'swaps'")
    paths = [area.path for area in keys.swaps]
    for i, area in enumerate(keys.swaps):
        at = (*place, "swaps", i)
        if area.path in paths[:i]:
            raise source.refuse((*at, "path"), f"{area.path!r} is there twice; give each swap area a path of its own")
        if area.type != "zram" and area.disk is None and keys.disk is None:
            raise source.refuse(at, f"swap area {area.path!r} has no disk; give it one of its own, or the host one, such as disk: nvme")
        if area.type != "zram":
            if area.mem_limit:
                raise source.refuse((*at, "mem_limit"), "'mem_limit' is a setting of zram; take it out, or say type: zram")
            continue
        if any(other.type == "zram" for other in keys.swaps[:i]):
            raise source.refuse((*at, "type"), "a host has one zram device; make this area a partition or a file")
        if area.disk is not None:
            raise source.refuse((*at, "disk"), "zram is in memory and has no disk; take 'disk' out")
        if keys.zswap is not None:
            raise source.refuse((*place, "zswap"), "with zswap in front of zram pages would be compressed twice; take one of them out")


def _group(entry: Mapping[str, Any], source: Source, place: Place) -> Group:
    keys = build(HostKeys, entry, source, place, "a host group")
    if keys.swap and keys.disk is None:
        raise source.refuse(
            (*place, "swap"), f"'swap' is {show_bytes(keys.swap)} but the host has no disk for it; add a disk, such as disk: nvme"
        )
    _check_swaps(keys, source, place)
    if keys.numa_nodes > keys.cpus:
        raise source.refuse((*place, "numa_nodes"), f"'numa_nodes' is {keys.numa_nodes}, but the host has {keys.cpus} CPU; each needs one")
    for name, value in keys.sysctl.items():
        try:
            sysctl.validate(name, value)
        except BadInput as error:
            raise source.refuse((*place, "sysctl", name), error.sentence) from None
    pods = tuple(read_pod(pod, source, (*place, "pods", index)) for index, pod in enumerate(keys.pods))
    for index, pod in enumerate(pods):
        check_pod(pod, keys, source, (*place, "pods", index))
    check_pods(pods, keys, source, place)
    return Group(keys, pods, place, _deployments(keys, pods, source, place))


def _deployments(keys: HostKeys, pods: tuple[Pod, ...], source: Source, place: Place) -> tuple[Deployment, ...]:
    if keys.deployments and keys.runtime != "kubernetes":
        raise source.refuse((*place, "deployments"), f"{keys.runtime} knows no deployments; take 'runtime' out, or write pods")
    deployments = tuple(read_deployment(one, source, (*place, "deployments", n)) for n, one in enumerate(keys.deployments))
    names = {pod.name for pod in pods}
    for number, one in enumerate(deployments):
        where = (*place, "deployments", number)
        check_pod(one.template, keys, source, where)
        if one.name in names:
            raise source.refuse((*where, "name"), f"{one.name!r} is the name of another pod or deployment of this host group; rename one")
        names.add(one.name)
    return deployments


def _refuse_clashes(groups: tuple[Group, ...], source: Source) -> None:
    """Every name that a target can use means one thing."""
    if sum(group.keys.hosts for group in groups) > HOSTS_MAX:
        raise source.refuse(("fleet",), f"the fleet has more than {HOSTS_MAX} hosts; write fewer")
    names: dict[str, str] = {}
    for group in groups:
        if group.keys.name in names:
            raise source.refuse(
                (*group.place, "name"), f"the name {group.keys.name!r} is taken by a {names[group.keys.name]}; choose another"
            )
        names[group.keys.name] = "host group"
    for group in groups:
        for host in group.host_names:
            if host in names:
                raise source.refuse((*group.place, "name"), f"the host name {host!r} is taken by a {names[host]}; choose another")
            names[host] = "host"
    for group in groups:
        entries = [("pods", n, pod.name) for n, pod in enumerate(group.pods)] + [
            ("deployments", n, one.name) for n, one in enumerate(group.deployments)
        ]
        for key, index, name in entries:
            if names.get(name, "pod") != "pod":
                where = (*group.place, key, index, "name")
                raise source.refuse(where, f"the name {name!r} is taken by a {names[name]}; a target could mean both, choose another")
            names[name] = "pod"


# --- timeline and expectations ----------------------------------------------------------------------------------------


def _timeline(entry: Mapping[str, Any], scenario: ScenarioKeys, source: Source, place: Place) -> TimelineEntry:
    for key in NOT_YET:
        if key in entry:
            raise source.refuse((*place, key), f"{key!r} is not supported yet; write 'at' (and 'for')")
    own = {"at", "fault", "on", "for"}
    keys = build(TimelineKeys, {key: value for key, value in entry.items() if key in own}, source, place, "a timeline entry")
    if keys.fault not in FAULTS:
        raise source.refuse((*place, "fault"), unknown_name("fault", keys.fault, FAULTS))
    model = FAULTS[keys.fault]
    rest = {key: value for key, value in entry.items() if key not in own}
    what = f"the fault {keys.fault}"
    refuse_unknown(rest, model, [*own, *field_names(model)], source, place, what)
    fault = build(model, rest, source, place, what)
    if keys.at >= scenario.duration:
        duration = show_duration(scenario.duration)
        raise source.refuse((*place, "at"), f"'at' is {show_duration(keys.at)}, but the run ends at {duration}; write less than {duration}")
    return TimelineEntry(keys, fault, place)


def _expect(entry: Mapping[str, Any], source: Source, place: Place) -> ExpectEntry:
    keys = build(ExpectKeys, entry, source, place, "an expectation")
    kinds = {kind: getattr(keys, kind) for kind in ("impact", "alert", "silent", "false_alarm")}
    given = {kind: name for kind, name in kinds.items() if name is not None}
    if len(given) != 1:
        has = f"has {' and '.join(given)}" if given else "says nothing"
        raise source.refuse(place, f"an expectation {has}; write exactly one of {', '.join(kinds)}")
    ((kind, name),) = given.items()
    if keys.before is not None and kind != "alert":
        raise source.refuse((*place, "before"), f"'before' belongs to an alert, not to {kind}; remove it")
    if keys.within is not None and kind in ("silent", "false_alarm"):
        raise source.refuse((*place, "within"), f"'within' belongs to an impact or an alert, not to {kind}; remove it")
    return ExpectEntry(keys, kind, name, place)
