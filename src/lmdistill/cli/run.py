"""`lmdistill run RECIPE`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lmdistill import config, registry, runfile, store
from lmdistill.cli._settings import AsJson as AsJson
from lmdistill.cli._settings import Config as Config
from lmdistill.cli._settings import Sets as Sets
from lmdistill.cli._table import show_report
from lmdistill.errors import ConfigError, StoreError

Out = Annotated[Path, typer.Option("--out", "-o", help="The folder that the run fills; a finished stage is skipped.")]


RECORD = "run.yaml"
"""The file of a run's folder that records the call: `lmdistill run RECIPE --config OUT/run.yaml` repeats it."""


def command(
    recipe: Annotated[str, typer.Argument(help="A name of `lmdistill list recipes`.")],
    out: Out,
    config_file: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe from the teacher's answers to an evaluated student."""
    built = build(recipe, config_file, sets or ())
    record = {"recipe": recipe, **{key: value for key, value in config.settings_of(built).items() if key != "name"}}
    refuse_another(out, recipe)
    if not (out / RECORD).exists():
        store.write_text(out / RECORD, runfile.dump(store.encode(record)))
    report = built.run(out)
    store.write_text(out / RECORD, runfile.dump(store.encode(record)))
    if as_json:
        print(json.dumps(store.encode(report), ensure_ascii=False, indent=2))
        return
    show_report(report)
    print(f"report: {out / 'report.json'}")


def refuse_another(out: Path, recipe: str) -> None:
    """Stop before anything is asked or written where the folder holds a run of another recipe, or files of others.

    Raises:
        StoreError: it does.
    """
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file; --out names a folder")
    if (out / RECORD).exists():
        recorded = runfile.read(out / RECORD)
        found = recorded.get("recipe") if isinstance(recorded, dict) else None
        if found != recipe:
            raise StoreError(f"{out} holds a run of the recipe {found!r}, not {recipe!r}; choose another --out")
    elif (out / "report.json").exists():
        raise StoreError(f"{out} holds a report.json that no run of lmdistill wrote; choose another --out")


def build(recipe: str, config_file: Path | None, sets: Sequence[str] = ()) -> Any:
    """The recipe with the settings of a run file and of `--set`.

    Raises:
        ConfigError: every wrong setting at once; a run file that records another recipe.
        UnknownName: no such recipe.
    """
    cls = registry.load("recipes", recipe)
    settings = config.load(config_file, sets)
    recorded = settings.pop("recipe", recipe)
    if recorded != recipe:
        raise ConfigError(f"{config_file}: is a run file of the recipe {recorded!r}, not {recipe!r}")
    return config.build(cls, settings)
