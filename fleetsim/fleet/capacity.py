# SPDX-License-Identifier: Apache-2.0
"""Does a host fit into its record, and into which size class? The kernel's tables have fixed sizes; what is known to be too much
is refused before the run.

Nothing here compiles a law or depends on the class that is in use: whoever asks may yet start again with another one.

And what does nothing: a setting that exists in Linux but that no simulated law reads yet is told to the user, never passed over.

Leaves out: what only the run can show (a fork bomb fills the task table: the kernel then answers EAGAIN, and the history says so).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fleetsim.allocators.glibc_laws import chunk_size, mapped_pages, mean_chunk_q
from fleetsim.allocators.slab_table import JEMALLOC_CLASSES, TCMALLOC_CLASSES
from fleetsim.allocators.tables import GLIBC, JEMALLOC
from fleetsim.containers.ops import areas_mapped
from fleetsim.host.spec import Command, HostSpec, TaskSpec
from fleetsim.law import SIZE_CLASS_VARIABLE, SIZE_CLASSES, plain, size_class
from fleetsim.linux.capacity_classes import CLASSES, Capacities
from fleetsim.linux.mm_types import ORDERED, UNIFORM
from fleetsim.linux.sysctl import SYSCTL_NAMES
from fleetsim.linux.vma import cohorts_for
from fleetsim.workloads.script_malloc import POINTER_BYTES
from fleetsim.workloads.script_ops import ParsedOp, Script, parse_script, wants_heap
from fleetsim.workloads.script_types import OP_FORK_HOLD, OP_MALLOC, OP_MMAP_ANON, OP_MMAP_FILE, OP_READ_FILE, OP_SHM, OP_WRITE_FILE

PAGE = 4096


class Need(NamedTuple):
    """Rows that a host will want of one table."""

    what: str
    rows: int
    field: str  # of `Capacities`


def needs(spec: HostSpec, commands: Iterable[Command]) -> tuple[Need, ...]:
    """What a host will want of every table. `commands`: those that faults will give it."""
    started: list[TaskSpec] = []
    threads: list[tuple[str, ...]] = []
    for command in commands:
        if command.kind == "start_task" and isinstance(task := command.args["spec"], TaskSpec):
            started.append(task)
        elif command.kind == "start_thread":
            ops = command.args["ops"]
            threads.append(tuple(str(op) for op in ops) if isinstance(ops, tuple) else ())
    containers = [container for pod in spec.pods for container in pod.containers]
    tasks = [*spec.tasks, *(task for container in containers for task in container.tasks), *started]
    cgroups = {cgroup.name for cgroup in spec.cgroups} | {cgroup.name for pod in spec.pods for cgroup in pod.cgroups}
    scripts = [*(task.ops for task in tasks), *threads]
    groups, cohorts = page_groups(spec, scripts)
    total = spec.memory_bytes // PAGE
    works = [task.work for task in tasks if task.work is not None]
    used = {path: (pages or spec.files.get(path, 0) // PAGE, parts) for work in works for path, pages, parts in work.files}
    children = sum(work.children for work in works)
    inherited = sum(work.children * work.inherits for work in works)
    of_works = [(pages, UNIFORM if at_random else ORDERED, False) for work in works for pages, at_random in (*work.areas, *work.on_top)]
    of_works += [(pages, UNIFORM, True) for work in works for pages in work.shared]
    of_works += [(pages, UNIFORM if parts else ORDERED, True) for pages, parts in used.values() for _ in range(max(1, parts))]
    groups += len(of_works)
    cohorts += sum(plain(cohorts_for)(total, min(pages, 2 * total), kind, shared) for pages, kind, shared in of_works)
    forks = [ops[:at] for ops in scripts for at, op in enumerate(ops) if op.split()[0] == "fork_hold"]  # what each child has before it
    children += len(forks)
    copied = sum(areas_mapped(before) for before in forks)
    more = [layers(spec, ops) for ops in scripts]
    groups, cohorts = groups + sum(g for g, _ in more), cohorts + sum(c for _, c in more)
    areas = sum(areas_mapped(ops) for ops in scripts) + sum(len(work.areas) + len(work.shared) for work in works) + inherited + copied
    mappings = inherited + sum(work.inherits for work in works if work.children) + 2 * copied
    objects = sum(len(work.shared) for work in works)
    programs = [parse_script(ops) for ops in scripts]
    heaps = [kind for script in programs if (kind := wants_heap(script)) is not None]
    return (
        Need("page groups", groups, "groups"),
        Need("cohorts of pages (memory areas and files, large ones count more)", cohorts, "cohorts"),
        Need("cgroups", len(cgroups) + 1, "cgroups"),  # and the root
        Need("pods", len(spec.pods), "pods"),
        Need("containers", len(containers), "containers"),
        Need("probes", sum(len(container.probes) for container in containers), "probes"),
        Need("tmpfs mounts", 1 + len(spec.tmpfs) + sum(len(pod.tmpfs) for pod in spec.pods), "mounts"),
        Need("processes", len(tasks) + children, "tasks"),
        Need("threads", len(scripts) + children, "threads"),
        Need("files", len(spec.files.keys() | used.keys()) + objects, "files"),
        Need("memory areas", areas, "areas"),
        Need("mappings of shared memory and of what forks share", mappings, "mappings"),
        Need("heaps (processes and threads with malloc)", len(heaps), "heaps"),
        Need("heaps of jemalloc or tcmalloc", len(heaps) - heaps.count(GLIBC), "slab_heaps"),
        Need("size classes in use by jemalloc and tcmalloc", sum(size_classes(script) for script in programs), "slab_classes"),
        Need("processes that are not scripts", len(works), "works"),
        Need("ops", sum(max(1, len(ops)) for ops in scripts if ops), "ops"),
    )


def missing(wanted: Iterable[Need], capacities: Capacities) -> Need | None:
    """The first table that is too small; None: all fits."""
    return next((need for need in wanted if need.rows > getattr(capacities, need.field)), None)


def size_class_for(spec: HostSpec, commands: Iterable[Command], chosen: str | None = None) -> str | TooMuch:
    """The smallest size class from standard on that a host fits into, or `chosen`, which somebody has said; or why there is none."""
    wanted = needs(spec, commands)
    allowed = SIZE_CLASSES[SIZE_CLASSES.index("standard") :] if chosen is None else (chosen,)
    for name in allowed:
        if missing(wanted, CLASSES[name]) is None:
            return name
    need = missing(wanted, CLASSES[allowed[-1]])
    assert need is not None
    holds = f"a simulated host holds {getattr(CLASSES[allowed[-1]], need.field)}"
    if chosen is not None and (larger := size_class_for(spec, commands)) in SIZE_CLASSES and larger != chosen:
        holds += f" in size class {chosen}, which {SIZE_CLASS_VARIABLE} asks for; without it {larger} is taken"
        return TooMuch(f"a host of this group needs {need.rows} {need.what}, faults included; {holds}")
    return TooMuch(f"a host of this group needs {need.rows} {need.what}, faults included; {holds}, write fewer")


class TooMuch(NamedTuple):
    """Why a host fits into no size class, as the end of a sentence."""

    sentence: str


def too_much(spec: HostSpec, commands: Iterable[Command]) -> str | None:
    """What does not fit into the class in use, as the end of a sentence; None: all fits."""
    found = size_class_for(spec, list(commands), size_class())
    return found.sentence if isinstance(found, TooMuch) else None


def page_groups(spec: HostSpec, scripts: Iterable[Sequence[str]]) -> tuple[int, int]:
    """Groups and cohorts that all areas and files of a host take together, were they all there at once."""
    total = spec.memory_bytes // PAGE
    wanted: dict[object, tuple[int, int, float, bool]] = {}  # area or file → pages, kind, hot share, shared
    for number, ops in enumerate(scripts):
        script = parse_script(ops)
        for place, op in enumerate(script.ops):
            if op.code in (OP_MMAP_ANON, OP_SHM):
                wanted[number, place] = (op.pages, op.pattern, op.hot_share, op.code == OP_SHM)
            elif op.code == OP_WRITE_FILE:
                wanted[op.path] = (op.wrap_pages or op.pages, op.pattern, 0.0, True)
            elif op.code == OP_MALLOC:
                for part, pages in enumerate(heap_pages(op, wants_heap(script) == GLIBC)):
                    before = wanted.get((number, "heap", part), (0, ORDERED, 0.0, False))[0]
                    wanted[number, "heap", part] = (min(total, before + pages), ORDERED, 0.0, False)
            elif op.code in (OP_READ_FILE, OP_MMAP_FILE) and op.path in spec.files:
                wanted[op.path] = (max(1, spec.files[op.path] // PAGE), op.pattern, op.hot_share, True)
    groups = cohorts = 0
    for pages, kind, hot_share, shared in wanted.values():
        parts = hot_and_cold(pages, kind, hot_share)
        groups += len(parts)
        cohorts += sum(plain(cohorts_for)(total, part, kind, shared) for part in parts)
    return groups, cohorts


def layers(spec: HostSpec, ops: Sequence[str]) -> tuple[int, int]:
    """Groups and cohorts of what a script's forks share: whoever writes to it has a group of its own on top of the common one."""
    if not any(op.split()[0] == "fork_hold" for op in ops):
        return 0, 0
    total = spec.memory_bytes // PAGE
    groups = cohorts = 0
    areas: list[ParsedOp] = []
    for op in parse_script(ops).ops:
        if op.code == OP_MMAP_ANON:
            areas.append(op)
        elif op.code == OP_FORK_HOLD:
            parts = [(part, area.pattern) for area in areas for part in hot_and_cold(area.pages, area.pattern, area.hot_share)]
            groups += len(parts)
            cohorts += sum(plain(cohorts_for)(total, part, kind, False) for part, kind in parts)
    return groups, cohorts


