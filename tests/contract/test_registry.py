"""What every component must hold to, whatever its kind; a new file is tested by existing."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lmdistill import config, registry, store
from lmdistill.errors import ConfigError, MissingExtra

EVERY = [(kind, name) for kind in registry.KINDS for name in registry.names(kind)]
SETTINGS = [(kind, name) for kind, name in EVERY if kind != "losses"]
FILLED = {"tasks": "nli", "teachers": "scripted"}
WITHOUT_TORCH = ("tasks", "teachers", "curation", "metrics")


def loaded(kind: str, name: str) -> Any:
    try:
        return registry.load(kind, name)
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_component_is_documented(kind: str, name: str) -> None:
    doc = inspect.getdoc(loaded(kind, name)) or ""
    assert len(doc.split()) >= 4, f"{kind}/{name}.py: say in its docstring what it is"
    first = doc.partition("\n")[0]
    assert first.rstrip().endswith((".", ":", ",", ";")) or len(doc.splitlines()) > 1


@pytest.mark.parametrize(("kind", "name"), SETTINGS)
def test_a_component_is_a_frozen_dataclass_of_its_contract(kind: str, name: str) -> None:
    cls = loaded(kind, name)
    assert registry.name_of(cls) == name
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    fields = {field.name for field in dataclasses.fields(cls)}
    assert not fields & {"name", "recipe"}, "a run file says `name` (and `recipe`) for the component itself"
    contract = f"lmdistill.{kind}"
    bases = [base for base in cls.__mro__ if base.__module__ == contract]
    assert bases, f"{kind}/{name}.py: derive it from the contract in {kind}/__init__.py"


@pytest.mark.parametrize(("kind", "name"), SETTINGS)
def test_settings_go_to_a_run_file_and_back(kind: str, name: str) -> None:
    cls = loaded(kind, name)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.metadata.get("kind") in FILLED:
            given[field.name] = FILLED[field.metadata["kind"]]
        elif field.init and required:
            given[field.name] = "x"
    try:
        made = config.build(cls, given)
    except ConfigError as error:
        pytest.skip(f"{name} has no settings that make it by themselves: {error.problems[0]}")
    written = json.loads(json.dumps(store.encode(config.settings_of(made))))
    assert written["name"] == name
    assert config.settings_of(config.rebuild(kind, written)) == config.settings_of(made)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_a_folder_s_contract_imports_no_kind_and_says_how_to_add_one(kind: str) -> None:
    if not registry.names(kind):
        pytest.skip(f"no {kind} yet")
    source = (Path(registry.__file__).parent / kind / "__init__.py").read_text(encoding="utf-8")
    doc = ast.get_docstring(ast.parse(source)) or ""
    assert "To add one" in doc or "to add one" in doc


def test_what_needs_no_model_loads_without_torch() -> None:
    code = f"""
import sys
from lmdistill import registry
from lmdistill.errors import ConfigError, MissingExtra
for kind in {WITHOUT_TORCH!r}:
    for name in registry.names(kind):
        try:
            registry.load(kind, name)
        except MissingExtra:
            pass
        heavy = {{"torch", "transformers", "pyarrow", "matplotlib", "scipy"}} & set(sys.modules)
        assert not heavy, (kind, name, heavy)
import lmdistill.curate
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
