# SPDX-License-Identifier: Apache-2.0
"""Tidiness of the repository as a whole: which files there are, banned words, dead modules, documents that must stay true.

Functions take text, names or a folder and return complaints, so that `test_tidy.py` can hand them small bad examples.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

# ------------------------------------------------------------------------------------------------------------- the files

NOT_OURS_TO_JUDGE = ("LICENSE", "constraints.txt", "tests/golden/", "tests/ground_truth/")


def files_of(repo: Path) -> list[str]:
    """Every file that is or would be committed, as relative paths; without git (a source archive) every file but the caches."""
    listed = subprocess.run(
        ["git", "-C", str(repo), "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=False
    )
    if listed.returncode == 0:
        names = [name for name in listed.stdout.decode().split("\0") if name]
    else:
        names = [str(path.relative_to(repo)) for path in repo.rglob("*") if path.is_file()]
        names = [name for name in names if not any(part.startswith(".") and part != ".ci" for part in name.split("/"))]
    return sorted(name for name in names if (repo / name).is_file())


# ---------------------------------------------------------------------------------------------------------- banned words

# Written so that no pattern matches its own line.
BANNED = {
    r"\b(TO[D]O|FIX[M]E|XX[X]|HA[C]K)\b": "finish it, or file an issue",
    r"(?<![\w.>~-])/(work|root|home/\w+|Users/\w+)/": "a path of one machine: make it relative, or an argument",
    r"\b(pypi|pythonhosted|npmjs|(deb|security|snapshot)\.debian)\.(org|io|com)\b": "the host name of a package registry",
}
BANNED_IN_PYTHON = {
    r"^\s*print\(\s*[\"']?DEBUG": "left over from debugging",
    r"\bbreakpoint\(\)|\bpdb\.set_trace\(\)": "left over from debugging",
    r"#\s*type:\s*ignore\s*$": "say which error: type: ignore[code]",
    r"#\s*noqa\s*$": "say which rule: noqa: CODE",
}


def banned_words(path: str, text: str) -> Iterator[str]:
    patterns = BANNED | (BANNED_IN_PYTHON if path.endswith(".py") else {})
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, instead in patterns.items():
            if found := re.search(pattern, line):
                yield f"{path}:{number}: {found.group(0).strip()!r}: {instead}"


# ---------------------------------------------------------------------------------------------------------- dead modules


def dead_modules(imports: Mapping[str, Collection[str]], roots: Iterable[str], discovered: Iterable[str]) -> list[str]:
    """Modules that no path of imports reaches from the entry points.

    imports     module → modules it imports
    roots       entry points
    discovered  packages whose every module is imported by `registry.import_all`
    """
    folders = tuple(f"{package}." for package in discovered)
    waiting = [*roots, *(module for module in imports if module.startswith(folders))]
    alive: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module not in alive:
            alive.add(module)
            waiting.extend(imports.get(module, ()))
    return sorted(set(imports) - alive)


def discovered_packages(texts: Iterable[str]) -> set[str]:
    """The packages that are handed to `import_all("…")` somewhere."""
    packages = set()
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "import_all":
                packages |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return packages


# ------------------------------------------------------------------------------------------------ documents that stay true


def named_tests_exist(document: str, repo: Path) -> Iterator[str]:
    """Every `tests/…::test_name` and every `path/of/a/file` in backticks is there."""
    for number, line in enumerate(document.splitlines(), 1):
        for path, name in re.findall(r"`((?:tests|fleetsim|chaos_scenarios|docs|scripts|deploy|dashboards)/[\w./*-]+)(?:::(\w+))?`", line):
            if "*" in path:
                if not any(repo.glob(path)):
                    yield f"line {number}: nothing matches {path}"
            elif not (repo / path).exists():
                yield f"line {number}: {path} does not exist"
            elif name and not re.search(rf"^\s*(?:async )?(?:def|class) {name}\b", (repo / path).read_text(encoding="utf-8"), re.MULTILINE):
                yield f"line {number}: {path} has no {name}"


def dead_links(document: str, repo: Path) -> Iterator[str]:
    """Relative links of a Markdown document that lead nowhere."""
    for target in re.findall(r"\]\(([^)\s]+)\)", document):
        path = target.partition("#")[0]
        if path and "://" not in path and not (repo / path).exists():
            yield f"the link to {target} leads nowhere"


FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def fenced_commands(document: str, program: str) -> list[list[str]]:
    """The command lines of `program` in the document's fenced blocks, as words, without prompt, comment and redirection."""
    commands = []
    for block in FENCE.findall(document):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
            if line.split(" ")[0] == program:
                commands.append(shlex.split(re.split(r"\s[|>]|\s&&", line)[0], comments=True)[1:])
    return commands


def unknown_commands(commands: Iterable[list[str]], options_of: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Verbs and options that the command line does not have. `options_of`: verb → its options."""
    for words in commands:
        verbs = [word for word in words if not word.startswith("-")]
        if verbs and verbs[0] not in options_of:
            yield f"fleetsim {' '.join(words)}: no verb {verbs[0]!r}; there are {', '.join(sorted(options_of))}"
            continue
        known = options_of[verbs[0]] if verbs else {"--help", "--version"}
        for word in words:
            option = word.partition("=")[0]
            if option.startswith("--") and option not in known:
                yield f"fleetsim {' '.join(words)}: no option {option}"
