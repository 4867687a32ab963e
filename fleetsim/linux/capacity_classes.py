# SPDX-License-Identifier: Apache-2.0
"""Size classes of a host's record: how many rows each of its tables has. Laws use the numbers as constants, so each class compiles anew.

    small     many hosts of a few containers each
    standard  30 containers with their services: what is used where nobody says anything
    large     a database with hundreds of processes, a node with 110 pods

The class is chosen when the package is imported (`law.size_class`). A full table answers as the kernel would (ENOMEM, EAGAIN) and
leaves an event; as long as none is full, the same scenario has the same history in every class that has the same rings (standard
and large), because rows are taken from the low end and nothing is ordered or timed by how many are free.
Limits: 32,767 rows of whatever an int16 names; the asserts below say which narrow field names what.
Source: fleetsim's own representation (design §3); `tests/linux/test_capacity_classes.py` watches the sums.
"""

from __future__ import annotations

from typing import NamedTuple

from fleetsim.law import SIZE_CLASSES, size_class

KIB = 1024


class Capacities(NamedTuple):
    """Rows of each table of a host's record, and what the whole may take."""

    bytes_max: int
    cgroups: int  # with the root
    tasks: int
    threads: int
    areas: int
    groups: int
    cohorts: int
    files: int
    mappings: int
    mounts: int
    ops: int
    handles: int
    heaps: int
    places: int
    populations: int
    slab_heaps: int  # heaps of jemalloc or tcmalloc
    slab_classes: int  # … and their size classes in use
    pods: int
    containers: int
    probes: int
    backends: int  # processes of databases
    works: int  # processes that run a workload other than a script
    dentry_runs: int
    name_trees: int
    events: int
    # rings and samples of the whole host, whose size is felt: a full ring is waited for
    writeback: int
    pagevecs: int
    regions: int
    cpus: int


CLASSES: dict[str, Capacities] = {
    "small": Capacities(
        bytes_max=32 * KIB,
        cgroups=10,
        tasks=6,
        threads=7,
        areas=12,
        groups=10,
        cohorts=33,
        files=8,
        mappings=10,
        mounts=3,
        ops=24,
        handles=12,
        heaps=1,
        places=3,
        populations=4,
        slab_heaps=1,
        slab_classes=10,
        pods=3,
        containers=3,
        probes=4,
        backends=2,
        works=2,
        dentry_runs=12,
        name_trees=2,
        events=24,
        writeback=16,
        pagevecs=16,
        regions=12,
        cpus=4,
    ),
    "standard": Capacities(
        bytes_max=256 * KIB,
        cgroups=74,
        tasks=64,
        threads=68,
        areas=128,
        groups=138,
        cohorts=862,
        files=48,
        mappings=88,
        mounts=12,
        ops=160,
        handles=128,
        heaps=30,
        places=40,
        populations=40,
        slab_heaps=10,
        slab_classes=120,
        pods=36,
        containers=36,
        probes=48,
        backends=40,
        works=30,
        dentry_runs=96,
        name_trees=16,
        events=80,
        writeback=128,
        pagevecs=64,
        regions=48,
        cpus=32,
    ),
    "large": Capacities(
        bytes_max=1536 * KIB,
        cgroups=288,
        tasks=256,
        threads=320,
        areas=768,
        groups=768,
        cohorts=8192,
        files=128,
        mappings=768,
        mounts=64,
        ops=1536,
        handles=768,
        heaps=60,
        places=60,
        populations=60,
        slab_heaps=60,
        slab_classes=720,
        pods=128,
        containers=160,
        probes=256,
        backends=240,
        works=160,
        dentry_runs=320,
        name_trees=32,
        events=480,
        writeback=128,
        pagevecs=64,
        regions=48,
        cpus=32,
    ),
}

assert tuple(CLASSES) == SIZE_CLASSES
assert CLASSES["standard"][-4:] == CLASSES["large"][-4:], "the same scenario must have the same history in both"
for _ in CLASSES.values():
    assert max(_.cohorts, _.groups, _.areas, _.mappings, _.ops, _.handles, _.threads, _.cgroups) < 1 << 15  # int16 links
    assert max(_.heaps, _.places, _.regions) < 1 << 7  # int8 links
    assert max(_.places, _.populations) <= 64  # glibc.py puts their rows into the low six bits of a key
    assert _.dentry_runs > _.cgroups  # each has a run of its own, and one is being made
    assert _.threads >= _.tasks and _.handles <= _.areas and _.events >= _.tasks + 16  # an oom.group kill tells of each of its tasks

CAPACITY = CLASSES[size_class()]
"""Those of the class in use."""

CGROUP_LINK = "i1" if CAPACITY.cgroups < 1 << 7 else "i2"
"""What names a cgroup in the largest table."""
