# SPDX-License-Identifier: Apache-2.0
"""A page walk for people: an address by name, the walk level by level in words, and the same as plain data.

Leaves out: colours (the command line adds none either).
"""

from __future__ import annotations

import re
from textwrap import wrap
from typing import Any

from fleetsim.errors import BadInput
from fleetsim.hardware import mmu
from fleetsim.linux.mm_types import ZONE_NAMES
from fleetsim.units import show_bytes, size_bytes
from fleetsim.userland.address_space import PAGE, Vma
from fleetsim.userland.frames import Frames
from fleetsim.userland.page_fault import VSYSCALL, Outcome, is_vsyscall
from fleetsim.userland.page_table import KIND_WORDS, PageTables, Walk

WIDE = 125  # columns of a walk whose meanings stand beside its entries
ADDRESS = re.compile(r"0[xX][0-9a-fA-F_]+|[0-9][0-9_]*")
NAMED = re.compile(r"(?P<name>[\[A-Za-z][\w./\]-]*?)(?:\+(?P<offset>\w+))?")


def parse_address(word: str, vmas: list[Vma]) -> int:
    """A number, or the name of an area with an offset: `0x7f0000001000`, `heap`, `heap+0x1000`, `stack`, `A+3MiB`.

    `stack` is its last page, where it is in use; any other name is the first page of the area. Where a program has an area of its own
    called heap, `[heap]` is the one behind brk().
    """
    if ADDRESS.fullmatch(word):
        value = int(word.replace("_", ""), 0) if word[:2].lower() == "0x" else int(word.replace("_", ""))
        if value >= 1 << 64:
            raise BadInput(f"the address {word} has more than 64 bits")
        return value
    match = NAMED.fullmatch(word)
    if match and match["name"] in ("vsyscall", "[vsyscall]"):
        return VSYSCALL + (_offset(match["offset"], word) if match["offset"] else 0)
    names = {vma.path: vma for vma in vmas if vma.path.startswith("[")}
    for own in (False, True):  # what the program mapped itself comes last, and wins
        names |= {vma.name.replace(" ", "-"): vma for vma in vmas if (vma.area >= 0 and vma.path != "[heap]") == own}
    if match is None or match["name"] not in names:
        known = ", ".join(dict.fromkeys(vma.name.replace(" ", "-") for vma in vmas))
        raise BadInput(f"{word!r} is neither an address, such as 0x7f0000001000, nor an area of the process, such as heap+0x1000: {known}")
    vma = names[match["name"]]
    start = vma.end - PAGE if vma.name == "stack" else vma.start
    return start + (_offset(match["offset"], word) if match["offset"] else 0)


def _offset(text: str, word: str) -> int:
    if ADDRESS.fullmatch(text):
        return int(text.replace("_", ""), 16 if text[:2].lower() == "0x" else 10)
    try:
        return size_bytes(text)
    except ValueError as error:
        raise BadInput(f"the offset of {word!r} is not a number of bytes: {error}") from None


def _wrapped(text: str, width: int, first: int = 0, rest: int = 9) -> list[str]:
    """Lines that fit, indented as the words of `render` are; a wide page keeps sentences whole."""
    if width >= WIDE:
        return [" " * first + text]
    return wrap(text, max(width, 40), initial_indent=" " * first, subsequent_indent=" " * rest, break_on_hyphens=False)


def place_of(frame: int, frames: Frames) -> str:
    """Zone and node of a frame."""
    for zone in frames.zones:
        if zone.start <= frame < zone.start + zone.managed:
            row = frames.row["zones"][zone.z]
            return f"zone {ZONE_NAMES[int(row['kind'])]} of node {int(row['node'])}"
    return "no zone"


def meaning(tables: PageTables, walk: Walk, number: int) -> str:
    """What one entry of a walk says."""
    step = walk.steps[number]
    level, entry = step.level, step.entry
    last, covers = number == len(walk.steps) - 1, show_bytes(1 << mmu.shift_of(level, walk.levels))
    if not last:
        below = walk.steps[number + 1].level
        return f"table of {mmu.LEVEL_NAMES[below]}s in frame {mmu.frame_of(entry):#x}, for these {covers} of addresses"
    if entry & mmu.PRESENT:
        size = show_bytes(mmu.LEAF_SIZES[level])
        return f"{KIND_WORDS[walk.kind]} of {size} in frame {mmu.frame_of(entry):#x}, {place_of(mmu.frame_of(entry), tables.frames)}"
    if entry:
        area, slot = mmu.swap_entry(entry)
        return f"not present: {KIND_WORDS[walk.kind]}, slot {slot} of swap area {area}"
    return f"empty: nothing in these {covers}"


