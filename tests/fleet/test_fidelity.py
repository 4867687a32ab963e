# SPDX-License-Identifier: Apache-2.0
"""Outside truth: recordings of a real kernel, replayed. A score may not get worse than the committed table.

`tests/ground_truth/NAME/` holds our own recordings (Debian's kernel 6.1 in an emulator; `scripts/add-ground-truth.py` puts them
there): the experiment, what was known at its start, what then happened, and the lines of its kill reports. The laws were written
with the e… before the eyes; the h… were recorded later, to see how well they do on what they had not seen. `scores.json` holds
the scores reached so far; renew it with UPDATE_GOLDENS=1 after an improvement and read the diff. `docs/fidelity.md` says of
every series that is off by more than 15 % why it is.
"""

from __future__ import annotations

import json
import os
import shutil
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from fleetsim.errors import BadInput
from fleetsim.fleet.fidelity import Fidelity, replay, run_fidelity
from fleetsim.fleet.fidelity_score import Score
from fleetsim.fleet.recording import read_experiment

TRUTH = Path(__file__).resolve().parent.parent / "ground_truth"
RECORDINGS = sorted(path.parent.name for path in TRUTH.glob("*/experiment.json"))
TABLE = TRUTH / "scores.json"
REASONS = TRUTH.parent.parent / "docs" / "fidelity.md"
FAR_OFF = 0.15
# The issue's own demand for the first four kinds of incident; a repeat of the real kernel is at 0.15 %.
MEDIAN_MAX = {"e01_idle": 0.05, "e02_oom_noswap": 0.05, "e04_cache_then_anon": 0.05, "e06_memcg_oom": 0.05}
# A law that is put right elsewhere may move a neighbour's series a little: half a per cent of error, three series in a hundred,
# and half a second of a kill are no regression (the real kernel's own repeats differ by up to 0.3 s with swap).
MEDIAN_SLACK, SHARE_SLACK, KILL_SLACK_S = 0.005, 0.03, 0.5


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Score]:
    result = run_fidelity([TRUTH / name for name in RECORDINGS], tmp_path_factory.mktemp("replays"))
    return {score.experiment: score for score in result.scores}


@cache
def table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TABLE.read_text())
    return found


def entry(score: Score) -> dict[str, Any]:
    return {
        "series": len(score.series),
        "median": round(score.median, 4),
        "within_15": round(score.within_15, 3),
        "victims": [name for _, name in score.simulated_kills],
        "kill_errors_s": [round(error, 2) for error in score.kill_errors_s],
    }


def test_the_table_of_scores_is_of_these_recordings(scores: dict[str, Score]) -> None:
    if os.environ.get("UPDATE_GOLDENS") == "1":
        TABLE.write_text(json.dumps({name: entry(score) for name, score in scores.items()}, indent=1) + "\n")
        table.cache_clear()
    assert sorted(table()) == RECORDINGS == sorted(scores)


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_replay_is_as_near_to_the_real_kernel_as_it_was(name: str, scores: dict[str, Score]) -> None:
    now, best = scores[name], table()[name]
    worst = sorted(((s.err, s.name) for s in now.series), reverse=True)[:5]
    assert now.median <= best["median"] + MEDIAN_SLACK, worst
    assert now.within_15 >= best["within_15"] - SHARE_SLACK, worst
    assert now.victims_right
    assert len(now.series) >= best["series"], "fewer series are compared than before"
    for error, before in zip(now.kill_errors_s, best["kill_errors_s"], strict=True):
        assert error <= before + KILL_SLACK_S


def test_the_promise_over_all_recordings(scores: dict[str, Score]) -> None:
    """Median error ≤ 2 %, 90 of 100 series within 15 %, every victim right, kills within 1 s (3 s where there is swap)."""
    recorded = [scores[name] for name in RECORDINGS if name.startswith("e")]
    errors = [series.err for score in recorded for series in score.series]
    assert median(errors) <= 0.02
    assert sum(error <= FAR_OFF for error in errors) >= 0.9 * len(errors)
    for score in scores.values():
        swap = json.loads((TRUTH / score.experiment / "start.json").read_text())["SwapTotal_kB"] > 0
        assert score.victims_right, score.experiment
        assert all(abs(error) <= (3 if swap else 1) for error in score.kill_errors_s), score.experiment


def reasons() -> list[tuple[str, str]]:
    """The rows `| experiments | series | … |` of docs/fidelity.md's table of reasons: patterns, as of file names."""
    rows = (line.strip("| ").split(" | ") for line in REASONS.read_text().splitlines() if line.startswith("| `"))
    return [(experiments.strip(" `"), series.strip(" `")) for experiments, series, *_ in rows]


def far_off(scores: dict[str, Score]) -> list[tuple[str, str]]:
    return [(name, series.name) for name, score in scores.items() for series in score.series if series.err > FAR_OFF]


def test_every_series_that_is_far_off_has_its_reason_in_writing(scores: dict[str, Score]) -> None:
    without = [
        (name, series)
        for name, series in far_off(scores)
        if not any(fnmatchcase(name, experiments) and fnmatchcase(series, names) for experiments, names in reasons())
    ]
    assert without == []


