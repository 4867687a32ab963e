# SPDX-License-Identifier: Apache-2.0
"""The exact allocators by name, made with the settings a process would be given in its environment."""

from __future__ import annotations

from collections.abc import Callable

from fleetsim.allocators.trace import ExactAllocator
from fleetsim.errors import BadInput

CPUS_MAX = 127  # eight arenas each fit glibc's table


def _glibc(settings: str, cpus: int) -> ExactAllocator:
    from fleetsim.allocators.glibc_exact import GlibcExact
    from fleetsim.allocators.glibc_tunables import parse_tunables

    return GlibcExact(parse_tunables(settings), cpus)


def _jemalloc(settings: str, cpus: int) -> ExactAllocator:
    from fleetsim.allocators.jemalloc_exact import JemallocExact, parse_malloc_conf

    return JemallocExact(parse_malloc_conf(settings), cpus)


def _tcmalloc(settings: str, cpus: int) -> ExactAllocator:
    from fleetsim.allocators.tcmalloc_exact import TcmallocExact, parse_tcmalloc

    return TcmallocExact(parse_tcmalloc(settings))


def _google_tcmalloc(settings: str, cpus: int) -> ExactAllocator:
    from fleetsim.allocators.google_tcmalloc_exact import GoogleTcmallocExact, parse_google_tcmalloc

    return GoogleTcmallocExact(parse_google_tcmalloc(settings), cpus)


EXACT: dict[str, Callable[[str, int], ExactAllocator]] = {
    "glibc": _glibc,
    "jemalloc": _jemalloc,
    "tcmalloc": _tcmalloc,
    "google-tcmalloc": _google_tcmalloc,
}
"""name → (settings as text, CPUs) → the simulator. The text is what GLIBC_TUNABLES would hold, of jemalloc MALLOC_CONF, of tcmalloc
variables of the environment, TCMALLOC_NAME=VALUE, with colons between, of Google's tcmalloc name=value of MallocExtension."""


def exact_allocator(name: str, settings: str = "", cpus: int = 2) -> ExactAllocator:
    if name not in EXACT:
        raise BadInput(f"unknown allocator {name!r}: there is {', '.join(EXACT)}")
    if not 1 <= cpus <= CPUS_MAX:
        raise BadInput(f"{cpus} CPUs: it must be 1 to {CPUS_MAX}")
    return EXACT[name](settings, cpus)
