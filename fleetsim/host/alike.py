# SPDX-License-Identifier: Apache-2.0
"""Hosts that are equal but for what they are called boot once: the others are copies, bit for bit what booting each gives.

    boots = Boots(records, tick_ns)
    names = boots.boot(i, spec, host_key)       fills row i, by copying a row that was filled before if that gives the same

Rules: nothing that boot does depends on a host's luck, so the record of an equal host differs by `host_key` alone, and the names beside
it by the host's own name and by those of its cgroups (runtimes make ids of them). Only bytes that booting wrote are copied: memory that
a record has never touched stays untouched. Copies are made before anything runs.
Leaves out: processes of plug-ins, of which each host has its own Python objects (such hosts boot each), and comparing with more than the
last MODELS_MAX hosts that were unlike all before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fleetsim.host.boot import boot
from fleetsim.host.programs import Names
from fleetsim.host.spec import HostSpec

MODELS_MAX = 8
BLOCK = 512  # bytes that are copied together or not at all
COMPARED = tuple(field.name for field in fields(HostSpec) if field.name not in ("name", "pods"))


@runtime_checkable
class PodsOfHost(Protocol):
    """Pods of which it is known how they would differ on another host (`containers/pod_spec.py`)."""

    def alike(self, other: object) -> bool:
        """True if they are the other's, but for the host's name and what follows from it."""
        ...

    def cgroup_names(self) -> Sequence[str]:
        """What follows from it, in the same order for all that are alike."""
        ...


@dataclass
class Model:
    """A host that was booted, of which copies can be made."""

    spec: HostSpec
    names: Names
    cgroups: Sequence[str]  # those called after the host
    content: NDArray[np.uint8]  # its record as it is after booting
    written: tuple[slice, ...]  # where it is not all zeroes

    def copy_to(self, content: NDArray[np.uint8], spec: HostSpec) -> Names:
        """The record of an equal host into `content`, which is all zeroes; its names."""
        for part in self.written:
            content[part] = self.content[part]
        called = dict(zip(self.cgroups, cgroup_names(spec), strict=True))
        return self.names.of_equal_host(spec.name, called)


class Boots:
    """What fills the rows of `records`, which are all zeroes, one after the other."""

    def __init__(self, records: np.ndarray, tick_ns: int) -> None:
        self._records, self._tick_ns = records, tick_ns
        self._bytes = records.view(np.uint8).reshape(len(records), records.dtype.itemsize)
        self._models: list[Model] = []  # the latest first

    def boot(self, i: int, spec: HostSpec, host_key: int) -> Names:
        """Fill row `i` from `spec`; the names beside it. BadInput as `host/boot.py` says."""
        for model in self._models:
            if alike(model.spec, spec):
                names = model.copy_to(self._bytes[i], spec)
                self._records[i]["host_key"] = host_key
                return names
        names = boot(spec, self._records[i], host_key, self._tick_ns)
        if not names.plugins:
            model = Model(spec, names.of_equal_host(spec.name, {}), cgroup_names(spec), self._bytes[i], written(self._bytes[i]))
            self._models = [model, *self._models[: MODELS_MAX - 1]]
        return names


def alike(one: HostSpec, other: HostSpec) -> bool:
    """True if the two differ by their names alone, and by what follows from those."""
    for name in COMPARED:
        a, b = getattr(one, name), getattr(other, name)
        if a is not b and a != b:
            return False
    return one.pods.alike(other.pods) if isinstance(one.pods, PodsOfHost) else one.pods == other.pods


def cgroup_names(spec: HostSpec) -> Sequence[str]:
    return spec.pods.cgroup_names() if isinstance(spec.pods, PodsOfHost) else ()


def written(content: NDArray[np.uint8]) -> tuple[slice, ...]:
    """The stretches of whole blocks with a byte other than zero in them."""
    whole = len(content) // BLOCK
    used = content[: whole * BLOCK].reshape(whole, BLOCK).any(axis=1)
    edges = np.flatnonzero(np.diff(used, prepend=False, append=False)) * BLOCK
    stretches = [slice(first, end) for first, end in edges.reshape(-1, 2).tolist()]
    return (*stretches, slice(whole * BLOCK, len(content)))  # and whatever is behind the last whole block
