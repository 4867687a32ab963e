# SPDX-License-Identifier: Apache-2.0
"""A host's kubelet at work: containers end and start again, probes fail, pods are evicted; each chain of events in its order."""

from __future__ import annotations

import pytest

from fleetsim.containers.kubelet import Sync
from fleetsim.containers.pod import Pod
from fleetsim.containers.pod_spec import NodeOptions, PodSpecs
from fleetsim.containers.resources import Node
from fleetsim.containers.web import Web
from fleetsim.host import kubelet_types as kt
from fleetsim.host.spec import PodSpec, ProbeSpec
from fleetsim.linux import mm_types as mm
from tests.containers.pod_worlds import PodWorld, pod_of, pod_world, script_container, script_pod

HOG = "mmap_anon a 100 | touch a 100 100 | sleep 100000"


# --- death and restart ----------------------------------------------------------------------------------------------


def test_a_container_above_its_limit_dies_of_it_and_comes_back_to_die_again() -> None:
    """limit 40 MiB, 100 MiB wanted: OOMKilled with 137 each time, the back-off doubles; the story of 3 AM."""
    w = pod_world(script_pod("app", HOG, limits=40)).at(80)
    chain = ["oom_kill", "container_exit", "back_off", "restart"]
    assert [kind for kind, _ in w.story(*chain)][:12] == chain * 3
    exits = w.events("container_exit")
    assert all(e.data["reason"] == "OOMKilled" and e.data["exit_code"] == 137 for e in exits)
    assert [e.data["seconds"] for e in w.events("back_off")][:3] == [10, 20, 40]
    ended = [e.t_ns / 1e9 for e in w.events("task_exit")]
    gaps = [again - death for again, death in zip(w.times("restart", "app"), ended, strict=False)]
    assert gaps[:3] == pytest.approx([10, 20, 40])
    assert w.container("app")["restarts"] == 4


def test_crash_at_once_starts_at_0_10_30_70_150_310_610() -> None:
    """T-17.4 on a host; dying takes some milliseconds each time."""
    w = pod_world(script_pod("app", "exit 1"), memory_mib=128).at(620)
    starts = [0.0, *w.times("restart", "app")]
    assert starts == pytest.approx([0, 10, 30, 70, 150, 310, 610], abs=0.1)
    assert {e.data["reason"] for e in w.events("container_exit")} == {"Error"}


def test_after_ten_minutes_of_peace_the_back_off_is_ten_seconds_again() -> None:
    w = pod_world(script_pod("app", "sleep 601 | exit 1"), memory_mib=128).at(1300)
    assert [e.data["seconds"] for e in w.events("back_off")] == [10, 10]


@pytest.mark.parametrize(
    ("restart", "code", "restarts", "phase"),
    [
        ("Always", 0, 1, "Running"),
        ("OnFailure", 0, 0, "Succeeded"),
        ("OnFailure", 1, 1, "Running"),
        ("Never", 0, 0, "Succeeded"),
        ("Never", 1, 0, "Failed"),
    ],
)
def test_restart_policies_and_the_phases_they_lead_to(restart: str, code: int, restarts: int, phase: str) -> None:
    w = pod_world(script_pod("job", f"sleep 2 | exit {code}", restart=restart), memory_mib=128).at(13)
    assert (int(w.container("job")["restarts"]), kt.POD_PHASES[int(w.pod("job")["phase"])]) == (restarts, phase)


def test_with_pid_1_every_process_of_the_container_dies() -> None:
    """PID 1 exits: the kernel kills the rest of its PID namespace, and both start again together."""
    w = pod_world(script_pod("app", processes={"init": "sleep 3 | exit 3", "worker": "sleep 1000"}), memory_mib=128).at(15)
    exits = {e.subject: e.data["exit_code"] for e in w.events("task_exit")}
    assert exits == {"init": 3, "worker": 137}
    assert w.times("restart", "init") == w.times("restart", "worker") == pytest.approx([13], abs=0.1)
    (told,) = w.events("container_exit")
    assert (told.data["exit_code"], told.data["reason"]) == (3, "Error")


