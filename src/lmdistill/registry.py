"""The folder is the registry: a file `tasks/svamp.py` is the task `svamp`.

Names are read from the file system, so `names` lists a component whose optional package is missing, and adding one
file adds a kind. The component is the class whose name is the file's name without case and underscores
(`rationale_then_label.py` holds `RationaleThenLabel`, `openai.py` holds `OpenAI`). Files that begin with an underscore
are parts that the kinds of one folder share.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from pathlib import Path
from typing import Any

from lmdistill.errors import MissingExtra, UnknownName

KINDS = (
    "tasks",
    "teachers",
    "curation",
    "retrievers",
    "rerankers",
    "students",
    "losses",
    "objectives",
    "metrics",
    "recipes",
)


def names(kind: str) -> list[str]:
    """All names of a kind, sorted.

    Raises:
        UnknownName: `kind` is not a folder of components.
    """
    if kind not in KINDS:
        raise UnknownName("kind", kind, KINDS)
    folder = Path(__file__).parent / kind
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def load(kind: str, name: str) -> Any:
    """The class of a component (for `losses`, the module).

    Raises:
        UnknownName: no such kind or name; the message suggests the nearest.
        MissingExtra: the component's own imports need a package that is not installed.
    """
    if name not in names(kind):
        raise UnknownName(_one(kind), name, names(kind))
    try:
        module = importlib.import_module(f"lmdistill.{kind}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("lmdistill"):
            raise
        package = str(error.name).partition(".")[0]
        raise MissingExtra(package, extra_of(package), f"{_one(kind)} {name!r}") from error
    if kind == "losses":
        return module
    wanted = name.replace("_", "")
    for attribute, value in vars(module).items():
        if attribute.lower() == wanted and isinstance(value, type) and value.__module__ == module.__name__:
            return value
    raise AssertionError(f"{module.__name__} must define a class named like the file (any case, no underscores)")


def extra_of(package: str) -> str:
    """The extra of lmdistill that brings a package ('all' where none does).

    >>> extra_of("bm25s"), extra_of("sentence_transformers"), extra_of("nosuch")
    ('search', 'search', 'all')
    """
    try:
        requirements = importlib.metadata.requires("lmdistill") or []
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        requirements = []
    for requirement in requirements:
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"](\w+)", requirement)
        if name and extra and _plain(name[0]) == _plain(package) and extra[1] not in ("all", "test"):
            return extra[1]
    return "all"


def _plain(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _one(kind: str) -> str:
    return "loss" if kind == "losses" else kind.removesuffix("s")


def name_of(component: object) -> str:
    """The registered name of a component or its class: its file's name."""
    cls = component if isinstance(component, type) else type(component)
    return cls.__module__.rpartition(".")[2]
