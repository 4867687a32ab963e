# SPDX-License-Identifier: Apache-2.0
"""`fleetsim walk` as a learner meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleetsim.cli.main import execute

SCENARIO = """\
summary: Something to walk through.
seed: 7
duration: 1m
fleet:
  - hosts: 1
    name: web
    memory: 1GiB
    thp: never
    pods:
      - name: app
        workload: script
        requests: 64MiB
        limits: 256MiB
        ops: [mmap_anon A 64, touch A 32 0, fork_hold 500, rewrite A 1 1 seq, sleep 500]
"""
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "walk.yaml"
    file.write_text(SCENARIO, encoding="utf-8")
    return file


def said(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    code = execute(["walk", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def host(capsys: Captured, scenario: Path) -> str:
    _, _, err = said(capsys, scenario, "?", "app", "A")
    return err.split("its hosts are: ")[1].splitlines()[0]


def test_a_walk_is_printed_level_by_level(scenario: Path, capsys: Captured) -> None:
    code, out, _ = said(capsys, scenario, host(capsys, scenario), "app", "A+20MiB", "--at", "20s", "--write")
    assert code == 0
    rows = [line.split()[0] for line in out.splitlines() if line[:3] in ("PGD", "P4D", "PUD", "PMD", "PTE")]
    assert rows == ["PGD", "PUD", "PMD", "PTE"]
    assert "physical 0x" in out and "#PF error code 0x7 (protection, write, user mode)" in out and "cow (minor fault)" in out
    _, five, _ = said(capsys, scenario, host(capsys, scenario), "app", "A+20MiB", "--at", "20s", "--levels", 5)
    assert [line.split()[0] for line in five.splitlines() if line[:3] in ("PGD", "P4D", "PUD", "PMD", "PTE")][:2] == ["PGD", "P4D"]
    assert "goes ahead" in five


def test_json_is_one_value_with_the_same_walk(scenario: Path, capsys: Captured) -> None:
    code, out, _ = said(capsys, scenario, host(capsys, scenario), "app", "A+40MiB", "--at", "20s", "--json")
    value = json.loads(out)
    assert (
        code == 0
        and value["physical"] is None
        and value["outcome"]
        == {
            "name": "zero page",
            "kind": "minor",
            "kernel": "Nothing was ever written there: it maps the one page of zeros that all share, read-only.",
        }
    )
    assert [step["level"] for step in value["walk"]] == ["PGD", "PUD", "PMD"] and value["walk"][-1]["entry"] == "0x0000000000000000"
    again = json.loads(said(capsys, scenario, host(capsys, scenario), "app", value["address"], "--at", "20s", "--json")[1])
    assert again == value, "an address by number is the address by name, and the answer is the same"


def test_addresses_that_are_nobodys_are_legal_questions(scenario: Path, capsys: Captured) -> None:
    name = host(capsys, scenario)
    assert "SIGSEGV (SEGV_MAPERR)" in said(capsys, scenario, name, "app", "0x1000", "--at", "20s")[1]
    assert "#GP" in said(capsys, scenario, name, "app", "0x800000000000", "--at", "20s")[1]
    assert "SEGV_ACCERR" in said(capsys, scenario, name, "app", "stack", "--exec", "--at", "20s")[1]


def test_maps_and_smaps_can_be_seen(scenario: Path, capsys: Captured) -> None:
    name = host(capsys, scenario)
    out = said(capsys, scenario, name, "app", "--maps", "--at", "20s")[1]
    assert "[heap]" in out and "[stack]" in out and "r-xp" in out
    assert "Pss_Dirty:" in said(capsys, scenario, name, "app", "--smaps", "--at", "20s")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["app", "A+", "--at", "20s"], "neither an address"),
        (["app", "Q", "--at", "20s"], "'Q' is neither an address, such as 0x7f0000001000, nor an area of the process"),
        (["app", "0x1ffffffffffffffff", "--at", "20s"], "more than 64 bits"),
        (["app", "A+5MB", "--at", "20s"], "write MiB"),
        (["app", "A", "--at", "2h"], "--at is 2h, but walk lasts 1m"),
        (["app", "A", "--at", "noon"], "write a duration with its unit"),
        (["app", "A", "--write", "--exec"], "give one of them"),
        (["app", "A", "--levels", "3"], "3"),
        (["ghost", "A", "--at", "20s"], "'ghost' is no process"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(arguments: list[str], words: str, scenario: Path, capsys: Captured) -> None:
    code, out, err = said(capsys, scenario, host(capsys, scenario), *arguments)
    assert (code, out) == (2, "")
    sentence, _ = err.strip().splitlines()
    assert words in sentence


@pytest.mark.parametrize("width", [80, 60])
def test_a_narrow_terminal_loses_no_word(scenario: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    arguments = (scenario, host(capsys, scenario), "app", "A+20MiB", "--at", "20s", "--write")
    _, wide, _ = said(capsys, *arguments)
    monkeypatch.setenv("COLUMNS", str(width))
    _, narrow, _ = said(capsys, *arguments)
    assert sorted(narrow.split()) == sorted(word for word in wide.split() if word != "meaning")
    lines = narrow.splitlines()
    assert max(len(line) for line in lines[1:]) <= max(width, 67), "the columns of an entry take 67"


def test_the_vsyscall_page_that_maps_lists(scenario: Path, capsys: Captured) -> None:
    """emulate_vsyscall with vsyscall=xonly: three calls are emulated; reads and writes get SIGSEGV, as does any other address in it."""
    name = host(capsys, scenario)

    def outcome(address: str, *how: str) -> tuple[str, str, str]:
        _, out, _ = said(capsys, scenario, name, "app", address, "--at", "20s", "--json", *how)
        value = json.loads(out)
        return value["outcome"]["name"], value["outcome"]["kind"], value["outcome"]["kernel"]

    for address, call in (("0xffffffffff600000", "gettimeofday()"), ("vsyscall+0x400", "time()"), ("[vsyscall]+0x800", "getcpu()")):
        called = outcome(address, "--exec")
        assert called[:2] == ("vsyscall", "") and call in called[2]
    for address in ("vsyscall+0x8", "vsyscall+0xc00"):
        assert outcome(address, "--exec")[:2] == ("no vsyscall", "SIGSEGV")
    assert outcome("vsyscall")[:2] == ("vsyscall read", "SIGSEGV")
    assert outcome("vsyscall", "--write")[:2] == ("vsyscall write", "SIGSEGV")
    assert outcome("0xffffffffff601000")[0] == "kernel address"
    _, out, _ = said(capsys, scenario, name, "app", "vsyscall", "--at", "20s", "--exec")
    assert "[vsyscall]" in out and "the entry is not present" in " ".join(out.split())
