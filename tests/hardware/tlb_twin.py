# SPDX-License-Identifier: Apache-2.0
"""A naive twin of the TLB simulator in plain Python, written for obviousness: sets are lists, the least recently used first.

It is told what a profile says and nothing of how the simulator keeps it.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from fleetsim.hardware.tlb_profiles import PAGE_SHIFT, PAGE_SIZES, Part
from fleetsim.hardware.tlb_run import Machine
from fleetsim.hardware.tlb_types import FETCH, FLUSH, INVLPG, STRADDLE, SWITCH


class Twin:
    def __init__(self, machine: Machine) -> None:
        self.machine, self.profile = machine, machine.profile
        self.sets: dict[tuple[str, int], list[tuple[int, int, int]]] = defaultdict(list)
        self.counts: Counter[str] = Counter()
        self.tags: list[int | None] = [0] + [None] * 5  # whose each tag is
        self.next_tag = 1
        self.task = self.tag = 0
        self.before: dict[str, int | None] = {"d": None, "i": None}  # address of the access before, by stream

    def look_up(self, role: str, address: int, tag: int) -> bool:
        part = self.profile.part_of(role)
        if part is None:
            return False
        shift = self.profile.shift_of(role)
        number = (address % (1 << 57)) >> shift
        entries = self.sets[part.name, number % part.sets]
        entry = (number, shift, tag)
        hit = entry in entries
        if hit:
            entries.remove(entry)
        entries.append(entry)
        if len(entries) > part.ways:
            entries.pop(0)
        return hit

    def page(self, address: int) -> str:
        share = self.machine.huge_permille
        return "2M" if (address >> 21) % 1000 * 619 % 1000 < share else self.machine.page

    def host_loads(self, physical: int) -> int:
        if self.look_up(f"n{self.machine.host_page}", physical, 0):
            return 0
        tables = {"4K": ["PDE", "PDPTE", "PML4E"], "2M": ["PDPTE", "PML4E"], "1G": ["PML4E"]}[self.machine.host_page]
        for loads, name in enumerate(tables, 1):
            if self.look_up(f"n{name}", physical, 0):
                return loads
        return len(tables) + 1

    def walk(self, address: int, page: str) -> int:
        tables = {"4K": ["PDE", "PDPTE", "PML4E"], "2M": ["PDPTE", "PML4E"], "1G": ["PML4E"]}[page]
        loads = len(tables) + 1 + self.machine.levels - 4
        for so_far, name in enumerate(tables, 1):
            if self.look_up(name, address, self.tag):
                loads = so_far
                self.counts[name] += 1
                break
        if self.machine.vm:
            owner = self.task % 256 << 50
            below = address % (1 << 47)
            leaf = PAGE_SIZES.index(page)
            needed = [below | owner]
            needed += [(below >> 21 + 9 * level) << 12 | 1 << 47 | level % 4 << 48 | owner for level in range(leaf, leaf + loads)]
            loads += sum(self.host_loads(physical) for physical in needed)
        return loads

    def access(self, address: int, stream: str, straddle: bool) -> None:
        page = self.page(address)
        before, self.before[stream] = self.before[stream], address
        if straddle and before is not None and before >> PAGE_SHIFT[page] == address >> PAGE_SHIFT[page]:
            return
        size = min(page, self.machine.host_page, key=PAGE_SIZES.index) if self.machine.vm else page
        self.counts[stream] += 1
        if self.look_up(f"{stream}{size}", address, self.tag):
            self.counts[f"{stream} L1"] += 1
        elif self.look_up(f"{stream.upper()}{size}", address, self.tag):
            self.counts[f"{stream} L2"] += 1
        else:
            self.counts[f"{stream} walks"] += 1
            self.counts[f"{stream} loads"] += self.walk(address, page)

    def forget(self, parts: set[str], keep: object) -> None:
        for (name, _), entries in self.sets.items():
            if name in parts:
                entries[:] = [entry for entry in entries if keep(entry)]  # type: ignore[operator]

    def parts(self, roles: str) -> set[str]:
        def serves(part: Part) -> bool:
            return any(role[0] in roles or (role[0] == "P" and "P" in roles) for role in part.roles.split())

        return {part.name for part in self.profile.parts if serves(part)}

    def flush(self) -> None:
        self.forget(self.parts("diDIP"), lambda entry: entry[2] != self.tag)

    def event(self, kind: int, value: int) -> None:
        self.before = {"d": None, "i": None}
        if kind == FLUSH:
            self.flush()
        elif kind == INVLPG:
            page = self.page(value)
            size = min(page, self.machine.host_page, key=PAGE_SIZES.index) if self.machine.vm else page
            low = value >> PAGE_SHIFT[size] << PAGE_SHIFT[size]
            reach = range(low % (1 << 57), low % (1 << 57) + (1 << PAGE_SHIFT[size]))
            shifts = {self.profile.shift_of(f"{level}{size}") for level in "diDI"}
            self.forget(
                self.parts("diDI"), lambda entry: not (entry[2] == self.tag and entry[1] in shifts and entry[0] << entry[1] in reach)
            )
            self.forget(self.parts("P"), lambda entry: entry[2] != self.tag)
        elif kind == SWITCH and value != self.task:
            self.task = value
            if not self.machine.pcid:
                self.flush()
            elif value in self.tags:
                self.tag = self.tags.index(value)
            else:
                self.next_tag %= 6
                self.tag, self.next_tag = self.next_tag, self.next_tag + 1
                if self.tags[self.tag] is not None:
                    self.flush()
                self.tags[self.tag] = value

    def run(self, trace: list[tuple[int, int]]) -> None:
        for kind, value in trace:
            if FETCH < kind < STRADDLE:
                self.event(kind, value)
            else:
                self.access(value, "i" if kind & 7 == FETCH else "d", kind >= STRADDLE)
