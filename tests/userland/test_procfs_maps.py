# SPDX-License-Identifier: Apache-2.0
"""maps, smaps and pagemap against this machine's own files and its pmap; sums against what the processes' counters say."""

from __future__ import annotations

import mmap
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fleetsim.fleet.one_host import labels_of
from fleetsim.userland.address_space import Piece, Vma
from fleetsim.userland.page_table import PageTables
from fleetsim.userland.procfs import write_tree
from fleetsim.userland.procfs_maps import map_line, maps, pagemap, smaps
from tests.host.worlds import PAGES, World, world
from tests.userland.test_page_table import task_row

LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]{8,}) (\S+) (\d+) *(.*)\n")
OPS = "mmap_anon A 30 | touch A 12 0 | mmap_file M /data/f | read M 8 0 seq | shm S 6 | touch S 6 0 | malloc 4000 100-3000 0 | sleep 99"


@pytest.fixture(scope="module")
def w() -> World:
    return world(files={"/data/f": 16}, tasks={"a": OPS, "b": "mmap_anon B 5 | touch B 5 0 | fork_hold 90 | sleep 99"}).at(3)


def tables(w: World, name: str = "a") -> PageTables:
    return PageTables(w.row, task_row(w, name), labels_of(w.shard, task_row(w, name)))


def test_a_line_is_what_a_real_kernel_makes_of_the_same_area() -> None:
    real = Path("/proc/self/maps").read_text().splitlines(keepends=True)
    assert len(real) > 10
    for line in real:
        match = LINE.fullmatch(line)
        assert match is not None, line
        start, end, prot, offset, device, inode, path = match.groups()
        piece = Piece(int(start, 16) >> 12, (int(end, 16) - int(start, 16)) >> 12)
        assert map_line(Vma("", prot, (piece,), path, int(offset, 16) >> 12, device, int(inode))) == line


def test_maps_has_the_parts_of_the_tutorials_picture_in_their_order(w: World) -> None:
    lines = [LINE.fullmatch(line) for line in maps(tables(w)).splitlines(keepends=True)]
    assert all(lines)
    starts = [int(line[1], 16) for line in lines if line]
    assert starts == sorted(starts)
    names = [line[7] for line in lines if line]
    order = [names.index("/usr/bin/a"), names.index("[heap]"), names.index("/data/f"), names.index("[stack]"), names.index("[vsyscall]")]
    assert order == sorted(order) and len([name for name in names if "libc" in name]) == 5
    assert next(line[3] for line in lines if line and line[7] == "/data/f") == "rw-p"
    assert next(line[3] for line in lines if line and "zero" in line[7]) == "rw-s"


def test_the_heap_is_one_area_of_what_brk_gave(w: World) -> None:
    heap = next(vma for vma in tables(w).vmas if vma.path == "[heap]")
    area = w.row["areas"][heap.area]
    assert heap.pages == 33 + int(area["pages"]) and [piece.area >= 0 for piece in heap.pieces] == [False, True, True]


def test_pmap_reads_it(w: World, tmp_path: Path, require_tool: Callable[[str], Path], require_unshare: None) -> None:
    """The real pmap (procps): its total is VmSize, its RSS and dirty columns are those of smaps."""
    pid = int(w.task("a")["pid"])
    stat = f"{pid} (a) S 1 {pid} {pid} 0 -1 4194304 " + " ".join(["0"] * 43) + "\n"
    files = {f"{pid}/maps": maps(tables(w)), f"{pid}/smaps": smaps(tables(w)), f"{pid}/stat": stat, f"{pid}/cmdline": "/usr/bin/a\0"}
    write_tree({**files, "version": "Linux version 6.1.0\n", "uptime": "99.00 99.00\n"}, tmp_path)

    def run(*arguments: str) -> str:
        inside = 'mount --bind "$0" /proc && exec "$@"'
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", inside, str(tmp_path), str(require_tool("pmap")), *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=30, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
        ).stdout

    plain = run(str(pid)).splitlines()
    assert "/usr/bin/a" in plain[0]
    assert plain[-1].split() == ["total", f"{int(w.task('a')['total_vm']) * 4 + 4}K"], "with the vsyscall page"
    assert len(plain) - 2 == len(tables(w).vmas) + 1
    total = run("-x", str(pid)).splitlines()[-1].split()
    rss = int(w.task("a")["rss_anon"] + w.task("a")["rss_file"] + w.task("a")["rss_shmem"])
    assert [int(n) for n in total[2:4]] == [int(w.task("a")["total_vm"]) * 4, rss * 4]


def fields(text: str, name: str) -> int:
    return sum(int(n) for n in re.findall(rf"^{name}: +(\d+) kB$", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["a", "b", "b-child"])
def test_smaps_adds_up_to_status(w: World, name: str) -> None:
    text, task = smaps(tables(w, name)), w.task(name)
    assert fields(text, "Size") == int(task["total_vm"]) * 4
    assert fields(text, "Rss") == 4 * int(task["rss_anon"] + task["rss_file"] + task["rss_shmem"])
    assert fields(text, "Anonymous") == 4 * int(task["rss_anon"])
    parts = [fields(text, f"{a}_{b}") for a in ("Shared", "Private") for b in ("Clean", "Dirty")]
    assert sum(parts) == fields(text, "Rss")
    shared = fields(text, "Rss") - fields(text, "Pss")
    assert shared > 0
    if name != "a":
        assert fields(text, "Shared_Dirty") >= 5 * PAGES * 4, "what a fork left shared"


def test_smaps_has_the_fields_of_a_real_kernel_in_their_order_and_columns(w: World) -> None:
    ours, real = (
        re.findall(r"^\w+: +\d+ kB$|^THPeligible: +\d$|^VmFlags: ", text, re.MULTILINE)
        for text in (smaps(tables(w)), Path("/proc/self/smaps").read_text())
    )
    shape = {line.split()[0]: len(line) for line in real if line.endswith("kB")}  # THPeligible became wider after 6.1
    first = [line.split()[0] for line in ours[: ours.index("VmFlags: ") + 1]]
    names = list(dict.fromkeys(line.split()[0] for line in real))
    assert [name for name in names if name in first] == [name for name in first if name in names] and len(first) >= 22
    assert all(len(line) == shape.get(line.split()[0], len(line)) for line in ours if "VmFlags" not in line)


def test_pagemap_words_have_the_bits_that_this_kernel_sets(w: World) -> None:
    """A page written to, one never touched: present, soft-dirty, exclusive, and nothing; of a file: bit 61."""
    with mmap.mmap(-1, 4096 * 4, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as own, open("/proc/self/pagemap", "rb") as opened:
        own[0] = 1
        address = np.frombuffer(own, np.uint8).ctypes.data
        opened.seek((address >> 12) * 8)
        real = np.frombuffer(opened.read(16), np.uint64)
    flags = ~np.uint64((1 << 55) - 1)
    t = tables(w)
    a = next(vma for vma in t.vmas if vma.name == "A")
    ours = pagemap(t, a.first, a.pages)
    soft_dirty = np.uint64(1 << 55)  # where the kernel was built with it, as Debian's is
    assert ours[0] & flags == (real[0] & flags) | soft_dirty == np.uint64(1 << 63 | 1 << 56 | 1 << 55)
    assert ours[-1] == real[1] == 0
    frames = ours[: 12 * PAGES] & np.uint64((1 << 55) - 1)
    assert len(np.unique(frames)) == 12 * PAGES
    f = next(vma for vma in t.vmas if vma.path == "/data/f")
    mapped = pagemap(t, f.first, f.pages)
    assert (mapped >> np.uint64(63)).sum() == 8 * PAGES
