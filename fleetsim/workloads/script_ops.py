# SPDX-License-Identifier: Apache-2.0
"""Reading the op language: strings in, rows of `OP` out (see `script.py` for what they do).

    mmap_anon ID MiB [thp|nothp|noreserve|noise=B]     touch ID MiB rate        rewrite|read ID MiB rate seq|random|hot:F:P [for=s]
    shm ID MiB        write_file PATH MiB rate [over] [wrap=MiB] [fsync]        unlink PATH
    read_file PATH MiB rate [rand] [for=s]     mmap_file ID PATH [shared]  free ID munmap|dontneed [PART]
    madvise ID ADVICE        mlock ID [onfault]        PART: all first:MiB last:MiB keep_every:k
    allocator glibc|jemalloc|tcmalloc [NAME=VALUE …] [background_thread]      (before the first malloc)
    malloc N a-b rate                          mfree keep_every:k|first:f|last:f|random:f|all            mtrim
    hugetlb ID MiB [2M|1G]                     pipes N MiB/s            sysw PATH VALUE
    stat_missing DIR N rate                    stat_files DIR N rate    mkfiles DIR N rate
    swapon PATH [PRIORITY]                     swapoff PATH
    pin CPU                                    mempolicy default|local|bind:NODES|preferred:NODE|interleave:NODES   (NODES: 0, 1 or 0-1)
    overcommit_probe [MiB [most MiB]]          fork_hold s       sleep s       until t       exit code

Rates are MiB/s, of stat_* and mkfiles files per second (1000 if not given), 0 is unpaced; `rewrite|read|read_file … 0`
never ends. How an area is accessed is decided when it is mapped, from the ops that follow: random if any op accesses it at
random. Ops of the language that this kernel does not know yet are kept as `OP_NOTHING` and named in `unsupported`, so that
nobody takes their silence for a result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleetsim.allocators.settings import Allocator, parse_allocator
from fleetsim.allocators.tables import GLIBC
from fleetsim.errors import BadInput
from fleetsim.law import ONE_Q
from fleetsim.linux.syscalls import (
    MADVICE,
    MPOL_BIND,
    MPOL_DEFAULT,
    MPOL_INTERLEAVE,
    MPOL_LOCAL,
    MPOL_PREFERRED,
    ORDERED,
    PART_EVERY,
    PART_FIRST,
    PART_LAST,
    UNIFORM,
    Write,
    resolve,
)
from fleetsim.workloads import script_types as vm
from fleetsim.workloads.script_malloc import FREE_ALL, FREE_FIRST, FREE_KEEP_EVERY, FREE_LAST, FREE_RANDOM
from fleetsim.workloads.script_pace import QUANTUM_PAGES

PAGES_PER_MIB = 256
WRITE_PAGES = 32  # one write() call
NS_PER_S = 1_000_000_000
PAGE = 4096
PRIORITY_MAX = 32_767
MODES = {"default": MPOL_DEFAULT, "preferred": MPOL_PREFERRED, "bind": MPOL_BIND, "interleave": MPOL_INTERLEAVE, "local": MPOL_LOCAL}

UNSUPPORTED: frozenset[str] = frozenset()
"""Ops of the recordings' language that the simulated kernel has no law for yet."""

NAME_OPS = {"stat_missing": vm.OP_STAT_MISSING, "stat_files": vm.OP_STAT_FILES, "mkfiles": vm.OP_MKFILES}
LEAST = {"mmap_anon": 2, "touch": 3, "rewrite": 4, "read": 4, "read_file": 3, "write_file": 3, "mmap_file": 2, "shm": 2, "free": 2}
LEAST |= {"hugetlb": 2, "sysw": 2, "malloc": 2, "mtrim": 0, "overcommit_probe": 0, "madvise": 2} | dict.fromkeys(NAME_OPS, 2)
"""Arguments an op takes at least; one where nothing is said."""

KNOWN = frozenset("mmap_anon shm touch rewrite read read_file write_file mmap_file unlink free sleep until exit".split())
KNOWN |= frozenset(
    "allocator malloc mfree mtrim overcommit_probe fork_hold hugetlb pipes sysw madvise mlock swapon swapoff pin mempolicy".split()
) | set(NAME_OPS)


