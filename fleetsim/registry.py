# SPDX-License-Identifier: Apache-2.0
"""A dictionary of plugins that refuses duplicates and lists the known names when asked for an unknown one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from fleetsim.errors import BadInput

T = TypeVar("T")


class Registry(Generic[T]):
    """`kind` is what the entries are called in messages ("fault", "workload")."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        def add(entry: T) -> T:
            if name in self._entries:
                first, second = self._entries[name], entry
                raise ValueError(f"{self.kind} {name!r} is registered twice: by {first!r} and by {second!r}")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise BadInput(f"unknown {self.kind} {name!r}; known are: {', '.join(self)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))


def import_all(package: str) -> None:
    """Import every module of `package` in name order, so that each registers itself."""
    module = importlib.import_module(package)
    for info in sorted(pkgutil.iter_modules(module.__path__), key=lambda i: i.name):
        importlib.import_module(f"{package}.{info.name}")
