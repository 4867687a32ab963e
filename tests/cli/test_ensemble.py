# SPDX-License-Identifier: Apache-2.0
"""`--seeds` of run and check: what is said of many runs, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleetsim.cli.ensemble import seed_numbers
from fleetsim.cli.main import execute
from fleetsim.errors import BadInput

SCENARIO = """\
summary: One container leaks.
seed: 7
duration: 1m
fleet:
  - hosts: 2
    name: web
    memory: 512MiB
    pods: [{name: app, workload: script, requests: 16MiB, limits: 48MiB, ops: [mmap_anon heap 8, touch heap 8 8, sleep 999]}]
timeline:
  - {at: 10s, fault: leaking_allocator, on: one app, rate: 2MiB/s}
expect:
  - {impact: killed, on: one app}
  - {alert: Never, on: one app, why: it cannot}
"""
RULES = "groups: [{name: g, rules: [{alert: Never, expr: node_memory_MemTotal_bytes < 0}]}]\n"


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "leak.yaml"
    file.write_text(SCENARIO, encoding="utf-8")
    (tmp_path / "rules.yml").write_text(RULES, encoding="utf-8")
    return file


def test_a_run_directory_and_a_hash_for_each_seed(scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["run", str(scenario), "--seeds", "3..5", "--out", str(tmp_path / "many"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["seed"] for run in told["runs"]] == [3, 4, 5] and told["seeds"] == 3
    assert told["first_impact"]["came"] == 3 and told["impacts"] == {"killed": 3} and told["expectations"] is None
    for run in told["runs"]:
        manifest = json.loads((tmp_path / "many" / f"leak-{run['seed']}" / "manifest.json").read_text())
        assert (manifest["seed"], manifest["history_hash"]) == (run["seed"], run["history_hash"])
    assert json.loads((tmp_path / "many" / "ensemble.json").read_text()) == told
    assert execute(["run", str(scenario), "--seed", "4", "--out", str(tmp_path / "one"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["history_hash"] == told["runs"][1]["history_hash"]


def test_check_says_in_how_many_runs_each_expectation_was_met(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    before = sorted(tmp_path.iterdir())
    command = ["check", str(scenario), "--rules", str(tmp_path / "rules.yml"), "--seeds", "2"]
    assert execute([*command, "--json"]) == 1, "an alert that must fire never does"
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == 1
    assert [run["seed"] for run in told["runs"]] == [7, 8], "from the scenario's own seed on"
    assert [(e["name"], e["met"], e["runs"], e["verdicts"]) for e in told["expectations"]] == [
        ("killed", 2, 2, {"caught": 2}),
        ("Never", 0, 2, {"missed": 2}),
    ]
    assert sorted(tmp_path.iterdir()) == before, "without --out nothing is kept"
    assert execute(command) == 1
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    assert "Never must fire · one app" in out and "0 of 2" in out and "missed 2" in out


def test_seeds_are_a_number_or_a_range() -> None:
    assert seed_numbers("3", 7) == range(7, 10) and seed_numbers("3..10", 7) == range(3, 11)
    for wrong in ("0", "10..3", "many", "-1", "1..99999999999999999999", "1...3", "", "9223372036854775807..9223372036854775808"):
        with pytest.raises(BadInput, match="--seeds is"):
            seed_numbers(wrong, 1)
    with pytest.raises(BadInput, match="at most 100,000"):
        seed_numbers("1..200000", 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "leak.yaml", "--seeds", "2", "--seed", "1"], "leave --seed"),
        (["run", "leak.yaml", "--seeds", "many"], "--seeds is 'many'"),
        (["run", "leak.yaml", "--seeds", "2", "--keep", "some"], "--keep is 'some'"),
        (["run", "leak.yaml", "--keep", "none"], "--keep goes with --seeds"),
        (["check", "leak.yaml", "leak.yaml", "--seeds", "2", "--rules", "rules.yml"], "one SCENARIO"),
    ],
)
def test_what_cannot_be_is_exit_2(
    arguments: list[str], words: str, scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert execute(arguments) == 2
    assert words in capsys.readouterr().err.splitlines()[0]
    assert sorted(tmp_path.iterdir()) == before, "nothing was written"
