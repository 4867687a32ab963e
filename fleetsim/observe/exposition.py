# SPDX-License-Identifier: Apache-2.0
"""The text page that a Prometheus scrapes, as Go's client library writes it.

Rules: format 0.0.4; families sorted by name, HELP and TYPE before each, series sorted by label values; numbers as Go's
`strconv.FormatFloat(v, 'g', -1, 64)` prints them.
Why not `prometheus_client.generate_latest`: it prints 123456 as `123456.0`, −10⁷ as `-10000000.0` and needs a registry of
objects per host; its content type is used, and its parser reads the page back in the tests.
Leaves out: OpenMetrics and protobuf negotiation, timestamps, exemplars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from fleetsim.observe.catalog import BY_NAME
from fleetsim.observe.node_exporter import Series

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_LABEL_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


def go_float(value: float) -> str:
    """The shortest text that reads back as `value`; with an exponent below 1e-4 and from 1e6 on, as in Go."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(float(value))  # Python's digits are the shortest too; only the notation differs
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return text.removesuffix(".0")
    if "e" in text:
        mantissa, _, power = text.partition("e")
        return f"{mantissa}e{int(power):+03d}"
    sign, digits = ("-", text[1:]) if value < 0 else ("", text)
    whole, _, fraction = digits.partition(".")
    significant = (whole + fraction).rstrip("0")
    point = "." if len(significant) > 1 else ""
    return f"{sign}{significant[0]}{point}{significant[1:]}e{len(whole) - 1:+03d}"


class Page:
    """The page of one exporter on one host: everything but the numbers is made once."""

    def __init__(self, series: Sequence[Series]) -> None:
        """`series` in page order, as `node_exporter.series` returns them."""
        self._before: list[str] = []  # text that stands before each value
        family = None
        for one in series:
            head = ""
            if one.name != family:
                family, metric = one.name, BY_NAME[one.name]
                head = f"# HELP {family} {metric.help.translate(_HELP_ESCAPES)}\n# TYPE {family} {metric.type}\n"
            self._before.append(f"{head}{one.name}{_braces(one.labels)} ")

    def render(self, values: Sequence[float]) -> str:
        """The whole page; `values` in the order of the series."""
        assert len(values) == len(self._before), "one value per series"
        return "".join([f"{before}{go_float(value)}\n" for before, value in zip(self._before, values)])


def _braces(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_LABEL_ESCAPES)}"' for name, value in labels) + "}"
