# SPDX-License-Identifier: Apache-2.0
"""Model against measurement: the arithmetic, the page, and that each difference is within the issue's bound or explained."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from scripts.calibrate import compare, table
from scripts.calibrate.compare import Row, line_at, printed, read_models, rendered, rows, updated
from scripts.calibrate.differences import REASONS, TABLES, Compared, Figure
from scripts.calibrate.record import read
from scripts.calibrate.replay import SITUATIONS, modelled

RECORDS, MODELS = read(), read_models()
ROWS = {name: list(rows(one, RECORDS, MODELS)) for name, one in TABLES.items()}
PLAIN = Compared("plain", "redis", "fork", "{data_mib} MiB", (Figure("fork, ms", "fork_us", 30.0, 1e-3),))


def real(low: float, middle: float, high: float) -> dict[str, Any]:
    figures = {"fork_us": {"min": low, "median": middle, "max": high, "n": 3}}
    return {"program": "redis", "measurement": "fork", "parameters": {"data_mib": 1}, "figures": figures}


def ours(value: float, data_mib: int = 1) -> dict[str, Any]:
    return {"program": "redis", "measurement": "fork", "parameters": {"data_mib": data_mib}, "figures": {"fork_us": value}}


# -------------------------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    ("measured", "model", "percent", "beyond"),
    [
        (200, 200, 0, False),
        (200, 259, 29.5, False),
        (200, 261, 30.5, True),
        (200, 139, -30.5, True),
        (0, 0, 0, False),
        (0, 1, float("inf"), True),
    ],
)
def test_a_difference_is_the_models_to_the_median_in_percent_of_it(measured: float, model: float, percent: float, beyond: bool) -> None:
    (row,) = rows(PLAIN, [real(measured / 2, measured, measured * 2)], [ours(model)])
    assert row.percent == pytest.approx(percent) and row.beyond is beyond
    assert (row.low, row.measured, row.high, row.model) == pytest.approx((measured / 2e3, measured / 1e3, measured / 500, model / 1e3))


def test_a_situation_that_was_not_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="is not measured"):
        list(rows(PLAIN, [real(1, 2, 3)], [ours(2, data_mib=7)]))
    with pytest.raises(ValueError, match="no model's figure for plain"):
        rendered(PLAIN, [real(1, 2, 3)], [])


def test_a_point_on_the_line_through_the_real_pauses() -> None:
    figures = {"young_processor_per_copied_mib_ms": (1.0, 2.0, 3.0), "young_processor_at_nothing_copied_ms": (-1.0, 0.5, 1.0)}
    fit = {"figures": {name: dict(zip(("min", "median", "max"), values, strict=True)) for name, values in figures.items()}}
    assert line_at(fit, 10) == {"min": 9.0, "median": 20.5, "max": 31.0}


def test_a_difference_beyond_its_bound_is_marked_where_it_is_read() -> None:
    text = rendered(PLAIN, [real(100_000, 200_000, 300_000)], [ours(300_000)])
    assert "| 1 MiB | fork, ms | 200 (100–300) | 300 | +50 | 30 | not explained |" in text
    assert "not explained" in printed(PLAIN, list(rows(PLAIN, [real(1, 2, 3)], [ours(3)])))


# -------------------------------------------------------------------------------------------------------------------- page


def test_the_page_is_what_the_figures_give() -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    assert updated(page, RECORDS, MODELS) == page, "python -m scripts.calibrate.compare --page"
    assert {found[1] for found in compare.PLACE.finditer(page)} == set(TABLES)


def test_a_models_figure_that_was_changed_is_found_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    changed = copy.deepcopy(MODELS)
    next(m for m in changed if m["measurement"] == "dataset")["figures"]["vmrss_bytes"] *= 1.1
    monkeypatch.setattr(compare, "read_models", lambda: changed)
    assert compare.main(["--check"]) == 1
    assert "older than the models' figures" in capsys.readouterr().err
    monkeypatch.undo()
    assert compare.main(["--check"]) == 0


def test_what_is_not_known_is_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--pages"]) == 2
    assert "'--pages' is neither --page nor --check" in capsys.readouterr().err
    with pytest.raises(ValueError, match="a comparison 'mysql'"):
        updated("<!-- compared mysql -->\n<!-- end -->", RECORDS, MODELS)


def test_every_measurement_that_has_a_model_is_compared_and_every_figure_somewhere() -> None:
    wanted = [r for r in RECORDS if (r["program"], r["measurement"]) in SITUATIONS and modelled(r["parameters"])]
    assert [(r["measurement"], r["parameters"]) for r in wanted] == [(m["measurement"], m["parameters"]) for m in MODELS]
    for name, one in TABLES.items():
        assert {row.figure.name for row in ROWS[name]} == {figure.name for figure in one.figures}


@pytest.mark.parametrize(
    "measurement",
    [
        *("dataset", "mass deletion", "fork", "save under writes", "maxmemory", "at start", "pause fit", "load"),
        *("backends", "sort", "page cache", "writes"),
    ],
)
def test_the_figures_are_those_of_todays_models(measurement: str) -> None:
    """The first situation of each kind anew, in plain Python; make calibrate does them all."""
    (number,) = [k for k, r in enumerate(RECORDS) if r == next(r for r in RECORDS if r["measurement"] == measurement)]
    code = f"import json; from scripts.calibrate import record, replay; print(json.dumps(replay.replay(record.read()[{number}])))"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=table.PAGE.parents[1], env=environment, capture_output=True, text=True, check=True
    )
    found: Mapping[str, Any] = json.loads(said.stdout)
    assert found == next(m for m in MODELS if m["measurement"] == measurement), "make calibrate"


# ------------------------------------------------------------------------------------------------------------------ bounds


def beyond(name: str, *figures: str) -> list[Row]:
    found = [row for row in ROWS[name] if row.figure.name in figures]
    assert found
    return [row for row in found if row.beyond]


def test_redis_has_as_much_memory_within_15_percent() -> None:
    for name in ("redis-dataset", "redis-deletion", "redis-maxmemory"):
        assert not beyond(name, *(figure.name for figure in TABLES[name].figures)), name
        assert all(figure.bound_percent == 15 for figure in TABLES[name].figures)


def test_a_save_copies_as_much_within_15_percent_wherever_somebody_writes() -> None:
    late = beyond("redis-save", "cow_bytes", "writes_count")
    assert {row.situation for row in late} == {"0 SET/s, huge pages: False"}
    assert all(row.model - row.measured < 2 for row in late), "MiB"


def test_a_saves_processor_time_and_a_jvms_pauses_are_within_30_percent() -> None:
    assert not beyond("redis-save", "save_processor_per_gib_s")
    assert not beyond("jvm-fit", *(figure.name for figure in TABLES["jvm-fit"].figures))
    assert not beyond("jvm-load", "young_processor_mean_ms", "last_full_processor_ms")
    assert not beyond("jvm-start", "rss_kib")


def test_a_fork_is_within_30_percent_on_the_profile_of_a_virtual_machine() -> None:
    assert not beyond("redis-fork", "fork_us", "vmrss_bytes")
    assert {row.situation.rpartition(" ")[2] for row in beyond("redis-fork", "command_processor_per_gib_us")} == {"True"}


def test_databases_processes_hits_and_writes_are_within_15_percent() -> None:
    assert not beyond("postgres-cache", *(figure.name for figure in TABLES["postgres-cache"].figures))
    assert not beyond("postgres-writes", *(figure.name for figure in TABLES["postgres-writes"].figures))
    assert not beyond("postgres-backends", "rss_per_backend_kib", "shmem_per_backend_kib", "rss_sum_kib", "pss_sum_kib")
    assert {row.situation for row in beyond("postgres-sort", "spike_kib")} == {"work_mem 4MB", "work_mem 256MB"}


def test_g1_collects_as_often_and_has_as_much_memory_at_the_end() -> None:
    late = beyond("jvm-load", "young_per_s", "done_rss_kib")
    assert {row.situation for row in late} == {"Serial, 400 MiB live, 2 % survive"}
    assert all(abs(row.percent) < 35 for row in late)


def test_a_figure_may_be_held_against_the_least() -> None:
    least = Compared("plain", "redis", "fork", "{data_mib} MiB", (Figure("fork, ms", "fork_us", 30.0, 1e-3, of="min"),))
    (row,) = rows(least, [real(100, 200, 300)], [ours(110)])
    assert row.percent == pytest.approx(10) and (row.low, row.high) == pytest.approx((0.1, 0.3))


def test_every_difference_beyond_its_bound_is_explained_and_every_explanation_is_needed() -> None:
    late = [row for found in ROWS.values() for row in found if row.beyond]
    assert [f"{row.situation}: {row.figure.title}" for row in late if row.reason is None] == []
    assert {id(row.reason) for row in late} == {id(reason) for reason in REASONS}
