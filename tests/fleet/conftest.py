# SPDX-License-Identifier: Apache-2.0
"""The coupled fleet (`coupled.py`) for the tests of checkpoints and engines: its plan, its run in this process, a cluster to run it on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fleetsim.fleet.controller import RunResult, run_plan
from fleetsim.fleet.plan import Plan
from tests.fleet.coupled import coupled_plan
from tests.fleet.ray_worlds import PROFILE, two_machines


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return coupled_plan(tmp_path_factory.mktemp("scenario"))


@pytest.fixture(scope="module")
def local(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run_plan(plan, tmp_path_factory.mktemp("local") / "run", PROFILE)


@pytest.fixture
def cluster() -> Iterator[Any]:
    with two_machines() as cluster:
        yield cluster
