# SPDX-License-Identifier: Apache-2.0
"""`fleetsim doctor`: is this machine able to run fleetsim, and if not, what mends it?

A check is `ok`, `warn` (it will work, but …) or `bad` (it will not); one `bad` makes the exit code 3.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from fleetsim import __version__
from fleetsim.cli.options import Json
from fleetsim.cli.output import console, invocation
from fleetsim.errors import EXIT_OK, EXIT_TOOL_FAILED, FleetsimError

PYTHON_MIN = (3, 11)
PROMETHEUS_MIN = (2, 42)
MEMORY_WISHED_MIB = 2048
DISK_WISHED_MIB = 1024


@dataclass(frozen=True)
class Check:
    name: str
    state: str  # ok | warn | bad
    found: str
    mend: str = ""


def doctor(json: Json = False) -> int:
    """Look at Python, packages, Prometheus, cores, memory and the cache, and say how to mend what is wrong."""
    checks = [*_python(), *_packages(), *_prometheus(), *_machine(), *_cache()]
    code = EXIT_TOOL_FAILED if any(check.state == "bad" for check in checks) else EXIT_OK
    if json:
        invocation.print_json({"version": __version__, "checks": [asdict(check) for check in checks], "exit_code": code})
        return code
    from rich.markup import escape

    page = console()
    colours = {"ok": "green", "warn": "yellow", "bad": "red"}
    for check in checks:
        page.print(f"[{colours[check.state]}]{check.state:4}[/] {check.name:12} {escape(check.found)}")
        if check.mend:
            page.print(f"                  [bold]→ {escape(check.mend)}[/]")
    return code


def _python() -> Iterator[Check]:
    fine = sys.version_info[:2] >= PYTHON_MIN
    mend = "" if fine else f"install Python {PYTHON_MIN[0]}.{PYTHON_MIN[1]} or later"
    yield Check("python", "ok" if fine else "bad", f"{platform.python_version()} at {sys.executable}", mend)


def _packages() -> Iterator[Check]:
    """Every package that this distribution of fleetsim says it needs."""
    try:
        needed = [line for line in importlib.metadata.requires("fleetsim") or [] if "extra ==" not in line]
    except importlib.metadata.PackageNotFoundError:
        yield Check("packages", "warn", "fleetsim runs from a folder and is not installed", "make setup, or pip install -e .")
        return
    absent, found = [], []
    for line in needed:
        match = re.match(r"[A-Za-z0-9._-]+", line)
        name = match.group(0) if match else line
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    if absent:
        yield Check("packages", "bad", f"missing: {', '.join(absent)}", f"pip install {' '.join(absent)}")
    else:
        yield Check("packages", "ok", ", ".join(found))


def _prometheus() -> Iterator[Check]:
    from fleetsim.verdict.prometheus import find_tool

    wished = ".".join(map(str, PROMETHEUS_MIN))
    for program in ("prometheus", "promtool"):
        try:
            path = find_tool(program)
            output = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL)
        except FleetsimError as error:
            yield Check(program, "bad", "not found", str(error))
            continue
        except (OSError, subprocess.TimeoutExpired) as error:
            yield Check(program, "bad", f"{path} does not run: {error}", f"install Prometheus {wished} or later")
            continue
        match = re.search(r"version (\d+)\.(\d+)(\S*)", output.stdout + output.stderr)
        if match is None:
            yield Check(program, "bad", f"{path} does not say its version", f"install Prometheus {wished} or later")
        else:
            old = (int(match[1]), int(match[2])) < PROMETHEUS_MIN
            found = f"{match[1]}.{match[2]}{match[3].rstrip(',')} at {path}"
            yield Check(program, "bad" if old else "ok", found, f"install Prometheus {wished} or later" if old else "")


def _machine() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0))
    yield Check("cores", "ok", f"{cores} ({platform.machine()})")
    free_mib = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    total_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    small = total_mib < MEMORY_WISHED_MIB
    mend = "large fleets and the judge's Prometheus want 2 GiB and more" if small else ""
    yield Check("memory", "warn" if small else "ok", f"{total_mib} MiB, {free_mib} MiB free", mend)


def _cache() -> Iterator[Check]:
    from fleetsim import law

    folder = law.CACHE_DIR
    state = "cold: the next run compiles first, up to 90 s, once" if law.is_cold() else "warm"
    kept = folder.is_relative_to(law.cache_root())
    mend = "" if kept else f"{law.cache_root()} cannot be written, so every run compiles again; set FLEETSIM_CACHE_DIR to a folder that can"
    yield Check("cache", "ok" if kept else "warn", f"{folder} ({state})", mend)
    free_mib = shutil.disk_usage(folder).free >> 20
    full = free_mib < DISK_WISHED_MIB
    yield Check("disk", "warn" if full else "ok", f"{free_mib} MiB free", f"make room for the cache in {folder}" if full else "")
