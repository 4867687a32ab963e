# SPDX-License-Identifier: Apache-2.0
"""A Redis that saves: what a fork costs in time, what writes copy meanwhile, how a save fails, who dies of it, replicas, the log.

Figures called measured are of redis-server 7.0.15 with jemalloc 5.3.0 (medians of tests/ground_truth/calibration, redis_save.json).
"""

from __future__ import annotations

import functools
import itertools

import pytest

from fleetsim.containers.redis import Redis
from fleetsim.host.spec import DiskSpec
from fleetsim.linux import mm_types as mm
from fleetsim.workloads.redis_slots import BUFFERED, CHILD, LIVE, VALUES
from scripts.worlds.redis import NEVER, kinds, redis_world
from tests.host.worlds import MIB


@functools.cache
def saved(rate: int) -> tuple[float, float, float]:
    """A save of the 600,000 keys of 1 KiB that were measured, under so many SETs a second: its seconds, copied bytes, SETs."""
    r = redis_world(Redis(keys=600_000, load=f"{rate}/s", write_share=100.0, save=[[15, 0]], commands_per_s=1_000_000), 4096)
    for quarter in range(60, 200):
        r.at(quarter / 4)
        if r.slot(CHILD) == 0 and r.info("latest_fork_usec") > 0:
            break
    (end,) = r.events("save_end")
    return float(end.data["seconds"]), float(end.data["cow_bytes"]), float(r.info("rdb_changes_since_last_save"))


@pytest.mark.parametrize(("sets", "cow"), [(8_000, 71_832_000), (23_900, 150_780_000), (194_000, 587_610_000)])
def test_a_save_under_as_many_writes_as_measured_copies_as_much_memory(sets: int, cow: int) -> None:
    quiet_s, _, _ = saved(10)
    rate = sets / quiet_s
    for _ in range(2):  # the more is copied the longer it takes
        seconds, copied, during = saved(round(rate))
        rate *= sets / (rate * seconds)
    assert during == pytest.approx(sets, rel=0.15)
    assert copied == pytest.approx(cow * (during / sets) ** 0.8, rel=0.15)


def test_the_child_needs_as_much_processor_time_as_the_real_one() -> None:
    """Measured: 3.6 to 4.1 s for 600,000 keys of 1 KiB, and the dump has 625,200,000 bytes."""
    r = redis_world(Redis(keys=600_000, save=[[15, 0]]), 4096, tasks=()).at(15.5)
    child = r.task("redis-child")
    r.at(30)
    (end,) = r.events("save_end")
    assert end.data["job"] == "save"
    assert 4096 * max(int(file["size"]) for file in r.row["files"]) == pytest.approx(625_200_000, rel=0.01)
    assert (int(child["utime_ns"]) + int(child["stime_ns"])) / 1e9 == pytest.approx(3.83, rel=0.15)


def test_a_fork_stops_the_server_for_as_long_as_its_page_tables_take() -> None:
    """kernel-laws §10.2: 9 to 13 ms per GB on bare metal [the Redis documentation]."""
    r = redis_world(Redis(keys=800_000, load="1000/s", write_share=0.0, save=[[15, 0]]), 4096).at(14)
    assert int(r.server["buckets"][1:].sum()) == 0, "no command took more than 5 ms"
    r.at(17)
    fork_ms = r.info("latest_fork_usec") / 1000
    assert fork_ms / (r.rss() / 1e9) == pytest.approx(9, rel=0.3)
    late = int(r.server["buckets"][1:].sum())
    assert 0 < late < 1.5 * fork_ms, "of those that came during the fork, one in a millisecond"


def test_a_save_point_needs_both_its_seconds_and_its_changes() -> None:
    r = redis_world(Redis(keys=1000, load="10/s", write_share=100.0, save=[[60, 200], [10, 1000]])).at(59)
    assert kinds(r) == []
    r.at(70)
    assert kinds(r) == ["save_start", "save_end"]
    assert r.info("rdb_changes_since_last_save") < 200
    r.at(110)
    assert len(kinds(r)) == 2, "the clock starts anew"
    idle = redis_world(Redis(keys=1000, save=[[1, 1]])).at(60)
    assert kinds(idle) == []


def test_the_dump_takes_the_place_of_the_old_one() -> None:
    r = redis_world(Redis(keys=10_000, load="100/s", write_share=100.0, save=[[10, 1]])).at(35)
    files = {path: r.row["files"][f] for path, f in r.shard.names_of(0).files.items()}
    assert len(files) == 2
    sizes = sorted(int(file["size"]) for file in files.values() if file["linked"])
    assert sizes == [pytest.approx(10_000 * 1042 / 4096, abs=2)]


