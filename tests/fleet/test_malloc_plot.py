# SPDX-License-Identifier: Apache-2.0
"""The page of `fleetsim malloc --plot`: which axis it has, what lies over what, and that it fits the window."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fleetsim.allocators.exact import exact_allocator
from fleetsim.allocators.trace import TraceBuilder
from fleetsim.fleet.malloc_plot import figure, page
from fleetsim.fleet.malloc_report import Account, account


def answered(*, sleep_s: float) -> Account:
    b = TraceBuilder("some.trace")
    for k in range(50):
        b.malloc(k, 5000)
    for k in range(49):
        b.free(k)
    if sleep_s:
        b.sleep(int(sleep_s * 1e9))
    b.malloc("last", 100)
    return account(b.build(), exact_allocator("glibc", "", 2), "", every=1)


def drawn(a: Account) -> Any:
    return figure(a).to_dict()


def test_where_time_passes_it_is_the_axis_and_ops_are_a_button_away() -> None:
    a = answered(sleep_s=30)
    shown = drawn(a)
    assert shown["layout"]["xaxis"]["title"]["text"] == "seconds of the trace"
    for line in shown["data"]:
        assert (line["x"][0], line["x"][-1]) == (0.0, 30.0) and line["line"]["shape"] == "hv"
    (menu,) = shown["layout"]["updatemenus"]
    seconds, ops = (button["args"] for button in menu["buttons"])
    assert ops[0]["x"][0] == [int(s["op"]) for s in a.replay.samples] and ops[1]["xaxis.title.text"] == "ops of the trace"
    assert seconds[0]["x"][0] == list(shown["data"][0]["x"])


def test_where_no_time_passes_ops_are_the_axis_and_there_is_no_button() -> None:
    shown = drawn(answered(sleep_s=0))
    assert shown["layout"]["xaxis"]["title"]["text"] == "ops of the trace" and "updatemenus" not in shown["layout"]
    assert shown["data"][0]["x"][-1] == 100


def test_resident_is_drawn_over_mapped_and_live_over_allocated() -> None:
    lines = {line["name"]: (number, line["line"]["width"]) for number, line in enumerate(drawn(answered(sleep_s=1))["data"])}
    for over, under in (("resident", "mapped"), ("live", "allocated")):
        assert lines[over][0] > lines[under][0] and lines[over][1] < lines[under][1]


def test_room_for_the_scrollbar_is_kept_before_graphs_are_as_wide_as_the_window() -> None:
    """Else the first graph is laid out without it, and is too wide by it once there is a second one below."""
    text = page([answered(sleep_s=1)])
    style = text[text.index("<style>") : text.index("</style>")]
    assert "html{overflow-y:scroll}" in style and "body{margin:0" in style and '"responsive": true' in text


def test_the_page_is_as_wide_as_the_window(tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium here to lay the page out")
    tell = "document.title=document.documentElement.scrollWidth+' of '+document.documentElement.clientWidth"
    script = f"<script>addEventListener('load',()=>setTimeout(()=>{{{tell}}},500))</script></body>"
    file = tmp_path / "page.html"
    file.write_text(page([answered(sleep_s=1)] * 2).replace("</body>", script), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,600", "--virtual-time-budget=4000", "--dump-dom"]
    command = [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", file.as_uri()]
    laid_out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
    found = re.search(r"<title>(\d+) of (\d+)</title>", laid_out)
    assert found and int(found[1]) <= int(found[2]), "a scrollbar below the page"
