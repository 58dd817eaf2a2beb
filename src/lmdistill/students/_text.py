"""What every text student shares: views to tensors, generation in length order, the vocabulary head on real positions.

A concrete student adds how sources and targets go through its model (`encode_rows`) and how prompts are padded.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lmdistill.errors import DataError, StoreError
from lmdistill.losses.token import linear_nll
from lmdistill.students import IGNORED, Batch, Scored, Targets, _lora
from lmdistill.students._noise import seeded
from lmdistill.types import Completion, Item, Sampling, View

Overflow = Literal["middle", "refuse"]
"""What happens to a source over the limit: its middle is left out (the beginning and the cue at the end stay), or the
run is refused. Either way it is counted."""

NLL = frozenset({"nll"})


class TextStudent(nn.Module):
    """A transformers model with its tokenizer, as the loop and the objectives see it."""

    pads_left = False
    """Whether sources are padded on their left, so that a target can follow each of them at once."""
    sharing: str = "none"

    def __init__(self, model: Any, tokenizer: Any, *, max_source: int, max_target: int, overflow: Overflow) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.max_source, self.max_target, self.overflow = max_source, max_target, overflow
        self.shortened: dict[str, int] = {"source": 0, "target": 0}
        self._tokens: dict[tuple[str, str], tuple[int, ...]] = {}
        self._seeds: Sequence[int] | None = None  # one for each prompt that is being answered
        self._selected: Tensor | None = None  # [R, T] bool: positions the head reads
        self._hidden: Tensor | None = None  # [N, D]: what it would have read
        model.get_output_embeddings().register_forward_pre_hook(self._select)

    # --- text to tensors ---

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def eos(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a text, the one that targets are trained with first."""
        return (self.eos,)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @abstractmethod
    def source_tokens(self, text: str) -> list[int]:
        """Token ids of a source, special tokens included, before any limit."""

    @abstractmethod
    def target_tokens(self, text: str) -> list[int]:
        """Token ids of a target with its end of sequence, before any limit."""

    @abstractmethod
    def decode_rows(self, batch: Batch, roles: Sequence[str], keep_layers: bool) -> Iterator[tuple[str, Tensor, Any]]:
        """For each role: its name, the hidden states [N, D] at its real target positions, and the model's output."""

    def tokens(self, kind: Literal["source", "target"], text: str) -> tuple[int, ...]:
        """Token ids within the limit; each text is tokenised once.

        Raises:
            DataError: the text is over the limit and `overflow` is 'refuse'.
        """
        key = (kind, text)
        if key not in self._tokens:
            if len(self._tokens) > 1_000_000:
                self._tokens.clear()
            ids = self.source_tokens(text) if kind == "source" else self.target_tokens(text)
            self._tokens[key] = tuple(self._within(kind, ids, text))
        return self._tokens[key]

    def _within(self, kind: Literal["source", "target"], ids: list[int], text: str) -> list[int]:
        limit = self.max_source if kind == "source" else self.max_target
        if len(ids) <= limit:
            return ids
        if self.overflow == "refuse":
            message = f"a {kind} has {len(ids)} tokens, over the student's limit of {limit}: {text[:60]!r} ... "
            raise DataError(message + f"Raise student.max_{kind}, or set student.overflow=middle")
        self.shortened[kind] += 1
        if kind == "target":  # a target keeps its beginning and its end of sequence
            return [*ids[: limit - 1], ids[-1]]
        head = limit // 2
        return [*ids[:head], *ids[len(ids) - (limit - head) :]]

    def length(self, view: View) -> tuple[int, int]:
        return len(self.tokens("source", view.source)), len(self.tokens("target", view.target))

    def collate(self, items: Sequence[Item], views: Sequence[Sequence[View]]) -> Batch:
        """Distinct sources once, and by role (in order of first appearance) the rows on them."""
        sources: dict[str, int] = {}
        rows: dict[str, list[tuple[View, int]]] = {}
        for index, own in enumerate(views):
            for view in own:
                sources.setdefault(view.source, len(sources))
                rows.setdefault(view.role, []).append((view, index))
        ids, mask = self.padded([self.tokens("source", source) for source in sources], self.pad, left=self.pads_left)
        targets = {}
        for role, pairs in rows.items():
            labels, _ = self.padded([self.tokens("target", view.target) for view, _ in pairs], IGNORED)
            targets[role] = Targets(
                labels=labels,
                source=torch.tensor([sources[view.source] for view, _ in pairs]),
                item=torch.tensor([index for _, index in pairs]),
                group=torch.tensor([view.group for view, _ in pairs]),
                weight=torch.tensor([view.weight for view, _ in pairs], dtype=torch.float32),
            )
        return Batch(items, views, ids, mask, targets)

    def with_targets(self, batch: Batch, role: str, tokens: Sequence[Sequence[int]]) -> Batch:
        """The batch with a role's targets replaced by token ids, for example the student's own samples."""
        labels, _ = self.padded(tokens, IGNORED)
        rows = batch.targets[role]
        fresh = replace(rows, labels=labels.to(rows.labels.device))
        return replace(batch, targets={**batch.targets, role: fresh})

    @staticmethod
    def padded(rows: Sequence[Sequence[int]], filler: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
        """Rows of token ids as one tensor [R, L] and its mask, padded on the right unless `left`."""
        width = max((len(row) for row in rows), default=0) or 1
        ids = torch.full((len(rows), width), filler, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            ids[i, place] = torch.tensor(row, dtype=torch.long)
            mask[i, place] = 1
        return ids, mask

    # --- scoring ---

    def encoded(self, batch: Batch) -> Batch:
        """See `lmdistill.students.Student.encoded`."""
        return batch

    def forward(
        self, batch: Batch, roles: Sequence[str] | None = None, want: frozenset[str] = NLL
    ) -> dict[str, Scored]:
        """See `lmdistill.students.Student.forward`."""
        chosen = [role for role in (batch.targets if roles is None else roles) if role in batch.targets]
        keep_layers = bool(want & {"layers", "attention"})
        out: dict[str, Scored] = {}
        hidden: dict[str, Tensor] = {}
        for role, states, output in self.decode_rows(batch, chosen, keep_layers):
            hidden[role] = states
            out[role] = Scored(None, batch.targets[role].labels != IGNORED)
            if "logits" in want:
                out[role].logits = self.head(states)
            if "hidden" in want:
                out[role].hidden = states
            if keep_layers:
                out[role].layers = _layers(output)
        if "nll" in want and chosen:
            self._score(batch, hidden, out)
        return out

    def _score(self, batch: Batch, hidden: dict[str, Tensor], out: dict[str, Scored]) -> None:
        """Fill in the nll of every role: one pass through the vocabulary for all of them together."""
        labels = [batch.targets[role].labels[one.mask] for role, one in out.items()]
        flat = self._nll(torch.cat([hidden[role] for role in out]), torch.cat(labels))
        for one, own in zip(out.values(), torch.split(flat, [len(one) for one in labels]), strict=True):
            one.nll = own.new_zeros(one.mask.shape).masked_scatter(one.mask, own)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [N, V] of hidden states [N, D]."""
        logits: Tensor = self.model.get_output_embeddings()(hidden)
        bias = getattr(self.model, "final_logits_bias", None)
        return logits if bias is None else logits + bias

    def _nll(self, hidden: Tensor, labels: Tensor) -> Tensor:
        head = self.model.get_output_embeddings()
        if type(head) is nn.Linear:
            bias = head.bias if head.bias is not None else getattr(self.model, "final_logits_bias", None)
            return linear_nll(hidden, head.weight, labels, bias=bias)
        return nn.functional.cross_entropy(self.head(hidden).float(), labels, reduction="none")

    def _select(self, head: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Hook on the head: while positions are selected, keep their hidden states and give the head nothing to do."""
        if self._selected is None:
            return None
        (hidden,) = arguments
        self._hidden = hidden[self._selected]
        return (self._hidden[:0],)

    @contextlib.contextmanager
    def selecting(self, mask: Tensor) -> Iterator[Callable[[], Tensor]]:
        """Within it, a forward of the model stops before the head; the yielded function gives the states [N, D]."""
        self._selected, self._hidden = mask, None

        def taken() -> Tensor:
            assert self._hidden is not None, "the model's head was not called"
            return self._hidden

        try:
            yield taken
        finally:
            self._selected = None

    @torch.no_grad()
    def logprobs(
        self, sources: Sequence[str], targets: Sequence[str], given: Sequence[str] = (), *, batch_size: int = 64
    ) -> list[float]:
        """See `lmdistill.students.Student.logprobs`."""
        training = self.training
        self.eval()
        out: list[float] = []
        for start in range(0, len(sources), batch_size):
            pairs = zip(sources[start : start + batch_size], targets[start : start + batch_size], strict=True)
            views = [[View(source, target, "scored")] for source, target in pairs]
            batch = self.collate([], views).to(self.device)
            nll = self.forward(batch)["scored"].nll
            assert nll is not None
            for row, index in zip(nll, range(start, start + len(views)), strict=True):
                known = self._shared(targets[index], given[index]) if given else 0
                out.append(-float(row[known:].sum()))
        self.train(training)
        return out

    def _shared(self, target: str, given: str) -> int:
        """How many of a target's tokens `given` begins with too."""
        pairs = zip(self.tokens("target", target), self.tokens("target", given), strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), 0)

    # --- writing ---

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[str], sampling: Sampling, *, batch_size: int = 64, seeds: Sequence[int] | None = None
    ) -> list[list[Completion]]:
        """See `lmdistill.students.Student.generate`; longest prompts first: memory runs out at once or never."""
        if seeds is not None and sampling.n > 1:
            every = [prompt for prompt in prompts for _ in range(sampling.n)]
            own = [seed + i for seed in seeds for i in range(sampling.n)]
            flat = self.generate(every, replace(sampling, n=1), batch_size=batch_size, seeds=own)
            return [[one for (one,) in flat[i : i + sampling.n]] for i in range(0, len(flat), sampling.n)]
        training = self.training
        self.eval()
        order = sorted(range(len(prompts)), key=lambda i: -len(self.tokens("source", prompts[i])))
        out: list[list[Completion]] = [[] for _ in prompts]
        rows = max(1, batch_size // max(1, sampling.n))
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            for start in range(0, len(order), rows):
                chunk = order[start : start + rows]
                if sampling.seed is not None:
                    torch.manual_seed(sampling.seed + start)
                self._seeds = None if seeds is None else [seeds[i] for i in chunk]
                for index, completions in zip(chunk, self._write([prompts[i] for i in chunk], sampling), strict=True):
                    out[index] = completions
        self._seeds = None
        self.train(training)
        return out

    @torch.no_grad()
    def generate_tokens(self, prompts: Sequence[str], sampling: Sampling) -> list[list[int]]:
        """New token ids (end of sequence included where it was reached) of each of the n samples of each prompt."""
        return self._new_tokens(prompts, sampling)

    @torch.no_grad()
    def finish(
        self, prompts: Sequence[str], begun: Sequence[str], sampling: Sampling, *, batch_size: int = 64
    ) -> list[Completion]:
        """What follows texts that were begun for prompts (a rationale and its cue), one completion each."""
        training = self.training
        self.eval()
        starts = [[token for token in self.tokens("target", text) if token not in self.ends] for text in begun]
        order = sorted(range(len(prompts)), key=lambda i: len(starts[i]))
        out: dict[int, Completion] = {}
        while order:
            same = [i for i in order[:batch_size] if len(starts[i]) == len(starts[order[0]])]
            rows = self._continued([prompts[i] for i in same], [starts[i] for i in same], sampling)
            out |= zip(same, self._completed(rows, sampling), strict=True)
            order = order[len(same) :]
        self.train(training)
        return [out[i] for i in range(len(prompts))]

    @abstractmethod
    def _continued(self, prompts: Sequence[str], starts: Sequence[list[int]], sampling: Sampling) -> list[list[int]]:
        """New token ids after starts of equal length, one row for each prompt."""

    @abstractmethod
    def _new_tokens(self, prompts: Sequence[str], sampling: Sampling) -> list[list[int]]:
        """`sampling.n` rows of new token ids for each prompt, one after another."""

    def _write(self, prompts: Sequence[str], sampling: Sampling) -> list[list[Completion]]:
        completions = self._completed(self._new_tokens(prompts, sampling), sampling)
        return [completions[i : i + sampling.n] for i in range(0, len(completions), sampling.n)]

    def _completed(self, rows: Sequence[list[int]], sampling: Sampling) -> list[Completion]:
        """Texts of rows of new token ids, cut at the first stop string."""
        completions = []
        for row in rows:
            finished = bool(row) and row[-1] in self.ends
            text = self.tokenizer.decode(row, skip_special_tokens=True).strip()
            for stop in sampling.stop:
                if stop in text:
                    text, finished = text[: text.index(stop)], True
            completions.append(Completion(text, finish_reason="stop" if finished else "length"))
        return completions

    def generation_settings(self, sampling: Sampling) -> dict[str, Any]:
        """Arguments for transformers' `generate`, every one of them explicit (no silent top_k = 50)."""
        settings: dict[str, Any] = {
            "max_new_tokens": sampling.max_tokens,
            "num_return_sequences": sampling.n,
            "num_beams": max(sampling.beams, 1),
            "do_sample": sampling.temperature > 0,
            "pad_token_id": self.pad,
            "eos_token_id": list(self.ends),
        }
        if sampling.temperature > 0:
            settings |= {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
            if self._seeds is not None:
                for unused in ("temperature", "top_k", "top_p"):
                    del settings[unused]
                settings |= seeded(sampling, self._seeds)
        elif sampling.n > settings["num_beams"]:
            settings["num_return_sequences"] = 1
        if sampling.stop:
            settings |= {"stop_strings": list(sampling.stop), "tokenizer": self.tokenizer}
        return settings

    def trimmed_rows(self, sequences: Tensor, sampling: Sampling) -> list[list[int]]:
        """Rows of new token ids cut after their end of sequence; greedy samples are the same one n times."""
        rows = []
        for row in sequences.tolist():
            end = next((i + 1 for i, token in enumerate(row) if token in self.ends), len(row))
            rows.append([token for token in row[:end] if token != self.pad or token in self.ends])
        if sampling.temperature == 0 and sampling.n > max(sampling.beams, 1):
            return [row for row in rows for _ in range(sampling.n)]
        return rows

    def save(self, folder: Path) -> None:
        """An ordinary transformers folder: safetensors, tokenizer, configuration, generation configuration.

        Adapters are merged into the weights, so the folder stands alone, and lie in `folder/adapter` too.
        """
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.model.save_pretrained(folder, state_dict=_lora.merged(self.model))
        _lora.save(self.model, folder / "adapter")
        self.tokenizer.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        """Take over the weights of a folder that `save` wrote, in place.

        Raises:
            StoreError: the folder lacks its weights.
        """
        from safetensors.torch import load_model

        if _lora.load(self.model, folder / "adapter"):
            return
        path = folder / "model.safetensors"
        if not path.exists():
            raise StoreError(
                f"{folder} has no model.safetensors; the checkpoint is not whole. Train again, or copy it again"
            )
        load_model(self.model, str(path))


def _layers(output: Any) -> dict[str, Any]:
    names: tuple[str, ...] = ("encoder_hidden_states", "decoder_hidden_states", "hidden_states")
    names += ("encoder_attentions", "decoder_attentions", "cross_attentions", "attentions")
    return {name: output[name] for name in names if output.get(name) is not None}
