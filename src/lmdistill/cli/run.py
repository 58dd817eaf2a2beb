"""`lmdistill run RECIPE`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lmdistill import config, registry, store
from lmdistill.cli._table import show_report
from lmdistill.errors import ConfigError

Config = Annotated[Path | None, typer.Option("--config", "-c", help="A run file (YAML) with the recipe's settings.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="One setting, as in train.steps=500.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder that the run fills; a finished stage is skipped.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write the report as JSON.")]


def command(
    recipe: Annotated[str, typer.Argument(help="A name of `lmdistill list recipes`.")],
    out: Out,
    config_file: Config = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe from the teacher's answers to an evaluated student."""
    built = build(recipe, config_file, sets or ())
    report = built.run(out)
    if as_json:
        print(json.dumps(store.encode(report), ensure_ascii=False, indent=2))
        return
    show_report(report)
    print(f"report: {out / 'report.json'}")


def build(recipe: str, config_file: Path | None, sets: Any = ()) -> Any:
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
