from __future__ import annotations

import subprocess
import sys
import types

import pytest

from lmdistill import registry
from lmdistill.curation.correct import Correct
from lmdistill.errors import LmdistillError, MissingExtra, UnknownName


def test_names_are_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "correct" in registry.names("curation")
    assert not any(name.startswith("_") for kind in registry.KINDS for name in registry.names(kind))
    with pytest.raises(UnknownName, match="unknown kind 'task'; did you mean 'tasks'"):
        registry.names("task")


def test_load_and_name_are_inverse() -> None:
    assert registry.load("curation", "correct") is Correct
    assert registry.name_of(Correct) == registry.name_of(Correct()) == "correct"
    assert registry.load("losses", "token").__name__ == "lmdistill.losses.token"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (
            "curation",
            "corect",
            r"unknown curation 'corect'; did you mean 'correct'\? Known: agree, consistent, correct",
        ),
        ("tasks", "smvap", r"unknown task 'smvap'; did you mean 'svamp'"),
        ("losses", "tokens", r"unknown loss 'tokens'; did you mean 'token'"),
        ("curation", "_words", r"unknown curation '_words'"),
        ("curation", "../store", r"unknown curation '../store'\."),
    ],
)
def test_unknown_names(kind: str, name: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        registry.load(kind, name)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> types.ModuleType:
        raise ModuleNotFoundError("No module named 'bm25s.scoring'", name="bm25s.scoring")

    monkeypatch.setattr(registry.importlib, "import_module", absent)
    assert "correct" in registry.names("curation")  # listing needs no import
    with pytest.raises(MissingExtra) as caught:
        registry.load("curation", "correct")
    assert str(caught.value) == "curation 'correct' needs the package 'bm25s': pip install 'lmdistill[search]'"


def test_a_bug_of_our_own_is_not_taken_for_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> types.ModuleType:
        raise ModuleNotFoundError("No module named 'lmdistill.nosuch'", name="lmdistill.nosuch")

    monkeypatch.setattr(registry.importlib, "import_module", absent)
    with pytest.raises(ModuleNotFoundError) as caught:
        registry.load("curation", "correct")
    assert not isinstance(caught.value, LmdistillError)


def test_an_imported_class_of_the_same_name_is_not_the_component(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lmdistill.curation.length")
    module.LENGTH = type("LENGTH", (), {"__module__": "elsewhere"})  # type: ignore[attr-defined]
    module.Length = own = type("Length", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    monkeypatch.setattr(registry.importlib, "import_module", lambda name: module)
    assert registry.load("curation", "length") is own
    del module.Length  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match=r"lmdistill\.curation\.length must define a class named like the file"):
        registry.load("curation", "length")


def test_reading_names_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lmdistill import registry; [registry.names(k) for k in registry.KINDS];"
        "print(sorted({'torch','transformers','numpy','aiohttp','jinja2','pyarrow'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
