# SPDX-License-Identifier: Apache-2.0
"""RunWriter: everything a run leaves behind, written as it happens, sealed by `close`.

    writer = RunWriter(out, manifest, scenario, targets)
    memory = writer.series({"__name__": "node_memory_MemFree_bytes", "job": "node", "instance": "db-1:9100"})
    writer.samples(ids, times_ms, values)        # arrays, any number at once, staleness = samples.STALE
    writer.events([HistoryEvent(...), ...])      # any order; sorted when sealed
    history_hash = writer.close(record_digests)

Rules kept: an existing non-empty folder is refused before anything is written; until `close` the manifest says
`history_hash: null`, so that half a run is never mistaken for one; calls may come from several threads.
History events are kept in memory until `close`, compressed (`event_log.py`): their total order is only known then.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from fleetsim.errors import BadInput
from fleetsim.rundir.event_log import EventLog
from fleetsim.rundir.models import HistoryEvent, Manifest, Placement, Target
from fleetsim.rundir.samples import SampleWriter


class RunWriter:
    def __init__(
        self,
        out: Path,
        manifest: Manifest,
        scenario: Mapping[str, Any],
        targets: Callable[[], Iterable[Target]],
        *,
        placements: Callable[[], Iterable[Placement]] = tuple,
        exporters: Mapping[str, Sequence[str]] | None = None,
        blocks: Sequence[str] | None = None,
    ) -> None:
        """`targets`, `placements`: asked whenever they are written down, as a large fleet has many.

        `blocks`: the run goes on in this folder, and of its samples these blocks count, the others never happened.
        """
        self._out = claim(out) if blocks is None else out
        self._lock = threading.Lock()
        self._manifest = manifest.model_copy(update={"history_hash": None})
        self._targets, self._placements = targets, placements
        self._exporters = {name: sorted(metrics) for name, metrics in sorted((exporters or {}).items())}
        self._events = EventLog()
        self._write_manifest()
        self._write_targets()
        text = yaml.safe_dump(dict(scenario), sort_keys=False, allow_unicode=True, width=120)
        (self._out / "scenario.yaml").write_text(text, encoding="utf-8")
        self._samples = SampleWriter(self.samples_folder)
        for file in self.samples_folder.iterdir():
            if file.name not in (blocks or ()):
                file.unlink()

    @property
    def samples_folder(self) -> Path:
        return self._out / "samples"

    @property
    def writing_s(self) -> float:
        """Wall time spent on blocks of samples so far."""
        return self._samples.writing_s

    def state(self) -> dict[str, Any]:
        """The samples that are in no block yet, for a checkpoint. The history is its caller's to keep."""
        with self._lock:
            return self._samples.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        with self._lock:
            self._samples.resume(state)

    def series(self, labels: Mapping[str, str]) -> int:
        """The id of this label set (`__name__` included); asking twice gives the same id."""
        with self._lock:
            return self._samples.series(labels)

    def samples(self, ids: NDArray[np.int64], times_ms: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Append samples; the arrays may be reused by the caller afterwards."""
        with self._lock:
            self._samples.append(ids, times_ms, values)

    def events(self, events: Iterable[HistoryEvent]) -> None:
        with self._lock:
            if isinstance(events, EventLog) and not len(self._events):
                self._events = events
            else:
                self._events.extend(events)

    def place(self, placements: Callable[[], Iterable[Placement]]) -> None:
        """Where pods and services stood, now that they have come, moved and gone: instead of what was said at the beginning."""
        with self._lock:
            self._placements = placements

    def close(self, record_digests: Iterable[tuple[str, bytes]], *, wall_seconds: float | None = None) -> str:
        """Seal the run. `record_digests`: (host, digest of its final record). Returns `history_hash` (hex)."""
        with self._lock:
            digest = hashlib.sha256()
            with (self._out / "history.jsonl").open("wb") as history:
                for line in self._events.in_order():
                    history.write(line.encode() + b"\n")
                    digest.update(line.encode() + b"\n")
            digest.update(self._samples.close())
            for host, record in sorted(record_digests):
                digest.update(host.encode() + b"\0" + record)
            self._write_targets()
            self._manifest = self._manifest.model_copy(update={"history_hash": digest.hexdigest(), "wall_seconds": wall_seconds})
            self._write_manifest()
            return digest.hexdigest()

    def _write_manifest(self) -> None:
        (self._out / "manifest.json").write_text(self._manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def _write_targets(self) -> None:
        """What `TargetsFile` says, without having all of it at once."""
        with (self._out / "targets.json").open("w", encoding="utf-8") as file:
            file.write("{")
            for name, entries in (("targets", self._targets()), ("placements", self._placements())):
                file.write(f'\n "{name}": ')
                before = "["
                for entry in entries:
                    file.write(before + "\n  " + entry.model_dump_json(indent=1).replace("\n", "\n  "))
                    before = ","
                file.write("[]," if before == "[" else "\n ],")
            exporters = json.dumps(self._exporters, indent=1, ensure_ascii=False).replace("\n", "\n ")
            file.write(f'\n "exporters": {exporters}\n}}\n')


def claim(out: Path) -> Path:
    """The folder for a new run, made if need be; whatever somebody else has put there is left alone."""
    if out.is_file():
        raise BadInput("is a file; a run needs a folder of its own", file=out)
    if out.is_dir() and any(out.iterdir()):
        raise BadInput("exists and is not empty; name a new folder or remove it first", file=out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot be made a folder: {error.strerror}", file=out) from None
    return out


def is_sealed(out: Path) -> bool:
    """Whether the run in this folder has been closed."""
    try:
        return json.loads((out / "manifest.json").read_text(encoding="utf-8")).get("history_hash") is not None
    except (OSError, ValueError, AttributeError):
        return False