def test_while_a_dump_is_written_the_last_one_is_whole() -> None:
    r = redis_world(Redis(keys=20_000, load="100/s", write_share=100.0, save=[[10, 1]], save_rate="5MiB/s"))
    pages = 20_000 * 1042 // 4096 + 1
    seen = []
    for second in (12, 16, 26, 28, 41):
        r.at(second)
        seen.append(sorted(int(file["size"]) for file in r.row["files"] if file["used"]))
    assert all(small < pages for small, _ in seen)
    assert [large for _, large in seen[1:]] == [pages] * 4
    assert any(small > 0 for small, _ in seen[2:])


def test_what_was_copied_is_given_back_when_the_child_is_gone() -> None:
    r = redis_world(Redis(keys=50_000, load="5000/s", write_share=100.0, save=[[10, 1]], save_rate="4MiB/s")).at(9.5)
    usage = int(r.cg("box")["anon"])
    r.at(18)
    assert int(r.cg("box")["anon"]) - usage > 0.5 * usage
    rss = r.rss()
    r.at(26)
    assert r.slot(CHILD) == 0
    assert int(r.cg("box")["anon"]) == pytest.approx(usage, rel=0.01)
    begun = next(e.t_ns for e in r.events("save_start")) / 1e9
    assert r.info("rdb_changes_since_last_save") == pytest.approx(5000 * (26 - begun), rel=0.05), "those after the fork are not saved"
    assert r.rss() == pytest.approx(rss, rel=0.01), "VmRSS of the parent never showed it"


def test_t_16_3() -> None:
    """kernel-laws §16.2: 10 GiB, 20,000 writes a second at random, 120 s: 1.57 M pages. One value to a page here; the keys' structures
    are copied as well."""
    keys = 2_621_440
    rate = (keys * (4000 + 18)) // 118
    redis = Redis(
        keys=keys, value="4000B", load="20000/s", write_share=100.0, save=[[70, 1]], save_rate=f"{rate}B/s", commands_per_s=1_000_000
    )
    r = redis_world(redis, 32 << 10, tasks=()).at(79)
    assert int(r.row["areas"][r.slot(VALUES) - 1]["pages"]) == keys
    assert r.slot(CHILD) > 0
    begun = next(e.t_ns for e in r.events("save_start")) / 1e9
    r.at(begun + 120)
    a = r.slot(VALUES) - 1
    own = r.row["groups"][int(r.row["areas"][a]["group"])]
    assert int(own["resident"]) == pytest.approx(1_570_000, rel=0.02)


def test_overcommit_2_refuses_the_fork_and_then_writes_until_it_may_fork_again() -> None:
    redis = Redis(keys=100_000, load="100/s", write_share=50.0, save=[[10, 1]])
    r = redis_world(redis, 384, sysctl={"vm.overcommit_memory": 2, "vm.overcommit_ratio": 70}).at(60)
    (failed,) = r.events("save_failed")
    assert failed.data == {"reason": "Can't save in background: fork: Cannot allocate memory"}
    assert failed.t_ns / 1e9 == pytest.approx(10.5, abs=1.5)
    assert [kind for kind in kinds(r) if kind != "enomem"] == ["save_failed", "impact_start errors"]
    assert "oom_kill" not in kinds(r)
    assert r.info("rdb_last_bgsave_ok") == 0
    assert int(r.server["broken"]) == pytest.approx(50 * 48, rel=0.1), "every write, and no read"
    tries = [e.t_ns / 1e9 for e in r.events("enomem")]
    assert all(5 < b - a < 7 for a, b in itertools.pairwise(tries))
    r.command(60, "sysctl", name="vm.overcommit_memory", value=1)
    broken = int(r.server["broken"])
    r.at(90)
    assert r.info("rdb_last_bgsave_ok") == 1
    assert int(r.server["broken"]) - broken < 50 * 7
    assert kinds(r)[-1] == "save_end" and "impact_end errors" in kinds(r)


def test_writes_go_on_if_they_shall_not_stop() -> None:
    redis = Redis(keys=100_000, load="100/s", write_share=50.0, save=[[10, 1]], stop_writes_on_bgsave_error=False)
    r = redis_world(redis, 384, sysctl={"vm.overcommit_memory": 2, "vm.overcommit_ratio": 70}).at(40)
    assert r.events("save_failed") and int(r.server["broken"]) == 0


BUSY = {"load": "10000/s", "write_share": 100.0, "save": [[10, 1]], "save_rate": "8MiB/s", "commands_per_s": 1_000_000}


TIGHT = {"memory.max": 195, "memory.swap.max": 0}
"""Of 141 MiB: room for less than half a copy."""


