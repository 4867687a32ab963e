# SPDX-License-Identifier: Apache-2.0
"""The measurements agree with what is known of these programs, so far as it is known exactly; a wrong measurement is found here.

Redis's memory is reckoned from its structures and from jemalloc's size classes (`fleetsim/allocators/jemalloc_sizes.py`): the first
place where a model of ours stands beside a real server. One short measurement is run anew, if the machine has the program.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetsim.allocators.jemalloc_sizes import REGIONS, SIZE_OF
from scripts.calibrate import redis_memory, redis_server
from scripts.calibrate.process import children
from scripts.calibrate.record import read
from scripts.calibrate.redis_evict import zipf

RECORDS = read()
KEY_BYTES = len(redis_server.key(0))
DICT_ENTRY, ROBJ, BUCKET = 24, 16, 8  # bytes: three pointers; type, encoding, LRU, references and a pointer; a pointer


def of(program: str, measurement: str, **parameters: object) -> list[dict[str, Any]]:
    """Records with these parameters; never none, so that no loop over them is empty."""
    found = [
        r for r in RECORDS if (r["program"], r["measurement"]) == (program, measurement) and parameters.items() <= r["parameters"].items()
    ]
    assert found, f"{program}: {measurement} {parameters}"
    return found


def middle(entry: dict[str, Any], figure: str) -> float:
    return float(entry["figures"][figure]["median"])


def size_class(size: int) -> int:
    return next(k for k, most in enumerate(SIZE_OF) if most >= size)


def sds(length: int) -> int:
    """A string of Redis: a header of 1, 3 or 5 bytes by its length, the text and a zero byte. Source: sds.h (sdshdr5, 8, 16)."""
    return length + 1 + (1 if length < 32 else 3 if length < 256 else 5)


def blocks_of_a_key(value: int) -> list[int]:
    """Size classes of what one key takes. Values of up to 44 bytes lie in their robj (embstr, with a header of 3 bytes).

    Source: object.c (createStringObject), dict.h, sds.h of Redis 7.0.
    """
    held = [size_class(ROBJ + 3 + value + 1)] if value <= 44 else [size_class(ROBJ), size_class(sds(value))]
    return [size_class(DICT_ENTRY), size_class(sds(KEY_BYTES)), *held]


def buckets(keys: int) -> int:
    return 1 << math.ceil(math.log2(keys))


def test_used_memory_per_key_is_the_sum_of_jemallocs_size_classes() -> None:
    for entry in of("redis", "dataset"):
        keys, value = entry["parameters"]["keys"], entry["parameters"]["value_bytes"]
        ours = sum(int(SIZE_OF[k]) for k in blocks_of_a_key(value)) + BUCKET * buckets(keys) / keys
        assert middle(entry, "used_per_key_bytes") == pytest.approx(ours, rel=0.003), entry["parameters"]


def test_what_stays_active_after_a_deletion_at_random_is_the_slabs_that_still_hold_something() -> None:
    """A slab of r regions is given up with probability p^r; where values are small, next to none are."""
    for entry in of("redis", "mass deletion"):
        keys, gone = entry["parameters"]["keys"], entry["parameters"]["deleted_percent"] / 100
        classes = blocks_of_a_key(entry["parameters"]["value_bytes"])
        active = keys * sum(int(SIZE_OF[k]) * (1 - gone ** int(REGIONS[k])) for k in classes)
        live = keys * (1 - gone) * sum(int(SIZE_OF[k]) for k in classes)
        rest = middle(entry, "end_used_memory_bytes") - live  # the server itself, and its table of buckets
        assert middle(entry, "end_allocator_frag_ratio") == pytest.approx((active + rest) / (live + rest), rel=0.12), entry["parameters"]


def test_the_hit_rate_of_random_eviction_is_the_one_of_theory_and_lru_and_lfu_lie_between_it_and_the_best() -> None:
    """With random eviction a key that is asked for at rate p is held with probability p·T/(1 + p·T), T such that all add up.

    Source: Fagin (1977) and Gelenbe (1973): random replacement and FIFO hit alike; the characteristic-time form after Fricker,
    Robert and Roberts (2012).
    """
    hits = {policy: of("redis", "maxmemory", policy=policy)[0] for policy in ("allkeys-random", "allkeys-lru", "allkeys-lfu")}
    entry = hits["allkeys-random"]
    weights = zipf(entry["parameters"]["keys"], entry["parameters"]["zipf_skew"])
    shares = [(b - a) / weights[-1] for a, b in zip([0.0, *weights], weights)]
    low, high = 0.0, 1e9
    for _ in range(60):
        time = (low + high) / 2
        held = sum(p * time / (1 + p * time) for p in shares)
        low, high = (time, high) if held < middle(entry, "resident_keys_count") else (low, time)
    theory = 100 * sum(p * p * time / (1 + p * time) for p in shares)
    assert middle(entry, "hit_percent") == pytest.approx(theory, abs=0.7)
    random, lru, lfu = (middle(one, "hit_percent") for one in hits.values())
    assert random + 1 < lru < lfu < middle(entry, "best_possible_hit_percent")


def pages_touched(writes: float, blocks: int, block: int, pages_each: float = 1.0) -> float:
    """Pages that random writes to so many blocks touch at least once: P·(1 − e^(−w/P)), kernel-laws §16.2."""
    pages = blocks * block / 4096
    return pages * (1 - math.exp(-writes * pages_each / pages))


def pages_each(value: int) -> float:
    """On how many pages a value lies, on average over the places of a slab."""
    block, regions = int(SIZE_OF[size_class(sds(value))]), int(REGIONS[size_class(sds(value))])
    ends = [(at * block // 4096, (at * block + sds(value) - 1) // 4096) for at in range(regions)]
    return sum(last - first + 1 for first, last in ends) / regions


def test_what_is_copied_is_what_the_writes_touch() -> None:
    """SET writes an entry of the table, an object and a value; SETRANGE an object and a page of a value. The child's own: 1 MiB."""
    assert pages_each(1024) == 1.25
    for entry in of("redis", "save under writes"):
        keys, value, writes = (*(entry["parameters"][name] for name in ("keys", "value_bytes")), middle(entry, "writes_count"))
        touched = pages_touched(writes, keys, int(SIZE_OF[size_class(ROBJ)]))
        in_place = entry["parameters"]["command"] == "SETRANGE"
        block = int(SIZE_OF[size_class(sds(value))])
        touched += pages_touched(writes, keys, block, 1.0 if in_place else pages_each(value))
        touched += 0 if in_place else pages_touched(writes, keys, int(SIZE_OF[size_class(DICT_ENTRY)]))
        ours = 4096 * touched + redis_server.MIB
        assert middle(entry, "cow_bytes") == pytest.approx(ours, rel=0.12 if writes else 0.6), entry["parameters"]


