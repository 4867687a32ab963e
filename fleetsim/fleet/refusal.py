# SPDX-License-Identifier: Apache-2.0
"""From pydantic's complaints to ONE sentence: file, line, the value, and what would be right.

The first wrong thing in the order of the file is told; pydantic's own words never reach a user.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fleetsim.errors import BadInput
from fleetsim.fleet.yaml_source import Place, Source

M = TypeVar("M", bound=BaseModel)

_TYPES = {
    "int_type": "write a whole number, such as 4",
    "float_type": "write a number, such as 0.5",
    "string_type": "write text (quote it if it looks like a number)",
    "bool_type": "write true or false",
    "list_type": "write a list, such as [a, b]",
    "tuple_type": "write a list, such as [a, b]",
    "dict_type": "write keys and values, such as {key: value}",
    "model_type": "write keys and values, such as {key: value}",
    "mapping_type": "write keys and values, such as {key: value}",
}


def build(model: type[M], values: Mapping[str, Any], source: Source, place: Place, what: str) -> M:
    """`model` made of `values`, which stand at `place` of the file; `what` names the thing in sentences ("a pod")."""
    try:
        return model.model_validate(values, context={"folder": source.file.parent})
    except ValidationError as error:
        errors = error.errors()
        misspelt = {e["loc"][:-1] for e in errors if e["type"] == "extra_forbidden"}  # then a missing key there is the same mistake
        told = [e for e in errors if e["type"] != "missing" or e["loc"][:-1] not in misspelt]
        first = min(told, key=lambda e: (source.line((*place, *_inside(e))), [str(part) for part in e["loc"]]))
        raise refusal(first, model, values, source, place, what) from None


def _inside(error: ErrorDetails) -> Place:
    return tuple(part for part in error["loc"] if part != "[key]")


def _as_written(values: Mapping[str, Any], error: ErrorDetails) -> Any:
    """The value as it stands in the file; pydantic may know it converted already (bytes instead of 64MiB)."""
    value: Any = values
    for part in _inside(error):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return error["input"]
    return value


def refusal(error: ErrorDetails, model: type[BaseModel], values: Mapping[str, Any], source: Source, place: Place, what: str) -> BadInput:
    inside, value = _inside(error), _as_written(values, error)
    where: Place = (*place, *inside)
    key = ".".join(str(part) for part in inside)
    kind = error["type"]
    if kind == "extra_forbidden":
        return source.refuse(where, unknown_key(str(inside[-1]), what, known_keys(model, inside[:-1])))
    if kind == "missing":
        field = model.model_fields.get(str(inside[0])) if len(inside) == 1 else None
        meaning = f" ({field.description})" if field is not None and field.description else ""
        return source.refuse(where[:-1], f"{what} needs the key {str(inside[-1])!r}{meaning}")
    right = right_value(error)
    if not inside:
        return source.refuse(place, f"{what}: {right}" if kind == "value_error" else f"{what} is {shown(value)}; {right}")
    return source.refuse(where, f"{key!r} of {what} is {shown(value)}; {right}")


def right_value(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind in _TYPES:
        return _TYPES[kind]
    if kind in ("literal_error", "enum"):
        return f"write {context['expected']}"
    bounds = {
        "greater_than_equal": ("ge", "at least"),
        "greater_than": ("gt", "above"),
        "less_than_equal": ("le", "at most"),
        "less_than": ("lt", "below"),
    }
    if kind in bounds:
        name, word = bounds[kind]
        return f"it is {word} {context[name]}"
    if kind in ("too_short", "string_too_short"):
        return f"it has at least {context.get('min_length')} entries" if kind == "too_short" else "it may not be empty"
    if kind in ("too_long", "string_too_long"):
        return f"it has at most {context.get('max_length')} entries or letters"
    return error["msg"][0].lower() + error["msg"][1:]


def known_keys(model: type[BaseModel], inside: Place) -> list[str]:
    """The keys of `model`, or of the model that stands at `inside` of it."""
    for part in inside:
        if isinstance(part, str):
            field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
            nested = _nested(field.annotation) if field is not None else None
            if nested is None:
                return []
            model = nested
    return [field.alias or name for name, field in model.model_fields.items()]


def _nested(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _nested(argument)) is not None:
            return found
    return None


def unknown_key(key: str, what: str, known: Iterable[str]) -> str:
    names = list(known)
    return f"{what} has no key {key!r}{did_you_mean(key, names)}; known keys are {', '.join(names)}"


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    names = list(known)
    return f"unknown {kind} {shown(name)}{did_you_mean(str(name), names)}; known are {', '.join(names)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def shown(value: object) -> str:
    """A value as a sentence shows it: short, on one line."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…" + text[-1]
