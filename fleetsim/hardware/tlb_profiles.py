# SPDX-License-Identifier: Apache-2.0
"""TLBs of real processors as data: which caches of translations there are, how large, and what a miss costs.

A profile is a list of parts; each part serves one or more *roles*. A role is `d` (data) or `i` (code) of level 1, `D` or `I` of
level 2, and a page size; or one of the page-walk caches `PDE PDPTE PML4E`; or one of the caches of the host's translations in a
virtual machine (`n4K …`, and `nPDE nPDPTE nPML4E`). Parts that several roles share hold entries of all of them, as in the silicon.
A role may keep a page in smaller pieces (`D1G/2M`: of 1 GiB pages only the 2 MiB piece that was used).

Where figures are from: kernel-laws §11.2, whose rows these are ([D] documents, [M] cpuid, [S] the kernel's performance metrics);
what it tags [U] is not verified, and neither is what it does not give, of which no vendor publishes numbers: estimates of the right
order are the page-walk caches (Intel 32, 4 and 2 entries, AMD more), the nested caches, the cycles of a load by the page walker
(30: between a hit in the second and one in the third cache level), the associativity of second levels but Skylake's, Zen's and
Neoverse's, and the frequency. `generic` is the tutorial's table: no page-walk caches, so that each walk is four loads of 25
cycles, its "100+"; one part for all page sizes, so that 1536 huge pages are 3 GiB or 1.5 TiB.
Leaves out: hashed set indices, pseudo-LRU (all parts are true LRU per set), coalescing of adjacent pages (Zen), next-page prefetch,
the cost of a load by which data cache it hits.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetsim.errors import BadInput

PAGE_SHIFT = {"4K": 12, "2M": 21, "1G": 30}
PAGE_SIZES = tuple(PAGE_SHIFT)
TRANSLATIONS = tuple(f"{level}{size}" for level in "diDI" for size in PAGE_SIZES)
WALK_CACHES = ("PDE", "PDPTE", "PML4E")
NESTED = tuple(f"n{size}" for size in PAGE_SIZES)
NESTED_WALK_CACHES = tuple(f"n{name}" for name in WALK_CACHES)
ROLES = (*TRANSLATIONS, *WALK_CACHES, *NESTED, *NESTED_WALK_CACHES)
REGION_SHIFT = {"PDE": 21, "PDPTE": 30, "PML4E": 39}
"""What one entry of a paging-structure cache stands for: all addresses below that entry of the table."""


@dataclass(frozen=True)
class Part:
    """One cache: `ways` equal to `entries` is fully associative."""

    name: str
    entries: int
    ways: int
    roles: str

    @property
    def sets(self) -> int:
        return self.entries // self.ways


@dataclass(frozen=True)
class Profile:
    name: str
    cpu: str
    parts: tuple[Part, ...]
    l1d_miss: int  # cycles, paid by each access that misses the first level
    l1i_miss: int
    l2_miss: int  # cycles on top, paid before the walk begins
    load: int  # cycles of each load of the page walker
    mhz: int
    shootdown: int = 6000  # cycles of another CPU's interrupt: 2 µs (kernel-laws §11.2: 1 to 5 µs [U])

    def part_of(self, role: str) -> Part | None:
        """The part that serves a role, None if there is none."""
        return next((part for part in self.parts for each in part.roles.split() if each.partition("/")[0] == role), None)

    def shift_of(self, role: str) -> int:
        """log2 of the bytes that one entry of the role stands for."""
        if role.lstrip("n") in REGION_SHIFT:
            return REGION_SHIFT[role.lstrip("n")]
        pieces = next((each.partition("/")[2] for part in self.parts for each in part.roles.split() if each.startswith(f"{role}/")), "")
        return PAGE_SHIFT[pieces or role[1:]]

    def reach_bytes(self, level: str, size: str) -> int:
        """Memory whose translations fit: entries × what one of them stands for (`level`: d, i, D or I)."""
        part = self.part_of(f"{level}{size}")
        return 0 if part is None else part.entries << self.shift_of(f"{level}{size}")


INTEL_WALK = (Part("PDE cache", 32, 4, "PDE"), Part("PDPTE cache", 4, 4, "PDPTE"), Part("PML4E cache", 2, 2, "PML4E"))
AMD_WALK = (Part("PDE cache", 64, 64, "PDE"), Part("PDPTE cache", 16, 16, "PDPTE"), Part("PML4E cache", 4, 4, "PML4E"))
NESTED_PARTS = (
    Part("nested TLB", 32, 4, "n4K n2M n1G"),
    Part("nested PDE cache", 16, 4, "nPDE"),
    Part("nested PDPTE cache", 4, 4, "nPDPTE"),
    Part("nested PML4E cache", 2, 2, "nPML4E"),
)
ALL_DATA, ALL_CODE = "d4K d2M d1G", "i4K i2M i1G"
ALL_L2 = "D4K D2M D1G I4K I2M I1G"


def intel(name: str, cpu: str, l1d: Part, l1i: Part, l2: Part, l2_hit: int, mhz: int) -> Profile:
    """Intel's shape: a first level per page size, no first level for 1 GiB of code, one second level for 4K and 2M, 16 for 1G."""
    parts = (
        l1d,
        Part("L1 DTLB 2M", 32, 4, "d2M"),
        Part("L1 DTLB 1G", 4, 4, "d1G"),
        l1i,
        Part("L1 ITLB 2M", 8, 8, "i2M i1G/2M"),
        l2,
        Part("L2 STLB 1G", 16, 4, "D1G I1G"),
        *INTEL_WALK,
        *NESTED_PARTS,
    )
    return Profile(name, cpu, parts, l2_hit, l2_hit, 0, 30, mhz)


