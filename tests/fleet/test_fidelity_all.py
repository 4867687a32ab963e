# SPDX-License-Identifier: Apache-2.0
"""All recordings there are, bad rows included: the table is printed (`pytest -s`), and none may break the simulated host."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetsim.fleet.fidelity import run_fidelity


@pytest.mark.slow
def test_every_recording_can_be_replayed_and_scored(shared_dir: Path, tmp_path: Path) -> None:
    folders = sorted(path.parent for path in (shared_dir / "recordings").glob("e*/experiment.json"))
    assert len(folders) >= 30
    result = run_fidelity(folders, tmp_path)
    assert len(result.scores) == len(folders)
    for score in result.scores:
        kills = "right" if score.victims_right else "WRONG"
        skipped = ", ".join(result.unsupported.get(score.experiment, [])) or "none"
        print(
            f"{score.experiment:24} series {len(score.series):3}  median {score.median:.3f}  <=15%: {score.within_15:4.0%}  "
            f"victims {kills}  skipped ops: {skipped}"
        )
    supported = [score for score in result.scores if score.experiment not in result.unsupported]
    assert sum(score.victims_right for score in supported) == len(supported), "every op was simulated, so the right ones must die"
