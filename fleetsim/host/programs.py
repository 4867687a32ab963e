# SPDX-License-Identifier: Apache-2.0
"""Names beside a record, and putting tasks, threads and their ops into its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from fleetsim.allocators.tables import GLIBC
from fleetsim.errors import BadInput
from fleetsim.host.plugin_kernel import Process
from fleetsim.host.spec import TaskSpec, Work
from fleetsim.linux import mm_types as mm
from fleetsim.linux.dcache import NEGATIVE, OPENED, PLAIN
from fleetsim.linux.fs_types import NR_FILES
from fleetsim.linux.namei import FILES_PER_DIR, TREE_BLOCKS, blocks_of_files
from fleetsim.linux.slab_types import NR_NAME_TREES
from fleetsim.workloads.script_malloc import SIZE_MAX
from fleetsim.workloads.script_ops import ParsedOp, Script, hot_q, parse_script, quantum_ns, wants_heap
from fleetsim.workloads.script_types import (
    NR_HANDLES,
    NR_OPS,
    OP_MKFILES,
    OP_MMAP_FILE,
    OP_STAT_FILES,
    OP_STAT_MISSING,
    OP_UNLINK,
    OP_WRITE_FILE,
)
from fleetsim.workloads.works import ARGUMENTS, KINDS, NR_WORKS

CHILD = "-child"  # how the process that a process has forked is called
DAY_NS = 86_400 * mm.NS_PER_S


@dataclass
class Names:
    """Text of one host, keyed the other way round: name → row."""

    host: str
    cgroups: dict[str, int] = field(default_factory=lambda: {"": 0})
    tasks: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    swaps: dict[str, int] = field(default_factory=dict)  # path → row of swap_info
    mounts: dict[str, int] = field(default_factory=dict)  # tmpfs mount points, without a slash at the end
    trees: dict[tuple[int, str], int] = field(default_factory=dict)  # (kind of names, directory)
    directories: dict[str, int] = field(default_factory=dict)  # files below each known directory; none known: as many as asked for
    handles: dict[tuple[str, str], int] = field(default_factory=dict)  # (task, area id)
    threads: dict[tuple[str, str], int] = field(default_factory=dict)  # (task, thread id) of threads added later
    unsupported: dict[str, list[str]] = field(default_factory=dict)  # task → ops this kernel skips
    pods: dict[str, int] = field(default_factory=dict)
    containers: dict[tuple[str, str], int] = field(default_factory=dict)  # (pod, container)
    pod_of: dict[str, str] = field(default_factory=dict)  # task → pod
    gone: set[str] = field(default_factory=set)  # tasks and cgroups of pods that have left
    ended: dict[str, dict[str, int]] = field(default_factory=dict)  # servers among them → what they had counted until then
    plugins: dict[int, Process] = field(default_factory=dict)  # row of a work → the Python side of its process

    def of_equal_host(self, host: str, called: Mapping[str, str]) -> Names:
        """The same beside the record of a host that is equal, but for its name and those of its cgroups (`called`: this one's → its)."""
        own = {field.name: copy(getattr(self, field.name)) for field in fields(self)}
        own["cgroups"] = {called.get(name, name): i for name, i in self.cgroups.items()}
        own["unsupported"] = {task: list(ops) for task, ops in self.unsupported.items()}
        return Names(**{**own, "host": host})

    def task_name(self, row: int) -> str:
        return next((name for name, t in self.tasks.items() if t == row), "")

    def add_child(self, row: int, parent: int) -> None:
        """Row `row` is a process that `parent` forked: it is called NAME-child, the latest of several by that name."""
        name = self.task_name(parent) + CHILD
        self.tasks = {other: t for other, t in self.tasks.items() if t != row or other == name}
        self.tasks[name] = row

    def pod_name(self, row: int) -> str:
        return next((name for name, p in self.pods.items() if p == row), "")

    def container_name(self, row: int) -> tuple[str, str]:
        """(pod, container)"""
        return next((name for name, c in self.containers.items() if c == row), ("", ""))

    def cgroup_name(self, row: int) -> str:
        return next((name for name, cg in self.cgroups.items() if cg == row), "")


def find_rows(used: Any, wanted: int) -> int:
    """First of `wanted` (1 or more) consecutive rows that are not used, or −1."""
    free = np.flatnonzero(np.asarray(used) == 0)
    if len(free) < wanted:
        return -1
    first = np.flatnonzero(free[wanted - 1 :] - free[: len(free) - wanted + 1] == wanted - 1)[:1]
    return int(free[first[0]]) if len(first) else -1


def task_rows(row: Any, wanted: int) -> int:
    """First of `wanted` consecutive rows for new tasks; behind the table if there are none."""
    first = find_rows(row["tasks"]["state"] != mm.TASK_FREE, wanted)
    return mm.NR_TASKS if first < 0 else first


def add_task(row: Any, names: Names, spec: TaskSpec, *, started: bool, at: int = -1) -> int:
    """Enter a task and its first thread, in row `at` or the first free one; it starts at `start_s`, unless somebody else starts it.

    BadInput if the host is full or the cgroup is unknown.
    """
    if spec.cgroup not in names.cgroups:
        raise BadInput(f"host {names.host}: task {spec.name!r} wants the unknown cgroup {spec.cgroup!r}")
    t = task_rows(row, 1) if at < 0 else at
    if t >= mm.NR_TASKS:
        raise BadInput(f"host {names.host}: more than {mm.NR_TASKS} tasks")
    row["nr_tasks"] = max(int(row["nr_tasks"]), t + 1)
    names.tasks[spec.name] = t
    names.gone.discard(spec.name)
    names.ended.pop(spec.name, None)
    task = row["tasks"][t]
    task["state"] = mm.TASK_WAITING
    task["cg"] = names.cgroups[spec.cgroup]
    task["oom_score_adj"] = spec.oom_score_adj
    task["nice"], task["superuser"] = spec.nice, spec.superuser
    task["started_ns"] = max(int(row["now_ns"]), int(spec.start_s * mm.NS_PER_S)) if started else int(row["now_ns"])
    if spec.held:
        task["started_ns"] = mm.NEVER
    task["restart_ns"] = -1 if spec.restart_s is None else int(spec.restart_s * mm.NS_PER_S)
    task["main_thread"] = add_thread(row, names, spec.name, spec.ops) if spec.work is None else add_work(row, names, t, spec.work)
    return t


def add_work(row: Any, names: Names, t: int, work: Work) -> int:
    """Enter a task's workload, its users, and the thread that does it; BadInput if the host's table is full."""
    w = find_rows(row["works"]["kind"], 1)
    if w < 0:
        raise BadInput(f"host {names.host}: more than {NR_WORKS} processes that are not scripts")
    th = free_program(row, names)
    entry = row["works"][w]
    entry["kind"], entry["task"] = KINDS[work.kind], t
    entry["arguments"] = len(ARGUMENTS[work.kind])
    for slot, name in enumerate(ARGUMENTS[work.kind]):
        value = work.values[name]
        entry["slots"][slot] = file_row(row, names, value) if isinstance(value, str) else value
        if name == "at_ns":  # a time of the day
            entry["slots"][slot] = (int(value) - int(row["boot_unix_s"]) * mm.NS_PER_S) % DAY_NS
    for path, pages, _ in work.files:
        file = row["files"][file_row(row, names, path)]
        if file["group"] < 0:  # cut for the largest that anybody makes of it
            file["pages"] = max(int(file["pages"]), pages)
    if work.requests is not None:
        server, users = entry["server"], work.requests
        server["used"], server["workers"], server["queue_max"] = 1, users.workers, users.queue_max
        server["rate"], server["swing"], server["timeout_ns"] = users.rate_milli, users.swing_milli, users.timeout_ns
        since_midnight = int(row["boot_unix_s"]) * mm.NS_PER_S % DAY_NS  # whatever the period: a day is one, by default
        server["period_ns"], server["peak_ns"] = users.period_ns, users.peak_ns - since_midnight
        server["cancels"], server["finish_ms"] = users.cancels, -(-users.finish_ns // mm.NS_PER_MS)
        server["slo_ns"], server["late_permille"] = users.slo_ns, users.late_permille
    if work.plugin is not None:
        files = {path: file_row(row, names, str(on_host)) for path, on_host in work.values.items()}
        names.plugins[w] = Process(work.plugin, names.task_name(t), w, files)
    row["programs"][th]["work"] = w + 1
    row["nr_threads"] = max(int(row["nr_threads"]), th + 1)
    return th


def file_row(row: Any, names: Names, path: str) -> int:
    """Row of a file that a workload reads or writes; one that is not there is created when it is written."""
    return names.files[path] if path in names.files else add_file(row, names, path, 0, mount_of(names, path))


def free_program(row: Any, names: Names) -> int:
    programs = row["programs"]
    th = find_rows((programs["ops"] > 0) | (programs["first"] < 0) | (programs["work"] > 0), 1)
    if th < 0:
        raise BadInput(f"host {names.host}: more than {mm.NR_THREADS} threads")
    return th


def add_thread(row: Any, names: Names, task: str, lines: Sequence[str]) -> int:
    """Enter one more thread with its program (not running yet); BadInput if a table is full."""
    th = free_program(row, names)
    script = parse_script(lines or ("sleep 0",))  # a program without ops still is one
    if script.unsupported:
        names.unsupported.setdefault(task, []).extend(script.unsupported)
    first = find_rows(row["ops"]["used"], max(1, len(script.ops)))
    if first < 0:
        raise BadInput(f"host {names.host}: more than {NR_OPS} ops in all scripts")
    write_ops(row, names, task, script, first)
    row["heaps_due"] += wants_heap(script) == GLIBC
    program = row["programs"][th]
    program["first"], program["ops"] = first, len(script.ops)
    program["op"], program["fresh_op"] = 0, 1
    row["nr_threads"] = max(int(row["nr_threads"]), th + 1)
    return th


def write_ops(row: Any, names: Names, task: str, script: Script, first: int) -> None:
    for i, parsed in enumerate(script.ops):
        op = row["ops"][first + i]
        op["used"], op["code"], op["pattern"] = 1, parsed.code, parsed.pattern
        op["accounted"], op["write"], op["thp"] = parsed.accounted, parsed.write, parsed.thp
        op["pages"], op["time_ns"] = parsed.pages, parsed.time_ns
        op["ns_per_quantum"] = quantum_ns(parsed.rate)
        op["hot_pages"], op["hot_q"] = parsed.chunk or int(parsed.pages * parsed.hot_share), hot_q(parsed)
        if parsed.sizes[1] > 0:
            op["hot_q"] = parsed.sizes[1] * SIZE_MAX + parsed.sizes[0]
        if parsed.fraction > 0:
            op["hot_q"] = round(parsed.fraction * 1_000_000_000)
        op["handle"] = handle_of(row, names, task, parsed.area) if parsed.area else -1
        op["file"] = file_of(row, names, parsed) if parsed.path else -1
        op["fsync"] = parsed.fsync
        if parsed.wrap_pages:
            op["hot_pages"] = parsed.wrap_pages
        if parsed.directory:
            op["handle"] = tree_of(row, names, parsed)
        if parsed.sysw is not None:
            op["handle"], op["time_ns"], op["file"] = parsed.sysw.knob, parsed.sysw.value, parsed.sysw.which
            if parsed.sysw.cgroup:
                op["file"] = cgroup_of(names, parsed)
        if parsed.allocator is not None:
            op["pattern"] = parsed.allocator.kind
            op["time_ns"], op["hot_q"], op["accounted"] = parsed.allocator.as_numbers()
        if parsed.swap_area:
            op["handle"] = swap_area_of(names, parsed)
        if parsed.noise >= 0:
            op["file"] = parsed.noise
        if parsed.path and parsed.code == OP_MMAP_FILE:
            op["hot_pages"] = int(int(row["files"][int(op["file"])]["pages"]) * parsed.hot_share)


def handle_of(row: Any, names: Names, task: str, area: str) -> int:
    key = (task, area)
    if key not in names.handles:
        if len(names.handles) == NR_HANDLES:
            raise BadInput(f"host {names.host}: more than {NR_HANDLES} areas in all scripts")
        taken = set(names.handles.values())
        names.handles[key] = next(number for number in range(NR_HANDLES) if number not in taken)
    return names.handles[key]


def file_of(row: Any, names: Names, op: ParsedOp) -> int:
    """Row of the file an op names. What is on tmpfs, or is written or unlinked, need not be there before."""
    path = op.path
    mount = mount_of(names, path)
    if path not in names.files and (mount >= 0 or op.code in (OP_WRITE_FILE, OP_UNLINK)):
        add_file(row, names, path, 0, mount)
    if path not in names.files:
        known = ", ".join(sorted(names.files)) or "none"
        raise BadInput(f"host {names.host}: op {op.text!r} names the unknown file {path!r}; the host's files are: {known}")
    f = names.files[path]
    file = row["files"][f]
    if op.code == OP_WRITE_FILE and (mount < 0 or file["group"] < 0):  # cut for the largest that any script makes of it
        file["pages"] = max(int(file["pages"]), op.wrap_pages or op.pages)
    return f


def expect_files(row: Any, names: Names, lines: Sequence[str]) -> None:
    """Enter the files that a script writes, so that other scripts may read them."""
    for parsed in parse_script(lines).ops:
        if parsed.code == OP_WRITE_FILE:
            file_of(row, names, parsed)


def mount_of(names: Names, path: str) -> int:
    """Row of the tmpfs mount that a path is on, the longest that fits; −1: it is on a disk."""
    fitting = [point for point in names.mounts if path.startswith(point + "/")]
    return names.mounts[max(fitting, key=len)] if fitting else -1


def add_file(row: Any, names: Names, path: str, pages: int, mount: int = -1) -> int:
    """Enter a file: one of `pages` pages, all on disk and none of them cached; or, with none, one that is to be created."""
    f = find_rows(row["files"]["used"], 1)
    if f < 0:
        raise BadInput(f"host {names.host}: more than {NR_FILES} files")
    names.files[path] = f
    file = row["files"][f]
    file["used"], file["pages"], file["size"], file["group"], file["mount"] = 1, pages, pages, -1, mount
    file["linked"], file["blocks"], file["tid"] = int(pages > 0), pages, -1
    return f


def cgroup_of(names: Names, op: ParsedOp) -> int:
    assert op.sysw is not None
    if op.sysw.cgroup not in names.cgroups:
        known = ", ".join(sorted(n for n in names.cgroups if n)) or "none"
        raise BadInput(f"host {names.host}: op {op.text!r} names an unknown cgroup; the host's cgroups are: {known}")
    return names.cgroups[op.sysw.cgroup]


def swap_area_of(names: Names, op: ParsedOp) -> int:
    if op.swap_area not in names.swaps:
        known = ", ".join(names.swaps) or "none"
        raise BadInput(f"host {names.host}: op {op.text!r} names an unknown swap area; the host's areas are: {known}")
    return names.swaps[op.swap_area]


def tree_of(row: Any, names: Names, op: ParsedOp) -> int:
    """The row that knows which names of a directory are cached, made on first use, with room for the blocks of its files."""
    kind = {OP_STAT_MISSING: NEGATIVE, OP_STAT_FILES: PLAIN, OP_MKFILES: OPENED}[op.code]
    key = (kind, op.directory)
    if key not in names.trees:
        t = len(names.trees)
        if t == NR_NAME_TREES:
            raise BadInput(f"host {names.host}: more than {NR_NAME_TREES} directories in all scripts")
        names.trees[key] = t
        on_disk = mount_of(names, op.directory + "/") < 0
        row["name_trees"][t] = (kind, on_disk, -1, 0, 0, 0, 0, 0)
        if kind != NEGATIVE and on_disk:
            row["name_trees"][t]["file"] = add_file(row, names, f"blocks of {op.directory}", 0)
    tree = row["name_trees"][names.trees[key]]
    if kind == PLAIN:
        there = names.directories.get(op.directory, 0) if names.directories else op.pages
        tree["exist"] = max(int(tree["exist"]), there)
        blocks = (int(tree["exist"]) + FILES_PER_DIR - 1) // FILES_PER_DIR * TREE_BLOCKS
    else:
        tree["wanted"] += op.pages
        blocks = int(blocks_of_files(int(tree["wanted"])))
    if tree["file"] >= 0:
        file = row["files"][int(tree["file"])]
        file["pages"] = file["size"] = file["blocks"] = max(int(file["pages"]), blocks + 1)
        file["linked"] = 1
    return names.trees[key]
