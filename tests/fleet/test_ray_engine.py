# SPDX-License-Identifier: Apache-2.0
"""The same bits on Ray as in this process, whatever the number of actors, wherever they are, and whoever dies on the way.

The history hash is over the history, every sample and every host's final record. Ray's processes take seconds to start and some
100 MB each: what needs more than one small cluster is marked slow.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleetsim.errors import BadInput, ToolFailed
from fleetsim.fleet.checkpoint import Every
from fleetsim.fleet.controller import EngineMaker, RunResult, resume_plan, run_plan
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.ray_engine import cut_for, share_out
from fleetsim.observe.catalog import profile
from fleetsim.rundir.reader import RunDirectory
from tests.fleet.coupled import coupled_file, coupled_plan

PROFILE = profile("standard")
TWO_MINUTES = 120.0


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return coupled_plan(tmp_path_factory.mktemp("scenario"))


@pytest.fixture(scope="module")
def local(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run_plan(plan, tmp_path_factory.mktemp("local") / "run", PROFILE)


@contextmanager
def ray_engine(address: str, hosts_per_actor: int | None = None, threads: int = 2) -> Iterator[EngineMaker]:
    from fleetsim.fleet.ray_cluster import RayCluster
    from fleetsim.fleet.ray_engine import RayEngine

    cluster = RayCluster(address, threads)
    try:
        yield lambda kept, writer, number: RayEngine(kept, writer, number, cluster, hosts_per_actor)
    finally:
        cluster.leave()


def samples_of(out: str) -> dict[str, list[tuple[int, bytes]]]:
    run = RunDirectory(Path(out))
    ids, times, values = run.columns()
    rows: dict[str, list[tuple[int, bytes]]] = {}
    for number, t, value in zip(ids.tolist(), times.tolist(), values, strict=True):
        rows.setdefault(json.dumps(run.series[number], sort_keys=True), []).append((t, value.tobytes()))
    return rows


# --- hosts among shards and actors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hosts", "actors"), [(1, 1), (5, 2), (5, 5), (7, 3), (100, 8), (1000, 2), (1001, 7), (64, 64), (10_000, 128)])
def test_every_host_is_in_one_shard_and_every_shard_in_one_actor(hosts: int, actors: int) -> None:
    cut = cut_for(hosts, actors)
    assert [host for first, count in cut for host in range(first, first + count)] == list(range(hosts))
    groups = share_out(cut, actors)
    assert [shard for group in groups for shard in group] == list(range(len(cut)))
    sizes = [sum(cut[shard][1] for shard in group) for group in groups]
    assert len(sizes) == actors and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("actors", [1, 2, 3, 5, 9])
def test_a_cut_that_is_given_is_shared_out_as_evenly_as_its_shards_allow(actors: int) -> None:
    cut = tuple((first, 2) for first in range(0, 10, 2))
    groups = share_out(cut, actors)
    assert [shard for group in groups for shard in group] == [0, 1, 2, 3, 4]
    assert len(groups) == min(actors, 5) and all(len(group) for group in groups)


# --- the same bits -------------------------------------------------------------------------------------------------------------


def test_two_actors_give_the_same_history_samples_and_records(plan: Plan, local: RunResult, tmp_path: Path) -> None:
    with ray_engine("local") as engine:
        result = run_plan(plan, tmp_path / "run", PROFILE, engine=engine, every=Every(epochs=20))
    assert result.history_hash == local.history_hash
    assert samples_of(result.out) == samples_of(local.out)
    assert (tmp_path / "run" / "history.jsonl").read_bytes() == (Path(local.out) / "history.jsonl").read_bytes()
    assert [path.name for path in (tmp_path / "run" / "samples").iterdir() if path.suffix != ".parquet"] == []


@pytest.mark.slow
@pytest.mark.parametrize("hosts_per_actor", [1, 2, 3, 5, 100])
def test_any_number_of_actors(plan: Plan, local: RunResult, tmp_path: Path, hosts_per_actor: int) -> None:
    with ray_engine("local", hosts_per_actor) as engine:
        assert run_plan(plan, tmp_path / "run", PROFILE, engine=engine).history_hash == local.history_hash


@pytest.mark.slow
def test_a_run_goes_on_with_another_engine_and_back(plan: Plan, local: RunResult, tmp_path: Path) -> None:
    """On Ray with two actors, in this process, on Ray with an actor for each host, each time from the other's checkpoint."""
    from fleetsim.errors import Interrupted

    def stop_after(looks: int) -> Callable[[], bool]:
        asked = iter(range(1, 1000))
        return lambda: next(asked) == looks

    out = tmp_path / "run"
    with ray_engine("local", 3) as engine, pytest.raises(Interrupted):
        run_plan(plan, out, PROFILE, engine=engine, stop=stop_after(35))
    with pytest.raises(Interrupted):
        resume_plan(out, stop=stop_after(20))
    with ray_engine("local", 1) as engine, pytest.raises(Interrupted):
        resume_plan(out, engine=engine, stop=stop_after(20))
    with ray_engine("local", 2) as engine:
        result = resume_plan(out, engine=engine)
    assert result.history_hash == local.history_hash
    assert samples_of(result.out) == samples_of(local.out)


