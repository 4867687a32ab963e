# SPDX-License-Identifier: Apache-2.0
"""The command line as users meet it: exit codes, one sentence for every failure, one JSON value for every program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import fleetsim.observe.catalog as catalog
from fleetsim import __version__
from fleetsim.cli.main import EXIT_INTERRUPTED, execute

GOOD = """\
summary: One container leaks.
seed: 7
duration: 1m
fleet:
  - hosts: 2
    name: web
    memory: 1GiB
    pods: [{name: app, workload: script, requests: 64MiB, limits: 128MiB, ops: [mmap_anon heap 32, touch heap 32 8]}]
timeline:
  - {at: 10s, fault: leaking_allocator, on: one app, rate: 1MiB/s}
"""
RULES = "groups: [{name: g, rules: [{alert: A, expr: node_memory_MemFree_bytes < 1}]}]\n"

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "incident.yaml"
    file.write_text(GOOD, encoding="utf-8")
    return file


def said(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    code = execute([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


# --- help and speed ---------------------------------------------------------------------------------------------------


VERBS = ("run", "check", "whatif", "validate", "fidelity", "cat", "walk", "tlb", "malloc", "list", "schema", "doctor", "bench")


def test_help_names_every_verb(capsys: Captured) -> None:
    code, out, _ = said(capsys, "--help")
    assert code == 0
    for verb in VERBS:
        assert verb in out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(verb: str, capsys: Captured) -> None:
    code, out, _ = said(capsys, verb, "--help")
    assert code == 0
    assert "--json" in out


def test_help_loads_nothing_heavy() -> None:
    """`fleetsim --help` is to answer within half a second: what costs that much must not be imported."""
    heavy = ["numba", "numpy", "pydantic", "ray", "pyarrow", "plotly", "yaml", "prometheus_client"]
    script = (
        "import sys; from fleetsim.cli.main import execute; code = execute(['--help']); "
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr.strip()) == (0, "[]")


def test_the_version_is_said(capsys: Captured) -> None:
    assert said(capsys, "--version") == (0, f"fleetsim {__version__}\n", "")


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "frobnicate"),
        (["run"], "SCENARIO"),
        (["run", "x.yaml", "--sead", "5"], "--sead"),
        (["run", "x.yaml", "--seed", "five"], "five"),
        (["run", "x.yaml", "--seed", "-1"], "-1"),
        (["run", "none.yaml"], "none.yaml: there is no such file"),
        (["run", "none.yaml", "--profile", "tiny"], "none.yaml"),
        (["list", "planets"], "planets"),
        (["list", "hosts"], "needs a scenario file"),
        (["list", "faults", "x.yaml"], "takes no file"),
        (["list", "scenarios", "nowhere"], "nowhere"),
        (["validate", "none.yaml"], "none.yaml"),
        (["check", "none.yaml"], "none.yaml"),
        (["fidelity", "none"], "none"),
    ],
)
def test_bad_input_is_exit_2_one_sentence_and_the_command_again(
    arguments: list[str], words: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = said(capsys, *arguments)
    assert (code, out) == (2, "")
    sentence, again = err.strip().splitlines()
    assert words in sentence
    assert f"fleetsim {__version__}" in again and "seed" in again and f"fleetsim {arguments[0]}" in again
    assert list(tmp_path.iterdir()) == [], "nothing was written"


def test_a_failure_with_json_is_one_value_too(capsys: Captured) -> None:
    code, out, err = said(capsys, "run", "none.yaml", "--json")
    answer = json.loads(out)
    assert (code, answer["exit_code"]) == (2, 2)
    assert "none.yaml" in answer["error"]
    assert answer["error"] in err
    assert answer["reproduce"] == "fleetsim run none.yaml --json"


def test_our_own_mistake_is_exit_3_and_one_sentence(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(catalog, "describe", broken)
    code, out, err = said(capsys, "list", "metrics")
    assert (code, out) == (3, "")
    assert "internal error: ZeroDivisionError: by nothing" in err


def test_debug_shows_where_our_own_mistake_is(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(catalog, "describe", broken)
    assert execute(["--debug", "list", "metrics"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_exit_130_and_one_sentence(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(catalog, "describe", interrupted)
    code, _, err = said(capsys, "list", "metrics")
    assert code == EXIT_INTERRUPTED == 130
    assert "interrupted" in err


# --- verbs that only look ---------------------------------------------------------------------------------------------


def test_validate_tells_scenarios_and_rule_files_apart(capsys: Captured, scenario: Path, require_tool: object) -> None:
    require_tool("promtool")  # type: ignore[operator]
    rules = scenario.parent / "rules.yml"
    rules.write_text(RULES, encoding="utf-8")
    code, out, _ = said(capsys, "validate", scenario, rules)
    assert code == 0
    assert out.splitlines() == [f"ok   {scenario}: 2 hosts, 1 fault, 0 expectations", f"ok   {rules}: 1 rule in 1 group"]


def test_validate_looks_at_every_file_also_after_a_bad_one(capsys: Captured, scenario: Path) -> None:
    bad = scenario.parent / "bad.yaml"
    bad.write_text(GOOD.replace("memory: 1GiB", "memory: 1GB"), encoding="utf-8")
    code, out, err = said(capsys, "validate", bad, scenario)
    assert code == 2
    assert f"{bad}:7: " in err and "'1GB'" in err
    assert str(scenario) in out
    code, out, _ = said(capsys, "validate", bad, scenario, "--json")
    assert [(file["ok"], file.get("line")) for file in json.loads(out)["files"]] == [(False, 7), (True, None)]


def test_list_metrics_is_a_list_of_name_type_help_labels_exporter(capsys: Captured) -> None:
    code, out, _ = said(capsys, "list", "metrics", "--json")
    metrics = json.loads(out)
    assert code == 0
    assert all(set(metric) == {"name", "type", "help", "labels", "exporter"} for metric in metrics)
    by_name = {metric["name"]: metric for metric in metrics}
    assert by_name["node_memory_MemAvailable_bytes"]["type"] == "gauge"
    assert by_name["node_memory_MemAvailable_bytes"]["exporter"] == "node_exporter"


def test_list_hosts_says_who_will_be_hit_for_this_seed(capsys: Captured, scenario: Path) -> None:
    hit = set()
    for seed in range(8):
        _, out, _ = said(capsys, "list", "hosts", scenario, "--seed", seed, "--json")
        hosts = json.loads(out)
        assert [host["name"] for host in hosts] == ["web-0", "web-1"]
        (victim,) = [host["name"] for host in hosts if host["faults"] == ["leaking_allocator@app"]]
        hit.add(victim)
    assert hit == {"web-0", "web-1"}


@pytest.mark.parametrize("what", ["faults", "workloads"])
def test_plugins_are_listed_with_their_keys(what: str, capsys: Captured) -> None:
    _, out, _ = said(capsys, "list", what, "--json")
    rows = json.loads(out)
    assert rows and all(row["help"] and row["keys"] for row in rows)
    _, table, _ = said(capsys, "list", what)
    assert all(row["name"] in table for row in rows)


def test_doctor_says_what_it_found_and_how_to_mend_what_is_missing(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FLEETSIM_PROMETHEUS_DIR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # an empty folder: no Prometheus here
    code, out, _ = said(capsys, "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code == 3
    assert set(checks) == {"python", "packages", "prometheus", "promtool", "cores", "memory", "cache", "disk"}
    assert checks["python"]["state"] == "ok"
    assert checks["prometheus"]["state"] == "bad"
    assert "apt-get install prometheus" in checks["prometheus"]["mend"]
    _, page, _ = said(capsys, "doctor")
    assert "→" in page


# --- verbs that run ---------------------------------------------------------------------------------------------------


def test_run_gives_the_same_hash_for_the_same_seed_and_one_json_value(capsys: Captured, scenario: Path, tmp_path: Path) -> None:
    answers = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        code, out, _ = said(capsys, "run", scenario, "--out", tmp_path / name, "--seed", seed, "--profile", "standard", "--json")
        assert code == 0
        answers.append(json.loads(out))
    assert answers[0]["history_hash"] == answers[1]["history_hash"] != answers[2]["history_hash"]
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["history_hash"] == answers[0]["history_hash"]
    assert (manifest["seed"], manifest["metric_profile"]) == (7, "standard")


def test_run_will_not_write_over_anything(capsys: Captured, scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    code, _, err = said(capsys, "run", scenario, "--out", tmp_path / "mine")
    assert code == 2
    assert "not empty" in err and "seed 7 (incident)" in err and "--seed 7" in err


def test_check_without_any_rule_says_where_one_could_be(capsys: Captured, scenario: Path) -> None:
    code, _, err = said(capsys, "check", scenario)
    assert code == 2
    assert "--rules FILE" in err
