# SPDX-License-Identifier: Apache-2.0
"""Taste and purity of one Python file, as small rules: a parsed file in, complaints out.

A complaint is `path:line: what is wrong and what would be right`. A rule knows nothing of the disk, so that
`test_tidy.py` can show each of them a small bad example. What a linter or an import contract can say is not said here
(ruff, mypy and import-linter are configured in pyproject.toml).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

LINES_MAX = 400
FUNCTION_LINES_MAX = 60
SPDX = "# SPDX-License-Identifier: Apache-2.0"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    path: str  # relative to the repository, with slashes
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def functions(self) -> list[Function]:
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    def within(self, *folders: str) -> bool:
        return any(self.path.startswith(f"fleetsim/{folder}/") for folder in folders)

    def says(self, node: ast.AST | int, sentence: str) -> str:
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return f"{self.path}:{line}: {sentence}"


# ------------------------------------------------------------------------------------------------------ shape of a file


def licence_line(source: Source) -> Iterator[str]:
    lines = source.text.splitlines()
    first = lines[1] if lines and lines[0].startswith("#!") and len(lines) > 1 else "".join(lines[:1])
    if source.text.strip() and first != SPDX:
        yield source.says(1, f"the first line must be {SPDX!r}")


def module_docstring(source: Source) -> Iterator[str]:
    if source.text.strip() and not ast.get_docstring(source.tree):
        yield source.says(1, "no module docstring: say what the file is, the rules it keeps and what it leaves out")


def file_length(source: Source) -> Iterator[str]:
    count = len(source.text.splitlines())
    if count > LINES_MAX:
        yield source.says(LINES_MAX + 1, f"{count} lines; a file has at most {LINES_MAX}: split it by what it says")


def function_length(source: Source) -> Iterator[str]:
    for function in source.functions:
        lines = (function.end_lineno or function.lineno) - function.lineno + 1 - docstring_lines(function)
        if lines > FUNCTION_LINES_MAX:
            yield source.says(function, f"{function.name} has {lines} lines besides its docstring; at most {FUNCTION_LINES_MAX}")


def docstring_lines(function: Function) -> int:
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return (first.end_lineno or first.lineno) - first.lineno + 1 if is_docstring else 0


# ---------------------------------------------------------------------------------------------------------------- laws

CITATION = re.compile(r"^\s*Source: \S", re.MULTILINE)
COMPILERS = {"njit", "jit", "vectorize", "guvectorize", "cfunc", "stencil", "jitclass", "generated_jit"}
LIBM = {
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow", "power", "float_power"),
    *("sin", "cos", "tan", "sinh", "cosh", "tanh", "erf", "gamma", "lgamma", "cbrt", "hypot"),
}


def decorator_names(function: Function | ast.ClassDef) -> set[str]:
    names = (ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in function.decorator_list)
    return {name.rpartition(".")[2] for name in names}


def is_law(function: Function) -> bool:
    return bool(decorator_names(function) & {"law", "inlined"})


def laws_cite_a_source(source: Source) -> Iterator[str]:
    for function in source.functions:
        if is_law(function) and not CITATION.search(ast.get_docstring(function) or ""):
            yield source.says(function, f"the law {function.name} has no line 'Source: …' in its docstring (file and function, or paper)")


def only_laws_go_without_types(source: Source) -> Iterator[str]:
    """mypy lets the packages of laws leave out annotations, because a law's datasheet holds them; nothing else may."""
    for function in source.functions:
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        bare = [argument.arg for argument in arguments if argument.annotation is None and argument.arg not in ("self", "cls")]
        if not is_law(function) and (bare or function.returns is None):
            yield source.says(function, f"{function.name} is no law and lacks types: {', '.join([*bare, 'its result'][: len(bare) or 1])}")


def compiled_in_one_place(source: Source) -> Iterator[str]:
    if source.path == "fleetsim/law.py":
        return
    for node in ast.walk(source.tree):
        if isinstance(node, Function | ast.ClassDef):
            for name in sorted(decorator_names(node) & COMPILERS):
                yield source.says(node, f"@{name} on {node.name}: laws are compiled by fleetsim.law's `law` only")