# --- deaths ----------------------------------------------------------------------------------------------------------------------


class Killing:
    """An engine that is asked to kill somebody before some of its epochs."""

    def __init__(self, engine: Any, kill_before: dict[int, Callable[[Any], None]]) -> None:
        self._engine, self._kill_before, self._epoch = engine, kill_before, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def advance(self, until_ns: int, commands: Any, rates: Any = None) -> Any:
        self._epoch += 1
        if kill := self._kill_before.get(self._epoch):
            kill(self._engine)
        return self._engine.advance(until_ns, commands, rates)


def killing(engine: EngineMaker, kill_before: dict[int, Callable[[Any], None]]) -> EngineMaker:
    return lambda kept, writer, number: Killing(engine(kept, writer, number), kill_before)  # type: ignore[return-value]


def pid_of(engine: Any, actor: int) -> int:
    return int(engine._all([engine._actors[actor].who.remote()])[0]["pid"])


def kill_9(actor: int, in_s: float = 0.0) -> Callable[[Any], None]:
    """Kill an actor's process, at once or in the middle of what comes next."""

    def kill(engine: Any) -> None:
        subprocess.Popen(["sh", "-c", f"sleep {in_s}; kill -9 {pid_of(engine, actor)}"]).wait() if not in_s else subprocess.Popen(
            ["sh", "-c", f"sleep {in_s}; kill -9 {pid_of(engine, actor)}"]
        )

    return kill


@pytest.mark.slow
@pytest.mark.parametrize("every", [0, 15])
def test_kill_9_of_actors_between_and_inside_epochs(plan: Plan, local: RunResult, tmp_path: Path, every: int) -> None:
    deaths = {5: kill_9(0), 44: kill_9(1), 45: kill_9(0, in_s=0.05), 80: kill_9(1, in_s=0.01), 118: kill_9(0)}
    with ray_engine("local", 3) as engine:
        result = run_plan(plan, tmp_path / "run", PROFILE, engine=killing(engine, deaths), every=Every(epochs=every))
    assert result.history_hash == local.history_hash
    assert samples_of(result.out) == samples_of(local.out)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two machines, played by two raylets on this one."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_when_a_machine_is_lost_its_hosts_go_on_on_another(plan: Plan, local: RunResult, tmp_path: Path, cluster: Any) -> None:
    """kill -9 of a raylet: its actors die with it, and Ray starts them anew on the machine that is left."""
    seen: list[set[str]] = []

    def lose_a_machine(engine: Any) -> None:
        seen.append(set(engine._nodes()))
        (worker,) = [node for node in cluster.list_all_nodes() if not node.head]
        for info in worker.all_processes["raylet"]:
            os.kill(info.process.pid, signal.SIGKILL)

    with ray_engine(cluster.address, 2) as engine:
        result = run_plan(plan, tmp_path / "run", PROFILE, engine=killing(engine, {50: lose_a_machine}), every=Every(epochs=15))
    assert len(seen[0]) == 2, "the actors were on both machines"
    assert result.history_hash == local.history_hash


