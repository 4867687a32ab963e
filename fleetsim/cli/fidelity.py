# SPDX-License-Identifier: Apache-2.0
"""`fleetsim fidelity`: replay recordings of a real kernel on a simulated host, and say how far it is from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetsim.cli.options import Json
from fleetsim.cli.output import invocation, progress
from fleetsim.errors import EXIT_OK


def fidelity(
    experiments: Annotated[list[Path], typer.Argument(help="Folders with experiment.json and start.json.", metavar="EXPERIMENT_DIR...")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write DIR/NAME/{trace.csv.gz,dmesg.txt} in the recordings' format.", metavar="DIR")
    ] = None,
    json: Json = False,
) -> int:
    """Replay each EXPERIMENT_DIR and print the error of every series, the victims and the times of the kills."""
    from fleetsim.fleet.fidelity import run_fidelity

    with progress() as show:
        result = run_fidelity(experiments, out=out, progress=show)
    if json:
        invocation.print_json(result.as_json())
    else:
        print(result.as_text())
    return EXIT_OK
