# SPDX-License-Identifier: Apache-2.0
"""Workloads written in plain Python, by users, in packages of their own. Everything such a package imports is here.

    from fleetsim.containers.plugin import Field, Kernel, Needs, Size, Workload

    class Nap(Workload):
        "A process that takes some memory and sleeps."

        class Arguments(Workload.Arguments):
            memory: Size = Field(1 << 20, description="how much it writes to")

        area = None

        def needs(self) -> Needs:
            return Needs(memory=(self.arguments.memory,))

        def step(self, kernel: Kernel) -> None:
            ...

It is declared as an entry point of the group `fleetsim.workloads` (name = "package.module:Nap") and is then a workload of that name
wherever a scenario may say one. docs/writing-a-workload.md is the guide.
Leaves out: several processes in a container, fork; what a step may ask of the kernel is `fleetsim/host/plugin_kernel.py`'s.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

from pydantic import Field
from pydantic.errors import PydanticUserError

from fleetsim.containers.workload import ANYWHERE, PAGE, WORKLOADS, PodWorkload, Process, Room, ServerWorkload
from fleetsim.errors import BadInput
from fleetsim.host.plugin_kernel import MIB, Area, Kernel, Refused
from fleetsim.host.spec import PlugIn, Work
from fleetsim.units import ByteRate, Duration, PositiveDuration, PositiveSize, Size

__all__ = [
    "MIB",
    "Area",
    "ByteRate",
    "Duration",
    "Field",
    "Kernel",
    "Needs",
    "PositiveDuration",
    "PositiveSize",
    "Refused",
    "Room",
    "Server",
    "Size",
    "Workload",
]

GROUP = "fleetsim.workloads"
SIZE_LIMIT = 1 << 60
OURS = ("needs", "files", "processes", "requests", "workload", "plug_name", "plug_origin")
"""What a model of arguments has already; a field of that name would take its place."""


@dataclass(frozen=True)
class Needs:
    """What a process may have at once: whether a simulated host has room for it is checked before anything runs. Bytes."""

    memory: tuple[int, ...] = ()  # each mapping that is used from its begin to its end …
    memory_at_random: tuple[int, ...] = ()  # … or anywhere
    reads: tuple[str, ...] = ()  # files that must be there
    reads_at_random: tuple[str, ...] = ()
    writes: Mapping[str, int] = field(default_factory=dict)  # file → the most that is ever in it

    def __post_init__(self) -> None:
        """ValueError, in the line that makes it, if it cannot be what is meant."""
        for name in ("memory", "memory_at_random"):
            _check(name, getattr(self, name), (tuple, list), _is_size, "a tuple of whole numbers of bytes, such as (1 << 20,)")
        for name in ("reads", "reads_at_random"):
            _check(name, getattr(self, name), (tuple, list), _is_path, "a tuple of absolute paths, such as ('/data/x',)")
        _check("writes", self.writes, Mapping, _is_path, "the bytes of each absolute path, such as {'/data/x': 1 << 20}")
        _check("writes", list(self.writes.values()), list, _is_size, "the bytes of each absolute path, such as {'/data/x': 1 << 20}")


def _check(name: str, value: Any, kind: Any, fits: Callable[[Any], bool], right: str) -> None:
    if not isinstance(value, kind) or not all(fits(one) for one in value):
        raise ValueError(f"{name} of Needs is {str(value)[:80]!r}; write {right}")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < SIZE_LIMIT


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/") and not value.endswith("/")


class _Arguments:
    """The part of a plug-in's arguments that is not the user's: which processes they make."""

    workload: ClassVar[type[Workload]]
    plug_name: ClassVar[str] = ""
    plug_origin: ClassVar[str] = ""

    def processes(self, pod: str, room: Room = ANYWHERE) -> tuple[Process, ...]:
        cls = type(self).workload
        needs = self.needs(room)
        areas = [(-(-size // PAGE), False) for size in needs.memory] + [(-(-size // PAGE), True) for size in needs.memory_at_random]
        files = [(path, 0, 0) for path in needs.reads] + [(path, 0, 1) for path in needs.reads_at_random]
        files += [(path, -(-size // PAGE), 0) for path, size in needs.writes.items()]
        plug = PlugIn(self.plug_name or cls.__name__, functools.partial(cls, self, room), self.plug_origin)
        work = Work(
            "plugin", {path: path for path, _, _ in files}, getattr(self, "requests", None), tuple(areas), files=tuple(files), plugin=plug
        )
        return (Process(pod, start_ns=getattr(self, "start", 0), work=work, restarts=not cls.ends),)

    def files(self) -> tuple[str, ...]:
        needs = self.needs(ANYWHERE)
        return (*needs.reads, *needs.reads_at_random)

    def needs(self, room: Room) -> Needs:
        """What the user's class says; BadInput if it cannot."""
        try:
            found = type(self).workload(self, room).needs()
            if not isinstance(found, Needs):
                raise TypeError(f"needs() returned {str(found)[:80]!r}, not a Needs")
            return found
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise BadInput(f"the workload {self.plug_name!r} of the package {self.plug_origin} cannot say its needs: {why}") from error


