# SPDX-License-Identifier: Apache-2.0
"""Thousands of random programs on random machines break no invariant: `make test-programs` runs 10,000, the slow tests 2,000.

Seeded: a number of programs is always the same programs. What is found becomes a test of its own in `test_regressions.py`.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings

from fleetsim.errors import BadInput
from fleetsim.linux import mm_types as mm
from tests.host.any_host import any_host
from tests.host.programs import Drawn
from tests.host.test_properties import counters
from tests.host.worlds import world

PROGRAMS = int(os.environ.get("FLEETSIM_PROGRAMS", "2000"))
EACH = 100  # of one search: hypothesis takes ever longer to think of another one (400 take 12 s, 1,000 three minutes)
SECONDS = (0.5, 2, 5)


def check(drawn: Drawn) -> None:
    try:
        w = world(**drawn.host)
    except BadInput:
        return  # more than a record holds: said in a sentence, before the run
    before = counters(w)
    for second in SECONDS:
        w.at(second)  # every look checks that the tables are sound
        now = counters(w)
        assert (now >= before).all(), "a counter ran back"
        before = now
        info = w.all_meminfo()
        assert 0 <= info["MemAvailable"] <= info["MemTotal"] and 0 <= info["MemFree"] <= info["MemTotal"]
        assert all(value >= 0 for value in info.values()), {name: value for name, value in info.items() if value < 0}
        assert all(0 <= int(avg) <= 100 << 11 for avg in np.ravel(w.row["psi_avg"]))
        for task in w.row["tasks"]:
            if int(task["state"]) == mm.TASK_RUNNING:
                assert min(int(task[name]) for name in ("rss_anon", "rss_file", "rss_shmem", "swapents", "pgtables")) >= 0


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(-(-PROGRAMS // EACH)))
def test_no_program_on_any_machine_breaks_an_invariant(shard: int) -> None:
    @seed(shard)
    @settings(max_examples=min(EACH, PROGRAMS), derandomize=False, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(any_host())
    def run(drawn: Drawn) -> None:
        check(drawn)

    run()