def test_no_reason_outlives_what_it_explains(scores: dict[str, Score]) -> None:
    found = far_off(scores)
    idle = [row for row in reasons() if not any(fnmatchcase(name, row[0]) and fnmatchcase(series, row[1]) for name, series in found)]
    assert idle == []


@pytest.mark.parametrize("name", sorted(MEDIAN_MAX))
def test_the_simple_incidents_are_met_within_five_per_cent_with_the_right_victims(name: str, scores: dict[str, Score]) -> None:
    assert scores[name].median <= MEDIAN_MAX[name]
    assert scores[name].victims_right


@pytest.mark.parametrize(
    ("name", "victims", "within_s"), [("e02_oom_noswap", ["hog"], 1), ("e03_oom_swap", ["hog"], 3), ("e06_memcg_oom", ["hog"], 1)]
)
def test_who_dies_and_when(name: str, victims: list[str], within_s: float, scores: dict[str, Score]) -> None:
    """The recordings' own yardstick: kill time ±1 s without swap, ±3 s with it."""
    assert [victim for _, victim in scores[name].simulated_kills] == victims
    assert max(scores[name].kill_errors_s) <= within_s


def test_the_shielded_giant_survives_and_the_small_one_with_a_bad_score_dies_first(scores: dict[str, Score]) -> None:
    """e17: adj −1000 (350 MB), +500 (60 MB), 0 (growing)."""
    assert [victim for _, victim in scores["e17_oom_adj"].simulated_kills] == ["cheap", "grower"]


@pytest.mark.parametrize("name", ["e02_oom_noswap", "e06_memcg_oom", "e17_oom_adj"])
def test_the_kill_lines_say_what_the_real_kernels_said(name: str, tmp_path: Path) -> None:
    """Word for word but for the pid; sizes within 3 %."""
    run_fidelity([TRUTH / name], tmp_path)
    real, ours = (killed_lines(folder / name) for folder in (TRUTH, tmp_path))
    assert [words for words, _ in real] == [words for words, _ in ours]
    for (_, expected), (_, got) in zip(real, ours, strict=True):
        assert got[1:] == pytest.approx(expected[1:], rel=0.03, abs=64), "total-vm, anon-rss, file-rss, shmem-rss, UID, pgtables, adj"


def killed_lines(folder: Path) -> list[tuple[list[str], list[int]]]:
    lines = [line.partition("] ")[2] for line in (folder / "dmesg.txt").read_text().splitlines() if "Killed process" in line]
    digits = "".join
    return [
        (
            digits(c if not c.isdigit() else " " for c in line).split(),
            [int(n) for n in digits(c if c.isdigit() else " " for c in line).split()],
        )
        for line in lines
    ]


@pytest.mark.parametrize("name", ["e01_idle", "e03_oom_swap", "e08b_low", "e12_slab", "e19_hugetlb", "h28_combo"])
def test_a_replay_reads_nothing_but_the_experiment_and_what_was_known_at_its_start(name: str, tmp_path: Path) -> None:
    """The same bytes come out of a folder that holds no answers."""
    bare = tmp_path / "given" / name
    bare.mkdir(parents=True)
    for file in ("experiment.json", "start.json"):
        shutil.copyfile(TRUTH / name / file, bare / file)
    with_answers = run_fidelity([TRUTH / name], tmp_path / "a")
    without: Fidelity = run_fidelity([bare], tmp_path / "b")
    assert [score.experiment for score in with_answers.scores] == [name]
    assert (without.scores, without.unscored) == ([], [name])
    for file in ("trace.csv.gz", "dmesg.txt"):
        assert (tmp_path / "a" / name / file).read_bytes() == (tmp_path / "b" / name / file).read_bytes()


def replayed(folder: Path) -> tuple[list[dict[str, object]], list[str]]:
    result = replay(read_experiment(folder), 0)
    return result.rows, result.dmesg


def test_answers_in_start_json_change_nothing(tmp_path: Path) -> None:
    name = "e06_memcg_oom"
    folder = tmp_path / name
    folder.mkdir()
    shutil.copyfile(TRUTH / name / "experiment.json", folder / "experiment.json")
    start = json.loads((TRUTH / name / "start.json").read_text())
    start |= {"events": [[1.0, "hog ended signal=9"]], "buddyinfo_end": "nonsense", "host": {"qemu_cpu": "x"}}
    (folder / "start.json").write_text(json.dumps(start))
    assert replayed(folder) == replayed(TRUTH / name)


def test_the_same_experiment_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="e01_idle"):
        run_fidelity([TRUTH / "e01_idle", TRUTH / "e01_idle"], tmp_path)


def test_a_longer_tick_keeps_the_victims_and_nearly_the_score(tmp_path: Path, scores: dict[str, Score]) -> None:
    """Design §4: the fleet's tick moves the score by at most two points and keeps every victim."""
    names = ["e02_oom_noswap", "e04_cache_then_anon", "e06_memcg_oom"]
    for score in run_fidelity([TRUTH / name for name in names], tmp_path, tick_ns=100_000_000).scores:
        assert score.victims_right
        assert score.median <= scores[score.experiment].median + 0.02
