# SPDX-License-Identifier: Apache-2.0
"""Reading traces of addresses: what Valgrind's lackey prints, or plain numbers.

    I  04001100,3      an instruction fetch            (valgrind --tool=lackey --trace-mem=yes)
     L 1ffefff7e0,8    a load          S: a store      M: an instruction that loads and stores (one look-up)
    7f2a10c04000       a load, hexadecimal, with or without 0x, one per line
    switch 2           the CPU goes on with task 2     flush: its whole address space is forgotten
    invlpg 7f2a10c04   one page is

Empty lines, `# comments` and what Valgrind says of itself (`==123== …`) are passed over. An access that lies across the border of
two pages is two look-ups. Text comes in pieces of any length and is never held as a whole.
Leaves out: sizes above 4096 bytes. (Whoever reads the file unpacks it.)
Source: Valgrind manual, chapter "Lackey"; lackey/lk_main.c for the format of a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from fleetsim.errors import BadInput
from fleetsim.hardware.tlb_types import FETCH, FLUSH, INVLPG, LOAD, MODIFY, STORE, STRADDLE, SWITCH
from fleetsim.law import law

NEWLINE, SPACE, TAB, RETURN, COMMA, HASH, EQUALS, MINUS, ZERO, X = 10, 32, 9, 13, 44, 35, 61, 45, 48, 120
SIZE_MAX = 4096
TASKS_MAX = 1 << 20

# what can be wrong with a line
GOOD, UNKNOWN, TRUNCATED, NOT_CANONICAL, TOO_LONG, BAD_SIZE, BAD_TASK = range(7)
WORDS = np.frombuffer(b"switchinvlpgflush ", np.uint8).astype(np.int64)
WORD_LENGTHS = np.array([6, 6, 5], np.int64)
LETTERS = np.array([ord(letter) for letter in "LSMI"], np.int64)
SHOWN = 60


@law
def digit_of(byte):
    """Value of a hexadecimal digit, −1 if it is none.

    Source: fleetsim's own.
    """
    byte = int(byte)
    if 48 <= byte <= 57:
        return byte - 48
    if 97 <= byte <= 102:
        return byte - 87
    if 65 <= byte <= 70:
        return byte - 55
    return -1


@law
def read_hex(text, at, end):
    """A hexadecimal number, maybe with 0x.

    returns  (int64 the 64 bits as a signed number, int64 where it ends, int64 how many digits)

    Source: fleetsim's own.
    """
    if at + 1 < end and text[at] == ZERO and text[at + 1] == X:
        at += 2
    high = low = digits = 0
    while at < end and digit_of(text[at]) >= 0:
        high = (high << 4 | low >> 28) & 0xFFFFFFFF
        low = (low << 4 | digit_of(text[at])) & 0xFFFFFFFF
        if digits > 0 or text[at] != ZERO:
            digits += 1
        else:
            digits = 0
        at += 1
    if high >= 1 << 31:
        high -= 1 << 32
    return high << 32 | low, at, digits


@law
def read_decimal(text, at, end):
    """A decimal number.

    returns  (int64 number, −1 if there is none or it is above 2^40; int64 where it ends)

    Source: fleetsim's own.
    """
    number, start = 0, at
    while at < end and 48 <= text[at] <= 57 and number < 1 << 40:
        number = number * 10 + digit_of(text[at])
        at += 1
    return (number if at > start and number < 1 << 40 else -1), at


@law
def word_at(text, at, end):
    """Which of the words `switch`, `invlpg`, `flush` begins here: 0 to 2, −1 none.

    Source: fleetsim's own.
    """
    first = 0
    for word in range(len(WORD_LENGTHS)):
        length = WORD_LENGTHS[word]
        same = at + length <= end
        for i in range(length):
            same = same and text[at + i] == WORDS[first + i]
        if same:
            return word
        first += length
    return -1


@law
def skip_spaces(text, at, end):
    """Position of the next byte that is no space.

    Source: fleetsim's own.
    """
    while at < end and (text[at] == SPACE or text[at] == TAB or text[at] == RETURN):
        at += 1
    return at


@law
def canonical(address, bits):
    """True if all bits above the lower half of the address space are copies of its highest one.

    bits  int64  48 with 4 levels of page tables, 57 with 5

    Source: Intel SDM volume 1 §3.3.7.1; kernel-laws §11.1.
    """
    return address >> bits - 1 == 0 or address >> bits - 1 == -1


@law
def parse_line(text, at, end, bits):
    """One line.

    returns  (int64 GOOD or what is wrong, int64 kind or −1 for a line without an access, int64 value, int64 size in bytes)

    Source: see the module.
    """
    start = at
    at = skip_spaces(text, at, end)
    if at == end or text[at] == HASH or (at + 1 < end and text[at] == text[at + 1] and (text[at] == EQUALS or text[at] == MINUS)):
        return GOOD, -1, 0, 0
    word = word_at(text, at, end)
    kind, letter = LOAD, False
    if word >= 0:
        kind = SWITCH if word == 0 else INVLPG if word == 1 else FLUSH
        at = skip_spaces(text, at + WORD_LENGTHS[word], end)
    else:
        for i in range(4):
            if text[at] == LETTERS[i] and (at + 1 == end or text[at + 1] == SPACE or text[at + 1] == TAB):
                kind = STORE if i == 1 else MODIFY if i == 2 else FETCH if i == 3 else LOAD
                letter = True
        if letter:
            at = skip_spaces(text, at + 1, end)
    value, size = 0, 1
    if kind == SWITCH:
        value, at = read_decimal(text, at, end)
        if value < 0 or value >= TASKS_MAX:
            return BAD_TASK, -1, 0, 0
    elif kind != FLUSH:
        begin = at
        value, at, digits = read_hex(text, at, end)
        if at == begin or (at == begin + 2 and text[begin + 1] == X):
            return (TRUNCATED if at == end and (letter or word >= 0 or begin > start or at > begin) else UNKNOWN), -1, 0, 0
        if digits > 16:
            return TOO_LONG, -1, 0, 0
    if letter:
        if at == end or text[at] != COMMA:
            return (TRUNCATED if skip_spaces(text, at, end) == end else UNKNOWN), -1, 0, 0
        if at + 1 == end:
            return TRUNCATED, -1, 0, 0
        size, at = read_decimal(text, at + 1, end)
        if size < 1 or size > SIZE_MAX:
            return BAD_SIZE, -1, 0, 0
    if skip_spaces(text, at, end) != end:
        return UNKNOWN, -1, 0, 0
    if kind != SWITCH and not (canonical(value, bits) and canonical(value + size - 1, bits)):
        return NOT_CANONICAL, -1, 0, 0
    return GOOD, kind, value, size


@law
def parse(text, bits, final, addresses, kinds):
    """All whole lines of a piece of a trace.

    bits       int64     48 or 57
    final      int64     1: the last line needs no end
    addresses  int64[:]  room for two more than the bytes of the text
    kinds      int8[:]   the same
    returns    (int64 written, int64 bytes read, int64 lines read, int64 GOOD or what is wrong with the next line)

    Source: see the module.
    """
    n = at = lines = 0
    while at < len(text):
        end = at
        while end < len(text) and text[end] != NEWLINE:
            end += 1
        if end == len(text) and not final:
            break
        wrong, kind, value, size = parse_line(text, at, end, bits)
        if wrong != GOOD:
            return n, at, lines, wrong
        if kind >= 0:
            addresses[n] = value
            kinds[n] = kind
            n += 1
            if (value & 4095) + size > 4096:
                addresses[n] = value + size - 1
                kinds[n] = kind + STRADDLE
                n += 1
        lines += 1
        at = end + 1
    return n, min(at, len(text)), lines, GOOD


def sentence(wrong: int, line: str, bits: int) -> str:
    """What is wrong with a line, and what would be right."""
    shown = repr(line if len(line) <= SHOWN else line[:SHOWN] + "…")
    half = 1 << (bits - 1)
    return {
        UNKNOWN: f"{shown} is no access; a line is ' L ADDRESS,SIZE' as lackey prints it (I, L, S, M), or one hexadecimal address",
        TRUNCATED: f"{shown} ends too early; a line of lackey is ' L ADDRESS,SIZE', such as ' L 04222c4,8': is the file cut off?",
        NOT_CANONICAL: f"{shown} is not a canonical address of {bits} bits: it must be below 0x{half:x} or at least 0x{(1 << 64) - half:x}",
        TOO_LONG: f"{shown} has more than 16 hexadecimal digits; an address has 64 bits",
        BAD_SIZE: f"{shown} has no size of 1 to {SIZE_MAX} bytes behind its comma",
        BAD_TASK: f"{shown} names no task; write 'switch' and a number from 0 to {TASKS_MAX - 1}",
    }[wrong]


def read_trace(chunks: Iterable[bytes], name: str, *, levels: int = 4) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The trace in some text, piece by piece. `name` is what messages call the file."""
    bits = 48 if levels == 4 else 57
    rest, line, accesses = b"", 1, 0
    source = iter(chunks)
    final = False
    while not final:
        chunk = next(source, b"")
        final = not chunk
        text = np.frombuffer(rest + chunk, np.uint8)
        addresses, kinds = np.empty(len(text) + 2, np.int64), np.empty(len(text) + 2, np.int8)
        n, used, lines, wrong = parse(text, bits, 1 if final else 0, addresses, kinds)
        line += lines
        accesses += int(np.count_nonzero((kinds[:n] & 7) <= FETCH))
        if wrong != GOOD:
            bad = text[used:].tobytes().split(b"\n", 1)[0].decode("ascii", "backslashreplace")
            raise BadInput(sentence(wrong, bad.rstrip("\r"), bits), file=name, line=line)
        if final and len(text) and text[-1] != NEWLINE:
            last = text.tobytes().rpartition(b"\n")[2].decode("ascii", "backslashreplace")
            cut = f"the last line {last[:SHOWN]!r} has no end of line: the file was cut off there"
            raise BadInput(cut, file=name, line=max(1, line - 1))
        rest = text[used:].tobytes()
        if len(rest) > 1 << 16:
            raise BadInput("a line of more than 65536 bytes is no trace of addresses", file=name, line=line)
        if n:
            yield addresses[:n], kinds[:n]
    if accesses == 0:
        raise BadInput("there is no access in it; a line is ' L ADDRESS,SIZE' as lackey prints it, or one hexadecimal address", file=name)
