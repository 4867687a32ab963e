# SPDX-License-Identifier: Apache-2.0
"""`fleetsim cat`: the files of a host as a person reads them, and as the real tools do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetsim.cli.main import execute

SCENARIO = """\
summary: A host to look at.
seed: 7
duration: 1m
fleet:
  - hosts: 1
    name: web
    memory: 1GiB
    sysctl: {vm.swappiness: 10}
    pods:
      - {name: app, workload: script, requests: 64MiB, ops: [mmap_anon A 64, touch A 32 0, sleep 500]}
"""
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "look.yaml"
    file.write_text(SCENARIO, encoding="utf-8")
    return file


def said(capsys: Captured, *arguments: object) -> tuple[int, str, str]:
    code = execute(["cat", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def test_files_are_printed_one_after_the_other(scenario: Path, capsys: Captured) -> None:
    code, out, _ = said(capsys, scenario, "web-0", "/proc/sys/vm/swappiness", "/proc/meminfo", "--at", "20s")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "10"
    assert lines[1].startswith("MemTotal:") and lines[1].endswith(" kB")


def test_time_passes_between_two_looks(scenario: Path, capsys: Captured) -> None:
    free = {}
    for at in ("0s", "20s"):
        _, out, _ = said(capsys, scenario, "web-0", "/proc/meminfo", "--at", at, "--json")
        meminfo = json.loads(out)["files"]["/proc/meminfo"]
        free[at] = int(next(line for line in meminfo.splitlines() if line.startswith("MemFree")).split()[1])
    assert free["0s"] - free["20s"] > 32 * 1024  # the 32 MiB that were touched


def test_a_process_adds_up_the_same_in_all_its_files(scenario: Path, capsys: Captured) -> None:
    _, listed, _ = said(capsys, scenario, "web-0", "--list", "--at", "20s")
    assert listed.splitlines() == sorted(listed.splitlines())
    pid = next(path.split("/")[2] for path in listed.splitlines() if path.endswith("/smaps"))
    _, smaps, _ = said(capsys, scenario, "web-0", f"/proc/{pid}/smaps", "--at", "20s")
    _, rollup, _ = said(capsys, scenario, "web-0", f"/proc/{pid}/smaps_rollup", "--at", "20s")
    _, statm, _ = said(capsys, scenario, "web-0", f"/proc/{pid}/statm", "--at", "20s")
    rss = sum(int(line.split()[1]) for line in smaps.splitlines() if line.startswith("Rss:"))
    assert rss == int(statm.split()[1]) * 4

    def sums(text: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for line in text.splitlines():
            if line.endswith(" kB") and not line.startswith(("Size", "KernelPageSize", "MMUPageSize", "Pss_Anon", "Pss_File", "Pss_Shmem")):
                name, kb = line.split()[:2]
                found[name] = found.get(name, 0) + int(kb)
        return found

    assert sums(rollup) == sums(smaps)
    pss = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss")}
    assert pss["Pss"] == pss["Pss_Anon"] + pss["Pss_File"] + pss["Pss_Shmem"]


def test_the_real_free_reads_what_is_printed(scenario: Path, capsys: Captured, tmp_path: Path, require_tool: Callable[[str], Path]) -> None:
    """`free` of procps, its /proc replaced by ours."""
    _, out, _ = said(capsys, scenario, "web-0", "/proc/meminfo", "--at", "20s")
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(out, encoding="ascii")
    command = f"mount --bind {meminfo} /proc/meminfo && {require_tool('free')} -k"
    done = subprocess.run([str(require_tool("unshare")), "--mount", "sh", "-c", command], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    total = next(line for line in out.splitlines() if line.startswith("MemTotal")).split()[1]
    assert done.stdout.splitlines()[1].split()[1] == total


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("web-0",), "say which files to print"),
        (("web-0", "/proc/meminf", "--at", "1s"), "has no file '/proc/meminf'; near it are /proc/meminfo"),
        (("web-0", "/proc/meminfo", "--at", "soon"), "--at is 'soon'"),
        (("web-0", "/proc/meminfo", "--at", "2h"), "but look lasts 1m"),
        (("db-0", "/proc/meminfo"), "there is no host 'db-0' in look; its hosts are: web-0"),
    ],
)
def test_bad_input_is_one_sentence(scenario: Path, capsys: Captured, arguments: tuple[str, ...], sentence: str) -> None:
    code, out, err = said(capsys, scenario, *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