@dataclass
class ParsedOp:
    text: str
    code: int = vm.OP_NOTHING
    area: str = ""
    path: str = ""
    pages: int = 0
    rate: float = 0.0
    pattern: int = ORDERED
    write: bool = False
    hot_share: float = 0.0
    hot_probability: float = 0.0
    chunk: int = 0  # overcommit_probe: pages of one try
    sizes: tuple[int, int] = (0, 0)
    fraction: float = 0.0
    time_ns: int = 0
    accounted: bool = True
    swap_area: str = ""
    noise: int = -1  # mmap_anon: bytes of each page that do not compress, −1: as the host's default
    thp: int = 0  # mmap_anon: 1 MADV_HUGEPAGE, −1 MADV_NOHUGEPAGE
    wrap_pages: int = 0
    fsync: bool = False
    supported: bool = True
    directory: str = ""
    sysw: Write | None = None
    allocator: Allocator | None = None


@dataclass
class Script:
    """The ops of one thread, and which of them this kernel skips."""

    ops: list[ParsedOp] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)


def number(text: str, op: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"op {op!r}: {what} must be a number, not {text!r}") from None
    if not math.isfinite(value):
        raise BadInput(f"op {op!r}: {what} must be a finite number, not {text!r}")
    if value < 0:
        raise BadInput(f"op {op!r}: {what} must not be negative, not {text}")
    return value


def parse_pattern(word: str, op: ParsedOp) -> None:
    """seq | random | hot:F:P (with probability P uniformly in the first fraction F, else anywhere)."""
    if word in ("seq", "sequential"):
        op.pattern = ORDERED
    elif word in ("random", "rand"):
        op.pattern = UNIFORM
    elif word.startswith("hot:") and word.count(":") == 2:
        _, share, probability = word.split(":")
        op.pattern = UNIFORM
        op.hot_share = number(share, op.text, "the hot fraction")
        op.hot_probability = number(probability, op.text, "the hot probability")
        if op.hot_share > 1 or op.hot_probability > 1:
            raise BadInput(f"op {op.text!r}: hot:F:P takes fractions from 0 to 1")
    else:
        raise BadInput(f"op {op.text!r}: unknown access pattern {word!r}; known are seq, random, hot:F:P")


def parse_tail(words: Sequence[str], op: ParsedOp) -> None:
    for word in words:
        if word.startswith("for="):
            op.time_ns = int(number(word[4:], op.text, "for=") * NS_PER_S)
        elif word == "noreserve":
            op.accounted = False
        elif word.startswith("noise="):
            op.noise = int(number(word[6:], op.text, "noise="))
            if op.noise > PAGE:
                raise BadInput(f"op {op.text!r}: noise= takes the bytes of a page that do not compress, 0 to {PAGE}")
        elif word in ("thp", "nothp"):
            op.thp = 1 if word == "thp" else -1
        elif word == "shared":
            continue
        else:
            parse_pattern(word, op)


