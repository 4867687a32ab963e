# SPDX-License-Identifier: Apache-2.0
"""A history while it grows: the events of a whole fleet in little memory, in the order in which they were told.

    log = EventLog()
    log.tell(t_ns, host, seq, kind, subject, id, data)      or log.append(HistoryEvent(…))
    len(log), iter(log), log[n:]                            as a list of HistoryEvents would
    log.lines(n)                                            JSON lines from the nth on
    log.in_order()                                          … of all of them, by (t_ns, host, seq)

An event is kept as its line of history.jsonl; every BLOCK of them are compressed together (a fleet's events are much alike: some ten bytes
each). Rules: what comes out is what went in, and a sequence number is used once on a host. In order, only those blocks are open at a
time that overlap in time, which are few, as events are told epoch by epoch.
"""

from __future__ import annotations

import heapq
import json
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fleetsim.rundir.models import HistoryEvent

BLOCK = 4096
SEQS = 1 << 10  # sequence numbers of a host that are looked after by one integer

Key = tuple[int, str, int]
Entry = tuple[int, str, int, str]  # t_ns, host, seq, line

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Block:
    first: Key  # the least of its keys
    last_ns: int
    count: int
    plain_bytes: int
    content: bytes

    @staticmethod
    def of(entries: list[Entry]) -> Block:
        plain = pickle.dumps(entries, pickle.HIGHEST_PROTOCOL)
        times = [entry[0] for entry in entries]
        return Block(min(entries)[:3], max(times), len(entries), len(plain), pa.compress(plain, codec="zstd", asbytes=True))

    def entries(self) -> list[Entry]:
        found: list[Entry] = pickle.loads(pa.decompress(self.content, decompressed_size=self.plain_bytes, codec="zstd", asbytes=True))
        return found

    def in_order(self) -> Iterator[Entry]:
        yield from sorted(self.entries())


class EventLog:
    def __init__(self, events: Iterable[HistoryEvent] = ()) -> None:
        self._blocks: list[Block] = []
        self._rest: list[Entry] = []
        self._seen: dict[tuple[str, int], int] = {}  # (host, seq // SEQS) → the bits of those that were used
        self.kinds: Counter[str] = Counter()  # how many there are of each kind
        self.extend(events)

    def tell(
        self, t_ns: int, host: str, seq: int, kind: str, subject: str = "", id: str = "", data: Mapping[str, Any] | None = None
    ) -> None:
        """One more event, field by field as `HistoryEvent` has them."""
        bit, row = 1 << seq % SEQS, (host, seq // SEQS)
        used = self._seen.get(row, 0)
        if used & bit:
            raise ValueError(f"host {host!r} has used the sequence number {seq} twice; the history has no total order")
        self._seen[row] = used | bit
        self.kinds[kind] += 1
        line = {"t_ns": t_ns, "host": host, "seq": seq, "kind": kind, "subject": subject, "id": id, "data": data or {}}
        self._rest.append((t_ns, host, seq, _encode(line)))
        if len(self._rest) == BLOCK:
            self._blocks.append(Block.of(self._rest))
            self._rest = []

    def append(self, event: HistoryEvent) -> None:
        self.tell(event.t_ns, event.host, event.seq, event.kind, event.subject, event.id, event.data)

    def extend(self, events: Iterable[HistoryEvent]) -> None:
        for event in events:
            self.append(event)

    def __len__(self) -> int:
        return sum(block.count for block in self._blocks) + len(self._rest)

    def __iter__(self) -> Iterator[HistoryEvent]:
        return (HistoryEvent.model_validate_json(line) for line in self.lines())

    def __getitem__(self, number: int) -> HistoryEvent:
        return HistoryEvent.model_validate_json(next(self.lines(range(len(self))[number])))

    def lines(self, since: int = 0) -> Iterator[str]:
        """Those from number `since` on, as they were told."""
        for block in self._blocks:
            if since < block.count:
                yield from (entry[3] for entry in block.entries()[since:])
            since = max(0, since - block.count)
        yield from (entry[3] for entry in self._rest[since:])

    def after(self, t_ns: int) -> Iterator[HistoryEvent]:
        """What happened at that instant or later."""
        for block in self._blocks:
            if block.last_ns >= t_ns:
                yield from (HistoryEvent.model_validate_json(entry[3]) for entry in block.entries() if entry[0] >= t_ns)
        yield from (HistoryEvent.model_validate_json(entry[3]) for entry in self._rest if entry[0] >= t_ns)

    def in_order(self) -> Iterator[str]:
        """All lines, by (t_ns, host, seq)."""
        blocks = sorted(self._blocks, key=lambda block: block.first)
        open_: list[tuple[Entry, Iterator[Entry]]] = []  # the next entry of each block that is open

        def go_on(entries: Iterator[Entry]) -> None:
            if (entry := next(entries, None)) is not None:
                heapq.heappush(open_, (entry, entries))

        go_on(iter(sorted(self._rest)))
        while blocks or open_:
            while blocks and (not open_ or blocks[0].first <= open_[0][0][:3]):
                go_on(blocks.pop(0).in_order())
            entry, entries = heapq.heappop(open_)
            yield entry[3]
            go_on(entries)
