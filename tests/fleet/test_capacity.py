# SPDX-License-Identifier: Apache-2.0
"""What does not fit into a host's record is refused before the run, with the number that would."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fleetsim.allocators.tables import NR_HEAPS, NR_SLAB_HEAPS
from fleetsim.fleet.bench import reference_host
from fleetsim.fleet.capacity import TooMuch, needs, page_groups, size_class_for, size_classes, too_much
from fleetsim.host.boot import boot
from fleetsim.host.spec import CgroupSpec, HostSpec, TaskSpec
from fleetsim.host.state import HOST
from fleetsim.host.step import run_host
from fleetsim.linux.mm_types import NR_COHORTS
from fleetsim.workloads.script_ops import parse_script


def test_the_reference_host_of_the_benchmark_fits() -> None:
    assert too_much(reference_host("h", pressure=True), []) is None


def test_more_areas_than_cohorts_are_refused_with_both_numbers() -> None:
    ops = ("mmap_anon a 70", "mmap_anon b 70", "touch a 70 0")
    spec = HostSpec("h", 1 << 30, tasks=tuple(TaskSpec(f"t{i}", ops) for i in range(14)))
    assert "1792 cohorts of pages" in str(too_much(spec, []))
    assert f"holds {NR_COHORTS}" in str(too_much(spec, []))


def test_the_class_is_the_smallest_from_standard_on_that_holds_the_host() -> None:
    ops = ("mmap_anon a 70", "mmap_anon b 70", "touch a 70 0")
    sizes = {n: HostSpec("h", 1 << 30, tasks=tuple(TaskSpec(f"t{i}", ops) for i in range(n))) for n in (1, 14, 60, 257)}
    assert [size_class_for(sizes[n], []) for n in (1, 14, 60)] == ["standard", "large", "large"]
    assert size_class_for(HostSpec("h", 1 << 30, tasks=(TaskSpec("t", ("mmap_anon a 40", "touch a 40 0")),)), [], "small") == "small"
    assert "257 processes" in str(size_class_for(replace(sizes[257], tasks=tuple(TaskSpec(f"t{i}", ()) for i in range(257))), []))
    said = size_class_for(sizes[14], [], "small")
    assert isinstance(said, TooMuch)
    assert "in size class small, which FLEETSIM_SIZE_CLASS asks for; without it large is taken" in said.sentence


def test_two_hundred_backends_with_a_heap_of_their_own_and_one_segment_fit_into_large() -> None:
    ops = ("mmap_file shared /dev/shm/s shared", "mmap_anon work 8", "touch work 8 0", "read shared 100 0 random", "sleep 9")
    spec = HostSpec("h", 64 << 30, tasks=tuple(TaskSpec(f"b{i}", ops) for i in range(200)))
    assert size_class_for(spec, []) == "large"


def test_a_node_with_110_pods_fits_into_large() -> None:
    pods = [CgroupSpec(f"pod{i}") for i in range(110)] + [CgroupSpec(f"c{i}", f"pod{i}") for i in range(110)]
    tasks = tuple(TaskSpec(f"t{i}", ("mmap_anon h 50", "touch h 50 5", "rewrite h 0 1 random"), cgroup=f"c{i}") for i in range(110))
    spec = HostSpec("h", 64 << 30, cgroups=(*(CgroupSpec(f"tier{i}") for i in range(3)), *pods), tasks=tasks)
    assert size_class_for(spec, []) == "large"


def test_the_count_is_what_a_host_really_takes() -> None:
    """Two swept areas, a random one with a hot part and a file: counted beforehand, then counted on the host that ran them."""
    tasks = (
        TaskSpec("a", ("mmap_anon big 300", "mmap_anon small 8", "sleep 9")),
        TaskSpec("b", ("mmap_anon rnd 50", "touch rnd 1 0", "rewrite rnd 0 1 hot:0.2:0.9")),
        TaskSpec("c", ("read_file /f 1 0", "sleep 9")),
    )
    spec = HostSpec("h", 1 << 30, files={"/f": 100 << 20}, tasks=tasks)
    records = np.zeros(1, HOST)
    boot(spec, records[0], 1, 0)
    run_host(records, 0, 1_000_000_000)
    taken = int((records[0]["cohorts"]["group"] >= 0).sum())
    assert page_groups(spec, [t.ops for t in tasks]) == (int(records[0]["groups"]["used"].sum()), taken)


def many(count: int, *ops: str) -> HostSpec:
    return HostSpec("h", 8 << 30, tasks=tuple(TaskSpec(f"t{i}", ops) for i in range(count)))


def test_thirty_containers_may_each_have_a_heap_and_one_more_is_refused_with_the_number() -> None:
    assert too_much(many(30, "malloc 10000 100-3000", "sleep 9"), []) is None
    assert f"needs 31 heaps (processes and threads with malloc), faults included; a simulated host holds {NR_HEAPS}" in str(
        too_much(many(31, "malloc 10000 100-3000"), [])
    )


def test_heaps_of_jemalloc_and_the_size_classes_they_use_are_counted_before_the_run() -> None:
    one = ("allocator jemalloc", "malloc 10000 1000")
    assert too_much(many(NR_SLAB_HEAPS, *one), []) is None
    assert "needs 11 heaps of jemalloc or tcmalloc" in str(too_much(many(NR_SLAB_HEAPS + 1, *one), []))
    wide = ("allocator tcmalloc", "malloc 10000 16-200000")
    assert "size classes in use by jemalloc and tcmalloc" in str(too_much(many(4, *wide), []))


def test_a_heap_of_jemalloc_takes_the_groups_that_were_counted() -> None:
    spec = HostSpec(
        "h", 1 << 30, tasks=(TaskSpec("a", ("allocator jemalloc", "malloc 20000 100-3000 0", "malloc 10 900000 0", "sleep 9")),)
    )
    records = np.zeros(1, HOST)
    boot(spec, records[0], 1, 0)
    run_host(records, 0, 1_000_000_000)
    taken = int((records[0]["cohorts"]["group"] >= 0).sum())
    assert page_groups(spec, [t.ops for t in spec.tasks]) == (int(records[0]["groups"]["used"].sum()), taken)
    assert size_classes(parse_script(spec.tasks[0].ops)) == int(records[0]["slab_classes"]["used"].sum())


@pytest.mark.parametrize("after", [(), ("rewrite a 0 1 random",), ("rewrite a 40 0 seq",)], ids=["nobody writes", "at random", "in order"])
@pytest.mark.parametrize("forks", [1, 3])
def test_what_forks_take_is_counted_beforehand(forks: int, after: tuple[str, ...]) -> None:
    """Counted, then watched on the host while the children hold: never more than was said, and of most tables exactly that."""
    ops = ("mmap_anon a 40", "touch a 40 0", "mmap_anon b 8", "touch b 8 0", *("fork_hold 3",) * forks, *after, "sleep 9")
    spec = HostSpec("h", 1 << 30, tasks=(TaskSpec("a", ops),))
    records = np.zeros(1, HOST)
    boot(spec, records[0], 1, 0)
    most = dict.fromkeys(("tasks", "threads", "areas", "mappings", "groups", "cohorts"), 0)
    for moment in range(1, 40):
        run_host(records, 0, moment * 50_000_000)
        row = records[0]
        taken = {
            "tasks": row["tasks"]["state"] > 0,
            "threads": row["threads"]["used"],
            "areas": row["areas"]["kind"] > 0,
            "mappings": row["mappings"]["used"],
            "groups": row["groups"]["used"],
            "cohorts": row["cohorts"]["group"] >= 0,
        }
        most = {name: max(most[name], int(column.sum())) for name, column in taken.items()}
    wanted = {need.field: need.rows for need in needs(spec, ())}
    assert all(most[name] <= wanted[name] for name in most), (most, wanted)
    assert [most[name] for name in ("tasks", "threads", "areas")] == [wanted[name] for name in ("tasks", "threads", "areas")]


def test_many_forks_ask_for_a_larger_class() -> None:
    spec = HostSpec("h", 8 << 30, tasks=(TaskSpec("a", ("mmap_anon a 40", *("fork_hold 3",) * 70)),))
    assert size_class_for(spec, []) == "large"
