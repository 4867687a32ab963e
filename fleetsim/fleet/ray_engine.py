# SPDX-License-Identifier: Apache-2.0
"""The Ray engine: the hosts live in actors, on the machines of a Ray cluster; this process keeps only what couples them.

    driver   ── one call per actor and epoch: commands, rates ──→   actor: its shards run to the end of the epoch
             ←── events, how the replicas stand ──                  samples are written where they are made

Rules: which hosts are in which actor changes nothing but who waits for whom. Ray restarts an actor that died (`max_restarts`) and calls
it again (`max_task_retries`); an actor that has been started anew says that it lacks its past, and is given the last checkpoint and the
calls made since: the result is the same. Without checkpoints that is the whole run, until those calls take SINCE_BYTES_MAX: then the
engine keeps a state of the hosts on disk, of its own accord.
An actor holds no CPU of the cluster's accounts while it runs (Ray's default: one to be placed, none to stay), so that one whose
machine is gone is placed on another although that is busy.
Leaves out: where the cluster comes from (`ray_cluster.py`), and what an actor does (`hosts_actor.py`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.metrics import Gauge

from fleetsim.errors import FleetsimError, ToolFailed
from fleetsim.fleet.checkpoint import FOLDER, Cut, check_cut, cut_of, shard_file
from fleetsim.fleet.engine import Places, Replica, in_order, replicas_of
from fleetsim.fleet.hosts_actor import Answer, Call, Duty, Follow, HostsActor, Used, pack_call, unpack_call
from fleetsim.fleet.local import shard_size
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.ray_cluster import RayCluster
from fleetsim.fleet.shard_run import ShardPlan, series_ids
from fleetsim.fleet.state_file import sources_digest, write_whole
from fleetsim.host.ports import PORT
from fleetsim.host.spec import Command, Event
from fleetsim.observe.catalog import Profile
from fleetsim.rundir.samples import BLOCK_ROWS, ROW_GROUP_ROWS
from fleetsim.rundir.writer import RunWriter

START_S, START_EACH_S = 120.0, 5.0
"""How long a cluster may take to start actors, and more for each of them."""

SINCE_BYTES_MAX = 256 << 20
"""Calls are kept in memory up to so many bytes."""
BYTES_EACH = 100  # what Python takes for one besides

SLOW = 1.5
"""An actor that takes so many times the median keeps the others waiting."""


class MeasuredActor(HostsActor):
    """A HostsActor whose epochs are seen on the cluster's dashboard."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_s = Gauge("fleetsim_virtual_seconds", "Virtual time that these hosts have reached.", tag_keys=("hosts",))
        self._busy_s = Gauge("fleetsim_epoch_busy_seconds", "How long these hosts took for their last epoch.", tag_keys=("hosts",))

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def go_on(self, duty: Duty, states: Sequence[bytes], calls: Sequence[bytes], number: int, follow: Follow | None) -> Answer:
        """`begin`, with calls as they were sent."""
        return self.begin(duty, states, map(unpack_call, calls), number, follow)

    def epoch(self, sent: bytes) -> Answer | None:
        """`advance`, with a call as it is sent."""
        call = unpack_call(sent)
        answer = self.advance(call)
        if answer is not None and self._runs and call.until_ns is not None:
            tags = {"hosts": f"{self._runs[0].shard.names[0]} - {self._runs[-1].shard.names[-1]}"}
            self._virtual_s.set(call.until_ns / 1e9, tags)
            self._busy_s.set(answer.busy_s, tags)
        return answer


