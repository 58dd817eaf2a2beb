"""Settings: frozen dataclasses, built from a run file (YAML) and `--set a.b=c`, and written back.

A run file is a recorded recipe call. Its keys are the fields of the recipe's dataclass; a component is given by name
(`teacher: scripted`) or by name and settings (`teacher: {name: replay, path: answers.jsonl}`). Unknown keys, wrong
types and unknown names are reported all at once, each with the nearest name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from lmdistill import registry
from lmdistill.errors import ConfigError, LmdistillError, did_you_mean
from lmdistill.runfile import INSTEAD_OF
from lmdistill.runfile import assign as assign
from lmdistill.runfile import load as load

T = TypeVar("T")


def component(kind: str, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that holds a component of a kind (or a tuple of them).

    `default` is a name, a tuple of names, or None; without it the setting is required.
    """
    metadata = {"kind": kind}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    if default is None:
        return dataclasses.field(default=None, metadata=metadata)

    def make() -> Any:
        if isinstance(default, tuple):
            return tuple(registry.load(kind, name)() for name in default)
        return registry.load(kind, default)()

    return dataclasses.field(default_factory=make, metadata=metadata)


# --- building --------------------------------------------------------------------------------------------------------


def build(cls: type[T], settings: Mapping[str, Any], where: str = "") -> T:
    """An instance of a settings dataclass.

    Raises:
        ConfigError: every problem at once: unknown key (with the nearest), wrong type, missing value.
    """
    problems: list[str] = []
    built = _build(cls, settings, where, problems)
    if problems:
        raise ConfigError(problems)
    return typing.cast(T, built)


def _build(cls: Any, settings: Any, where: str, problems: list[str], base: Any = None) -> Any:
    """An instance; what the settings leave out is taken from `base` (another instance) where there is one."""
    if not isinstance(settings, Mapping):
        problems.append(f"{where or cls.__name__}: a mapping was expected, got {settings!r}")
        return None
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    before = len(problems)
    for key, value in settings.items():
        if key not in fields:
            problems.append(f"{_at(where, str(key))}: unknown setting{did_you_mean(str(key), fields)}")
            continue
        kind = fields[key].metadata.get("kind")
        place = _at(where, key)
        if kind:
            values[key] = _components(kind, hints[key], _named(value, fields[key]), place, problems)
        else:
            values[key] = _value(hints[key], value, place, problems, _standing(fields[key], base))
    replaced = {INSTEAD_OF.get(key) for key in settings}
    for name, field in fields.items():
        if base is not None and name not in settings:
            if name not in replaced:
                values[name] = getattr(base, name)
            continue
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in settings:
            problems.append(f"{_at(where, name)}: is required")
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except ConfigError as error:
        named = [problem.partition(":")[0] in fields for problem in error.problems]
        joints = ["." if one else ": " for one in named] if where else [""] * len(named)
        problems += [f"{where}{joint}{problem}" for joint, problem in zip(joints, error.problems, strict=True)]
    except (LmdistillError, TypeError, ValueError) as error:
        problems.append(f"{where or cls.__name__}: {error}")
    return None


