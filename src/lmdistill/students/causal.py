"""Decoder-only students: GPT-2, OPT, Llama, Qwen and their kin from transformers, or a small one from scratch."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from lmdistill.caching import cache_name
from lmdistill.errors import ConfigError
from lmdistill.students import IGNORED, Batch, Targets, _positions, _sharing
from lmdistill.students._scratch import Size, size_of
from lmdistill.students._settings import TextSettings
from lmdistill.students._text import TextStudent
from lmdistill.types import Sampling


@dataclass(frozen=True)
class Causal(TextSettings):
    """A decoder-only student.

    `model` is a folder or Hub id of any transformers causal language model; without it `preset` makes a small one of
    the kind `architecture` from random weights, with a `vocabulary` as `seq2seq` has it. A source stands as
    `before` + source + `after`; `after` None is a line break, or nothing where the tokenizer itself ends every text.
    `dropout` None keeps the checkpoint's own, and is 0 from scratch.
    `chat` puts the source into the tokenizer's chat template instead (None: where it has one), after `system` where
    that is given; `chat_options` go to the template. `sharing` 'full' runs a prompt once for all its targets.
    """

    architecture: Literal["llama", "gpt2"] = "llama"
    sharing: Literal["full", "none"] = "full"
    before: str = ""
    after: str | None = None
    chat: bool | None = None
    system: str | None = None
    chat_options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, texts: Iterable[str] = (), seed: int = 0) -> CausalStudent:
        """See `StudentSettings.open`."""
        from transformers import AutoModelForCausalLM

        model, tokenizer = self.opened(AutoModelForCausalLM, texts, seed)
        if self.chat and not getattr(tokenizer, "chat_template", None):
            raise ConfigError(f"student.chat: the tokenizer of {self.model!r} has no chat template; set chat=false")
        return CausalStudent(model, tokenizer, self)

    def make(self, vocabulary: int) -> Any:
        """See `TextSettings.make`."""
        make = {"llama": _llama, "gpt2": _gpt2}[self.architecture]
        positions = self.max_source + self.max_target
        return make(size_of(self.preset), vocabulary, positions, self.dropout or 0.0, self.attention)


def _llama(size: Size, vocabulary: int, positions: int, dropout: float, attention: str) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=2 * size.layers,  # as many as an encoder and a decoder together
        num_attention_heads=size.heads,
        max_position_embeddings=positions,
        attention_dropout=dropout,
        tie_word_embeddings=True,
        bos_token_id=None,
        pad_token_id=0,
        eos_token_id=1,
    )
    config._attn_implementation = attention
    return LlamaForCausalLM(config)


def _gpt2(size: Size, vocabulary: int, positions: int, dropout: float, attention: str) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=size.width,
        n_inner=size.inner,
        n_layer=2 * size.layers,
        n_head=size.heads,
        n_positions=positions,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=None,
        pad_token_id=0,
        eos_token_id=1,
    )
    config._attn_implementation = attention
    return GPT2LMHeadModel(config)


class CausalStudent(TextStudent):
    """A decoder as a student: a prompt runs once, and its key-value cache serves all its targets."""

    pads_left = True

    def __init__(self, model: Any, tokenizer: Any, settings: Causal) -> None:
        limits = {"max_source": settings.max_source, "max_target": settings.max_target}
        super().__init__(model, tokenizer, overflow=settings.overflow, **limits)
        self.settings = settings
        self.positions = _positions.positions_of(model)  # of a source and its target together
        if self.positions is not None:
            target = min(self.max_target, max(self.positions // 2, 1))
            _positions.capped(self, source=max(self.positions - target, 1), target=target)
        self.chat = bool(getattr(tokenizer, "chat_template", None)) if settings.chat is None else settings.chat
        ids = list(tokenizer("a")["input_ids"])
        self.ends_texts = ids[-1:] == [self.eos]  # the tokenizer's own mark separates a source from its target
        self.after = settings.after if settings.after is not None else "" if self.ends_texts else "\n"
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self.sharing = settings.sharing
        self.source_tokens("a")  # a chat template that cannot be used is found now
        _sharing.check_head(self, {"input_ids": torch.tensor([[self.eos, self.eos]])})
        if self.sharing == "full":
            _sharing.fall_back(self, "none", _sharing.differs(self, "none"))
        self.forget_texts()

    @property
    def ends(self) -> tuple[int, ...]:
        known = getattr(self.model.generation_config, "eos_token_id", None)
        more = known if isinstance(known, list | tuple) else [known]
        return (self.eos, *(token for token in more if token is not None and token != self.eos))

    def room(self, source: int) -> int | None:
        return None if self.positions is None else max(self.positions - source, 1)

    def reading(self) -> Mapping[str, Any]:
        own = self.settings
        chat = {"system": own.system, "options": dict(own.chat_options)} if self.chat else None
        return {**super().reading(), "before": own.before, "after": self.after, "chat": chat}

    def source_tokens(self, text: str) -> list[int]:
        if self.chat:
            turns = [{"role": "system", "content": self.settings.system}] if self.settings.system else []
            turns.append({"role": "user", "content": text})
            options = {"add_generation_prompt": True, "tokenize": False, **self.settings.chat_options}
            whole = self._templated(turns, options)
            ids = list(self.tokenizer(whole, add_special_tokens=False, verbose=False)["input_ids"])
        else:
            ids = list(self.tokenizer(self.settings.before + text + self.after, verbose=False)["input_ids"])
        return ids or [self.eos]

    def _templated(self, turns: list[dict[str, str]], options: Mapping[str, Any]) -> str:
        import jinja2

        try:
            return str(self.tokenizer.apply_chat_template(turns, **options))
        except jinja2.TemplateError as error:
            mend = "leave out student.system" if self.settings.system else "set student.chat=false"
            raise ConfigError(f"student.chat: the tokenizer's chat template refuses it ({error}); {mend}") from error

    def target_tokens(self, text: str) -> list[int]:
        lead = "" if self.chat or self.after[-1:].isspace() or self.ends_texts else " "
        ids = list(self.tokenizer(lead + text, add_special_tokens=False, verbose=False)["input_ids"])
        return [*ids, self.eos]

    def decode_rows(self, batch: Batch, roles: Sequence[str], keep_layers: bool) -> Iterator[tuple[str, Tensor, Any]]:
        for role in roles:
            rows = batch.targets[role]
            several = _sharing.several_rows(rows.source) if self.sharing == "full" and not keep_layers else None
            prompts = None if several is None else self._prompts(batch, several[0])
            cache = None if prompts is None or several is None else _sharing.repeated(prompts, several[1])
            self.shared_last = cache is not None
            if cache is None:
                yield role, *self._joined(batch, rows, keep_layers)
            else:
                yield role, *self._after_prompts(batch, rows, cache)

    def _prompts(self, batch: Batch, sources: Tensor) -> Any | None:
        """The key-value cache of the sources without their last token; None where nothing is left, or no such cache."""
        ids, mask = batch.source_ids[sources][:, :-1], batch.source_mask[sources][:, :-1]
        if not ids.shape[1]:
            return None
        output = self.model.base_model(
            input_ids=ids, attention_mask=mask, use_cache=True, return_dict=True, **self._positions(mask)
        )
        return output[cache_name()]

    def _after_prompts(self, batch: Batch, rows: Targets, cache: Any) -> tuple[Tensor, Any]:
        """The last token of each source and its target, on the rows' cache of the prompts."""
        real = rows.labels != IGNORED
        written = rows.labels.masked_fill(~real, self.pad)
        ids = torch.cat([batch.source_ids[rows.source][:, -1:], written[:, :-1]], dim=1)  # [R, T]
        mask = torch.cat([batch.source_mask[rows.source][:, :-1], torch.ones_like(ids)], dim=1)
        with self.selecting(real) as taken:
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                use_cache=True,
                **{cache_name(): cache},
                **self._positions(mask, ids.shape[1]),
            )
            return taken(), output

    def _joined(self, batch: Batch, rows: Targets, keep_layers: bool) -> tuple[Tensor, Any]:
        """Each row as one sequence: padding, source, target, padding."""
        real = rows.labels != IGNORED
        written = rows.labels.masked_fill(~real, self.pad)
        source_mask = batch.source_mask[rows.source]
        ids = torch.cat([batch.source_ids[rows.source], written[:, :-1]], dim=1)  # [R, S + T - 1]
        mask = torch.cat([source_mask, torch.ones_like(written[:, :-1])], dim=1)
        before = source_mask.shape[1] - 1
        selected = torch.cat([real.new_zeros(real.shape[0], before), real], dim=1)
        kept = {"output_hidden_states": True, "output_attentions": True} if keep_layers else {}
        with self.selecting(selected) as taken:
            output = self.model(input_ids=ids, attention_mask=mask, use_cache=False, **self._positions(mask), **kept)
            if keep_layers:
                _cut(output, before)
            return taken(), output

    def _positions(self, mask: Tensor, last: int | None = None) -> dict[str, Tensor]:
        """Position ids that count real tokens only, of the last positions where not of all."""
        if not self.takes_positions:
            return {}
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        return {"position_ids": positions if last is None else positions[:, -last:]}

    def _new_tokens(self, prompts: Sequence[str], sampling: Sampling) -> list[list[int]]:
        return self._written([self.tokens("source", prompt) for prompt in prompts], sampling)

    def _written(self, begun: Sequence[Sequence[int]], sampling: Sampling) -> list[list[int]]:
        ids, mask = self.padded(begun, self.pad, left=True)
        settings = self.generation_settings(sampling, self.room(ids.shape[1]))
        sequences = self.model.generate(ids.to(self.device), attention_mask=mask.to(self.device), **settings)
        return self.trimmed_rows(sequences[:, ids.shape[1] :], sampling)

    def _continued(self, prompts: Sequence[str], starts: Sequence[list[int]], sampling: Sampling) -> list[list[int]]:
        begun = [[*self.tokens("source", prompt), *start] for prompt, start in zip(prompts, starts, strict=True)]
        return self._written(begun, sampling)


def _cut(output: Any, before: int) -> None:
    """Leave of hidden states and attentions the positions that predict a target, as an encoder-decoder has them."""
    if output.get("hidden_states") is not None:
        output["hidden_states"] = tuple(layer[:, before:] for layer in output["hidden_states"])
    if output.get("attentions") is not None:
        output["attentions"] = tuple(layer[:, :, before:] for layer in output["attentions"] if layer is not None)
