# SPDX-License-Identifier: Apache-2.0
"""Durations, sizes and rates as people write them, and the one place where they become numbers.

    90s  5m  2h  1h30m  250ms     → nanoseconds (Duration)
    512MiB  512Mi  64GiB  0       → bytes       (Size)
    800MiB/s  20Mi/s              → bytes per s (ByteRate)

Rules: a number without its unit is refused (0 excepted), and so are decimal units (MB, GB): memory is counted in powers of two,
and `4GB` is 7 % less than what its author meant. Leaves out: fractions of a unit (`1.5GiB` is written `1536MiB`).
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

NS_PER_S = 1_000_000_000
_NS = {"ms": 1_000_000, "s": NS_PER_S, "m": 60 * NS_PER_S, "h": 3600 * NS_PER_S, "d": 86400 * NS_PER_S}
_BYTES = {"B": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9]+)(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,12})(?:(Ki|Mi|Gi|Ti)B?|(B))")
_DECIMAL = re.compile(r"[0-9]+\s*([kKMGT])B?(/s)?")


def duration_ns(value: object) -> int:
    """Nanoseconds of `90s`, `5m`, `2h`, `1h30m`."""
    if value == 0 and not isinstance(value, bool):
        return 0
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError("write a duration with its unit, such as 90s, 5m or 2h")
    total = sum(int(number) * _NS[unit] for number, unit in _DURATION_PART.findall(value))
    if total > 366 * _NS["d"]:
        raise ValueError("a duration is at most 366d")
    return total


def size_bytes(value: object) -> int:
    """Bytes of `512MiB`, `512Mi`, `64GiB`."""
    if value == 0 and not isinstance(value, bool):
        return 0
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        if isinstance(value, str) and (decimal := _DECIMAL.fullmatch(value)):
            prefix = decimal.group(1).upper()
            raise ValueError(f"sizes are binary: write {prefix}iB (or {prefix}i), such as 512MiB")
        raise ValueError("write a size with its unit, such as 512MiB, 64GiB or 512Mi")
    total = int(match.group(1)) * _BYTES[match.group(2) or match.group(3)]
    if total > 1 << 60:
        raise ValueError("a size is at most 1048576TiB")
    return total


def rate_bytes_per_s(value: object) -> int:
    """Bytes per second of `800MiB/s`."""
    if not isinstance(value, str) or not value.endswith("/s"):
        raise ValueError("write a rate per second, such as 20MiB/s")
    try:
        rate = size_bytes(value[:-2])
    except ValueError:
        raise ValueError("write a rate per second in binary units, such as 20MiB/s") from None
    if rate == 0:
        raise ValueError("a rate is above zero, such as 20MiB/s")
    return rate


def positive_duration_ns(value: object) -> int:
    duration = duration_ns(value)
    if duration == 0:
        raise ValueError("a duration here is above zero, such as 5m")
    return duration


def positive_size_bytes(value: object) -> int:
    size = size_bytes(value)
    if size == 0:
        raise ValueError("a size here is above zero, such as 512MiB")
    return size


def _schema(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


_DURATION_SCHEMA = WithJsonSchema(
    {"anyOf": [{"type": "string", "pattern": r"^([0-9]+(ms|s|m|h|d))+$"}, {"const": 0}], "examples": ["90s", "5m", "1h30m"]}
)
_SIZE_SCHEMA = WithJsonSchema(
    {"anyOf": [{"type": "string", "pattern": r"^[0-9]+((Ki|Mi|Gi|Ti)B?|B)$"}, {"const": 0}], "examples": ["512MiB", "64GiB"]}
)

Duration = Annotated[int, BeforeValidator(duration_ns), _DURATION_SCHEMA]
"""Nanoseconds."""
PositiveDuration = Annotated[int, BeforeValidator(positive_duration_ns), _schema(r"^([0-9]+(ms|s|m|h|d))+$", "5m")]
Size = Annotated[int, BeforeValidator(size_bytes), _SIZE_SCHEMA]
"""Bytes."""
PositiveSize = Annotated[int, BeforeValidator(positive_size_bytes), _schema(r"^[0-9]+((Ki|Mi|Gi|Ti)B?|B)$", "512MiB")]
ByteRate = Annotated[int, BeforeValidator(rate_bytes_per_s), _schema(r"^[0-9]+((Ki|Mi|Gi|Ti)B?|B)/s$", "20MiB/s")]
"""Bytes per second."""


def show_bytes(count: int) -> str:
    """`3145728` → `3MiB`: the largest unit that keeps it whole, so that it reads back as the same number."""
    for unit in ("Ti", "Gi", "Mi", "Ki"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit}B"
    return f"{count}B" if count else "0"


def show_duration(duration: int) -> str:
    """`90_000_000_000` → `90s`, `300 s` → `5m`: the largest unit that keeps it whole (below a millisecond it is cut)."""
    for unit in ("h", "m", "s"):
        if duration and duration % _NS[unit] == 0:
            return f"{duration // _NS[unit]}{unit}"
    return f"{duration // _NS['ms']}ms" if duration else "0"
