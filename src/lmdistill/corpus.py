"""The curated rationales as a data set of their own, for other trainers and for people.

    export_corpus(rows, task, folder, cue="So the answer is:", licence="cc-by-4.0", origin=origin_of(run))

leaves `corpus.parquet` (every column), `prompt_completion.jsonl` and `messages.jsonl` (what TRL and others read), and
a data card `README.md` that says who wrote it, how they were asked, what was filtered out and why.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmdistill import config
from lmdistill.datacard import COLUMNS, CUE, Origin, card
from lmdistill.errors import ConfigError, StoreError
from lmdistill.files import Rows, write_text, writing
from lmdistill.render import join_rationale
from lmdistill.rounds import rounds_of, summed_facts
from lmdistill.store import read_manifest
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Rationale

IN_MEMORY = 2000


@dataclass(frozen=True)
class Corpus:
    """What was exported."""

    folder: Path
    counts: Mapping[str, int]


def origin_of(run: Path) -> tuple[Rows[Annotation], Origin]:
    """A run's curated rationales (or its annotations, where it curated nothing), and how they came to be.

    Raises:
        StoreError: the folder holds no annotations of a run.
    """
    asked = read_manifest(run / "annotations")
    if asked is None:
        raise StoreError(f"{run} holds no annotations; a folder that `lmdistill run` filled was expected")
    curated = rounds_of(run, "curated")
    folder, sorted_out = curated[-1] if curated else (run / "annotations", None)
    if asked.status != "complete" or (sorted_out is not None and sorted_out.status != "complete"):
        raise StoreError(f"{run} is not finished; run the same recipe again to complete it")
    settings, counts = asked.settings, {} if sorted_out is None else sorted_out.counts
    before = "set aside before: "
    origin = Origin(
        teachers=settings.get("teachers", ()),
        prompting=settings.get("prompting", {}),
        sampling=settings.get("sampling", {}),
        task=settings.get("task", {}),
        steps=() if sorted_out is None else sorted_out.settings.get("steps", ()),
        funnel=() if sorted_out is None else sorted_out.facts.get("funnel", ()),
        rounds=[
            {"inputs": each.counts.get("examples", 0), "samples": each.settings["sampling"]["n"], "status": each.status}
            for _, each in rounds_of(run, "annotations")
        ],
        asked=summed_facts(run),
        cue=_cue_of(run) or CUE,
        set_aside={name.removeprefix(before): n for name, n in counts.items() if name.startswith(before)},
    )
    return Rows(folder / "rows.jsonl", Annotation), origin


def _cue_of(run: Path) -> str | None:
    """The cue that a run's students were taught, where it has one."""
    for path in sorted(run.glob("seed-*/train")):
        trained = read_manifest(path)
        if trained is not None and (cue := (trained.settings.get("objective") or {}).get("cue")):
            return str(cue)
    return None


def task_of(origin: Origin) -> Task:
    """The task that a run was about.

    Raises:
        ConfigError: the manifest names a task or a setting that is not known here.
    """
    task: Task = config.rebuild("tasks", origin.task)
    return task


def rows_of(annotations: Sequence[Annotation], task: Task, cue: str, rejected: bool) -> Iterator[dict[str, Any]]:
    """One row for each rationale in use, and for those set aside where asked for."""
    for annotation in annotations:
        for one in annotation.rationales:
            yield _row(annotation, one, task, cue, kept=True)
        for one in annotation.rejected if rejected else ():
            yield _row(annotation, one, task, cue, kept=False)


def _row(annotation: Annotation, one: Rationale, task: Task, cue: str, *, kept: bool) -> dict[str, Any]:
    example = annotation.example
    completion = join_rationale(one.text, one.answer, cue) if one.answer else one.text
    turns = [{"role": "user", "content": example.input}, {"role": "assistant", "content": completion}]
    return {
        "id": example.id,
        "input": example.input,
        "choices": list(example.choices),
        "label": example.label,
        "rationale": one.text,
        "answer": one.answer,
        "correct": None if example.label is None else task.is_correct(example, one.answer),
        "kept": kept,
        "reason": one.reason,
        "teacher": one.source,
        "sample": one.sample,
        "logprob": one.logprob,
        "prompt": example.input,
        "completion": completion,
        "messages": turns,
    }


def export_corpus(
    annotations: Sequence[Annotation],
    task: Task,
    folder: Path,
    *,
    cue: str = CUE,
    licence: str = "",
    rejected: bool = False,
    origin: Origin | None = None,
) -> Corpus:
    """Write the data set and its card.

    Args:
        licence: what the card says; the teacher's terms bind its texts, whatever this says.
        rejected: also write what was set aside, with its reason (`kept` is false), to the Parquet file.

    Raises:
        ConfigError: nothing to write. StoreError: the folder cannot be written.
    """
    counts: Counter[str] = Counter()
    inputs: set[str] = set()
    with (
        writing(folder / "corpus.parquet") as table,
        writing(folder / "prompt_completion.jsonl") as first,
        writing(folder / "messages.jsonl") as second,
        _Parquet(table) as parquet,
        first.open("w", encoding="utf-8") as pairs,
        second.open("w", encoding="utf-8") as talks,
    ):
        for row in rows_of(annotations, task, cue, rejected):
            parquet.append(row)
            counts["kept" if row["kept"] else "set aside"] += 1
            counts["wrong among the kept"] += bool(row["kept"] and row["correct"] is False)
            if row["kept"]:
                inputs.add(row["id"])
                pairs.write(_line({key: row[key] for key in ("id", "prompt", "completion")}))
                talks.write(_line({key: row[key] for key in ("id", "messages")}))
        if not counts["kept"]:
            raise ConfigError("nothing to export: no rationale is in use; loosen the curation steps of the run")
    counts["inputs"] = len(annotations)
    counts["inputs with a rationale"] = len(inputs)
    found = {name: count for name, count in counts.items() if count}
    write_text(folder / "README.md", card(task, origin or Origin(), found, cue, licence, annotations[0].example))
    return Corpus(folder, found)


class _Parquet:
    """Rows gathered into groups of a Parquet file, so that memory stays flat."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        text, turn = pa.string(), pa.struct([("role", pa.string()), ("content", pa.string())])
        kinds = dict.fromkeys(COLUMNS, text) | {
            "choices": pa.list_(text),
            "correct": pa.bool_(),
            "kept": pa.bool_(),
            "sample": pa.int32(),
            "logprob": pa.float64(),
            "messages": pa.list_(turn),
        }
        self.schema = pa.schema(list(kinds.items()))
        self.rows: list[dict[str, Any]] = []
        self.writer = pq.ParquetWriter(path, self.schema)

    def __enter__(self) -> _Parquet:
        return self

    def append(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if len(self.rows) >= IN_MEMORY:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa

        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
            self.rows.clear()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.flush()
        self.writer.close()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
