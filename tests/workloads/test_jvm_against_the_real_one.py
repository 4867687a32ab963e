# SPDX-License-Identifier: Apache-2.0
"""The JVM workload against a real OpenJDK 17: figures of `tests/ground_truth/calibration/` (see docs/calibration.md there).

The real machine was busy, so pauses are compared by processor time. G1 made its eden small there, because its pauses were long: how often
a JVM collects and how much it touches is compared for the Serial collector, whose eden does not depend on pauses.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetsim.workloads import jvm_sizes
from fleetsim.workloads import jvm_state as v
from scripts.worlds.jvm import FULL_AFTER_S, JvmWorld, alone, full_processor_ms, until_up, young_collection

RECORDS = Path(__file__).resolve().parents[1] / "ground_truth" / "calibration"
LOADS = [(100, 300, 2), (400, 300, 2), (400, 300, 20)]  # live MiB, MiB/s, percent that lives long: at 1 GiB


@cache
def records(file: str) -> list[dict[str, Any]]:
    path = RECORDS / file
    if not path.exists():
        pytest.skip(f"{path.name} was not recorded yet")
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def figures(file: str, measurement: str, **parameters: object) -> dict[str, float]:
    """Medians of one record."""
    for record in records(file):
        if record["measurement"] == measurement and all(record["parameters"].get(k) == value for k, value in parameters.items()):
            return {name: float(figure["median"]) for name, figure in record["figures"].items()}
    raise AssertionError(f"no record {measurement} {parameters}")


@pytest.mark.parametrize(("live", "rate", "percent"), LOADS)
def test_serial_collects_as_often_and_has_as_much_memory(live: int, rate: int, percent: int) -> None:
    real = figures("jvm.json", "load", collector="Serial", live_mib=live, alloc_mib_per_s=rate, survive_percent=percent)
    jvm = alone("serial", live, rate, percent)
    at = until_up(jvm)
    assert jvm.rss_mib() == pytest.approx(real["filled_rss_kib"] / 1024, rel=0.15)
    before = jvm.count(JvmWorld.YOUNG)
    jvm.at(at + 8)
    assert (jvm.count(JvmWorld.YOUNG) - before) / 8 == pytest.approx(real["young_per_s"], rel=0.30)
    assert jvm.rss_mib() == pytest.approx(real["done_rss_kib"] / 1024, rel=0.15)
    assert jvm["CAPACITY"] / (1 << 20) == pytest.approx(real["done_committed_mib"], rel=0.15)


@pytest.mark.parametrize(("collector", "threads"), [("G1", 2), ("Serial", 1)])
def test_processor_time_of_young_collections_per_mib_copied(collector: str, threads: int) -> None:
    """The line through the real pauses, where a tenth and where a third of eden lives; ours includes what touching the copies costs."""
    real = figures("jvm.json", "pause fit", collector=collector)
    for percent in (10.0, 30.0):
        copied, pause_s = young_collection(alone(collector.lower(), 100, 100, percent, xms="1GiB"), percent)
        expected = copied * real["young_processor_per_copied_mib_ms"] + real["young_processor_at_nothing_copied_ms"]
        assert 1000 * threads * pause_s == pytest.approx(expected, rel=0.30)


@pytest.mark.parametrize(("collector", "live", "percent"), [("Serial", 100, 2), ("Serial", 400, 20), ("G1", 400, 20), ("G1", 400, 2)])
def test_processor_time_of_a_full_collection(collector: str, live: int, percent: int) -> None:
    """After four seconds of load; the law alone, from what the real one left."""
    real = figures("jvm.json", "load", collector=collector, heap_mib=1024, live_mib=live, survive_percent=percent)
    model = full_processor_ms(collector == "G1", real["last_full_left_mib"], FULL_AFTER_S * 300 * percent / 100)
    assert model == pytest.approx(real["last_full_processor_ms"], rel=0.45)


@pytest.mark.parametrize("collector", ["G1", "Serial"])
def test_a_jvm_that_does_nothing_has_as_much_memory(collector: str) -> None:
    real = figures("jvm_memory.json", "at start", collector=collector, threads=0)
    jvm = alone(collector.lower(), 1, 1, 0.0, workers=1)
    until_up(jvm)
    assert jvm.rss_mib() == pytest.approx(real["rss_kib"] / 1024, rel=0.15)


def test_two_hundred_threads_cost_a_tenth_of_a_mib_each() -> None:
    real = [figures("jvm_memory.json", "at start", collector="G1", threads=n)["rss_kib"] for n in (0, 200)]
    worlds = [alone("g1", 1, 1, 0.0, workers=1, threads=n) for n in (0, 200)]
    for world in worlds:
        until_up(world)
    assert worlds[1].rss_mib() - worlds[0].rss_mib() == pytest.approx((real[1] - real[0]) / 1024, rel=0.15)


def test_only_g1_gives_the_heap_back_after_one_full_collection() -> None:
    """Live data dropped, then System.gc(): G1 falls to a few MiB, Serial needs four in a row (ShrinkHeapInSteps)."""
    for kind, collector in enumerate(("Serial", "G1")):
        real = figures("jvm_memory.json", "given back", collector=collector)
        jvm = np.zeros(v.NR_USED, np.int64)
        jvm[v.COLLECTOR], jvm[v.HEAP_MAX], jvm[v.HEAP_INITIAL], jvm[v.REGION] = kind, 1 << 30, 376 << 20, 1 << 20
        jvm[v.CAPACITY], jvm[v.FREE_MIN], jvm[v.FREE_MAX] = 900 << 20, 40, 70
        jvm_sizes.resize(jvm, 2 << 20)
        falls = real["collected_rss_kib"] < 0.5 * real["dropped_rss_kib"]
        assert (jvm[v.CAPACITY] < 450 << 20) == falls
