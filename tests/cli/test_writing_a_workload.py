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
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def test_a_run_of_plug_ins_is_kept_and_branched_like_any_other(folder: Path) -> None:
    scenario = (EXAMPLES / "naps.yaml").read_text(encoding="utf-8").replace("2m", "20s").partition("expect:")[0].replace("rules:", "# ")
    (folder / "kept.yaml").write_text(scenario)
    whole = run(folder, "fleetsim run --json --out kept kept.yaml")
    assert whole.returncode == 0, whole.stderr
    branch = run(folder, "fleetsim whatif kept --at 10s --set vm.swappiness=60 --out branch --json")
    assert branch.returncode == 0, branch.stderr
    hashes = [json.loads((folder / name / "manifest.json").read_text())["history_hash"] for name in ("kept", "branch")]
    assert hashes[0] == json.loads(whole.stdout)["history_hash"] and len(set(hashes)) == 2, "the branch has a command more"


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


@contextmanager
def installed(folder: Path, name: str, text: str) -> Iterator[None]:
    """A package of one module with one workload, both of this name, and a scenario with it."""
    site = folder / "site"
    (site / f"{name}.py").write_text(text)
    info = site / f"{name}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[fleetsim.workloads]\n{name} = {name}:{name.capitalize()}\n")
    pods = f"    pods: [{{name: a, workload: {name}}}]"
    (folder / f"{name}.yaml").write_text(f"summary: s\nduration: 3m\nfleet:\n  - hosts: 1\n    name: box\n    memory: 1GiB\n{pods}\n")
    try:
        yield
    finally:
        shutil.rmtree(info)


def test_a_mistake_in_a_step_stops_the_run_with_one_sentence_and_debug_shows_where(folder: Path) -> None:
    with installed(folder, "broken", BROKEN):
        done = run(folder, "fleetsim run --out broken-run broken.yaml")
        assert done.returncode == 3, done.stderr
        sentence = next(line for line in done.stderr.splitlines() if line.startswith("fleetsim: "))
        assert re.fullmatch(
            r"fleetsim: workload 'broken' of broken 0\.1 failed on host box-0, process 'a', at 3\.\d+ s: "
            rf"ZeroDivisionError: float division by zero at {re.escape(str(folder / 'site' / 'broken.py'))}:10",
            sentence,
        )
        assert "Traceback" not in done.stderr and "Traceback" not in done.stdout
        told = run(folder, "fleetsim --debug run --out broken-again broken.yaml")
        assert told.returncode == 3 and "Traceback" in told.stderr and "kernel.now // 1" in told.stderr


ODD = """
import decimal, random, re
from fleetsim.containers.plugin import Workload

class Odd(Workload):
    "It keeps this and that."
    def __init__(self, arguments, room):
        super().__init__(arguments, room)
        self.kept = {KEPT}
    def step(self, kernel): kernel.sleep(1)
"""


def test_what_a_checkpoint_cannot_keep_is_told_when_the_first_is_written_and_not_when_it_is_wanted(folder: Path) -> None:
    plain = "[decimal.Decimal('0.1'), random.Random(7), {3, 4}]"
    with installed(folder, "odd", ODD.replace("{KEPT}", "re.compile('x')")):
        done = run(folder, "fleetsim run --out odd-run --checkpoint-every 1 odd.yaml")
        assert done.returncode == 3, done.stderr
        assert "a workload in Python keeps what cannot be read back: " in done.stderr and "re._compile has no place" in done.stderr
    with installed(folder, "odd", ODD.replace("{KEPT}", plain)):
        assert run(folder, "fleetsim run --out odd-kept --checkpoint-every 1 odd.yaml").returncode == 0
        branch = run(folder, "fleetsim whatif odd-kept --at 90s --set vm.swappiness=1")
        assert branch.returncode == 0, branch.stderr
    with installed(folder, "odd", ODD.replace("{KEPT}", "3")):
        branch = run(folder, "fleetsim whatif odd-kept --at 90s --set vm.swappiness=1")
        assert branch.returncode == 2 and "another version of fleetsim, or of a workload in Python" in branch.stderr, "it has been changed"


ENDLESS = """
from pathlib import Path
from fleetsim.containers.plugin import Workload

class Endless(Workload):
    "It never comes back."
    def step(self, kernel):
        Path("begun").touch()
        while True: pass
"""


def test_a_step_that_never_returns_can_be_ended_with_ctrl_c(folder: Path) -> None:
    with installed(folder, "endless", ENDLESS):
        environment = {**os.environ, "PYTHONPATH": f"{folder / 'site'}:{REPO}"}
        line = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from fleetsim.cli.main import main; main()"
        command = [sys.executable, "-c", line, "run", "--out", "endless-run", "endless.yaml"]
        process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
        while not (folder / "begun").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 130 and "Traceback" not in stderr and "interrupted" in stderr, stderr
