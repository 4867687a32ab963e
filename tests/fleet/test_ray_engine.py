# SPDX-License-Identifier: Apache-2.0
"""The same bits on Ray as in this process, whatever the number of actors and wherever they are; what is no cluster to run on.

The history hash is over the history, every sample and every host's final record. Ray's processes take seconds to start and some
100 MB each: what needs more than one small cluster is marked slow.
"""

from __future__ import annotations

import json
import os
import socketserver
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fleetsim.errors import BadInput, Interrupted, ToolFailed
from fleetsim.fleet.checkpoint import Every
from fleetsim.fleet.controller import RunResult, resume_plan, run_plan
from fleetsim.fleet.plan import Plan
from fleetsim.fleet.ray_engine import cut_for, share_out
from tests.fleet.coupled import coupled_file
from tests.fleet.ray_worlds import PROFILE, TWO_MINUTES, killing, pids_of, ray_engine, samples_of

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
@pytest.mark.parametrize("hosts_per_actor", [100, 4, 3, 1])
def test_any_number_of_actors(plan: Plan, local: RunResult, tmp_path: Path, hosts_per_actor: int) -> None:
    """1, 2, 3 and 8 actors, the last with one host each."""
    with ray_engine("local", hosts_per_actor) as engine:
        assert run_plan(plan, tmp_path / "run", PROFILE, engine=engine).history_hash == local.history_hash


@pytest.mark.slow
def test_a_run_goes_on_with_another_engine_and_back(plan: Plan, local: RunResult, tmp_path: Path) -> None:
    """On Ray with two actors, in this process, on Ray with an actor for each host, each time from the other's checkpoint."""

    def stop_after(looks: int) -> Callable[[], bool]:
        asked = iter(range(1, 1000))
        return lambda: next(asked) == looks

    out = tmp_path / "run"
    with ray_engine("local", 5) as engine, pytest.raises(Interrupted):
        run_plan(plan, out, PROFILE, engine=engine, stop=stop_after(35))
    with pytest.raises(Interrupted):
        resume_plan(out, stop=stop_after(20))
    with ray_engine("local", 1) as engine, pytest.raises(Interrupted):
        resume_plan(out, engine=engine, stop=stop_after(20))
    with ray_engine("local", 2) as engine:
        result = resume_plan(out, engine=engine)
    assert result.history_hash == local.history_hash
    assert samples_of(result.out) == samples_of(local.out)


