# SPDX-License-Identifier: Apache-2.0
"""What a scenario says of a Redis, and what its process is told: size classes, pages that a SET touches, refusals in a sentence."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fleetsim.allocators.jemalloc_sizes import REGIONS, SIZE_OF, SLAB_PAGES
from fleetsim.containers.redis import Redis, pages_touched
from fleetsim.fleet.capacity import too_much
from fleetsim.host.spec import CgroupSpec, HostSpec, TaskSpec
from fleetsim.linux.fs_types import NR_FILES
from fleetsim.workloads import redis_slots
from fleetsim.workloads.redis_slots import ARGUMENTS


def told(**keys: object) -> dict[str, int | str]:
    (process,) = Redis(**keys).processes("r")
    assert process.work is not None
    return dict(process.work.values)


@pytest.mark.parametrize(
    ("value", "bytes_of_a_key"),
    [(16, 96), (100, 176), (1024, 1344), (4096, 5184), (32_768, 41_024)],
)
def test_a_key_takes_what_memory_usage_says_and_the_rounding_of_its_dict_entry(value: int, bytes_of_a_key: int) -> None:
    """Measured (MEMORY USAGE of redis-server 7.0.15): 88, 168, 1336, 5176, 41,016: it counts a dictEntry as 24 bytes, jemalloc gives 32."""
    values = told(value=f"{value}B")
    assert int(values["written_bytes"]) + int(values["read_bytes"]) + int(values["value_bytes"]) == bytes_of_a_key


def test_a_small_value_lies_with_its_object_and_a_set_writes_one_page_of_structures_less() -> None:
    small, large = told(value="44B"), told(value="45B")
    assert (int(small["looks"]) & 0xFFFF, int(large["looks"]) & 0xFFFF) == (1, 2)
    assert int(small["value_bytes"]) == 64, "16 of the object, 3 of the header, 44, and a zero"
    assert int(large["value_bytes"]) == 64 and int(large["written_bytes"]) == 64


@pytest.mark.parametrize("k", range(0, 36, 5))
def test_pages_touched_equal_those_of_every_region_counted_byte_by_byte(k: int) -> None:
    block, slab_pages, regions = int(SIZE_OF[k]), int(SLAB_PAGES[k]), int(REGIONS[k])
    size = max(1, block - 3)
    counted = [len({byte // 4096 for byte in range(r * block, r * block + size)}) for r in range(regions)]
    assert pages_touched(size, block, slab_pages, regions) == pytest.approx(sum(counted) / regions)


def test_every_argument_is_told_and_no_slot_is_used_twice() -> None:
    values = told()
    assert tuple(values) == ARGUMENTS
    assert len(ARGUMENTS) == redis_slots.STAGE
    assert told(save=[])["dump"] == -1


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"save": [[-5, 1]]}, r"'save' has the point \[-5, 1\]; write \[seconds, changes\]"),
        ({"save": [[1, 1]] * 4}, "at most 3"),
        ({"maxmemory": "1MiB"}, "less than an empty Redis takes"),
        ({"maxmemory_policy": "lru"}, "allkeys-lru"),
        ({"dir": "data"}, "'dir' is 'data'; write an absolute path"),
        ({"workers": 4}, "less than or equal to 1"),
        ({"value": "1GiB"}, "less than or equal to"),
        ({"write_share": 101.0}, "less than or equal to 100"),
        ({"delete": {"at": "5m", "share": 0.0}}, "greater than 0"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Redis(**keys)


def test_its_areas_those_of_a_child_and_its_files_are_counted_before_the_run() -> None:
    (process,) = Redis(keys=1_000_000).processes("r")
    assert process.work is not None
    pages = [pages for pages, _ in process.work.areas]
    assert pages == [15_626, pytest.approx(7_392, abs=5), 312_500]
    assert process.work.inherits == 3, "the child has copies of all of them"
    assert [pages for pages, _ in process.work.on_top] == [pages[0], pages[2]], "and what it leaves of two is copied when it is written to"
    assert {path for path, _, _ in process.work.files} == {"/data/r/dump.rdb", "/data/r/temp.rdb"}
    tasks = tuple(TaskSpec(f"r{i}", (), cgroup="box", work=Redis(keys=1_000_000).processes(f"r{i}")[0].work) for i in range(8))
    crowded = HostSpec("h", 8 << 30, cgroups=(CgroupSpec("box"),), tasks=tasks)
    assert "cohorts" in str(too_much(crowded, ()))
    assert too_much(HostSpec("h", 8 << 30, tasks=tasks[:3]), ()) is None
    files = {f"/f{i}": 4096 for i in range(NR_FILES - 1)}
    assert "files" in str(too_much(HostSpec("h", 64 << 30, files=files, tasks=tasks[:1]), ()))