def no_libm_in_a_law(source: Source) -> Iterator[str]:
    """glibc's exp differs in its last bit between CPUs with and without FMA, and then two machines' histories differ."""
    for function in source.functions:
        for node in ast.walk(function) if is_law(function) else ():
            if isinstance(node, ast.Attribute) and node.attr in LIBM and ast.unparse(node.value) in ("math", "np", "numpy"):
                yield source.says(node, f"{ast.unparse(node)} in the law {function.name}: use the integer functions of fleetsim.law")
            if isinstance(node, ast.keyword) and node.arg in ("fastmath", "parallel"):
                yield source.says(node.value, f"{node.arg} in {function.name} makes results depend on the machine")


# ------------------------------------------------------------------------------------------------------------ determinism

SIMULATION = ("hardware", "linux", "allocators", "workloads", "host", "containers", "faults", "observe", "userland")
CLOCKS = {"time", "datetime", "calendar", "sched"}
LUCK = {"random", "secrets", "uuid"}
LUCKY_CALLS = {"os.urandom", "os.getrandom", "np.random", "numpy.random"}


def no_luck_of_its_own(source: Source) -> Iterator[str]:
    """Anywhere in the package: a run is a function of scenario and seed. Luck is drawn by hashing seed, host and purpose."""
    for name, node in imported_names(source.tree):
        if name.partition(".")[0] in LUCK or name.startswith("numpy.random"):
            yield source.says(node, f"imports {name}: luck is counter-based, keyed by (seed, host, purpose)")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in LUCKY_CALLS:
            yield source.says(node, f"{ast.unparse(node)}: luck is counter-based, keyed by (seed, host, purpose)")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hash":
            yield source.says(node, "hash() of text differs from process to process: use hashlib")


def no_clock_in_the_simulation(source: Source) -> Iterator[str]:
    if source.within(*SIMULATION):
        for name, node in imported_names(source.tree):
            if name.partition(".")[0] in CLOCKS:
                yield source.says(node, f"imports {name}: time is an argument here, integer nanoseconds of virtual time")


def imported_names(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


# --------------------------------------------------------------------------------------------- incidents must emerge

COUNTERS = re.compile(
    r"^(nr_|pg|psw|psi_|workingset_|thp_|oom_kill|allocstall|compact_|kswapd_|zone_reclaim|drop_|slabs_|swap_ra|unevictable_|numa_)"
    r"|^(loadavg|cpu_ns|meminfo|vmstat)$"
)


def workloads_read_no_counters(source: Source) -> Iterator[str]:
    """A workload learns of pressure by what a call returned and what it cost, as a real program does."""
    if not source.within("workloads"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            if COUNTERS.search(node.slice.value):
                yield source.says(node, f"reads the counter {node.slice.value!r}: a program sees only what its calls return and cost")


def faults_write_only_commands(source: Source) -> Iterator[str]:
    """A fault changes demand, a setting, a limit or a device by giving commands; it has nothing else to write to."""
    if not source.within("faults"):
        return
    for node in ast.walk(source.tree):
        targets: Iterable[ast.AST] = ()
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Subscript | ast.Attribute):
                    yield source.says(node, f"writes {ast.unparse(part)}: a fault returns Commands and changes nothing itself")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "object.__setattr__", "open", "exec", "eval"):
            yield source.says(node, f"calls {ast.unparse(node.func)}: a fault returns Commands and changes nothing itself")


RULES_FOR_ALL_PYTHON = (licence_line, module_docstring, file_length, function_length)
RULES_FOR_THE_PACKAGE = (
    laws_cite_a_source,
    only_laws_go_without_types,
    compiled_in_one_place,
    no_libm_in_a_law,
    no_luck_of_its_own,
    no_clock_in_the_simulation,
    workloads_read_no_counters,
    faults_write_only_commands,
)
