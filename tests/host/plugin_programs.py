# SPDX-License-Identifier: Apache-2.0
"""Workloads in plain Python, for tests: twins of built-in ones, one whose step is a function, and hosts that run them.

host = works_host(plug(Nap, "nap", memory="25MiB"))
host = works_host(stepping("p", step))      step(program, kernel); the program is an object without attributes
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleetsim.containers.plugin import Area, Duration, Field, Kernel, Needs, Server, Size, Workload
from fleetsim.host.spec import PlugIn, Requests, TaskSpec, Work

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "example-workloads"
PAGE = 4096
S = 10**9


def example(name: str, cls: str) -> Any:
    """A class of the example package, as if it were installed."""
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    return getattr(importlib.import_module(f"example_workloads.{name}"), cls)


Nap = example("nap", "Nap")
Cache = example("cache", "Cache")


def plug(cls: type[Workload], name: str, **arguments: Any) -> TaskSpec:
    """A task of a host of tests/workloads/works.py, with a scenario's arguments."""
    restart_s = arguments.pop("restart_s", None)
    (process,) = cls.Arguments.model_validate(arguments).processes(name)
    return TaskSpec(process.name, (), process.start_ns / S, name, restart_s=restart_s, work=process.work)


Step = Callable[[Any, Kernel], None]


STEPS: list[Step] = []


