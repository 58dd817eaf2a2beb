"""What every text student shares: views to tensors, limits on their length, the vocabulary head on real positions.

A concrete student adds how sources and targets go through its model (`decode_rows`) and how prompts are padded.
"""

from __future__ import annotations

import contextlib
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lmdistill.errors import DataError, StoreError
from lmdistill.losses.token import linear_nll
from lmdistill.students import IGNORED, Batch, Scored, Targets, _lora
from lmdistill.students._writing import Writer, without_middle
from lmdistill.types import Item, View

Overflow = Literal["middle", "refuse"]
"""What happens to a source over the limit: its middle is left out (the beginning and the cue at the end stay), or the
run is refused. Either way it is counted."""

NLL = frozenset({"nll"})


Kind = Literal["source", "target"]
NOTABLE = 0.01
"""The share of texts over a limit from which on it is said aloud."""


class TextStudent(Writer):
    """A transformers model with its tokenizer, as the loop and the objectives see it."""

    pads_left = False
    """Whether sources are padded on their left, so that a target can follow each of them at once."""
    sharing: str = "none"
    shared_last = True
    """Whether the last forward under 'full' sharing did share; what could not is done plainly, and a probe sees it."""

    def __init__(self, model: Any, tokenizer: Any, *, max_source: int, max_target: int, overflow: Overflow) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.max_source, self.max_target, self.overflow = max_source, max_target, overflow
        self._cut: dict[str, set[str]] = {"source": set(), "target": set()}
        self._told: set[str] = set()
        self._tokens: dict[tuple[str, str, str], tuple[int, ...]] = {}
        self._selected: Tensor | None = None  # [R, T] bool: positions the head reads
        self._hidden: Tensor | None = None  # [N, D]: what it would have read
        model.get_output_embeddings().register_forward_pre_hook(self._select)

    # --- text to tensors ---

    @abstractmethod
    def source_tokens(self, text: str) -> list[int]:
        """Token ids of a source, special tokens included, before any limit."""

    @abstractmethod
    def target_tokens(self, text: str) -> list[int]:
        """Token ids of a target with its end of sequence, before any limit."""

    @abstractmethod
    def decode_rows(self, batch: Batch, roles: Sequence[str], keep_layers: bool) -> Iterator[tuple[str, Tensor, Any]]:
        """For each role: its name, the hidden states [N, D] at its real target positions, and the model's output."""

    def tokens(self, kind: Kind, text: str, tail: str = "") -> tuple[int, ...]:
        """Token ids within the limit; each text is tokenised once.

        Args:
            tail: the end of a target that must stay; then a target over the limit loses the middle of what is before.

        Raises:
            DataError: the text is over the limit and `overflow` is 'refuse'.
        """
        key = (kind, text, tail)
        if key not in self._tokens:
            if len(self._tokens) > 1_000_000:
                self._tokens.clear()
            ids = self.source_tokens(text) if kind == "source" else self.target_tokens(text)
            self._tokens[key] = tuple(self._within(kind, ids, text, tail))
        return self._tokens[key]

    def _within(self, kind: Kind, ids: list[int], text: str, tail: str) -> list[int]:
        limit = self.max_source if kind == "source" else self.max_target
        if len(ids) <= limit:
            return ids
        if self.overflow == "refuse":
            message = f"a {kind} has {len(ids)} tokens, over the student's limit of {limit}: {text[:60]!r} ... "
            raise DataError(message + f"Raise student.max_{kind}, or set student.overflow=middle")
        self._cut[kind].add(text)
        if kind == "source":
            return without_middle(ids, limit)
        if tail and text.endswith(tail):
            before = self.shared(ids, text[: -len(tail)].rstrip())
            if len(ids) - before < limit:
                return [*without_middle(ids[:before], limit - len(ids) + before), *ids[before:]]
            ids = ids[before:]
        return [*ids[: limit - 1], ids[-1]]  # a target keeps its beginning and its end of sequence

    def shared(self, ids: Sequence[int], begun: str) -> int:
        """How many of a target's tokens are those of a text that it begins with."""
        known = [token for token in self.target_tokens(begun) if token not in self.ends]
        pairs = enumerate(zip(ids, known, strict=False))
        return next((i for i, (a, b) in pairs if a != b), min(len(ids), len(known)))

    def reading(self) -> Mapping[str, Any]:
        """What decides how a text becomes tokens, beside the tokenizer."""
        return {"max_source": self.max_source, "max_target": self.max_target, "overflow": self.overflow}

    # --- what was over a limit ---

    @property
    def shortened(self) -> dict[str, int]:
        """How many different sources and targets were cut so far."""
        return {kind: len(texts) for kind, texts in self._cut.items()}

    @property
    def seen(self) -> dict[str, int]:
        """How many different sources and targets were read so far."""
        return {kind: sum(own == kind for own, _, _ in self._tokens) for kind in self._cut}

    def forget_texts(self) -> None:
        """As if no text had been read yet: those of a probe do not count."""
        self._tokens.clear()
        for texts in self._cut.values():
            texts.clear()

    def cut_sources(self, sources: Iterable[str]) -> int:
        """How many of these sources were cut."""
        return sum(source in self._cut["source"] for source in sources)

    def tell_of_cuts(self, kind: Kind, cut: int, of: int) -> None:
        """Say once that more than a few texts are over a limit."""
        if cut <= NOTABLE * of or kind in self._told:
            return
        self._told.add(kind)
        limit = self.max_source if kind == "source" else self.max_target
        why = f"{cut:,} of {of:,} {kind}s have more than {limit:,} tokens and were shortened; raise student.max_{kind}"
        print(f"lmdistill: {why}", file=sys.stderr)

    def tell_no_cuts(self) -> None:
        """Say nothing more of texts over a limit: it was told when this student was tested."""
        self._told.update(self._cut)

    # --- views to tensors ---

    def length(self, view: View) -> tuple[int, int]:
        return len(self.tokens("source", view.source)), len(self.tokens("target", view.target, view.tail))

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
            labels, _ = self.padded([self.tokens("target", view.target, view.tail) for view, _ in pairs], IGNORED)
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
            chunk = slice(start, start + batch_size)
            views = [
                [View(source, "" if given else target, "scored")]
                for source, target in zip(sources[chunk], targets[chunk], strict=True)
            ]
            batch = self.collate([], views)
            counted = [0] * len(views)
            if given:
                ends = [
                    self._ending(*texts) for texts in zip(sources[chunk], targets[chunk], given[chunk], strict=True)
                ]
                counted = [own for _, own in ends]
                batch = self.with_targets(batch, "scored", [ids for ids, _ in ends])
            scored = self.forward(batch.to(self.device))["scored"]
            assert scored.nll is not None
            for row, length, own in zip(scored.nll, scored.mask.sum(-1).tolist(), counted, strict=True):
                out.append(-float(row[length - own if given else 0 :].sum()))
        self.train(training)
        return out

    def _ending(self, source: str, target: str, given: str) -> tuple[list[int], int]:
        """A target's tokens, and how many of them follow what is given, which alone loses tokens to a model's limit."""
        ids = self.target_tokens(target)
        known = min(self.shared(ids, given), len(ids) - 1)
        room = self.room(len(self.tokens("source", source)))
        if room is not None and len(ids) > room:
            return [*without_middle(ids[:known], max(room - len(ids) + known, 0)), *ids[known:]][-room:], min(
                len(ids) - known, room
            )
        return ids, len(ids) - known

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