def test_processes_that_a_container_forks_are_none_of_the_kubelets_business(monkeypatch: pytest.MonkeyPatch) -> None:
    """pleg.go tells of containers: a child that comes and goes changes nothing, and nothing is decided. The end of PID 1 does."""
    decided: list[float] = []
    before = Sync.decide

    def decide(sync: Sync, worth: int) -> None:
        decided.append(sync.now / 1e9)
        before(sync, worth)

    monkeypatch.setattr(Sync, "decide", decide)
    w = pod_world(script_pod("app", "sleep 5 | fork_hold 2 | fork_hold 2 | sleep 11 | exit 3"), memory_mib=128).at(4)
    seen = len(decided)
    w.at(14)
    assert len([e for e in w.events("task_exit") if e.subject != "app"]) == 2 and len(decided) == seen
    w.at(25)
    assert w.events("container_exit")[0].data["exit_code"] == 3 and 16 < decided[seen] < 18


def test_oom_group_takes_the_whole_container_although_the_child_was_the_large_one() -> None:
    w = pod_world(script_pod("app", limits=40, processes={"master": "sleep 1000", "child": HOG})).at(8)
    assert [k for k, _ in w.story("oom_kill", "container_exit")] == ["oom_kill", "oom_kill", "container_exit"]
    assert w.events("container_exit")[0].data["reason"] == "OOMKilled"
    assert w.events_of(w.shard.names_of(0).cgroup_name(int(w.container("app")["cg"])))["oom_kill"] == 3, (
        "the kernel counts its victim twice"
    )
    assert sum("Killed process" in line for line in w.shard.dmesg[0]) == 3, "… and its log says it twice"


def test_with_single_process_oom_kill_the_child_dies_and_the_container_lives_on() -> None:
    """Kubernetes shows nothing: no restart, ready; only the counter and our event tell."""
    w = pod_world(
        script_pod("app", limits=40, processes={"master": "sleep 1000", "child": HOG}), options={"single_process_oom_kill": True}
    ).at(20)
    assert w.story("oom_kill", "process_oom_killed", "container_exit", "restart") == [("oom_kill", "child"), ("process_oom_killed", "app")]
    assert (int(w.container("app")["restarts"]), int(w.pod("app")["serving"])) == (0, 1)


def test_init_containers_run_one_after_the_other_and_then_the_rest() -> None:
    pod = pod_of(
        "web",
        script_container("fetch", "sleep 3 | exit 0", init=True),
        script_container("migrate", "sleep 2 | exit 0", init=True),
        script_container("app"),
        script_container("sidecar"),
    )
    w = pod_world(pod, memory_mib=128)
    assert kt.POD_PHASES[int(w.at(4).pod("web")["phase"])] == "Pending"
    w.at(12)
    assert [name for _, name in w.story("task_start")] == ["web.fetch", "web.migrate", "web.app", "web.sidecar"]
    assert (kt.POD_PHASES[int(w.pod("web")["phase"])], int(w.pod("web")["serving"])) == ("Running", 1)


def test_an_init_container_that_fails_is_tried_again_before_anything_else_starts() -> None:
    w = pod_world(pod_of("web", script_container("init", "exit 1", init=True), script_container("app")), memory_mib=128).at(12)
    assert [name for _, name in w.story("task_start", "restart")] == ["web.init", "web.init"]


def test_a_sidecar_that_dies_is_restarted_alone_and_the_pod_does_not_serve_meanwhile() -> None:
    w = pod_world(pod_of("web", script_container("app"), script_container("log", "sleep 4 | exit 1")), memory_mib=128)
    assert w.at(3).pod("web")["serving"] == 1
    assert w.at(7).pod("web")["serving"] == 0
    w.at(17)
    assert [name for _, name in w.story("restart")] == ["web.log"]
    assert w.pod("web")["serving"] == 1


def test_a_killed_container_is_an_error_with_137_but_not_oomkilled() -> None:
    w = pod_world(script_pod("app"), memory_mib=128)
    w.command(2.5, "kill", task="app")
    w.at(15)
    (told,) = w.events("container_exit")
    assert (told.data["exit_code"], told.data["reason"]) == (137, "Error")
    assert w.times("restart", "app") == pytest.approx([12.5], abs=0.1)


# --- probes -----------------------------------------------------------------------------------------------------------


