"""How others write down what was asked and what was said: one reader for each layout, each giving `Record`s."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmdistill.errors import DataError
from lmdistill.store import read_jsonl, read_lines
from lmdistill.wire import read_response

LABELS = ("entailment", "neutral", "contradiction")
"""The order in which the published inference sets number their labels."""
USER, ASSISTANT = ("user", "human", "prompter"), ("assistant", "gpt", "chatgpt", "bot", "model")
NAMES: Mapping[str, tuple[str, ...]] = {
    "input": ("prompt", "instruction", "input", "question", "query", "problem", "text"),
    "output": ("completion", "output", "response", "answer_text", "generation", "generations", "llm_raw", "raw"),
    "label": ("label", "gold", "gold_label", "target", "answer"),
    "id": ("id", "custom_id", "task_id", "uid", "idx"),
}


@dataclass(frozen=True)
class Record:
    """One recorded call; `reason` says why it cannot be used."""

    id: str
    input: str = ""
    outputs: tuple[str, ...] = ()
    label: str | None = None
    choices: tuple[str, ...] = ()
    source: str = ""
    truncated: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None


def chat(path: Path, inputs: Path | None, columns: Mapping[str, str]) -> Iterator[Record]:
    """JSON Lines of conversations, whole or as a request with its response."""
    for line, row in read_jsonl(path):
        yield _call(row, str(_first(row, "id") or f"{path.name.partition('.')[0]}-{line}"))


def batch(path: Path, inputs: Path | None, columns: Mapping[str, str]) -> Iterator[Record]:
    """Output (or error) file of the Batch API, and the file that went in."""
    if inputs is None:
        raise DataError("the output of a batch does not hold its questions; name the file that went in (--inputs)")
    asked = {str(row.get("custom_id")): row.get("body") or {} for _, row in read_jsonl(inputs)}
    for line, row in read_jsonl(path):
        name = str(row.get("custom_id") or f"line-{line}")
        response = row.get("response") or {}
        if row.get("error") or response.get("status_code", 200) != 200:
            yield Record(name, reason="the request failed")
        elif name not in asked:
            yield Record(name, reason="not in the file that went in")
        else:
            yield _call({"request": asked[name], "response": response.get("body")}, name)


def dss(path: Path, inputs: Path | None, columns: Mapping[str, str]) -> Iterator[Record]:
    """The release of Distilling Step-by-Step: `DATASET_SPLIT.json` (rows) and `llm/SPLIT_CoT_N.json` (lists of raw
    outputs, in the rows' order). `path` is the folder of a data set, `inputs` the rows where they lie elsewhere."""
    splits = sorted({one.name.rpartition("_CoT_")[0] for one in (path / "llm").glob("*_CoT_*.json")})
    if not splits:
        raise DataError("has no files llm/SPLIT_CoT_N.json; name the folder of one data set of the release", path=path)
    for split in splits:
        rows = inputs if inputs is not None else path / f"{path.name}_{split}.json"
        files = sorted((path / "llm").glob(f"{split}_CoT_*.json"), key=lambda one: int(one.stem.rpartition("_")[2]))
        outputs = (text for file in files for text in _json_list(file))
        for (line, row), output in zip(read_jsonl(rows), outputs, strict=False):
            text, label, choices = _question(row)
            name = str(row.get("id") or row.get("uid") or f"{path.name}-{split}-{line - 1}")
            yield Record(name, text, (str(output),), label, choices, fields={"split": split})


def kard(path: Path, inputs: Path | None, columns: Mapping[str, str]) -> Iterator[Record]:
    """The release of KARD: a folder with a response for each row (`00000.json` ...), or `train_dump.jsonl` with the
    `correct` and `wrong` chains of thought; `inputs` are the rows (`sent1`, `ending0` ..., `label`). The teacher was
    shown the label, so each answer ends in it."""
    if inputs is None:
        raise DataError("KARD's chains of thought stand apart from their questions; name the data file (--inputs)")
    for index, (_, row) in enumerate(read_jsonl(inputs)):
        endings = [row[f"ending{i}"] for i in range(26) if row.get(f"ending{i}") not in (None, "")]
        choices = tuple(map(str, endings))
        number = int(row.get("label", -1))
        label = choices[number] if 0 <= number < len(choices) else None
        text = f"{row.get('sent1', '')} " + " ".join(f"{chr(65 + i)}. {one}" for i, one in enumerate(choices))
        name = str(row.get("id") or f"kard-{index}")
        said = _kard_texts(path, index)
        if said is None:
            yield Record(name, reason="no chain of thought")
            continue
        ending = "" if label is None else f"\nAnswer: {chr(65 + number)}"
        yield Record(name, text, tuple(f"{one.strip()}{ending}" for one in said), label, choices)


def table(path: Path, inputs: Path | None, columns: Mapping[str, str]) -> Iterator[Record]:
    """CSV, TSV, JSON Lines or Parquet with a column for the prompt and one for the completion (or a list of them)."""
    for line, row in _rows(path):
        named = {what: columns.get(what) or _usual(row, what) for what in NAMES}
        if named["input"] is None or named["output"] is None:
            what = "input" if named["input"] is None else "output"
            known = ", ".join(map(str, row)) or "none"
            raise DataError(
                f"no {what} column found; name it (--{what}-column). Columns: {known}", path=path, line=line
            )
        missing = [name for name in (named["input"], named["output"]) if name not in row]
        if missing:
            raise DataError(f"no column {missing[0]!r}. Columns: {', '.join(map(str, row))}", path=path, line=line)
        text = str(row[named["input"]] or "")
        if named["input"] == "instruction" and row.get("input"):  # Alpaca's form
            text = f"{text}\n{row['input']}"
        said = row[named["output"]]
        outputs = tuple(map(str, said)) if isinstance(said, list | tuple) else (str(said),) if said is not None else ()
        label = row.get(named["label"]) if named["label"] else None
        name = row.get(named["id"]) if named["id"] else None
        name = str(name) if name not in (None, "") else f"{path.name.partition('.')[0]}-{line}"
        if not text.strip() or not outputs:
            yield Record(name, reason="an empty input or output")
            continue
        yield Record(name, text, outputs, None if label in (None, "") else str(label))


LAYOUTS: Mapping[str, Callable[[Path, Path | None, Mapping[str, str]], Iterator[Record]]] = {
    "chat": chat, "batch": batch, "dss": dss, "kard": kard, "table": table,
}  # fmt: skip


# --- one recorded call -----------------------------------------------------------------------------------------------


def _call(row: Mapping[str, Any], name: str) -> Record:
    """A conversation whose last turn is the answer, or a request and a response in any of the usual places."""
    request = _mapping(row, "request", "body", "params") or row
    response = _mapping(row, "response", "completion", "result")
    turns = _turns(request.get("messages") or row.get("messages") or row.get("conversations") or row.get("input"))
    source = str((response or {}).get("model") or request.get("model") or row.get("model") or "")
    outputs: list[str] = []
    truncated = False
    for holder in (response, _mapping(row, "output"), row):
        if holder and holder.get("choices"):
            try:
                completions = read_response(dict(holder))
            except ValueError:
                continue
            outputs = [one.text for one in completions]
            truncated = any(one.finish_reason == "length" for one in completions)
            break
    if not outputs:
        outputs = _said(row.get("output") if "output" in row else row.get("response"))
    if not outputs and turns and turns[-1][0] in ASSISTANT:
        outputs = [turns.pop()[1]]
    questions = [text for role, text in turns if role in USER]
    if not questions and isinstance(request.get("prompt"), str):
        questions = [request["prompt"]]
    if not questions:
        return Record(name, reason="no turn of a user")
    if not any(text.strip() for text in outputs):
        return Record(name, reason="no answer")
    label = row.get("label") or (_mapping(row, "metadata") or {}).get("label")
    text = questions[-1].strip()
    return Record(name, text, tuple(outputs), None if label is None else str(label), (), source, truncated)


def _mapping(row: Mapping[str, Any], *names: str) -> dict[str, Any] | None:
    return next((row[name] for name in names if isinstance(row.get(name), dict)), None)


def _turns(value: Any) -> list[tuple[str, str]]:
    """Role and text of each turn, in OpenAI's or ShareGPT's words."""
    if isinstance(value, str):
        return [("user", value)]
    if not isinstance(value, list):
        return []
    turns = [turn for turn in value if isinstance(turn, dict)]
    return [
        (str(turn.get("role") or turn.get("from") or "").casefold(), _text(turn.get("content", turn.get("value"))))
        for turn in turns
    ]


def _said(value: Any) -> list[str]:
    """What a response says that is no list of choices: a text, a message, or a list of messages."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        inner = value.get("content", value.get("text", value.get("output")))
        return [_text(inner)] if inner is not None else []
    if isinstance(value, list):
        spoken = [one for one in value if isinstance(one, dict) and one.get("type", "message") == "message"]
        return ["".join(_text(one.get("content")) for one in spoken)] if spoken else []
    return []


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") if isinstance(part, dict) else str(part) for part in content)
    return ""


def _first(row: Mapping[str, Any], what: str) -> Any:
    return next((row[name] for name in NAMES[what] if row.get(name) not in (None, "")), None)


def _usual(row: Mapping[str, Any], what: str) -> str | None:
    return next((name for name in NAMES[what] if name in row), None)


# --- files -----------------------------------------------------------------------------------------------------------


def _question(row: Mapping[str, Any]) -> tuple[str, str | None, tuple[str, ...]]:
    """Input, label and choices of a row of the sets that Distilling Step-by-Step used."""
    label = row.get("label", row.get("answer"))
    if "premise" in row and "hypothesis" in row:
        name = LABELS[label] if isinstance(label, int) and 0 <= label < 3 else label
        return f"{row['premise']}</s>{row['hypothesis']}", None if name is None else str(name), LABELS
    choices = tuple(map(str, row.get("choices") or ()))
    text = str(row.get("input") or row.get("question") or "")
    if choices and "input" not in row:
        listed = "\n".join(f"({chr(97 + i)}) {choice}" for i, choice in enumerate(choices))
        text = f"{text}\nAnswer Choices:\n{listed}"
    return text, None if label is None else str(label), choices


def _kard_texts(path: Path, index: int) -> list[str] | None:
    """The chains of thought of one row, or None where there are none."""
    if path.is_dir():
        file = path / f"{index:05}.json"
        if not file.exists():
            return None
        try:
            return [one.text for one in read_response(json.loads(file.read_text(encoding="utf-8")))]
        except ValueError as error:
            raise DataError(f"is no response of a chat model ({error})", path=file) from error
    row = _dump(path).get(index)
    return None if row is None else [*map(str, row.get("correct") or ()), *map(str, row.get("wrong") or ())] or None


_DUMPS: dict[Path, dict[int, dict[str, Any]]] = {}


def _dump(path: Path) -> dict[int, dict[str, Any]]:
    if path not in _DUMPS:
        _DUMPS.clear()
        _DUMPS[path] = {index: row for index, (_, row) in enumerate(read_jsonl(path))}
    return _DUMPS[path]


def _json_list(path: Path) -> list[Any]:
    try:
        value = json.loads("\n".join(text for _, text in read_lines(path)))
    except ValueError as error:
        raise DataError(f"is not JSON ({error})", path=path) from error
    if not isinstance(value, list):
        raise DataError(f"holds a {type(value).__name__}; a list of outputs was expected", path=path)
    return value


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a table with their line numbers."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2].casefold()
    if kind in ("jsonl", "json", "ndjson"):
        yield from read_jsonl(path)
    elif kind in ("csv", "tsv"):
        reader = csv.reader((text + "\n" for _, text in read_lines(path)), delimiter="\t" if kind == "tsv" else ",")
        header = next(reader, None)
        for cells in reader:
            if header is not None and cells:
                yield reader.line_num, dict(zip(header, cells, strict=False))
    elif kind == "parquet":
        import pyarrow.parquet

        number = 0
        try:
            file = pyarrow.parquet.ParquetFile(path)
        except (OSError, ValueError) as error:
            raise DataError(f"is no Parquet file ({error})", path=path) from error
        for group in file.iter_batches():
            for row in group.to_pylist():
                number += 1
                yield number, row
    else:
        raise DataError("is no table that can be read: .csv, .tsv, .jsonl or .parquet was expected", path=path)