def test_huge_pages_make_a_fork_cheaper_by_far() -> None:
    for entry in of("redis", "fork", huge_pages=False):
        mib = entry["parameters"]["data_mib"]
        (huge,) = of("redis", "fork", huge_pages=True, data_mib=mib)
        assert huge["figures"]["huge_share_percent"]["min"] > 75
        assert entry["figures"]["huge_share_percent"]["max"] < 1
        assert huge["figures"]["fork_us"]["min"] * 5 < entry["figures"]["fork_us"]["min"]


def test_the_jvms_defaults_are_the_laws() -> None:
    """kernel-laws §16.1, T-16.1: a container of 4 GiB has a heap of 1 GiB and regions of 1 MiB; regions double as heaps do."""
    mib = 1 << 20
    (four,) = of("jvm", "defaults", option="-XX:MaxRAM=4096m")
    assert (middle(four, "MaxHeapSize_bytes"), middle(four, "G1HeapRegionSize_bytes")) == (1024 * mib, mib)
    for option, region in (("-Xmx4g", 2), ("-Xmx16g", 8), ("-Xmx32g", 16)):
        (entry,) = of("jvm", "defaults", option=option)
        assert middle(entry, "G1HeapRegionSize_bytes") == region * mib
    (small,) = of("jvm", "defaults", option="-XX:MaxRAM=128m")
    assert middle(small, "MaxHeapSize_bytes") == 64 * mib  # MinRAMPercentage


