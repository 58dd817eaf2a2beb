"""What a knowledge base is read from: JSON Lines, TSV or CSV, Parquet, folders of text, Markdown or HTML, the Hub.

Rows that cannot be used become `Skipped`, with their place, and are counted; they never stop a corpus in its middle.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

from lmdistill.codec import digest
from lmdistill.errors import DataError, MissingExtra, did_you_mean
from lmdistill.files import digest_file, raw_lines

ID_NAMES = ("id", "_id", "pid", "docid", "doc_id", "passage_id", "fid", "uuid")
TEXT_NAMES = ("text", "contents", "content", "passage", "paragraph", "abstract", "body", "fact")
TITLE_NAMES = ("title", "heading", "name")
HUB = "hub:"
NOT_UTF8 = "not UTF-8"


class Document(NamedTuple):
    """A text with its id and title, before it is cut into passages; `where` is where it was read."""

    id: str
    text: str
    title: str = ""
    where: str = ""


class Skipped(NamedTuple):
    """A row that cannot be used, why, and where it stands."""

    reason: str
    where: str


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns; empty: the first of the usual names that the first row has."""

    id: str = ""
    text: str = ""
    title: str = ""


def documents(source: str, columns: Columns = Columns()) -> Iterator[Document | Skipped]:
    """The documents of a source, always in the same order.

    Args:
        source: a file (.jsonl, .tsv, .csv, .parquet; .gz for the text formats), a folder, or 'hub:NAME', which may be
            followed by a configuration and a split: 'hub:wikimedia/wikipedia:20231101.en:train'.

    Raises:
        DataError: no such file, an unknown format, a column that is not there.
        MissingExtra: 'hub:' without the package `datasets`.
    """
    if source.startswith(HUB):
        return _table(_hub_rows(source), source, columns)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise DataError("no such file or folder", path=path)
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if kind in ("jsonl", "ndjson", "json"):
        return _table(_jsonl_rows(path), source, columns)
    if kind in ("tsv", "csv"):
        return _table(_separated_rows(path, "\t" if kind == "tsv" else ","), source, columns)
    if kind == "parquet":
        return _table(_parquet_rows(path), source, columns)
    if kind in READERS:
        return iter([_read(path, path.name)])
    known = "jsonl, tsv, csv, parquet, txt, md, html, a folder of these, or hub:NAME"
    raise DataError(f"the format {kind!r} is unknown; expected {known}", path=path)


def digests(source: str) -> dict[str, str]:
    """Hashes of what a source is, for a manifest."""
    path = Path(source).expanduser()
    if source.startswith(HUB):
        return {"source": source}
    if path.is_dir():
        return {"source": digest([[str(one.relative_to(path)), digest_file(one)] for one in _files(path)])}
    if not path.exists():
        raise DataError("no such file or folder", path=path)
    return {"source": digest_file(path)}


# --- tables ----------------------------------------------------------------------------------------------------------

Row = tuple[str, Mapping[str, Any] | Skipped]


def _table(rows: Iterator[Row], source: str, columns: Columns) -> Iterator[Document | Skipped]:
    chosen: Columns | None = None
    for number, (where, row) in enumerate(rows):
        if isinstance(row, Skipped):
            yield row
            continue
        if chosen is None:
            chosen = _columns(columns, row, source)
        text, title = row.get(chosen.text), row.get(chosen.title, "") if chosen.title else ""
        if not isinstance(text, str):
            yield Skipped("no text", where)
            continue
        own = row.get(chosen.id) if chosen.id else None
        yield Document(str(number if own in (None, "") else own), text, str(title or ""), where)


def _columns(columns: Columns, row: Mapping[str, Any], source: str) -> Columns:
    for name in (columns.id, columns.text, columns.title):
        if name and name not in row:
            raise DataError(
                f"there is no column {name!r}{did_you_mean(name, row)} Columns: {', '.join(row)}", path=source
            )
    text = columns.text or next((name for name in TEXT_NAMES if name in row), "")
    if not text:
        raise DataError(f"which column is the text? Name it with --text; columns: {', '.join(row)}", path=source)
    own = columns.id or next((name for name in ID_NAMES if name in row), "")
    return Columns(own, text, columns.title or next((name for name in TITLE_NAMES if name in row), ""))


