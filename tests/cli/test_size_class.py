# SPDX-License-Identifier: Apache-2.0
"""A scenario whose hosts need a larger record: the command starts itself anew, once; an explicit class is obeyed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleetsim.cli.main import execute
from fleetsim.cli.size_class import StartAnew
from fleetsim.law import SIZE_CLASS_VARIABLE

HEAD = """\
summary: A host with many processes.
seed: 3
duration: 5s
fleet:
  - hosts: 1
    name: db
    memory: 4GiB
    pods:
"""


def scenario(folder: Path, pods: int) -> Path:
    file = folder / "many.yaml"
    pod = "      - {{name: p{}, workload: script, requests: 1MiB, ops: [sleep 99]}}\n"
    file.write_text(HEAD + "".join(pod.format(i) for i in range(pods)), encoding="utf-8")
    return file


def fleetsim(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own, as plain Python."""
    every = {**os.environ, "NUMBA_DISABLE_JIT": "1", **environment}
    command = [sys.executable, "-m", "fleetsim", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=every, timeout=300)


@pytest.mark.parametrize("verb", ["run", "cat", "walk"])
def test_every_verb_that_runs_a_scenario_asks_for_the_class_its_hosts_need(verb: str, tmp_path: Path) -> None:
    words = {"run": ["--out", str(tmp_path / "out")], "cat": ["db-1", "/proc/meminfo", "--at", "1s"], "walk": ["db-1", "p0"]}[verb]
    with pytest.raises(StartAnew) as wanted:
        execute([verb, str(scenario(tmp_path, 100)), *words])
    assert wanted.value.size_class == "large"
    assert not (tmp_path / "out").exists(), "nothing was written yet"


def test_check_takes_the_largest_of_its_scenarios(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    rules = tmp_path / "r.yml"
    rules.write_text("groups: [{name: g, rules: [{alert: A, expr: node_memory_MemFree_bytes < 1}]}]\n", encoding="utf-8")
    with pytest.raises(StartAnew):
        execute(["check", str(scenario(tmp_path / "a", 3)), str(scenario(tmp_path, 100)), "--rules", str(rules)])


def test_a_run_of_forty_pods_starts_anew_in_large_and_its_manifest_says_so(tmp_path: Path) -> None:
    done = fleetsim("run", scenario(tmp_path, 40), "--out", tmp_path / "out", "--profile", "standard", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hosts"] == 1
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["size_class"] == "large"


def test_the_same_scenario_has_one_history_hash_in_both_classes(tmp_path: Path) -> None:
    file = scenario(tmp_path, 3)
    hashes = set()
    for name in ("standard", "large"):
        done = fleetsim("run", file, "--out", tmp_path / name, "--profile", "standard", "--json", **{SIZE_CLASS_VARIABLE: name})
        assert done.returncode == 0, done.stderr
        hashes.add(json.loads(done.stdout)["history_hash"])
        assert json.loads((tmp_path / name / "manifest.json").read_text())["size_class"] == name
    assert len(hashes) == 1


def test_an_explicit_class_wins_and_a_host_too_large_for_it_is_one_sentence(tmp_path: Path) -> None:
    done = fleetsim("run", scenario(tmp_path, 100), "--out", tmp_path / "out", **{SIZE_CLASS_VARIABLE: "standard"})
    assert done.returncode == 2
    assert "holds 74 in size class standard, which FLEETSIM_SIZE_CLASS asks for; without it large is taken" in done.stderr
    assert "Traceback" not in done.stderr


def test_too_large_for_every_class_is_refused_with_the_number_that_fits(tmp_path: Path) -> None:
    done = fleetsim("run", scenario(tmp_path, 300), "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "needs 604 cgroups, faults included; a simulated host holds 288, write fewer" in done.stderr


def test_a_class_that_there_is_not_is_one_sentence(tmp_path: Path) -> None:
    done = fleetsim("run", scenario(tmp_path, 3), **{SIZE_CLASS_VARIABLE: "huge"})
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "'huge'; size classes of simulated hosts are small, standard, large" in done.stderr
