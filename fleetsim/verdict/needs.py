# SPDX-License-Identifier: Apache-2.0
"""What an expression reads: its selectors, and which of its metrics nobody provides.

A metric that no exporter of the run has makes a rule *not evaluable*: it would stay silent for ever, or (`absent`)
fire for ever, and neither says anything about the rule. Of `a or b` one evaluable side is enough, a side without
any metric (`or vector(0)`) does not count as one.
PromQL is only parsed here (promql-parser), never evaluated. Regular expressions in matchers are Go's RE2; they are
tried with Python's `re`, which agrees on all that published rules use.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import promql_parser as promql


@dataclass(frozen=True)
class Selector:
    """`name{matchers}`; each matcher is (label, op, value) with op one of = != =~ !~."""

    name: str | None
    matchers: tuple[tuple[str, str, str], ...]

    def __str__(self) -> str:
        return self.name or "{" + ",".join(f'{label}{op}"{value}"' for label, op, value in self.matchers) + "}"

    def accepts(self, label: str, value: str) -> bool:
        """Whether the matchers on `label` (all others ignored) accept `value`."""
        return all(_matches(op, wanted, value) for name, op, wanted in self.matchers if name == label)

    def accepts_name(self, metric: str) -> bool:
        return self.name == metric if self.name else self.accepts("__name__", metric)


def _matches(op: str, wanted: str, value: str) -> bool:
    if op in ("=", "!="):
        return (wanted == value) == (op == "=")
    try:
        return (re.fullmatch(wanted, value, re.DOTALL) is not None) == (op == "=~")
    except re.error:
        return True  # a pattern only RE2 knows: assume that it matches rather than call the rule not evaluable


_OPS = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}


@functools.cache
def parse(expr: str) -> promql.Expr | None:
    """None for what promql-parser cannot read although Prometheus can (promtool has the last word on syntax)."""
    try:
        return promql.parse(expr)
    except ValueError:
        return None


def _selector(node: promql.VectorSelector) -> Selector:
    found = [(m.name, _OPS[str(m.op).rsplit(".", 1)[-1]], m.value) for m in node.matchers.matchers]
    exact = [value for label, op, value in found if label == "__name__" and op == "="]
    return Selector(node.name or (exact[0] if exact else None), tuple(found))


def _children(node: promql.Expr) -> Iterator[promql.Expr]:
    if isinstance(node, promql.BinaryExpr):
        yield node.lhs
        yield node.rhs
    elif isinstance(node, promql.Call):
        yield from node.args
    elif isinstance(node, promql.AggregateExpr):
        yield node.expr
        if node.param is not None:
            yield node.param
    elif isinstance(node, promql.MatrixSelector):
        yield node.vector_selector
    elif isinstance(node, (promql.ParenExpr, promql.UnaryExpr, promql.SubqueryExpr)):
        yield node.expr


@functools.cache
def selectors(expr: str) -> tuple[Selector, ...] | None:
    """Every selector of the expression, without repetition; None if it cannot be parsed."""
    root = parse(expr)
    if root is None:
        return None
    return tuple(dict.fromkeys(_walk(root)))


def _walk(node: promql.Expr) -> Iterator[Selector]:
    if isinstance(node, promql.VectorSelector):
        yield _selector(node)
    for child in _children(node):
        yield from _walk(child)


def missing(expr: str, lacks: Callable[[Selector], list[str]]) -> list[str]:
    """Names of the metrics without which the expression says nothing. `lacks` gives, per selector, what it lacks."""
    root = parse(expr)
    return [] if root is None else list(dict.fromkeys(_missing(root, lacks)))


def _missing(node: promql.Expr, lacks: Callable[[Selector], list[str]]) -> list[str]:
    if isinstance(node, promql.VectorSelector):
        return lacks(_selector(node))
    if isinstance(node, promql.BinaryExpr) and str(node.op) == "or":
        sides = [_missing(side, lacks) for side in (node.lhs, node.rhs) if next(_walk(side), None) is not None]
        return [] if any(not side for side in sides) else [name for side in sides for name in side]
    return [name for child in _children(node) for name in _missing(child, lacks)]
