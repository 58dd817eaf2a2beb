"""Settings: frozen dataclasses, built from a run file (YAML) and `--set a.b=c`, and written back.

A run file is a recorded recipe call. Its keys are the fields of the recipe's dataclass; a component is given by name
(`teacher: scripted`) or by name and settings (`teacher: {name: replay, path: answers.jsonl}`). Unknown keys, wrong
types and unknown names are reported all at once, each with the nearest name.
"""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from lmdistill import registry
from lmdistill.errors import ConfigError, LmdistillError, did_you_mean

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


# --- reading ---------------------------------------------------------------------------------------------------------


def load(path: Path | None, sets: Iterable[str] = ()) -> dict[str, Any]:
    """A run file with `--set` assignments laid over it; `${NAME}` in strings is taken from the environment.

    Raises:
        ConfigError: unreadable file, not a mapping, a malformed assignment, an unset variable.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: is not YAML ({error})") from error
        if not isinstance(settings, dict):
            raise ConfigError(f"{path}: a mapping of settings was expected, not a {type(settings).__name__}")
    for assignment in sets:
        assign(settings, assignment)
    return typing.cast(dict[str, Any], _expand(settings))


def assign(settings: dict[str, Any], assignment: str) -> None:
    """Lay one `a.b=value` over the settings; the value is read as YAML.

    >>> settings = {"task": "nli"}
    >>> assign(settings, "task.size=500"); settings
    {'task': {'name': 'nli', 'size': 500}}
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set {assignment!r}: expected key=value, as in --set train.steps=500")
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {assignment!r}: the value is not YAML ({error})") from error
    *parents, last = path.strip().split(".")
    for key in parents:
        child = settings.get(key)
        if isinstance(child, str):  # a component given by its name alone
            child = {"name": child}
        elif not isinstance(child, dict):
            child = {}
        settings[key] = child
        settings = child
    if isinstance(settings.get(last), dict) and isinstance(value, str):  # --set teacher=replay over a mapping
        value = {"name": value}
    settings[last] = value


def _expand(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item) for item in value]
    if isinstance(value, str):

        def variable(match: re.Match[str]) -> str:
            if match[1] not in os.environ:
                raise ConfigError(f"the run file names ${{{match[1]}}}, which is not set in the environment")
            return os.environ[match[1]]

        return re.sub(r"\$\{([A-Za-z_][A-Za-z_0-9]*)\}", variable, value)
    return value


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


def _build(cls: Any, settings: Any, where: str, problems: list[str]) -> Any:
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
        values[key] = _component(kind, value, place, problems) if kind else _value(hints[key], value, place, problems)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in settings:
            problems.append(f"{_at(where, name)}: is required")
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except LmdistillError as error:
        problems.append(f"{where + ': ' if where else ''}{error}")
    except (TypeError, ValueError) as error:
        problems.append(f"{where or cls.__name__}: {error}")
    return None


def _component(kind: str, value: Any, where: str, problems: list[str]) -> Any:
    if value is None:
        return None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_component(kind, item, f"{where}[{i}]", problems) for i, item in enumerate(value))
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


def _value(hint: Any, value: Any, where: str, problems: list[str]) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        for choice in arguments:
            trial: list[str] = []
            converted = _value(choice, value, where, trial)
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
        return value if isinstance(value, typing.cast(type, hint)) else _build(hint, value, where, problems)
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
    if hint is str and isinstance(value, int | float):  # YAML reads a bare 1 or yes as another type
        return str(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 5e-5 as a string
        try:
            return float(value)
        except ValueError:
            pass
    problems.append(f"{where}: expected {_name(hint)}, got {value!r}")
    return None


def _at(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


# --- writing back ----------------------------------------------------------------------------------------------------


def settings_of(value: Any) -> Any:
    """A settings object as it would stand in a run file: components carry their `name`, nothing is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out: dict[str, Any] = {}
        module = type(value).__module__.split(".")
        if len(module) == 3 and module[0] == "lmdistill" and module[1] in registry.KINDS:
            out["name"] = module[2]
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
    built = _component(kind, dict(settings), kind.removesuffix("s"), problems)
    if problems:
        raise ConfigError(problems)
    return built
