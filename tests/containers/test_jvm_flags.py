# SPDX-License-Identifier: Apache-2.0
"""The JVM's ergonomics against the real java: what -XX:+PrintFlagsFinal says for a memory and a number of CPUs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetsim.containers.jvm import Jvm
from fleetsim.containers.jvm_flags import GIB, MIB, Flags, ergonomics
from fleetsim.containers.workload import Room


@pytest.fixture(scope="module")
def java(require_tool: Callable[[str], Path]) -> Path:
    """A java of version 17: Debian's own, else the first of the path."""
    debian = sorted(Path("/usr/lib/jvm").glob("java-1.17.*/bin/java"))
    return debian[0] if debian else require_tool("java")


def real(java: Path, memory: int, cpus: int, *flags: str) -> dict[str, str]:
    """The flags that it ends up with."""
    command = [str(java), f"-XX:MaxRAM={memory}", f"-XX:ActiveProcessorCount={cpus}", *flags, "-XX:+PrintFlagsFinal", "-version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    if 'version "17.' not in done.stderr:
        pytest.skip("the java here is not version 17")
    return {match[1]: match[2] for match in re.finditer(r"^\s*\w+ (\w+)\s+= (\S+)", done.stdout, re.MULTILINE)}


def test_a_quarter_of_the_container_and_regions_of_one_mib() -> None:
    """T-16.1: a container of 4 GiB has a heap of 1 GiB in regions of 1 MiB."""
    chosen = Jvm().chosen(Room(64 * GIB, 4, 4 * GIB))
    assert (chosen.collector, chosen.heap_max, chosen.region) == ("g1", GIB, MIB)


@pytest.mark.parametrize(("heap_gib", "region_mib"), [(1, 1), (4, 2), (16, 8)])
def test_regions_are_a_two_thousandth_of_the_heap(heap_gib: int, region_mib: int) -> None:
    """kernel-laws §16.1: 1 GiB → 1, 4 GiB → 2, 16 GiB → 8 MiB."""
    assert ergonomics(Flags(xmx=heap_gib * GIB), 64 * GIB, 4).region == region_mib * MIB


def test_without_a_limit_the_host_is_what_it_sees() -> None:
    assert Jvm().chosen(Room(64 * GIB, 4, None)).heap_max == 16 * GIB


@pytest.mark.parametrize(
    ("memory_mib", "cpus", "collector"),
    [(1791, 2, "serial"), (1792, 2, "g1"), (1792, 1, "serial"), (8192, 1, "serial")],
)
def test_g1_wants_two_cpus_and_nearly_two_gib(memory_mib: int, cpus: int, collector: str) -> None:
    """kernel-laws §16.1; os.cpp is_server_class_machine."""
    assert ergonomics(Flags(), memory_mib * MIB, cpus).collector == collector


SIZES = [200, 249, 260, 500, 900, 1791, 2048, 3072, 5120, 12288, 40960]


@pytest.mark.parametrize(
    ("memory_mib", "cpus"), [(size, cpus) for size, cpus in zip(SIZES, [4, 1, 20, 1, 4, 20, 8, 9, 2, 33, 4], strict=True)]
)
def test_as_the_real_java_chooses(java: Path, memory_mib: int, cpus: int) -> None:
    """MaxHeapSize, InitialHeapSize, region size and threads; the collector is given, as MaxRAM does not decide it."""
    collector = "serial" if cpus == 1 else "g1"
    found = real(java, memory_mib * MIB, cpus, "-XX:+UseG1GC" if collector == "g1" else "-XX:+UseSerialGC")
    chosen = ergonomics(Flags(collector=collector), memory_mib * MIB, cpus)
    assert str(chosen.heap_max) == found["MaxHeapSize"]
    assert str(chosen.heap_initial) == found["InitialHeapSize"]
    if collector == "g1":
        assert str(chosen.region) == found["G1HeapRegionSize"]
        assert str(chosen.gc_threads) == found["ParallelGCThreads"]
        assert str(chosen.concurrent_threads) == found["ConcGCThreads"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (Flags(xmx=1500 * MIB, collector="g1"), ["-Xmx1500m"]),
        (Flags(xmx=3333 * MIB, xms=777 * MIB, collector="g1"), ["-Xmx3333m", "-Xms777m"]),
        (
            Flags(max_ram_percentage=75, initial_ram_percentage=10, collector="g1"),
            ["-XX:MaxRAMPercentage=75", "-XX:InitialRAMPercentage=10"],
        ),
        (Flags(xms=3 * GIB, collector="g1"), ["-Xms3g"]),
        (Flags(xmx=1 * GIB, region_size=8 * MIB, collector="g1"), ["-Xmx1g", "-XX:G1HeapRegionSize=8m"]),
    ],
)
def test_as_the_real_java_understands_flags(java: Path, flags: Flags, words: list[str]) -> None:
    found = real(java, 4 * GIB, 4, "-XX:+UseG1GC", *words)
    chosen = ergonomics(flags, 4 * GIB, 4)
    assert (str(chosen.heap_max), str(chosen.heap_initial)) == (found["MaxHeapSize"], found["InitialHeapSize"])
    assert str(chosen.region) == found["G1HeapRegionSize"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"xmx": "1GiB", "xms": "2GiB"}, "write one up to it"),
        ({"region_size": "3MiB"}, "not a power of two"),
        ({"min_heap_free": 80}, "above 'max_heap_free'"),
    ],
)
def test_flags_that_java_refuses_are_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Jvm.model_validate(arguments)
