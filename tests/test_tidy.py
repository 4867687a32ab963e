# SPDX-License-Identifier: Apache-2.0
"""Taste is a test: the repository keeps the rules of CONTRIBUTING.md, and every rule is shown to be able to fail.

Outside tools judge what they can (ruff: style and format, mypy: types, import-linter: the layers of ARCHITECTURE.md); the
rest is in `tests/tidy/`. The second half of this file hands each rule a small offender: a rule nobody can break says nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import grimp
import pytest

from tests.tidy import repository
from tests.tidy.source import RULES_FOR_ALL_PYTHON, RULES_FOR_THE_PACKAGE, Source

REPO = Path(__file__).resolve().parent.parent
FILES = repository.files_of(REPO)
PYTHON = [name for name in FILES if name.endswith(".py")]
PACKAGE = [name for name in PYTHON if name.startswith("fleetsim/")]
ENTRY_POINTS = ("fleetsim.cli.main", "fleetsim.__main__", "fleetsim.host.warm")
FILE_BYTES_MAX = 512 * 1024
REACHED_FROM_TESTS_ONLY = {
    "fleetsim.observe.exposition": "the page a live Prometheus scrapes; compared with the real exporter's until a game day serves it",
}

Rule = Callable[[Source], Iterator[str]]


def read(name: str) -> str:
    return (REPO / name).read_text(encoding="utf-8")


def run(*command: str, cwd: Path = REPO) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def none_of(complaints: list[str]) -> None:
    assert not complaints, "\n" + "\n".join(complaints)


# ------------------------------------------------------------------------------------------------- the repository is tidy


@pytest.mark.parametrize("rule", RULES_FOR_ALL_PYTHON, ids=lambda rule: rule.__name__)
def test_every_python_file_keeps(rule: Rule) -> None:
    none_of([complaint for name in PYTHON for complaint in rule(Source(name, read(name)))])


@pytest.mark.parametrize("rule", RULES_FOR_THE_PACKAGE, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule: Rule) -> None:
    none_of([complaint for name in PACKAGE for complaint in rule(Source(name, read(name)))])


def test_the_import_layers_hold() -> None:
    result = run(sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache")
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_finds_nothing() -> None:
    result = run(sys.executable, "-m", "ruff", "check", "--no-cache", ".")
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_would_format_nothing() -> None:
    result = run(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", ".")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr


def test_types_hold() -> None:
    result = run(sys.executable, "-m", "mypy")
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_banned_word_is_left() -> None:
    complaints = []
    for name in FILES:
        if name.startswith(repository.NOT_OURS_TO_JUDGE):
            continue
        try:
            text = read(name)
        except UnicodeDecodeError:
            continue
        complaints += repository.banned_words(name, text)
    none_of(complaints)


def test_no_file_is_too_big_for_a_source_repository() -> None:
    none_of([f"{name}: {size} bytes" for name in FILES if (size := (REPO / name).stat().st_size) > FILE_BYTES_MAX])


def test_scripts_start_with_the_licence_line_and_stop_at_the_first_error() -> None:
    scripts = [name for name in FILES if name.endswith(".sh") or name == ".ci/run"]
    assert scripts
    for name in scripts:
        lines = read(name).splitlines()
        assert "# SPDX-License-Identifier: Apache-2.0" in lines[:2], name
        if lines[0].startswith("#!"):  # run, not sourced
            assert "set -euo pipefail" in lines, name
            assert run("bash", "-n", name).returncode == 0, name


def test_no_module_is_dead() -> None:
    graph = grimp.build_graph("fleetsim", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    discovered = repository.discovered_packages(read(name) for name in PACKAGE)
    packages = {str(Path(name).parent).replace("/", ".") for name in PACKAGE if name.endswith("/__init__.py")}
    alive_without = repository.dead_modules(imports, ENTRY_POINTS, discovered)
    none_of([f"{module} is reached: take it off the list" for module in REACHED_FROM_TESTS_ONLY if module not in alive_without])
    tests = "".join(read(name) for name in PYTHON if name.startswith("tests/") and name != "tests/test_tidy.py")
    none_of([f"{module} is not even tested" for module in REACHED_FROM_TESTS_ONLY if module.rpartition(".")[2] not in tests])
    dead = repository.dead_modules(imports, [*ENTRY_POINTS, *REACHED_FROM_TESTS_ONLY], discovered)
    none_of([f"{module} is reached from no entry point ({', '.join(ENTRY_POINTS)})" for module in dead if module not in packages])


def test_the_coverage_table_names_tests_and_files_that_exist() -> None:
    none_of(list(repository.named_tests_exist(read("docs/coverage.md"), REPO)))


def test_the_architecture_names_files_that_exist() -> None:
    none_of(list(repository.named_tests_exist(read("ARCHITECTURE.md"), REPO)))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_in_the_documents_lead_somewhere(name: str) -> None:
    none_of(list(repository.dead_links(read(name), REPO)))


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_commands_in_the_documents_are_known_to_the_command_line(name: str) -> None:
    none_of(list(repository.unknown_commands(repository.fenced_commands(read(name), "fleetsim"), options_of_the_command_line())))


def test_make_targets_in_the_documents_exist() -> None:
    targets = {line.partition(":")[0] for line in read("Makefile").splitlines() if ":" in line and line[:1].isalpha()}
    for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        for words in repository.fenced_commands(read(name), "make"):
            assert words and words[0] in targets, f"{name}: make {' '.join(words)}"


def options_of_the_command_line() -> dict[str, set[str]]:
    import typer

    from fleetsim.cli.main import app

    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    return {
        verb: {"--help"} | {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for verb, command in commands.items()
    }


def test_every_pinned_package_is_pinned_once_and_every_dependency_is_pinned() -> None:
    lines = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    assert all("==" in line for line in lines)
    pinned = [canonical(line.partition("==")[0]) for line in lines]
    assert len(pinned) == len(set(pinned))
    project = tomllib.loads(read("pyproject.toml"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    assert {canonical(requirement) for requirement in wanted} <= set(pinned)


def canonical(requirement: str) -> str:
    name = requirement.partition(">")[0].partition("=")[0].partition("[")[0]
    return name.strip().lower().replace("_", "-").replace(".", "-")


# -------------------------------------------------------------------------------------------------- every rule can fail

LAW = "# SPDX-License-Identifier: Apache-2.0\n"
OFFENDERS: dict[str, tuple[str, str]] = {
    "licence_line": ("fleetsim/host/a.py", '"""Says what it is."""\n'),
    "module_docstring": ("fleetsim/host/a.py", LAW + "x = 1\n"),
    "file_length": ("fleetsim/host/a.py", "x = 1\n" * 401),
    "function_length": ("fleetsim/host/a.py", "def f():\n" + "    x = 1\n" * 60),
    "laws_cite_a_source": ("fleetsim/linux/a.py", '@law\ndef f(x):\n    """Adds one."""\n    return x + 1\n'),
    "only_laws_go_without_types": ("fleetsim/host/a.py", "def f(x, y: int) -> int:\n    return x + y\n"),
    "compiled_in_one_place": ("fleetsim/linux/a.py", "@numba.njit(cache=True)\ndef f(x):\n    return x\n"),
    "no_libm_in_a_law": ("fleetsim/linux/a.py", "@law\ndef f(x):\n    return math.exp(x)\n"),
    "no_luck_of_its_own": ("fleetsim/fleet/a.py", "import numpy as np\nx = np.random.default_rng()\n"),
    "no_clock_in_the_simulation": ("fleetsim/host/a.py", "from time import monotonic\n"),
    "workloads_read_no_counters": ("fleetsim/workloads/a.py", 'def f(row):\n    return row["pswpin"]\n'),
    "faults_write_only_commands": ("fleetsim/faults/a.py", 'def f(row):\n    row["oom_kill"] += 1\n'),
}
INNOCENT = f'''{LAW}"""Says what it is."""

@law
def f(x: int) -> int:
    """Adds one.

    Source: mm/vmscan.c balance_pgdat().
    """
    return x + 1
'''


@pytest.mark.parametrize("rule", [*RULES_FOR_ALL_PYTHON, *RULES_FOR_THE_PACKAGE], ids=lambda rule: rule.__name__)
def test_each_rule_catches_an_offender_and_lets_the_innocent_go(rule: Rule) -> None:
    path, text = OFFENDERS[rule.__name__]
    assert list(rule(Source(path, text)))
    assert not list(rule(Source(path, INNOCENT)))


def test_a_docstring_does_not_count_towards_a_functions_length() -> None:
    rule = {rule.__name__: rule for rule in RULES_FOR_ALL_PYTHON}["function_length"]
    documented = 'def f():\n    """Long.\n' + "    words\n" * 60 + '    """\n' + "    x = 1\n" * 59
    assert not list(rule(Source("fleetsim/a.py", documented)))
    assert list(rule(Source("fleetsim/a.py", documented + "    x = 1\n")))


def test_luck_and_hashes_in_any_spelling_are_found() -> None:
    rule = {rule.__name__: rule for rule in RULES_FOR_THE_PACKAGE}["no_luck_of_its_own"]
    for text in ("import random", "from random import choice", "from uuid import uuid4", "from numpy.random import PCG64", "x = hash('a')"):
        assert list(rule(Source("fleetsim/fleet/a.py", text))), text


def test_banned_words_are_found_and_their_look_alikes_are_not() -> None:
    bad = ["# TO" + "DO later", "see /wo" + "rk/main/x", "from /ro" + "ot/.cache", "https://py" + "pi.org/simple", "x = 1  # no" + "qa"]
    for line in bad:
        assert list(repository.banned_words("a.py", line)), line
    good = ("the to-do list", "a network/wo" + "rk/load path", "~/.cache/fleetsim", "https://prometheus.io/docs", "x = 1  # noqa: E501")
    for line in good:
        assert not list(repository.banned_words("a.py", line)), line


def test_a_module_that_only_a_dead_module_imports_is_dead_and_a_discovered_one_is_not() -> None:
    imports = {
        "p.cli.main": {"p.a"},
        "p.a": set(),
        "p.b": {"p.c"},
        "p.c": {"p.b"},
        "p.faults.leak": {"p.faults.base"},
        "p.faults.base": set(),
    }
    assert repository.dead_modules(imports, ["p.cli.main"], ["p.faults"]) == ["p.b", "p.c"]
    assert repository.discovered_packages(['registry.import_all("p.faults")\n']) == {"p.faults"}


def test_a_document_that_names_what_is_not_there_is_found(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("def test_known() -> None: ...\n")
    good = "| x | `tests/test_a.py::test_known` |"
    assert not list(repository.named_tests_exist(good, tmp_path))
    assert list(repository.named_tests_exist(good.replace("known", "unknown"), tmp_path))
    assert list(repository.named_tests_exist(good.replace("test_a", "test_b"), tmp_path))
    assert not list(repository.dead_links("[a](tests/test_a.py#part) [b](https://prometheus.io/docs) [c](#here)", tmp_path))
    assert list(repository.dead_links("[a](tests/gone.py)", tmp_path))


def test_a_command_that_does_not_exist_is_found() -> None:
    options = {"check": {"--rules"}, "run": {"--out"}}
    document = "Text.\n```sh\n$ fleetsim check --rules a.yml \\\n  b.yaml > out\nfleetsim fly\nfleetsim run --fast x\n```\n"
    complaints = list(repository.unknown_commands(repository.fenced_commands(document, "fleetsim"), options))
    assert [complaint.partition(": ")[2].partition(";")[0] for complaint in complaints] == ["no verb 'fly'", "no option --fast"]


SMUGGLED = {
    "layers": ("fleetsim/linux/smuggled.py", "import fleetsim.host.spec\n"),
    "the judge is blind": ("fleetsim/verdict/smuggled.py", "import fleetsim.linux.vmstat\n"),
    "workloads know the kernel": ("fleetsim/workloads/smuggled.py", "import fleetsim.linux.vmstat\n"),
    "faults speak in commands": ("fleetsim/faults/smuggled.py", "import numpy\n"),
    "the kernel is pure": ("fleetsim/linux/smuggled.py", "import time\n"),
    "laws are compiled in one place": ("fleetsim/host/smuggled.py", "import numba\n"),
    "Ray is imported": ("fleetsim/host/smuggled.py", "import ray.util\n"),
    "prometheus_client is imported": ("fleetsim/verdict/smuggled.py", "import prometheus_client\n"),
    "web frameworks": ("fleetsim/cli/smuggled.py", "import starlette.routing\n"),
    "asyncssh": ("fleetsim/userland/smuggled.py", "import asyncssh\n"),
}


def test_every_import_contract_can_be_broken(tmp_path: Path) -> None:
    """A copy of the package gets one forbidden import per contract; import-linter must name every contract as broken."""
    shutil.copytree(REPO / "fleetsim", tmp_path / "fleetsim", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    for name, text in SMUGGLED.values():
        with (tmp_path / name).open("a", encoding="utf-8") as file:
            file.write(text)
    command = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as c; c()"
    result = run(sys.executable, "-c", command, "--no-cache", cwd=tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    output = " ".join(result.stdout.split())
    contracts = [contract["name"] for contract in tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]]
    assert sorted(contracts) == sorted(next(name for name in contracts if name.startswith(key)) for key in SMUGGLED)
    none_of([f"not broken by its smuggled import: {name}" for name in contracts if f"{name} BROKEN" not in output])
