# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON value on stdout, progress on stderr.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, max=(1 << 63) - 1, help="All luck follows from it (default: the scenario's).")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, max=1024, help="Threads to simulate with (default: all cores).")]
METRIC_PROFILE: Any = typer.Option(
    "--profile", help="Metrics to keep: full (the default), standard, or rules (only what the rules read).", metavar="full|standard|rules"
)
MetricProfile = Annotated[str, METRIC_PROFILE]
Rules = Annotated[
    list[Path] | None,
    typer.Option("--rules", help="A rule file besides those of the scenario; may be repeated (default: rules/ beside it).", metavar="FILE"),
]
Job = Annotated[
    str | None,
    typer.Option(
        "--job", help="The job label of the hosts' targets (default: the one the rules select, else node-exporter).", metavar="NAME"
    ),
]