class Workload(ABC):
    """One process of a container. A new object is made whenever the process starts, so what it knows of itself are its attributes,
    which can be pickled (a checkpoint has them). No globals, no clock and no random module: the same run must come out the same."""

    class Arguments(_Arguments, PodWorkload):
        """What a scenario may say of it, as a pydantic model; unknown arguments are refused."""

    ends: ClassVar[bool] = False
    """True: it ends by itself, as a Job's process does, and is not started again when it did."""

    def __init__(self, arguments: Any, room: Room) -> None:
        """`arguments` of the class' own model; `room`: memory, CPUs and limit that it finds, for programs that size themselves."""
        self.arguments, self.room = arguments, room

    def __init_subclass__(cls, **more: Any) -> None:
        """Every workload has arguments of its own, which know it."""
        super().__init_subclass__(**more)
        if "Arguments" not in cls.__dict__:
            names = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.Arguments"}
            cls.Arguments = type("Arguments", (cls.Arguments,), names)  # type: ignore[assignment, misc]
        cls.Arguments.workload = cls
        cls.Arguments.__doc__ = cls.__doc__

    def needs(self) -> Needs:
        """What it may map and which files it uses, as far as the arguments say."""
        return Needs()

    @abstractmethod
    def step(self, kernel: Kernel) -> None:
        """One chunk of its work: some milliseconds of calls, and maybe a sleep. It is called again when that is paid for."""


class Server(Workload):
    """Base of the workloads that answer requests: arguments `load`, `workers`, `queue`, `timeout`, `slo` … as built-in ones have them."""

    class Arguments(_Arguments, ServerWorkload):
        """What a scenario may say of it, and of its users."""


@functools.cache
def load_entry_points() -> None:
    """Register the plug-ins of all installed distributions, in the order of their names; BadInput says which cannot be used and why.

    Once in a process: scenarios are read several times.
    """
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        origin = "?" if point.dist is None else f"{point.dist.name} {point.dist.version}"
        register(point, origin)


def register(point: EntryPoint, origin: str) -> None:
    who = f"the workload {point.name!r} of the installed package {origin} (entry point {point.value!r})"
    if point.name in WORKLOADS:
        known = origin_of(WORKLOADS[point.name])
        raise BadInput(f"{who} has the name of another one, which comes with {known}; rename it, or uninstall it")
    try:
        cls = point.load()
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise BadInput(f"{who} cannot be loaded: {why}; repair or uninstall it") from error
    wrong = unfit(cls)
    if wrong:
        raise BadInput(f"{who} cannot be used: {wrong}")
    cls.Arguments.plug_name, cls.Arguments.plug_origin = point.name, origin
    WORKLOADS.register(point.name)(cls.Arguments)


def origin_of(arguments: type[PodWorkload]) -> str:
    """The distribution that a workload comes with."""
    return getattr(arguments, "plug_origin", "") or "fleetsim"


def unfit(cls: Any) -> str:
    """What is wrong with a class that is to be a workload; empty: nothing."""
    if not (isinstance(cls, type) and issubclass(cls, Workload)):
        return f"it is {cls!r}, not a class derived from fleetsim.containers.plugin.Workload or Server"
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        return f"its class lacks {', '.join(missing)}"
    if inspect.isgeneratorfunction(cls.step) or inspect.iscoroutinefunction(cls.step):
        return "its step is a generator or a coroutine, of which nothing would ever run; return from it, and it is called again"
    if not issubclass(cls.Arguments, (Workload.Arguments, Server.Arguments)):
        return "its Arguments are not derived from Workload.Arguments or Server.Arguments"
    if taken := [name for name in OURS if name in cls.Arguments.model_fields]:
        return f"its Arguments have the field {taken[0]!r}, a name that all workloads' arguments use themselves; choose another"
    if not (cls.__doc__ or "").strip():
        return "its class has no docstring, which `fleetsim list workloads` would show"
    try:
        cls.Arguments.model_json_schema()
    except PydanticUserError as error:
        return f"its Arguments cannot be described: {' '.join(str(error).split())[:200]}"
    return ""
