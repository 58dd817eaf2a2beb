"""Recorded answers: a teacher that was asked by somebody else, read from a JSON Lines file."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from lmdistill.errors import ConfigError, DataError
from lmdistill.pricing import Ledger
from lmdistill.response_cache import ResponseCache
from lmdistill.store import digest_file, read_jsonl
from lmdistill.tasks import Task
from lmdistill.teachers import Reply, Request, Teacher, TeacherSettings, in_process
from lmdistill.types import Example, Sampling
from lmdistill.wire import Prompt, write_response

MISSING = "not recorded"


@dataclass(frozen=True)
class Replay(TeacherSettings):
    """Answers from a file of rows, one row an example, found by `match`.

    `text` names what the teacher wrote: a column ('llm_raw'), a column with a list of samples ('llm_raw_samples'), or
    a field of a list of objects ('rationales[].text'). Where the answer stands apart from the text, `answer` names it
    in the same way, and the two are joined by the task's cue. `only` keeps the objects of such a list whose fields
    have these values (`{teacher: flan-t5}`).
    """

    keeps: ClassVar[bool] = False
    recorded: ClassVar[bool] = True
    operational: ClassVar[frozenset[str]] = frozenset({"path"})  # what stands in the file counts

    path: Path
    text: str = "llm_raw"
    answer: str | None = None
    match: Literal["id", "row", "input"] = "id"
    id_column: str | None = None
    only: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    source: str = ""

    def open(
        self, task: Task | None = None, *, ledger: Ledger | None = None, cache: ResponseCache | None = None
    ) -> Any:
        records: dict[str, list[str]] = {}
        column = self.id_column or self.match
        cue = task.answer_cue if task is not None else Task.answer_cue
        for line, row in read_jsonl(self.path):
            if self.match == "row" and column not in row:
                key: Any = line - 1
            elif column in row:
                key = row[column]
            else:
                message = f"has no column {column!r} to match examples by; set match (id, row, input) or id_column"
                raise DataError(message, path=self.path, line=line)
            records[_key(key)] = self._texts(row, cue)
        if not any(records.values()):
            message = f"no row has a text in {self.text!r}; set 'text' to the column with the teacher's output"
            raise DataError(message, path=self.path)
        name = self.source or self.model or self.path.name.partition(".")[0]
        return Recording(name, f"replay:{digest_file(self.path)}", self, records)

    def digests(self) -> Mapping[str, str]:
        if not self.path.exists():
            raise DataError("no such file", path=self.path)
        return {self.path.name: digest_file(self.path)}

    def __post_init__(self) -> None:
        if self.only and "[]" not in self.text:
            raise ConfigError(f"only: selects among a list of objects; text is {self.text!r}, expected 'list[].field'")

    def _texts(self, row: Mapping[str, Any], cue: str) -> list[str]:
        texts = self._values(row, self.text)
        if self.answer is None:
            return texts
        answers = self._values(row, self.answer)
        return [
            f"{text.strip()} {cue} {answer}".strip() if answer else text
            for text, answer in zip(texts, answers + [""] * len(texts), strict=False)
        ]

    def _values(self, row: Mapping[str, Any], path: str) -> list[str]:
        where, listed, name = path.partition("[].")
        value = row.get(where)
        if listed:
            items = value if isinstance(value, list) else []
            chosen = [item for item in items if isinstance(item, Mapping) and self._wanted(item)]
            return [_text(item.get(name)) for item in chosen]
        if isinstance(value, list):
            return [_text(item) for item in value]
        return [] if value is None else [_text(value)]

    def _wanted(self, item: Mapping[str, Any]) -> bool:
        return all(str(item.get(name)) == value for name, value in self.only.items())


class Recording(Teacher):
    """An open file of answers. A sample that was never recorded is an empty answer with the reason 'not recorded'."""

    recorded = True

    def __init__(self, source: str, endpoint: str, settings: Replay, records: Mapping[str, list[str]]) -> None:
        self.source = source
        self.endpoint = endpoint
        self.model = settings.model or source
        self.settings = settings
        self.records = records

    def body(self, prompt: Prompt, sampling: Sampling, example: Example) -> dict[str, Any]:
        match = self.settings.match
        key: Any = example.id if match == "id" else example.input
        if match == "row":
            key = example.fields.get("row", example.fields.get("index"))
            if key is None:
                message = f"example {example.id!r} has no field 'row'; match recorded answers by id or by input"
                raise ConfigError(f"teacher 'replay': {message}")
        return {"model": self.model, "recorded": _key(key), "settings": self.settings.text}

    async def answers(self, requests: AsyncIterable[Request]) -> AsyncGenerator[Reply, None]:
        async for request in requests:
            texts = self.records.get(request.body["recorded"], [])
            choices = []
            for sample in request.samples:
                text = texts[sample] if sample < len(texts) else ""
                choices.append({"text": text, "finish_reason": "stop" if text.strip() else MISSING})
            response = write_response(self.model, choices, chat=False, prompt_tokens=0, completion_tokens=0)
            yield in_process(request, response)


def _key(value: Any) -> str:
    return " ".join(str(value).split())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
