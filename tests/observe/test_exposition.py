# SPDX-License-Identifier: Apache-2.0
"""The page is the real exporter's page: numbers as Go prints them, families in order, readable by any client."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fleetsim.observe.catalog import profile
from fleetsim.observe.exposition import Page, go_float
from fleetsim.observe.node_exporter import Series, series


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (123456.0, "123456"),
        (999999.5, "999999.5"),
        (1e6, "1e+06"),
        (1234567.25, "1.23456725e+06"),
        (3.5184372087808e13, "3.5184372087808e+13"),
        (1e10, "1e+10"),
        (-1e7, "-1e+07"),
        (1e21, "1e+21"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (4.319e-05, "4.319e-05"),
        (5e-324, "5e-324"),
        (222.08421299999998, "222.08421299999998"),
        (1.8446744073709552e19, "1.8446744073709552e+19"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_look_as_go_prints_them(value: float, text: str) -> None:
    assert go_float(value) == text


def test_every_number_on_real_pages_is_printed_as_it_stands_there(shared_dir: Path) -> None:
    pages = sorted((shared_dir / "metrics" / "scrapes").glob("*_exporter-*.prom"))
    numbers = [text for page in pages for text in re.findall(r"^[a-z_A-Z:0-9]+(?:\{.*\})? (\S+)$", page.read_text(), re.M)]
    assert len(numbers) > 1000
    assert [text for text in numbers if go_float(float(text)) != text] == []


@given(st.floats(allow_nan=False))
def test_no_digit_is_lost(value: float) -> None:
    assert float(go_float(value)) == value


def test_a_reader_gets_back_every_series_and_value() -> None:
    shown = series(profile("full"), host='odd"name\\with\nall')
    page = Page(shown).render([float(i) for i in range(len(shown))])
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    assert [(s.name, s.labels, s.value) for s in samples] == [(one.name, dict(one.labels), i) for i, one in enumerate(shown)]


def test_a_family_is_introduced_once_before_its_first_series() -> None:
    page = Page([Series("node_scrape_collector_success", (("collector", name),)) for name in ("stat", "time")]).render([1.0, 0.0])
    assert page == (
        "# HELP node_scrape_collector_success node_exporter: Whether a collector succeeded.\n"
        "# TYPE node_scrape_collector_success gauge\n"
        'node_scrape_collector_success{collector="stat"} 1\n'
        'node_scrape_collector_success{collector="time"} 0\n'
    )


def test_the_whole_page_is_the_golden_page(golden: Callable[[str, str], None]) -> None:
    """Every line of a full page, values 0, 1.5, 3 … so that a moved line shows."""
    shown = series(profile("full"), host="db-0")
    golden("node_exporter_full.prom", Page(shown).render([1.5 * i for i in range(len(shown))]))
