"""Run files: YAML as people mean it, `--set a.b=c` laid over it, `${NAME}` from the environment.

PyYAML follows YAML 1.1, where a bare `yes` is true, `5e-5` a text, `1:30` is 90 and a key given twice silently loses
its first value. Choices of `[yes, no]` are common here, so files are read by the core schema of YAML 1.2: `true` and
`false` are the only truths, numbers are decimal, everything else is text, and a key stands once.
"""

from __future__ import annotations

import functools
import os
import re
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from lmdistill.errors import ConfigError

INSTEAD_OF = {"steps": "epochs"}
"""A setting that is said displaces this other one of what it is laid over: a recipe's defaults, a file, a grid."""

RESOLVERS = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf)|\.(?:nan|NaN)",
        "-+0123456789.",
    ),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
)


@functools.lru_cache(maxsize=1)
def _loader() -> type[yaml.SafeLoader]:
    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, Any] = {}

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if key.tag.endswith(":merge"):
                    continue
                if not isinstance(key.value, str):
                    message = "a key must be a word; put a text that begins with { into quotes, as in '{{ question }}'"
                    raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

        def construct_number(self, node: Any) -> float:
            text = node.value.lower().replace(".inf", "inf").replace(".nan", "nan")
            return float(text)

    for tag, pattern, first in RESOLVERS:
        letters = ["" if letter == "\0" else letter for letter in first]
        Loader.add_implicit_resolver(tag, re.compile(f"^(?:{pattern})$"), letters)
    Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_number)
    return Loader


def parse(text: str) -> Any:
    """The value of a YAML text.

    >>> parse("{choices: [yes, no], rate: 5e-5, zip: 0123, n: 3, at: 1:30, on: true}")
    {'choices': ['yes', 'no'], 'rate': 5e-05, 'zip': '0123', 'n': 3, 'at': '1:30', 'on': True}

    Raises:
        yaml.YAMLError: it is not YAML, names a Python object, or gives a key twice.
    """
    loader = _loader()(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def dump(value: Any) -> str:
    """The YAML text that `parse` reads back as the same value, and `load` too: a plain `${` is written as `$${`.

    >>> print(dump({"choices": ["yes", "1e3"], "rate": 5e-05, "n": 3, "text": "${HOME}"}), end="")
    choices:
    - 'yes'
    - '1e3'
    rate: 5.0e-05
    n: 3
    text: $${HOME}
    """
    return yaml.dump(_escaped(value), Dumper=_dumper(), allow_unicode=True, sort_keys=False, width=120)


@functools.lru_cache(maxsize=1)
def _dumper() -> type[yaml.SafeDumper]:
    class Dumper(yaml.SafeDumper):
        """Quotes every text that YAML 1.1 or 1.2 would take for something else; never writes anchors."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

        def represent_text(self, text: str) -> Any:
            odd = re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]", text)  # breaks and marks to YAML
            return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if odd else None)

    for tag, pattern, first in RESOLVERS:
        letters = ["" if letter == "\0" else letter for letter in first]
        Dumper.add_implicit_resolver(tag, re.compile(f"^(?:{pattern})$"), letters)
    Dumper.add_representer(str, Dumper.represent_text)
    return Dumper


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


def read(path: Path) -> Any:
    """The value of a YAML file.

    Raises:
        ConfigError: no such file, not UTF-8, not YAML; with the line where known.
    """
    try:
        return parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8; save the file as UTF-8") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}{_line(error)}: is not YAML: {_why(error)}") from error


def _line(error: BaseException) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f":{mark.line + 1}"


def _why(error: BaseException) -> str:
    return str(getattr(error, "problem", None) or error).partition("\n")[0]


def load(path: Path | None, sets: Iterable[str] = ()) -> dict[str, Any]:
    """A run file with `--set` assignments laid over it.

    `${NAME}` in a text is taken from the environment; `$${` stands for a plain `${`.

    Raises:
        ConfigError: unreadable file, not a mapping, a malformed assignment, an unset variable.
    """
    settings = {} if path is None else read(path)
    if settings is None:  # an empty file
        settings = {}
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: a mapping of settings was expected, not a {type(settings).__name__}")
    for assignment in sets:
        assign(settings, assignment)
    unset: dict[str, None] = {}
    expanded = _expand(settings, unset)
    if unset:
        raise ConfigError(f"the settings name ${{{name}}}, which is not set in the environment" for name in unset)
    return typing.cast(dict[str, Any], expanded)


def assign(settings: dict[str, Any], assignment: str) -> None:
    """Lay one `a.b=value` over the settings; the value is read as YAML, a number in the path is a place in a list.

    >>> settings = {"task": "nli", "curation": ["correct", "length"]}
    >>> assign(settings, "task.size=500"); assign(settings, "curation.1.low=3"); settings
    {'task': {'name': 'nli', 'size': 500}, 'curation': ['correct', {'name': 'length', 'low': 3}]}
    """
    path, equals, text = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {assignment!r}: expected key=value, as in --set train.steps=500")
    try:
        value = text if text.lstrip().startswith("{{") else parse(text) if text else ""  # a template is a text
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--set {assignment!r}: the value is not YAML ({error})") from error
    place: Any = settings
    for key in keys[:-1]:
        place = _step_into(place, key, assignment)
    last = _place(place, keys[-1], assignment)
    before = place[last] if isinstance(place, list) else place.get(last)
    if isinstance(before, dict) and isinstance(value, str):  # --set teacher=replay over a mapping
        value = {"name": value}
    place[last] = value
    if isinstance(place, dict) and last in INSTEAD_OF:
        place.pop(INSTEAD_OF[last], None)


def _step_into(place: Any, key: str, assignment: str) -> Any:
    """The mapping or list under a key; a component given by its name alone becomes a mapping."""
    at = _place(place, key, assignment)
    child = place[at] if isinstance(place, list) else place.get(at)
    if isinstance(child, str):
        child = {"name": child}
    elif not isinstance(child, dict | list):
        child = {}
    place[at] = child
    return child


def _place(place: Any, key: str, assignment: str) -> Any:
    if not isinstance(place, list):
        return key
    if not key.isdecimal() or int(key) >= len(place):
        raise ConfigError(f"--set {assignment!r}: {key!r} is no place in a list of {len(place)} (they count from 0)")
    return int(key)


def _expand(value: Any, unset: dict[str, None]) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item, unset) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, unset) for item in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        if match[1] is None:
            return "${"
        if match[1] not in os.environ:
            unset[match[1]] = None
        return os.environ.get(match[1], "")

    return re.sub(r"\$\$\{|\$\{([A-Za-z_][A-Za-z_0-9]*)\}", variable, value)
