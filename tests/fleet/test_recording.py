# SPDX-License-Identifier: Apache-2.0
"""Reading an experiment folder and writing a run in the same format."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fleetsim.errors import BadInput
from fleetsim.fleet.recording import KNOWN_AT_START, bytes_of, meminfo_kb, read_experiment, write_trace

TRUTH = Path(__file__).resolve().parent.parent / "ground_truth"


def test_an_experiment_becomes_the_host_it_ran_on() -> None:
    experiment = read_experiment(TRUTH / "e06_memcg_oom")
    spec = experiment.spec
    assert (spec.memory_bytes, spec.cpus, spec.swap_bytes, spec.thp) == (1 << 30, 1, 0, "madvise")
    assert spec.cpu_profile == "lab", "recorded with one instruction = 1 ns"
    assert [(c.name, c.limits["memory.max"]) for c in spec.cgroups] == [("app", 200 << 20)]
    assert {task.name: task.cgroup for task in experiment.tasks}["hog"] == "app"
    assert (experiment.sample_s, experiment.cgroups) == (0.5, ("app",))
    assert spec.measured is not None
    assert spec.measured["MemTotal_kB"] == 991_980
    assert spec.sysctl["min_free_kbytes"] == 45_056


def test_only_what_was_known_at_the_start_is_kept(tmp_path: Path) -> None:
    for path in TRUTH.glob("*/start.json"):
        assert set(json.loads(path.read_text())) <= set(KNOWN_AT_START), path.parent.name


@pytest.mark.parametrize(("text", "value"), [("200M", 200 << 20), ("1G", 1 << 30), ("4K", 4096), ("0", 0), ("max", -1)])
def test_sizes_are_read_as_a_cgroup_file_reads_them(text: str, value: int) -> None:
    assert bytes_of(text) == value


@pytest.mark.parametrize("text", ["", "200MB", "-1", "1.5G", "many"])
def test_other_sizes_are_refused_by_name(text: str) -> None:
    with pytest.raises(BadInput, match="200M or max"):
        bytes_of(text)


def test_meminfo_is_read_in_kilobytes() -> None:
    assert meminfo_kb("MemTotal:  991980 kB\nHugePages_Total:   3\n\n") == {"MemTotal": 991_980, "HugePages_Total": 3}


def broken(tmp_path: Path, **changes: Any) -> Path:
    folder = tmp_path / "e"
    folder.mkdir()
    shutil.copyfile(TRUTH / "e01_idle" / "start.json", folder / "start.json")
    experiment = json.loads((TRUTH / "e01_idle" / "experiment.json").read_text())
    for key, value in changes.items():
        experiment.pop(key) if value is None else experiment.update({key: value})
    (folder / "experiment.json").write_text(json.dumps(experiment))
    return folder


@pytest.mark.parametrize(
    "key",
    ["machine", "processes", "name", "duration_s", "sample_s", "cgroups"],
)
def test_a_missing_part_is_said_with_its_file(key: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"(?s)experiment\.json.*" + key):
        read_experiment(broken(tmp_path, **{key: None}))


@pytest.mark.parametrize("value", [[], "text", 3, [{"name": "a"}]])
def test_a_part_of_the_wrong_kind_is_said_too(value: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        read_experiment(broken(tmp_path, machine=value))


def test_a_folder_without_an_experiment_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="experiment folder holds"):
        read_experiment(tmp_path)
    (tmp_path / "experiment.json").write_text("{")
    with pytest.raises(BadInput, match="not JSON"):
        read_experiment(tmp_path)


def test_a_trace_has_every_column_that_ever_appeared_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    rows = [{"time_s": "0.000", "a": 1}, {"time_s": "0.500", "a": 2, "b": 3}]
    write_trace(tmp_path / "one.gz", rows)
    write_trace(tmp_path / "two.gz", rows)
    with gzip.open(tmp_path / "one.gz", "rt", newline="") as f:
        assert list(csv.reader(f)) == [["time_s", "a", "b"], ["0.000", "1", ""], ["0.500", "2", "3"]]
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
