# SPDX-License-Identifier: Apache-2.0
"""The folder `checkpoint/` of a run directory: what was asked for, and how far it had got at one instant.

    lock              held by whoever is running
    order.state       the plan and what else was asked for, written before anything runs and kept: what a branch of the run starts from
    history.jsonl     the history so far, only ever appended to
    latest.json       which of the following is whole, and how much of history and samples belongs to it
    NNNNN/            controller.state (what the control plane knows), hosts-FIRST-COUNT.state of each shard, samples.state

Rules: renaming `latest.json` is the instant at which a checkpoint counts; whatever lies about that it does not name is left over from
a run that was killed, and is thrown away. Only the newest is kept: its size is that of the hosts' records, whatever the length of
the run. Going on means to cut history and samples back to what they were then, so that nothing is there twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetsim.errors import BadInput
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.state_file import read_state, write_state, write_whole
from fleetsim.observe.catalog import Profile
from fleetsim.rundir.event_log import EventLog
from fleetsim.rundir.models import HistoryEvent

FORMAT = 1
FOLDER = "checkpoint"


@dataclass(frozen=True)
class Every:
    """How often a checkpoint is written: after so many looks of the control plane, or so much virtual time; 0: never."""

    epochs: int = 0
    virtual_ns: int = 0

    def is_due(self, epochs: int, virtual_ns: int) -> bool:
        """After this many epochs and this much time since the last one."""
        return bool(self.epochs and epochs >= self.epochs) or bool(self.virtual_ns and virtual_ns >= self.virtual_ns)


NEVER = Every()


@dataclass(frozen=True)
class Order:
    """What was asked for: with the same order a run comes out the same."""

    plan: Plan
    profile: Profile
    every: Every = NEVER


@dataclass(frozen=True)
class Latest:
    """A checkpoint that counts. `blocks`: the files of samples that belong to it; `history_bytes` of the history do."""

    number: int
    t_ns: int
    history_bytes: int
    history_sha256: str
    blocks: tuple[str, ...]


class CheckpointFolder:
    """inside `claimed`: `begin` or `latest`; `write` as often as wished; `finish` when the run is sealed."""

    def __init__(self, run: Path) -> None:
        self.folder = run / FOLDER
        self._number = 0
        self._history = hashlib.sha256()
        self._history_bytes = 0
        self._events = 0

    # --- whose it is -----------------------------------------------------------------------------------------------------

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """While this lasts nobody else runs in this directory."""
        self.folder.mkdir(exist_ok=True)
        lock = (self.folder / "lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise BadInput("another fleetsim is running in this directory; wait for it, or stop it", file=self.folder.parent) from None
        with lock:
            yield

    # --- writing ---------------------------------------------------------------------------------------------------------

    def begin(self, order: Order) -> None:
        write_state(self.folder / "order.state", order)

    def next_folder(self) -> Path:
        """An empty folder for the files of the next checkpoint."""
        folder = self.folder / f"{self._number + 1:05d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    @property
    def number(self) -> int:
        """Of the checkpoint that counts; 0: there is none."""
        return self._number

    def commit(self, t_ns: int, events: EventLog, blocks: Sequence[str]) -> None:
        """The files in `next_folder` are complete: from now on this checkpoint counts, and the one before is gone."""
        with (self.folder / "history.jsonl").open("ab") as history:
            for text in events.lines(self._events):  # as the run directory will have them
                line = text.encode() + b"\n"
                history.write(line)
                self._history.update(line)
                self._history_bytes += len(line)
            history.flush()
            os.fsync(history.fileno())
        self._events = len(events)
        latest = {
            "format": FORMAT,
            "number": self._number + 1,
            "t_ns": t_ns,
            "history_bytes": self._history_bytes,
            "history_sha256": self._history.hexdigest(),
            "blocks": sorted(blocks),
        }
        write_whole(self.folder / "latest.json", json.dumps(latest, indent=1).encode() + b"\n")
        self._number += 1
        self._remove_others()

    def finish(self) -> None:
        """The run is sealed: only the order stays."""
        (self.folder / "latest.json").unlink(missing_ok=True)  # first, as without it nothing else counts
        (self.folder / "history.jsonl").unlink(missing_ok=True)
        self._number = 0
        self._remove_others()

    def _remove_others(self) -> None:
        for folder in self.folder.iterdir():
            if folder.is_dir() and folder.name != f"{self._number:05d}":
                shutil.rmtree(folder, ignore_errors=True)

    # --- reading ---------------------------------------------------------------------------------------------------------

    def order(self) -> Order:
        file = self.folder / "order.state"
        if not self.folder.parent.is_dir():
            raise BadInput("is not the directory of a run: there is no such folder", file=self.folder.parent)
        if not file.is_file():
            raise BadInput("is not the directory of a run: it has no checkpoint/order.state", file=self.folder.parent)
        order = read_state(file)
        if not isinstance(order, Order):
            raise BadInput("is not the order of a run", file=file)
        return order

    def latest(self) -> Latest | None:
        """The checkpoint that counts, with everything else thrown away; None: there is none, and the run begins anew."""
        file = self.folder / "latest.json"
        if not file.is_file():
            self.finish()
            return None
        try:
            content: Any = json.loads(file.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise BadInput(f"has another format than this fleetsim's, {FORMAT}", file=file)
            latest = Latest(**{**content, "blocks": tuple(content["blocks"])})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadInput("is damaged: it does not say which checkpoint counts", file=file) from None
        self._number = latest.number
        self._remove_others()
        return latest

    def events(self, latest: Latest) -> EventLog:
        """The history up to the checkpoint; what was told after it is cut off."""
        file = self.folder / "history.jsonl"
        with file.open("r+b") as history:
            content = history.read(latest.history_bytes)
            if hashlib.sha256(content).hexdigest() != latest.history_sha256:
                raise BadInput("is damaged: it is not the history that the checkpoint knows", file=file)
            history.truncate(latest.history_bytes)
        self._history, self._history_bytes = hashlib.sha256(content), len(content)
        events = EventLog(HistoryEvent.model_validate_json(line) for line in content.split(b"\n")[:-1])
        self._events = len(events)
        return events

    def files(self, latest: Latest) -> Path:
        return self.folder / f"{latest.number:05d}"


# --- the hosts' part ---------------------------------------------------------------------------------------------------------

Cut = tuple[tuple[int, int], ...]
"""How a fleet's hosts are cut into shards: (first, count) of each."""


def shard_file(first: int, count: int) -> str:
    return f"hosts-{first:07d}-{count:05d}.state"


def cut_of(folder: Path) -> Cut:
    """How the hosts were cut when the checkpoint in `folder` was written: it has one file for each shard."""
    parts = sorted(tuple(int(number) for number in path.stem.split("-")[1:]) for path in folder.glob("hosts-*-*.state"))
    return tuple((first, count) for first, count in parts)


def check_cut(cut: Cut, hosts: int, folder: Path) -> Cut:
    """BadInput if these are not all shards of so many hosts."""
    expected = 0
    for first, count in cut:
        if first != expected:
            break
        expected += count
    if expected != hosts:
        raise BadInput(f"holds no state of host {expected} and those after it; the checkpoint is incomplete", file=folder)
    return cut
