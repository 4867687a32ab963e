# SPDX-License-Identifier: Apache-2.0
"""Whether a fleet fits into memory, worked out before anything is started.

    hosts × (record + what is kept beside it) + processes × what one of them takes

Limits: an estimate, on the side of caution; what a scenario's history takes is not in it.
"""

from __future__ import annotations

from pathlib import Path

from fleetsim.errors import BadInput
from fleetsim.fleet.plan import Plan
from fleetsim.linux.capacity_classes import CAPACITY
from fleetsim.units import show_bytes

BESIDE_RECORD = 96 << 10
"""Of a host: names, scraper, samples that wait, what the controller knows; measured with thirty pods: 28 to 40 KiB and 25 KiB."""
PROCESS = 240 << 20
"""An actor or this process, with the laws: 130 MB of modules and 94 MB of laws were measured."""
MEMINFO = Path("/proc/meminfo")


def available_here() -> int | None:
    """Bytes that this machine can give; None: it does not say."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def host_bytes() -> int:
    return CAPACITY.bytes_max + BESIDE_RECORD


def check_room(plan: Plan, processes: int, available: int | None, whose: str) -> None:
    """BadInput if the plan's hosts in so many processes need more memory than there is."""
    check_fits(plan.scenario.name, len(plan.hosts), processes, available, whose)


def check_fits(name: str, hosts: int, processes: int, available: int | None, whose: str) -> None:
    """The same of so many hosts, before there is a plan."""
    if available is None:
        return
    each = host_bytes()
    needed = hosts * each + processes * PROCESS
    if needed > available:
        fit = max(0, (available - processes * PROCESS) // each)
        raise BadInput(
            f"{name}: {hosts:,} hosts need about {show_rounded(needed)} of memory ({show_rounded(each)} each, and "
            f"{show_rounded(PROCESS)} for each of {processes} process{'' if processes == 1 else 'es'}), but {whose} has "
            f"{show_rounded(available)}; about {fit:,} hosts would fit"
        )


def runs_that_fit(plan: Plan, available: int | None) -> int | None:
    """How many runs of the plan fit into this process beside each other, at least one; None: nobody knows."""
    return None if available is None else max(1, (available - PROCESS) // (len(plan.hosts) * host_bytes()))


def actors_that_fit(plan: Plan, available: int | None) -> int | None:
    """How many processes with a run of the plan in each fit beside each other, at least one; None: nobody knows."""
    return None if available is None else max(1, available // (PROCESS + len(plan.hosts) * host_bytes()))


def show_rounded(size: int) -> str:
    """To the unit in which it has two digits or more."""
    unit = next((unit for unit in (1 << 40, 1 << 30, 1 << 20, 1 << 10) if size >= 10 * unit), 1)
    return show_bytes(size // unit * unit)
