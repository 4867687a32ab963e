# SPDX-License-Identifier: Apache-2.0
"""What the kernel does about a fault, case by case, against the state that brings it about (kernel-laws §10.1)."""

from __future__ import annotations

import numpy as np
import pytest

from fleetsim.hardware.mmu import EXECUTE, READ, WRITE
from fleetsim.userland.page_fault import CASES, MAJOR, MINOR, explain
from fleetsim.userland.page_table import SWAP, SWAP_CACHE, PageTables
from tests.host.worlds import World, world
from tests.userland.test_page_table import area_of, entries, task_row


def outcome(w: World, name: str, address: int, access: str, levels: int = 4) -> str:
    tables = PageTables(w.row, task_row(w, name))
    return explain(tables, tables.walk(address, levels), access).name


def at(w: World, name: str, page: int) -> int:
    return (int(w.row["areas"][area_of(w, name)]["start"]) * 512 + page) << 12


ANON = "mmap_anon A 40 | touch A 10 0 | sleep 99"


@pytest.mark.parametrize(
    ("ops", "page", "access", "name"),
    [
        (ANON, 0, READ, "hit"),
        (ANON, 0, WRITE, "hit"),
        (ANON, 0, EXECUTE, "forbidden"),
        (ANON, 9000, WRITE, "demand-zero"),
        (ANON, 9000, READ, "zero page"),
        ("mmap_anon A 40 | read A 10 0 seq | sleep 99", 5, WRITE, "first write"),
        ("mmap_anon A 10 | touch A 10 0 | fork_hold 9 | sleep 99", 5, WRITE, "cow"),
        ("mmap_anon A 10 | touch A 10 0 | fork_hold 9 | sleep 99", 5, READ, "hit"),
        ("mmap_anon A 10 | touch A 10 0 | fork_hold 0.2 | sleep 99", 5, WRITE, "reuse"),
        ("mmap_file M /f | read M 10 0 seq | sleep 99", 5, READ, "hit"),
        ("mmap_file M /f | read M 10 0 seq | sleep 99", 5, WRITE, "cow file"),
        ("mmap_file M /f | read M 10 0 seq | sleep 99", 7000, READ, "file on disk"),
        ("mmap_file M /f shared | read M 10 0 seq | sleep 99", 5, WRITE, "page_mkwrite"),
        ("mmap_file M /f shared | rewrite M 10 0 seq | sleep 99", 5, WRITE, "hit"),
        ("read_file /f 30 0 | mmap_file M /f | sleep 99", 5, READ, "file in the cache"),
        ("shm S 40 | touch S 10 0 | sleep 99", 9000, WRITE, "new shared page"),
        ("hugetlb H 20 | touch H 4 0 | sleep 99", 3000, WRITE, "hugetlb"),
    ],
)
def test_each_state_has_its_fault(ops: str, page: int, access: str, name: str) -> None:
    w = world(files={"/f": 30}, sysctl={"vm.nr_hugepages": 12}, tasks={"a": ops}).at(2)
    assert outcome(w, "a", at(w, "a", page), access) == name


def test_a_first_write_where_huge_pages_are_allowed_tries_for_one() -> None:
    w = world(512, thp="always", tasks={"a": ANON}).at(2)
    assert outcome(w, "a", at(w, "a", 9000), WRITE) == "demand-zero huge"
    forked = world(512, thp="always", tasks={"a": "mmap_anon A 10 | touch A 10 0 | fork_hold 9 | sleep 99"}).at(2)
    assert outcome(forked, "a", at(forked, "a", 5), WRITE) == "cow huge"


def test_what_is_in_swap_is_a_major_fault_and_what_is_in_the_swap_cache_a_minor_one() -> None:
    w = world(160, swap_mib=128, tasks={"a": "mmap_anon A 200 | touch A 200 0 | madvise A pageout | sleep 99"}).at(30)
    e = entries(w, "a")
    seen = set()
    for kind, name, counted in ((SWAP, "swap-in", MAJOR), (SWAP_CACHE, "swap cache", MINOR)):
        for page in np.flatnonzero(e.kind == kind)[:3]:
            assert outcome(w, "a", at(w, "a", int(page)), READ) == name and CASES[name][0] == counted
            seen.add(kind)
    assert SWAP in seen


def test_addresses_that_nobody_has() -> None:
    w = world(tasks={"a": ANON}).at(1)
    stack = next(vma for vma in PageTables(w.row, 0).vmas if vma.name == "stack")
    code = next(vma for vma in PageTables(w.row, 0).vmas if vma.name == "code")
    for address, access, name in (
        (0, READ, "no area"),
        (1 << 47, READ, "not canonical"),
        (0xFFFF888000000000, READ, "kernel address"),
        ((1 << 47) - 1, READ, "last page"),
        (stack.start - 4096, WRITE, "stack grows"),
        (stack.start - (9 << 20), WRITE, "no area"),
        (code.start, WRITE, "forbidden"),
        (code.start, EXECUTE, "hit"),
        (code.start + (90 << 12), EXECUTE, "file in the cache"),
    ):
        assert outcome(w, "a", address, access) == name, hex(address)
    assert outcome(w, "a", 1 << 50, READ, levels=5) == "no area", "canonical with five levels, and nobody's"


def test_a_file_that_was_cut_while_mapped_is_a_sigbus() -> None:
    w = world(
        files={"/f": 30}, tasks={"a": "mmap_file M /f shared | read M 4 0 seq | sleep 99", "b": "sleep 1 | write_file /f 2 0 | sleep 99"}
    ).at(3)
    assert outcome(w, "a", at(w, "a", 7000), READ) == "beyond the end" and CASES["beyond the end"][0] == "SIGBUS"


def test_every_case_says_what_kind_of_fault_it_is() -> None:
    assert {kind for kind, _ in CASES.values()} == {"", MINOR, MAJOR, "SIGSEGV", "SIGBUS"}
    assert all(text.endswith(".") for _, text in CASES.values())
