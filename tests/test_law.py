# SPDX-License-Identifier: Apache-2.0
"""Laws are compiled once, cached truthfully, and compute the same whoever calls them (law.py, law_compiler.py)."""

from __future__ import annotations

import operator
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import types

from fleetsim import law as law_module
from fleetsim import law_compiler
from fleetsim.host.step import run_host
from fleetsim.law import law

PROJECT = Path(__file__).parents[1]


@law
def leaf(x):
    if x >= 1000:
        raise ValueError("a leaf takes less than a thousand")
    return 3 * x + 1


@law
def branch(x):
    return leaf(x) + leaf(x + 1) // 2


@law
def root(row, x):
    row[0] += branch(x)
    return branch(x) * leaf(row[0])


def plain(row, x):
    def leaf_(y):
        return 3 * y + 1

    def branch_(y):
        return leaf_(y) + leaf_(y + 1) // 2

    row[0] += branch_(x)
    return branch_(x) * leaf_(row[0])


@pytest.mark.parametrize("x", [0, 1, 7, 100])
def test_a_law_that_calls_laws_computes_what_plain_python_computes(x: int) -> None:
    a, b = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    assert root(a, x) == plain(b, x)
    assert a[0] == b[0]
    assert branch(x) == 3 * x + 1 + (3 * (x + 1) + 1) // 2  # the same law, called from Python as well


def test_an_error_deep_inside_reaches_whoever_called_the_outermost_law() -> None:
    with pytest.raises(ValueError, match="a leaf takes less than a thousand"):
        branch(1000)


def test_a_cache_that_an_interrupted_run_has_left_is_still_cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The law that is compiled last decides; Numba calls its file MODULE.NAME-LINE.PYTHON.nbi."""
    monkeypatch.setattr(law_module, "CACHE_DIR", tmp_path)
    monkeypatch.setattr(law_module, "mode", lambda: "fast")
    assert law_module.is_cold() and law_module.is_cold("*")
    (tmp_path / "host_1").mkdir()
    (tmp_path / "host_1" / "relist.relist-190.py311.nbi").touch()
    assert law_module.is_cold() and not law_module.is_cold("*")
    (tmp_path / "host_1" / f"{run_host.__module__.rpartition('.')[2]}.{run_host.__name__}-383.py311.nbi").touch()
    assert not law_module.is_cold()


@pytest.mark.skipif(law_module.mode() == "python", reason="nothing is compiled here")
def test_what_only_laws_call_is_never_made_into_machine_code() -> None:
    @law
    def inner(x):
        return x * 2

    @law
    def outer(x):
        return inner(x) + 1

    assert outer(4) == 9
    assert outer.signatures and not inner.signatures  # inner has no compiled version of its own
    assert inner(4) == 8 and inner.signatures  # until Python asks for one


SCRIPT = """
import numpy as np
from fleetsim.linux.math64 import int_sqrt
from fleetsim.linux.vmscan_laws import inactive_is_low
print(inactive_is_low(1 << 20, 1 << 22), sum(inactive_is_low.stats.cache_hits.values()), sum(inactive_is_low.stats.cache_misses.values()))
"""


@pytest.mark.skipif(law_module.mode() == "python", reason="nothing is compiled here")
def test_a_second_process_finds_the_law_in_the_cache(tmp_path: Path) -> None:
    environment = os.environ | {"FLEETSIM_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", SCRIPT]
    outputs = [
        subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split() for _ in range(2)
    ]
    assert outputs[0] == [outputs[1][0], "0", "1"]
    assert outputs[1][1:] == ["1", "0"]


@pytest.mark.skipif(law_module.mode() == "python", reason="nothing is compiled here")
def test_what_stands_in_for_numba_while_laws_are_compiled_answers_as_numba_and_goes_away() -> None:
    record = numba.from_dtype(np.dtype([("a", np.int64), ("b", np.int32, (3,))]))
    flags = numba.core.compiler.Flags()
    flags.nrt = True
    watched = (
        (numba.core.postproc.PostProcessor, "run"),
        (type(record), "__repr__"),
        (numba.core.targetconfig.TargetConfig, "values"),
        (types.BaseFunction, "get_call_type"),
    )
    before = [getattr(cls, name) for cls, name in watched]
    said, values, hashed = repr(record), flags.values(), hash(flags)
    with law_compiler._quick_numba():
        assert [getattr(cls, name) for cls, name in watched] != before
        assert (repr(record), repr(record), flags.values(), hash(flags)) == (said, said, values, hashed)
        assert list(flags.values()) == list(values)
    with pytest.raises(RuntimeError), law_compiler._quick_numba():
        raise RuntimeError
    assert [getattr(cls, name) for cls, name in watched] == before


@pytest.mark.skipif(law_module.mode() == "python", reason="nothing is compiled here")
@pytest.mark.parametrize("function", [operator.add, operator.lt, operator.and_, operator.floordiv, operator.getitem, max, len], ids=str)
def test_the_type_of_a_call_is_what_numba_says_each_time_it_is_asked(function: Callable[..., object]) -> None:
    context = numba.core.registry.cpu_target.typing_context
    context.refresh()
    asked = context.resolve_value_type(function)
    of = [types.int64, types.int32, types.boolean, types.float64, types.literal(3), types.Array(types.int64, 1, "C"), types.unicode_type]
    calls = [(a,) if function is len else (a, b) for a in of for b in of]

    def answers() -> list[object]:
        said: list[object] = []
        for args in calls:
            try:
                said.append(asked.get_call_type(context, args, {}))
            except numba.core.errors.NumbaError as refusal:
                said.append(type(refusal))
        return said

    by_numba = answers()
    with law_compiler._quick_numba():
        assert answers() == by_numba
        assert answers() == by_numba
    assert len(set(map(str, by_numba))) > 1


@pytest.mark.skipif(law_module.mode() == "python", reason="nothing is compiled here")
def test_a_deep_recursion_behind_a_large_frame_maps_no_memory() -> None:
    def deep(n: int) -> int:
        return n if n == 0 else 1 + deep(n - 1)

    def faults(depth: int) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(2000):
            deep(depth)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    deep(300)
    worst = max(faults(depth) for depth in range(100, 300, 2))  # somewhere here a chunk ends
    assert worst >= 2000
    assert max(law_compiler._with_room(lambda d=depth: faults(d)) for depth in range(100, 300, 2)) < 100


def test_numba_is_pinned_because_the_compiler_leans_on_its_internals() -> None:
    pinned = re.search(r"^numba==(.+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned and pinned[1] == numba.__version__