@pytest.mark.slow
def test_what_an_actor_refuses_comes_as_the_one_sentence(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = iter(range(1, 1000))
    with pytest.raises(Interrupted):
        run_plan(plan, out, PROFILE, stop=lambda: next(asked) == 3)
    state = out / "checkpoint" / "00001" / "hosts-0000003-00001.state"
    state.write_bytes(state.read_bytes()[:-20])
    with ray_engine("local", 2) as engine, pytest.raises(BadInput) as error:
        resume_plan(out, engine=engine)
    assert str(error.value) == "state of the hosts from shop-3 on: is damaged: its content is not what was written"


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


class Stranger(socketserver.BaseRequestHandler):
    """Somebody who is no cluster's head: answers as a web server, or not at all."""

    answer = b""

    def handle(self) -> None:
        self.request.recv(24)
        self.request.sendall(self.answer)
        if not self.answer:
            time.sleep(1)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n", b"220", b""])
def test_somebody_else_at_the_address_is_told_in_one_sentence_before_ray_is_asked(
    answer: bytes, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from fleetsim.fleet import ray_cluster

    monkeypatch.setattr(ray_cluster, "REACH_S", 0.3)
    monkeypatch.setattr(Stranger, "answer", answer)
    with socketserver.TCPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(BadInput, match="something listens there, but not the head of a Ray cluster"):
            ray_cluster.RayCluster(f"127.0.0.1:{server.server_address[1]}")
    assert capfd.readouterr() == ("", "")


def listening(pids: set[int]) -> set[str]:
    """The addresses at which processes listen, from /proc/net: loopback is said as it is, all others by their hex digits."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                inodes.add(link.readlink().name)
    loopback = {"0100007F": "127.0.0.1", "0000000000000000FFFF00000100007F": "127.0.0.1", "00000000000000000000000001000000": "::1"}
    found = set()
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(file).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                address = words[1].partition(":")[0]
                found.add(loopback.get(address, address))
    return found


def test_a_cluster_of_our_own_listens_on_loopback_only_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from fleetsim.fleet.ray_cluster import ONE_MACHINE, RayCluster

    monkeypatch.delenv(ONE_MACHINE, raising=False)
    cluster = RayCluster("local", 1)
    try:
        assert cluster.is_own
        folder = Path(ray._private.worker._global_node.get_temp_dir_path())
        assert folder.name.startswith("fleetsim-ray-")

        def pid() -> int:
            return os.getpid()

        worker = ray.get(ray.remote(pid).remote())
        session = {os.getpid(), worker} | {
            int(process.name) for process in Path("/proc").glob("[0-9]*") if str(folder).encode() in (process / "cmdline").read_bytes()
        }
        assert len(session) > 4
        assert listening(session) == {"127.0.0.1"}
    finally:
        cluster.leave()
    assert not folder.exists() and ONE_MACHINE not in os.environ


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

    before = pids_of(cluster)
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
        assert "8 hosts need about" in (told := capsys.readouterr().err) and "but the Ray cluster has 384MiB; about 0 hosts" in told
        assert not (tmp_path / "out").exists()
    finally:
        cluster.shutdown()


# --- Ray's own tools ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_dashboard() -> Iterator[Any]:
    """One machine whose cluster has a dashboard, on loopback."""
    from ray.cluster_utils import Cluster

    arguments = {
        "num_cpus": 2,
        "include_dashboard": True,
        "_system_config": {"metrics_report_interval_ms": 500},
        "dashboard_agent_listen_port": 0,  # any free one: with the fixed one of Ray a second cluster on a machine takes no jobs
    }
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_submitted_job_is_the_same_run(local: RunResult, tmp_path: Path, with_dashboard: Any) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient

    client = JobSubmissionClient(f"http://{with_dashboard.webui_url}")
    out = tmp_path / "run"
    line = [sys.executable, "-m", "fleetsim", "run", coupled_file(tmp_path), "--out", out, "--profile", "standard", "--ray", "auto"]
    deadline = time.monotonic() + TWO_MINUTES
    while True:
        try:
            job = client.submit_job(entrypoint=" ".join(map(str, line)))
            break
        except RuntimeError as error:  # Ray's agent comes up some seconds after its dashboard, later on a busy machine
            assert "No available agent" in str(error) and time.monotonic() < deadline, error
            time.sleep(1)
    while not (status := client.get_job_status(job)).is_terminal() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert status == JobStatus.SUCCEEDED, client.get_job_logs(job)
    assert json.loads((out / "manifest.json").read_text())["history_hash"] == local.history_hash


@pytest.mark.slow
def test_the_clusters_metrics_have_ours(plan: Plan, local: RunResult, tmp_path: Path, with_dashboard: Any) -> None:
    import ray

    shown: list[str] = []

    def look(engine: Any) -> None:
        """Wait until the last epoch is shown: the agent collects every half second."""
        (node,) = ray.nodes()
        deadline = time.monotonic() + 60
        while {line.rpartition(" ")[2] for line in shown} != {"99.0"} and time.monotonic() < deadline:
            time.sleep(0.5)
            with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10) as page:
                lines = page.read().decode().splitlines()
            shown[:] = [line for line in lines if line.startswith("ray_fleetsim_virtual_seconds{")]

    with ray_engine(with_dashboard.address, 4) as engine:
        result = run_plan(plan, tmp_path / "run", PROFILE, engine=killing(engine, {100: look}))
    assert result.history_hash == local.history_hash
    assert {line.rpartition(" ")[2] for line in shown} == {"99.0"}
    assert sum('hosts="shop-0 - shop-3"' in line for line in shown) == 1
