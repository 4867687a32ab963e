# SPDX-License-Identifier: Apache-2.0
"""Mistakes of a workload in Python: each stops the run with one sentence that says what, where, when and in which line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleetsim.containers.plugin import Kernel
from fleetsim.errors import ToolFailed
from fleetsim.host.spec import Requests
from tests.host.plugin_programs import stepping
from tests.workloads.works import MIB, works_host


def failing(step: Callable[[Any, Kernel], None], *, requests: Requests | None = None) -> str:
    with pytest.raises(ToolFailed) as failed:
        works_host(stepping("p", step, files=("/data/out",), requests=requests)).at(30)
    text = str(failed.value)
    assert "\n" not in text and failed.value.exit_code == 3
    assert text.startswith("workload 'stepping' of tests 1 failed on host h, process 'p', at ")
    return text


def test_an_exception_is_one_sentence_with_the_line_of_the_plug_in() -> None:
    def step(program: Any, kernel: Kernel) -> None:
        kernel.sleep(1.5)
        if kernel.now > 2:
            _ = 1 // 0  # the line

    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    line = next(number for number, text in enumerate(lines, 1) if text.endswith("1 // 0  # the line"))
    text = failing(step)
    assert "at 3.0" in text
    assert text.endswith(f"ZeroDivisionError: integer division or modulo by zero at {__file__}:{line}")


MISUSES: dict[str, tuple[Callable[[Any, Kernel], Any], str]] = {
    "calls after the end": (lambda p, k: (k.sleep(1), k.compute(1)), "compute after sleep"),
    "two ends": (lambda p, k: (k.sleep(1), k.rest(1)), "a step sleeps once"),
    "no file of its own": (lambda p, k: k.read("/etc/passwd", 0), "'/etc/passwd' is not among those that needs() says (/data/out)"),
    "an area that is gone": (
        lambda p, k: (setattr(p, "a", k.mmap(MIB)), k.munmap(p.a), k.access(p.a, MIB)),
        "no mapped area",
    ),
    "a size that is none": (lambda p, k: k.mmap(1.5), "a whole number of bytes, not 1.5"),
    "a time that is none": (lambda p, k: k.compute(-1), "a number of seconds, not -1"),
    "advice that is none": (lambda p, k: k.madvise(k.mmap(MIB), "please"), "'please' is none of normal, willneed"),
    "no batch": (lambda p, k: k.finish(), "no batch is under way"),
    "a step without end": (lambda p, k: [k.compute(0) for _ in range(20_000)], "more than 10000 calls in one step"),
    "steps without end": (lambda p, k: None, "10000 steps on end that cost nothing"),
    "steps that sleep for no time": (lambda p, k: k.sleep_until(0), "10000 steps on end that cost nothing"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_a_call_that_is_wrong_there_is_one_sentence(name: str) -> None:
    step, words = MISUSES[name]
    text = failing(step, requests=Requests())
    assert words in text and (f"at {__file__}:" in text or "steps on end" in words)


class Keeper:
    """It keeps what cannot be pickled."""

    def __init__(self) -> None:
        self.keeps = lambda: None

    def step(self, kernel: Kernel) -> None:
        kernel.sleep(1)


def test_a_program_that_could_not_be_in_a_checkpoint_is_refused_when_it_begins() -> None:
    task = stepping("p", lambda p, k: None)
    assert task.work is not None and task.work.plugin is not None
    work = replace(task.work, plugin=replace(task.work.plugin, begin=Keeper))
    with pytest.raises(ToolFailed, match=r"(?i)pickle"):
        works_host(replace(task, work=work)).at(1)
