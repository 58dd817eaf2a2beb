"""`lmdistill index SOURCE --out FOLDER`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lmdistill import config, registry
from lmdistill.cli._table import show_table
from lmdistill.errors import ConfigError
from lmdistill.runfile import load

Source = Annotated[
    str,
    typer.Argument(help="A .jsonl, .tsv, .csv or .parquet file, a folder of text, Markdown or HTML, or hub:NAME."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder that keeps the knowledge base and its indexes.")]
IdColumn = Annotated[str, typer.Option("--id", metavar="COLUMN", help="The column with a document's id.")]
TextColumn = Annotated[str, typer.Option("--text", metavar="COLUMN", help="The column with its text.")]
TitleColumn = Annotated[str, typer.Option("--title", metavar="COLUMN", help="The column with its title.")]
Words = Annotated[
    int, typer.Option(help="Passages of at most so many words, whole sentences; 0 keeps documents whole.")
]
Overlap = Annotated[int, typer.Option(help="So many sentences of a passage begin the next.")]
Alike = Annotated[
    float, typer.Option(help="Drop a passage whose 3-word runs resemble an earlier one's so much; 2 drops none.")
]
Kind = Annotated[str, typer.Option("--retriever", "-r", help="Make its index now ('none': when it is first used).")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="A setting of the retriever, as k1=1.2.")
]
Query = Annotated[str, typer.Option("--search", metavar="TEXT", help="Show what a query finds, to try it out.")]
Limit = Annotated[int, typer.Option("-k", help="How many passages --search shows.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


def command(
    source: Source,
    out: Out,
    id_column: IdColumn = "",
    text_column: TextColumn = "",
    title_column: TitleColumn = "",
    words: Words = 100,
    overlap: Overlap = 1,
    alike: Alike = 0.9,
    retriever: Kind = "bm25",
    sets: Sets = None,
    search: Query = "",
    k: Limit = 5,
    as_json: AsJson = False,
) -> None:
    """Make a knowledge base and its index; a killed run goes on where it stopped."""
    from lmdistill.chunking import Chunking
    from lmdistill.indexing import build
    from lmdistill.sources import Columns, digests, documents

    opener = (
        None if retriever == "none" else config.build(registry.load("retrievers", retriever), load(None, sets or ()))
    )
    if search and opener is None:
        raise ConfigError("--search needs a retriever; leave out --retriever none")
    columns = Columns(id_column, text_column, title_column)
    base = build(
        documents(source, columns),
        out,
        inputs={**digests(source), "columns": json.dumps(list(vars(columns).values()))},
        chunking=Chunking(words, overlap),
        resemblance_limit=alike,
    )
    opened = None if opener is None else opener.open(base)
    hits = opened.search(search, k) if opened is not None and search else []
    manifest = base.manifest
    if as_json:
        found = [{"id": hit.passage.id, "score": hit.score, "text": hit.passage.text} for hit in hits]
        print(json.dumps({"folder": str(out), **manifest.counts, "hits": found}, ensure_ascii=False, indent=2))
        return
    _show(manifest, hits, searched=bool(search))
    print(f"knowledge base: {out}")


def _show(manifest: Any, hits: Any, *, searched: bool) -> None:
    for name, count in manifest.counts.items():
        first = manifest.facts.get(f"first {name}")
        print(f"{name.replace('_', ' ')}: {count:,}" + (f" (the first: {first})" if first else ""))
    if manifest.counts.get("duplicate_ids_renamed"):
        print(f"ids that stood twice got '~2' (the first: {manifest.facts['first duplicate id']})")
    if searched and not hits:
        print("nothing found: the query shares no word with the passages")
    elif searched:
        rows = [[hit.passage.id, f"{hit.score:.3f}", _short(hit.passage.text)] for hit in hits]
        show_table(["passage", "score", "text"], rows)


def _short(text: str, width: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."
