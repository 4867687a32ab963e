# SPDX-License-Identifier: Apache-2.0
"""Faults that change what somebody asks the kernel for: more memory, or more of a file.

In a container they are one more thread of its first process; on a host, a process of their own outside all containers
(a system daemon, a backup job) named like the fault. Rates are MiB/s in the op language: converted by `_mib`.
Leaves out: a leak of anything but anonymous memory (file descriptors, slab, page tables come with later faults).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from fleetsim.faults.base import FAULTS, Fault, Target
from fleetsim.host.spec import Command, TaskSpec
from fleetsim.units import NS_PER_S, ByteRate, PositiveSize

MIB = 1 << 20
PIECE_SHARE = 2
"""A leak maps at most this part (a half) of the RAM at once: one mapping larger than RAM + swap is refused (overcommit mode 0)."""


def _mib(count: int) -> str:
    """Bytes → MiB as the op language writes them."""
    return f"{count / MIB:.6f}".rstrip("0").rstrip(".")


def _whole_mib(count: int) -> int:
    return -(-count // MIB)


def _start(target: Target, at_ns: int, ops: tuple[str, ...]) -> list[Command]:
    if target.task is None:
        spec = TaskSpec(target.fault_id, ops, start_s=at_ns / NS_PER_S)
        return [Command(at_ns, target.host, "start_task", {"spec": spec})]
    return [Command(at_ns, target.host, "start_thread", {"task": target.task, "thread": target.fault_id, "ops": ops})]


def _stop(target: Target, at_ns: int) -> list[Command]:
    if target.task is None:
        return [Command(at_ns, target.host, "kill", {"task": target.fault_id})]
    return [Command(at_ns, target.host, "stop_thread", {"task": target.task, "thread": target.fault_id})]


@FAULTS.register("leaking_allocator")
class LeakingAllocator(Fault):
    """The target asks for more and more anonymous memory, writes to it, and never gives it back."""

    harm: ClassVar[str | None] = "killed"
    returns_after_restart: ClassVar[bool] = True

    rate: ByteRate = Field(description="how fast it leaks, such as 1MiB/s")
    limit: PositiveSize | None = Field(None, description="where the leak ends by itself (default: never)")

    def inject(self, target: Target, at_ns: int) -> list[Command]:
        # Never giving up means asking for a quarter more than there is.
        wish = _whole_mib(self.limit or target.room_bytes + target.room_bytes // 4)
        piece = _whole_mib(target.memory_bytes // PIECE_SHARE)
        ops: list[str] = []
        while wish > 0:
            size, area = min(piece, wish), f"{_area(target)}_{len(ops) // 2}"
            ops += [f"mmap_anon {area} {size}", f"touch {area} {size} {_mib(self.rate)}"]
            wish -= size
        return _start(target, at_ns, (*ops, *_KEEP))

    def clear(self, target: Target, at_ns: int) -> list[Command]:
        return _stop(target, at_ns)

    def is_certain(self, target: Target, lasting_ns: int) -> bool:
        leaked = self.rate * lasting_ns // NS_PER_S
        return min(leaked, self.limit or leaked) > target.room_bytes


@FAULTS.register("memory_spike")
class MemorySpike(Fault):
    """The target suddenly takes `size` of anonymous memory, holds it, and gives it back when the fault ends."""

    harm: ClassVar[str | None] = "killed"

    size: PositiveSize = Field(description="how much memory it takes, such as 2GiB")
    rate: ByteRate | None = Field(None, description="how fast (default: as fast as the machine can)")

    def inject(self, target: Target, at_ns: int) -> list[Command]:
        size, area = _whole_mib(self.size), _area(target)
        pace = "0" if self.rate is None else _mib(self.rate)
        return _start(target, at_ns, (f"mmap_anon {area} {size}", f"touch {area} {size} {pace}", *_KEEP))

    def clear(self, target: Target, at_ns: int) -> list[Command]:
        commands = _stop(target, at_ns)
        if target.task is not None:  # a thread's memory belongs to its process: somebody has to unmap it
            give_back = {"task": target.task, "thread": f"{target.fault_id}-end", "ops": (f"free {_area(target)} munmap",)}
            commands.append(Command(at_ns, target.host, "start_thread", give_back))
        return commands

    def is_certain(self, target: Target, lasting_ns: int) -> bool:
        taken = self.size if self.rate is None else min(self.size, self.rate * lasting_ns // NS_PER_S)
        return taken > target.room_bytes


@FAULTS.register("page_cache_flood")
class PageCacheFlood(Fault):
    """Somebody streams a big file with read(): free memory turns into page cache, which the kernel gives back when asked."""

    rate: ByteRate | None = Field(None, description="how fast it reads (default: as fast as the disk can)")
    file: PositiveSize = Field(256 << 30, description="size of the file, read from the start again at its end")

    def inject(self, target: Target, at_ns: int) -> list[Command]:
        pace = "0" if self.rate is None else _mib(self.rate)
        return _start(target, at_ns, (f"read_file {self._path()} 0 {pace}",))

    def clear(self, target: Target, at_ns: int) -> list[Command]:
        return _stop(target, at_ns)

    def files(self) -> Mapping[str, int]:
        return {self._path(): self.file}

    def _path(self) -> str:
        return f"/data/flood-{_whole_mib(self.file)}MiB"


_KEEP = ("sleep 100000000",)  # a process that ended would give its memory back


def _area(target: Target) -> str:
    return target.fault_id.replace("-", "_")
