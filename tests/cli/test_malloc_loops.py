# SPDX-License-Identifier: Apache-2.0
"""`fleetsim malloc 'malloc … | free …'`: loops in a line, on exact simulators and the cheap models side by side."""

from __future__ import annotations

import json

import pytest

from fleetsim.cli.main import execute

LOOPS = "malloc 3000 64-4096 | free random 90% | wait 0.1 | wait 20"


def test_each_step_is_told_for_each_allocator_and_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["malloc", LOOPS, "--allocator", "glibc", "--allocator", "jemalloc", "--allocator", "tcmalloc"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["resident", "after", "glibc", "jemalloc", "its", "model", "tcmalloc", "its", "model"]
    for line, step in zip(lines[1:], LOOPS.split(" | "), strict=True):
        assert line.startswith(step) and line.count("MiB") == 5


def test_the_numbers_are_for_programs_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["malloc", LOOPS, "--allocator", "jemalloc", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    exact, model = told["resident"]["jemalloc"], told["model"]["jemalloc"]
    assert len(exact) == len(model) == len(told["steps"]) == 4
    assert exact[0] == pytest.approx(model[0], rel=0.1)
    assert exact[3] < 0.8 * exact[0] and model[3] < 0.8 * model[0]


@pytest.mark.parametrize(
    "text", ["malloc 10 4096-64", "malloc 10 64 | free random 101%", "malloc 10 64 | fre all", "malloc 0 64", "malloc 10 64 |"]
)
def test_bad_steps_are_refused_in_one_sentence(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["malloc", text, "--allocator", "jemalloc"]) == 2
    assert "the step" in capsys.readouterr().err
