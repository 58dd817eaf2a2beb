"""Our nouns as plain JSON values, and back.

Fields at their default are left out, so rows stay short and old files can be read after a field was added.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def encode(value: Any) -> Any:
    """A dataclass (or a nest of containers with them) as plain JSON values; fields at their default are left out.

    >>> encode({"loss": float("nan"), "names": {"b", "a"}, "where": Path("x")})
    {'loss': 'NaN', 'names': ['a', 'b'], 'where': 'x'}

    Raises:
        TypeError: something that JSON cannot hold (a tensor, a function).
    """
    if value is None or type(value) in _PLAIN:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out = {}
        for name, default, factory in _fields(type(value)):
            item = getattr(value, name)
            if item != (default if factory is None else factory()):
                out[name] = encode(item)
        return out
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):  # JSON has no word for these; `decode` reads them back
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Set):  # no order of its own, and a digest needs one
        return sorted((encode(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(value, Iterable):
        return [encode(item) for item in value]
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


_PLAIN = frozenset({str, int, bool})


@functools.cache
def _fields(kind: type) -> tuple[tuple[str, Any, Any], ...]:
    """Name, default, and default factory (or None), of each field of a dataclass."""
    return tuple(
        (field.name, field.default, field.default_factory if callable(field.default_factory) else None)
        for field in dataclasses.fields(kind)
    )


def decode(kind: Any, value: Any) -> Any:
    """The inverse of `encode` for a dataclass type (unknown keys are ignored: a newer version may add fields)."""
    if value is None or kind is Any:
        return value
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            if argument is type(None):
                continue
            return decode(argument, value)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(decode(arguments[0], item) for item in value)
        return tuple(decode(argument, item) for argument, item in zip(arguments, value, strict=True))
    if origin is list:
        return [decode(arguments[0], item) for item in value]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: decode(arguments[1], item) for key, item in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{name: decode(hint, value[name]) for name, hint in hints.items() if name in value})
    if kind is float:
        return float(value)
    return value


def from_line(kind: type[T], line: str | bytes) -> T:
    """The dataclass that one JSON object holds.

    Raises:
        ValueError: no JSON, no object, or one that lacks what the type requires.
    """
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object was expected, not {type(value).__name__}")
    try:
        return typing.cast(T, decode(kind, value))
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(str(error)) from error


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind)
    return _HINTS[kind]


def to_line(value: Any) -> str:
    """A value as one line of JSON. Half of a surrogate pair (an answer cut inside an emoji) is written as an escape."""
    plain = encode(value)
    line = json.dumps(plain, ensure_ascii=False)
    return line if is_unicode(line) else json.dumps(plain)


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, 16 hex digits: the same on every machine."""
    text = json.dumps(encode(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
