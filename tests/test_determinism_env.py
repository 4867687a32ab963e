# SPDX-License-Identifier: Apache-2.0
"""The same scenario and seed give the same history hash whatever the machine, its settings or the number of threads.

`fleetsim run --json` is run as a user runs it, in processes of their own. The reference is a plain run; each other run changes
one thing that must not matter. Two things must matter, or the hash would prove nothing: the seed and the scenario.

Why an old CPU is one of them: glibc chooses another `exp` on CPUs without FMA, which differs in the last bit, and NumPy and
LLVM choose instructions by CPU as well. All three are told to forget what they know of this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCENARIO = """\
summary: Two small hosts; on one of them a container leaks into its limit and is killed, again and again.
seed: 7
duration: 40s
fleet:
  - hosts: 2
    name: web
    memory: 512MiB
    swap: 128MiB
    disk: ssd
    files: {/data/log: 300MiB}
    pods:
      - {name: cache, workload: script, limits: 128MiB, ops: [mmap_anon heap 64, touch heap 64 40, rewrite heap 0 5 random]}
      - {name: reader, workload: script, ops: [read_file /data/log 0 60]}
timeline:
  - {at: 5s, fault: leaking_allocator, on: one web/cache, rate: 10MiB/s}
"""
RUN = "import sys; from fleetsim.cli.main import main; sys.exit(main())"

OLD_CPU = {
    "NUMBA_CPU_NAME": "generic",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX2_Usable,-FMA_Usable",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
}
ELSEWHERE = {"PYTHONHASHSEED": "12345", "TZ": "Asia/Tokyo", "LC_ALL": "C", "COLUMNS": "40"}

Hash = Callable[..., str]


@pytest.fixture(scope="module")
def history_hash(tmp_path_factory: pytest.TempPathFactory) -> Hash:
    """`history_hash(*flags, scenario=…, **environment)`: one run in a process of its own."""

    def run(*flags: str, scenario: str = SCENARIO, **environment: str) -> str:
        folder = tmp_path_factory.mktemp("run")
        file = folder / "incident.yaml"
        file.write_text(scenario)
        result = subprocess.run(
            [sys.executable, "-c", RUN, "run", str(file), "--out", str(folder / "out"), "--json", *flags],
            env=os.environ | {"PYTHONHASHSEED": "0"} | environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=Path(__file__).parent.parent,
        )
        assert result.returncode == 0, result.stderr
        digest = json.loads(result.stdout)["history_hash"]
        assert len(digest) == 64
        return str(digest)

    return run


@pytest.fixture(scope="module")
def reference(history_hash: Hash) -> str:
    return history_hash()


def test_the_incident_is_one(history_hash: Hash, tmp_path: Path) -> None:
    """Otherwise the tests below would compare runs in which nothing happens."""
    file = tmp_path / "incident.yaml"
    file.write_text(SCENARIO)
    subprocess.run([sys.executable, "-c", RUN, "run", str(file), "--out", str(tmp_path / "out"), "--json"], check=True, capture_output=True)
    events = [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").read_text().splitlines()]
    kinds = {event["kind"] for event in events}
    assert {"fault_start", "oom_kill", "restart", "impact_start"} <= kinds


@pytest.mark.parametrize(
    ("flags", "environment"),
    [((), {}), (("--threads", "1"), {}), (("--threads", "2"), {}), ((), ELSEWHERE), ((), {"NUMBA_DISABLE_JIT": "1"})],
    ids=["run again", "one thread", "two threads", "another locale, time zone and hash seed", "no compilation at all"],
)
def test_the_hash_does_not_depend_on(history_hash: Hash, reference: str, flags: tuple[str, ...], environment: dict[str, str]) -> None:
    assert history_hash(*flags, **environment) == reference


@pytest.mark.slow  # each of these compiles the kernel anew
@pytest.mark.parametrize("environment", [OLD_CPU, {"FLEETSIM_CHECKED": "1"}], ids=["a CPU without FMA and AVX2", "bounds checks"])
def test_the_hash_does_not_depend_on_how_laws_are_compiled(history_hash: Hash, reference: str, environment: dict[str, str]) -> None:
    assert history_hash(**environment) == reference


def test_the_hash_depends_on_the_seed(history_hash: Hash, reference: str) -> None:
    assert history_hash("--seed", "8") != reference


def test_the_hash_depends_on_the_scenario(history_hash: Hash, reference: str) -> None:
    assert history_hash(scenario=SCENARIO.replace("rate: 10MiB/s", "rate: 11MiB/s")) != reference
