# SPDX-License-Identifier: Apache-2.0
"""Verdicts as JUnit XML, which every CI shows: one test suite per scenario, one test case per expectation.

not met → failure, unknown → error. Rules without expectation are not test cases: they decide nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from fleetsim.verdict.models import ExpectationVerdict, Verdicts


def write_junit(path: Path, runs: Sequence[Verdicts]) -> None:
    root = ElementTree.Element("testsuites", name="fleetsim")
    for verdicts in runs:
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=verdicts.scenario,
            tests=str(len(verdicts.expectations)),
            failures=str(sum(not e.met and e.verdict != "unknown" for e in verdicts.expectations)),
            errors=str(sum(e.verdict == "unknown" for e in verdicts.expectations)),
            skipped="0",
        )
        properties = ElementTree.SubElement(suite, "properties")
        for name in ("seed", "version", "history_hash"):
            ElementTree.SubElement(properties, "property", name=name, value=str(getattr(verdicts, name)))
        for expectation in verdicts.expectations:
            _case(suite, verdicts, expectation)
    ElementTree.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _case(suite: ElementTree.Element, verdicts: Verdicts, expectation: ExpectationVerdict) -> None:
    name = _clean(f"{expectation.kind} {expectation.name} on {expectation.on}")
    case = ElementTree.SubElement(suite, "testcase", classname=f"fleetsim.{verdicts.scenario}", name=name)
    if expectation.verdict == "unknown":
        ElementTree.SubElement(case, "error", type="unknown", message=_clean(expectation.explanation))
    elif not expectation.met:
        ElementTree.SubElement(case, "failure", type=expectation.verdict, message=_clean(expectation.explanation))
    said = f"{expectation.verdict}: {expectation.explanation}"
    ElementTree.SubElement(case, "system-out").text = _clean(f"{said}\n{expectation.reason}" if expectation.reason else said)


def _clean(text: str) -> str:
    """XML 1.0 has no way to write most control characters."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
