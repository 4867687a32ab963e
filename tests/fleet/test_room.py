# SPDX-License-Identifier: Apache-2.0
"""A fleet that does not fit into memory is refused before anything is started, with the number of hosts that would fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleetsim.cli.main import execute
from fleetsim.errors import BadInput
from fleetsim.fleet import room
from fleetsim.fleet.plan import Plan, make_plan
from fleetsim.fleet.scenario import load_scenario

SCENARIO = """\
summary: x
duration: 1m
fleet:
  - {{hosts: {hosts}, name: web, memory: 1GiB}}
"""


def file_of(folder: Path, hosts: int) -> Path:
    file = folder / f"fleet-{hosts}.yaml"
    file.write_text(SCENARIO.format(hosts=hosts), encoding="utf-8")
    return file


def plan_of(folder: Path, hosts: int) -> Plan:
    return make_plan(load_scenario(file_of(folder, hosts)))


def test_the_number_that_would_fit_fits_and_one_more_does_not(tmp_path: Path) -> None:
    available = 1 << 30
    with pytest.raises(BadInput) as error:
        room.check_room(plan_of(tmp_path, 3000), 2, available, "this machine")
    fit = int(re.search(r"about ([0-9,]+) hosts would fit", str(error.value)).group(1).replace(",", ""))  # type: ignore[union-attr]
    assert 1000 < fit < 3000
    room.check_room(plan_of(tmp_path, fit), 2, available, "this machine")
    with pytest.raises(BadInput):
        room.check_room(plan_of(tmp_path, fit + 1), 2, available, "this machine")


def test_where_even_the_processes_do_not_fit_no_host_does(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="about 0 hosts would fit"):
        room.check_room(plan_of(tmp_path, 3), 8, 100 << 20, "the Ray cluster")


def test_a_machine_that_does_not_say_what_it_has_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "none")
    assert room.available_here() is None
    room.check_room(plan_of(tmp_path, 3), 1, None, "this machine")


def test_run_is_exit_2_one_sentence_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:        4000000 kB\nMemAvailable:     400000 kB\n", encoding="ascii")
    monkeypatch.setattr(room, "MEMINFO", meminfo)
    out = tmp_path / "out"
    assert execute(["run", str(file_of(tmp_path, 1000)), "--out", str(out)]) == 2
    told = capsys.readouterr().err.splitlines()[0]
    assert told.startswith("fleetsim: fleet-1000: 1,000 hosts need about ")
    assert "but this machine has 390MiB; about" in told
    assert not out.exists()


def test_so_many_seeds_run_beside_each_other_as_fit(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, 100)
    one = room.PROCESS + 100 * room.host_bytes()
    assert [room.actors_that_fit(plan, available) for available in (one - 1, one, 3 * one - 1, 3 * one, None)] == [1, 1, 2, 3, None]
