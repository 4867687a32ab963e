# SPDX-License-Identifier: Apache-2.0
"""The error of a series and of a kill, by worked examples; and series by series the same as the recordings' own program."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fleetsim.errors import BadInput
from fleetsim.fleet.fidelity import run_fidelity
from fleetsim.fleet.fidelity_score import COUNTER, LEVEL, Score, score, series_error

TRUTH = Path(__file__).resolve().parent.parent / "ground_truth"
TIMES = [0.0, 1.0, 2.0, 3.0]


def column(*values: float) -> tuple[list[float], list[float]]:
    return TIMES[: len(values)], list(values)


def folder(where: Path, table: str, log: str = "") -> Path:
    where.mkdir()
    (where / "trace.csv.gz").write_bytes(gzip.compress(table.encode()))
    (where / "dmesg.txt").write_text(log)
    return where


@pytest.mark.parametrize(
    ("what", "recorded", "simulated", "kind", "floor", "err"),
    [
        ("the same", (0, 10, 20, 30), (0, 10, 20, 30), LEVEL, 1, 0.0),
        ("a level off by a tenth of its range", (0, 10, 20, 30), (3, 13, 23, 33), LEVEL, 1, 0.1),
        ("a small range is measured with the floor", (0, 0, 0, 2), (1, 1, 1, 3), LEVEL, 10, 0.1),
        ("a counter's start does not count", (100, 110, 120, 130), (0, 10, 20, 30), COUNTER, 1, 0.0),
        ("a counter that grows half as fast", (0, 10, 20, 30), (0, 5, 10, 15), COUNTER, 1, 0.25),
        ("never more than 1", (0, 1, 2, 3), (900, 900, 900, 900), LEVEL, 1, 1.0),
    ],
)
def test_error(what: str, recorded: tuple[float, ...], simulated: tuple[float, ...], kind: str, floor: float, err: float) -> None:
    assert series_error(column(*recorded), column(*simulated), kind, floor) == pytest.approx(err), what


def test_a_simulated_value_older_than_five_seconds_is_no_value() -> None:
    recorded = ([0.0, 4.0, 8.0, 12.0], [0.0, 0.0, 0.0, 10.0])
    assert series_error(recorded, ([0.0], [0.0]), LEVEL, 1) == pytest.approx((0 + 0 + 1 + 1) / 4)


HEAD = "time_s,meminfo.MemTotal_kB,meminfo.MemFree_kB,proc.a.state,cpu.ctxt\n"


def test_a_moving_series_that_is_missing_counts_in_full_and_a_still_one_not_at_all(tmp_path: Path) -> None:
    moving = folder(tmp_path / "moving", HEAD + "0,1000,500,R,1\n1,1000,100,S,900\n")
    still = folder(tmp_path / "still", HEAD + "0,1000,500,R,1\n1,1000,495,S,900\n")
    nothing = folder(tmp_path / "nothing", "time_s,meminfo.MemTotal_kB\n0,1000\n1,1000\n")
    (missing,) = score(moving, nothing).series
    assert (missing.name, missing.err, missing.missing) == ("meminfo.MemFree_kB", 1.0, True)
    assert score(still, nothing).series == (), "5 kB of 1000 is below the floor of 2 %"
    (moved,) = score(still, moving).series
    assert moved.err == 1.0, "it counts if the simulation alone moves it"


def test_kills_are_compared_by_victim_and_by_seconds_since_t0(tmp_path: Path) -> None:
    rows = HEAD + "0,1000,500,,\n1,1000,500,,\n"
    log = "<9>[   {t0}] wl: t0\n<3>[   {at}] Out of memory: Killed process 83 ({who}) total-vm:1kB\n"
    real = folder(tmp_path / "real", rows, log.format(t0="4.000000", at="14.500000", who="hog"))
    near = folder(tmp_path / "near", rows, log.format(t0="0.000000", at="11.000000", who="hog"))
    wrong = folder(tmp_path / "wrong", rows, log.format(t0="0.000000", at="11.000000", who="mate"))
    assert score(real, near).victims_right
    assert score(real, near).kill_errors_s == [pytest.approx(0.5)]
    assert not score(real, wrong).victims_right
    assert not Score("x", (), ((1.0, "hog"),), ()).victims_right, "a kill that did not happen"


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0), gzip.compress(b"a,b\n1,2\n", mtime=0), b"no gzip"])
def test_what_is_no_recording_is_said_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "dmesg.txt").write_text("")
    (tmp_path / "trace.csv.gz").write_bytes(content)
    with pytest.raises(BadInput, match="not a recording"):
        score(tmp_path, tmp_path)


# Series of recordings with several swap areas, zram or zswap, which the recordings' own score does not know.
OURS_ALONE = ("swaps.", "zram0.", "zswap.", "meminfo.Zswap", "vmstat.zsw")


def test_ours_is_the_recordings_own_definition_series_by_series(shared_dir: Path, tmp_path: Path) -> None:
    program = shared_dir / "recordings" / "score.py"
    names = sorted(path.parent.name for path in TRUTH.glob("*/experiment.json"))
    ours = run_fidelity([TRUTH / name for name in names], tmp_path)
    pairs = [str(folder) for name in names for folder in (TRUTH / name, tmp_path / name)]
    done = subprocess.run([sys.executable, str(program), *pairs, "--json"], capture_output=True, text=True, check=True)
    theirs = {result["experiment"]: result for result in json.loads(done.stdout)["results"]}
    assert sum(len(result["series"]) for result in theirs.values()) > 200
    for got in ours.scores:
        want = theirs[got.experiment]
        both = {s.name: (s.err, s.family) for s in got.series if not s.name.startswith(OURS_ALONE)}
        assert both == {n: (s["err"], s["family"]) for n, s in want["series"].items()}
        if len(both) == len(got.series):
            assert round(got.median, 4) == want["median"]
            assert round(got.within_15, 3) == want["within_15"]
        assert got.victims_right == want["kills"]["victims_right"]
        assert [round(error, 2) for error in got.kill_errors_s] == want["kills"]["time_err_s"]
