# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind, and when its hash may change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetsim.errors import BadInput
from fleetsim.rundir import samples
from fleetsim.rundir.models import HistoryEvent, Placement, Target, TargetsFile
from fleetsim.rundir.reader import RunDirectory
from fleetsim.rundir.samples import STALE, STALE_BITS, SampleWriter
from fleetsim.rundir.writer import RunWriter
from tests.rundir.conftest import MANIFEST

START_MS = 1_700_000_000_000
NAMES = st.text(max_size=4)


def test_what_is_written_is_read_back(finished: Path) -> None:
    run = RunDirectory(finished)
    assert run.manifest.history_hash is not None and len(run.manifest.history_hash) == 64
    assert [event.kind for event in run.history] == ["boot", "boot", "oom_kill"]
    assert run.history[2].data == {"pages": 12, "note": "line\u2028separator"}
    assert run.hosts == ["a", "b"]
    ids, times, values = run.columns()
    assert run.series[ids[0]]["__name__"] == "up"
    assert times[:4].tolist() == [START_MS + 15_000 * k for k in range(4)]
    assert values[:4].tolist() == [1.0, 1.0, 0.0, 1.0]


def test_a_staleness_marker_keeps_its_very_bits(finished: Path) -> None:
    _, _, values = RunDirectory(finished).columns()
    assert values.view(np.uint64)[6] == STALE_BITS


def test_anybody_can_open_the_samples(finished: Path) -> None:
    block = pq.read_table(finished / "samples" / "block-00000.parquet")
    series = pq.read_table(finished / "samples" / "series.parquet")
    assert block.column_names == ["id", "t", "value"] and series.column_names == ["id", "labels"]
    assert series.column("labels")[0].as_py() == [("__name__", "up"), ("instance", "a"), ("job", "node")]


def test_history_is_ordered_by_time_host_and_sequence(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "history.jsonl").read_text().split("\n")[:-1]]
    keys = [(line["t_ns"], line["host"], line["seq"]) for line in lines]
    assert keys == sorted(keys)
    assert list(lines[0]) == ["t_ns", "host", "seq", "kind", "subject", "id", "data"]


def test_a_sequence_number_used_twice_is_a_bug_of_the_caller(open_writer: Callable[..., RunWriter]) -> None:
    writer = open_writer()
    writer.events([HistoryEvent(t_ns=0, host="a", seq=0, kind="boot")])
    with pytest.raises(ValueError, match="sequence number 0 twice"):
        writer.events([HistoryEvent(t_ns=9, host="a", seq=0, kind="boot")])


def test_two_samples_of_a_series_at_one_instant_are_a_bug_of_the_caller(open_writer: Callable[..., RunWriter]) -> None:
    writer = open_writer()
    number = writer.series({"__name__": "up"})
    writer.samples(np.array([number, number]), np.array([5, 5]), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="two samples at one instant"):
        writer.close([])


