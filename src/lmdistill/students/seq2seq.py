"""Encoder-decoder students: T5, Flan-T5, BART and their kin from transformers, or a small T5 from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmdistill.errors import ConfigError
from lmdistill.students import IGNORED, Batch, StudentSettings
from lmdistill.students import _vocabulary as vocabularies
from lmdistill.students._scratch import Checkpoint, load_pretrained, size_of
from lmdistill.students._text import Overflow, TextStudent
from lmdistill.types import Sampling


@dataclass(frozen=True)
class Seq2seq(StudentSettings):
    """An encoder-decoder student.

    `model` is a folder or Hub id of any transformers encoder-decoder; without it `preset` makes a small T5 from random
    weights whose `vocabulary` is 'word', 'subword', or the path of a sentencepiece model (trimmed to the pieces in use
    unless `trim` is false). `dropout` None keeps the checkpoint's own. Limits count tokens.
    """

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

    def open(self, texts: Iterable[str] = (), seed: int = 0) -> Seq2seqStudent:
        """See `StudentSettings.open`."""
        from transformers import AutoModelForSeq2SeqLM

        if self.model is not None:
            options: dict[str, Any] = {"attn_implementation": self.attention}
            checkpoint = Checkpoint(self.model, self.revision)
            model, tokenizer = load_pretrained(AutoModelForSeq2SeqLM, checkpoint, **options)
            if self.dropout is not None:
                _set_dropout(model, self.dropout)
        else:
            tokenizer = vocabularies.build(self.vocabulary, texts, size=self.vocabulary_size, trim=self.trim)
            model = self._scratch(len(tokenizer), seed)
        limits = {"max_source": self.max_source, "max_target": self.max_target}
        return Seq2seqStudent(model, tokenizer, overflow=self.overflow, **limits)

    def _scratch(self, vocabulary: int, seed: int) -> Any:
        from transformers import T5Config, T5ForConditionalGeneration

        size = size_of(self.preset)
        config = T5Config(
            vocab_size=vocabulary,
            d_model=size.width,
            d_kv=size.width // size.heads,
            d_ff=size.inner,
            num_heads=size.heads,
            num_layers=size.layers,
            num_decoder_layers=size.layers,
            dropout_rate=0.1 if self.dropout is None else self.dropout,
            feed_forward_proj="relu",
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
        config._attn_implementation = self.attention
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return T5ForConditionalGeneration(config)


class Seq2seqStudent(TextStudent):
    """An encoder-decoder as a student: every distinct source of a batch goes through the encoder once."""

    def source_tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def target_tokens(self, text: str) -> list[int]:
        ids = list(self.tokenizer(text_target=text)["input_ids"])
        return ids if ids and ids[-1] == self.eos else [*ids, self.eos]

    def decode_rows(self, batch: Batch, roles: Sequence[str], keep_layers: bool) -> Iterator[tuple[str, Tensor, Any]]:
        from transformers.modeling_outputs import BaseModelOutput

        kept = {"output_hidden_states": True, "output_attentions": True} if keep_layers else {}
        encoded = self.model.get_encoder()(input_ids=batch.source_ids, attention_mask=batch.source_mask, **kept)
        for role in roles:
            rows = batch.targets[role]
            mask = rows.labels != IGNORED
            states = BaseModelOutput(last_hidden_state=_take(encoded.last_hidden_state, rows.source))
            for name in ("hidden_states", "attentions"):
                if keep_layers and encoded.get(name) is not None:
                    states[name] = tuple(_take(layer, rows.source) for layer in encoded[name])
            with self.selecting(mask) as taken:
                output = self.model(
                    encoder_outputs=states,
                    attention_mask=_take(batch.source_mask, rows.source),
                    decoder_input_ids=self.model.prepare_decoder_input_ids_from_labels(labels=rows.labels),
                    use_cache=False,
                    **kept,
                )
                yield role, taken(), output

    def _new_tokens(self, prompts: Sequence[str], sampling: Sampling) -> list[list[int]]:
        ids, mask = self.padded([self.tokens("source", prompt) for prompt in prompts], self.pad)
        settings = self.generation_settings(sampling)
        sequences = self.model.generate(ids.to(self.device), attention_mask=mask.to(self.device), **settings)
        return self.trimmed_rows(sequences[:, 1:], sampling)


def _take(tensor: Tensor, rows: Tensor) -> Tensor:
    """`tensor[rows]`, as a view where the rows are consecutive (no copy, and a cheaper backward pass)."""
    n = rows.shape[0]
    first = int(rows[0])
    if n <= tensor.shape[0] - first and bool((rows == torch.arange(first, first + n, device=rows.device)).all()):
        return tensor[first : first + n]
    return tensor.index_select(0, rows)


def _set_dropout(model: Any, rate: float) -> None:
    if not 0 <= rate < 1:
        raise ConfigError(f"student.dropout: {rate} is not in [0, 1)")
    for name in ("dropout_rate", "dropout", "attention_dropout", "activation_dropout"):
        if hasattr(model.config, name):
            setattr(model.config, name, rate)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = rate