def render(tables: PageTables, walk: Walk, outcome: Outcome, access: str, who: str, width: int = WIDE) -> str:
    """The walk as a page of text; below `WIDE` columns the meaning of an entry has a line of its own."""
    lines = [f"{who}: {access} at {walk.address:#018x}", _area_line(walk), ""]
    if not mmu.is_canonical(walk.address, walk.levels):
        top = mmu.address_bits(walk.levels) - 1
        lines += [f"not canonical: bits 63 to {top} must all be alike with {walk.levels} levels of page tables", ""]
    else:
        parts = [f"{mmu.LEVEL_NAMES[step.level]} {step.index}" for step in walk.steps]
        lines += [f"indices  {' · '.join(parts)} · offset {walk.address & (PAGE - 1):#x}", ""]
        lines += [f"{'level':6}{'index':>6}  {'entry at':18}{'entry':20}{'bits':15}{'meaning' if width >= WIDE else ''}".rstrip()]
        for number, step in enumerate(walk.steps):
            at = (step.table_frame << 12) + step.index * mmu.ENTRY_BYTES
            bits = mmu.letters(step.entry) if step.entry & mmu.PRESENT or not step.entry else "not present"
            head = f"{mmu.LEVEL_NAMES[step.level]:6}{step.index:>6}  {at:#014x}"
            row, words = f"{head}    {step.entry:#018x}  {bits:15}", meaning(tables, walk, number)
            lines += [row + words] if width >= WIDE else [row.rstrip(), *_wrapped(words, width, 9, 9)]
        lines.append("")
    if walk.physical is not None:
        lines += _wrapped(f"physical {walk.physical:#x}: {_rights(walk)}", width)
    for line in _outcome_lines(outcome, access):
        lines += _wrapped(line, width)
    return "\n".join(lines) + "\n"


def _area_line(walk: Walk) -> str:
    vma = walk.vma
    if vma is None and is_vsyscall(walk.address):
        return f"area     {VSYSCALL:x}-{VSYSCALL + PAGE:x} --xp {show_bytes(PAGE)} [vsyscall] (the kernel's, in its own half)"
    if vma is None:
        return "area     none"
    name = f" {vma.path}" if vma.path else ""
    return f"area     {vma.start:x}-{vma.end:x} {vma.prot} {show_bytes(vma.end - vma.start)}{name} ({vma.name})"


def _rights(walk: Walk) -> str:
    writable, user, executable = mmu.permissions(walk.entries)
    flags = walk.entries[-1]
    words = ["user" if user else "kernel only", "writable" if writable else "read-only", "executable" if executable else "no execute"]
    words += ["accessed" if flags & mmu.ACCESSED else "not accessed lately", "dirty" if flags & mmu.DIRTY else "clean"]
    return ", ".join(words)


def _outcome_lines(outcome: Outcome, access: str) -> list[str]:
    if outcome.fault is None:
        return [f"{access:9}goes ahead. {outcome.kernel}"]
    fault = outcome.fault
    code = f" error code {fault.error_code:#x} ({fault.code_text})" if fault.exception == "#PF" else ""
    counted = f" ({outcome.kind} fault)" if outcome.kind in ("minor", "major") else ""
    return [f"fault    {fault.exception}{code}: {fault.reason}", f"kernel   {outcome.name}{counted}: {outcome.kernel}"]


def as_json(tables: PageTables, walk: Walk, outcome: Outcome, access: str) -> dict[str, Any]:
    """The same as plain data; addresses and entries as hexadecimal text, because a JSON number cannot hold 64 bits."""
    vma, fault = walk.vma, outcome.fault
    return {
        "address": f"{walk.address:#x}",
        "levels": walk.levels,
        "access": access,
        "area": None
        if vma is None
        else {"name": vma.name, "start": f"{vma.start:#x}", "end": f"{vma.end:#x}", "prot": vma.prot, "path": vma.path},
        "walk": [
            {
                "level": mmu.LEVEL_NAMES[step.level],
                "index": step.index,
                "table_frame": step.table_frame,
                "entry": f"{step.entry:#018x}",
                "bits": mmu.words(step.entry) if step.entry & mmu.PRESENT else [],
                "meaning": meaning(tables, walk, number),
            }
            for number, step in enumerate(walk.steps)
        ],
        "kind": KIND_WORDS[walk.kind],
        "page_bytes": None if walk.leaf is None else mmu.LEAF_SIZES[walk.leaf],
        "physical": None if walk.physical is None else f"{walk.physical:#x}",
        "fault": None if fault is None else {"exception": fault.exception, "error_code": fault.error_code, "reason": fault.reason},
        "outcome": {"name": outcome.name, "kind": outcome.kind, "kernel": outcome.kernel},
        "page_table_bytes": tables.bytes,
    }
