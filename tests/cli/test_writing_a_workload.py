# SPDX-License-Identifier: Apache-2.0
"""docs/writing-a-workload.md: the package that it shows is installed for real, and every command does what stands below it.

Files in the document are those of docs/example-workloads, but for their licence line. In a block marked `run`, lines that begin with
`$ ` are commands and must succeed, in one marked `refused` they must be refused as bad input; the lines below a command are looked
for in its output, in order. `…` stands for anything.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_tutorial import pattern, steps

REPO = Path(__file__).parent.parent.parent
EXAMPLES = REPO / "docs" / "example-workloads"
TEXT = (REPO / "docs" / "writing-a-workload.md").read_text(encoding="utf-8")
FILES = re.findall(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
BLOCKS = re.findall(r"^<!-- (run|refused) -->\n```text\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
LICENCE = "# SPDX-License-Identifier: Apache-2.0\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to work in, with the documents and, in `site`, the example package as pip installs it."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLES, folder / "package")
    for name in ("docs", "chaos_scenarios"):
        (folder / name).symlink_to(REPO / name)
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-input", "--disable-pip-version-check"]
    if importlib.util.find_spec("hatchling"):  # with the builder at hand nothing is downloaded
        pip += ["--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(folder / "site"), str(folder / "package")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """A command of the document, in a shell in which `fleetsim` is ours and the package is installed."""
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'site'}:{REPO}", "COLUMNS": "110", "PYTHON": sys.executable}
    script = f'fleetsim() {{ "$PYTHON" -m fleetsim "$@"; }}\n{command}'
    return subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_document_shows_the_files_that_are_there() -> None:
    assert {name for name, _ in FILES} == {"pyproject.toml", "naps.yaml", "example_workloads/nap.py", "example_workloads/cache.py"}
    for name, shown in FILES:
        assert shown == (EXAMPLES / name).read_text(encoding="utf-8").removeprefix(LICENCE), name


@pytest.mark.parametrize("kind, block", BLOCKS, ids=[block.splitlines()[0][2:50] for _, block in BLOCKS])
def test_every_command_does_what_stands_below_it(kind: str, block: str, folder: Path, require_tool: Callable[[str], str]) -> None:
    if "fleetsim check" in block:
        require_tool("prometheus")
    for command, expected in steps(block):
        done = run(folder, command)
        assert done.returncode == (0 if kind == "run" else 2), done.stdout + done.stderr
        lines = (done.stdout + done.stderr).splitlines()
        at = 0
        for line in expected:
            hits = [k for k in range(at, len(lines)) if re.search(pattern(line), lines[k])]
            assert hits, f"{command}: no line like {line!r} from line {at} on of\n" + "\n".join(lines)
            at = hits[0] + 1


def test_every_block_of_the_document_is_tried() -> None:
    fences = len(re.findall(r"^```\w+$", TEXT, re.MULTILINE))
    assert fences == len(FILES) + len(BLOCKS) + 1, "all but the one that installs the package, which the fixture does"
    assert len(BLOCKS) >= 4


def test_the_same_history_whatever_the_threads_and_the_schema_knows_the_plug_ins(folder: Path) -> None:
    scenario = (EXAMPLES / "naps.yaml").read_text(encoding="utf-8").replace("2m", "20s").partition("expect:")[0].replace("rules:", "# ")
    (folder / "short.yaml").write_text(scenario)
    hashes = set()
    for threads in (1, 2):
        done = run(folder, f"fleetsim run --json --threads {threads} --out run-{threads} short.yaml")
        assert done.returncode == 0, done.stderr
        hashes.add(json.loads(done.stdout)["history_hash"])
    assert len(hashes) == 1
    pods = json.loads(run(folder, "fleetsim schema").stdout)["properties"]["fleet"]["items"]
    named = {
        entry["properties"]["workload"]["const"]
        for entry in pods["properties"]["pods"]["items"]["oneOf"]
        if "workload" in entry["properties"]
    }
    assert {"nap", "cache", "idle", "web"} <= named


BROKEN = (
    LICENCE
    + '''"""A workload with a mistake."""
from fleetsim.containers.plugin import Kernel, Workload


class Broken(Workload):
    """It divides by what it sleeps for."""

    def step(self, kernel: Kernel) -> None:
        1 / (3 - kernel.now // 1)
        kernel.sleep(1)
'''
)


def test_a_mistake_in_a_step_stops_the_run_with_one_sentence_and_debug_shows_where(folder: Path) -> None:
    site = folder / "site"
    (site / "broken.py").write_text(BROKEN)
    info = site / "broken-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[fleetsim.workloads]\nbroken = broken:Broken\n")
    pods = "    pods: [{name: a, workload: broken}]"
    (folder / "broken.yaml").write_text(f"summary: s\nduration: 1m\nfleet:\n  - hosts: 1\n    name: box\n    memory: 1GiB\n{pods}\n")
    try:
        done = run(folder, "fleetsim run --out broken-run broken.yaml")
        assert done.returncode == 3, done.stderr
        sentence = next(line for line in done.stderr.splitlines() if line.startswith("fleetsim: "))
        assert re.fullmatch(
            r"fleetsim: workload 'broken' of broken 0\.1 failed on host box-0, process 'a', at 3\.\d+ s: "
            rf"ZeroDivisionError: float division by zero at {re.escape(str(site / 'broken.py'))}:10",
            sentence,
        )
        assert "Traceback" not in done.stderr and "Traceback" not in done.stdout
        told = run(folder, "fleetsim --debug run --out broken-again broken.yaml")
        assert told.returncode == 3 and "Traceback" in told.stderr and "kernel.now // 1" in told.stderr
    finally:
        shutil.rmtree(info)
