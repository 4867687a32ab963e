# SPDX-License-Identifier: Apache-2.0
"""Is this one op of the script language? Checked before a run, so that a typing error costs a sentence and not a run.

One table says the form of every op: its words after the name, `?` marks the optional ones. The meaning of the ops is in
`fleetsim/workloads/script.py`; what that module cannot run yet is refused when the host boots.
Leaves out: whether an id was mapped before it is touched (the kernel answers that, at run time).
"""

from __future__ import annotations

import difflib
import re

_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
_INTEGER = re.compile(r"[0-9]{1,12}")
_KINDS: dict[str, tuple[re.Pattern[str], str]] = {
    "ID": (re.compile(r"[A-Za-z_][A-Za-z0-9_-]*"), "a name such as heap"),
    "PATH": (re.compile(r"/\S*"), "a path such as /data/big.bin"),
    "MIB": (_NUMBER, "a number of MiB"),
    "RATE": (_NUMBER, "a rate in MiB/s (0: as fast as it can)"),
    "COUNT": (_INTEGER, "a whole number"),
    "SECONDS": (_NUMBER, "a number of seconds"),
    "TEXT": (re.compile(r"\S+"), "one word"),
    "RANGE": (re.compile(r"[0-9]+-[0-9]+"), "a range of bytes such as 64-160"),
    "ACCESS": (re.compile(r"seq|random|hot:[0-9.]+:[0-9.]+"), "seq, random or hot:F:P"),
    "FOR": (re.compile(r"for=[0-9.]+s?"), "for=SECONDS"),
    "MMAP": (re.compile(r"thp|nothp|noreserve"), "thp, nothp or noreserve"),
    "RAND": (re.compile(r"rand"), "rand"),
    "WRITE": (re.compile(r"over|fsync|wrap=[0-9]+"), "over, fsync or wrap=MiB"),
    "SHARED": (re.compile(r"shared|private"), "shared"),
    "ONFAULT": (re.compile(r"onfault"), "onfault"),
    "HOW": (re.compile(r"munmap|dontneed"), "munmap or dontneed"),
    "PART": (re.compile(r"all|(first|last):[0-9.]+|keep_every:[0-9]+"), "all, first:MiB, last:MiB or keep_every:K"),
    "ADVICE": (
        re.compile(r"cold|pageout|free|dontneed|willneed|hugepage|nohugepage|collapse|normal|random|sequential"),
        "cold, pageout, free …",
    ),
    "MFREE": (re.compile(r"all|(first|last):[0-9.]+|keep_every:[0-9]+"), "all, first:F, last:F or keep_every:K"),
}

OPS: dict[str, str] = {
    "mmap_anon": "ID MIB MMAP?",
    "touch": "ID MIB RATE",
    "rewrite": "ID MIB RATE ACCESS FOR?",
    "read": "ID MIB RATE ACCESS FOR?",
    "read_file": "PATH MIB RATE RAND? FOR?",
    "write_file": "PATH MIB RATE WRITE? WRITE? WRITE?",
    "mmap_file": "ID PATH SHARED?",
    "shm": "ID MIB",
    "hugetlb": "ID MIB",
    "mlock": "ID ONFAULT?",
    "free": "ID HOW PART?",
    "madvise": "ID ADVICE",
    "fork_hold": "SECONDS",
    "malloc": "COUNT RANGE RATE",
    "mfree": "MFREE",
    "mtrim": "",
    "stat_missing": "PATH COUNT RATE",
    "stat_files": "TEXT? TEXT? TEXT?",
    "mkfiles": "PATH COUNT RATE",
    "pipes": "COUNT RATE",
    "overcommit_probe": "MIB MIB",
    "sysw": "PATH TEXT",
    "unlink": "PATH",
    "sleep": "SECONDS",
    "until": "SECONDS",
    "exit": "COUNT",
}
"""Name of the op → the words that follow it (recordings' op language)."""


def check_op(op: str) -> None:
    """Raise ValueError with what would be right, unless `op` is an op."""
    name, *words = op.split() or [""]
    if name not in OPS:
        near = difflib.get_close_matches(name, OPS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{op!r} is not an op{hint}; known ops are {', '.join(OPS)}")
    form = f"{name} {OPS[name]}".strip()
    rest = list(words)
    for slot in OPS[name].split():
        pattern, right = _KINDS[slot.rstrip("?")]
        if rest and pattern.fullmatch(rest[0]):
            rest.pop(0)
        elif not slot.endswith("?"):
            wrong = f"{rest[0]!r} is not {right}" if rest else f"{right} is missing"
            raise ValueError(f"{op!r}: {wrong}; the form is '{form}'")
    if rest:
        raise ValueError(f"{op!r}: {rest[0]!r} is too much or in the wrong place; the form is '{form}'")


def files_read(ops: list[str]) -> tuple[str, ...]:
    """Paths that these ops read and that none of them has written before."""
    made: set[str] = set()
    needed: list[str] = []
    for op in ops:
        name, *words = op.split()
        if name == "write_file":
            made.add(words[0])
        path = words[0] if name == "read_file" else words[1] if name == "mmap_file" else None
        if path is not None and path not in made and path not in needed:
            needed.append(path)
    return tuple(needed)