class Stepping:
    """A program whose step is a function, found by its number: functions within functions cannot be pickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def step(self, kernel: Kernel) -> None:
        STEPS[self.number](self, kernel)


def stepping(name: str, step: Step, *, files: tuple[str, ...] = (), requests: Requests | None = None, **more: Any) -> TaskSpec:
    STEPS.append(step)
    begin = functools.partial(Stepping, len(STEPS) - 1)
    work = Work("plugin", {path: path for path in files}, requests, plugin=PlugIn("stepping", begin, "tests 1"))
    return TaskSpec(name, (), 0.0, name, work=work, **more)


class Sorter(Workload):
    """`fleetsim/workloads/batch.py` once more, in bytes and seconds."""

    class Arguments(Workload.Arguments):
        input: str = Field(description="the file that it reads")
        size: Size = Field(0, description="how much it reads (0: the file once)")
        work_memory: Size = Field(0, description="memory in which it sorts")
        output: str = Field("", description="the file that it writes")
        most: int = Field(0, description="the most bytes that it writes")
        permille: int = Field(1000, description="it writes so much of what it read")
        page_ns: int = Field(0, description="pace of reading, nanoseconds a page")
        fsync: bool = Field(True, description="whether it waits for its output")

    ends = True
    stage = "waiting"
    area: Area | None = None
    read = held = got = to_write = written = carry = 0  # pages
    deadline_ns = 0

    def needs(self) -> Needs:
        mine = self.arguments
        return Needs(
            (mine.work_memory,) if mine.work_memory else (), (), (mine.input,), (), {mine.output: mine.most} if mine.output else {}
        )

    def step(self, kernel: Kernel) -> None:
        self.now_ns = round(kernel.now * S)
        getattr(self, self.stage)(kernel)

    def waiting(self, kernel: Kernel) -> None:
        self.stage = "opening"

    def opening(self, kernel: Kernel) -> None:
        if self.arguments.output and not kernel.creat(self.arguments.output):
            return
        if self.arguments.work_memory and self.area is None:
            self.area = kernel.mmap(self.arguments.work_memory)
        self.stage, self.deadline_ns = "reading", self.now_ns
        kernel.tell(begin=True)

    def wanted(self, size: int) -> int:
        return self.arguments.size // PAGE or size

    def reading(self, kernel: Kernel) -> None:
        size = kernel.file_size(self.arguments.input) // PAGE
        pace = self.arguments.page_ns
        chunk = 1024 if pace == 0 else max(64, round(kernel.tick * S) // pace)
        if self.area is not None:
            chunk = min(chunk, self.area.bytes // PAGE - self.held)
        left = self.wanted(size) - self.read
        if size == 0 or left <= 0:
            self.stage = "writing"
            self.end_run()
        else:
            at = self.read % size
            done = kernel.read(self.arguments.input, at * PAGE, min(chunk, left, size - at) * PAGE) // PAGE
            self.read += done
            kernel.compute(done * 1e-6)
            self.got = done
            self.deadline_ns = max(self.deadline_ns + done * pace, self.now_ns - S)
            if done > 0:
                self.stage = "holding" if self.area is not None else "writing"
                if self.area is None:
                    self.held = done
                    self.end_run()
                    if not self.to_write and left > done:
                        self.stage = "reading"
        if pace:
            kernel.sleep_until(self.deadline_ns / S)

    def end_run(self) -> None:
        exact = self.held * (self.arguments.permille if self.arguments.output else 0) + self.carry
        self.to_write, self.carry, self.held = exact // 1000, exact % 1000, 0

    def holding(self, kernel: Kernel) -> None:
        assert self.area is not None
        touched = self.area.touched // PAGE
        if touched <= self.held:
            done = kernel.touch(self.area, self.got * PAGE) // PAGE
        else:
            done = kernel.access(self.area, min(self.got, touched - self.held) * PAGE, at=self.held * PAGE, write=True) // PAGE
        self.got, self.held = self.got - done, self.held + done
        if self.got <= 0:
            full = self.held >= self.area.bytes // PAGE
            self.stage = "writing" if full else "reading"
            if full:
                self.end_run()

    def writing(self, kernel: Kernel) -> None:
        if self.to_write > 0:
            done = kernel.write(self.arguments.output, self.written * PAGE, min(1024, self.to_write) * PAGE) // PAGE
            self.to_write, self.written = self.to_write - done, self.written + done
            return
        self.stage = "reading"
        if self.read >= self.wanted(kernel.file_size(self.arguments.input) // PAGE):
            self.stage = "syncing" if self.arguments.fsync and self.written > 0 else "freeing"

    def syncing(self, kernel: Kernel) -> None:
        self.stage = "freeing" if kernel.fsync(self.arguments.output) else "syncing"

    def freeing(self, kernel: Kernel) -> None:
        if self.area is not None:
            if kernel.munmap(self.area):
                self.area = None
            return
        kernel.tell(begin=False)
        kernel.exit(0)


class Shop(Server):
    """`fleetsim/workloads/web.py` once more, in bytes and seconds, without a leak."""

    class Arguments(Server.Arguments):
        base: Size = Field(16 << 20, description="working set")
        request: Size = Field(100 << 10, description="what a request holds")
        cpu: Duration = Field(1_000_000, description="processor time of a request")
        looks: int = Field(10, description="pages that a request looks at")
        starting: Duration = Field(100_000_000, description="processor time that starting takes")

    base: Area | None = None
    held: Area | None = None
    up = False
    left = 0  # pages that the batch still looks at

    def needs(self) -> Needs:
        mine = self.arguments
        return Needs(((mine.workers + mine.queue) * mine.request + PAGE,), (mine.base,))

    def step(self, kernel: Kernel) -> None:
        mine = self.arguments
        if not self.up:
            if self.base is None:
                self.base = kernel.mmap(mine.base, at_random=True)
                self.held = kernel.mmap(((mine.workers + mine.queue) * mine.request // PAGE + 1) * PAGE, reserve=False)
                kernel.compute(mine.starting / S)
            if self.base.is_full:
                self.up = True
                kernel.come_up()
            else:
                kernel.touch(self.base)
            kernel.rest(0)
            return
        calm = kernel.tick * (5 if kernel.is_resident(self.base) else 1)
        if not kernel.batch:
            most = mine.workers * 100_000_000 // max(1, round(kernel.service * S))
            n = kernel.take(max(mine.workers, most))
            self.left = n * mine.looks * PAGE
            if not n:
                kernel.rest(calm)
                return
            kernel.compute(n * mine.cpu / S)
        done = self.serve(kernel)
        waiting = kernel.finish() if done else 1
        kernel.rest(0 if waiting else calm)

    def serve(self, kernel: Kernel) -> bool:
        wanted = min(self.held.bytes, kernel.present * self.arguments.request // PAGE * PAGE)
        if self.held.touched < wanted:
            kernel.touch(self.held, min(8 << 20, wanted - self.held.touched))
            return False
        if self.left > 0:
            self.left -= kernel.access(self.base, self.left)
        return self.left <= 0