def test_a_process_that_stalls_fails_its_probes_and_is_restarted_by_the_liveness_probe() -> None:
    """A read of 2 GiB from a slow disk blocks PID 1 again and again for longer than the timeout of a second."""
    probes = (ProbeSpec("liveness", period_s=5, failure_threshold=2), ProbeSpec("readiness", period_s=5, failure_threshold=1))
    w = pod_world(script_pod("app", "sleep 12 | read_file /slow 0 0", probes=probes), memory_mib=128, files={"/slow": 2 << 30})
    w.command(11.0, "disk", disk="data", slow_percent=10_000_000)
    w.at(60)
    chain = [kind for kind, _ in w.story("container_ready", "container_unready", "probe_fail", "container_stop", "container_exit")]
    assert chain[:6] == ["container_ready", "probe_fail", "probe_fail", "container_unready", "probe_fail", "container_stop"], chain
    assert {e.data["reason"] for e in w.events("probe_fail")} == {"timeout"}


@pytest.mark.parametrize("with_startup", [True, False])
def test_liveness_waits_for_the_startup_probe(with_startup: bool) -> None:
    """A server that needs 25 s to start: with a liveness probe alone it is killed after three refusals, again and again."""
    startup = (ProbeSpec("startup", period_s=5, failure_threshold=10),) if with_startup else ()
    web = Web.model_validate({"load": "1/s", "starting": "25s", "working_set": "4MiB"})
    pod = Pod("web", "web", web, probes=(*startup, ProbeSpec("liveness", period_s=5)))
    w = pod_world(pod, memory_mib=128).at(45)
    assert [e.data["why"] for e in w.events("container_stop")] == ([] if with_startup else ["liveness probe failed"])
    assert int(w.pod("web")["serving"]) == (1 if with_startup else 0) or not with_startup
    assert {e.data["probe"] for e in w.events("probe_fail")} == {"startup" if with_startup else "liveness"}


def test_a_container_that_has_just_ended_is_not_ready_however_its_last_probe_ended() -> None:
    """It dies between two looks; at the next one its probe is due as well."""
    probe = ProbeSpec("readiness", period_s=1)
    w = pod_world(script_pod("app", "sleep 3.5 | exit 1", probes=(probe,)), memory_mib=128).at(12)
    assert [kind for kind, _ in w.story("container_ready", "container_exit", "pod_ready", "pod_unready")] == [
        "container_ready",
        "pod_ready",
        "container_exit",
        "pod_unready",
    ]


# --- eviction ---------------------------------------------------------------------------------------------------------

SLOW, FAST = (f"mmap_anon a 90 | mmap_anon b 90 | touch a 90 {rate} | touch b 90 {rate} | sleep 100000" for rate in (2, 200))


def eviction_world(text: str) -> PodWorld:
    """192 MiB, evicted below 40 MiB; `eater` is BestEffort, `steady` within its request."""
    steady = "mmap_anon s 30 | touch s 30 50 | sleep 100000"
    return pod_world(script_pod("steady", steady, requests=40, limits=60), script_pod("eater", text), memory_mib=192, hard_mib=40)


def test_memory_that_is_eaten_slowly_ends_in_an_eviction_before_the_kernel_kills() -> None:
    w = eviction_world(SLOW).at(120)
    assert w.kills() == []
    chain = w.story("eviction", "pod_phase", "container_stop", "container_exit", "pod_gone", "node_condition")
    assert [kind for kind, _ in chain] == ["eviction", "pod_phase", "container_stop", "container_exit", "pod_gone", "node_condition"]
    (told,) = w.events("eviction")
    assert (told.subject, told.data["threshold"], told.data["qos"]) == ("eater", "hard", "besteffort")
    assert told.data["message"].startswith("The node was low on resource: memory. Threshold quantity: 40Mi, available: ")
    assert "eater" not in w.shard.names_of(0).pods and w.story("restart") == []
    assert w.pod("steady")["serving"] == 1


def test_memory_that_is_eaten_fast_is_the_kernels_affair_and_evicts_nobody() -> None:
    """200 MiB/s: between two looks of the eviction manager the host is out of memory."""
    w = eviction_world(FAST).at(9)
    assert set(w.kills()) == {"eater"} and w.story("eviction") == []


