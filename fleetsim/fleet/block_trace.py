# SPDX-License-Identifier: Apache-2.0
"""Reads block traces: fleetsim's own plain text, and what glibc's mtrace() writes. Either may be gzipped.

    # comment                       write all | none | BYTES   how much of each new block the program writes (default all)
    malloc ID SIZE                  thread N                   the ops that follow are of thread N (0: main)
    calloc ID SIZE | ID N SIZE      exit                       this thread ends
    memalign ID ALIGNMENT SIZE      sleep SECONDS
    realloc ID SIZE                 trim [PAD]                 malloc_trim()
    free ID                         touch ID [SIZE [OFFSET]]   the program writes these bytes (default the whole block)

An ID is any word; after its free it may be used again. Sizes are bytes, or with a unit of two's powers (64Ki, 4KiB, 1MiB).
Rules: a file that cannot be what a program did (free of an unknown block, a line cut off) is refused with its line, never repaired;
`unknown=True` alone skips frees of blocks that mtrace never saw (allocated before it was switched on).
"""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fleetsim.allocators.trace import BLOCK_MAX, THREADS_MAX, Trace, TraceBuilder
from fleetsim.errors import BadInput

STDIN = Path("stdin")
"""Stands for standard input (a file of that name in the current folder is ./stdin)."""
TEXT_MAX = 512 << 20  # bytes of a trace's text: some twenty million ops

NS_PER_S = 1_000_000_000
SLEEP_MAX_S = 86_400 * 366
_SIZE = re.compile(r"([0-9]{1,15})(?:([KMG])i(?:B)?|B)?")
_SHIFT = {None: 0, "K": 10, "M": 20, "G": 30}
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_MTRACE = re.compile(r"(?:@ (?P<where>.*?) )?(?P<op>[+\-<>!]) (?P<address>0x[0-9a-f]{1,16}|\(nil\))(?: (?P<size>0x[0-9a-f]{1,16}|0))?")
_WORDS = {"malloc": (2, 2), "calloc": (2, 3), "memalign": (3, 3), "realloc": (2, 2), "free": (1, 1), "touch": (1, 3), "trim": (0, 1)} | {
    "sleep": (1, 1), "thread": (1, 1), "exit": (0, 0), "write": (1, 1)
}  # fmt: skip
_USAGE = {"malloc": "ID SIZE", "calloc": "ID SIZE or ID N SIZE", "memalign": "ID ALIGNMENT SIZE", "realloc": "ID SIZE", "free": "ID"} | {
    "touch": "ID [SIZE [OFFSET]]", "trim": "[PAD]", "sleep": "SECONDS", "thread": "N", "exit": "nothing", "write": "all, none or BYTES"
}  # fmt: skip


def read_block_trace(path: Path, *, unknown: bool = False) -> Trace:
    """The trace in a file; which of the two formats it has is seen from its first lines."""
    text = _text_of(path)
    if not text.strip():
        raise BadInput("the file is empty: a trace has at least one op, such as 'malloc 1 4096'", file=path)
    lines = text.split("\n")
    if lines[-1] != "":
        raise BadInput(f"the last line {_shown(lines[-1])} has no end of line: the file was cut off there", file=path, line=len(lines))
    first = next((line for line in lines if line.strip()), "")
    if first.startswith(("= Start", "@ ", "+ 0x", "- 0x", "< 0x")):
        return _Mtrace(path, unknown).read(lines[:-1])
    return _Plain(path).read(lines[:-1])


def _bytes_of(path: Path) -> bytes:
    """What is in a file, or stdin for the name STDIN; unpacked, and no more than one byte too many."""
    with ExitStack() as stack:
        raw: Any = sys.stdin.buffer if path == STDIN else stack.enter_context(path.open("rb"))
        file = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
        return bytes(file.read(TEXT_MAX + 1))


def _text_of(path: Path) -> str:
    try:
        if path != STDIN and path.exists() and not path.is_file():
            raise BadInput("it is no file: give a trace or the name of a built-in pattern", file=path)
        data = _bytes_of(path)
        if len(data) > TEXT_MAX:
            raise BadInput(f"the trace is longer than {TEXT_MAX >> 20} MiB of text: split it", file=path)
        return data.decode("utf-8")
    except FileNotFoundError:
        raise BadInput("no such file: give a trace or the name of a built-in pattern", file=path) from None
    except EOFError:
        raise BadInput("the gzipped file is truncated: its end is missing", file=path) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"the gzipped file is damaged ({error})", file=path) from None
    except UnicodeDecodeError as error:
        raise BadInput(f"byte {error.start} is {error.object[error.start]:#04x}, not UTF-8 text: a trace is text", file=path) from None
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", file=path) from None


