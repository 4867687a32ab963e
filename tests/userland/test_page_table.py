# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from hypothesis import given, settings

from tests.host.programs import Drawn, worlds
from tests.host.worlds import world
from tests.userland.page_tables import contradictions


@settings(max_examples=12)
@given(worlds())
def test_page_tables_of_random_hosts_add_up_to_the_kernels_counts(drawn: Drawn) -> None:
    w = world(**drawn.host)
    for at_s, kind, args in drawn.commands:
        w.command(at_s, kind, **args)
    for at_s in (0.7, 2.1, 4.4, 8.0):
        assert contradictions(w.at(at_s).row) == []
