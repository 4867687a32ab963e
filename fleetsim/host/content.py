# SPDX-License-Identifier: Apache-2.0
"""What of a host's record counts when two of them are compared: its content, whatever the size class it is kept in.

    digest = SHA-256 over every field, tables without the rows at their end that were never used, in the widest class's types

Rows are taken from the low end (or all from the high one), so a table's used rows are the same in every class that is large enough,
and only how many empty ones there are besides differs. An empty row is what boot leaves of a record of zeros.
Limits: classes with rings of the same size (standard and large; a small host waits earlier for a full ring, and is another host).
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np

from fleetsim.host.boot import clear_tables
from fleetsim.host.state import HOST
from fleetsim.linux.mm_types import COHORT

WIDE_LINKS = ("cg", "shadow_cg")  # narrower in a class with fewer cgroups
COHORT_WIDE = np.dtype([(name, "i2" if name in WIDE_LINKS else COHORT[name]) for name in COHORT.names or ()])
FIXED = ("zones",)  # the same number of rows in each class, and boot leaves them different
FROM_ABOVE = ("populations",)
"""Tables whose rows are taken from the high end."""


@cache
def _empty() -> Any:
    """A record in which no table has a used row."""
    row = np.zeros(1, HOST)[0]
    clear_tables(row)
    return row


def used_rows(name: str, table: Any) -> Any:
    """A table up to its last row that is not empty, or from its first on if rows are taken from the high end."""
    empty = _empty()[name][0].tobytes()
    width = len(empty)
    content = table.tobytes()
    first, last = 0, len(table)
    if name in FROM_ABOVE:
        while first < last and content[first * width : (first + 1) * width] == empty:
            first += 1
        return table[first:]
    while last and content[(last - 1) * width : last * width] == empty:
        last -= 1
    return table[:last]


def content_digest(record: bytes) -> bytes:
    """SHA-256 of what a record (its bytes) says."""
    row = np.frombuffer(record, HOST)[0]
    digest = hashlib.sha256()
    for name in HOST.names or ():
        value = row[name]
        if value.ndim > 0 and name not in FIXED:
            value = used_rows(name, value)
            digest.update(len(value).to_bytes(8, "little"))
        if name == "cohorts":
            value = value.astype(COHORT_WIDE)
        digest.update(value.tobytes())
    return digest.digest()