def test_a_container_with_room_for_a_third_of_a_copy_loses_the_server_when_writes_are_heavy() -> None:
    """Both have the same memory and the server its program besides: the kernel takes it, and its child ends with it."""
    r = redis_world(Redis(keys=100_000, **BUSY), 1024, TIGHT).at(9.5)
    before = int(r.cg("box")["anon"])
    r.at(12)
    assert int(r.cg("box")["anon"]) > 1.2 * before
    r.at(21)
    assert kinds(r) == ["save_start", "oom_kill", "impact_start killed", "impact_start errors"]
    assert r.kills() == ["redis"]
    assert [e.subject for e in r.events("task_exit")] == ["redis", "redis-child"]
    assert int(r.cg("box")["anon"]) == 0


def test_with_oom_score_adj_it_is_the_child_and_a_save_has_failed() -> None:
    r = redis_world(Redis(keys=100_000, oom_score_adj=True, **BUSY), 1024, TIGHT).at(14)
    assert kinds(r)[:4] == ["save_start", "oom_kill", "impact_start killed", "save_failed"]
    (kill,), failed = r.events("oom_kill"), r.events("save_failed")
    assert kill.subject == "redis-child"
    assert failed[0].data == {"reason": "Background saving terminated by signal 9"}
    assert int(r.task("redis")["state"]) == mm.TASK_RUNNING
    assert int(r.task("redis")["oom_score_adj"]) == 0
    temp = [file for file in r.row["files"] if file["used"] and file["linked"]]
    assert temp == [], "the temporary file is deleted"
    assert int(r.server["broken"]) > 0, "MISCONF"


def test_when_few_keys_are_written_the_same_container_saves() -> None:
    r = redis_world(Redis(keys=100_000, **(BUSY | {"load": "100/s"})), 1024, TIGHT).at(60)
    assert set(kinds(r)) == {"save_start", "save_end"}


def test_a_group_that_dies_together_starts_again_from_its_dump() -> None:
    redis = Redis(keys=100_000, **BUSY)
    r = redis_world(redis, 1024, {**TIGHT, "memory.oom.group": 1}, restart_s=2.0).at(18)
    assert set(r.kills()) == {"redis", "redis-child"}
    assert "restart" in kinds(r)
    assert r.slot(LIVE) == 100_000
    assert int(r.server["refused"]) > 0, "while it was down"


def test_the_child_ends_with_its_parent_and_its_rows_are_used_again() -> None:
    r = redis_world(Redis(keys=50_000, load="100/s", write_share=100.0, save=[[10, 1]], save_rate="4MiB/s"), 512, restart_s=1.0)
    for second in (12, 32, 52, 72):
        r.command(second, "kill", task="redis")
    r.at(12.5)
    assert int(r.task("redis-child")["state"]) == mm.TASK_DEAD
    r.at(90)
    assert [e.subject for e in r.events("task_exit")].count("redis-child") == 4
    assert int(r.row["nr_tasks"]) == 2 and int(r.row["nr_threads"]) == 2


def test_a_server_that_saves_nothing_starts_empty_the_second_time() -> None:
    r = redis_world(Redis(keys=10_000, **NEVER), restart_s=1.0)
    r.command(5, "kill", task="redis")
    assert r.at(4).slot(LIVE) == 10_000
    assert r.at(10).slot(LIVE) == 0


def test_disable_thp_keeps_huge_pages_away_and_with_them_a_fork_is_quick_and_a_write_copies_4_kib() -> None:
    """kernel-laws §10.2: since 5.8 a write to a shared huge page splits it and copies one small page."""
    found: dict[bool, tuple[int, float, float]] = {}
    for disabled in (True, False):
        redis = Redis(keys=100_000, load="1000/s", write_share=100.0, save=[[10, 1]], save_rate="40MiB/s", disable_thp=disabled)
        r = redis_world(redis, 1024, thp="always").at(9)
        huge = int(r.row["anon_thp"])
        r.at(20)
        (end,) = r.events("save_end")[:1]
        found[disabled] = huge, r.info("latest_fork_usec"), float(end.data["cow_bytes"])
    assert found[True][0] == 0 and found[False][0] > 50
    assert found[False][1] < 0.4 * found[True][1]
    assert found[False][2] == pytest.approx(found[True][2], rel=0.15)


def test_a_full_synchronisation_forks_and_writes_no_file() -> None:
    r = redis_world(Redis(keys=20_000, load="100/s", full_sync="20s", **NEVER)).at(65)
    assert [e.data["job"] for e in r.events("save_start")] == ["sync"] * 3
    assert [e.data["job"] for e in r.events("save_end")] == ["sync"] * 3
    assert not any(file["used"] and file["linked"] for file in r.row["files"])


