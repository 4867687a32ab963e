# SPDX-License-Identifier: Apache-2.0
"""A damaged or foreign run directory is refused with one sentence naming the file; nothing is guessed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fleetsim.errors import BadInput
from fleetsim.rundir.reader import RunDirectory


def read_all(folder: Path) -> None:
    run = RunDirectory(folder)
    _ = run.expectations, run.history, run.series, run.columns()


def edit_json(name: str, **changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | changes))

    return edit


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return edit


def cut(name: str, keep: float) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return edit


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def foreign_block(folder: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), folder / "samples" / "block-00000.parquet")


def foreign_series(folder: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), folder / "samples" / "series.parquet")


def swap_history(folder: Path) -> None:
    lines = (folder / "history.jsonl").read_text().split("\n")[:-1]
    (folder / "history.jsonl").write_text("".join(line + "\n" for line in reversed(lines)))


def unknown_series(folder: Path) -> None:
    table = pq.read_table(folder / "samples" / "series.parquet")
    pq.write_table(table.slice(0, 1), folder / "samples" / "series.parquet")


def garble_block(folder: Path) -> None:
    path = folder / "samples" / "block-00000.parquet"
    content = bytearray(path.read_bytes())
    content[8:40] = b"\xff" * 32  # inside the first column, the footer intact
    path.write_bytes(content)


CASES = [
    ("manifest.json", remove("manifest.json"), "is not a run directory: it has no manifest.json"),
    ("manifest.json", write("manifest.json", b"{]"), "is not valid JSON"),
    ("manifest.json", write("manifest.json", b"\xff\xfe"), "is not UTF-8 text (byte 0)"),
    ("manifest.json", write("manifest.json", b"[" * 100_000), "is not valid JSON"),
    ("manifest.json", edit_json("manifest.json", format=99), "has format 99; this fleetsim reads format 1"),
    ("manifest.json", edit_json("manifest.json", history_hash=None), "the run did not finish"),
    ("manifest.json", edit_json("manifest.json", tick_ns=0), "tick_ns: Input should be greater than 0"),
    ("manifest.json", edit_json("manifest.json", surprise=1), "surprise: Extra inputs are not permitted"),
    ("targets.json", remove("targets.json"), "is missing; the run directory is incomplete"),
    ("targets.json", edit_json("targets.json", targets=[{"job": "x"}]), "targets.0.labels: Field required"),
    ("scenario.yaml", write("scenario.yaml", b"expect: ["), "is not valid YAML"),
    ("scenario.yaml", write("scenario.yaml", b"- 1"), "must hold a mapping"),
    ("scenario.yaml", write("scenario.yaml", b"expect: 3"), "`expect` must be a list"),
    ("scenario.yaml", write("scenario.yaml", b"expect: [{kind: dance, name: x}]"), "expectation 1 is not right: kind:"),
    ("history.jsonl", remove("history.jsonl"), "is missing"),
    ("history.jsonl", cut("history.jsonl", 0.5), "is cut off in the middle of its last line"),
    ("history.jsonl", write("history.jsonl", b'{"t_ns": 1}\n'), "history.jsonl:1: a HistoryEvent is not right: host: Field required"),
    ("history.jsonl", write("history.jsonl", b"\n"), "history.jsonl:1: is not valid JSON"),
    ("history.jsonl", swap_history, "history.jsonl:2: is not ordered by (t_ns, host, seq)"),
    ("series.parquet", remove("samples/series.parquet"), "is missing"),
    ("series.parquet", cut("samples/series.parquet", 0.5), "cannot be read as Parquet"),
    ("series.parquet", foreign_series, "does not have the columns id, labels"),
    ("samples", remove("samples/block-00000.parquet"), "holds no block of samples"),
    ("block-00000.parquet", cut("samples/block-00000.parquet", 0.5), "cannot be read as Parquet"),
    ("block-00000.parquet", write("samples/block-00000.parquet", b"not parquet"), "cannot be read as Parquet"),
    ("block-00000.parquet", foreign_block, "does not have the columns id, t, value"),
    ("samples", unknown_series, "holds samples of series 1, but the series table ends at 0"),
    ("samples", garble_block, "cannot be read as Parquet"),
]


@pytest.mark.parametrize(("file", "damage", "words"), CASES, ids=[f"{file}: {words[:40]}" for file, _, words in CASES])
def test_damage_is_told_in_one_sentence(finished: Path, file: str, damage: Callable[[Path], None], words: str) -> None:
    read_all(finished)
    damage(finished)
    with pytest.raises(BadInput) as refused:
        read_all(finished)
    assert words in str(refused.value)
    assert file in str(refused.value) or words.startswith("is not a run directory")
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no such folder; `fleetsim run SCENARIO --out DIR` makes one"):
        RunDirectory(tmp_path / "nowhere")


def test_samples_are_read_by_series_and_by_time(finished: Path) -> None:
    run = RunDirectory(finished)
    start = run.manifest.start_unix_ms
    ids, times, _ = run.columns(ids=[1], low_ms=start + 15_000, high_ms=start + 45_000)
    assert set(ids.tolist()) == {1} and times.tolist() == [start + 15_000, start + 30_000]
    windows = [times.tolist() for _, times, _ in run.windows(30_000)]
    assert sum(map(len, windows)) == 8 and all(max(a) < min(b) for a, b in itertools.pairwise(windows) if a and b)