class RayEngine:
    """`attempt`: the number of the checkpoint that the run begins from; it keeps the blocks of two stretches of a run apart."""

    def __init__(self, profile: Profile, writer: RunWriter, attempt: int, cluster: RayCluster, hosts_per_actor: int | None) -> None:
        self._profile, self._writer, self._attempt = profile, writer, attempt
        self._cluster, self._hosts_per_actor = cluster, hosts_per_actor
        self._cut: Cut = ()
        self._groups: list[range] = []  # the shards of each actor
        self._actors: list[Any] = []
        self._duties: list[Any] = []  # a reference to each actor's Duty
        self._names: list[str] = []
        self._at: dict[str, tuple[int, int]] = {}  # host → (its shard, its index there)
        self._places: Places
        self._number = 0  # of the last call
        self._base: Path | None = None  # the checkpoint that actors come back from …
        self._since: list[list[bytes]] = []  # … and each one's calls since, as they were sent …
        self._since_bytes = 0
        self._own_base: Path | None = None  # … which are so many that we keep a checkpoint for actors alone
        self._followed: list[Follow] | None = None  # replicas of each actor's shards, if no longer those of the plan …
        self._followed_at_base: list[Follow] | None = None  # … and those of that checkpoint
        self._answers: list[Answer] = []
        self._took_s: list[float] = [0.0]  # each one's last epoch

    # --- start and stop ------------------------------------------------------------------------------------------------

    def start(self, plan: Plan, checkpoint: Path | None = None) -> None:
        hosts = len(plan.hosts)
        actors = self._cluster.actors_for(hosts, self._hosts_per_actor)
        self._cut = cut_for(hosts, actors) if checkpoint is None else check_cut(cut_of(checkpoint), hosts, checkpoint)
        self._groups = share_out(self._cut, actors)
        where = [(number, place) for number, (_, count) in enumerate(self._cut) for place in range(count)]
        self._at = {spec.name: at for spec, at in zip(plan.hosts, where, strict=True)}
        self._places = Places(replicas_of(plan), self._at, len(self._cut))
        self._base = checkpoint
        self._forget_calls()
        ids = series_ids(plan, self._profile, self._writer)
        parts = ShardPlan.cut_all(plan, self._cut, ids)
        self._make_actors([[parts[number] for number in group] for group in self._groups])
        self._warm(plan, ids)
        self._answers = self._all([self._begin(actor) for actor in range(len(self._actors))])

    def _make_actors(self, parts_of: Sequence[Sequence[ShardPlan]]) -> None:
        token = hashlib.sha256(f"{os.getpid()} {self._writer.samples_folder.resolve()}".encode()).hexdigest()
        (self._writer.samples_folder / ".token").write_text(token, encoding="ascii")
        block_rows = max(ROW_GROUP_ROWS // 4, BLOCK_ROWS // len(self._cut))
        remote = ray.remote(MeasuredActor)
        for parts in parts_of:
            first, last = parts[0].hosts[0].name, parts[-1].hosts[-1].name
            duty = Duty(
                parts=tuple(parts),
                profile=self._profile,
                samples_folder=str(self._writer.samples_folder.resolve()),
                token=token,
                prefix=f"{self._attempt:05d}",
                block_rows=block_rows,
            )
            self._names.append(first if first == last else f"{first} - {last}")
            self._duties.append(ray.put(duty))
            options = self._cluster.actor_options(f"fleetsim hosts {self._names[-1]}")
            self._actors.append(remote.options(**options).remote())

    def _warm(self, plan: Plan, ids: Sequence[NDArray[np.int64]]) -> None:
        """See that every actor is there and is of our kind; one on each machine compiles the laws for the others."""
        asked = [actor.who.remote() for actor in self._actors]
        ready, waiting = ray.wait(asked, num_returns=len(asked), timeout=START_S + START_EACH_S * len(asked))
        if waiting:
            raise ToolFailed(
                f"only {len(ready)} of {len(asked)} actors could be started on the Ray cluster, which has {self._cluster.describe()}; "
                "give --hosts-per-actor a larger number, or the cluster more machines"
            )
        mine = {"sources": sources_digest(), "size_class": self._cluster.size_class}
        first_on: dict[str, Any] = {}
        for actor, found, node in zip(self._actors, self._all(asked), self._nodes(), strict=True):
            for what, expected in mine.items():
                if found[what] != expected:
                    raise ToolFailed(
                        f"the Ray cluster has another fleetsim than this one ({what} {found[what]}, here {expected}; its version is "
                        f"{found['version']}): install the same on every machine"
                    )
            first_on.setdefault(node, actor)
        part = ShardPlan.cut(plan, 0, 1, ids)
        first = list(first_on.values())
        self._all([actor.warm.remote(part, self._profile) for actor in first])
        self._all([actor.warm.remote(part, self._profile) for actor in self._actors if actor not in first])

    def _nodes(self) -> list[str]:
        """The machine of each actor."""
        return self._all([actor.node.remote() for actor in self._actors])

    def stop(self) -> None:
        """The actors end; so does the cluster, if it was started for this run."""
        for actor in self._actors:
            with suppress(ray.exceptions.RayError, RuntimeError, ValueError):  # it, or the whole cluster, may be gone
                ray.kill(actor, no_restart=True)
        self._actors = []
        if self._own_base is not None:
            shutil.rmtree(self._own_base, ignore_errors=True)
        (self._writer.samples_folder / ".token").unlink(missing_ok=True)
        self._cluster.leave()

    # --- epochs --------------------------------------------------------------------------------------------------------

    def advance(self, until_ns: int, commands: Sequence[Command], rates: NDArray[np.int64] | None = None) -> list[Event]:
        due: list[list[Command]] = [[] for _ in self._cut]
        for command in commands:
            due[self._at[command.host][0]].append(command)
        calls = [
            Call(
                self._number + 1,
                until_ns,
                tuple(tuple(due[shard]) for shard in group),
                None if rates is None else tuple(self._places.part(shard, rates).tobytes() for shard in group),
            )
            for group in self._groups
        ]
        self._do(calls)
        self._took_s = [answer.busy_s for answer in self._answers]
        return in_order([event for answer in self._answers for event in answer.events])

    def follow(self, replicas: Sequence[Replica]) -> None:
        self._places = Places(replicas, self._at, len(self._cut))
        self._followed = [tuple(self._places.replicas(shard) for shard in group) for group in self._groups]
        self._do([Call(self._number + 1, None, (), None, follow) for follow in self._followed])

    def _do(self, calls: Sequence[Call]) -> None:
        """The next call of every actor."""
        sent = [pack_call(call) for call in calls]
        self._answers = self._each(lambda actor, number: actor.epoch.remote(sent[number]))
        self._number += 1
        for since, one in zip(self._since, sent, strict=True):
            since.append(one)
            self._since_bytes += len(one) + BYTES_EACH
        if self._since_bytes > SINCE_BYTES_MAX:
            self._keep_states()

    def ports(self) -> NDArray[Any]:
        return self._places.together([np.frombuffer(ports, PORT) for answer in self._answers for ports in answer.ports])

    def slowest(self) -> str:
        took = self._took_s
        middle = median(took)
        if len(took) < 2 or middle <= 0 or max(took) < SLOW * middle:
            return ""
        return f"{self._names[took.index(max(took))]} took {max(took) / middle:.1f} × the median"

    def used(self) -> list[Used]:
        """What each actor has taken so far."""
        return self._all([actor.used.remote() for actor in self._actors])

    def busy_s(self) -> list[float]:
        """How long each actor took for the last epoch."""
        return self._took_s

    # --- what is asked between epochs -----------------------------------------------------------------------------------

    def checkpoint(self, folder: Path) -> None:
        for number in range(len(self._actors)):
            states = self._with_blocks(number, "save")
            for shard, state in zip(self._groups[number], states, strict=True):
                write_whole(folder / shard_file(*self._cut[shard]), state)
        self._base = folder
        self._followed_at_base = self._followed
        self._forget_calls()

    def _forget_calls(self) -> None:
        """Nobody will ask for a call that was made before the base."""
        self._since, self._since_bytes = [[] for _ in self._groups], 0
        if self._own_base is not None and self._own_base != self._base:
            shutil.rmtree(self._own_base, ignore_errors=True)
            self._own_base = None

    def _keep_states(self) -> None:
        """A checkpoint that only actors come back from, in the run's own folder for such: it is gone when the run is sealed or goes on."""
        folder = self._writer.samples_folder.parent / FOLDER / f"actors-{self._number:09d}"
        folder.mkdir(parents=True)
        before, self._own_base = self._own_base, folder
        self.checkpoint(folder)
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)

    def _with_blocks(self, number: int, method: str) -> Any:
        """What an actor's `save` or `finish` says, after its blocks that only it can see have been fetched."""
        while True:
            actor = self._actors[number]
            result, names = self._one(number, lambda actor: getattr(actor, method).remote(self._number))
            for name in names:
                content = self._all([actor.fetch.remote(name)])[0]
                if content is None:  # it died meanwhile, and its blocks with it
                    break
                write_whole(self._writer.samples_folder / name, content)
            else:
                self._all([actor.forget.remote(names)])
                return result

    def read(self, hosts: Sequence[str]) -> list[bytes]:
        actor_of = {shard: number for number, group in enumerate(self._groups) for shard in group}
        wanted: list[list[tuple[int, int]]] = [[] for _ in self._actors]
        order: list[tuple[int, int]] = []
        for host in hosts:
            shard, index = self._at[host]
            number = actor_of[shard]
            order.append((number, len(wanted[number])))
            wanted[number].append((shard - self._groups[number].start, index))
        records = self._each(lambda actor, number: actor.records.remote(self._number, wanted[number]))
        return [records[number][place] for number, place in order]

    def digests(self) -> list[bytes]:
        for number in range(len(self._actors)):
            self._with_blocks(number, "finish")
        return [digest for part in self._each(lambda actor, number: actor.digests.remote(self._number)) for digest in part]

    # --- calls, and what happens when somebody has died ------------------------------------------------------------------

    def _each(self, ask: Callable[[Any, int], Any]) -> list[Any]:
        """The same question to every actor, at once."""
        asked = [ask(actor, number) for number, actor in enumerate(self._actors)]
        answers = self._all(asked)
        return [
            self._one(number, lambda actor, number=number: ask(actor, number)) if answer is None else answer  # type: ignore[misc]
            for number, answer in enumerate(answers)
        ]

    def _one(self, number: int, ask: Callable[[Any], Any]) -> Any:
        """The answer of one actor, which has been started anew if it gives none."""
        while (answer := self._all([ask(self._actors[number])])[0]) is None:
            self._all([self._begin(number)])
        return answer

    def _begin(self, number: int) -> Any:
        states = [] if self._base is None else [(self._base / shard_file(*self._cut[shard])).read_bytes() for shard in self._groups[number]]
        follow = None if self._followed_at_base is None else self._followed_at_base[number]
        return self._actors[number].go_on.remote(self._duties[number], states, self._since[number], self._number, follow)

    @staticmethod
    def _all(asked: Sequence[Any]) -> list[Any]:
        """The answers; an error of ours comes as itself."""
        try:
            answers: list[Any] = ray.get(list(asked))
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, FleetsimError):
                raise cause from None
            raise
        except ray.exceptions.RayError as error:
            raise ToolFailed(f"the Ray cluster has lost what cannot be replaced: {' '.join(str(error).split())[:300]}") from None
        return answers


def cut_for(hosts: int, actors: int) -> Cut:
    """Hosts in shards, so that actors with whole shards have the same number of hosts, but for one."""
    each = [hosts // actors + (number < hosts % actors) for number in range(actors)]
    cut: list[tuple[int, int]] = []
    first = 0
    for count in each:
        size = max(1, min(count, shard_size(hosts)))
        for start in range(0, count, size):
            cut.append((first + start, min(size, count - start)))
        first += count
    return tuple(cut)


def share_out(cut: Cut, actors: int) -> list[range]:
    """Consecutive shards for each actor, by the number of hosts; fewer actors if there are not so many shards."""
    hosts = sum(count for _, count in cut)
    wanted = min(actors, len(cut))
    groups: list[range] = []
    start = 0
    for number in range(wanted):
        end = start + 1
        most = len(cut) - (wanted - number - 1)  # one is left for each of the others
        upto = (number + 1) * (hosts // wanted) + min(number + 1, hosts % wanted)
        while end < most and cut[end][0] + cut[end][1] <= upto:
            end += 1
        groups.append(range(start, len(cut) if number == wanted - 1 else end))
        start = end
    return groups
