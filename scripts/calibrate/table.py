# SPDX-License-Identifier: Apache-2.0
"""Puts the records into docs/calibration.md: `python -m scripts.calibrate.table` (or `--check`, which only says whether it is up to date).

The page's words are written by hand; a table stands between `<!-- measured NAME -->` and `<!-- end -->` and is made here. A cell is the
median, with min and max behind it where they differ by more than two percent.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.calibrate.record import read

PAGE = Path(__file__).resolve().parents[2] / "docs" / "calibration.md"
PLACE = re.compile(r"<!-- measured ([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)
SPREAD_SHOWN = 1.02
MIB_OF_BYTES, MIB_OF_KIB, MS_OF_US = 2**-20, 2**-10, 1e-3

Entry = dict[str, Any]


@dataclass(frozen=True)
class Column:
    title: str
    name: str  # a parameter or a figure
    scale: float = 1.0


@dataclass(frozen=True)
class Table:
    program: str
    measurement: str
    columns: tuple[Column, ...]


def columns(*rows: tuple[str, str] | tuple[str, str, float]) -> tuple[Column, ...]:
    return tuple(Column(*row) for row in rows)


KEYS = (("keys", "keys"), ("value, B", "value_bytes"))
LOAD = (
    ("collector", "collector"),
    ("-Xmx", "heap_mib"),
    ("live, MiB", "live_mib"),
    ("MiB/s", "alloc_mib_per_s"),
    ("survive, %", "survive_percent"),
)
SORT_AND_SAVE = (("writes/s", "writes_per_s"), ("command", "command"), ("THP", "huge_pages"), ("LZF", "rdbcompression"))
TABLES = {
    "redis-empty": Table(
        "redis",
        "empty server",
        columns(
            ("used_memory, MiB", "used_memory_bytes", MIB_OF_BYTES),
            ("allocator_resident, MiB", "allocator_resident_bytes", MIB_OF_BYTES),
            ("VmRSS, MiB", "vmrss_bytes", MIB_OF_BYTES),
            ("mem_fragmentation_ratio", "mem_fragmentation_ratio"),
        ),
    ),
    "redis-dataset": Table(
        "redis",
        "dataset",
        columns(
            *KEYS,
            ("used_memory, MiB", "used_memory_bytes", MIB_OF_BYTES),
            ("VmRSS, MiB", "vmrss_bytes", MIB_OF_BYTES),
            ("ratio", "mem_fragmentation_ratio"),
            ("used per key, B", "used_per_key_bytes"),
            ("beyond key and value, B", "overhead_per_key_bytes"),
            ("RSS per key, B", "rss_per_key_bytes"),
        ),
    ),
    "redis-deletion": Table(
        "redis",
        "mass deletion",
        columns(
            *KEYS,
            ("deleted, %", "deleted_percent"),
            ("VmRSS full, MiB", "full_vmrss_bytes", MIB_OF_BYTES),
            *((f"after {s} s, MiB", f"at_{s}s_vmrss_bytes", MIB_OF_BYTES) for s in (0, 5, 12)),
            ("used at the end, MiB", "end_used_memory_bytes", MIB_OF_BYTES),
            ("ratio after 12 s", "at_12s_fragmentation_ratio"),
            ("allocator_frag at the end", "end_allocator_frag_ratio"),
        ),
    ),
    "redis-churn": Table(
        "redis",
        "churn",
        columns(
            *KEYS,
            ("new sizes from", "new_bytes_min"),
            ("to, B", "new_bytes_max"),
            *((f"ratio after {n} rounds", f"round_{n}_fragmentation_ratio") for n in range(4)),
            ("allocator_frag at the end", "round_3_allocator_frag_ratio"),
        ),
    ),
    "redis-fork": Table(
        "redis",
        "fork",
        columns(
            ("data, MiB", "data_mib"),
            ("THP", "huge_pages"),
            ("VmRSS, MiB", "vmrss_bytes", MIB_OF_BYTES),
            ("of it in huge pages, %", "huge_share_percent"),
            ("latest_fork_usec, ms", "fork_us", MS_OF_US),
            ("per GiB of RSS, ms", "fork_per_gib_us", MS_OF_US),
            ("on a processor per GiB, ms", "command_processor_per_gib_us", MS_OF_US),
        ),
    ),
    "redis-save": Table(
        "redis",
        "save under writes",
        columns(
            *SORT_AND_SAVE,
            ("save per GiB, s", "save_per_gib_s"),
            ("processor per GiB, s", "save_processor_per_gib_s"),
            ("keys written meanwhile", "keys_written_count"),
            ("copied, MiB", "cow_bytes", MIB_OF_BYTES),
            ("per key written, KiB", "cow_per_key_written_bytes", 2**-10),
            ("of RSS, %", "cow_of_rss_percent"),
        ),
    ),
    "redis-latency": Table(
        "redis",
        "save under writes",
        columns(
            *SORT_AND_SAVE,
            *((f"{when} {which}, ms", f"{when}_{which}_ms") for when in ("before", "during") for which in ("p50", "p99", "max")),
        ),
    ),
    "redis-rewrite": Table(
        "redis",
        "append-only file rewritten",
        columns(
            *KEYS,
            ("times set", "times_set"),
            ("log before, MiB", "log_before_bytes", MIB_OF_BYTES),
            ("log after, MiB", "log_after_bytes", MIB_OF_BYTES),
            ("rewrite per GiB, s", "rewrite_per_gib_s"),
            ("copied, MiB", "cow_bytes", MIB_OF_BYTES),
        ),
    ),
    "redis-failed": Table(
        "redis",
        "failed fork",
        columns(
            ("cause", "cause"),
            ("in the log", "log"),
            ("BGSAVE answers", "answer_to_bgsave"),
            ("rdb_last_bgsave_status", "rdb_last_bgsave_status"),
            ("the next write answers", "answer_to_the_next_write"),
        ),
    ),
    "redis-maxmemory": Table(
        "redis",
        "maxmemory",
        columns(
            ("policy", "policy"),
            ("keys asked for", "keys"),
            ("maxmemory, MiB", "maxmemory_mib"),
            ("keys held", "resident_keys_count"),
            ("hits, %", "hit_percent"),
            ("best possible, %", "best_possible_hit_percent"),
            ("evicted per miss", "evicted_per_miss_ratio"),
            ("used_memory, MiB", "used_memory_bytes", MIB_OF_BYTES),
            ("VmRSS, MiB", "vmrss_bytes", MIB_OF_BYTES),
        ),
    ),
    "redis-noeviction": Table(
        "redis",
        "maxmemory reached",
        columns(("policy", "policy"), ("a write answers", "answer"), ("reads still hit", "get_still_hits")),
    ),
    "jvm-load": Table(
        "jvm",
        "load",
        columns(
            *LOAD,
            ("young per s", "young_per_s"),
            ("allocated per young, MiB", "allocated_per_young_mib"),
            ("copied per young, MiB", "copied_per_young_mib"),
            ("young pause, ms", "young_pause_median_ms"),
            ("longest, ms", "young_pause_max_ms"),
            ("processor per young, ms", "young_processor_mean_ms"),
            ("mixed", "mixed_count"),
            ("remarks", "remark_count"),
        ),
    ),
    "jvm-memory": Table(
        "jvm",
        "load",
        columns(
            *LOAD,
            ("VmRSS when filled, MiB", "filled_rss_kib", MIB_OF_KIB),
            ("VmRSS at the end, MiB", "done_rss_kib", MIB_OF_KIB),
            ("committed then, MiB", "done_committed_mib"),
            ("peak RSS, MiB", "peak_rss_kib", MIB_OF_KIB),
            ("full pause, ms", "last_full_pause_ms"),
            ("its processor time, ms", "last_full_processor_ms"),
            ("left by it, MiB", "last_full_left_mib"),
        ),
    ),
    "jvm-fit": Table(
        "jvm",
        "pause fit",
        columns(
            ("collector", "collector"),
            ("young pauses", "young_pauses_count"),
            ("pause, ms per MiB copied", "young_pause_per_copied_mib_ms"),
            ("pause with nothing copied, ms", "young_pause_at_nothing_copied_ms"),
            ("processor, ms per MiB copied", "young_processor_per_copied_mib_ms"),
            ("with nothing copied, ms", "young_processor_at_nothing_copied_ms"),
            ("all processor time by all copied, ms per MiB", "young_processor_total_per_copied_mib_ms"),
            ("full pause, ms per GiB left", "full_pause_per_left_gib_ms"),
            ("processor, ms per GiB left", "full_processor_per_left_gib_ms"),
        ),
    ),
    "jvm-start": Table(
        "jvm",
        "at start",
        columns(
            ("collector", "collector"),
            ("threads", "threads"),
            ("VmRSS, MiB", "rss_kib", MIB_OF_KIB),
            *(
                (f"{name.replace('_', ' ')}, MiB", f"committed_{name}_kib", MIB_OF_KIB)
                for name in ("gc", "thread", "code", "metaspace", "shared_class_space", "symbol")
            ),
        ),
    ),
    "jvm-back": Table(
        "jvm",
        "given back",
        columns(
            ("collector", "collector"),
            *(
                (f"{what} {when}, MiB", f"{mark}_{what}_{unit}", scale)
                for mark, when in (("done", "full"), ("dropped", "idle"), ("collected", "after System.gc()"), ("over", "after four"))
                for what, unit, scale in (("committed", "mib", 1.0), ("rss", "kib", MIB_OF_KIB))
            ),
        ),
    ),
    "jvm-oom": Table(
        "jvm",
        "out of memory",
        columns(
            ("collector", "collector"),
            ("option", "option"),
            ("exit status", "exit_code"),
            ("says", "says"),
            ("full collections before", "full_count"),
        ),
    ),
    "jvm-defaults": Table(
        "jvm",
        "defaults",
        columns(
            ("option", "option"),
            ("collector", "collector"),
            ("MaxHeapSize, MiB", "MaxHeapSize_bytes", MIB_OF_BYTES),
            ("InitialHeapSize, MiB", "InitialHeapSize_bytes", MIB_OF_BYTES),
            ("G1HeapRegionSize, MiB", "G1HeapRegionSize_bytes", MIB_OF_BYTES),
            ("ReservedCodeCacheSize, MiB", "ReservedCodeCacheSize_bytes", MIB_OF_BYTES),
            ("MetaspaceSize, MiB", "MetaspaceSize_bytes", MIB_OF_BYTES),
        ),
    ),
    "postgres-backends": Table(
        "postgres",
        "backends",
        columns(
            ("connections", "connections"),
            ("RSS each, MiB", "rss_per_backend_kib", MIB_OF_KIB),
            ("shared of it, MiB", "shmem_per_backend_kib", MIB_OF_KIB),
            ("anonymous of it, MiB", "anon_per_backend_kib", MIB_OF_KIB),
            ("PSS each, MiB", "pss_per_backend_kib", MIB_OF_KIB),
            ("private each, MiB", "private_per_backend_kib", MIB_OF_KIB),
            ("page tables each, KiB", "page_tables_per_backend_kib"),
            ("RSS of all, MiB", "rss_sum_kib", MIB_OF_KIB),
            ("PSS of all, MiB", "pss_sum_kib", MIB_OF_KIB),
            ("page tables of all, MiB", "page_tables_sum_kib", MIB_OF_KIB),
        ),
    ),
    "postgres-sort": Table(
        "postgres",
        "sort",
        columns(
            ("work_mem", "work_mem"),
            ("rows", "rows"),
            ("method", "method"),
            ("the sort says, MiB", "sort_says_kib", MIB_OF_KIB),
            ("peak RSS before, MiB", "peak_rss_before_kib", MIB_OF_KIB),
            ("peak RSS, MiB", "peak_rss_kib", MIB_OF_KIB),
            ("the difference, MiB", "spike_kib", MIB_OF_KIB),
        ),
    ),
    "postgres-writes": Table(
        "postgres",
        "writes",
        columns(
            ("commits", "commits"),
            ("log per commit, KiB", "wal_per_commit_bytes", 2**-10),
            ("whole blocks in the log per commit", "full_pages_per_commit"),
            ("blocks written", "blocks_count"),
            ("of them by the checkpoint", "blocks_by_checkpoint_count"),
            ("before it", "blocks_before_count"),
        ),
    ),
    "postgres-cache": Table(
        "postgres",
        "page cache",
        columns(
            ("connections", "connections"),
            *(
                (f"{when}: {title}", f"{when}_{name}")
                for when in ("cold", "warming", "warm")
                for title, name in (("latency, ms", "latency_average_ms"), ("hits in shared buffers, %", "shared_buffers_hit_percent"))
            ),
        ),
    ),
}


def number(value: float) -> str:
    """Three significant digits, or all of an integer's below ten million."""
    if float(value).is_integer() and abs(value) < 10_000_000:
        return f"{int(value):,}".replace(",", " ")
    if abs(value) >= 1000:
        return number(float(f"{value:.3g}"))
    return f"{value:.3g}"


