# SPDX-License-Identifier: Apache-2.0
"""Model against measurement: `make calibrate`, or `python -m scripts.calibrate.compare [--page | --check]`.

Puts the models into the measured situations (replay.py), prints each figure beside the real one's with the difference, writes the models'
figures (`tests/ground_truth/calibration/model.json`) and the tables of docs/calibration.md that stand between `<!-- compared NAME -->`
and `<!-- end -->`. `--page` makes the tables from the figures that are there, `--check` only says whether the page is up to date.
A difference is that of the model to the median, in percent of it. One beyond its bound has a sentence of explanation (`REASONS`), which
stands below its table; without one the exit status is 1.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.calibrate.differences import MEMORY, PAUSE, REASONS, TABLES, Compared, Figure, Reason
from scripts.calibrate.record import FOLDER, MODEL, read, write
from scripts.calibrate.table import PAGE, number

PLACE = re.compile(r"<!-- compared ([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)
HEAD = ("situation", "figure", "measured", "model", "difference, %", "bound, %", "")
Entry = Mapping[str, Any]
__all__ = ["MEMORY", "PAUSE", "Row", "main", "rows", "updated"]


@dataclass(frozen=True)
class Row:
    """A figure of one situation: the real one's least, median and greatest, which of them it is held against, and the model's."""

    situation: str
    figure: Figure
    low: float
    measured: float
    high: float
    model: float
    reason: Reason | None

    @property
    def percent(self) -> float:
        """From the measurement to the model; one of nothing has no percentage, but is no agreement either."""
        if self.measured == 0:
            return 0.0 if self.model == 0 else float("inf")
        return 100 * (self.model - self.measured) / abs(self.measured)

    @property
    def beyond(self) -> bool:
        return abs(self.percent) > self.figure.bound_percent


def line_at(fit: Entry, copied_mib: float) -> dict[str, float]:
    """Processor time of the real young collection that copies so much: on the line through all of them, with the repeats' spread."""
    slope, start = (fit["figures"][f"young_processor_{name}_ms"] for name in ("per_copied_mib", "at_nothing_copied"))
    ends = {key: slope[key] * copied_mib + start[key] for key in ("min", "median", "max")}
    return {**ends, "min": min(ends.values()), "max": max(ends.values())}


def measured_of(entry: Entry, figure: Figure, model: Mapping[str, float]) -> Mapping[str, float]:
    if figure.on_line_at:
        return line_at(entry, model[figure.on_line_at])
    found: Mapping[str, float] = entry["figures"][figure.measured or figure.name]
    return found


def reason_for(table: Compared, entry: Entry, figure: Figure) -> Reason | None:
    for reason in REASONS:
        if reason.table == table.name and figure.name in reason.figures and reason.parameters.items() <= entry["parameters"].items():
            return reason
    return None


def rows(table: Compared, records: Sequence[Entry], models: Sequence[Entry]) -> Iterator[Row]:
    """Every figure of the table in every situation that was both measured and modelled."""
    for model in models:
        if (model["program"], model["measurement"]) != (table.program, table.measurement):
            continue
        same = [r for r in records if all(r[key] == model[key] for key in ("program", "measurement", "parameters"))]
        if not same:
            raise ValueError(f"{table.name}: the model's situation {model['parameters']} is not measured; run make calibrate again")
        for figure in table.figures:
            if figure.name not in model["figures"] or not figure.only.items() <= model["parameters"].items():
                continue
            real = measured_of(same[0], figure, model["figures"])
            scaled = [figure.scale * real[key] for key in ("min", figure.of, "max")]
            ours = figure.scale * model["figures"][figure.name]
            label = table.situation.format(**model["parameters"])
            yield Row(label, figure, scaled[0], scaled[1], scaled[2], ours, reason_for(table, model, figure))


def shown(row: Row, notes: Sequence[Reason]) -> list[str]:
    spread = f" ({number(row.low)}–{number(row.high)})" if row.high - row.low > 0.02 * abs(row.measured) else ""
    note = ""
    if row.beyond:
        note = f"[{notes.index(row.reason) + 1}]" if row.reason else "not explained"
    bound = f"{row.figure.bound_percent:g}"
    return [row.situation, row.figure.title, number(row.measured) + spread, number(row.model), f"{row.percent:+.0f}", bound, note]


def notes_of(found: Sequence[Row]) -> list[Reason]:
    return list(dict.fromkeys(row.reason for row in found if row.beyond and row.reason))


def rendered(table: Compared, records: Sequence[Entry], models: Sequence[Entry]) -> str:
    found = list(rows(table, records, models))
    if not found:
        raise ValueError(f"no model's figure for {table.name}: run make calibrate")
    notes = notes_of(found)
    lines = [list(HEAD), ["---"] * len(HEAD), *(shown(row, notes) for row in found)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([text, *(f"[{k}] {reason.sentence}" for k, reason in enumerate(notes, 1))])


def printed(table: Compared, found: Sequence[Row]) -> str:
    """For a terminal: columns of equal width, numbers to the right."""
    notes = notes_of(found)
    lines = [list(HEAD), *(shown(row, notes) for row in found)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEAD))]
    text = [
        "  ".join(
            cell.ljust(width) if k in (0, 1, 6) else cell.rjust(width) for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    title = f"{table.program}: {table.measurement}"
    return "\n".join([title, *("  " + line.rstrip() for line in text), *(f"  [{k}] {r.sentence}" for k, r in enumerate(notes, 1)), ""])


def updated(page: str, records: Sequence[Entry], models: Sequence[Entry]) -> str:
    """The page with every comparison made anew."""

    def replace(place: re.Match[str]) -> str:
        if place[1] not in TABLES:
            raise ValueError(f"the page asks for a comparison {place[1]!r}; there are {', '.join(TABLES)}")
        return f"<!-- compared {place[1]} -->\n{rendered(TABLES[place[1]], records, models)}\n<!-- end -->"

    return PLACE.sub(replace, page)


def read_models(folder: Path = FOLDER) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / f"{MODEL}.json").read_text(encoding="utf-8"))
    return found


def replayed(records: Sequence[Entry]) -> list[dict[str, Any]]:
    from scripts.calibrate.replay import replay  # a simulated host: seconds, which the page alone does not need

    return [model for entry in records if (model := replay(entry)) is not None]


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--page"], ["--check"]):
        print(f"'{' '.join(arguments)}' is neither --page nor --check", file=sys.stderr)
        return 2
    records = read()
    models = read_models() if arguments else replayed(records)
    page = PAGE.read_text(encoding="utf-8")
    made = updated(page, records, models)
    if arguments == ["--check"]:
        if made != page:
            print("docs/calibration.md is older than the models' figures: python -m scripts.calibrate.compare --page", file=sys.stderr)
        return int(made != page)
    if not arguments:
        write(MODEL, models)
    PAGE.write_text(made, encoding="utf-8")
    unexplained = 0
    for table in TABLES.values():
        found = list(rows(table, records, models))
        print(printed(table, found))
        unexplained += sum(row.beyond and row.reason is None for row in found)
    if unexplained:
        print(f"{unexplained} differences are beyond their bounds and not explained (scripts/calibrate/differences.py)", file=sys.stderr)
    return int(unexplained > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
