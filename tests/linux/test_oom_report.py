# SPDX-License-Identifier: Apache-2.0
"""The OOM killer's log, line by line against the logs of a real kernel: read the numbers of a recorded report, print them again,
and nothing may differ. A short report from literals stays for machines without the recordings."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fleetsim.linux.mm_types import NO_LIMIT
from fleetsim.linux.oom_report import (
    NodeInfo,
    OomScope,
    OomTask,
    ZoneInfo,
    mem_info,
    memcg_info,
    oom_invoked,
    oom_kill,
    oom_killed,
    oom_reaped,
    stamp,
    task_dump,
)

GROUND_TRUTH = Path(__file__).resolve().parents[1] / "ground_truth"
GLOBAL = ["e02_oom_noswap", "e03_oom_swap", "e17_oom_adj", "e30_eight_gib", "repeats/e02_oom_noswap_tcg", "repeats/e03_oom_swap_tcg"]
MEMCG = ["e06_memcg_oom", "repeats/e06_memcg_oom_r2"]
STACK = re.compile(r"<1>(CPU: |Hardware name|Call Trace|RIP: |Code: |RSP: |R[A-Z0-9]{2}: | <TASK>| </TASK>|  ?[\w.? ]+\+0x)")
STAMP = re.compile(r"^(<\d>)\[ *(\d+)\.(\d+)\] ")


@dataclass(frozen=True)
class Report:
    """One recorded kill: its lines without times, CPU and stack."""

    lines: list[str]

    def line(self, start: str) -> str:
        return next(line for line in self.lines if line[3:].startswith(start))


def reports(dmesg: Path) -> list[Report]:
    found: list[list[str]] = []
    inside = False
    for raw in dmesg.read_text(errors="replace").splitlines():
        line = STAMP.sub(r"\1", raw)
        if " invoked oom-killer: " in line:
            found.append([])
            inside = True
        if inside and not STACK.match(line):
            found[-1].append(line)
        if "Killed process" in line:
            inside = False
    assert found, f"no kill in {dmesg}"
    return [Report(lines) for lines in found]


def values(line: str) -> dict[str, int]:
    """`name:12kB`, `name=12`, `name: 12kB` → {name: 12}."""
    return {name: int(number) for name, number in re.findall(r"([\w()]+)[:=] ?(-?\d+)", line)}


def number(line: str) -> int:
    return int(re.search(r"\d+", line[3:])[0])


def node_of(report: Report) -> int:
    """The only node that a report has lines of."""
    return int(next(line for line in report.lines if " active_anon:" in line and line[3:].startswith("Node "))[8])


def read_node(report: Report) -> NodeInfo:
    here = f"Node {node_of(report)}"
    words = "active_anon", f"{here} active"
    start, end = (next(i for i, text in enumerate(report.lines) if text[3:].startswith(word)) for word in words)
    totals = {name: value for line in report.lines[start:end] for name, value in values(line).items()}
    node = values(report.line(f"{here} active_anon"))
    huge = values(report.line(f"{here} hugepages"))
    trailing = {
        text: number(line) for line in report.lines for text in ("pagecache", "swap cache", "RAM", "reserved") if line.endswith(text)
    }
    pagecache = number(next(line for line in report.lines if line.endswith("total pagecache pages")))
    return NodeInfo(
        **{name: totals[name] for name in ("active_anon", "inactive_anon", "active_file", "inactive_file", "unevictable")},
        **{name: totals[name] for name in ("dirty", "writeback", "slab_reclaimable", "slab_unreclaimable", "mapped", "shmem")},
        **{name: totals[name] for name in ("pagetables", "free", "free_pcp", "isolated_anon", "isolated_file", "kernel_misc_reclaimable")},
        kernel_stack_kb=node["kernel_stack"],
        anon_thp=node["anon_thp"] // 4,
        all_unreclaimable=report.line(f"{here} active_anon").endswith("yes"),
        file_pages=pagecache,
        swapcache=trailing["swap cache"],
        free_swap=number(report.line("Free swap")) // 4,
        total_swap=number(report.line("Total swap")) // 4,
        ram=trailing["RAM"],
        reserved=trailing["reserved"],
        hugepages=(huge["hugepages_total"], huge["hugepages_free"], huge["hugepages_surp"]),
    )


def read_zones(report: Report) -> list[ZoneInfo]:
    zones = []
    for i, line in enumerate(report.lines):
        if not (m := re.match(r"<1>Node (\d) (\w+) free:", line)):
            continue
        kb = values(line)
        blocks = re.findall(r"(\d+)\*\d+kB(?: \((\w+)\))?", report.line(f"Node {m[1]} {m[2]}: "))
        fields = {name: pages // 4 for name, pages in kb.items() if name not in ("bounce", "free_cma")}
        zones.append(
            ZoneInfo(
                node=int(m[1]),
                name=m[2],
                lowmem_reserve=tuple(int(word) for word in report.lines[i + 1].split(":")[1].split()),
                blocks=tuple((int(count), types) for count, types in blocks),
                **fields,
            )
        )
    return zones


def one_node(report: Report) -> NodeInfo:
    """What a report says of its node, where that is not the whole host."""
    kb = values(report.line(f"Node {node_of(report)} active_anon"))
    pages = {name: kb[name] // 4 for name in ("active_anon", "inactive_anon", "active_file", "inactive_file", "unevictable")}
    pages |= {name: kb[name] // 4 for name in ("dirty", "writeback", "mapped", "shmem", "pagetables")}
    return replace(read_node(report), **pages, isolated_anon=kb["isolated(anon)"] // 4, isolated_file=kb["isolated(file)"] // 4)


TASK_ROW = re.compile(r"<6>\[ *(\d+)\] +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(-?\d+) (\S+)$")


def read_tasks(report: Report) -> list[OomTask]:
    rows = [m.groups() for line in report.lines if (m := TASK_ROW.match(line))]
    return [OomTask(*(int(word) for word in row[:8]), name=row[8]) for row in rows]


def read_invoked(report: Report) -> list[str]:
    comm, mask, order, adj = re.match(r"<4>(\S+) invoked .*gfp_mask=(0x\w+).*order=(\d+), oom_score_adj=(-?\d+)", report.lines[0]).groups()
    return oom_invoked(comm, int(mask, 16), int(order), int(adj))


def read_kill(report: Report, oom_memcg: str | None) -> list[str]:
    line = next(line for line in report.lines if "Killed process" in line)
    victim = next(task for task in read_tasks(report) if f"Killed process {task.pid} " in line)
    rss = tuple(int(kb) // 4 for kb in re.findall(r"-rss:(\d+)kB", line))
    task_memcg = re.search(r"task_memcg=([^,]+)", report.line("oom-kill:"))[1]
    scope = re.search(r"constraint=(\w+),nodemask=([^,]+),cpuset=([^,]+),mems_allowed=([^,]+)", report.line("oom-kill:"))
    return oom_kill(victim, rss, task_memcg, oom_memcg, where=OomScope(*scope.groups()))


@pytest.mark.parametrize("recording", GLOBAL)
def test_a_global_report_is_what_a_real_kernel_wrote(recording: str, shared_dir: Path) -> None:
    for report in reports(shared_dir / "recordings" / recording / "dmesg.txt"):
        printed = (
            read_invoked(report)
            + mem_info(read_node(report), {node_of(report): one_node(report)}, read_zones(report))
            + task_dump(read_tasks(report))
        )
        assert printed + read_kill(report, None) == report.lines


@pytest.mark.parametrize("recording", ["h52_numa_bind", "h54_numa_cpuset"])
def test_a_report_of_one_of_two_nodes_is_what_a_real_kernel_wrote(recording: str) -> None:
    """Only the nodes that the allocation could have used are shown, but every task, whatever node its memory is on."""
    for report in reports(GROUND_TRUTH / recording / "dmesg.txt"):
        assert node_of(report) == 1
        printed = (
            read_invoked(report) + mem_info(read_node(report), {1: one_node(report)}, read_zones(report)) + task_dump(read_tasks(report))
        )
        assert printed + read_kill(report, None) == report.lines


@pytest.mark.parametrize("recording", MEMCG)
def test_a_cgroups_report_is_what_a_real_kernel_wrote_cut_where_it_was_cut(recording: str, shared_dir: Path) -> None:
    """memory.stat goes on (workingset_restore_anon …) but the reader of one printk record gets no more than 1024 bytes."""
    for report in reports(shared_dir / "recordings" / recording / "dmesg.txt"):
        memory, swap = values(report.line("memory: ").replace(" usage ", " usage:").replace(" limit ", " limit:")), report.line("swap: ")
        head = report.lines.index(report.line("Memory cgroup stats")) + 1
        stat = dict(line[3:].split() for line in report.lines[head : report.lines.index(report.line("Tasks state"))])
        rest = {"workingset_restore_anon": "0", "workingset_restore_file": "0", "pgscan": "40000"}
        failcnt = int(report.line("memory: ").split()[-1])
        info = memcg_info("/app", memory["usage"] // 4, memory["limit"] // 4, failcnt, 0, 0, int(swap.split()[-1]), {**stat, **rest})
        printed = read_invoked(report) + info + task_dump(read_tasks(report)) + read_kill(report, "/app")
        assert printed == report.lines


def test_the_reapers_line_is_what_a_real_kernel_wrote(shared_dir: Path) -> None:
    log = (shared_dir / "recordings" / "e30_eight_gib" / "dmesg.txt").read_text(errors="replace").splitlines()
    line = next(line for line in log if "oom_reaper: reaped" in line)
    t_us = int("".join(STAMP.match(line).groups()[1:]))
    assert stamp(oom_reaped(85, "grower", (0, 2, 0)), t_us) == [line]


JAVA = OomTask(
    pid=4242, uid=1000, tgid=4242, total_vm=1_234_567, rss=987_654, pgtables_bytes=8_192_000, swapents=0, oom_score_adj=984, name="java"
)


def test_a_kill_names_the_victim_and_its_memory() -> None:
    lines = oom_kill(JAVA, (987_654, 10, 0), "/system.slice/app.service", None)
    assert lines == [
        "<6>oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
        "task_memcg=/system.slice/app.service,task=java,pid=4242,uid=1000",
        "<3>Out of memory: Killed process 4242 (java) total-vm:4938268kB, anon-rss:3950616kB, file-rss:40kB, shmem-rss:0kB, "
        "UID:1000 pgtables:8000kB oom_score_adj:984",
    ]


def test_a_group_kill_says_so_before_it_takes_the_others() -> None:
    lines = oom_kill(JAVA, (1, 0, 0), "/kubepods/app/jvm", "/kubepods/app", group="/kubepods/app")
    assert lines[0].startswith("<6>oom-kill:constraint=CONSTRAINT_MEMCG,")
    assert ",oom_memcg=/kubepods/app,task_memcg=/kubepods/app/jvm," in lines[0]
    assert lines[1].startswith("<3>Memory cgroup out of memory: Killed process 4242 (java) ")
    assert lines[2:] == ["<6>Tasks in /kubepods/app are going to be killed due to memory.oom.group set"]
    assert oom_killed(JAVA, (1, 0, 0), memcg=True) == [lines[1]]


def test_an_unlimited_swap_is_printed_as_the_counters_maximum() -> None:
    assert memcg_info("/app", 131_072, 131_072, 1234, 0, NO_LIMIT, 0, {"anon": 4096})[:2] == [
        "<6>memory: usage 524288kB, limit 524288kB, failcnt 1234",
        "<6>swap: usage 0kB, limit 9007199254740988kB, failcnt 0",
    ]


def test_a_task_row_keeps_its_columns() -> None:
    assert task_dump([JAVA])[2] == "<6>[   4242]  1000  4242  1234567   987654  8192000        0           984 java"


def test_stamps_are_seconds_since_boot_with_microseconds() -> None:
    assert stamp(["<6>x", "<3>y"], 7) == ["<6>[    0.000007] x", "<3>[    0.000007] y"]
    assert stamp(["<6>x"], 123_456_789_012) == ["<6>[123456.789012] x"]


@pytest.mark.parametrize(("value", "kept"), [(123, 36), (1234, 35)])
def test_a_record_ends_with_the_last_line_that_fits_whole(value: int, kept: int) -> None:
    """35 lines of 28 bytes (prefix and newline included) leave 43 of 1023: a text of 24 characters fits, of 25 does not."""
    stat = {f"line{n:02d}": 12 for n in range(35)} | {"twenty_letters_or_so": value}
    assert len(memcg_info("/app", 0, 0, 0, 0, 0, 0, stat)) == 3 + kept
