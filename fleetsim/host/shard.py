# SPDX-License-Identifier: Apache-2.0
"""Some hosts as one array of records, with their text beside it: what an engine steps and a fault commands.

Commands are applied when the host's clock reaches them; events are what the hosts recorded meanwhile, with names put in.
After every advance the compiled part of `linux/check.py` runs: a host whose pages do not add up stops the run. It cannot
be switched off.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from fleetsim.errors import BadInput, ToolFailed
from fleetsim.host.alike import Boots
from fleetsim.host.boot import set_sysctl
from fleetsim.host.cgroups import add_cgroup, remove_cgroup, set_limit
from fleetsim.host.fetch import RECORD_BYTES_MAX, fetch_host
from fleetsim.host.impact import IMPACT_KILLED, IMPACT_NAMES
from fleetsim.host.kubelet_types import RELIST_NS
from fleetsim.host.oom_log import oom_report
from fleetsim.host.plugins import take_turn
from fleetsim.host.pods import add_pod, configure, no_room
from fleetsim.host.ports import cut
from fleetsim.host.programs import CHILD, Names, add_task, add_thread
from fleetsim.host.redis_events import REDIS_EVENTS, redis_event
from fleetsim.host.spec import CgroupSpec, Command, Event, HostSpec, KubeletSpec, PodSpec, TaskSpec
from fleetsim.host.state import HOST
from fleetsim.host.step import ASKS, CALL_AGAIN, EVENTS, run_host
from fleetsim.law import mode
from fleetsim.linux import events as ev
from fleetsim.linux import mm_types as mm
from fleetsim.linux.alloc_slowpath import enforce_limit
from fleetsim.linux.check import RULES
from fleetsim.linux.oom_kill import send_sigkill
from fleetsim.linux.oom_report import oom_reaped, stamp
from fleetsim.linux.swap_types import ON_ZRAM
from fleetsim.linux.swapfile import count_slots
from fleetsim.workloads.arrivals import arrive
from fleetsim.workloads.jvm_state import GC_NAMES
from fleetsim.workloads.requests import answer_the_gathered
from fleetsim.workloads.script import begin_program

TICK_NS = 200_000_000
"""A fleet's default tick: the longest at which replaying the recordings keeps its score (docs/benchmarks.md)."""

SETTLE_NS = 10_000_000
HEADER_BYTES_MAX = 1 << 20  # a snapshot says every field of the record in its header; NumPy's own limit is 10,000 bytes


def swap_error_line(row: Any, a: int, direction: int) -> list[str]:
    """mm/page_io.c end_swap_bio_write, end_swap_bio_read; which sector it was is not known, so it is 0."""
    disk = int(row["swap_info"][a]["disk"])
    device = "253:0" if disk == ON_ZRAM else f"254:{16 * disk}"
    return [f"<1>{'Write' if direction else 'Read'}-error on swap-device ({device}:0)"]


def disk_number(row: Any, names: Names, disk: str) -> int:
    """`data`, `swap` (that of the first area), or the path of a swap area; BadInput if it is none of them or has no disk."""
    if disk in ("data", "swap"):
        return 0 if disk == "data" else int(row["swap_disk"])
    number = int(row["swap_info"][names.swaps[disk]]["disk"]) if disk in names.swaps else -1
    if number < 0:
        raise BadInput(f"host {names.host}: no disk {disk!r}; known are data, swap, {', '.join(names.swaps)}")
    return number


class Agent(Protocol):
    """Somebody on a host who looks after it now and then: its kubelet. All that it knows is in the host's record."""

    def look(self, shard: Shard, host_index: int, now_ns: int) -> int:
        """Look at the host, which stands at `now_ns`; the instant of the next look, which the record says too."""
        ...

    def notice(self, shard: Shard, host_index: int) -> None:
        """Something happened on the host just now; a kubelet looks when its time comes, others hear of exits at once."""
        ...


