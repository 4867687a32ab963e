# SPDX-License-Identifier: Apache-2.0
"""Compiled or not, the same host to the last byte: what a law computes does not depend on who computes it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from fleetsim.law import mode
from tests.host.worlds import FAST_DISK, World, world

REPO = Path(__file__).resolve().parent.parent.parent


def busy_host() -> World:
    """Every kind of reclaim on one small host: swap, cache, a limit, a brake, random and swept areas, a kill."""
    w = world(
        160,
        swap_mib=48,
        swap_disk=FAST_DISK,
        cpus=2,
        files={"/f": 60, "/m": 30},
        cgroups={"box": {"memory.max": 40}, "slow": {"memory.high": 10}},
        tasks={
            "sweep": "mmap_anon A 60 | touch A 60 100 | rewrite A 0 40 seq",
            "box/random": "mmap_anon R 50 | touch R 50 30 | rewrite R 0 10 hot:0.2:0.8",
            "slow/mapped": "mmap_file M /m | read M 0 20 random",
            "reader": "read_file /f 0 30",
            "hog": "sleep 3 | mmap_anon B 120 | touch B 120 40 | sleep 100",
        },
    )
    w.command(2.0, "sysctl", name="vm.swappiness", value=120)
    return w.at(6)


def digest(w: World) -> str:
    story = repr([(event.t_ns, event.seq, event.kind, event.subject, sorted(event.data.items())) for event in w.events()])
    return hashlib.sha256(w.shard.snapshot() + story.encode() + "\n".join(w.shard.dmesg[0]).encode()).hexdigest()


def test_the_host_is_busy_enough_to_prove_something() -> None:
    w = busy_host()
    for counter in ("pswpout", "pswpin", "pgsteal_file", "workingset_refault_file", "oom_kill", "pgactivate", "pgdeactivate", "pgmajfault"):
        assert w.vm(counter) > 0, counter


def test_compiled_and_plain_python_agree_to_the_last_byte() -> None:
    """The other mode runs in a process of its own, with every warning (an overflow, above all) an error."""
    other = {"NUMBA_DISABLE_JIT": "0" if mode() == "python" else "1"}
    program = "from tests.host.test_determinism import *; print(mode(), digest(busy_host()))"
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", program],
        env={**os.environ, **other},
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    theirs, hashed = done.stdout.split()
    assert theirs != mode()
    assert hashed == digest(busy_host())
