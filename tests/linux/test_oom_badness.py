# SPDX-License-Identifier: Apache-2.0
"""Badness, and the score people see of it."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.linux.oom_badness import OOM_INELIGIBLE, badness_2_6_11, oom_adj_of, oom_badness, proc_oom_score
from tests.linux import naive

HOST_16_GIB = 4_194_304  # pages


@pytest.mark.parametrize(
    ("rss", "adj", "score"),
    [(1 << 20, 0, 833), (1 << 20, -998, 168), (25_600, 1000, 1337), (1 << 19, 500, 1082), (1000, 0, 666)],
)
def test_oom_score_of_a_16_gib_host(rss: int, adj: int, score: int) -> None:
    """T-7.1."""
    assert proc_oom_score(oom_badness(rss, 0, 0, adj, HOST_16_GIB), HOST_16_GIB) == score


def test_badness_counts_memory_swap_and_page_tables_and_nothing_else() -> None:
    """T-7.1: 4 GiB at adj −998."""
    assert oom_badness(1 << 20, 0, 0, -998, HOST_16_GIB) == -3_137_036
    assert oom_badness(100, 20, 3 * 4096 + 4095, 0, HOST_16_GIB) == 123


def test_adj_minus_1000_is_never_chosen_and_scores_zero() -> None:
    assert oom_badness(1 << 22, 0, 0, -1000, HOST_16_GIB) == OOM_INELIGIBLE
    assert proc_oom_score(OOM_INELIGIBLE, HOST_16_GIB) == 0


def test_scores_are_those_a_real_kernel_showed(shared_dir: Path) -> None:
    """e17: a shielded, a plain and an offered task; the row before the first kill. Page tables are in VmPTE."""
    folder = shared_dir / "recordings" / "e17_oom_adj"
    total = json.loads((folder / "start.json").read_text())["MemTotal_kB"] // 4
    with gzip.open(folder / "trace.csv.gz", "rt") as file:
        row = next(r for r in csv.DictReader(file) if float(r["time_s"]) >= 30)
    for task, adj in (("shielded", -1000), ("plain", 0), ("cheap", 500), ("grower", 0)):
        rss, pte_kb = (int(row[f"proc.{task}.{column}"]) for column in ("rss_kB", "VmPTE_kB"))
        assert proc_oom_score(oom_badness(rss // 4, 0, pte_kb * 1024, adj, total), total) == pytest.approx(
            int(row[f"proc.{task}.oom_score"]), abs=1
        )  # rss grows while the sampler reads the row


@given(st.integers(0, 2**30), st.integers(-999, 1000), st.integers(1000, 2**31))
def test_oom_score_equals_its_naive_twin(rss: int, adj: int, total: int) -> None:
    points = oom_badness(rss, 0, 0, adj, total)
    assert points == rss + adj * (total // 1000)
    assert proc_oom_score(points, total) == naive.proc_oom_score(points, total)


@pytest.mark.parametrize(
    ("fields", "points"),
    [
        ({}, 100_000),
        ({"children_vm": 50_000}, 150_000),  # all of it, not half as later kernels
        ({"cpu_s": 7}, 100_000),
        ({"cpu_s": 8 * 25}, 20_000),  # divided by the root of its eighths of … seconds
        ({"run_s": 1023}, 100_000),
        ({"run_s": 16 * 1024}, 50_000),  # the fourth root of 16
        ({"nice": 1}, 200_000),
        ({"nice": -5}, 100_000),  # only penalised, never favoured
        ({"superuser": True}, 25_000),
        ({"superuser": True, "rawio": True}, 6_250),
        ({"oom_adj": 3}, 800_000),
        ({"oom_adj": -3}, 12_500),
        ({"oom_adj": -17}, OOM_INELIGIBLE),
    ],
)
def test_before_2_6_36_age_and_nice_counted_and_what_was_resident_did_not(fields: dict[str, int], points: int) -> None:
    """kernel-laws §7.5, mm/oom_kill.c badness of 2.6.11."""
    given = {"children_vm": 0, "cpu_s": 0, "run_s": 0, "nice": 0, "superuser": False, "rawio": False, "oom_adj": 0} | fields
    assert badness_2_6_11(100_000, *given.values()) == points


@pytest.mark.parametrize(("new", "old"), [(-1000, -17), (-999, -16), (-59, -1), (-58, 0), (0, 0), (500, 8), (999, 16), (1000, 15)])
def test_the_older_scale_of_oom_adj(new: int, old: int) -> None:
    """fs/proc/base.c oom_adj_read."""
    assert oom_adj_of(new) == old
