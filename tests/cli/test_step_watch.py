# SPDX-License-Identifier: Apache-2.0
"""A step that does not return is told, with the line that it is at; whoever is in a call of the kernel is left in peace."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fleetsim.cli.step_watch import StepWatch, steps_under_way
from fleetsim.host.plugins import take_step

BEGUN, GO_ON = threading.Event(), threading.Event()


class Endless:
    def step(self, kernel: Any) -> None:
        BEGUN.set()
        while not GO_ON.is_set():
            time.sleep(0.001)


@pytest.fixture
def under_way() -> Iterator[None]:
    """A step of another thread, as a shard's thread would take it."""
    process = SimpleNamespace(plug=SimpleNamespace(name="acme"), name="web", program=Endless())
    thread = threading.Thread(target=take_step, args=(process, SimpleNamespace(now=3.5, _calls=2)))
    BEGUN.clear(), GO_ON.clear()
    thread.start()
    BEGUN.wait()
    yield
    GO_ON.set()
    thread.join()


def test_a_step_that_stays_is_told_once_with_its_line(under_way: None) -> None:
    told: list[str] = []
    with StepWatch(told.append, 0.05):
        deadline = time.monotonic() + 20
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
    (one,) = told
    assert "the workload 'acme' has been in one step of process 'web'" in one and f"at {__file__}:" in one


def test_a_step_is_the_same_only_at_the_same_instant_after_as_many_calls(under_way: None) -> None:
    (step,) = steps_under_way()
    assert step.identity == ("acme", "web", 3_500_000_000, 2)
    told: list[str] = []
    watch = StepWatch(told.append)
    watch.look()
    assert told == []
    watch.look(), watch.look()
    assert len(told) == 1


def test_a_call_of_the_kernel_is_no_such_step() -> None:
    """It returns, though the first one of all may compile for a minute."""
    from fleetsim.registry import Registry

    class Asking:
        def step(self, kernel: Any) -> None:
            Registry("thing")[Waiting()]  # type: ignore[index]

    class Waiting:
        def __hash__(self) -> int:
            BEGUN.set()
            GO_ON.wait()
            return 0

    BEGUN.clear(), GO_ON.clear()
    process = SimpleNamespace(plug=SimpleNamespace(name="acme"), name="web", program=Asking())

    def step() -> None:
        with pytest.raises(Exception):  # noqa: B017 — there is no such thing in the registry
            take_step(process, SimpleNamespace(now=3.5, _calls=2))  # type: ignore[arg-type]

    thread = threading.Thread(target=step)
    thread.start()
    BEGUN.wait()
    try:
        assert steps_under_way() == []
    finally:
        GO_ON.set()
        thread.join()


def test_nobody_is_in_a_step() -> None:
    assert steps_under_way() == []
