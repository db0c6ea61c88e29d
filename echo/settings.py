"""Typed settings from plain values, with every name and type checked: policies, runs and launchers are all built here."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal, TypeVar

from echo.refusals import brief, nearest, suggestion

T = TypeVar("T")
LARGEST = 1_000_000
"""Largest absolute value of a number, unless its field sets another: `field(metadata={"most": ...})`; larger counts would never end."""
NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def build(kind: type[T], values: Mapping[str, Any], where: str = "", *, of: str = "", upon: T | None = None) -> T:
    """A dataclass from plain values; a field with a default may be left out.

    Args:
        kind: the dataclass. Its fields are numbers, strings, booleans, enumerations, literals, tuples and dataclasses of these.
        values: plain values by field name. A group of settings changes only the fields of its default that it names.
        where: path of `values` in the whole config with a trailing dot, for messages.
        of: owner of the settings, for messages.
        upon: the instance to change; None uses the fields' defaults.

    Raises:
        ValueError: one line that names the key or value, the rule, and the nearest valid choice.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            unknown = f"unknown setting {where + key!r} of {of}; nearest is {nearest(key, fields)!r}"
            raise ValueError(unknown if of else f"unknown key {where}{key}: {suggestion(key, fields)}")
    defaults = {name: _default(field) if upon is None else getattr(upon, name) for name, field in fields.items()}
    for name, default in defaults.items():
        if name not in values and default is dataclasses.MISSING:
            raise ValueError(f"{where}{name} is missing: {of or kind.__name__} needs it")
    made = {name: _value(hints[name], value, f"{where}{name}", of, defaults[name]) for name, value in values.items()}
    for name, value in made.items():
        _check_said(f"{where}{name}", value, fields[name].metadata.get("most", LARGEST))
    return kind(**made) if upon is None else dataclasses.replace(upon, **made)  # type: ignore[type-var]


def _check_said(where: str, value: object, most: float) -> None:
    """Raises ValueError for a number above its setting's limit, and for an empty string."""
    if isinstance(value, str) and not value.strip() and not where.endswith("label"):
        raise ValueError(f"{where}=: nothing is said, as by a variable that is not set; leave it out, or say it")
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, (int, float)) and abs(one) > most:
            raise ValueError(f"{where}={brief(one)}: {most} at most; nearest is {most if one > 0 else -most}")


def silent(default: T) -> T:
    """A default at which `spoken` leaves the setting out, for settings that were added later: stored runs keep their names."""
    return dataclasses.field(default=default, metadata={"silent": True})


def spoken(settings: Any) -> dict[str, Any]:
    """A dataclass of settings as plain values, by which runs are named; without silent settings at their default."""
    values = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if not (field.metadata.get("silent") and getattr(settings, field.name) == field.default)
    }
    return {name: spoken(value) if dataclasses.is_dataclass(value) else value for name, value in values.items()}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _value(hint: Any, value: Any, where: str, of: str, default: Any = dataclasses.MISSING) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or (isinstance(hint, type) and (dataclasses.is_dataclass(hint) or issubclass(hint, Enum)) and isinstance(value, hint)):
        return value
    if dataclasses.is_dataclass(hint):
        return _group(typing.cast(type, hint), value, where, of, default)
    if origin is Literal:
        if value in inner:
            return value
        raise ValueError(f"{where}={brief(value)}: {suggestion(str(value), map(str, inner))}")
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (one,) = (choice for choice in inner if choice is not type(None))
        return _value(one, value, where, of, default)
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError(f"{where}={brief(value)}: a list is expected here")
        return tuple(_value(inner[0], one, where, of) for one in value)
    if origin is not None:
        return dict(value)
    return _scalar(hint, value, where)


def _group(kind: type, value: Any, where: str, of: str, default: Any) -> Any:
    upon = default if isinstance(default, kind) else None
    if isinstance(value, Mapping):
        return build(kind, value, f"{where}.", of=of, upon=upon)
    name = dataclasses.fields(kind)[0].name
    example = "" if upon is None else f", for example {where}.{name}={getattr(upon, name)}"
    raise ValueError(f"{where}={brief(value)}: a group of settings is expected{example or ' here'}")


def _scalar(hint: type, value: Any, where: str) -> Any:
    if issubclass(hint, Enum):
        names = [str(one.value) for one in hint]
        if str(value) in names:
            return hint(value)
        raise ValueError(f"{where}={brief(value)}: {brief(value)!r} is none of {', '.join(names)}; nearest is {nearest(value, names)!r}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return math.inf if abs(value) > 1e300 else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}={brief(value)}: a finite number is expected here, for example 1.0")
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    quoted = f", which of digits is '{where}=\"{value}\"'" if hint is str and isinstance(value, (int, float)) else ""
    raise ValueError(f"{where}={brief(value)}: {NOUNS.get(hint, hint.__name__)} is expected here{quoted}")
