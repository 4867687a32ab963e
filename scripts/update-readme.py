# SPDX-License-Identifier: Apache-2.0
"""Puts what the program really prints into README.md: `.venv/bin/python scripts/update-readme.py [RECORDINGS_DIR]`.

Every block between `<!-- output:NAME -->` (or `scenario:NAME`) and `<!-- end -->` is replaced by a fresh run. The largest error
that each row of the table in docs/fidelity.md explains goes into its third column.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FLEETSIM = [sys.executable, "-m", "fleetsim"]
WIDTH = "118"
SHOWN = 6  # series named per experiment


def printed(*arguments: str) -> str:
    environment = {**os.environ, "COLUMNS": WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run([*FLEETSIM, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def demo() -> str:
    rules = [w for name in ("free-memory", "available-memory") for w in ("--rules", f"chaos_scenarios/rules/{name}.yml")]
    scenarios = [f"chaos_scenarios/{name}.yaml" for name in ("leak-one-container", "page-cache-fills-memory")]
    lines = [line.rstrip() for line in printed("check", *rules, *scenarios).strip().splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```"


def scenario(name: str) -> str:
    text = (ROOT / "chaos_scenarios" / f"{name}.yaml").read_text()
    return "```yaml\n" + "\n".join(line for line in text.strip().splitlines() if "SPDX" not in line) + "\n```"


def far_off(experiment: dict[str, Any]) -> str:
    """The series that are off by more than 15 %, worst first; `docs/fidelity.md` says why."""
    errors = {name: series["err"] for name, series in experiment["series"].items() if series["err"] > 0.15}
    names = sorted(errors, key=lambda name: (-errors[name], name))
    shown = [f"{name.replace('total_us', '').strip('.')} {errors[name]:.0%}" for name in names[:SHOWN]]
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*shown, *more])


def explain(result: dict[str, Any]) -> None:
    """The error column of docs/fidelity.md."""
    page = ROOT / "docs" / "fidelity.md"
    far = [(e["experiment"], name, s["err"]) for e in result["experiments"] for name, s in e["series"].items() if s["err"] > 0.15]

    def filled(line: str) -> str:
        if not line.startswith("| `"):
            return line
        where, series, _, why = (cell.strip() for cell in line.strip().strip("|").split("|"))
        errors = [err for name, s, err in far if fnmatchcase(name, where.strip("`")) and fnmatchcase(s, series.strip("`"))]
        return f"| {where} | {series} | {max(errors, default=0):.0%} | {why} |"

    page.write_text("\n".join(filled(line) for line in page.read_text().splitlines()) + "\n")


def fidelity(recordings: Path) -> str:
    folders = sorted(str(path.parent) for path in recordings.glob("*/experiment.json"))
    result = json.loads(printed("fidelity", "--json", *folders))
    explain(result)
    rows = ["| experiment | series | median error | within 15 % | victims | kills: recorded → simulated | off by more than 15 % |"]
    rows.append("|---|---|---|---|---|---|---|")
    for e in result["experiments"]:
        shown = "right" if e["victims_right"] else "**wrong**"
        recorded = ", ".join(f"{name} {t:.2f} s" for t, name in e["kills"]["recorded"]) or "none"
        simulated = ", ".join(f"{name} {t:.2f} s" for t, name in e["kills"]["simulated"]) or "none"
        kills = "" if recorded == simulated == "none" else f"{recorded} → {simulated}"
        median, share = f"{e['median']:.1%}", f"{e['within_15']:.0%}"
        rows.append(f"| {e['experiment']} | {len(e['series'])} | {median} | {share} | {shown} | {kills} | {far_off(e)} |")
    s = result["summary"]
    right = f"{s['victims_right']} of {len(result['experiments'])}"
    rows.append(f"| **all** | {s['series']} | **{s['median']:.1%}** | **{s['within_15']:.0%}** | {right} | | |")
    return "\n".join(rows)


def main(arguments: list[str]) -> None:
    recordings = Path(arguments[0]) if arguments else ROOT / "tests" / "ground_truth"
    readme = ROOT / "README.md"

    def fresh(match: re.Match[str]) -> str:
        kind, name = match[1], match[2]
        if kind == "scenario":
            body = scenario(name)
        else:
            body = demo() if name == "demo" else fidelity(recordings)
        return f"<!-- {kind}:{name} -->\n{body}\n<!-- end -->"

    pattern = re.compile(r"<!-- (output|scenario):([\w-]+) -->\n(?:.*?<!-- end -->)?", re.DOTALL)
    readme.write_text(pattern.sub(fresh, readme.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
