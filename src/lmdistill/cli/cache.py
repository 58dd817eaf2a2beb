"""Look into the file that keeps every answer that was paid for, and tidy it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated

import typer

from lmdistill import response_cache
from lmdistill.cli._table import show_table
from lmdistill.errors import ConfigError
from lmdistill.response_cache import ResponseCache
from lmdistill.store import writing

File = Annotated[Path | None, typer.Option("--cache", help="The cache file; by default the user's own.")]
Model = Annotated[str | None, typer.Option(help="Only answers of this model.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def group() -> None:
    """Look into the file that keeps every answer that was paid for, and tidy it."""


def _opened(path: Path | None) -> ResponseCache:
    path = path or response_cache.default_path()
    if not path.exists():
        raise ConfigError(f"there is no response cache at {path}; name another with --cache")
    return ResponseCache(path)


@app.command("ls")
def list_(cache: File = None, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """What is kept: answers and tokens by endpoint and model."""
    with _opened(cache) as opened:
        rows = opened.contents()
        if as_json:
            print(json.dumps(rows, indent=2))
            return
        cells = [
            [
                row["model"], row["endpoint"], f"{row['answers']:,}", f"{row['responses']:,}",
                f"{row['prompt_tokens'] or 0:,}", f"{row['completion_tokens'] or 0:,}", _day(row["last"]),
            ]
            for row in rows
        ]  # fmt: skip
        columns = ["model", "endpoint", "answers", "responses", "input tokens", "output tokens", "last"]
        show_table(columns, cells, str(opened.path))


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="The beginning of a key; `export` shows keys.")], cache: File = None
) -> None:
    """Requests and raw responses whose key begins so, as JSON."""
    with _opened(cache) as opened:
        found = 0
        for entry in opened.entries(key):
            print(json.dumps(entry, ensure_ascii=False, indent=2))
            found += 1
        if not found:
            raise ConfigError(f"no key in {opened.path} begins with {key!r}; `lmdistill cache export` writes all keys")


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="A JSON Lines file to write.")], cache: File = None, model: Model = None
) -> None:
    """Every request with its raw response, as JSON Lines."""
    count = 0
    with _opened(cache) as opened, writing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        for entry in opened.entries(model=model):
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            count += 1
    print(f"{count:,} responses: {out}")


@app.command()
def prune(
    older_than: Annotated[float | None, typer.Option(metavar="DAYS", help="Only answers older than this.")] = None,
    model: Model = None,
    endpoint: Annotated[str | None, typer.Option(help="Only answers of this endpoint.")] = None,
    cache: File = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only the choice is checked.")] = False,
) -> None:
    """Forget answers; what is forgotten must be paid for again."""
    if older_than is None and model is None and endpoint is None:
        raise ConfigError("prune: say what to forget, with --older-than, --model or --endpoint")
    if not yes:
        raise ConfigError("prune: forgotten answers must be paid for again; add --yes to forget them")
    before = None if older_than is None else datetime.datetime.now().timestamp() - older_than * 86400
    with _opened(cache) as opened:
        print(f"{opened.prune(before=before, model=model, endpoint=endpoint):,} answers forgotten")


def _day(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")