def hot_and_cold(pages: int, kind: int, hot_share: float) -> tuple[int, ...]:
    """Pages of the groups that an area is made of."""
    hot = int(pages * hot_share) if kind == UNIFORM else 0
    return (hot, pages - hot) if 0 < hot < pages else (pages,)


def size_classes(script: Script) -> int:
    """Size classes that the malloc ops of a program may have in use at once: rows of a table, if its allocator keeps such."""
    kind = wants_heap(script)
    if kind is None or kind == GLIBC:
        return 0
    sizes = (JEMALLOC_CLASSES if kind == JEMALLOC else TCMALLOC_CLASSES)[:, 0]
    asked = [op.sizes for op in script.ops if op.code == OP_MALLOC]
    return sum(any(low < most and size >= least for least, most in asked) for low, size in zip([0, *sizes[:-1]], sizes, strict=True))


def heap_pages(op: ParsedOp, glibc: bool) -> tuple[int, ...]:
    """Pages of heap, of mapped chunks (glibc's; others have one area for both) and of the table of pointers that a malloc op may take."""
    least, most = op.sizes
    heap = op.time_ns * int(plain(mean_chunk_q)(least, most)) // (1024 * PAGE) + 64
    mapped = op.time_ns * int(plain(mapped_pages)(plain(chunk_size)(most))) + 1
    table = op.time_ns * POINTER_BYTES // PAGE + 1
    return (heap, mapped, table) if glibc else (heap + mapped, table)


def without_effect(hosts: Iterable[HostSpec], commands: Iterable[Command]) -> list[str]:
    """One sentence for every kernel setting that is written but that nothing simulated reads."""
    written = {name for host in hosts for name in host.sysctl}
    written |= {str(command.args["name"]) for command in commands if command.kind == "sysctl"}
    read = {*SYSCTL_NAMES, "kernel.randomize_va_space"}
    unread = sorted(name for name in written if name.removeprefix("vm.").replace("-", "_") not in read)
    return [f"{name} is set, but nothing simulated reads it yet: it changes nothing here" for name in unread]
