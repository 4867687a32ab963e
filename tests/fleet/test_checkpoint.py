# SPDX-License-Identifier: Apache-2.0
"""A run that is interrupted, at any instant and any number of times, is the run that was not: the same history hash, which is over the
history, every sample and every host's final record."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetsim.errors import BadInput, Interrupted
from fleetsim.fleet.checkpoint import CheckpointFolder, Every
from fleetsim.fleet.controller import RunResult, order_of, resume_plan, run_plan
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.state_file import pack, read_state, unpack, write_state
from fleetsim.observe.catalog import profile
from fleetsim.rundir.reader import RunDirectory
from fleetsim.rundir.writer import is_sealed
from tests.fleet.coupled import coupled_file

PROFILE = profile("standard")


@pytest.fixture(scope="module")
def unbroken(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run_plan(plan, tmp_path_factory.mktemp("unbroken") / "run", PROFILE)


def after(looks: int) -> Callable[[], bool]:
    """Says yes when it is asked for the `looks`-th time."""
    asked = iter(range(1, 1 << 30))
    return lambda: next(asked) == looks


def interrupted(plan: Plan, out: Path, looks: int, every: int = 0) -> None:
    with pytest.raises(Interrupted, match="go on with: fleetsim run --resume"):
        run_plan(plan, out, PROFILE, every=Every(epochs=every), stop=after(looks))


def test_the_scenario_has_everything_that_couples_hosts(unbroken: RunResult) -> None:
    kinds = {event.kind for event in RunDirectory(Path(unbroken.out)).history}
    told = {"fault_start", "oom_kill", "restart", "back_off", "eviction", "schedule", "pod_ready", "impact_start", "impact_end"}
    assert told <= kinds, f"without {told - kinds} a checkpoint has less to keep"


@settings(max_examples=12)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=3))
def test_stopped_at_any_looks_and_gone_on_with_it_comes_to_the_same_end(
    plan: Plan, unbroken: RunResult, tmp_path_factory: pytest.TempPathFactory, stops: list[int]
) -> None:
    out = tmp_path_factory.mktemp("stopped") / "run"
    interrupted(plan, out, stops[0])
    for looks in stops[1:]:
        with pytest.raises(Interrupted):
            resume_plan(out, stop=after(min(looks, 15)))
    result = resume_plan(out, threads=1)
    assert result.history_hash == unbroken.history_hash
    assert (Path(result.out) / "history.jsonl").read_bytes() == (Path(unbroken.out) / "history.jsonl").read_bytes()


def test_what_came_after_the_checkpoint_is_cut_off_and_nothing_is_there_twice(plan: Plan, unbroken: RunResult, tmp_path: Path) -> None:
    """As a run leaves it that was killed between two checkpoints, or in the middle of writing one."""
    out = tmp_path / "run"
    interrupted(plan, out, 70)
    folder = out / "checkpoint"
    done = next(iter((Path(unbroken.out) / "samples").glob("block-*")))
    (out / "samples" / "block-00007.parquet").write_bytes(done.read_bytes())
    (out / "samples" / ".block-00008.parquet.1.new").write_bytes(b"half")
    with (folder / "history.jsonl").open("ab") as history:
        history.write(b'{"t_ns": 1, "host": "later"')
    (folder / "00099").mkdir()
    (folder / "00099" / "controller.state").write_bytes(b"half")
    (folder / ".latest.json.new").write_bytes(b"half")
    assert resume_plan(out).history_hash == unbroken.history_hash


def test_killed_before_its_first_checkpoint_it_begins_anew(plan: Plan, unbroken: RunResult, tmp_path: Path) -> None:
    out = tmp_path / "run"
    interrupted(plan, out, 3)
    (out / "checkpoint" / "latest.json").unlink()
    assert resume_plan(out).history_hash == unbroken.history_hash


def test_only_the_newest_checkpoint_is_kept_and_none_of_a_finished_run(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "run"
    interrupted(plan, out, 40, every=8)
    folder = out / "checkpoint"
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["00005"]
    at_40 = sum(file.stat().st_size for file in (folder / "00005").iterdir())
    assert at_40 < len(plan.hosts) * (128 << 10), "a record of 256 KiB is mostly empty, and compressed"
    result = resume_plan(out)
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "order.state"]
    assert order_of_error(out) == f"{out}: is a run that has finished: there is nothing to go on with"
    assert RunDirectory(Path(result.out)).manifest.history_hash == result.history_hash


def order_of_error(out: Path) -> str:
    with pytest.raises(BadInput) as error:
        order_of(out)
    return str(error.value)


def test_what_is_no_run_or_another_ones_is_refused(plan: Plan, tmp_path: Path) -> None:
    assert "is not the directory of a run" in order_of_error(tmp_path)
    out = tmp_path / "run"
    interrupted(plan, out, 2)
    with CheckpointFolder(out).claimed(), pytest.raises(BadInput, match="another fleetsim is running in this directory"):
        resume_plan(out)


def damaged(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flipped(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def replacing(this: bytes, by: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(this, by, 1)


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "a flipped bit": ("hosts-0000000-00001.state", flipped, "is damaged: its content is not what was written"),
    "half a file": ("controller.state", lambda content: content[: len(content) // 2], "is damaged"),
    "an empty file": ("samples.state", lambda content: b"", "is not a state that fleetsim has written"),
    "a foreign file": ("controller.state", lambda content: b"PK\x03\x04 something else", "is not a state that fleetsim has written"),
    "another format": ("controller.state", replacing(b'"format": 1', b'"format": 9'), "has format 9; this fleetsim reads format 1"),
    "other sources": ("hosts-0000001-00001.state", replacing(b'"sources": "', b'"sources": "0'), "by another version of fleetsim"),
    "no number": ("../latest.json", replacing(b"number", b"nmuber"), "does not say which checkpoint counts"),
    "another history": ("../history.jsonl", replacing(b"boot", b"toob"), "is not the history that the checkpoint knows"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_told_in_one_sentence(plan: Plan, tmp_path: Path, what: str) -> None:
    name, change, sentence = DAMAGE[what]
    out = tmp_path / "run"
    interrupted(plan, out, 2)
    damaged(out / "checkpoint" / "00001" / name, change)
    with pytest.raises(BadInput) as error:
        resume_plan(out)
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert str(out) in str(error.value)


def test_a_shard_that_is_missing_is_told(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "run"
    interrupted(plan, out, 2)
    (out / "checkpoint" / "00001" / "hosts-0000002-00001.state").unlink()
    with pytest.raises(BadInput, match="holds no state of host 2 and those after it"):
        resume_plan(out)


class Elsewhere:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("exit 1",)


def test_a_state_makes_nothing_but_states(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"posix\.system has no place in a checkpoint"):
        unpack(pack(Elsewhere()), tmp_path)
    write_state(tmp_path / "x.state", {"a": {1, 2}})
    assert read_state(tmp_path / "x.state") == {"a": {1, 2}}
    assert [path.name for path in tmp_path.iterdir()] == ["x.state"]
    assert pickle.loads(pickle.dumps(Every(3))) == Every(3)


# --- the driver killed, as a process --------------------------------------------------------------------------------------


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fleetsim", "run", *map(str, arguments)]


def started(*arguments: object) -> subprocess.Popen[str]:
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background may ignore it
        "from fleetsim.cli.main import main; main()"
    )
    line = [sys.executable, "-c", script, "run", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_after_kill_9_of_the_driver_the_run_goes_on_to_the_same_hash(plan: Plan, unbroken: RunResult, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = started(coupled_file(tmp_path), "--out", out, "--profile", "standard", "--checkpoint-every", 7)
    wait_for(out / "checkpoint" / "00003", process)
    process.kill()
    process.communicate()
    done = subprocess.run(command("--resume", out, "--json"), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["history_hash"] == unbroken.history_hash


def test_ctrl_c_leaves_a_directory_that_can_be_gone_on_with(unbroken: RunResult, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = started(coupled_file(tmp_path), "--out", out, "--profile", "standard", "--checkpoint-every", 5)
    wait_for(out / "checkpoint" / "00001", process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, ""), stderr
    assert "Traceback" not in stderr
    assert f"of 2m00s; go on with: fleetsim run --resume {out}" in stderr
    assert resume_plan(out).history_hash == unbroken.history_hash


@pytest.mark.slow
def test_killed_again_and_again_at_any_moment(plan: Plan, unbroken: RunResult, tmp_path: Path) -> None:
    """Moments from the import of the first module to the last block of samples; each of them loses what came after a checkpoint."""
    out = tmp_path / "run"
    file = coupled_file(tmp_path)
    moments = [0.5, 3.0, 1.0, 4.5, 2.5, 3.3, 3.9, 5.0, 6.0]
    kills = 0
    for moment in moments:
        if is_sealed(out):  # killed between the seal and its last word
            break
        begun = (out / "checkpoint" / "order.state").exists()
        if not begun:
            shutil.rmtree(out, ignore_errors=True)  # killed between making its folder and writing its order: nothing was simulated
        process = started(*(["--resume", out] if begun else [file, "--out", out, "--profile", "standard"]), "--checkpoint-every", 3)
        try:
            _, stderr = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0, stderr
    assert kills
    if not is_sealed(out):
        resume_plan(out)
    assert json.loads((out / "manifest.json").read_text())["history_hash"] == unbroken.history_hash
