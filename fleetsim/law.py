# SPDX-License-Identifier: Apache-2.0
"""The one place that says how laws are compiled, cached and checked.

A *law* is one short compiled function over integers and NumPy records. Everything in `linux/`, `hardware/` and the
hot part of `host/` is a law; nothing else uses Numba.

Rules kept here, each with its reason:

- **A cache must never go stale.** Numba's own cache notices neither an edit in another file nor a changed option
  (measured), so the cache folder is named by a hash of every compiled source file, the versions of Numba and
  NumPy, the interpreter, the mode and the size class.
- **Two modes.** `fast` (default) and `checked` (`FLEETSIM_CHECKED=1`: bounds checks; out-of-range reads otherwise
  return garbage silently). `NUMBA_DISABLE_JIT=1` runs everything as plain Python, for debugging and naive twins.
- **No libm in a law.** glibc's `exp` differs in the last bit between FMA and non-FMA machines (measured); a history
  must not. `exp_q` below is made of + and × on integers only. No fastmath, no parallel reductions.
- `error_model="python"`: a division by zero is a bug and raises, instead of becoming `inf`.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy

from fleetsim.errors import BadInput
from fleetsim.law_compiler import compile_law

PACKAGE = Path(__file__).parent
COMPILED_FOLDERS = ("hardware", "linux", "allocators", "workloads", "host", "observe")

F = TypeVar("F", bound=Callable[..., Any])


def mode() -> str:
    """`fast`, `checked` (bounds checks) or `python` (no compilation at all)."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "python"
    return "checked" if os.environ.get("FLEETSIM_CHECKED", "0") not in ("", "0") else "fast"


SIZE_CLASSES = ("small", "standard", "large")
"""Sizes of a host's record (linux/capacity_classes.py says how many rows each has)."""

SIZE_CLASS_VARIABLE = "FLEETSIM_SIZE_CLASS"


def size_class() -> str:
    """The size class that this process works with.

    Laws use capacities as constants, so it cannot change after the import; whoever needs another starts a new process.
    """
    return size_class_asked_for() or "standard"


def size_class_asked_for() -> str | None:
    """The size class that the environment names, if it does; BadInput if there is none of that name."""
    name = os.environ.get(SIZE_CLASS_VARIABLE) or None
    if name is not None and name not in SIZE_CLASSES:
        raise BadInput(f"{SIZE_CLASS_VARIABLE} is {name!r}; size classes of simulated hosts are {', '.join(SIZE_CLASSES)}")
    return name


def source_hash() -> str:
    """SHA-256 (16 hex digits) over everything a compiled law can depend on."""
    digest = hashlib.sha256()
    digest.update(f"{numba.__version__} {numpy.__version__} {sys.version}".encode())
    files = [PACKAGE / "law.py", PACKAGE / "law_compiler.py"]
    for folder in COMPILED_FOLDERS:
        files += sorted((PACKAGE / folder).glob("*.py"))
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def cache_root() -> Path:
    """Where compiled laws are kept: `$FLEETSIM_CACHE_DIR`, else `$XDG_CACHE_HOME/fleetsim`, else `~/.cache/fleetsim`."""
    chosen = os.environ.get("FLEETSIM_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fleetsim"


def _choose_cache_dir() -> Path:
    kind = mode() if size_class() == "standard" else f"{mode()}-{size_class()}"
    folder = cache_root() / f"{source_hash()}-{kind}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home: compile every time rather than fail
        folder = Path(tempfile.mkdtemp(prefix="fleetsim-laws-"))
    return folder


CACHE_DIR = _choose_cache_dir()
numba.config.CACHE_DIR = str(CACHE_DIR)

_OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,  # shards step in threads
    "error_model": "python",
    "boundscheck": mode() == "checked",
    "no_cfunc_wrapper": True,  # nobody calls a law from C: a tenth of the compile time
}


def _widened(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Argument types with every integer as int64; Booleans, records and arrays stay what they are."""
    return tuple(numba.types.int64 if isinstance(a, (numba.types.Integer, numba.types.IntegerLiteral)) else a for a in arguments)


def law(function: F) -> F:
    """Compile `function` as a law (see the module's rules).

    Tables keep small numbers in narrow fields, and Numba would compile a law anew for every mixture of int8, int16 and
    int32 it is called with from other laws: twice the compile time, measured. So callers are offered one signature.
    """
    if mode() == "python":
        return numba.njit(**_OPTIONS)(function)
    compiled: F = compile_law(function, _OPTIONS, _widened)
    return compiled


def plain(compiled: F) -> F:
    """The Python function that a law was made of: for whoever needs a number before anything is compiled."""
    function: F = getattr(compiled, "py_func", compiled)
    return function


def inlined(function: F) -> F:
    """A law of a line or two that is copied into its callers at the Numba level. Use sparingly: it multiplies compile time."""
    compiled: F = numba.njit(inline="always", **_OPTIONS)(function)
    return compiled


def is_cold(last: str = "step.run_host") -> bool:
    """True if the laws were not all compiled yet for this source and mode, so that the next run spends up to 90 s compiling.

    last  the law that calls all others and is compiled after them: what an interrupted run has left in the cache is not enough
    """
    return mode() != "python" and next(CACHE_DIR.rglob(f"{last}-*.nbi"), None) is None


Q = 20
ONE_Q = 1 << Q


@law
def exp_neg_q(x_q: int) -> int:
    """e^(−x) in 20-bit fixed point, made of integer + and × only.

        halve x until x ≤ 1/16, take 1 − x + x²/2 − x³/6, square back up

    x_q      int64  x · 2^20, x ≥ 0
    returns  int64  e^(−x) · 2^20, 0..2^20; relative error < 2^-13 where the result is above 2^-10

    Source: Taylor series; own arithmetic. Leaves out: nothing below the stated error.
    """
    if x_q <= 0:
        return ONE_Q
    if x_q > 20 * ONE_Q:
        return 0
    x30 = x_q << 10  # 30-bit fixed point inside
    halvings = 0
    while x30 > 1 << 26:
        x30 >>= 1
        halvings += 1
    one = 1 << 30
    x2 = x30 * x30 >> 30
    x3 = x2 * x30 >> 30
    y = one - x30 + x2 // 2 - x3 // 6
    for _ in range(halvings):
        y = y * y >> 30
    return y >> 10
