# SPDX-License-Identifier: Apache-2.0
"""What verbs that look inside one host begin with: its scenario, run up to an instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fleetsim.cli.output import invocation, progress
from fleetsim.cli.size_class import use_size_class
from fleetsim.errors import BadInput

Scenario = Annotated[Path, typer.Argument(help="A scenario file.", metavar="SCENARIO")]
Host = Annotated[str, typer.Argument(help="One of its hosts.", metavar="HOST")]
At = Annotated[str, typer.Option("--at", help="When, since the scenario's beginning: 90s, 5m.", metavar="TIME")]


def host_of(scenario: Path, host: str, at: str, seed: int | None) -> Any:
    """The host's shard (fleet/one_host.py) as it is at that time; BadInput says which of the three is wrong."""
    from fleetsim.fleet.one_host import host_at
    from fleetsim.fleet.plan import make_plan
    from fleetsim.fleet.scenario import load_scenario
    from fleetsim.units import duration_ns

    try:
        at_ns = duration_ns(at)
    except ValueError as error:
        raise BadInput(f"--at is {at!r}; {error}") from None
    loaded = load_scenario(scenario)
    plan = make_plan(loaded, seed)
    use_size_class([plan])
    invocation.seeds[loaded.name] = plan.seed
    with progress(loaded.name) as show:
        return host_at(plan, host, at_ns, show)
