# SPDX-License-Identifier: Apache-2.0
"""The `script` workload in a pod: processes that run the op language, one op after the other.

    {name: cache, workload: script, start: 10s, ops: [mmap_anon heap 512, touch heap 512 40, rewrite heap 0 5 random]}

One process named like the pod runs `ops`; `processes` lists several instead, each with its own name, ops and start.
Leaves out: the meaning of the ops (`fleetsim/workloads/script.py`).
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fleetsim.containers.ops import check_op, files_read
from fleetsim.containers.workload import ANYWHERE, WORKLOADS, PodWorkload, Process, Room
from fleetsim.units import Duration

OPS_MAX = 4096
_COMM = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.:/]{0,62}")

Ops = Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=OPS_MAX)]


def _checked(ops: tuple[str, ...]) -> tuple[str, ...]:
    for op in ops:
        check_op(op)
    return ops


class ScriptProcess(BaseModel):
    """One of several processes of a script pod."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(description="the process' name (comm), unique on its host")
    ops: Ops = Field(description="what it does, in order")
    start: Duration = Field(0, description="when it starts, counted from the boot of the host")

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if not _COMM.fullmatch(name):
            raise ValueError("a process name is 1 to 63 letters, digits, '-', '_', '.', such as worker-1")
        return name

    @field_validator("ops")
    @classmethod
    def _ops(cls, ops: tuple[str, ...]) -> tuple[str, ...]:
        return _checked(ops)


@WORKLOADS.register("script")
class Script(PodWorkload):
    """Processes that run a list of memory and file operations, in the op language of the recordings."""

    ops: Ops | None = Field(None, description="what the container's one process does, in order")
    start: Duration = Field(0, description="when the container starts, counted from the boot of the host")
    process_list: Annotated[tuple[ScriptProcess, ...], Field(strict=False, min_length=1, max_length=32)] | None = Field(
        None, alias="processes", description="several processes instead of one, each with name, ops, start"
    )

    @field_validator("ops")
    @classmethod
    def _ops(cls, ops: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if ops is None else _checked(ops)

    @model_validator(mode="after")
    def _one_of_both(self) -> Script:
        if (self.ops is None) == (self.process_list is None):
            raise ValueError(
                "a script pod has either 'ops' (one process) or 'processes' (several), such as ops: [mmap_anon a 64, touch a 64 8]"
            )
        return self

    def processes(self, pod: str, room: Room = ANYWHERE) -> tuple[Process, ...]:
        if self.process_list is None:
            return (Process(pod, self.ops or (), self.start),)
        return tuple(Process(one.name, one.ops, self.start + one.start) for one in self.process_list)

    def files(self) -> tuple[str, ...]:
        every = [op for process in self.processes("") for op in process.ops]
        return files_read(every)