def test_what_is_written_while_a_replica_is_sent_everything_waits_in_memory_beside_maxmemory() -> None:
    drawn = {"keys": 50_000, "load": "2000/s", "write_share": 100.0, "full_sync": "20s", "sync_rate": "5MiB/s", "save": []}
    r = redis_world(Redis(**drawn, maxmemory="80MiB"), 512).at(19)
    rss, used = r.rss(), r.info("used_memory")
    r.at(25)
    waiting = r.slot(BUFFERED)
    begun = next(e.t_ns for e in r.events("save_start")) / 1e9
    assert waiting == pytest.approx((25 - begun) * 2000 * 1080, rel=0.05)
    assert r.rss() - rss == pytest.approx(waiting, rel=0.1) and r.info("used_memory") == used + waiting
    assert int(r.server["broken"]) == 0, "maxmemory does not count it"
    r.at(32)
    (end,) = r.events("save_end")
    assert end.data["seconds"] == pytest.approx(52_100_000 / (5 * MIB), rel=0.15)
    assert r.slot(BUFFERED) == 0 and r.rss() == pytest.approx(rss, rel=0.01)


def test_a_replica_that_is_too_slow_is_dropped_and_asks_for_everything_again_and_again() -> None:
    drawn = {"keys": 50_000, "load": "2000/s", "write_share": 100.0, "full_sync": "10m", "sync_rate": "2MiB/s", "save": []}
    r = redis_world(Redis(**drawn, replica_buffer="16MiB"), 512).at(599)
    rss = r.rss()
    for second in range(600, 660):
        r.at(second)
        assert r.rss() < rss + 17 * MIB
    told = [e.kind for e in r.events("save_start", "sync_failed", "save_end")]
    assert told[:4] == ["save_start", "sync_failed"] * 2 and "save_end" not in told
    assert r.events("sync_failed")[0].data == {"reason": "Replica closed ASAP for overcoming of output buffer limits"}
    starts = [e.t_ns / 1e9 for e in r.events("save_start")]
    assert starts[1] - starts[0] == pytest.approx(16 * MIB / (2000 * 1080) + 10, abs=2)
    assert r.info("rdb_last_bgsave_ok") == 1, "that is of dumps"


def test_an_append_only_file_is_rewritten_when_it_has_doubled() -> None:
    redis = Redis(keys=80_000, load="2000/s", write_share=100.0, appendonly=True, save=[], save_rate="10MiB/s")
    r = redis_world(redis, 1024).at(20)
    files = {path.rpartition("/")[2]: r.row["files"][f] for path, f in r.shard.names_of(0).files.items()}
    assert 4096 * int(files["appendonly.aof"]["size"]) == pytest.approx(19.5 * 2000 * 1082, rel=0.05)
    assert kinds(r) == []
    r.at(50)
    (start,), (end,) = r.events("save_start"), r.events("save_end")
    assert start.data["job"] == end.data["job"] == "rewrite"
    assert start.t_ns / 1e9 == pytest.approx(80_000 * 1042 / (2000 * 1082), abs=2), "as long as it takes to write the base once more"
    sizes = sorted(4096 * int(files[name]["size"]) for name in ("dump.rdb", "temp.rdb"))
    assert sizes == [0, pytest.approx(80_000 * 1042, rel=0.01)]
    since = 50 - start.t_ns / 1e9
    assert 4096 * int(files["appendonly.aof"]["size"]) == pytest.approx(since * 2000 * 1082, rel=0.05)


def test_a_disk_that_cannot_keep_up_with_the_append_only_file_holds_up_the_commands() -> None:
    drawn = {"keys": 50_000, "load": "20000/s", "write_share": 100.0, "slo": {"latency": "100ms"}, "save": [], "loaded": 100.0}
    slow = DiskSpec(bytes_per_s=8_000_000, latency_us=500.0)
    logged = redis_world(Redis(**drawn, appendonly=True), 512, disk=slow).at(60)
    assert "impact_start latency" in kinds(logged)
    assert kinds(redis_world(Redis(**drawn), 512, disk=slow).at(60)) == []


def test_long_forks_are_told_if_they_are_watched() -> None:
    r = redis_world(Redis(keys=500_000, save=[[10, 0]], latency_monitor_threshold="2ms"), 2048).at(12)
    (event,) = r.events("latency")
    assert event.data["event"] == "fork" and event.data["ms"] >= 2
    quiet = redis_world(Redis(keys=500_000, save=[[10, 0]]), 2048).at(12)
    assert quiet.events("save_start") and not quiet.events("latency")


def test_the_harm_of_a_killed_child_ends_when_the_next_one_is_forked() -> None:
    """Redis tries again five seconds after a save that failed: from then on somebody does the work again."""
    r = redis_world(Redis(keys=100_000, oom_score_adj=True, **BUSY), 1024, TIGHT).at(40)
    told = [(e.kind, e.t_ns) for e in r.events("impact_start", "impact_end") if e.data["impact"] == "killed"]
    forks = [e.t_ns for e in r.events("save_start")]
    assert [kind for kind, _ in told[:2]] == ["impact_start", "impact_end"]
    assert told[1][1] == pytest.approx(forks[1], abs=10**8), "with the second fork"