def _lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Numbered lines of a file, gzipped or not; None for one that is not UTF-8, which stops no corpus in its middle."""
    for number, line in raw_lines(path):
        try:
            yield number, line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            yield number, None


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        where = f"{path.name}:{number}"
        if line is None:
            yield where, Skipped(NOT_UTF8, where)
            continue
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield where, row if isinstance(row, dict) else Skipped("not a JSON object", where)


def _separated_rows(path: Path, separator: str) -> Iterator[Row]:
    """Rows under the header of a TSV or CSV file; TSV knows no quotes, so a stray one swallows no lines."""
    broken: list[int] = []

    def lines() -> Iterator[tuple[int, str]]:
        for number, line in _lines(path):
            if line is None:
                broken.append(number)
            else:
                yield number, line

    if separator == "\t":
        split: Iterator[tuple[int, list[str]]] = ((number, line.split("\t")) for number, line in lines())
    else:
        csv.field_size_limit(1 << 30)
        split = enumerate(csv.reader(line + "\n" for _, line in lines()), 1)
    first = next(split, None)
    if broken and broken[0] == 1:
        raise DataError("the header is not UTF-8; save the file as UTF-8", path=path, line=1)
    if first is None:
        return
    header = [name.strip() for name in first[1]]
    for number, cells in itertools.chain(split, [(0, [])]):
        yield from ((f"{path.name}:{line}", Skipped(NOT_UTF8, f"{path.name}:{line}")) for line in broken)
        broken.clear()
        where = f"{path.name}:{number}"
        if not any(cells):
            continue
        if len(cells) != len(header):
            yield where, Skipped(f"not {len(header)} columns", where)
        else:
            yield where, dict(zip(header, cells, strict=True))


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                yield f"{path.name}, row {number}", row
                number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"is not a whole Parquet file ({error}); copy it again", path=path) from error


def _hub_rows(source: str) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", "hub", f"source {source!r}") from error
    name, configuration, split = [*source.removeprefix(HUB).split(":"), "", ""][:3]
    try:
        rows = datasets.load_dataset(name, configuration or None, split=split or "train", streaming=True)
        yield from ((f"{source}, row {number}", row) for number, row in enumerate(rows))
    except (OSError, ValueError) as error:
        raise DataError(f"{source} cannot be read from the Hub: {error}") from error


# --- folders ---------------------------------------------------------------------------------------------------------


def _folder(folder: Path) -> Iterator[Document | Skipped]:
    files = _files(folder)
    first = next(files, None)
    if first is None:
        raise DataError(f"holds no file to read ({', '.join(sorted(READERS))})", path=folder)
    for path in itertools.chain([first], files):
        yield _read(path, str(path.relative_to(folder)))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower().lstrip(".") in READERS and path.is_file())


def _read(path: Path, name: str) -> Document | Skipped:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return Skipped(NOT_UTF8, name)
    except OSError as error:
        return Skipped(f"cannot be read ({error.strerror})", name)
    title, body = READERS[path.suffix.lower().lstrip(".")](text)
    return Document(name, body, title or path.stem, name)


def _plain(text: str) -> tuple[str, str]:
    return "", text


def _markdown(text: str) -> tuple[str, str]:
    """The first heading, and the text without front matter, marks and addresses of links."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    heading = re.search(r"^#{1,6}\s+(.+?)\s*#*$", text, flags=re.MULTILINE)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^\s{0,3}(?:#{1,6}\s+(.+?)\s*#*|[-*+]\s+(.+))$", r"\1\2\n", text, flags=re.MULTILINE)
    return heading[1] if heading else "", re.sub(r"(\*\*|__|`+)(.+?)\1", r"\2", text)


BLOCKS = (
    "p", "div", "li", "ul", "ol", "tr", "td", "th", "table", "h1", "h2", "h3", "h4", "h5", "h6", "br", "section",
    "article", "blockquote", "pre",
)  # fmt: skip


class _Text(HTMLParser):
    """The readable text of a page; blocks end in blank lines, scripts and styles are left out."""

    HIDDEN = frozenset({"script", "style", "head", "nav", "template", "noscript", "svg"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.title: list[str] = []
        self.hidden = 0
        self.titled = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.titled = self.titled or tag == "title"
        self.hidden += tag in self.HIDDEN
        if tag in BLOCKS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        self.titled = self.titled and tag != "title"
        self.hidden = max(0, self.hidden - (tag in self.HIDDEN))
        if tag in BLOCKS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self.titled:
            self.title.append(data)
        elif not self.hidden:
            self.parts.append(data)


def _html(text: str) -> tuple[str, str]:
    page = _Text()
    page.feed(text)
    page.close()
    return " ".join("".join(page.title).split()), "".join(page.parts)


READERS = {"txt": _plain, "text": _plain, "md": _markdown, "markdown": _markdown, "html": _html, "htm": _html}