def test_a_folder_with_anything_in_it_is_refused_and_left_alone(open_writer: Callable[..., RunWriter], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("mine")
    with pytest.raises(BadInput, match="exists and is not empty; name a new folder"):
        open_writer()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious"]


def test_a_file_in_place_of_the_folder_is_refused(open_writer: Callable[..., RunWriter], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(BadInput, match="is a file; a run needs a folder"):
        open_writer()


def test_an_unfinished_run_is_not_mistaken_for_a_run(open_writer: Callable[..., RunWriter], tmp_path: Path) -> None:
    open_writer()
    with pytest.raises(BadInput, match="the run did not finish"):
        RunDirectory(tmp_path / "run")


def test_placements_that_come_later_take_the_place_of_the_first(open_writer: Callable[..., RunWriter], tmp_path: Path) -> None:
    writer = open_writer(placements=lambda: [Placement(kind="pod", name="db", host="a")])
    writer.place(lambda: [Placement(kind="pod", name="db", host="b", from_ns=7)])
    writer.close([])
    assert [placement.host for placement in RunDirectory(tmp_path / "run").placements] == ["b"]


# ---- the hash


def write_run(open_writer: Callable[..., RunWriter], name: str, order: list[int], record: bytes = b"r", value: float = 2.0) -> str:
    """Twelve samples of three series, appended in the order given."""
    writer = open_writer(name)
    rows = [(series, k) for series in range(3) for k in range(4)]
    ids: dict[int, int] = {}
    for number in order:
        series, k = rows[number]
        ids.setdefault(series, writer.series({"__name__": f"m{series}"}))
        sample = np.array([value if (series, k) == (1, 2) else series + k / 4])
        writer.samples(np.array([ids[series]]), np.array([START_MS + 1000 * k]), sample)
    return writer.close([("a", record)])


def test_the_hash_does_not_depend_on_order_ids_or_blocks(open_writer: Callable[..., RunWriter], monkeypatch: pytest.MonkeyPatch) -> None:
    straight = write_run(open_writer, "straight", list(range(12)))
    assert write_run(open_writer, "backwards", list(range(11, -1, -1))) == straight
    monkeypatch.setattr(SampleWriter.__init__, "__defaults__", (5,))
    assert write_run(open_writer, "blocks", [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]) == straight
    monkeypatch.setattr(samples, "ROWS_PER_DIGEST_PASS", 4)
    assert write_run(open_writer, "passes", list(range(12))) == straight


def test_the_hash_depends_on_every_sample_event_and_record(open_writer: Callable[..., RunWriter]) -> None:
    base = write_run(open_writer, "base", list(range(12)))
    other_value = write_run(open_writer, "value", list(range(12)), value=2.0000000000000004)
    other_record = write_run(open_writer, "record", list(range(12)), record=b"s")
    less = write_run(open_writer, "less", list(range(11)))
    with_event = open_writer("event")
    with_event.events([HistoryEvent(t_ns=0, host="a", seq=0, kind="boot")])
    without = open_writer("without")
    assert len({base, other_value, other_record, less}) == 4
    assert with_event.close([]) != without.close([])


def test_the_wall_time_is_not_part_of_the_hash(open_writer: Callable[..., RunWriter]) -> None:
    assert open_writer("one").close([], wall_seconds=1.0) == open_writer("two").close([], wall_seconds=2.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(0, 2**64 - 1)), unique_by=lambda row: row[:2], max_size=60))
def test_any_bits_come_back_sorted(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]]) -> None:
    folder = tmp_path_factory.mktemp("samples") / "samples"
    writer = SampleWriter(folder, block_rows=7)
    for number in range(4):
        writer.series({"__name__": f"m{number}"})
    for number, time, bits in rows:
        writer.append(np.array([number]), np.array([time]), np.array([bits], np.uint64).view(np.float64))
    writer.close()
    ids, times, values = samples.read_columns(samples.dataset(folder), None)
    assert list(zip(ids.tolist(), times.tolist(), values.view(np.uint64).tolist(), strict=True)) == sorted(rows)


def test_the_callers_buffer_may_be_filled_again(open_writer: Callable[..., RunWriter], tmp_path: Path) -> None:
    writer = open_writer()
    number = writer.series({"__name__": "up"})
    buffer = np.array([1.0])
    for time in (10, 20):
        buffer[0] = time
        writer.samples(np.array([number]), np.array([START_MS + time]), buffer)
    writer.close([])
    assert RunDirectory(tmp_path / "run").columns()[2].tolist() == [10.0, 20.0]
    assert STALE != STALE


@given(
    st.lists(st.builds(Target, labels=st.dictionaries(NAMES, NAMES, max_size=3), exporter=NAMES, host=NAMES), max_size=3),
    st.lists(st.builds(Placement, kind=st.sampled_from(["pod", "service"]), name=NAMES, host=NAMES), max_size=3),
    st.dictionaries(NAMES, st.lists(NAMES, max_size=3).map(sorted), max_size=2),
)
def test_targets_are_written_one_by_one_as_the_whole_model_would_be(
    tmp_path_factory: pytest.TempPathFactory, targets: list[Target], placements: list[Placement], exporters: dict[str, list[str]]
) -> None:
    out = tmp_path_factory.mktemp("targets") / "run"
    RunWriter(out, MANIFEST, {"expect": []}, lambda: targets, placements=lambda: placements, exporters=exporters)
    whole = TargetsFile(targets=targets, placements=placements, exporters=dict(sorted(exporters.items())))
    assert (out / "targets.json").read_text(encoding="utf-8") == whole.model_dump_json(indent=1) + "\n"