class Shard:
    """Hosts booted from `specs`; `first_index` is the first one's number in the whole fleet and keys its luck with `seed`.

    `agent` looks after the hosts that have pods, at the instants that it notes in the record (`kubelet["next_ns"]`).
    """

    def __init__(
        self, specs: Sequence[HostSpec], seed: int, first_index: int = 0, *, tick_ns: int = TICK_NS, agent: Agent | None = None
    ) -> None:
        self.records: np.ndarray = np.zeros(len(specs), HOST)
        self.lines, self.scanned = self.records.view(np.uint8).reshape(len(specs), HOST.itemsize), np.zeros(len(specs), np.int64)
        self._fetches = mode() != "python" and HOST.itemsize <= RECORD_BYTES_MAX < self.records.nbytes
        self.names: list[str] = [spec.name for spec in specs]
        self.seed = seed
        boots = Boots(self.records, tick_ns)
        self._names: list[Names] = [boots.boot(i, spec, seed * 1_000_003 + first_index + i) for i, spec in enumerate(specs)]
        self._pending: list[list[Command]] = [[] for _ in specs]
        self._events: list[Event] = []
        self._seq = [0] * len(specs)
        self._killed: set[tuple[int, str]] = set()  # (host, task) whose impact "killed" is open
        self.agent = agent
        self._looks = self._next_looks()
        self.dmesg: list[list[str]] = [[] for _ in specs]  # kernel log lines of each host
        for i in range(len(specs)):
            self._emit(i, 0, "boot", self.names[i], {"memory_pages": int(self.records[i]["totalram"])})

    def names_of(self, host_index: int) -> Names:
        return self._names[host_index]

    def command(self, command: Command) -> None:
        """Queue a command; it is carried out when its host reaches `t_ns` (at once if it is already past)."""
        i = self.names.index(command.host)
        self._pending[i].append(command)
        self._pending[i].sort(key=lambda c: c.t_ns)

    def advance(self, host_index: int, until_ns: int) -> None:
        """Run one host to `until_ns`; ToolFailed if its tables stop adding up."""
        at_ns = 0
        if self._fetches:
            fetch_host(self.records, self.lines, self.scanned, host_index)
        while self._looks[host_index] <= until_ns:
            at_ns = self._looks[host_index]
            self._advance(host_index, at_ns)
            if self._looks[host_index] < mm.NEVER:  # the host may have panicked meanwhile
                self._looks[host_index] = self._agent_of(host_index).look(self, host_index, at_ns)
        if at_ns < until_ns or self._pending[host_index]:
            self._advance(host_index, until_ns)

    def _agent_of(self, host_index: int) -> Agent:
        assert self.agent is not None
        return self.agent

    def _advance(self, host_index: int, until_ns: int) -> None:
        pending = self._pending[host_index]
        while pending and pending[0].t_ns <= until_ns:
            command = pending.pop(0)
            self._run(host_index, max(command.t_ns, int(self.records[host_index]["now_ns"])))
            self._carry_out(host_index, command)
        self._run(host_index, until_ns)

    def drain_events(self) -> list[Event]:
        """What happened since the last call, ordered by (t_ns, host, seq)."""
        events, self._events = self._events, []
        return sorted(events, key=lambda e: (e.t_ns, e.host, e.seq))

    def state(self) -> dict[str, Any]:
        """All that the next advance depends on, for a checkpoint. (The agent knows nothing that is not in the records.)"""
        return {
            "hosts": self.names,
            "records": self.records.tobytes(),
            "names": self._names,
            "pending": self._pending,
            "events": self._events,
            "seq": self._seq,
            "killed": self._killed,
            "dmesg": self.dmesg,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, which is this shard's from now on; BadInput if it is that of other hosts."""
        if state["hosts"] != self.names or len(state["records"]) != self.records.nbytes:
            raise BadInput(f"this is the state of the hosts {state['hosts'][0]} …, not that of {self.names[0]} …")
        self.records[:] = np.frombuffer(state["records"], HOST)
        self._names, self._pending, self._events = state["names"], state["pending"], state["events"]
        self._seq, self._killed, self.dmesg = state["seq"], state["killed"], state["dmesg"]
        self._looks = self._next_looks()

    def snapshot(self) -> bytes:
        """The records as bytes, of which a property test takes copies; `state` is all of the shard."""
        buffer = io.BytesIO()
        np.save(buffer, self.records, allow_pickle=False)
        return buffer.getvalue()

    def restore(self, data: bytes) -> None:
        self.records[:] = np.load(io.BytesIO(data), allow_pickle=False, max_header_size=HEADER_BYTES_MAX)
        self._looks = self._next_looks()

    def _next_looks(self) -> list[int]:
        """When the agent looks at each host next, as the records say; NEVER without an agent or without pods."""
        next_ns = self.records["kubelet"]["next_ns"].tolist()
        used = self.records["kubelet"]["used"].tolist()
        return [at if self.agent is not None and has else mm.NEVER for at, has in zip(next_ns, used, strict=True)]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _run(self, i: int, until_ns: int) -> None:
        while (told := run_host(self.records, i, until_ns)) in (CALL_AGAIN, ASKS):
            if told == ASKS:
                take_turn(self.records, i, self._names[i], until_ns)
                self.changed(i)
                continue
            self._collect(i)
            if self._looks[i] < mm.NEVER:
                self._agent_of(i).notice(self, i)
        if told == EVENTS:
            self._collect(i)
        elif told < 0:
            at_s = int(self.records[i]["now_ns"]) / 1e9
            raise ToolFailed(f"host {self.names[i]} at {at_s:.3f} s, seed {self.seed}: {RULES[-told]}")

    def changed(self, i: int) -> None:
        """Somebody outside the laws does something to host `i`: its queue of what is due is made anew before it runs on."""
        self.records[i]["reschedule"] = 1

    def emit(self, i: int, kind: str, subject: str, **data: Any) -> None:
        """Something happened on host `i`, now."""
        self._emit(i, int(self.records[i]["now_ns"]), kind, subject, data)

    def _emit(self, i: int, t_ns: int, kind: str, subject: str, data: dict[str, Any]) -> None:
        self._events.append(Event(t_ns, self.names[i], self._seq[i], kind, subject, data))
        self._seq[i] += 1

    def _collect(self, i: int) -> None:
        """Turn the rows recorded so far into events and log lines."""
        row, names = self.records[i], self._names[i]
        rows = row["events"][: int(row["nr_events"])]
        kills = [e for e in rows if e["kind"] == ev.OOM_KILL]
        for e in rows:
            if e["kind"] == ev.OOM_REAP:
                pid, file, shmem = (int(a) for a in e["arg"][:3])
                self.dmesg[i] += stamp(oom_reaped(pid, names.task_name(int(e["subject"])), (0, file, shmem)), int(e["t_ns"]) // 1000)
            elif e["kind"] == ev.SWAP_ERROR:
                a, direction = (int(x) for x in e["arg"][:2])
                self.dmesg[i] += stamp(swap_error_line(row, a, direction), int(e["t_ns"]) // 1000)
        if kills:
            self.dmesg[i] += stamp(oom_report(row, names, kills), int(row["now_ns"]) // 1000)
        killed: set[tuple[int, int]] = set()
        for e in rows:
            if e["kind"] == ev.TASK_START and e["arg"][3] > 0:
                names.add_child(int(e["subject"]), int(e["arg"][3]) - 1)
            if e["kind"] == ev.OOM_KILL:  # the kernel's log and counters have the victim of a group kill twice; it died once
                if (int(e["t_ns"]), int(e["subject"])) in killed:
                    continue
                killed.add((int(e["t_ns"]), int(e["subject"])))
            self._translate(i, e, names)
        lost = int(row["event_seq"]) - len(rows)
        if lost:
            self._emit(i, int(row["now_ns"]), "table_full", self.names[i], {"table": "events", "lost": lost})
        row["events"][: len(rows)] = 0  # told: the record's bytes must not depend on how often somebody looks
        row["nr_events"] = 0
        row["event_seq"] = 0

    def _translate(self, i: int, e: Any, names: Names) -> None:
        kind, t_ns, arg = int(e["kind"]), int(e["t_ns"]), [int(a) for a in e["arg"]]
        name = names.task_name(int(e["subject"])) if int(e["subject"]) >= 0 else self.names[i]
        data: dict[str, Any] = {}
        if kind == ev.OOM_KILL:
            cg = names.cgroup_name(arg[1])
            data = {"invoker": names.task_name(arg[0]), "cgroup": cg, "constraint": "memcg" if arg[1] else "none"}
            data |= {"anon_rss_bytes": arg[3] * 4096, "total_vm_bytes": arg[2] * 4096, "swap_bytes": arg[7] * 4096}
        elif kind == ev.TASK_EXIT:
            data = {"exit_code": arg[0], "oom_killed": bool(arg[1]), "pid": arg[2]}
        elif kind in (ev.TASK_START, ev.OOM_REAP):
            data = {"pid": arg[0]}
        elif kind in (ev.IMPACT_START, ev.IMPACT_END):
            data = {"impact": IMPACT_NAMES[arg[0]]}
        elif kind == ev.SWAP_ERROR:
            path = next((path for path, a in names.swaps.items() if a == arg[0]), "")
            data = {"area": path, "direction": "write" if arg[1] else "read", "pages": arg[2]}
        elif kind == ev.GC_PAUSE:
            data = {"collection": GC_NAMES[arg[0]], "pause_ms": arg[1], "swap_ms": arg[2]}
        elif kind == ev.OUT_OF_MEMORY_ERROR:
            data = {"live_bytes": arg[0] * 4096, "heap_max_bytes": arg[1] * 4096}
        elif kind in REDIS_EVENTS:
            data = redis_event(kind, arg)
        elif kind == ev.OOM_PANIC:
            self._looks[i] = self.records[i]["kubelet"]["next_ns"] = mm.NEVER  # nobody looks after anything there any more
        elif kind in (ev.REFUSED, ev.TABLE_FULL):
            data = {"pages": arg[0]}
        if pod := names.pod_of.get(name) or names.pod_of.get(name.removesuffix(CHILD)):
            data["pod"] = pod
        again = kind == ev.TASK_START and arg[2] > 0
        self._emit(i, t_ns, "restart" if again else ev.KINDS[kind], name, data)
        killed = {"impact": IMPACT_NAMES[IMPACT_KILLED]}
        if kind == ev.OOM_KILL and (i, name) not in self._killed:
            self._killed.add((i, name))
            self._emit(i, t_ns, "impact_start", name, killed)
        elif kind == ev.TASK_START:  # it, or a child after it, does the work again; or the program that had forked it begins anew
            for back in (name, *([name + CHILD] if again else [])):
                if (i, back) in self._killed:
                    self._killed.remove((i, back))
                    self._emit(i, t_ns, "impact_end", back, killed)

    def _carry_out(self, i: int, command: Command) -> None:
        row, names, args = self.records[i], self._names[i], command.args
        done = getattr(self, f"_do_{command.kind}", None)
        if done is None:
            raise BadInput(f"unknown command {command.kind!r} for host {command.host}")
        if names.gone & {args.get("task"), args.get("cgroup")}:
            refused = {"author": command.author, "refused": "its pod has left this host"}
            self._emit(i, int(row["now_ns"]), "command", command.kind, refused)
            return
        self.changed(i)
        done(row, names, args)
        self._collect(i)  # a kill that a command caused is told at its own instant
        if command.kind in ("settle_limit", "load", "cut", "start_pod"):
            return
        shown = {k: list(v) if isinstance(v, tuple) else v for k, v in args.items() if isinstance(v, (str, int, tuple))}
        self._emit(i, int(row["now_ns"]), "command", command.kind, {"author": command.author, **shown})

    def _do_start_thread(self, row: Any, names: Names, args: Any) -> None:
        t = self._task(names, args)
        key = (str(args["task"]), str(args["thread"]))
        if key not in names.threads:  # the same thread again (its task was restarted) runs its program anew
            names.threads[key] = add_thread(row, names, key[0], args["ops"])
        th = names.threads[key]
        row["programs"][th]["once"] = 1
        begin_program(row, th)
        thread = row["threads"][th]
        alive = int(row["tasks"][t]["state"]) == mm.TASK_RUNNING
        thread["used"], thread["task"], thread["ready_ns"], thread["since_ns"] = int(alive), t, row["now_ns"], row["now_ns"]

    def _do_stop_thread(self, row: Any, names: Names, args: Any) -> None:
        th = names.threads.get((str(args["task"]), str(args["thread"])))
        if th is not None:
            row["threads"][th]["used"] = 0

    def _do_start_task(self, row: Any, names: Names, args: Any) -> None:
        spec = args["spec"]
        assert isinstance(spec, TaskSpec)
        add_task(row, names, spec, started=False)

    def _do_start_pod(self, row: Any, names: Names, args: Any) -> None:
        spec = args["spec"]
        assert isinstance(spec, PodSpec)
        i = self.names.index(names.host)
        if not row["kubelet"]["used"]:
            configure(row, KubeletSpec())
            row["kubelet"]["next_ns"] = int(row["now_ns"]) // RELIST_NS * RELIST_NS + RELIST_NS
        if self.agent is not None:
            self._looks[i] = int(row["kubelet"]["next_ns"])
        short_of = no_room(row, names, spec)
        pressure = spec.qos == "besteffort" and int(row["kubelet"]["low_ns"]) >= 0  # pkg/kubelet/eviction Admit
        if pressure or short_of:
            reason = "Evicted" if pressure else f"this host's record has no room for more {short_of}"
            self._emit(i, int(row["now_ns"]), "pod_rejected", spec.name, {"pod": spec.name, "reason": reason})
            return
        add_pod(row, names, spec, at_boot=False)
        self._emit(i, int(row["now_ns"]), "schedule", spec.name, {"containers": [c.name for c in spec.containers]})

    def _do_delete_pod(self, row: Any, names: Names, args: Any) -> None:
        p = names.pods.get(str(args["pod"]), -1)
        if p >= 0:
            row["pods"][p]["leaving"] = row["kubelet"]["busy"] = 1

    def _do_kill(self, row: Any, names: Names, args: Any) -> None:
        t = self._task(names, args)
        if int(row["tasks"][t]["state"]) == mm.TASK_RUNNING:
            send_sigkill(row, t)

    def _do_sysctl(self, row: Any, names: Names, args: Any) -> None:
        set_sysctl(row, str(args["name"]), int(args["value"]))

    def _do_load(self, row: Any, names: Names, args: Any) -> None:
        t = self._task(names, args)
        for work in row["works"]:
            if work["kind"] > 0 and int(work["task"]) == t:
                arrive(row, work["server"])
                work["server"]["rate"], work["server"]["swing"] = int(args["rate_milli"]), 0

    def _do_cut(self, row: Any, names: Names, args: Any) -> None:
        t = self._task(names, args)
        for work in row["works"]:
            if work["kind"] > 0 and int(work["task"]) == t and work["server"]["ready"]:
                arrive(row, work["server"])
                answer_the_gathered(row, work["server"])
                cut(work["server"])

    def _do_disk(self, row: Any, names: Names, args: Any) -> None:
        number = disk_number(row, names, str(args["disk"]))
        if args.get("failing", 0) and any(a["pages"] > 0 and a["disk"] == number for a in row["swap_info"]):
            count_slots(row)
        disk = row["disk"][number]
        disk["slow_percent"], disk["failing"] = int(args.get("slow_percent", 100)), int(args.get("failing", 0))

    def _do_mkdir(self, row: Any, names: Names, args: Any) -> None:
        spec = args["spec"]
        assert isinstance(spec, CgroupSpec)
        add_cgroup(row, names, spec)

    def _do_rmdir(self, row: Any, names: Names, args: Any) -> None:
        remove_cgroup(row, names, str(args["cgroup"]))

    def _do_limit(self, row: Any, names: Names, args: Any) -> None:
        if not args["cgroup"]:
            raise BadInput(f"host {names.host}: the root cgroup has no limits")
        set_limit(row, names.cgroups[str(args["cgroup"])], str(args["file"]), int(args["bytes"]))
        self._do_settle_limit(row, names, args)

    def _do_settle_limit(self, row: Any, names: Names, args: Any) -> None:
        """Go on reclaiming down to a lowered limit: what was sent to swap is freed once it is written."""
        if enforce_limit(row, names.cgroups[str(args["cgroup"])]):
            self.command(Command(int(row["now_ns"]) + SETTLE_NS, names.host, "settle_limit", args, "kernel"))

    def _task(self, names: Names, args: Any) -> int:
        if args["task"] not in names.tasks:
            raise BadInput(f"host {names.host} has no task {args['task']!r}; it has: {', '.join(sorted(names.tasks))}")
        return names.tasks[args["task"]]