def _standing(field: dataclasses.Field[Any], base: Any) -> Any:
    """What a setting is if nothing is said: `sampling: {n: 5}` changes n alone, whatever else a recipe prefers."""
    if base is not None:
        return getattr(base, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def _named(value: Any, field: dataclasses.Field[Any]) -> Any:
    """Settings without a name are those of the field's default component: `student: {preset: mini}`."""
    nameless = isinstance(value, Mapping) and "name" not in value
    if not nameless or not callable(field.default_factory):
        return value
    default = field.default_factory()
    return {"name": registry.name_of(default), **value} if dataclasses.is_dataclass(default) else value


def _components(kind: str, hint: Any, value: Any, where: str, problems: list[str]) -> Any:
    """One component, or a tuple of them where the field holds several (a single one may then stand for a list)."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if value is None and (type(None) in parts or Any in parts):
        return None
    several = [typing.get_origin(part) is tuple for part in parts if part is not type(None)]
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    if listed and (any(several) or Any in parts):
        return tuple(_component(kind, item, f"{where}[{i}]", problems) for i, item in enumerate(value))
    built = _component(kind, value, where, problems)
    return (built,) if all(several) else built


def _component(kind: str, value: Any, where: str, problems: list[str]) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return value
    given = {"name": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        problems.append(f"{where}: a name, or a mapping with 'name', was expected, got {value!r}")
        return None
    try:
        cls = registry.load(kind, given["name"])
    except LmdistillError as error:
        problems.append(f"{where}: {error}")
        return None
    return _build(cls, {key: item for key, item in given.items() if key != "name"}, where, problems)


def _value(hint: Any, value: Any, where: str, problems: list[str], base: Any = None) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        rest = [argument for argument in arguments if argument is not type(None)]
        if len(rest) == 1:
            return _value(rest[0], value, where, problems, base)
        for choice in rest:
            trial: list[str] = []
            converted = _value(choice, value, where, trial, base)
            if not trial:
                return converted
        problems.append(f"{where}: expected {_name(hint)}, got {value!r}")
        return None
    if origin is Literal:
        if value not in arguments:
            known = [str(argument) for argument in arguments]
            problems.append(f"{where}: {value!r} is not one of {', '.join(known)}{did_you_mean(str(value), known)}")
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        name = _component_name(hint)
        if name and isinstance(value, Mapping) and value.get("name") == name:  # one component only may stand here
            value = {key: item for key, item in value.items() if key != "name"}
        return _build(hint, value, where, problems, base if type(base) is hint else None)
    if origin is tuple and isinstance(value, list | tuple):
        many = len(arguments) == 2 and arguments[1] is Ellipsis
        kinds = [arguments[0]] * len(value) if many else list(arguments)
        if len(kinds) == len(value):
            pairs = enumerate(zip(kinds, value, strict=True))
            return tuple(_value(kind, item, f"{where}[{i}]", problems) for i, (kind, item) in pairs)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {str(key): _value(arguments[1], item, _at(where, str(key)), problems) for key, item in value.items()}
    if hint is Path and isinstance(value, str | Path):
        return Path(value).expanduser()
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint in (str, int, bool) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    if hint is str and isinstance(value, int):  # a bare 1 or true, meant as text
        return str(value).lower() if isinstance(value, bool) else str(value)
    if hint in (int, float) and isinstance(value, str):  # what ${NAME} brought, or a number in quotes
        with contextlib.suppress(ValueError):
            return hint(value)
    quote = "; put it in quotes" if hint is str and isinstance(value, float) else ""  # 1.10 would become 1.1
    problems.append(f"{where}: expected {_name(hint)}, got {value!r}{quote}")
    return None


def _at(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


# --- writing back ----------------------------------------------------------------------------------------------------


def _component_name(cls: Any) -> str | None:
    """The name under which a class is registered; None for other settings, also those that stand in a kind's file."""
    parts = str(getattr(cls, "__module__", "")).split(".")
    if len(parts) != 3 or parts[0] != "lmdistill" or parts[1] not in registry.KINDS or parts[2][0] == "_":
        return None
    return parts[2] if cls.__name__.lower() == parts[2].replace("_", "") else None


def settings_of(value: Any) -> Any:
    """A settings object as it would stand in a run file: components carry their `name`, nothing is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = _component_name(type(value))
        out: dict[str, Any] = {"name": name} if name else {}
        for field in dataclasses.fields(value):
            if field.init:
                out[field.name] = settings_of(getattr(value, field.name))
        return out
    if isinstance(value, Mapping):
        return {str(key): settings_of(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [settings_of(item) for item in value]
    return value


def rebuild(kind: str, settings: Mapping[str, Any]) -> Any:
    """The component that `settings_of` wrote down."""
    problems: list[str] = []
    built = _component(kind, settings, kind.removesuffix("s"), problems)
    if problems:
        raise ConfigError(problems)
    return built
