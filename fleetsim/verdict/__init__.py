# SPDX-License-Identifier: Apache-2.0
"""The judge: reads a run directory and rule files, lets the real Prometheus evaluate, and says what was noticed.

It imports nothing of the simulator (an import contract), so it can only believe evidence. In the order of work:

    check.py          judge_run(): the one entry
    rules.py          published rule files, unmodified      needs.py     which metrics an expression reads
    prometheus.py     the real programs, found and started  remote_write.py, load.py   samples into them
    order.py          which rule must be evaluated first    evaluate.py  the scale path     state.py  pending, firing
    render.py         templates, by the real promtool       oracle.py    the slow path that the fast one must equal
    timeline.py       when every alert pended, fired, was resolved
    incidents.py      faults and impacts of the history     subjects.py  whom an alert's labels name
    judge.py          one verdict per expectation           score.py     every other rule, for information
    report.py  html.py  junit.py  unit_test.py              models.py    what verdicts.json holds
"""

from __future__ import annotations
