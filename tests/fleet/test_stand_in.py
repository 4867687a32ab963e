# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for actors answer as real ones of a calm fleet do: the controller writes the same history with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from fleetsim.cli.main import execute
from fleetsim.errors import ToolFailed
from fleetsim.fleet.checkpoint import Every
from fleetsim.fleet.controller import run_plan
from fleetsim.fleet.scale_fleet import NEEDED, scale_plan
from fleetsim.fleet.stand_in import StandInEngine
from fleetsim.observe.catalog import profile

PROFILE = profile("rules", NEEDED)


def events_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def test_a_real_fleet_and_stand_ins_for_it_tell_as_much_of_the_start(tmp_path: Path) -> None:
    plan = scale_plan(4, 21, web_only=True)
    run_plan(plan, tmp_path / "real", PROFILE, 1)
    engines: list[StandInEngine] = []

    def make(kept: Any, writer: Any, number: int) -> StandInEngine:
        engines.append(StandInEngine(kept, writer, number, 2))
        return engines[0]

    run_plan(plan, tmp_path / "played", PROFILE, engine=make)
    kinds = ("boot", "task_start", "pod_ready", "fault_start")  # a stand-in is told of the leak and does nothing
    real, played = (
        sorted((e["host"], e["kind"], e["subject"]) for e in events_of(tmp_path / name) if e["kind"] in kinds)
        for name in ("real", "played")
    )
    assert len(real) == 4 * 3 + 1
    assert played == real
    assert engines[0].calls == 2 * 21 and engines[0].apart_s > 0


def test_the_balancer_sends_stand_ins_what_the_load_says(tmp_path: Path) -> None:
    plan = scale_plan(3, 21, web_only=True)
    ports: list[int] = []

    class Watched(StandInEngine):
        def stop(self) -> None:
            ports.extend(self.ports()["served"].tolist())
            super().stop()

    run_plan(plan, tmp_path / "run", PROFILE, engine=lambda kept, writer, number: Watched(kept, writer, number, 3))
    assert len(ports) == 3 and len(set(ports)) == 1 and 15 * 20 <= ports[0] <= 21 * 20  # 20 requests/s each, once they are ready


def test_the_command_says_what_the_controller_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["bench", "scale", "--stand-in", "1,4,9", "--hosts", "4", "--duration", "33s"]) == 0
    told = capsys.readouterr().out
    assert "4 hosts in 4 actors: the controller needs" in told and "9 actors" not in told


def test_nothing_is_kept_of_hosts_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ToolFailed, match="stand-ins for actors simulate nothing"):
        run_plan(
            scale_plan(4, 21, web_only=True),
            tmp_path / "played",
            PROFILE,
            engine=lambda kept, writer, number: StandInEngine(kept, writer, number, 2),
            every=Every(epochs=1),
        )
