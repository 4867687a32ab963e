# SPDX-License-Identifier: Apache-2.0
"""RunDirectory: reads what RunWriter wrote and trusts none of it.

A missing, truncated, corrupt or foreign file is refused with one sentence naming the file and, where there is one,
the line; a directory written by another format version, or by a run that never finished, says so.
Leaves out: recomputing the history hash (the simulated hosts' records are not kept, so it cannot be).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml
from pydantic import BaseModel, ValidationError

from fleetsim.errors import BadInput
from fleetsim.rundir import samples
from fleetsim.rundir.models import FORMAT, Expectation, HistoryEvent, Manifest, Placement, Target, TargetsFile

M = TypeVar("M", bound=BaseModel)


class RunDirectory:
    """Small files are read and checked at once, history and samples when asked for."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise BadInput("is not a run directory: there is no such folder; `fleetsim run SCENARIO --out DIR` makes one", file=path)
        self.path = path
        self.manifest = self._read_manifest()
        self._targets = _parse(TargetsFile, _text(path / "targets.json"), path / "targets.json")
        self.scenario = self._read_scenario()

    @property
    def targets(self) -> list[Target]:
        return self._targets.targets

    @property
    def placements(self) -> list[Placement]:
        return self._targets.placements

    @property
    def exporters(self) -> dict[str, list[str]]:
        return self._targets.exporters

    @property
    def hosts(self) -> list[str]:
        return sorted({target.host for target in self.targets} | {event.host for event in self.history if event.host})

    @cached_property
    def expectations(self) -> list[Expectation]:
        file = self.path / "scenario.yaml"
        entries = self.scenario.get("expect") or []
        if not isinstance(entries, list):
            raise BadInput("`expect` must be a list", file=file)
        return [_validated(Expectation, entry, file, None, f"expectation {n}") for n, entry in enumerate(entries, 1)]

    @cached_property
    def history(self) -> list[HistoryEvent]:
        file = self.path / "history.jsonl"
        text = _text(file)
        if text and not text.endswith("\n"):
            raise BadInput("is cut off in the middle of its last line; the run directory is damaged", file=file, line=text.count("\n") + 1)
        # not splitlines(): JSON text may hold U+2028
        events = [_parse(HistoryEvent, line, file, n) for n, line in enumerate(text.split("\n")[:-1], 1)]
        keys = [(event.t_ns, event.host, event.seq) for event in events]
        for n, (before, after) in enumerate(itertools.pairwise(keys), 2):
            if after <= before:
                raise BadInput(f"is not ordered by (t_ns, host, seq): {after} follows {before}", file=file, line=n)
        return events

    @cached_property
    def series(self) -> list[dict[str, str]]:
        """Labels by series id."""
        file = self.path / "samples" / "series.parquet"
        try:
            table = pq.read_table(file)
            if not table.schema.equals(samples.SERIES_SCHEMA):
                raise BadInput("does not have the columns id, labels of a series table", file=file)
            if table.column("id").to_pylist() != list(range(table.num_rows)):
                raise BadInput("does not number its series 0, 1, 2 …", file=file)
            return [dict(labels) for labels in table.column("labels").to_pylist()]
        except FileNotFoundError:
            raise BadInput("is missing; the run directory is incomplete", file=file) from None
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"cannot be read as Parquet ({_first_line(error)})", file=file) from None

    def columns(self, ids: Iterable[int] | None = None, low_ms: int | None = None, high_ms: int | None = None) -> samples.Columns:
        """Samples of the series `ids` (None: all) with low_ms ≤ t < high_ms, as (id, t, value) sorted by (id, t)."""
        where: pc.Expression = pc.scalar(True)
        if ids is not None:
            where = where & pc.field("id").isin(pa.array(sorted(ids), pa.int64()))
        if low_ms is not None:
            where = where & (pc.field("t") >= low_ms)
        if high_ms is not None:
            where = where & (pc.field("t") < high_ms)
        try:
            columns = samples.read_columns(self._blocks, where)
            if len(columns[0]) and not 0 <= columns[0][0] <= columns[0][-1] < len(self.series):
                told = f"holds samples of series {columns[0][-1]}, but the series table ends at {len(self.series) - 1}"
                raise BadInput(told, file=self.path / "samples")
            return columns
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"a block of samples cannot be read as Parquet ({_first_line(error)})", file=self.path / "samples") from None

    def windows(self, length_ms: int, ids: Iterable[int] | None = None) -> Iterator[samples.Columns]:
        """All samples in stretches of time, oldest first."""
        chosen = None if ids is None else list(ids)
        for low in range(self.manifest.start_unix_ms, self.manifest.end_unix_ms + 1, length_ms):
            yield self.columns(chosen, low, low + length_ms)

    @cached_property
    def _blocks(self) -> ds.Dataset:
        folder = self.path / "samples"
        files = sorted(folder.glob("block-*.parquet"))
        if not files:
            raise BadInput("holds no block of samples; the run directory is incomplete", file=folder)
        for file in files:  # a clear sentence about the very file, before any query
            try:
                schema = pq.read_schema(file)
            except (pa.ArrowException, OSError) as error:
                raise BadInput(f"cannot be read as Parquet ({_first_line(error)})", file=file) from None
            if not schema.equals(samples.BLOCK_SCHEMA):
                raise BadInput("does not have the columns id, t, value of a block of samples", file=file)
        return samples.dataset(folder)

    def _read_manifest(self) -> Manifest:
        file = self.path / "manifest.json"
        if not file.is_file():
            raise BadInput("is not a run directory: it has no manifest.json; `fleetsim run SCENARIO --out DIR` makes one", file=self.path)
        content = _json(_text(file), file)
        found = content.get("format") if isinstance(content, dict) else None
        if found != FORMAT:
            raise BadInput(f"has format {found!r}; this fleetsim reads format {FORMAT}", file=file)
        manifest = _validated(Manifest, content, file, None, "the manifest")
        if manifest.history_hash is None:
            raise BadInput("says that the run did not finish (history_hash is null); run the scenario again", file=file)
        return manifest

    def _read_scenario(self) -> dict[str, Any]:
        file = self.path / "scenario.yaml"
        try:
            content = yaml.safe_load(_text(file))
        except yaml.YAMLError as error:
            raise BadInput(f"is not valid YAML ({_first_line(error)})", file=file) from None
        if not isinstance(content, dict):
            raise BadInput("must hold a mapping", file=file)
        return content


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput("is missing; the run directory is incomplete", file=file) from None
    except UnicodeDecodeError as error:
        raise BadInput(f"is not UTF-8 text (byte {error.start})", file=file) from None
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", file=file) from None


def _json(text: str, file: Path, line: int | None = None) -> object:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        place = error.lineno if line is None and isinstance(error, json.JSONDecodeError) else line
        raise BadInput(f"is not valid JSON ({_first_line(error)})", file=file, line=place) from None


def _parse(model: type[M], text: str, file: Path, line: int | None = None) -> M:
    return _validated(model, _json(text, file, line), file, line, f"a {model.__name__}")


def _validated(model: type[M], content: object, file: Path, line: int | None, what: str) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "it"
        raise BadInput(f"{what} is not right: {place}: {first['msg']}", file=file, line=line) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