def _shown(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:37] + "...")


class _Plain:
    """fleetsim's own format."""

    def __init__(self, path: Path) -> None:
        self.path, self.line = path, 0
        self.builder = TraceBuilder(str(path))
        self.sizes: dict[str, int] = {}  # live block → bytes
        self.freed: dict[str, int] = {}  # freed block → line of its free
        self.ended: dict[int, int] = {}  # thread → line of its exit

    def wrong(self, sentence: str) -> BadInput:
        return BadInput(sentence, file=self.path, line=self.line)

    def size(self, word: str, what: str = "size", *, least: int = 0) -> int:
        found = _SIZE.fullmatch(word)
        if not found:
            raise self.wrong(f"the {what} is {_shown(word)}: it must be a number of bytes up to 64 GiB, such as 4096 or 64KiB")
        value = int(found[1]) << _SHIFT[found[2]]
        if not least <= value <= BLOCK_MAX:
            raise self.wrong(f"the {what} is {_shown(word)}: it must be {least} to {BLOCK_MAX} bytes (64 GiB)")
        return value

    def live(self, name: str, op: str) -> None:
        if name in self.sizes:
            return
        if name in self.freed:
            raise self.wrong(f"{op} of block {_shown(name)}, which was freed on line {self.freed[name]}: it must be live")
        raise self.wrong(f"{op} of block {_shown(name)}, which was never allocated: allocate it on a line before")

    def fresh(self, name: str, size: int) -> None:
        if name in self.sizes:
            raise self.wrong(f"block {_shown(name)} is allocated again while it is live: free it first, or give the new block another ID")
        self.sizes[name] = size

    def read(self, lines: list[str]) -> Trace:
        for text in lines:
            self.line += 1
            words = text.partition("#")[0].split()
            if words:
                self.op(words[0], words[1:])
        if not self.builder.rows:
            raise BadInput("there is no op in it, only comments: a trace has at least one, such as 'malloc 1 4096'", file=self.path)
        return self.builder.build()

    def op(self, op: str, words: list[str]) -> None:
        if op not in _WORDS:
            raise self.wrong(f"unknown op {_shown(op)}: there are {', '.join(_WORDS)}")
        least, most = _WORDS[op]
        if not least <= len(words) <= most:
            raise self.wrong(f"{op} has {len(words)} words after it: it takes {_USAGE[op]}")
        thread = self.builder.thread
        if op != "thread" and thread in self.ended:
            raise self.wrong(f"{op} by thread {thread}, which ended on line {self.ended[thread]}: a thread that ended does nothing more")
        getattr(self, f"do_{op}")(*words)

    def do_malloc(self, name: str, size: str) -> None:
        self.fresh(name, self.size(size))
        self.builder.malloc(name, self.sizes[name])

    def do_calloc(self, name: str, *sizes: str) -> None:
        total = self.size(sizes[0])
        if len(sizes) == 2:
            total *= self.size(sizes[1])
        if total > BLOCK_MAX:
            raise self.wrong(f"calloc of {' × '.join(sizes)} bytes: a block has at most {BLOCK_MAX} bytes (64 GiB)")
        self.fresh(name, total)
        self.builder.calloc(name, total)

    def do_memalign(self, name: str, alignment: str, size: str) -> None:
        value = self.size(alignment, "alignment", least=1)
        if value & (value - 1):
            raise self.wrong(f"the alignment is {_shown(alignment)}: it must be a power of two")
        self.fresh(name, self.size(size))
        self.builder.memalign(name, value, self.sizes[name])

    def do_realloc(self, name: str, size: str) -> None:
        self.live(name, "realloc")
        value = self.size(size)
        self.builder.realloc(name, value)
        self.sizes[name] = value
        if value == 0:
            self.forget(name)

    def do_free(self, name: str) -> None:
        self.live(name, "free")
        self.builder.free(name)
        self.forget(name)

    def forget(self, name: str) -> None:
        del self.sizes[name]
        self.freed[name] = self.line

    def do_touch(self, name: str, size: str | None = None, offset: str = "0") -> None:
        self.live(name, "touch")
        begin = self.size(offset, "offset")
        count = max(0, self.sizes[name] - begin) if size is None else self.size(size)
        if begin + count > self.sizes[name]:
            raise self.wrong(f"touch of bytes {begin} to {begin + count} of block {_shown(name)}, which has {self.sizes[name]}")
        self.builder.touch(name, count, begin)

    def do_trim(self, pad: str = "0") -> None:
        self.builder.trim(self.size(pad, "pad"))

    def do_sleep(self, seconds: str) -> None:
        if not _SECONDS.fullmatch(seconds) or float(seconds) > SLEEP_MAX_S:
            raise self.wrong(f"the time to sleep is {_shown(seconds)}: it must be seconds, such as 1.5, at most a year")
        whole, _, part = seconds.partition(".")
        self.builder.sleep(int(whole) * NS_PER_S + int(part.ljust(9, "0") if part else 0))

    def do_thread(self, number: str) -> None:
        if not number.isascii() or not number.isdigit() or len(number) > 9 or int(number) >= THREADS_MAX:
            raise self.wrong(f"the thread is {_shown(number)}: it must be a number from 0 to {THREADS_MAX - 1}")
        self.builder.on(int(number))

    def do_exit(self) -> None:
        if self.builder.thread == 0:
            raise self.wrong("exit of thread 0: the main thread goes on to the end; give 'thread N' of another one before")
        self.builder.exit()
        self.ended[self.builder.thread] = self.line

    def do_write(self, how: str) -> None:
        self.builder.written = None if how == "all" else 0 if how == "none" else self.size(how, "number of bytes to write")


