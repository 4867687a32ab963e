# SPDX-License-Identifier: Apache-2.0
"""What Google's tcmalloc remembers of the recent past: least and most of a number per epoch, in a ring of epochs in which it was told.

Source: google/tcmalloc at fce3f55, internal/timeseries_tracker.h, huge_cache.cc MinMaxTracker, huge_page_subrelease.h.
"""

from __future__ import annotations

from fleetsim.allocators.google_tcmalloc_tables import NOTHING
from fleetsim.law import law


@law
def report(heap, s, value):
    """Number `s` is now `value`.

    Source: internal/timeseries_tracker.h Report, UpdateClock; huge_cache.h Extrema.
    """
    series, row = heap.series[s], heap.extrema[s]
    epoch = heap.state[0]["now"] // series["epoch_ns"]
    if epoch != series["epoch"]:
        delta = epoch - series["epoch"]
        series["epoch"] = epoch
        series["slot"] = (series["slot"] + 1) % series["slots"]
        fresh = row[series["slot"]]
        series["covered"] += delta - fresh["delta"]
        fresh["least"], fresh["most"], fresh["delta"] = NOTHING, 0, delta
    entry = row[series["slot"]]
    entry["least"] = min(entry["least"], value)
    entry["most"] = max(entry["most"], value)


@law
def over_time(heap, s, ns):
    """The last `ns` of number `s`.

    returns  (int64 least (0 if none), int64 most, int64 most of what it was least in an epoch, int64 most it varied in an epoch)

    Source: internal/timeseries_tracker.h IterBackwards; huge_cache.cc MinOverTime, MaxOverTime; huge_page_subrelease.h
    CalculateCombinedDemandTrend, CalculateDemandPeak.
    """
    series, row = heap.series[s], heap.extrema[s]
    least, most, trend, swing = NOTHING, 0, 0, 0
    epochs = min((ns + series["epoch_ns"] - 1) // series["epoch_ns"], series["covered"])
    slot, passed = series["slot"], 0
    for _ in range(min(epochs, series["slots"])):
        entry = row[slot]
        if entry["least"] < NOTHING:
            least, most = min(least, entry["least"]), max(most, entry["most"])
            trend, swing = max(trend, entry["least"]), max(swing, entry["most"] - entry["least"])
        passed += entry["delta"]
        if passed >= epochs:
            break
        slot = slot - 1 if slot > 0 else series["slots"] - 1
    return (least if least < NOTHING else 0), most, trend, swing
