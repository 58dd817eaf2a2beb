"""Encoder-decoder students: T5, Flan-T5, BART and their kin from transformers, or a small T5 from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lmdistill.students import IGNORED, Batch, Targets, _positions, _sharing
from lmdistill.students._scratch import size_of
from lmdistill.students._settings import TextSettings
from lmdistill.students._text import TextStudent
from lmdistill.types import Sampling


@dataclass(frozen=True)
class Seq2seq(TextSettings):
    """An encoder-decoder student.

    `model` is a folder or Hub id of any transformers encoder-decoder; without it `preset` makes a small T5 from random
    weights whose `vocabulary` is 'word', 'subword', or the path of a sentencepiece model (trimmed to the pieces in use
    unless `trim` is false). `dropout` None keeps the checkpoint's own; from scratch it is 0 (small students underfit
    first). Limits count tokens. `sharing`: the targets of one source share its encoder pass and the keys and values of
    the decoder's cross-attention ('full'), the encoder pass alone ('encoder'), or nothing ('none'); the result is the
    same.
    """

    sharing: Literal["full", "encoder", "none"] = "full"

    def open(self, texts: Iterable[str] = (), seed: int = 0) -> Seq2seqStudent:
        """See `StudentSettings.open`."""
        from transformers import AutoModelForSeq2SeqLM

        model, tokenizer = self.opened(AutoModelForSeq2SeqLM, texts, seed)
        limits = {"max_source": self.max_source, "max_target": self.max_target}
        return Seq2seqStudent(model, tokenizer, overflow=self.overflow, sharing=self.sharing, **limits)

    def make(self, vocabulary: int) -> Any:
        """See `TextSettings.make`."""
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
            dropout_rate=self.dropout or 0.0,
            feed_forward_proj="relu",
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
        config._attn_implementation = self.attention
        return T5ForConditionalGeneration(config)


class Seq2seqStudent(TextStudent):
    """An encoder-decoder as a student: every distinct source of a batch goes through the encoder once."""

    def __init__(self, model: Any, tokenizer: Any, *, sharing: str = "full", **limits: Any) -> None:
        super().__init__(model, tokenizer, **limits)
        self.positions = _positions.positions_of(model.get_decoder())
        _positions.capped(self, source=_positions.positions_of(model.get_encoder()), target=self.positions)
        self.crossing = _sharing.CrossAttentions(model)
        self.sharing = sharing
        ids = torch.tensor([[self.eos, self.eos]])
        _sharing.check_head(self, {"input_ids": ids, "decoder_input_ids": ids})
        if sharing == "full":
            _sharing.fall_back(self, "encoder", self.crossing.refusal(model) or _sharing.differs(self, "none"))
        self.forget_texts()

    def source_tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, verbose=False)["input_ids"])

    def room(self, source: int) -> int | None:
        return self.positions

    def target_tokens(self, text: str) -> list[int]:
        ids = list(self.tokenizer(text_target=text, verbose=False)["input_ids"])
        return ids if ids and ids[-1] == self.eos else [*ids, self.eos]

    def encoded(self, batch: Batch) -> Batch:
        if self.sharing == "none":
            return batch
        whole = self._encoded(batch.source_ids, batch.source_mask, {})
        return replace(batch, extras={**batch.extras, "encoded": whole})

    def decode_rows(self, batch: Batch, roles: Sequence[str], keep_layers: bool) -> Iterator[tuple[str, Tensor, Any]]:
        kept = {"output_hidden_states": True, "output_attentions": True} if keep_layers else {}
        whole = None if keep_layers else batch.extras.get("encoded")
        if whole is None and self.sharing != "none":
            whole = self._encoded(batch.source_ids, batch.source_mask, kept)
        for role in roles:
            rows = batch.targets[role]
            fold = _sharing.fold_rows(rows.source) if self.sharing == "full" and not keep_layers else None
            if whole is not None and fold is not None:
                states = {"last_hidden_state": _take(whole.last_hidden_state, fold.sources)}
                with self.crossing.folding(fold, _take(batch.source_mask, fold.sources)):
                    yield role, *self._decoded(rows, states, None, kept)
                continue
            mask = _take(batch.source_mask, rows.source)
            encoded = self._encoded(_take(batch.source_ids, rows.source), mask, kept) if whole is None else whole
            states = {"last_hidden_state": encoded.last_hidden_state}
            states |= {name: encoded[name] for name in ("hidden_states", "attentions") if keep_layers}
            if whole is not None:
                states = {name: _taken(state, rows.source) for name, state in states.items() if state is not None}
            yield role, *self._decoded(rows, states, mask, kept)

    def _encoded(self, ids: Tensor, mask: Tensor, kept: dict[str, bool]) -> Any:
        return self.model.get_encoder()(input_ids=ids, attention_mask=mask, **kept)

    def _decoded(
        self, rows: Targets, states: dict[str, Any], mask: Tensor | None, kept: dict[str, bool]
    ) -> tuple[Tensor, Any]:
        from transformers.modeling_outputs import BaseModelOutput

        with self.selecting(rows.labels != IGNORED) as taken:
            output = self.model(
                encoder_outputs=BaseModelOutput(**states),
                attention_mask=mask,
                decoder_input_ids=self.model.prepare_decoder_input_ids_from_labels(labels=rows.labels),
                use_cache=False,
                **kept,
            )
            return taken(), output

    def _new_tokens(self, prompts: Sequence[str], sampling: Sampling) -> list[list[int]]:
        from transformers.modeling_outputs import BaseModelOutput

        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        ids, mask = self.padded([self.tokens("source", prompt) for prompt in places], self.pad)
        ids, mask = ids.to(self.device), mask.to(self.device)
        settings = self.generation_settings(sampling, self.room(1))
        if len(places) < len(prompts):  # several samples of an input share its pass through the encoder
            rows = torch.tensor([places[prompt] for prompt in prompts], device=self.device)
            if not self.training:  # with dropout on, each has its own
                states = self._encoded(ids, mask, {}).last_hidden_state
                settings["encoder_outputs"] = BaseModelOutput(last_hidden_state=states[rows])
            ids, mask = ids[rows], mask[rows]
        sequences = self.model.generate(ids, attention_mask=mask, **settings)
        return self.trimmed_rows(sequences[:, 1:], sampling)

    def _continued(self, prompts: Sequence[str], starts: Sequence[list[int]], sampling: Sampling) -> list[list[int]]:
        ids, mask = self.padded([self.tokens("source", prompt) for prompt in prompts], self.pad)
        first = self.model.generation_config.decoder_start_token_id
        first = self.model.config.decoder_start_token_id if first is None else first
        begun = torch.tensor([[first, *start] for start in starts], device=self.device)
        room = None if self.positions is None else self.positions - begun.shape[1]
        settings = self.generation_settings(sampling, room) | {"decoder_input_ids": begun}
        sequences = self.model.generate(ids.to(self.device), attention_mask=mask.to(self.device), **settings)
        return self.trimmed_rows(sequences[:, begun.shape[1] :], sampling)


def _taken(states: Any, rows: Tensor) -> Any:
    return tuple(_take(layer, rows) for layer in states) if isinstance(states, tuple) else _take(states, rows)


def _take(tensor: Tensor, rows: Tensor) -> Tensor:
    """`tensor[rows]`, as a view where the rows are consecutive (no copy, and a cheaper backward pass)."""
    n = rows.shape[0]
    first = int(rows[0])
    if n <= tensor.shape[0] - first and bool((rows == torch.arange(first, first + n, device=rows.device)).all()):
        return tensor[first : first + n]
    return tensor.index_select(0, rows)