def test_a_jvm_collects_as_often_as_it_allocates_its_eden() -> None:
    for entry in of("jvm", "load"):
        assert middle(entry, "young_per_s") * middle(entry, "allocated_per_young_mib") < 1.3 * entry["parameters"]["alloc_mib_per_s"]
        assert middle(entry, "last_full_left_mib") > 0.9 * entry["parameters"]["live_mib"]
        assert entry["figures"]["peak_rss_kib"]["max"] < 1024 * 1.3 * entry["parameters"]["heap_mib"]


def test_a_heap_that_is_let_go_stays_resident_until_full_collections_g1_at_once_serial_in_steps() -> None:
    for entry in of("jvm", "given back"):
        assert middle(entry, "dropped_rss_kib") > 0.95 * middle(entry, "done_rss_kib")
        assert middle(entry, "over_rss_kib") < 0.65 * middle(entry, "dropped_rss_kib")  # Serial stops at its initial size
        at_once = middle(entry, "collected_rss_kib") < 0.5 * middle(entry, "dropped_rss_kib")
        assert at_once == (entry["parameters"]["collector"] == "G1")


def test_page_tables_and_shared_memory_of_backends() -> None:
    for entry in of("postgres", "backends"):
        assert middle(entry, "backends_count") == entry["parameters"]["connections"]
        assert middle(entry, "pss_sum_kib") < middle(entry, "rss_sum_kib")
        # A page table maps 2 MiB with 4 KiB: at least what the resident shared buffers need, if they lay without a gap.
        assert middle(entry, "page_tables_per_backend_kib") > middle(entry, "shmem_per_backend_kib") / 512


# ------------------------------------------------------------------------------------------------------------- a real server


@pytest.mark.slow
def test_a_small_measurement_of_the_real_redis_from_start_to_end(
    require_tool: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_tool("redis-server")
    monkeypatch.setattr(redis_memory, "DATASETS", ((20_000, 100),))
    monkeypatch.setattr(redis_memory, "DELETIONS", ((20_000, 100, 90),))
    monkeypatch.setattr(redis_memory, "CHURNS", ())
    monkeypatch.setattr(redis_memory, "WATCH_S", (0, 1))
    empty, dataset, deletion = redis_memory.measure()
    ours = sum(int(SIZE_OF[k]) for k in blocks_of_a_key(100)) + BUCKET * buckets(20_000) / 20_000
    known = dataset["version"].startswith("7.0") and "jemalloc" in dataset["version"]  # others have other structures
    assert middle(dataset, "used_per_key_bytes") == pytest.approx(ours, rel=0.02 if known else 0.4)
    assert middle(empty, "vmrss_bytes") < middle(dataset, "vmrss_bytes")
    assert middle(deletion, "at_1s_fragmentation_ratio") > 2


@pytest.mark.slow
def test_a_server_is_gone_with_its_folder_when_its_measurement_fails(require_tool: Callable[[str], Path]) -> None:
    require_tool("redis-server")
    with pytest.raises(ZeroDivisionError), redis_server.redis() as server:
        pid, folder = server.process.pid, server.folder
        assert server.client.ask("PING") == b"PONG"
        assert server.client.ask("CONFIG", "GET", "port") == [b"port", b"0"]  # no TCP
        assert not children(pid)
        raise ZeroDivisionError
    assert server.process.poll() is not None
    assert not folder.exists()


@pytest.mark.slow
def test_a_server_that_cannot_start_says_why(require_tool: Callable[[str], Path]) -> None:
    require_tool("redis-server")
    with pytest.raises(RuntimeError, match=r"did not start: .*no-such-setting"), redis_server.redis("--no-such-setting", "1"):
        pass
