# SPDX-License-Identifier: Apache-2.0
"""Does a host fit into its record? The kernel's tables have fixed sizes; what is known to be too much is refused before the run.

And what does nothing: a setting that exists in Linux but that no simulated law reads yet is told to the user, never passed over.

Leaves out: what only the run can show (a fork bomb fills the task table: the kernel then answers EAGAIN, and the history says so).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleetsim.allocators.glibc_laws import chunk_size, mapped_pages, mean_chunk_q
from fleetsim.allocators.tables import NR_HEAPS
from fleetsim.containers.ops import areas_mapped
from fleetsim.host.spec import Command, HostSpec, TaskSpec
from fleetsim.linux.fs_types import NR_FILES
from fleetsim.linux.mm_types import NR_AREAS, NR_CGROUPS, NR_COHORTS, NR_GROUPS, NR_TASKS, NR_THREADS, ORDERED, UNIFORM
from fleetsim.linux.sysctl import SYSCTL_NAMES
from fleetsim.linux.vma import cohorts_for
from fleetsim.workloads.script_malloc import POINTER_BYTES
from fleetsim.workloads.script_ops import ParsedOp, parse_script
from fleetsim.workloads.script_types import NR_OPS, OP_MALLOC, OP_MMAP_ANON, OP_MMAP_FILE, OP_READ_FILE, OP_SHM, OP_WRITE_FILE
from fleetsim.workloads.works import NR_WORKS

PAGE = 4096


def too_much(spec: HostSpec, commands: Iterable[Command]) -> str | None:
    """What does not fit, as the end of a sentence; None: all fits. `commands`: those that faults will give this host."""
    started: list[TaskSpec] = []
    threads: list[tuple[str, ...]] = []
    for command in commands:
        if command.kind == "start_task" and isinstance(task := command.args["spec"], TaskSpec):
            started.append(task)
        elif command.kind == "start_thread":
            ops = command.args["ops"]
            threads.append(tuple(str(op) for op in ops) if isinstance(ops, tuple) else ())
    tasks = [*spec.tasks, *started]
    scripts = [*(task.ops for task in tasks), *threads]
    groups, cohorts = page_groups(spec, scripts)
    total = spec.memory_bytes // PAGE
    works = [task.work for task in tasks if task.work is not None]
    mapped = [area for work in works for area in work.areas]
    used = {path: (pages or spec.files.get(path, 0) // PAGE, at_random) for work in works for path, pages, at_random in work.files}
    children = sum(work.children for work in works)
    groups += len(mapped)
    cohorts += sum(cohorts_for(total, min(pages, 2 * total), UNIFORM if at_random else ORDERED) for pages, at_random in mapped)
    groups += sum(2 if at_random else 1 for _, at_random in used.values())
    cohorts += sum(
        2 * cohorts_for(total, pages, UNIFORM) if at_random else cohorts_for(total, pages, ORDERED) for pages, at_random in used.values()
    )
    wanted = (
        ("page groups", groups, NR_GROUPS),
        ("cohorts of pages (memory areas and files, large ones count more)", cohorts, NR_COHORTS),
        ("cgroups", len(spec.cgroups) + 1, NR_CGROUPS),  # and the root
        ("processes", len(tasks) + children, NR_TASKS),
        ("threads", len(scripts) + children, NR_THREADS),
        ("files", len(spec.files.keys() | used.keys()), NR_FILES),
        ("memory areas", sum(areas_mapped(ops) for ops in scripts) + len(mapped), NR_AREAS),
        ("processes that are not scripts", len(works), NR_WORKS),
        ("heaps (processes and threads with malloc)", sum(any(op.split()[0] == "malloc" for op in ops) for ops in scripts), NR_HEAPS),
        ("ops", sum(len(ops) for ops in scripts), NR_OPS),
    )
    for what, count, capacity in wanted:
        if count > capacity:
            return f"a host of this group needs {count} {what}, faults included; a simulated host holds {capacity}, write fewer"
    return None


def page_groups(spec: HostSpec, scripts: Iterable[Sequence[str]]) -> tuple[int, int]:
    """Groups and cohorts that all areas and files of a host take together, were they all there at once."""
    total = spec.memory_bytes // PAGE
    wanted: dict[object, tuple[int, int, float]] = {}  # area or file → pages, kind, hot share
    for number, ops in enumerate(scripts):
        for place, op in enumerate(parse_script(ops).ops):
            if op.code in (OP_MMAP_ANON, OP_SHM):
                wanted[number, place] = (op.pages, op.pattern, op.hot_share)
            elif op.code == OP_WRITE_FILE:
                wanted[op.path] = (op.wrap_pages or op.pages, op.pattern, 0.0)
            elif op.code == OP_MALLOC:
                for part, pages in enumerate(heap_pages(op)):
                    before = wanted.get((number, "heap", part), (0, ORDERED, 0.0))[0]
                    wanted[number, "heap", part] = (min(total, before + pages), ORDERED, 0.0)
            elif op.code in (OP_READ_FILE, OP_MMAP_FILE) and op.path in spec.files:
                wanted[op.path] = (max(1, spec.files[op.path] // PAGE), op.pattern, op.hot_share)
    groups = cohorts = 0
    for pages, kind, hot_share in wanted.values():
        parts = 2 if kind == UNIFORM and 0 < int(pages * hot_share) < pages else 1
        groups += parts
        cohorts += parts * cohorts_for(total, pages, kind)
    return groups, cohorts


def heap_pages(op: ParsedOp) -> tuple[int, int, int]:
    """Pages of heap, of mapped chunks and of the table of pointers that a malloc op may take."""
    least, most = op.sizes
    heap = op.time_ns * int(mean_chunk_q(least, most)) // (1024 * PAGE) + 64
    return heap, op.time_ns * int(mapped_pages(chunk_size(most))) + 1, op.time_ns * POINTER_BYTES // PAGE + 1


def without_effect(hosts: Iterable[HostSpec], commands: Iterable[Command]) -> list[str]:
    """One sentence for every kernel setting that is written but that nothing simulated reads."""
    written = {name for host in hosts for name in host.sysctl}
    written |= {str(command.args["name"]) for command in commands if command.kind == "sysctl"}
    read = {*SYSCTL_NAMES, "kernel.randomize_va_space"}
    unread = sorted(name for name in written if name.removeprefix("vm.").replace("-", "_") not in read)
    return [f"{name} is set, but nothing simulated reads it yet: it changes nothing here" for name in unread]
