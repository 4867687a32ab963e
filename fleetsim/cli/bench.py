# SPDX-License-Identifier: Apache-2.0
"""`fleetsim bench`: how fast it is on this machine."""

from __future__ import annotations

from fleetsim.cli.options import Json
from fleetsim.cli.output import invocation, progress
from fleetsim.errors import EXIT_OK


def bench(json: Json = False) -> int:
    """Measure µs per host-second, bytes per host, cold and warm start on this machine."""
    from fleetsim.fleet.bench import run_bench

    with progress() as show:
        result = run_bench(progress=show)
    if json:
        invocation.print_json(result.as_json())
    else:
        print(result.as_text())
    return EXIT_OK
