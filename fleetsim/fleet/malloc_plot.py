# SPDX-License-Identifier: Apache-2.0
"""`fleetsim malloc --plot x.html`: memory over a replayed block trace, as one page that needs no network.

Rules: where the trace says that time passes, the axis is its time, and a button changes it to ops; otherwise calls take no time, and
it is ops. A value stands until the next sample. What may lie under another line is drawn first, and wider.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleetsim.fleet.malloc_report import Account

MIB = 1 << 20
LINES = (("mapped", "#c7c7c7", 7), ("resident", "#d62728", 3), ("allocated", "#aec7e8", 5), ("live", "#1f77b4", 2))  # colour, width
HIDDEN = (("cached", "#2ca02c", 2), ("free", "#9467bd", 2), ("metadata", "#8c564b", 2))  # until their name is clicked
STYLE = "html{overflow-y:scroll}body{margin:0;font-family:sans-serif}.plotly-graph-div{max-width:100%}"


def page(accounts: Sequence[Account]) -> str:
    from plotly.offline import get_plotlyjs

    parts = [
        figure(a).to_html(full_html=False, include_plotlyjs=False, default_width="100%", config={"responsive": True}) for a in accounts
    ]
    head = f'<meta charset="utf-8"><title>fleetsim malloc</title><style>{STYLE}</style><script>{get_plotlyjs()}</script>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def figure(a: Account) -> Any:
    import plotly.graph_objects as go

    s = a.replay.samples
    axes = {"ops of the trace": s["op"].tolist()}
    if s["time_ns"][-1] > s["time_ns"][0]:
        axes = {"seconds of the trace": (s["time_ns"] / 1e9).tolist(), **axes}
    drawn = go.Figure()
    for name, colour, width in (*LINES, *HIDDEN):
        line = {"color": colour, "width": width, "shape": "hv"}
        visible = True if (name, colour, width) in LINES else "legendonly"
        drawn.add_scatter(x=next(iter(axes.values())), y=(s[name] / MIB).tolist(), name=name, mode="lines", line=line, visible=visible)
    drawn.update_layout(
        title=f"{a.trace.source} on {a.replay.allocator} {a.settings}", template="plotly_white", height=480, hovermode="x unified",
        xaxis_title=next(iter(axes)), yaxis_title="MiB", yaxis_rangemode="tozero", legend_traceorder="reversed",
    )  # fmt: skip
    if len(axes) > 1:
        buttons = [
            {"label": name.split()[0], "method": "update", "args": [{"x": [values]}, {"xaxis.title.text": name}]}
            for name, values in axes.items()
        ]
        drawn.update_layout(
            updatemenus=[{"type": "buttons", "direction": "right", "buttons": buttons, "x": 1, "y": 1.15, "xanchor": "right"}]
        )
    return drawn
