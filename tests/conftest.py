# SPDX-License-Identifier: Apache-2.0
"""What every test may ask for: the shared evidence, a program of the machine, a golden file, repeatable hypothesis runs.

    shared_dir      folder of recordings, laws and published rules ($FLEETSIM_SHARED, else `../shared` beside the repository);
                    the test is skipped where it is absent: users do not have it
    require_tool    `require_tool("promtool")` gives the program's path. Absent: skip, or fail where
                    FLEETSIM_REQUIRE_PROMETHEUS=1 (prometheus, promtool) or FLEETSIM_REQUIRE_TOOLS=1 (all others) says so,
                    so that CI cannot pass by skipping
    golden          `golden("page.txt", text)` compares with tests/golden/page.txt, whole; `--update-goldens` (or
                    UPDATE_GOLDENS=1) writes it instead: read the diff before committing it

Leaves out: anything about one package only; that belongs in that package's own conftest.
"""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPO = Path(__file__).resolve().parent.parent
GOLDEN = REPO / "tests" / "golden"

# A test run is the same run every time: no luck between two machines, no deadline on a busy one. Explore further by hand
# with HYPOTHESIS_PROFILE=explore, and pin what it finds with @example.
settings.register_profile("ci", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-goldens", action="store_true", help="write tests/golden/* from what the code prints now instead of comparing"
    )


def shared_folder() -> Path:
    return Path(os.environ.get("FLEETSIM_SHARED") or REPO.parent / "shared")


def pytest_report_header() -> list[str]:
    shared = shared_folder()
    return [
        f"fleetsim: shared evidence {'at ' + str(shared) if shared.is_dir() else 'absent (tests that need it are skipped)'}",
        f"fleetsim: prometheus at {shutil.which('prometheus', path=search_path('prometheus'))}, jit {jit_mode()}",
    ]


def jit_mode() -> str:
    return "off" if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0") else "on"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"no shared evidence at {folder}: set FLEETSIM_SHARED to the folder that holds recordings/ and rules/")
    return folder


PROMETHEUS_PROGRAMS = ("prometheus", "promtool", "alertmanager")


def search_path(program: str) -> str:
    """PATH, with the folder that the user names for Prometheus before it."""
    own = os.environ.get("FLEETSIM_PROMETHEUS_DIR") if program in PROMETHEUS_PROGRAMS else None
    return os.pathsep.join(filter(None, [own, os.environ.get("PATH", os.defpath)]))


def find_tool(program: str) -> Path:
    found = shutil.which(program, path=search_path(program))
    if found:
        return Path(found)
    switch = "FLEETSIM_REQUIRE_PROMETHEUS" if program in PROMETHEUS_PROGRAMS else "FLEETSIM_REQUIRE_TOOLS"
    if os.environ.get(switch) == "1":
        pytest.fail(f"{program} is not installed, and {switch}=1 says it must be: `make test` installs it where it may", pytrace=False)
    pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], Path]:
    return find_tool


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    update = request.config.getoption("--update-goldens") or os.environ.get("UPDATE_GOLDENS") == "1"

    def check(name: str, actual: str) -> None:
        compare_golden(GOLDEN / name, actual, update=update)

    return check


def compare_golden(path: Path, actual: str, *, update: bool) -> None:
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(actual, encoding="utf-8")
        return
    if not path.exists():
        pytest.fail(f"{path} does not exist: run once with --update-goldens and read what it wrote", pytrace=False)
    expected = path.read_text(encoding="utf-8")
    if actual != expected:
        diff = difflib.unified_diff(expected.splitlines(), actual.splitlines(), "golden", "now", lineterm="", n=2)
        shown = "\n".join(list(diff)[:80]) or "only the line endings differ"
        pytest.fail(f"{path.name} differs from what the code prints now (--update-goldens accepts it):\n{shown}", pytrace=False)


@pytest.fixture(autouse=True)
def no_width_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output is as wide as into a pipe, whatever the shell or another test has said."""
    monkeypatch.delenv("COLUMNS", raising=False)
