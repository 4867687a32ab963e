# SPDX-License-Identifier: Apache-2.0
"""The catalogue speaks the real exporters' language: compared with pages scraped from the real node_exporter 1.5.0."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleetsim.errors import BadInput
from fleetsim.observe.catalog import BY_NAME, METRICS, NODE_EXPORTER, PROMETHEUS, VMSTAT_SHOWN, describe, meminfo_metric, profile

# Linux 6.1 prints these; the kernel on which the page was scraped did so too, under the same names.
PAGE = "metrics/scrapes/node_exporter-1.5.0.prom"


def real_families(page: str) -> dict[str, tuple[str, str, set[str]]]:
    """name → (type, help, label names) of a scraped page."""
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", page, re.M))
    labels: dict[str, set[str]] = {}
    for name, braces in re.findall(r"^(\w+)(?:\{(.*)\})? ", page, re.M):
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', braces))
    return {name: (kind, helps[name], labels.get(name, set())) for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M)}


def test_every_family_has_the_type_help_and_labels_that_the_real_exporter_gives_it(shared_dir: Path) -> None:
    real = real_families((shared_dir / PAGE).read_text())
    ours = {m.name: (m.type, m.help, set(m.labels)) for m in METRICS if m.exporter == NODE_EXPORTER}
    assert {name: ours[name] for name in ours if name in real} == {name: real[name] for name in ours if name in real}
    assert set(ours) - set(real) == set(), "every one of our families stands on the real page"


def test_all_meminfo_and_default_vmstat_families_of_the_real_exporter_are_ours_too(shared_dir: Path) -> None:
    real = {
        name for name in real_families((shared_dir / PAGE).read_text()) if name.startswith(("node_memory_", "node_vmstat_", "node_load"))
    }
    newer_kernel_or_zswap = {"node_memory_Balloon_bytes", "node_memory_Zswap_bytes", "node_memory_Zswapped_bytes"}
    not_built_in = {"node_memory_HardwareCorrupted_bytes"}
    assert real - set(BY_NAME) <= newer_kernel_or_zswap | not_built_in


def test_brackets_become_underscores_and_only_kilobyte_lines_get_a_unit() -> None:
    assert meminfo_metric("Active(anon)") == "node_memory_Active_anon_bytes"
    assert meminfo_metric("HugePages_Free") == "node_memory_HugePages_Free"
    assert meminfo_metric("Hugepagesize") == "node_memory_Hugepagesize_bytes"


def test_the_default_vmstat_filter_shows_seven_untyped_fields() -> None:
    assert sorted(VMSTAT_SHOWN) == ["oom_kill", "pgfault", "pgmajfault", "pgpgin", "pgpgout", "pswpin", "pswpout"]
    assert {BY_NAME[f"node_vmstat_{field}"].type for field in VMSTAT_SHOWN} == {"untyped"}


def test_the_rules_profile_keeps_what_rules_need_and_always_up() -> None:
    rules = profile("rules", {"node_memory_MemFree_bytes", "nobody_exports_this"})
    assert {m.name for m in METRICS if rules.keeps(m)} == {"node_memory_MemFree_bytes", "up"}


def test_each_profile_is_part_of_the_next_larger_one() -> None:
    standard = {m.name for m in METRICS if profile("standard").keeps(m)}
    assert {m.name for m in METRICS if profile("full").keeps(m)} == set(BY_NAME) > standard
    assert {"node_memory_MemAvailable_bytes", "node_vmstat_oom_kill", "node_boot_time_seconds", "scrape_duration_seconds"} < standard


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="unknown metric profile 'fulll'; known are: full, standard, rules"):
        profile("fulll")


def test_the_printed_catalogue_says_who_exports_what() -> None:
    rows = {row["name"]: row for row in describe()}
    assert set(rows["up"]) == {"name", "type", "help", "labels", "exporter"}
    assert rows["up"]["exporter"] == PROMETHEUS and rows["node_load1"]["exporter"] == NODE_EXPORTER
    assert rows["node_scrape_collector_success"]["labels"] == ["collector"]
