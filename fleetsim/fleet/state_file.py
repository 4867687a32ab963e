# SPDX-License-Identifier: Apache-2.0
"""One piece of a checkpoint as a file: some Python state, whole or not at all.

    fleetsim-state {"format":1,"sources":"…","bytes":n,"sha256":"…"}\\n     then n bytes: zstd of a pickle

Rules: a file appears under its name only when it is complete and on the disk (written beside it, then renamed). Reading checks the
format, the sources that wrote it (a state means nothing to other laws, nor to another version of a workload in Python) and the digest
before anything is unpickled, and refuses what is damaged or foreign with one sentence. Only classes of fleetsim, of installed
workloads, of NumPy's arrays and of the standard library's plain data are made from it.
Limits: the digest finds damage, not malice; a checkpoint is as trustworthy as the folder it lies in.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import pickle
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pyarrow as pa

from fleetsim.containers.plugin import GROUP
from fleetsim.errors import BadInput

FORMAT = 1
MAGIC = b"fleetsim-state "
HEADER_BYTES_MAX = 1024
PACKAGE = Path(__file__).parent.parent
NOT_SIMULATING = ("cli", "verdict", "gameday")

_DATA = {"array", "collections", "dataclasses", "datetime", "decimal", "enum", "fractions", "itertools", "random", "statistics", "uuid"}
"""Modules of the standard library whose objects are data: what a workload in Python may keep of its own."""
_PLAIN = {
    *(("builtins", name) for name in ("set", "frozenset", "complex", "slice", "range", "bytearray", "object")),
    ("functools", "partial"),
    ("types", "MappingProxyType"),
    ("types", "SimpleNamespace"),
    ("copyreg", "_reconstructor"),
    ("pathlib", "PosixPath"),
    ("pathlib", "Path"),
    ("pathlib", "PurePosixPath"),
}
_ARRAYS = {"numpy", "numpy._core.multiarray", "numpy.core.multiarray", "numpy._core.numeric", "numpy.core.numeric", "numpy.dtypes"}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] in {"fleetsim", *plug_in_packages()} or module in _ARRAYS | _DATA or (module, name) in _PLAIN:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")


@cache
def plug_in_packages() -> frozenset[str]:
    """The packages whose workloads are installed: what their programs know is in the state of their hosts."""
    return frozenset(point.module.partition(".")[0] for point in entry_points(group=GROUP))


@cache
def sources_digest() -> str:
    """SHA-256 (16 hex digits) over every source file that has a say in what a simulated host does, those of installed workloads too."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE)
        if name.parts[0] not in NOT_SIMULATING:
            digest.update(str(name).encode() + b"\0" + path.read_bytes() + b"\0")
    for package in sorted(plug_in_packages()):
        for path in sources_of(package):
            digest.update(f"{package} {path.name}".encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def sources_of(package: str) -> list[Path]:
    """The Python files of an installed package, or of a module that is one file; none of one that is not there."""
    found = importlib.util.find_spec(package)
    if found is None:
        return []
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    single = [Path(found.origin)] if not folders and found.origin is not None else []
    return single + sorted(path for folder in folders for path in folder.rglob("*.py"))


def pack(state: object) -> bytes:
    """The content of a state file."""
    plain = pickle.dumps(state, protocol=pickle.HIGHEST_PROTOCOL)
    body = pa.compress(plain, codec="zstd", asbytes=True)
    header = {
        "format": FORMAT,
        "sources": sources_digest(),
        "plain_bytes": len(plain),
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return MAGIC + json.dumps(header).encode() + b"\n" + body


def unpack(content: bytes, file: Path) -> Any:
    """The state in `content`, of which `file` is only said in a refusal."""
    head, _, body = content.partition(b"\n")
    header: Any = None
    if content.startswith(MAGIC) and len(head) <= HEADER_BYTES_MAX:
        try:
            header = json.loads(head.removeprefix(MAGIC))
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise BadInput("is not a state that fleetsim has written", file=file)
    if header.get("format") != FORMAT:
        raise BadInput(f"has format {header.get('format')!r}; this fleetsim reads format {FORMAT}", file=file)
    if header.get("bytes") != len(body) or header.get("sha256") != hashlib.sha256(body).hexdigest():
        raise BadInput("is damaged: its content is not what was written", file=file)
    if header.get("sources") != sources_digest():
        raise BadInput(
            "was written by another version of fleetsim, or of a workload in Python, whose hosts behave otherwise; run the scenario again",
            file=file,
        )
    try:
        plain = pa.decompress(body, decompressed_size=header["plain_bytes"], codec="zstd", asbytes=True)
        return _Unpickler(io.BytesIO(plain)).load()
    except (pickle.UnpicklingError, pa.ArrowException, AttributeError, EOFError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"holds what no checkpoint holds ({error})", file=file) from None


def write_state(file: Path, state: object) -> None:
    write_whole(file, pack(state))


def read_state(file: Path) -> Any:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise BadInput("is missing; the checkpoint is incomplete", file=file) from None
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", file=file) from None
    return unpack(content, file)


def write_whole(file: Path, content: bytes) -> None:
    """`file` holds `content` afterwards, or what it held before: never a part of it."""
    beside = file.with_name(f".{file.name}.new")
    with beside.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)
