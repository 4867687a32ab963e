# SPDX-License-Identifier: Apache-2.0
"""Is this one op of the script language? Checked before a run, so that a typing error costs a sentence and not a run.

One table says the form of every op that the simulated kernel can run: its words after the name, `?` marks the optional ones. What
the ops mean is said in `fleetsim/workloads/script_ops.py`, which turns them into rows (a test holds the two together).
Leaves out: whether an id was mapped before it is touched (the kernel answers that, at run time).
"""

from __future__ import annotations

import difflib
import re

from fleetsim.allocators.settings import KINDS, parse_allocator

_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_FRACTION = r"(0(\.[0-9]+)?|1(\.0+)?)"
MADVICE = "normal willneed dontneed free hugepage nohugepage cold pageout collapse".split()
"""What madvise takes (those of `fleetsim/linux/madvise.py`: a test compares)."""

_KINDS: dict[str, tuple[re.Pattern[str], str]] = {
    "ID": (re.compile(r"[A-Za-z_][A-Za-z0-9_-]*"), "a name such as heap"),
    "PATH": (re.compile(r"/\S*"), "a path such as /data/big.bin"),
    "MIB": (_NUMBER, "a number of MiB"),
    "RATE": (_NUMBER, "a rate in MiB/s (0: as fast as it can)"),
    "CODE": (re.compile(r"[0-9]{1,3}"), "an exit code"),
    "SECONDS": (_NUMBER, "a number of seconds"),
    "ACCESS": (re.compile(rf"seq|random|hot:{_FRACTION}:{_FRACTION}"), "seq, random or hot:F:P with fractions from 0 to 1"),
    "FOR": (re.compile(r"for=[0-9]{1,9}(\.[0-9]{1,6})?"), "for=SECONDS"),
    "PAGES": (re.compile(r"thp|nothp|noreserve"), "thp, nothp or noreserve"),
    "NOISE": (re.compile(r"noise=[0-9]{1,4}"), "noise=BYTES, those of each page that do not compress"),
    "RAND": (re.compile(r"rand"), "rand"),
    "SHARED": (re.compile(r"shared"), "shared"),
    "HUGE": (re.compile(r"2M|1G"), "2M or 1G, the size of its pages"),
    "HOW": (re.compile(r"munmap|dontneed"), "munmap or dontneed"),
    "OVER": (re.compile(r"over"), "over"),
    "WRAP": (re.compile(r"wrap=[0-9]{1,9}(\.[0-9]{1,6})?"), "wrap=MIB"),
    "FSYNC": (re.compile(r"fsync"), "fsync"),
    "BLOCKS": (re.compile(r"[0-9]{1,9}"), "a number of blocks"),
    "BYTES": (re.compile(r"[0-9]{1,9}(-[0-9]{1,9})?"), "a size in bytes or a range of sizes such as 64-160"),
    "FREED": (
        re.compile(rf"all|keep_every:[1-9][0-9]{{0,8}}|(first|last|random):{_FRACTION}"),
        "all, keep_every:K, first:F, last:F or random:F",
    ),
    "NAME": (re.compile("|".join(KINDS)), f"one of {', '.join(KINDS)}"),
    "SETTING": (re.compile(r"[a-z_]+(=\S+)?"), "a setting such as dirty_decay_ms=10000"),
    "PRIORITY": (re.compile(r"[0-9]{1,5}"), "a priority"),
    "COUNT": (re.compile(r"[0-9]{1,9}"), "a whole number"),
    "FILES_PER_S": (re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?"), "a rate in files/s (0: as fast as it can)"),
    "VALUE": (re.compile(r"\S+"), "what is written"),
    "PART": (re.compile(rf"all|(first|last):{_NUMBER.pattern}|keep_every:[1-9][0-9]{{0,8}}"), "all, first:MIB, last:MIB or keep_every:K"),
    "ADVICE": (re.compile("|".join(MADVICE)), f"one of {', '.join(MADVICE)}"),
    "POLICY": (
        re.compile(r"default|local|(bind|interleave):(0|1|0-1|0,1)|preferred:[01]"),
        "default, local, bind:NODES, preferred:NODE or interleave:NODES, with nodes 0, 1 or 0-1",
    ),
    "ONFAULT": (re.compile(r"onfault"), "onfault"),
}

OPS: dict[str, str] = {
    "mmap_anon": "ID MIB PAGES? NOISE?",
    "touch": "ID MIB RATE",
    "rewrite": "ID MIB RATE ACCESS FOR?",
    "read": "ID MIB RATE ACCESS FOR?",
    "read_file": "PATH MIB RATE RAND? FOR?",
    "mmap_file": "ID PATH SHARED?",
    "shm": "ID MIB",
    "write_file": "PATH MIB RATE OVER? WRAP? FSYNC?",
    "unlink": "PATH",
    "free": "ID HOW PART?",
    "madvise": "ID ADVICE",
    "mlock": "ID ONFAULT?",
    "allocator": "NAME SETTING? SETTING? SETTING?",
    "malloc": "BLOCKS BYTES RATE?",
    "mfree": "FREED",
    "mtrim": "",
    "overcommit_probe": "MIB? MIB?",
    "fork_hold": "SECONDS",
    "stat_missing": "PATH COUNT FILES_PER_S?",
    "stat_files": "PATH COUNT FILES_PER_S?",
    "mkfiles": "PATH COUNT FILES_PER_S?",
    "pipes": "COUNT RATE?",
    "hugetlb": "ID MIB HUGE?",
    "sysw": "PATH VALUE",
    "swapon": "PATH PRIORITY?",
    "swapoff": "PATH",
    "pin": "COUNT",
    "mempolicy": "POLICY",
    "sleep": "SECONDS",
    "until": "SECONDS",
    "exit": "CODE",
}
"""Name of the op → the words that follow it (the recordings' op language)."""


def check_op(op: str) -> None:
    """Raise ValueError with what would be right, unless `op` is an op."""
    name, *words = op.split() or [""]
    if name not in OPS:
        near = difflib.get_close_matches(name, OPS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{op!r} is not an op; {hint}known ops are {', '.join(OPS)}")
    form = f"{name} {OPS[name]}".strip()
    rest = list(words)
    for slot in OPS[name].split():
        pattern, right = _KINDS[slot.rstrip("?")]
        if rest and pattern.fullmatch(rest[0]):
            rest.pop(0)
        elif not slot.endswith("?"):
            wrong = f"{rest[0]!r} is not {right}" if rest else f"{right} is missing"
            raise ValueError(f"in {op!r} {wrong}; the form is '{form}'")
    if rest:
        raise ValueError(f"in {op!r} {rest[0]!r} is too much or in the wrong place; the form is '{form}'")
    if name == "allocator":
        try:
            parse_allocator(words)
        except ValueError as error:
            raise ValueError(f"in {op!r} {error}; the form is '{form}'") from None


def files_read(ops: list[str]) -> tuple[str, ...]:
    """Paths that these ops read and do not write themselves, in their order."""
    place = {"read_file": 1, "mmap_file": 2}
    written = {words[1] for words in map(str.split, ops) if words[0] == "write_file"}
    paths = dict.fromkeys(words[place[words[0]]] for words in map(str.split, ops) if words[0] in place)
    return tuple(path for path in paths if path not in written)


def areas_mapped(ops: tuple[str, ...]) -> int:
    verbs = [op.split()[0] for op in ops]
    heap = 3 if "malloc" in verbs else int("allocator" in verbs)  # the heap, its mapped chunks, the table of pointers
    return heap + sum(verb in ("mmap_anon", "mmap_file", "shm", "hugetlb") for verb in verbs)
