# SPDX-License-Identifier: Apache-2.0
"""Records and the document made of them: spreads, refusals, and that docs/calibration.md says what the records say."""

from __future__ import annotations

import glob
from pathlib import Path
from statistics import median

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scripts.calibrate import table
from scripts.calibrate.__main__ import MEASUREMENTS, main
from scripts.calibrate.record import FOLDER, MODEL, figures_of, machine, read, record, spread, write
from scripts.calibrate.redis_save import percentile
from tests.tidy import repository

RECORDS = read()


def entry(**figures: object) -> dict[str, object]:
    return {"program": "redis", "measurement": "maxmemory reached", "parameters": {"policy": "noeviction"}, "figures": figures}


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=9))
@example([134_217_728.0])
def test_a_spread_is_min_median_and_max_to_five_digits_and_counts_are_exact(values: list[float]) -> None:
    made = spread(values)
    assert made["n"] == len(values)
    for name, exact in (("min", min(values)), ("median", median(values)), ("max", max(values))):
        assert made[name] == pytest.approx(exact, rel=0 if float(exact).is_integer() else 5e-5)


def test_fewer_than_three_repeats_are_no_measurement() -> None:
    with pytest.raises(ValueError, match="2 repeats"):
        figures_of([{"a_ms": 1.0}, {"a_ms": 2.0}])


def test_a_text_that_differs_between_repeats_is_no_figure() -> None:
    assert figures_of([{"says": "no"}] * 3) == {"says": "no"}
    with pytest.raises(ValueError, match="says differs"):
        figures_of([{"says": "no"}, {"says": "no"}, {"says": "yes"}])


def test_a_figure_that_some_repeats_lack_is_taken_over_the_others() -> None:
    assert figures_of([{"a_ms": 1.0}, {"a_ms": None}, {"a_ms": 3.0, "b_ms": 5.0}]) == {
        "a_ms": {"min": 1, "median": 2, "max": 3, "n": 2},
        "b_ms": {"min": 5, "median": 5, "max": 5, "n": 1},
    }


@given(st.lists(st.integers(-100, 100), min_size=1, max_size=60), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[int], percent: int) -> None:
    found = percentile(values, percent)
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = record("redis", "7.0", "fork", {"data_mib": 1}, [{"fork_us": float(us)} for us in (3, 1, 2)])
    write("redis_save", [made], tmp_path)
    assert read(tmp_path) == [made]
    assert made["figures"]["fork_us"] == {"min": 1, "median": 2, "max": 3, "n": 3}
    assert set(machine()) <= set(made)


def test_a_measurement_that_does_not_exist_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mysql"]) == 2
    assert "'mysql' is no measurement; there are redis_memory" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "program"), [("redis_evict", "redis-server"), ("jvm_memory", "javac"), ("postgres", "initdb")])
def test_a_program_that_is_not_there_is_said_in_a_sentence(
    name: str, program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(glob, "glob", lambda pattern: [])  # where Debian keeps PostgreSQL
    assert main([name]) == 3
    assert f"no {program}" in (said := capsys.readouterr().err) and "ensure-calibration-tools.sh" in said


def test_every_measurement_has_its_records_with_three_repeats_or_more() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} - {MODEL} == set(MEASUREMENTS)
    for one in RECORDS:
        assert {"program", "version", "kernel", "cpu_model", "parameters", "figures", "when"} <= set(one)
        figures = [figure for figure in one["figures"].values() if isinstance(figure, dict)]
        assert figures or one["figures"], one["measurement"]
        assert all(figure["min"] <= figure["median"] <= figure["max"] for figure in figures)
        assert max((figure["n"] for figure in figures), default=3) >= 3


# ------------------------------------------------------------------------------------------------------------- the document


def test_the_page_is_what_its_records_give() -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    assert table.updated(page, RECORDS) == page, "python -m scripts.calibrate.table"


def test_the_page_names_tests_and_files_that_exist() -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    assert not list(repository.named_tests_exist(page, table.PAGE.parents[1]))


def test_every_table_is_on_the_page_and_every_column_is_measured() -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    assert {found[1] for found in table.PLACE.finditer(page)} == {"machines", *table.TABLES}
    for name, one in table.TABLES.items():
        rows = [r for r in RECORDS if (r["program"], r["measurement"]) == (one.program, one.measurement)]
        for column in one.columns:
            assert any(column.name in r["figures"] or column.name in r["parameters"] for r in rows), f"{name}: {column.name}"


def test_every_measurement_is_in_a_table() -> None:
    assert {(r["program"], r["measurement"]) for r in RECORDS} == {(t.program, t.measurement) for t in table.TABLES.values()}


def test_a_page_whose_figure_was_changed_by_hand_is_found_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    changed = table.PAGE.read_text(encoding="utf-8").replace("allkeys-lfu | 100 000", "allkeys-lfu | 100 001")

    class Page:
        def read_text(self, encoding: str) -> str:
            return changed

    monkeypatch.setattr(table, "PAGE", Page())
    assert table.main(["--check"]) == 1
    assert "older than its records" in capsys.readouterr().err


def test_a_cell_is_the_median_and_the_spread_where_there_is_one() -> None:
    column = table.Column("x", "x_bytes", 2**-20)
    assert table.cell(entry(x_bytes={"min": 2**20, "median": 2**21, "max": 2**22, "n": 3}), column) == "2 (1–4)"
    assert table.cell(entry(x_bytes={"min": 10**8, "median": 10**8 + 1, "max": 10**8 + 2, "n": 3}), column) == "95.4"
    assert table.cell(entry(), column) == "–"
    assert table.cell(entry(x_bytes="a|b"), column) == "a\\|b"


def test_a_page_that_asks_for_an_unknown_table_is_refused() -> None:
    with pytest.raises(ValueError, match="a table 'mysql'"):
        table.updated("<!-- measured mysql -->\n<!-- end -->", RECORDS)
    with pytest.raises(ValueError, match="nothing is measured of redis: fork"):
        table.updated("<!-- measured redis-fork -->\n<!-- end -->", [])