def test_page_cache_that_was_read_once_is_available_and_what_was_read_twice_is_not() -> None:
    """inactive_file is not part of the working set, active file is: a hot cache, which the kernel could drop, gets a pod evicted."""
    evicted = {}
    for passes in (1, 2):
        reader = script_pod("reader", " | ".join(["read_file /data 110 0"] * passes + ["sleep 1000"]))
        w = pod_world(reader, memory_mib=192, hard_mib=60, files={"/data": 110 << 20}).at(30)
        evicted[passes] = [name for _, name in w.story("eviction")]
        if passes == 1:
            assert w.meminfo("MemFree") < 60, "free memory is below the threshold, available memory is not"
    assert evicted == {1: [], 2: ["reader"]}


def test_nobody_else_is_evicted_while_the_first_one_cannot_die() -> None:
    """`stuck` waits for a disk that does not answer, so it keeps its memory; the manager waits for it before it takes the next one."""
    stuck = script_pod("stuck", "mmap_anon a 80 | touch a 80 100 | until 5 | read_file /slow 0 0")
    other = script_pod("other", "mmap_anon a 30 | touch a 30 100 | sleep 1000")
    w = pod_world(stuck, other, memory_mib=192, hard_mib=60, files={"/slow": 500 << 20}, eviction={"monitor_s": 6.0})
    w.command(4.5, "disk", disk="data", slow_percent=100_000_000)
    assert w.at(30).story("eviction") == [("eviction", "stuck")]


def test_memory_pressure_ends_five_minutes_after_it_was_last_seen() -> None:
    w = eviction_world(SLOW).at(450)
    conditions = w.events("node_condition")
    assert [e.data["status"] for e in conditions] == ["True", "False"]
    assert [e.data["taint"] for e in conditions] == ["node.kubernetes.io/memory-pressure:NoSchedule", ""]
    (evicted,) = w.events("eviction")
    assert 300 <= (conditions[1].t_ns - evicted.t_ns) / 1e9 <= 320


def test_a_soft_threshold_gives_its_grace_periods() -> None:
    """Below 60 MiB for 20 s: SIGTERM, so the exit code is 143."""
    eater = "mmap_anon a 100 | touch a 100 20 | sleep 100000"
    soft = {"eviction_soft_grace_s": 20.0, "eviction_max_pod_grace_s": 10}
    w = pod_world(script_pod("eater", eater), memory_mib=192, soft_mib=80, eviction=soft).at(60)
    (told,) = w.events("eviction")
    (ended,) = w.events("container_exit")
    assert told.data["threshold"] == "soft" and ended.data["exit_code"] == 143
    assert told.t_ns >= 30 * mm.NS_PER_S, "seen at 10 s, and for 20 s"


def test_one_pod_is_evicted_at_a_time_and_the_signal_is_looked_at_again_before_the_next() -> None:
    """Two BestEffort pods; the larger goes first, and that is enough."""
    pods = [script_pod(name, f"mmap_anon a {size} | touch a {size} 20 | sleep 100000") for name, size in (("small", 40), ("large", 60))]
    w = pod_world(*pods, memory_mib=192, hard_mib=70).at(60)
    assert w.story("eviction") == [("eviction", "large")]


def test_nobody_restarts_anything_on_a_host_that_panicked() -> None:
    w = pod_world(script_pod("app", FAST), memory_mib=192, sysctl={"vm.panic_on_oom": 1}).at(60)
    assert [kind for kind, _ in w.story("oom_panic", "restart", "back_off")] == ["oom_panic"]


# --- tmpfs ------------------------------------------------------------------------------------------------------------


def test_an_empty_dir_of_medium_memory_is_charged_to_its_pod_and_goes_with_it() -> None:
    writer = script_pod("writer", "write_file /cache/x 30 0 | sleep 1000", limits=60, empty_dirs={"/cache": 50 << 20})
    w = pod_world(writer).at(5)
    slice_cg = w.row["cgroups"][int(w.pod("writer")["cg"])]
    assert int(slice_cg["shmem"]) == 30 * 256
    w.command(6, "delete_pod", pod="writer")
    w.at(10)
    assert w.story("container_stop", "container_exit", "pod_gone") == [
        ("container_stop", "writer"),
        ("container_exit", "writer"),
        ("pod_gone", "writer"),
    ]
    assert int(w.row["shmem"]) == 0
    assert w.events("container_exit")[0].data["exit_code"] == 143


