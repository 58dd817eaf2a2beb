"""The judge of rationales: an encoder, pooling and two linear layers, trained beside a student or by itself."""

from __future__ import annotations

import bisect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lmdistill.errors import StoreError
from lmdistill.store import write_json
from lmdistill.students import Batch, Targets
from lmdistill.types import Item, View

Pooling = Literal["max", "mean"]
TEMPLATE = "question: {input} explanation: {rationale}"
JUDGE_CARD = "judge.json"
"""The file beside a judge's weights that says how it reads a text."""


class Judge(nn.Module):
    """Says of a text (input and rationale) how good the rationale is; sigmoid of its output is the score in [0, 1].

    Meets `lmdistill.students.Trainable`, so the loop can train it like a student; a view's source is the text.
    """

    def __init__(
        self, encoder: Any, tokenizer: Any, *, pooling: Pooling, max_tokens: int, template: str = TEMPLATE
    ) -> None:
        super().__init__()
        self.template = template
        width = int(getattr(encoder.config, "d_model", None) or encoder.config.hidden_size)
        self.encoder, self.tokenizer, self.pooling, self.max_tokens = encoder, tokenizer, pooling, max_tokens
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, 1)
        self._tokens: dict[str, tuple[int, ...]] = {}

    def tokens(self, text: str) -> tuple[int, ...]:
        """Token ids of a text; where it is too long its middle is left out."""
        if text not in self._tokens:
            if len(self._tokens) > 1_000_000:
                self._tokens.clear()
            ids = list(self.tokenizer(text, verbose=False)["input_ids"])
            if len(ids) > self.max_tokens:
                half = self.max_tokens // 2
                ids = [*ids[:half], *ids[len(ids) - (self.max_tokens - half) :]]
            self._tokens[text] = tuple(ids)
        return self._tokens[text]

    def text(self, asked: str, rationale: str) -> str:
        """What it reads of an input and a rationale."""
        return self.template.replace("{input}", asked).replace("{rationale}", rationale)

    def length(self, view: View) -> tuple[int, int]:
        return len(self.tokens(view.source)), 0

    def padded(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids [R, S] and their mask."""
        rows = [self.tokens(text) for text in texts]
        width = max((len(row) for row in rows), default=0) or 1
        ids = torch.full((len(rows), width), int(self.tokenizer.pad_token_id or 0))
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[i, : len(row)] = 1
        return ids, mask

    def collate(self, items: Sequence[Item], views: Sequence[Sequence[View]]) -> Batch:
        """Distinct texts once, and by role the rows that point to them; rows have no target tokens."""
        sources: dict[str, int] = {}
        rows: dict[str, list[tuple[View, int]]] = {}
        for index, own in enumerate(views):
            for view in own:
                sources.setdefault(view.source, len(sources))
                rows.setdefault(view.role, []).append((view, index))
        ids, mask = self.padded(list(sources))
        targets = {
            role: Targets(
                labels=torch.zeros((len(pairs), 0), dtype=torch.long),
                source=torch.tensor([sources[view.source] for view, _ in pairs]),
                item=torch.tensor([index for _, index in pairs]),
                group=torch.tensor([view.group for view, _ in pairs]),
                weight=torch.tensor([view.weight for view, _ in pairs], dtype=torch.float32),
            )
            for role, pairs in rows.items()
        }
        return Batch(items, views, ids, mask, targets)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Logits [R] of the rows of each role."""
        logits = self.logits(batch.source_ids, batch.source_mask)
        return {role: logits[rows.source] for role, rows in batch.targets.items()}

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [R] of texts [R, S]."""
        return self.head(self.pooled(ids, mask))

    def head(self, pooled: Tensor) -> Tensor:
        """Logits [R] of pooled states [R, D]."""
        logits: Tensor = self.second(torch.tanh(self.first(pooled))).squeeze(-1)
        return logits

    def pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encoder states [R, D] of texts [R, S], pooled over their real tokens."""
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        real = mask.unsqueeze(-1).bool()
        if self.pooling == "max":
            return torch.as_tensor(states.masked_fill(~real, torch.finfo(states.dtype).min).amax(1))
        return torch.as_tensor(states.masked_fill(~real, 0).sum(1) / real.sum(1))

    @torch.no_grad()
    def scores(self, texts: Sequence[str], *, batch_size: int = 256) -> dict[str, float]:
        """The score of each distinct text, in [0, 1]."""
        training = self.training
        self.eval()
        device = self.first.weight.device
        order = sorted(set(texts), key=lambda text: (-len(self.tokens(text)), text))
        found: dict[str, float] = {}
        for start in range(0, len(order), batch_size):
            chunk = order[start : start + batch_size]
            ids, mask = self.padded(chunk)
            found |= zip(chunk, self.logits(ids.to(device), mask.to(device)).float().sigmoid().tolist(), strict=True)
        self.train(training)
        return found

    def save(self, folder: Path) -> None:
        """Weights in safetensors, the tokenizer, the encoder's configuration, and how texts are made and pooled."""
        from safetensors.torch import save_model

        folder.mkdir(parents=True, exist_ok=True)
        save_model(self, str(folder / "model.safetensors"))
        self.tokenizer.save_pretrained(folder)
        self.encoder.config.save_pretrained(folder)
        kind = type(self.encoder)
        own = {"pooling": self.pooling, "max_tokens": self.max_tokens, "template": self.template}
        write_json(folder / JUDGE_CARD, {"encoder": [kind.__module__, kind.__name__], **own})

    def load(self, folder: Path) -> None:
        """Take over the weights and the tokenizer that `save` wrote, in place."""
        from safetensors.torch import load_model
        from transformers import AutoTokenizer

        load_model(self, str(folder / "model.safetensors"))
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._tokens.clear()


def open_judge(folder: Path) -> Judge:
    """A judge from the folder that `Judge.save` wrote: RUN/seed-0/train/student/companion-judge, for example.

    Raises:
        StoreError: it lacks a file, or one is damaged.
    """
    import importlib

    from transformers import AutoConfig, AutoTokenizer

    path = folder / JUDGE_CARD
    if not path.is_file():
        raise StoreError(
            f"{folder} has no {JUDGE_CARD}: it is no judge (expected RUN/seed-0/train/student/companion-judge)"
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        module, kind = card.pop("encoder")
        if not module.startswith("transformers."):
            raise ValueError(f"an encoder of transformers was expected, got {module}.{kind}")
        encoder = getattr(importlib.import_module(module), kind)(AutoConfig.from_pretrained(folder))
        judge = Judge(encoder, AutoTokenizer.from_pretrained(folder), **card)
        judge.load(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise StoreError(f"the judge in {folder} cannot be opened ({first}); train again, or copy it again") from error
    return judge.eval()


def above(good: Sequence[float], bad: Sequence[float]) -> float:
    """The share of pairs in which the good one scores higher (AUC); equal scores count half.

    >>> above([0.9, 0.5], [0.5, 0.1])
    0.875
    """
    ordered = sorted(bad)
    wins = sum(bisect.bisect_left(ordered, one) + bisect.bisect_right(ordered, one) for one in good)
    return wins / (2 * len(good) * len(bad))


def copied_encoder(student: Any) -> Any:
    """A copy of a student's encoder, or of a decoder-only student's body, as it stands now."""
    import copy

    model = student.model
    return copy.deepcopy(model.get_encoder() if model.config.is_encoder_decoder else model.base_model)


def scratch_encoder(vocabulary: int, size: Any, seed: int) -> Any:
    """A T5 encoder of random weights."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=vocabulary,
        d_model=size.width,
        d_kv=size.width // size.heads,
        d_ff=size.inner,
        num_heads=size.heads,
        num_layers=size.layers,
        dropout_rate=0.1,
        pad_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return T5EncoderModel(config)


def pretrained_encoder(path: str) -> tuple[Any, Any]:
    """An encoder and its tokenizer from a transformers folder or Hub id.

    Raises:
        StoreError: it lacks a file.
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        model = AutoModel.from_pretrained(path, use_safetensors=True, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise StoreError(f"judge.encoder {path!r} cannot be opened: {first}") from error
    return (model.get_encoder() if model.config.is_encoder_decoder else model), tokenizer
