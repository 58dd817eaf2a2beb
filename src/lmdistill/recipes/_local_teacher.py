"""A local teacher as training reads it: its model, what names it and its reading, its top tokens recorded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmdistill.distributions import vocabulary_hash
from lmdistill.errors import ConfigError
from lmdistill.logit_store import LogitStore, Recorded, record
from lmdistill.teachers.transformers import Transformers, fingerprint
from lmdistill.types import View

READING = ("max_source", "max_target", "overflow", "before", "after", "chat", "system", "chat_options")
"""Settings of a student that decide how its teacher reads an input: they are the teacher's too."""
ROWS = 32
"""Texts that are recorded in one pass."""


def identity_of(teacher: Transformers) -> str:
    """What names a local teacher: its folder and a fingerprint of what is in it."""
    return f"{teacher.model}@{teacher.revision or fingerprint(Path(teacher.model))}"


def reading_of(teacher: Transformers, student: Any) -> dict[str, Any]:
    """Everything beside its weights and the text that changes what a local teacher says of it."""
    settings = opened_as(teacher, student)
    read = {name: getattr(settings, name) for name in READING if hasattr(settings, name)}
    return {"kind": type(settings).__name__, "dtype": _dtype(teacher), **read}


def opened_as(teacher: Transformers, student: Any) -> Any:
    """The settings of the student that opens the teacher's model: the run's own, where that is of its kind.

    Raises:
        ConfigError: the folder holds no model.
    """
    from transformers import AutoConfig

    from lmdistill.students.causal import Causal
    from lmdistill.students.seq2seq import Seq2seq

    path, revision = teacher.model, teacher.revision
    try:
        both = bool(AutoConfig.from_pretrained(path, revision=revision).is_encoder_decoder)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"teacher.model: {path!r} is no transformers model: {first}") from error
    if isinstance(student, Seq2seq if both else Causal):
        return replace(student, model=path, revision=revision, lora=None, dropout=None)
    kind: Any = Seq2seq if both else Causal
    return kind(model=path, revision=revision, max_source=student.max_source, max_target=student.max_target)


def frozen(teacher: Transformers, student: Any, training: str) -> Any:
    """The teacher's model, ready to be asked, on its own device or else where the student is trained.

    Its weights are float32, or of the `dtype` that the teacher names ('auto': float32 too, as the student's).

    Args:
        training: the device of training, 'auto' or 'cpu'.
    """
    import torch

    from lmdistill.objectives._teacher import Frozen

    opened = opened_as(teacher, student).open()
    return Frozen(opened.to(device=_device(teacher, training), dtype=getattr(torch, _dtype(teacher))))


def _dtype(teacher: Transformers) -> str:
    return "float32" if teacher.dtype == "auto" else teacher.dtype


def _device(teacher: Transformers, training: str) -> Any:
    import torch

    if teacher.device != "auto":
        return torch.device(teacher.device)
    if training == "cpu":
        return torch.device("cpu")
    from accelerate import PartialState

    return PartialState().device


def recorded(
    teacher: Any, student: Any, laid: Sequence[tuple[Any, View]], folder: Path, top: int, told: tuple[str, Any]
) -> LogitStore:
    """The teacher's top tokens at each of the rows that training will show.

    Args:
        teacher: opens the frozen model; only called where something is to be recorded.
        told: what names the teacher, and its reading.
    """
    wanted = [(item.id, view.source, student.tokens("target", view.target, view.tail)) for item, view in laid]

    def texts(lacking: Sequence[int]) -> Iterator[Recorded]:
        model = teacher()
        for start in range(0, len(lacking), ROWS):
            chunk = [laid[i] for i in lacking[start : start + ROWS]]
            batch = student.collate([item for item, _ in chunk], [[view] for _, view in chunk])
            found = model.top(batch.to(model.model.device), chunk[0][1].role, top)
            for (item, view), one in zip(chunk, found, strict=True):
                yield Recorded(item.id, view.source, one)

    name, reading = told
    hashed = vocabulary_hash(student.tokenizer)
    return record(folder, texts, tokenizer_hash=hashed, top=top, teacher=name, wanted=wanted, reading=reading)