@pytest.mark.slow
def test_a_cluster_that_is_not_ours_stays_as_it_is_and_its_machines_need_not_see_the_run_directory(
    plan: Plan, local: RunResult, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a token that no machine finds, every block of samples comes through Ray."""
    from fleetsim.fleet import ray_engine as module

    duty = module.Duty
    monkeypatch.setattr(module, "Duty", lambda **fields: duty(**{**fields, "token": "of another machine"}))
    before = {info.process.pid for node in cluster.list_all_nodes() for infos in node.all_processes.values() for info in infos}
    deaths = {30: kill_9(0), 90: kill_9(1)}
    with ray_engine(cluster.address, 3) as engine:
        result = run_plan(plan, tmp_path / "run", PROFILE, engine=killing(engine, deaths), every=Every(epochs=25))
    assert result.history_hash == local.history_hash
    assert samples_of(result.out) == samples_of(local.out)
    assert all(Path(f"/proc/{pid}").exists() for pid in before)
    assert not list((tmp_path / "run" / "samples").glob(".*"))


def started(*arguments: object) -> subprocess.Popen[str]:
    script = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom fleetsim.cli.main import main; main()"
    line = [sys.executable, "-c", script, "run", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ray_processes() -> set[int]:
    """Of clusters that fleetsim has started for itself."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"fleetsim-ray-" in line and (b"raylet" in line or b"gcs_server" in line):
            found.add(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_when_the_driver_ends_nothing_of_it_runs_on_and_the_run_can_be_gone_on_with(
    local: RunResult, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    before = ray_processes()
    process = started(coupled_file(tmp_path), "--out", out, "--profile", "standard", "--checkpoint-every", 7, "--ray", "local")
    while not (out / "checkpoint" / "00003").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    assert ray_processes() - before
    process.send_signal(number)
    _, stderr = process.communicate(timeout=TWO_MINUTES)
    assert process.returncode == (130 if number == signal.SIGINT else -9), stderr
    assert "Traceback" not in stderr
    deadline = time.monotonic() + 30
    while ray_processes() - before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not ray_processes() - before
    assert resume_plan(out).history_hash == local.history_hash


# --- bad input -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", "nobody answers there"),
        ("nowhere.invalid:6379", "nobody answers there"),
        ("ray://10.0.0.5:10001", "write auto, local, or HOST:PORT"),
        ("10.0.0.5", "write auto, local, or HOST:PORT"),
        ("10.0.0.5:many", "write auto, local, or HOST:PORT"),
    ],
)
def test_an_address_where_no_cluster_is_is_told_within_seconds(plan: Plan, address: str, sentence: str) -> None:
    from fleetsim.fleet.ray_cluster import RayCluster

    began = time.monotonic()
    with pytest.raises(BadInput, match=sentence):
        RayCluster(address)
    assert time.monotonic() - began < TWO_MINUTES / 2


def actors_running() -> int:
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            count += (folder / "cmdline").read_bytes().startswith(b"ray::MeasuredActor")
        except OSError:
            continue
    return count


@pytest.mark.slow
def test_a_cluster_that_does_not_fit_is_told_and_stays_as_it_is(
    plan: Plan, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from fleetsim.fleet import ray_engine as module
    from fleetsim.fleet.ray_cluster import RayCluster

    before = {info.process.pid for node in cluster.list_all_nodes() for infos in node.all_processes.values() for info in infos}
    with monkeypatch.context() as patch:
        patch.setattr(ray, "__version__", "2.9.0")
        with pytest.raises(BadInput, match=f"--ray {cluster.address}: this cluster cannot be joined: Version mismatch") as error:
            RayCluster(cluster.address)
        assert "\n" not in str(error.value)
    with ray_engine(cluster.address) as engine:
        monkeypatch.setattr(module, "sources_digest", lambda: "0123456789abcdef")
        with pytest.raises(ToolFailed, match="the Ray cluster has another fleetsim than this one"):
            run_plan(plan, tmp_path / "other", PROFILE, engine=engine)
    deadline = time.monotonic() + 20
    while actors_running() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not actors_running()
    assert all(Path(f"/proc/{pid}").exists() for pid in before)


@pytest.mark.slow
def test_a_cluster_without_cpus_or_memory_is_told_before_anything_is_written(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    from fleetsim.cli.main import execute

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "memory": 256 << 20, "include_dashboard": False})
    try:
        line = ["run", str(coupled_file(tmp_path)), "--out", str(tmp_path / "out"), "--ray", cluster.address]
        assert execute(line) == 2
        assert "the Ray cluster has no CPU for an actor: it has 1 machine with 0 CPUs together" in capsys.readouterr().err
        cluster.add_node(num_cpus=1, memory=128 << 20)
        assert execute([*line, "--hosts-per-actor", "1"]) == 2
        assert "5 hosts need about" in (told := capsys.readouterr().err) and "but the Ray cluster has 384MiB; about 0 hosts" in told
        assert not (tmp_path / "out").exists()
    finally:
        cluster.shutdown()