class _Mtrace:
    """The format of glibc's mtrace(): `@ caller + address size`, `- address`, `< address` and `> address size` of a realloc."""

    def __init__(self, path: Path, unknown: bool) -> None:
        self.path, self.unknown, self.line = path, unknown, 0
        self.builder = TraceBuilder(str(path))
        self.freed: dict[str, int] = {}
        self.leaving: str | None = None  # the block of a realloc whose second line is to come
        self.ended = False

    def wrong(self, sentence: str) -> BadInput:
        return BadInput(sentence, file=self.path, line=self.line)

    def read(self, lines: list[str]) -> Trace:
        for op, address, size in self.entries(lines):
            self.entry(op, address, size)
        if self.leaving is not None:
            raise self.wrong(f"the realloc of {self.leaving} has no second line ('> address size'): the file was cut off there")
        if not self.builder.rows:
            raise BadInput("there is no call in it: mtrace() writes '@ caller + address size' for each malloc", file=self.path)
        return self.builder.build()

    def entries(self, lines: list[str]) -> Iterator[tuple[str, str, int]]:
        for text in lines:
            self.line += 1
            if text.strip() in ("", "= Start", "= End"):
                continue
            found = _MTRACE.fullmatch(text.rstrip())
            if not found:
                raise self.wrong(f"{_shown(text)} is no line of mtrace: it must be '@ caller + 0xaddress 0xsize' or '@ caller - 0xaddress'")
            if (found["op"] in "+>!") != (found["size"] is not None):
                needs = "a size after the address" if found["op"] in "+>!" else "nothing after the address"
                raise self.wrong(f"{_shown(text)}: a line with {found['op']!r} has {needs}")
            size = int(found["size"] or "0", 16)
            if size > BLOCK_MAX and found["address"] != "(nil)" and found["op"] != "!":
                raise self.wrong(f"the size is {found['size']}: a block has at most {BLOCK_MAX:#x} bytes (64 GiB)")
            yield found["op"], found["address"], size

    def known(self, address: str) -> bool:
        if address in self.builder.numbers:
            return True
        if address in self.freed:
            raise self.wrong(f"free of {address}, which was freed on line {self.freed[address]}: it must be live")
        if not self.unknown:
            raise self.wrong(
                f"free of {address}, which was never allocated in this file: mtrace() was switched on later (--skip-unknown passes over it)"
            )
        return False

    def entry(self, op: str, address: str, size: int) -> None:
        """One line; '!' is a realloc that failed: nothing changed."""
        if (op == ">") != (self.leaving is not None):
            raise self.wrong(f"{op!r} {address}: '<' and then '>' are the two lines of one realloc, and belong together")
        if op == "+" and address != "(nil)":  # a failed call allocated nothing
            self.allocate(address, size)
        elif op == "-" and self.known(address):
            self.builder.free(address)
            self.freed[address] = self.line
        elif op == "<":
            self.leaving = address
        elif op == ">":
            self.move(str(self.leaving), address, size)
            self.leaving = None

    def allocate(self, address: str, size: int) -> None:
        if address in self.builder.numbers:
            raise self.wrong(f"{address} is allocated again while it is live: a line with its free is missing")
        self.freed.pop(address, None)
        self.builder.malloc(address, size)

    def move(self, old: str, new: str, size: int) -> None:
        if old not in self.builder.numbers and self.unknown and old not in self.freed:
            self.allocate(new, size)
            return
        if not self.known(old):
            return
        if old != new and new in self.builder.numbers:
            raise self.wrong(f"{new} is allocated again while it is live: a line with its free is missing")
        self.builder.realloc(old, max(1, size))
        if old != new:
            self.builder.numbers[new] = self.builder.numbers.pop(old)
            self.freed[old] = self.line
            self.freed.pop(new, None)