def test_memory_in_an_empty_dir_kills_the_container_that_wrote_it_and_outlives_it() -> None:
    """limit 40 MiB: 30 MiB in tmpfs and 20 MiB of its own are too much; after the restart the 30 are still there."""
    w = pod_world(
        script_pod("w", "write_file /c/x 30 0 over | mmap_anon a 20 | touch a 20 100 | sleep 99", limits=40, empty_dirs={"/c": 0})
    ).at(14)
    assert [k for k, _ in w.story("oom_kill", "container_exit", "restart")][:3] == ["oom_kill", "container_exit", "restart"]
    assert int(w.row["shmem"]) == 30 * 256


def test_dev_shm_of_a_container_is_full_after_64_mib() -> None:
    w = pod_world(script_pod("ring", "write_file /dev/shm/ring 100 0 | sleep 1000", limits=200)).at(5)
    assert int(w.row["shmem"]) == 64 * 256


# --- pods come and go ---------------------------------------------------------------------------------------------------


def spec_of(name: str, text: str) -> PodSpec:
    return PodSpecs("host", (script_pod(name, text),), NodeOptions(Node(128 << 20)))[0]


def test_pods_that_come_and_go_use_the_same_rows_again() -> None:
    w = pod_world(script_pod("first", "mmap_anon a 10 | touch a 10 0 | sleep 1000"), memory_mib=128)
    tasks, cgroups = int(w.row["nr_tasks"]), int(w.row["nr_cgroups"])
    for n in range(6):
        name = f"p{n}"
        w.command(10 * n + 2, "start_pod", spec=spec_of(name, "mmap_anon a 10 | touch a 10 0 | sleep 1000"))
        w.command(10 * n + 6, "delete_pod", pod=name)
    w.at(70)
    assert [name for _, name in w.story("pod_gone")] == [f"p{n}" for n in range(6)]
    assert [name for _, name in w.story("task_start")] == ["first", *(f"p{n}" for n in range(6))], "none of them is a restart"
    assert (int(w.row["nr_tasks"]), int(w.row["nr_cgroups"])) == (tasks + 1, cgroups + 2)


def test_a_node_under_memory_pressure_refuses_besteffort_pods() -> None:
    w = eviction_world(SLOW).at(100)
    assert int(w.row["kubelet"]["pressure"]) == 1
    w.command(101, "start_pod", spec=spec_of("late", "sleep 1000"))
    w.at(110)
    (told,) = w.events("pod_rejected")
    assert told.subject == "late" and "late" not in w.shard.names_of(0).pods


def test_commands_to_a_pod_that_left_are_refused_in_the_history() -> None:
    w = pod_world(script_pod("first"), memory_mib=128)
    w.command(2, "delete_pod", pod="first")
    w.command(6, "kill", task="first")
    w.at(8)
    assert w.events("command")[-1].data["refused"] == "its pod has left this host"


def test_a_snapshot_brings_back_what_the_kubelet_knew() -> None:
    """Two hosts, one restored from the other's bytes in the middle of a back-off: the same story afterwards."""
    one, two = (pod_world(script_pod("app", "sleep 2 | exit 1"), memory_mib=128) for _ in range(2))
    one.at(20), two.at(1)
    two.shard.restore(one.shard.snapshot())
    one.events()
    two.events()
    seen = len(one.seen), len(two.seen)
    one.at(100), two.at(100)
    stories = [[(e.t_ns, e.kind, dict(e.data)) for e in w.events()[n:]] for w, n in zip((one, two), seen, strict=True)]
    assert stories[0] == stories[1] and any(kind == "back_off" for _, kind, _ in stories[0])


def test_a_host_without_pods_is_looked_after_by_nobody() -> None:
    w = pod_world(memory_mib=128).at(5)
    assert int(w.row["kubelet"]["next_ns"]) in (0, kt.RELIST_NS)
