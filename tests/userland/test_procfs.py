# SPDX-License-Identifier: Apache-2.0
"""/proc texts against what a real Linux 6.1 printed (recordings) and what its source says it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleetsim.linux.vmstat_names import MEMINFO_FIELDS, VMSTAT_FIELDS
from fleetsim.userland import procfs


def test_meminfo_is_byte_for_byte_what_a_real_kernel_printed(shared_dir: Path) -> None:
    """Read each recording's file, print its numbers again: the same text. (Its CPU has no 1 GiB pages: that line is ours alone.)"""
    recordings = sorted((shared_dir / "recordings").glob("*/start.json"))
    assert len(recordings) > 20
    for path in recordings:
        real = json.loads(path.read_text())["meminfo_before_t0"]
        numbers = {line.split(":")[0]: int(line.split()[1]) for line in real.splitlines()}
        ours = procfs.meminfo([numbers.get(field, 0) for field in MEMINFO_FIELDS])
        assert ours.replace("DirectMap1G:           0 kB\n", "") == real.rstrip("\n") + "\n", path.parent.name


def test_a_huge_page_count_never_touches_its_name() -> None:
    """The kernel writes three blanks and then the number; a field of eight would glue a long one to the colon."""
    text = procfs.meminfo([123_456_789 if field == "HugePages_Total" else 0 for field in MEMINFO_FIELDS])
    assert "HugePages_Total:   123456789\n" in text


def test_vmstat_has_a_name_and_a_number_per_line_in_the_kernel_s_order() -> None:
    text = procfs.vmstat(range(len(VMSTAT_FIELDS)))
    assert text.startswith("nr_free_pages 0\nnr_zone_inactive_anon 1\n")
    assert text.endswith(f"nr_unstable {len(VMSTAT_FIELDS) - 1}\n")


@pytest.mark.parametrize(
    ("avg", "total", "text"),
    [
        ([0, 0, 0], 0, "avg10=0.00 avg60=0.00 avg300=0.00 total=0"),
        # T-9.2: half of the time stalled, for 2 s, from zero: 9.05 / 1.63 / 0.34 percent
        ([18550, 3350, 700], 1_000_000, "avg10=9.05 avg60=1.63 avg300=0.34 total=1000000"),
        ([204800, 2047, 20], 7, "avg10=100.00 avg60=0.99 avg300=0.00 total=7"),
    ],
)
def test_pressure_prints_2048ths_of_a_percent_cut_to_hundredths(avg: list[int], total: int, text: str) -> None:
    assert procfs.pressure([avg, [0, 0, 0]], [total, 0]) == f"some {text}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


def test_a_whole_machine_is_never_fully_stalled_for_cpu_but_a_cgroup_can_be() -> None:
    both = [[2048, 2048, 2048], [2048, 2048, 2048]], [5, 4]
    assert procfs.pressure(*both, system_cpu=True).splitlines()[1] == "full avg10=0.00 avg60=0.00 avg300=0.00 total=0"
    assert procfs.pressure(*both).splitlines()[1] == "full avg10=1.00 avg60=1.00 avg300=1.00 total=4"


def test_loadavg_is_rounded_by_half_a_hundredth() -> None:
    assert procfs.loadavg([3051, 5754, 0], 4, 201, 30958) == "1.49 2.81 0.00 4/201 30958\n"


def test_uptime_counts_hundredths_and_idle_of_all_cpus() -> None:
    assert procfs.uptime(2_332_599_999_999, 3_483_410_000_000) == "2332.59 3483.41\n"


def test_stat_has_the_kernel_s_lines_and_cpu_lines_that_sum_to_the_first() -> None:
    ticks = (84_203, 3124, 25_842, 348_340, 1473, 0, 1200, 665)
    cpu_ns = [[n // 3 * 10**7 for n in ticks], [(n - n // 3) * 10**7 for n in ticks]]
    lines = procfs.stat(cpu_ns, 1_700_000_000, 30_958, 4, 2).splitlines()
    assert lines[0] == "cpu  84203 3124 25842 348340 1473 0 1200 665 0 0"
    assert [line.split()[0] for line in lines] == [
        *("cpu", "cpu0", "cpu1", "intr", "ctxt", "btime", "processes", "procs_running", "procs_blocked", "softirq")
    ]
    per_cpu = [list(map(int, line.split()[1:])) for line in lines[1:3]]
    total = list(map(int, lines[0].split()[1:]))
    assert total == [sum(parts) for parts in zip(*per_cpu)]
    assert per_cpu[0][0] == 84_203 // 3
    assert lines[5:9] == ["btime 1700000000", "processes 30958", "procs_running 4", "procs_blocked 2"]


def test_the_version_is_that_of_the_kernel_whose_laws_hold_and_of_uname(shared_dir: Path) -> None:
    from fleetsim.observe.node_exporter import UNAME

    assert UNAME["release"] in procfs.VERSION and procfs.VERSION.endswith(UNAME["version"] + "\n")
    real = json.loads((shared_dir / "recordings" / "e01_idle" / "start.json").read_text())["kernel"]
    assert procfs.VERSION.rstrip("\n") == real.replace("-cloud-amd64", "-amd64"), "the recorded one is Debian's cloud flavour"
