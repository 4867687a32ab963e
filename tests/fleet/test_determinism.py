# SPDX-License-Identifier: Apache-2.0
"""One seed, one history: compiled or not, checked or not, in this process or in another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCENARIO = """\
summary: A small container leaks to its limit, is killed and comes back.
seed: 11
duration: 40s
fleet:
  - hosts: 1
    name: a
    memory: 256MiB
    files: {/data/f: 64MiB}
    pods:
      - {name: app, workload: script, requests: 16MiB, limits: 24MiB, ops: [mmap_anon h 8, touch h 8 8, rewrite h 0 1 random]}
      - {name: reader, workload: script, start: 2s, ops: [read_file /data/f 0 4]}
timeline:
  - {at: 5s, fault: leaking_allocator, on: app, rate: 1MiB/s}
"""


def history_hash(folder: Path, name: str, **environment: str) -> str:
    """Run in a process of its own: the mode of the laws is decided when they are imported."""
    script = "from fleetsim.cli.main import main; main()"
    command = [sys.executable, "-c", script, "run", str(folder / "x.yaml"), "--out", str(folder / name), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["impacts"] >= 1, "something worth comparing happened"
    return str(answer["history_hash"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("determinism")
    (folder / "x.yaml").write_text(SCENARIO, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def compiled(folder: Path) -> str:
    return history_hash(folder, "compiled")


def test_plain_python_and_compiled_laws_give_the_same_history(folder: Path, compiled: str) -> None:
    assert history_hash(folder, "python", NUMBA_DISABLE_JIT="1") == compiled


@pytest.mark.slow  # compiles every law once more, for the plainest x86-64
def test_a_machine_without_fma_and_avx2_gives_the_same_history(folder: Path, compiled: str) -> None:
    """No libm in a law and no fused multiply-add: the last bit does not depend on the CPU."""
    cache = folder / "cache"
    plain = history_hash(
        folder,
        "plain",
        NUMBA_CPU_NAME="x86-64",
        NUMBA_CPU_FEATURES="",
        NUMBA_ENABLE_AVX="0",
        GLIBC_TUNABLES="glibc.cpu.hwcaps=-AVX2_Usable,-FMA_Usable",
        FLEETSIM_CACHE_DIR=str(cache),
    )
    assert plain == compiled