def cell(entry: Entry, column: Column) -> str:
    value = entry["figures"].get(column.name, entry["parameters"].get(column.name))
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value.replace("|", "\\|")
    if not isinstance(value, dict):
        return number(value * column.scale)
    low, middle, high = (value[key] * column.scale for key in ("min", "median", "max"))
    if abs(high - low) <= abs(middle) * (SPREAD_SHOWN - 1):
        return number(middle)
    return f"{number(middle)} ({number(low)}–{number(high)})"


def rendered(table: Table, records: Sequence[Entry]) -> str:
    rows = [entry for entry in records if (entry["program"], entry["measurement"]) == (table.program, table.measurement)]
    if not rows:
        raise ValueError(f"nothing is measured of {table.program}: {table.measurement}")
    lines = [[column.title for column in table.columns], ["---"] * len(table.columns)]
    lines += [[cell(entry, column) for column in table.columns] for entry in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machines(records: Sequence[Entry]) -> str:
    """Each program's version and the machine it was measured on."""
    names = ("program", "version", "kernel", "cpu_model", "cpus", "memory_mib", "swap_mib", "thp", "overcommit_memory")
    rows: dict[tuple[str, ...], set[str]] = {}
    for entry in records:
        rows.setdefault(tuple(str(entry[name]) for name in names), set()).add(entry["when"].partition(" ")[0])
    head = [*(name.replace("_", " ") for name in names), "when"]
    lines = [head, ["---"] * len(head), *([*row, ", ".join(sorted(days))] for row, days in rows.items())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def updated(page: str, records: Sequence[Entry]) -> str:
    """The page with every table made anew."""

    def replace(place: re.Match[str]) -> str:
        name = place[1]
        if name != "machines" and name not in TABLES:
            raise ValueError(f"the page asks for a table {name!r}; there are machines, {', '.join(TABLES)}")
        body = machines(records) if name == "machines" else rendered(TABLES[name], records)
        return f"<!-- measured {name} -->\n{body}\n<!-- end -->"

    return PLACE.sub(replace, page)


def main(arguments: list[str]) -> int:
    page = PAGE.read_text(encoding="utf-8")
    made = updated(page, read())
    if arguments == ["--check"]:
        if made != page:
            print("docs/calibration.md is older than its records: python -m scripts.calibrate.table", file=sys.stderr)
        return int(made != page)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
