"""The settings that every text student has, and how they become a model with its tokenizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from lmdistill.students import StudentSettings, _lora, _positions
from lmdistill.students import _vocabulary as vocabularies
from lmdistill.students._lora import Lora
from lmdistill.students._scratch import Checkpoint, load_pretrained, set_dropout
from lmdistill.students._text import Overflow


@dataclass(frozen=True)
class TextSettings(StudentSettings):
    """A checkpoint (`model`, a folder or Hub id), or a `preset` that is made from random weights."""

    model: str | None = None
    revision: str | None = None
    preset: str = "tiny"
    vocabulary: str = "word"
    vocabulary_size: int = 8000
    trim: bool = True
    dropout: float | None = None
    max_source: int = 1024
    max_target: int = 256
    overflow: Overflow = "middle"
    attention: str = "sdpa"
    lora: Lora | None = None

    def __post_init__(self) -> None:
        _positions.check_limits(self.max_source, self.max_target)

    @abstractmethod
    def make(self, vocabulary: int) -> Any:
        """A transformers model of the preset's size, of random weights, for so many tokens."""

    def opened(self, auto: Any, texts: Iterable[str], seed: int) -> tuple[Any, Any]:
        """The model (`auto` is the transformers class that opens a checkpoint of it) and its tokenizer."""
        if self.model is not None:
            checkpoint = Checkpoint(self.model, self.revision)
            model, tokenizer = load_pretrained(auto, checkpoint, attn_implementation=self.attention)
            if self.dropout is not None:
                set_dropout(model, self.dropout)
        else:
            tokenizer = vocabularies.build(self.vocabulary, texts, size=self.vocabulary_size, trim=self.trim)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = self.make(len(tokenizer))
        _lora.add(model, self.lora, seed)
        return model, tokenizer