def zen(name: str, cpu: str, l1d: int, l2: Part, l2i: Part, gigabyte: tuple[Part, ...], mhz: int) -> Profile:
    """AMD's shape: a fully associative first level for all page sizes, a second level each for data and code."""
    parts = (Part("L1 DTLB", l1d, l1d, ALL_DATA), Part("L1 ITLB", 64, 64, ALL_CODE), l2, l2i, *gigabyte, *AMD_WALK, *NESTED_PARTS)
    return Profile(name, cpu, parts, 7, 7, 0, 30, mhz)


STLB_ROLES = "D4K D2M I4K I2M"
PROFILES: tuple[Profile, ...] = (
    Profile(
        "generic",
        "the tutorial's table: 64 / 128 / 1536 entries, 7 / 7 / 12 / 100+ cycles",
        (Part("L1 DTLB", 64, 4, ALL_DATA), Part("L1 ITLB", 128, 8, ALL_CODE), Part("L2 STLB", 1536, 12, ALL_L2)),
        l1d_miss=7,
        l1i_miss=7,
        l2_miss=12,
        load=25,
        mhz=3000,
    ),
    intel(
        "skylake",
        "Intel Skylake, Cascade Lake",
        Part("L1 DTLB 4K", 64, 4, "d4K"),
        Part("L1 ITLB 4K", 128, 8, "i4K"),
        Part("L2 STLB", 1536, 12, STLB_ROLES),
        9,
        3000,
    ),
    intel(
        "broadwell",
        "Intel Broadwell",
        Part("L1 DTLB 4K", 64, 4, "d4K"),
        Part("L1 ITLB 4K", 128, 8, "i4K"),
        Part("L2 STLB", 1536, 6, STLB_ROLES),
        8,
        2600,
    ),
    intel(
        "icelake",
        "Intel Ice Lake SP",
        Part("L1 DTLB 4K", 64, 4, "d4K"),
        Part("L1 ITLB 4K", 128, 8, "i4K"),
        Part("L2 STLB", 2048, 16, STLB_ROLES),
        7,
        2900,
    ),
    intel(
        "sapphire-rapids",
        "Intel Sapphire Rapids",
        Part("L1 DTLB 4K", 96, 6, "d4K"),
        Part("L1 ITLB 4K", 256, 8, "i4K"),
        Part("L2 STLB", 2048, 16, STLB_ROLES),
        7,
        2900,
    ),
    zen(
        "zen2",
        "AMD Zen 2",
        64,
        Part("L2 DTLB", 2048, 8, "D4K D2M D1G/2M"),
        Part("L2 ITLB", 512, 8, "I4K I2M I1G/2M"),
        (),
        2900,
    ),
    zen(
        "zen3",
        "AMD Zen 3",
        64,
        Part("L2 DTLB", 2048, 8, "D4K D2M"),
        Part("L2 ITLB", 512, 4, "I4K I2M I1G/2M"),
        (Part("L2 DTLB 1G", 64, 64, "D1G"),),
        2900,
    ),
    zen(
        "zen4",
        "AMD Zen 4",
        72,
        Part("L2 DTLB", 3072, 12, "D4K D2M"),
        Part("L2 ITLB", 512, 4, "I4K I2M I1G/2M"),
        (Part("L2 DTLB 1G", 64, 64, "D1G"),),
        3100,
    ),
    Profile(
        "neoverse-n1",
        "Arm Neoverse N1 (4 KiB granule)",
        (
            Part("L1 data TLB", 48, 48, ALL_DATA),
            Part("L1 instruction TLB", 48, 48, ALL_CODE),
            Part("L2 TLB", 1280, 5, ALL_L2),
            *AMD_WALK,
            *NESTED_PARTS,
        ),
        l1d_miss=6,
        l1i_miss=6,
        l2_miss=0,
        load=30,
        mhz=2600,
    ),
)

for _profile in PROFILES:
    for _part in _profile.parts:
        assert _part.entries % _part.ways == 0 and _part.sets & (_part.sets - 1) == 0, (_profile.name, _part)
        assert all(role.partition("/")[0] in ROLES for role in _part.roles.split()), (_profile.name, _part)
    assert all(_profile.part_of(role) for role in TRANSLATIONS), _profile.name


def find(name: str) -> Profile:
    """The profile of that name."""
    for profile in PROFILES:
        if profile.name == name:
            return profile
    raise BadInput(f"unknown TLB profile {name!r}; known are: {', '.join(profile.name for profile in PROFILES)}")
