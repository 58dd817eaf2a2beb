"""Who may import whom, read from every import in the source.

    cli -> recipes -> verbs -> contracts (a folder's __init__ or a private module of it) -> ground floor
    recipes -> concrete kinds -> their contract -> ground floor     objectives -> losses     losses -> nothing of ours

Kinds never import verbs, recipes, the command line or a kind of another name or folder; verbs never import a concrete
kind. An import under `if TYPE_CHECKING` counts too: a type is knowledge.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmdistill import registry

SOURCE = Path(registry.__file__).parent
MODULES = {
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}

VERBS = {"annotate", "curate", "ground", "train", "predict", "evaluate", "compare", "report", "export", "serve"}
"""The verbs of the road; the parts of one (its private machinery) are told by who imports them, see `layer_of`."""


def imports_of(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports, anywhere in it; a name from a package counts where it is a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "lmdistill")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if (node.module or "").split(".")[0] != "lmdistill":
                continue
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


EDGES = {name: sorted(set(imports_of(path)) - {name, "lmdistill"}) for name, path in MODULES.items()}


def layer_of(module: str) -> str:
    """cli, recipe, kind, contract, verb or ground."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] == "__main__":
        return "ground" if len(parts) == 1 else "cli"
    if parts[1] == "cli":
        return "cli"
    if parts[1] == "recipes":
        return "recipe" if len(parts) > 2 else "contract"
    if parts[1] in registry.KINDS:
        return "contract" if len(parts) == 2 or parts[2].startswith("_") else "kind"
    return "verb" if is_verb(parts[1]) else "ground"


def is_verb(name: str) -> bool:
    """A verb, or a part of verbs: a module of the ground that itself knows a contract and that only verbs import.

    Parts keep a verb's file short (`loop` for `train`); they stand where their verb stands.
    """
    return name in VERBS or name in PARTS


def _parts() -> set[str]:
    ground = {name.split(".")[1] for name in MODULES if name.count(".") == 1} - set(registry.KINDS) - {"cli"} - VERBS
    users: dict[str, set[str]] = {name: set() for name in ground}
    for importer, imported in EDGES.items():
        for name in imported:
            top = name.split(".")[1]
            if top in users and importer != f"lmdistill.{top}":
                users[top].add(importer)
    found: set[str] = set()
    while True:
        upper = {f"lmdistill.{name}" for name in VERBS | found}
        more = {
            name
            for name, importers in users.items()
            if importers and all(one in upper or one.split(".")[1] in ("cli", "recipes") for one in importers)
        } - found
        if not more:
            return found
        found |= more


PARTS = _parts()

ALLOWED = {
    "ground": {"ground"},
    "contract": {"ground", "contract"},
    "kind": {"ground", "contract"},
    "verb": {"ground", "contract", "verb"},
    "recipe": {"ground", "contract", "verb", "kind", "recipe"},
    "cli": {"ground", "contract", "verb", "recipe", "cli"},
}


def wrong(importer: str, imported: str) -> str | None:
    """Why an edge is wrong, or None."""
    low, high = layer_of(imported), layer_of(importer)
    mine, theirs = importer.split("."), imported.split(".")
    if mine[1:2] == ["losses"] and theirs[1] != "losses":
        return "losses import nothing of ours"
    if theirs[1] == "losses" and mine[1] not in ("losses", "objectives", "students", "rerankers"):
        return "only what is trained, or trains, uses losses"
    if theirs[1] == "losses":
        return None
    if low not in ALLOWED[high]:
        return f"a {high} must not import a {low}"
    return None


CASES = [(importer, imported) for importer, every in EDGES.items() for imported in every]


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 40
    assert len(CASES) > 100


@pytest.mark.parametrize("importer", sorted(MODULES))
def test_imports_go_down(importer: str) -> None:
    found = {imported: reason for imported in EDGES[importer] if (reason := wrong(importer, imported))}
    assert not found


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("lmdistill.store", "lmdistill.curate"),
        ("lmdistill.store", "lmdistill.tasks"),
        ("lmdistill.tasks.svamp", "lmdistill.tasks.cqa"),
        ("lmdistill.curation.correct", "lmdistill.curate"),
        ("lmdistill.curation.correct", "lmdistill.tasks.svamp"),
        ("lmdistill.objectives", "lmdistill.objectives.label_only"),
        ("lmdistill.train", "lmdistill.objectives.label_only"),
        ("lmdistill.train", "lmdistill.recipes.dss"),
        ("lmdistill.train", "lmdistill.losses.token"),
        ("lmdistill.recipes.dss", "lmdistill.cli.run"),
        ("lmdistill.losses.token", "lmdistill.errors"),
        ("lmdistill.cli.run", "lmdistill.tasks.svamp"),
    ],
)
def test_a_wrong_edge_would_be_found(importer: str, imported: str) -> None:
    assert wrong(importer, imported)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("lmdistill.cli.run", "lmdistill.recipes"),
        ("lmdistill.recipes.dss", "lmdistill.objectives.step_by_step"),
        ("lmdistill.recipes.dss", "lmdistill.train"),
        ("lmdistill.train", "lmdistill.objectives"),
        ("lmdistill.tasks.svamp", "lmdistill.tasks._rows"),
        ("lmdistill.objectives.label_only", "lmdistill.losses.token"),
        ("lmdistill.curation", "lmdistill.tasks"),
    ],
)
def test_the_right_edges_are_allowed(importer: str, imported: str) -> None:
    assert wrong(importer, imported) is None


def test_there_is_no_circle_at_import() -> None:
    """Every module can be the first one imported."""
    code = "import importlib, sys; importlib.import_module(sys.argv[1])"
    for name in ("lmdistill.store", "lmdistill.curate", "lmdistill.registry", "lmdistill.tasks", "lmdistill.cli.main"):
        told = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True)
        assert told.returncode == 0, told.stderr


def test_no_file_is_too_long_and_no_name_says_nothing() -> None:
    sizes = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: size for name, size in sizes.items() if size > 400} == {}
    assert sorted(sizes.values())[len(sizes) // 2] < 200
    assert not {"utils", "helpers", "common", "misc"} & {name.split(".")[-1] for name in MODULES}


def test_no_branch_on_a_component_s_name_outside_the_registry() -> None:
    """`if name == "svamp"` is what the folder-registry is there to avoid."""
    names = {name for kind in registry.KINDS for name in registry.names(kind)}
    found = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and len(node.comparators) == 1:
                asked = ast.unparse(node.left)
                constant = node.comparators[0]
                if (
                    isinstance(constant, ast.Constant)
                    and constant.value in names
                    and asked.split(".")[-1].split("(")[0]
                    in ("name", "name_of", "kind", "teacher", "recipe", "objective")
                ):
                    found.append(f"{module}:{node.lineno}: {ast.unparse(node)}")
    assert not found
