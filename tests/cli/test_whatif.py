# SPDX-License-Identifier: Apache-2.0
"""`fleetsim whatif` as users meet it: what is said side by side, what is refused, and that the recorded run stays as it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from fleetsim.cli.main import execute

SCENARIO = """\
summary: A leak takes the room that the program itself needs later.
seed: 11
duration: 2m
rules: [rules.yml]
fleet:
  - hosts: 2
    name: a
    memory: 512MiB
    pods:
      - name: app
        workload: script
        requests: 16MiB
        limits: 64MiB
        ops: [mmap_anon h 40, touch h 10 10, until 42, touch h 40 20, sleep 999]
      - {name: site, workload: web, limits: 128MiB, working_set: 16MiB, load: 20/s, slo: {latency: 500ms, share: 99}}
timeline:
  - {at: 5s, fault: leaking_allocator, on: a-1/app, rate: 1MiB/s}
expect:
  - {impact: killed, on: a-1/app}
"""
RULES = """\
groups:
  - name: g
    interval: 15s
    rules:
      - {alert: OomKilled, expr: "increase(node_vmstat_oom_kill[1m]) > 0"}
      - {alert: Swappy, expr: node_memory_MemTotal_bytes < 0}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whatif")
    (folder / "x.yaml").write_text(SCENARIO, encoding="utf-8")
    (folder / "rules.yml").write_text(RULES, encoding="utf-8")
    assert execute(["run", str(folder / "x.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = execute([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def value(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    code, out, err = said(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_side_by_side_a_kill_its_alert_and_the_users(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digest(run)
    found = value(capsys, "whatif", run, "--at", "20s", "--drop-fault", "leaking_allocator")
    assert digest(run) == before, "the recorded run is only read"
    assert (found["at_s"], found["duration_s"], found["same"], found["out"]) == (20.0, 120.0, False, None)
    assert found["simulated_from_s"] <= 20
    (impact,) = [i for i in found["impacts"] if i["impact"] == "killed"]
    assert (impact["host"], impact["subject"], impact["change"], impact["now"]) == ("a-1", "app", "gone", None)
    assert 40 < impact["was"]["first_s"] < 45
    assert (found["counts"]["was"]["OOM kills"] > 0, found["counts"]["now"]["OOM kills"]) == (True, 0)
    assert found["counts"]["was"]["first_oom_s"] == pytest.approx(impact["was"]["first_s"], abs=1)
    (alert,) = found["alerts"]
    assert (alert["alert"], alert["who"], alert["change"], alert["now"]) == ("OomKilled", "a-1", "gone", None)
    (users,) = found["users"]
    assert (users["name"], users["replicas"]) == ("site", 2)
    assert users["was"]["served"] == pytest.approx(2 * 20 * (120 - found["simulated_from_s"]), rel=0.1)
    assert 0 < users["was"]["p50_ms"] <= users["was"]["p99_ms"] and users["was"]["slo_ms"] == 500


def test_the_table_says_the_same_within_a_hundred_columns(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = said(capsys, "whatif", run, "--at", "20s", "--drop-fault", "leaking_allocator", "--out", tmp_path / "b")
    assert code == 0 and max(map(len, out.splitlines())) <= 100
    rows = [" ".join(line.strip("│ ").split()) for line in out.splitlines()]
    assert any(row.startswith("killed · a-1/app 43s (") and row.endswith("– gone") for row in rows)
    assert any(row.startswith("OomKilled · a-1") and row.endswith("– gone") for row in rows)
    assert "what if without leaking_allocator" in rows
    assert any(row.startswith("site × 2: p50 / p99") for row in rows)
    assert (tmp_path / "b" / "manifest.json").is_file(), "the branch is kept"
    again = value(capsys, "whatif", tmp_path / "b", "--at", "1m", "--set", "vm.swappiness=61")
    assert again["impacts"] == [] and again["counts"]["now"]["OOM kills"] == 0


def test_a_change_that_does_nothing_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A load as it is already: the command leaves no trace in the history."""
    code, out, _ = said(capsys, "whatif", run, "--at", "1m", "--set", "pod/site.load=20/s")
    assert code == 0 and "the same to the last bit" in " ".join(out.replace("│", " ").split())


def test_the_point_of_no_return(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = value(capsys, "whatif", run, "--bisect", "--drop-fault", "leaking_allocator", "--impact", "killed:app")
    assert (found["prevents"], found["resolution_s"], found["impact"]["host"]) == ("point", 1.0, "a-1")
    assert found["too_late_s"] == found["latest_s"] + 1 and 20 < found["latest_s"] < 35
    assert [t["came_s"] is None for t in found["trials"]] == [t["at_s"] <= found["latest_s"] for t in found["trials"]]
    code, out, _ = said(capsys, "whatif", run, "--bisect", "--drop-fault", "leaking_allocator")
    assert code == 0 and f"The point of no return is {found['latest_s']:.0f}s" in out
    _, out, _ = said(capsys, "whatif", run, "--bisect", "--set", "vm.swappiness=1")
    assert "It never prevents it" in out
    _, out, _ = said(capsys, "whatif", run, "--bisect", "--set", "pod/app.limits=200MiB", "--at", "30s")
    assert "It always prevents it" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--at", "20s"], "nothing is changed: give --set or --drop-fault"),
        (["--set", "vm.swappiness=1"], "give --at TIME"),
        (["--at", "soon", "--set", "vm.swappiness=1"], "--at is 'soon'; write a duration"),
        (["--at", "2m", "--set", "vm.swappiness=1"], "the run ends at 2m"),
        (["--at", "1m", "--set", "vm.swapiness=1"], "did you mean 'vm.swappiness'"),
        (["--at", "1m", "--drop-fault", "x", "--on", "a"], "--on says where something is set"),
        (["--at", "1m", "--set", "vm.swappiness=1", "--impact", "killed"], "give both"),
        (["--bisect", "--set", "vm.swappiness=1", "--impact", "errors"], "does not come to pass in this run; what does: killed:app"),
        (["--bisect", "--set", "vm.swappiness=1", "--resolution", "0"], "--resolution is '0'"),
        (["--bisect", "--set", "vm.swappiness=1", "--out", "b"], "leave --out and --rules out"),
        (["--at", "1m", "--set", "vm.swappiness=1", "--rules", "none.yml"], "none.yml"),
    ],
)
def test_what_cannot_be_is_exit_2_and_one_sentence(arguments: list[str], words: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "whatif", run, *arguments)
    assert (code, out) == (2, "")
    assert words in err.splitlines()[0] and len(err.strip().splitlines()) == 2


def test_an_out_folder_with_something_in_it_is_left_alone(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    code, _, err = said(capsys, "whatif", run, "--at", "1m", "--set", "vm.swappiness=1", "--out", tmp_path)
    assert code == 2 and "not empty" in err and [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "whatif", tmp_path / "none", "--at", "1m", "--set", "vm.swappiness=1")
    assert code == 2 and "is not a run directory" in err


def test_without_rules_nothing_is_said_of_alerts(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SCENARIO.replace("rules: [rules.yml]\n", "").replace("duration: 2m", "duration: 1m")
    (tmp_path / "y.yaml").write_text(text, encoding="utf-8")
    assert execute(["run", str(tmp_path / "y.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert value(capsys, "whatif", tmp_path / "run", "--at", "20s", "--set", "vm.swappiness=1")["alerts"] is None
    rules = run.parent / "rules.yml"
    found = value(capsys, "whatif", tmp_path / "run", "--at", "20s", "--drop-fault", "leaking_allocator", "--rules", rules)
    assert isinstance(found["alerts"], list)


def test_the_rules_that_a_run_was_checked_with_judge_its_branches(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "y.yaml").write_text(SCENARIO.replace("rules: [rules.yml]\n", ""), encoding="utf-8")
    rules = tmp_path / "mine.yml"
    rules.write_text(RULES, encoding="utf-8")
    assert execute(["check", str(tmp_path / "y.yaml"), "--rules", str(rules), "--out", str(tmp_path / "checked")]) == 0
    command = ("whatif", tmp_path / "checked" / "y", "--at", "20s", "--drop-fault", "leaking_allocator")
    assert [(alert["alert"], alert["change"]) for alert in value(capsys, *command)["alerts"]] == [("OomKilled", "gone")]
    rules.unlink()
    code, _, err = said(capsys, *command, "--json")
    assert code == 0 and "mine.yml: the rule file that the run was checked with is not there" in err