def whole_writes(text: str, op: str) -> int:
    """Pages of as many write() calls of 128 KiB as it takes to have written that many MiB."""
    return -(-pages_of(text, op) // WRITE_PAGES) * WRITE_PAGES


def parse_write(words: Sequence[str], op: ParsedOp) -> None:
    """over (keep what the file holds), wrap=MiB (start over after so much), fsync (at the end)."""
    for word in words:
        if word.startswith("wrap="):
            op.wrap_pages = whole_writes(word[5:], op.text)
        elif word == "over":
            op.write = True
        elif word == "fsync":
            op.fsync = True
        else:
            raise BadInput(f"op {op.text!r}: unknown word {word!r}; write_file takes over, wrap=MiB and fsync")


def parse_malloc(verb: str, args: Sequence[str], op: ParsedOp) -> None:
    """malloc N a-b [rate] | mfree keep_every:k|first:f|last:f|random:f|all | mtrim"""
    op.code = {"malloc": vm.OP_MALLOC, "mfree": vm.OP_MFREE, "mtrim": vm.OP_MTRIM}[verb]
    if verb == "malloc":
        least, _, most = args[1].partition("-")
        op.sizes = int(number(least, op.text, "the size")), int(number(most or least, op.text, "the size"))
        if not 1 <= op.sizes[0] <= op.sizes[1] < 1 << 30:
            raise BadInput(f"op {op.text!r}: sizes are a-b in bytes, from 1 up to 1 GiB, the smaller one first")
        op.time_ns = int(number(args[0], op.text, "the number of blocks"))
        op.rate = number(args[2], op.text, "the rate") if len(args) > 2 else 0.0
        op.pages = max(1, op.time_ns * sum(op.sizes) // 2 >> 12)
    elif verb == "mfree":
        how, _, value = args[0].partition(":")
        kinds = {"all": FREE_ALL, "keep_every": FREE_KEEP_EVERY, "first": FREE_FIRST, "last": FREE_LAST, "random": FREE_RANDOM}
        if how not in kinds or (how == "all") == bool(value):
            raise BadInput(f"op {op.text!r}: mfree takes keep_every:k, first:f, last:f, random:f or all")
        op.pattern = kinds[how]
        amount = number(value, op.text, "the amount") if value else 1.0
        if how == "keep_every":
            op.pages = int(amount)
            if op.pages < 1:
                raise BadInput(f"op {op.text!r}: keep_every:k keeps every k-th block, k from 1")
        elif amount > 1:
            raise BadInput(f"op {op.text!r}: {how}:f takes a fraction from 0 to 1")
        op.fraction = amount


def parse_malloc_of(verb: str, args: Sequence[str], op: ParsedOp) -> None:
    """allocator glibc|jemalloc|tcmalloc [NAME=VALUE …]"""
    try:
        op.code, op.allocator = vm.OP_ALLOCATOR, parse_allocator(args)
    except ValueError as error:
        raise BadInput(f"op {op.text!r}: {error}") from None


def parse_free(args: Sequence[str], op: ParsedOp) -> None:
    """free ID munmap|dontneed [all | first:MiB | last:MiB | keep_every:k]; keep_every never unmaps."""
    op.area, how = args[0], args[1]
    part = args[2] if len(args) > 2 else "all"
    if how not in ("munmap", "dontneed"):
        raise BadInput(f"op {op.text!r}: memory is freed by munmap or dontneed, not by {how!r}")
    kind, _, amount = part.partition(":")
    if part == "all":
        op.code = vm.OP_MUNMAP if how == "munmap" else vm.OP_DONTNEED
        return
    if kind not in ("first", "last", "keep_every") or not amount:
        raise BadInput(f"op {op.text!r}: unknown part {part!r}; known are all, first:MiB, last:MiB, keep_every:k")
    op.code = vm.OP_FREE_PART
    op.accounted = how == "munmap" and kind != "keep_every"
    op.pattern = {"first": PART_FIRST, "last": PART_LAST, "keep_every": PART_EVERY}[kind]
    op.pages = int(number(amount, op.text, "k")) if kind == "keep_every" else pages_of(amount, op.text)
    if op.pages < 1:
        raise BadInput(f"op {op.text!r}: {kind} must be at least one page")


def advice_of(word: str, op: str) -> int:
    if word not in MADVICE:
        raise BadInput(f"op {op!r}: unknown advice {word!r}; known are: {', '.join(MADVICE)}")
    return MADVICE[word]


def parse_probe(args: Sequence[str], op: ParsedOp) -> None:
    """overcommit_probe [MiB of one try [MiB in all]]"""
    op.code = vm.OP_PROBE
    op.chunk = pages_of(args[0] if args else "64", op.text)
    op.pages = pages_of(args[1] if len(args) > 1 else "100000", op.text)
    if op.chunk == 0:
        raise BadInput(f"op {op.text!r}: it must try for at least one page at a time, 0.00390625 MiB")


def parse_op(text: str) -> ParsedOp:
    """One op string (BadInput with the op and what would be right)."""
    words = text.split()
    if not words:
        raise BadInput("an op must not be empty")
    verb, args = words[0], words[1:]
    op = ParsedOp(text)
    if verb in UNSUPPORTED:
        op.supported = False
        return op
    if verb not in KNOWN:
        raise BadInput(f"unknown op {verb!r} in {text!r}; known are: {', '.join(sorted(KNOWN | UNSUPPORTED))}")
    least = LEAST.get(verb, 1)
    if len(args) < least:
        raise BadInput(f"op {text!r}: {verb} takes at least {least} arguments")
    if verb == "mmap_anon":
        op.code, op.area, op.pages = vm.OP_MMAP_ANON, args[0], area_pages(args[1], text)
        parse_tail(args[2:], op)
    elif verb in ("touch", "rewrite", "read"):
        op.code = vm.OP_TOUCH if verb == "touch" else vm.OP_ACCESS
        op.write = verb == "rewrite"
        op.area, op.pages, op.rate = args[0], pages_of(args[1], text), number(args[2], text, "the rate")
        parse_tail(args[3:], op)
    elif verb == "read_file":
        op.code, op.path, op.pages, op.rate = vm.OP_READ_FILE, args[0], pages_of(args[1], text), number(args[2], text, "the rate")
        parse_tail(args[3:], op)
    elif verb == "shm":
        op.code, op.area, op.pages = vm.OP_SHM, args[0], area_pages(args[1], text)
    elif verb == "write_file":
        op.code, op.path, op.pages, op.rate = vm.OP_WRITE_FILE, args[0], whole_writes(args[1], text), number(args[2], text, "the rate")
        parse_write(args[3:], op)
    elif verb == "unlink":
        op.code, op.path = vm.OP_UNLINK, args[0]
    elif verb == "hugetlb":
        op.code, op.area, op.pages = vm.OP_HUGETLB, args[0], area_pages(args[1], text)
        if args[2:] not in ([], ["2M"], ["1G"]):
            raise BadInput(f"op {text!r}: pages of the hugetlb pools are 2M or 1G, not {' '.join(args[2:])!r}")
        op.thp = int(args[2:] == ["1G"])
    elif verb == "sysw":
        op.code, op.sysw = vm.OP_SYSW, resolve(args[0], args[1])
        op.supported = op.sysw.has_law
    elif verb == "mmap_file":
        op.code, op.area, op.path = vm.OP_MMAP_FILE, args[0], args[1]
        op.accounted = "shared" not in args[2:]
        parse_tail(args[2:], op)
    elif verb == "overcommit_probe":
        parse_probe(args, op)
    elif verb == "free":
        parse_free(args, op)
    elif verb in PARSERS:
        PARSERS[verb](verb, args, op)
    elif verb == "madvise":
        op.code, op.area, op.pattern = vm.OP_MADVISE, args[0], advice_of(args[1], text)
    elif verb == "mlock":
        op.code, op.area, op.pattern = vm.OP_MLOCK, args[0], int("onfault" in args[1:])
    else:
        op.code = {"sleep": vm.OP_SLEEP, "until": vm.OP_UNTIL, "exit": vm.OP_EXIT, "fork_hold": vm.OP_FORK_HOLD}[verb]
        value = number(args[0], text, "the time" if verb != "exit" else "the code")
        op.time_ns = int(value) if verb == "exit" else int(value * NS_PER_S)
    return op


def nodes_of(text: str) -> int | None:
    """A list of NUMA nodes as cpuset.mems has it, `0`, `1`, `0-1` or `0,1`, as a bit each; None if it is none."""
    return {"0": 1, "1": 2, "0-1": 3, "0,1": 3}.get(text)


def parse_placement(verb: str, args: Sequence[str], op: ParsedOp) -> None:
    """pin CPU | mempolicy MODE[:NODES]"""
    if verb == "pin":
        op.code, op.pages = vm.OP_PIN, int(number(args[0], op.text, "the CPU"))
        return
    mode, _, nodes = args[0].partition(":")
    if mode not in MODES or (mode in ("default", "local")) == bool(nodes):
        raise BadInput(f"op {op.text!r}: a memory policy is one of default, local, bind:NODES, preferred:NODE, interleave:NODES")
    mask = nodes_of(nodes) if nodes else 0
    if mask is None or (mode == "preferred" and mask == 3):
        raise BadInput(f"op {op.text!r}: nodes are 0, 1 or 0-1 (preferred takes one of them), not {nodes!r}")
    op.code, op.pattern, op.pages = vm.OP_MEMPOLICY, MODES[mode], mask


def parse_swap(verb: str, args: Sequence[str], op: ParsedOp) -> None:
    """swapon PATH [PRIORITY] | swapoff PATH"""
    op.code, op.swap_area, op.time_ns = vm.OP_SWAPON if verb == "swapon" else vm.OP_SWAPOFF, args[0], -1
    if verb == "swapon" and len(args) > 1:
        op.time_ns = int(number(args[1], op.text, "the priority"))
        if op.time_ns > PRIORITY_MAX:
            raise BadInput(f"op {op.text!r}: a priority is a number from 0 to {PRIORITY_MAX}")


def parse_count(verb: str, args: Sequence[str], op: ParsedOp) -> None:
    """N files of a directory, at files per second, or N pipes, at MiB/s; none at all is an op without effect."""
    count, rate = (args[0], args[1:2]) if verb == "pipes" else (args[1], args[2:3])
    op.pages = int(number(count, op.text, "how many"))
    if op.pages > 0:
        op.code = vm.OP_PIPES if verb == "pipes" else NAME_OPS[verb]
    op.rate = number(rate[0], op.text, "the rate") if rate else 0.0 if verb == "pipes" else 1000.0
    if verb != "pipes":
        op.directory = args[0].rstrip("/") if op.pages > 0 else ""
        op.rate /= PAGES_PER_MIB


PARSERS = dict.fromkeys((*NAME_OPS, "pipes"), parse_count) | dict.fromkeys(("malloc", "mfree", "mtrim"), parse_malloc)
PARSERS |= {"allocator": parse_malloc_of}
PARSERS |= dict.fromkeys(("swapon", "swapoff"), parse_swap) | dict.fromkeys(("pin", "mempolicy"), parse_placement)


def area_pages(text: str, op: str) -> int:
    pages = pages_of(text, op)
    if pages == 0:
        raise BadInput(f"op {op!r}: an area must have at least one page, 0.00390625 MiB")
    return pages


def pages_of(text: str, op: str) -> int:
    return int(number(text, op, "the size in MiB") * PAGES_PER_MIB)


def parse_script(lines: Sequence[str]) -> Script:
    """All ops of a thread, with each area's access pattern settled where it is mapped, and each file's for all its reads."""
    script = Script()
    for text in lines:
        op = parse_op(text)
        script.ops.append(op)
        if not op.supported:
            script.unsupported.append(text)
    heaps = [op.text for op in script.ops if op.code in vm.ON_A_HEAP]
    late = [op.text for op in script.ops if op.code == vm.OP_ALLOCATOR and op.text in heaps[1:]]
    if late:
        raise BadInput(f"op {late[0]!r}: a program's allocator is said once, before its first malloc, mfree or mtrim")
    mapped = {op.area: op for op in script.ops if op.code in (vm.OP_MMAP_ANON, vm.OP_MMAP_FILE, vm.OP_SHM)}
    for op in script.ops:
        if op.code == vm.OP_ACCESS and op.area in mapped and op.pattern == UNIFORM:
            owner = mapped[op.area]
            owner.pattern, owner.hot_share = UNIFORM, max(owner.hot_share, op.hot_share)
    at_random = {op.path for op in script.ops if op.code == vm.OP_READ_FILE and op.pattern == UNIFORM}
    for op in script.ops:
        if op.code in (vm.OP_READ_FILE, vm.OP_WRITE_FILE) and op.path in at_random:
            op.pattern = UNIFORM
    return script


def wants_heap(script: Script) -> int | None:
    """Whose malloc the program calls: GLIBC, JEMALLOC, TCMALLOC; None: nobody's."""
    said = [op.allocator.kind for op in script.ops if op.allocator is not None]
    return said[0] if said else GLIBC if any(op.code == vm.OP_MALLOC for op in script.ops) else None


def quantum_ns(rate_mib_s: float) -> int:
    """Nanoseconds from one 256 KiB quantum to the next; 0 for an unpaced op."""
    return 0 if rate_mib_s <= 0 else int(NS_PER_S * QUANTUM_PAGES / (rate_mib_s * PAGES_PER_MIB))


def hot_q(op: ParsedOp) -> int:
    """Share of accesses that fall into the hot part, 2^20ths: P + (1 − P)·F."""
    return int((op.hot_probability + (1 - op.hot_probability) * op.hot_share) * ONE_Q)
