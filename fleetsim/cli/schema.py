# SPDX-License-Identifier: Apache-2.0
"""`fleetsim schema`: the JSON Schema of scenario files, for editors."""

from __future__ import annotations

from fleetsim.cli.options import Json
from fleetsim.cli.output import invocation
from fleetsim.errors import EXIT_OK


def schema(json: Json = False) -> int:
    """Print the JSON Schema of scenario files (it is always JSON)."""
    from fleetsim.fleet.schema import scenario_schema

    invocation.print_json(scenario_schema())
    return EXIT_OK
