"""A door in: what other tools, production logs and published releases recorded, read as annotations.

    rows = import_annotations("chat", Path("production.jsonl"), task, folder=Path("out/imported"))

A layout turns files into records (what was asked, what was said, a label where there is one); the task reads each
answer as it would read a teacher's. Rows that cannot be used are counted by reason in the manifest.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmdistill import record_layouts
from lmdistill.config import settings_of
from lmdistill.errors import DataError, UnknownName
from lmdistill.progress import track
from lmdistill.record_layouts import Record
from lmdistill.store import Rows, digest, digest_file, stage, write_rows
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Example, Rationale


@dataclass(frozen=True)
class Columns:
    """Where a table's columns are not named as usual; '' looks for the usual names."""

    input: str = ""
    output: str = ""
    label: str = ""
    id: str = ""


USUAL = Columns()


def import_annotations(
    layout: str,
    path: Path,
    task: Task,
    *,
    folder: Path,
    inputs: Path | None = None,
    split: str | None = None,
    source: str = "",
    columns: Columns = USUAL,
) -> Rows[Annotation]:
    """Annotations of recorded answers.

    Args:
        layout: 'chat' (JSON Lines with `messages`: fine-tuning files, stored completions, logs, ShareGPT), 'batch'
            (output of the Batch API; `inputs` is the file that went in), 'dss' and 'kard' (their releases; `inputs` is
            the data file), 'table' (CSV, TSV, JSON Lines or Parquet with a prompt and a completion column).
        split: match records to this split of the task, by id or by the question in the prompt, so that labels, choices
            and ids are the task's own; without it the records are the examples.
        source: who wrote the answers; by default what the record says, or the file's name.

    Raises:
        DataError: an unreadable file, or not one record in it. UnknownName: no such layout.
    """
    if layout not in record_layouts.LAYOUTS:
        raise UnknownName("layout", layout, record_layouts.LAYOUTS)
    settings = {
        "layout": layout, "task": settings_of(task), "split": split, "source": source, "columns": settings_of(columns),
    }  # fmt: skip
    digests = {str(one): _digest(one) for one in (path, inputs) if one is not None}
    with stage(folder, "import", settings=settings, inputs=digests) as opened:
        if opened.done:
            return opened.rows(Annotation)
        read = record_layouts.LAYOUTS[layout]
        records = read(path, inputs, vars_of(columns))
        counts: collections.Counter[str] = collections.Counter()
        gathered = _gathered(track(records, "import", unit="records"), task, split, counts)
        name = source or path.name.partition(".")[0]
        rows = (_annotation(task, example, many, name, counts) for example, many in gathered)
        written = write_rows(opened.path(), rows)
        if not written:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in counts.items()) or "the file is empty"
            raise DataError(f"holds no record of the layout {layout!r} that can be used: {reasons}", path=path)
        opened.manifest.counts = {"examples": written, **counts}
        return opened.rows(Annotation)


def vars_of(columns: Columns) -> dict[str, str]:
    """The columns that were named."""
    return {name: value for name, value in settings_of(columns).items() if value}


def _digest(path: Path) -> str:
    if path.is_dir():
        files = sorted(one for one in path.rglob("*.json*") if one.is_file())
        return digest([[str(one.relative_to(path)), digest_file(one)] for one in files])
    if not path.exists():
        raise DataError("no such file", path=path)
    return digest_file(path)


@dataclass
class _Known:
    """The examples of a split, to be found by id or by their text within a prompt."""

    by_id: dict[str, Example] = field(default_factory=dict)
    by_text: dict[str, Example] = field(default_factory=dict)

    def find(self, record: Record) -> Example | None:
        found = self.by_id.get(record.id) or self.by_text.get(_plain(record.input))
        if found is not None:
            return found
        asked = _plain(record.input)
        within = [example for text, example in self.by_text.items() if text and text in asked]
        return max(within, key=lambda example: len(example.input), default=None)


def _gathered(
    records: Iterable[Record], task: Task, split: str | None, counts: collections.Counter[str]
) -> Iterator[tuple[Example, list[Record]]]:
    """Records by example, in the order in which the examples were first seen."""
    known = _Known()
    if split is not None:
        for example in task.examples(split):
            known.by_id[example.id] = example
            known.by_text[_plain(example.input)] = example
    found: dict[str, tuple[Example, list[Record]]] = {}
    for record in records:
        if record.reason is not None:
            counts[f"left out: {record.reason}"] += 1
            continue
        if split is None:
            example = Example(record.id, record.input, record.label, record.choices, record.fields)
            same = found.get(record.id)
            if same is not None and same[0].input != record.input:
                example = replace(example, id=f"{record.id}#{len(found)}")
        else:
            matched = known.find(record)
            if matched is None:
                counts["left out: no such example in the split"] += 1
                continue
            example = matched
        found.setdefault(example.id, (example, []))[1].append(record)
    return iter(found.values())


def _annotation(
    task: Task, example: Example, records: Sequence[Record], name: str, counts: collections.Counter[str]
) -> Annotation:
    kept: list[Rationale] = []
    rejected: list[Rationale] = []
    numbers: collections.Counter[str] = collections.Counter()
    for record in records:
        source = record.source or name
        for text in record.outputs:
            parsed = task.parse(example, text)
            reason = parsed.reason
            if record.truncated and reason is None:
                reason = "truncated"
            rationale = Rationale(parsed.rationale, parsed.answer, source, numbers[source], reason=reason, raw=text)
            numbers[source] += 1
            (rejected if reason else kept).append(rationale)
            counts["answers"] += 1
            counts["parsed" if reason is None else f"rejected: {reason}"] += 1
    return Annotation(example, tuple(kept), tuple(rejected))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
