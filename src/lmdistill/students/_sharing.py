"""What the targets of one source have in common is computed once.

Encoder-decoder: `CrossAttentions` folds the rows of a source into one long row of queries while they pass a
cross-attention, so keys and values are made once per source. Cross-attention has no notion of a query's position, so
this is exact. Decoder-only: `repeated` gives the key-value cache of the prompts to every row, with gradients.

A model is not believed to take this by its name: `differs` compares shared and plain scores on a few tokens when a
student is opened, and a model that fails (or has another kind of attention) is trained without sharing.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lmdistill.errors import ConfigError

CROSS_ATTENTIONS = ("EncDecAttention", "encoder_attn", "cross_attn", "crossattention")
"""What transformers' decoders call their attention over the encoder."""
ATTENTION_FUNCTIONS = ("sdpa", "eager")
"""Implementations of attention whose masks may be broadcast."""


@dataclass(frozen=True)
class Fold:
    """R rows grouped by source: U pieces of sources with `width` places each, some of them fillers."""

    sources: Tensor  # [U] indices into the batch's sources; a source of many rows may stand here more than once
    width: int
    order: Tensor | None  # [U * width] the row in each place; None where the rows stand in place as they are
    back: Tensor | None  # [R] the place of each row

    def folded(self, states: Tensor) -> Tensor:
        """[R, T, D] -> [U, width * T, D]."""
        placed = states if self.order is None else states.index_select(0, self.order)
        return placed.reshape(self.sources.shape[0], -1, states.shape[-1])

    def unfolded(self, states: Tensor, length: int) -> Tensor:
        """[U, width * T, D] -> [R, T, D]."""
        places = states.reshape(-1, length, states.shape[-1])
        return places if self.back is None else places.index_select(0, self.back)


def fold_rows(source: Tensor) -> Fold | None:
    """How R rows fold by their source; None where that would gain nothing.

    Where sources have very different numbers of rows, those of the long ones are cut into pieces (their keys and
    values are then made once for each piece), so that no source is filled up to the longest.

    Shapes:  source [R] int64
    """
    rows = source.shape[0]
    sources, group, counts = torch.unique(source, return_inverse=True, return_counts=True)
    width = best_width(counts.tolist())
    if width < 2:
        return None
    pieces = (counts + width - 1) // width
    order = torch.argsort(group, stable=True)
    within = torch.empty_like(source)
    within[order] = torch.arange(rows, device=source.device) - (counts.cumsum(0) - counts)[group[order]]
    back = ((pieces.cumsum(0) - pieces)[group] + within // width) * width + within % width
    used, places = sources.repeat_interleave(pieces), int(pieces.sum()) * width
    if places == rows and bool((back == torch.arange(rows, device=source.device)).all()):
        return Fold(used, width, None, None)
    placed = source.new_zeros(places)  # a filler is a copy of the first row that nobody reads
    placed[back] = torch.arange(rows, device=source.device)
    return Fold(used, width, placed, back)


def best_width(counts: Sequence[int]) -> int:
    """How many rows of one source are folded into one, for the least work; 1: folding gains nothing.

    The work is that on queries (one share for each place, fillers too) and on keys and values (one for each piece).

    >>> best_width([5, 5, 5]), best_width([30, 10, 5, 2]), best_width([30] + [1] * 19)
    (5, 5, 1)
    """

    def work(width: int) -> int:
        return sum(-(-count // width) for count in counts) * (width + 1)

    return min(range(max(counts, default=1), 0, -1), key=work)


def several_rows(source: Tensor) -> tuple[Tensor, Tensor] | None:
    """The distinct sources of R rows, and which of them each row has; None where no source has two rows.

    Shapes:  source [R] int64; returns [U] and [R]
    """
    sources, group = torch.unique(source, return_inverse=True)
    return None if sources.shape[0] == source.shape[0] else (sources, group)


class CrossAttentions:
    """Hooks on the cross-attentions of a decoder; they do nothing except within `folding`."""

    def __init__(self, model: Any) -> None:
        self.modules = [module for name, module in model.named_modules() if name.split(".")[-1] in CROSS_ATTENTIONS]
        self.now: tuple[Fold, Tensor | None] | None = None
        self.length = 0
        for module in self.modules:
            module.register_forward_pre_hook(self._enter, with_kwargs=True)
            module.register_forward_hook(self._leave)

    def refusal(self, model: Any) -> str | None:
        """Why this model's cross-attention cannot be shared, or None."""
        if not self.modules:
            return "its decoder has no cross-attention that is known here"
        for module in self.modules:
            known = inspect.signature(module.forward).parameters
            if "key_value_states" not in known or not known.keys() & {"mask", "attention_mask"}:
                return f"{type(module).__name__} does not take key_value_states and a mask"
        function = getattr(model.config, "_attn_implementation", "eager")
        return None if function in ATTENTION_FUNCTIONS else f"attention {function!r} takes no broadcast mask"

    @contextlib.contextmanager
    def folding(self, fold: Fold, mask: Tensor) -> Iterator[None]:
        """Within it the decoder may be given R rows and the encoder states of U sources.

        Shapes:  mask [U, S] 0 = padding
        """
        padded = not bool(mask.all())
        bias = torch.zeros(mask.shape, device=mask.device)
        if padded:
            bias.masked_fill_(mask == 0, torch.finfo(bias.dtype).min)
        self.now = (fold, bias[:, None, None, :] if padded else None)
        try:
            yield
        finally:
            self.now = None

    def _enter(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if self.now is None:
            return None
        fold, bias = self.now
        named = dict(named)
        states = arguments[0] if arguments else named.pop("hidden_states")
        self.length = states.shape[1]
        bias = None if bias is None else bias.to(states.dtype)
        known = inspect.signature(module.forward).parameters
        named["mask" if "mask" in known else "attention_mask"] = bias
        if "position_bias" in known:  # T5 adds one (of zeros, as large as the scores) where none is given
            source = named["key_value_states"]
            named["mask"] = None
            named["position_bias"] = states.new_zeros(1, 1, 1, source.shape[1]) if bias is None else bias
        return (fold.folded(states), *arguments[1:]), named

    def _leave(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
        if self.now is None:
            return None
        return (self.now[0].unfolded(output[0], self.length), *output[1:])


def repeated(cache: Any, rows: Tensor) -> Any | None:
    """The key-value cache of U prompts as one for R rows, or None for a cache that is more than keys and values.

    Nothing is copied before a layer asks for it, and then once, together with the row's own keys and values.

    Shapes:  rows [R] the prompt of each row
    """
    from transformers.cache_utils import Cache, DynamicLayer

    class PromptLayer(DynamicLayer):  # type: ignore[misc]
        def __init__(self, keys: Tensor, values: Tensor) -> None:
            super().__init__()
            self.keys, self.values, self.dtype, self.device = keys, values, keys.dtype, keys.device
            self.is_initialized = True

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            keys, values = _spread(self.keys, rows), _spread(self.values, rows)
            return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)

    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    return Cache(layers=[PromptLayer(layer.keys, layer.values) for layer in cache.layers])


def _spread(states: Tensor, rows: Tensor) -> Tensor:
    if states.shape[0] == 1:
        return states.expand(rows.shape[0], *states.shape[1:])
    return states.index_select(0, rows)


@torch.no_grad()
def differs(student: Any, plain: str, texts: Sequence[str] = ("a b c", "b a")) -> str | None:
    """Whether scores are other than those with `sharing` set to `plain`, in words, or None where they are the same."""
    from lmdistill.types import View

    sharing, training = student.sharing, student.training
    student.eval()
    views = [[View(text, other, "probe", i) for i, other in enumerate((*texts, "c"))] for text in texts]
    batch = student.collate([], views).to(student.device)
    try:
        shared = student(batch)["probe"].nll
        if not student.shared_last:
            return "its key-value cache holds more than keys and values (a sliding window)"
        student.sharing = plain
        alone = student(batch)["probe"].nll
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        student.sharing = sharing
        student.train(training)
    gap = float((shared - alone).abs().max())
    return None if gap <= 1e-3 * max(1.0, float(alone.abs().max())) else f"scores differ by {gap:.2g} nats"


@torch.no_grad()
def check_head(student: Any, inputs: Mapping[str, Tensor]) -> None:
    """Make sure that a model's logits are those of its vocabulary head, which is all that is computed in training.

    Raises:
        ConfigError: the model does something to them afterwards (a cap, a scale).
    """
    seen: list[Tensor] = []
    training = student.training
    student.eval()
    hook = student.model.get_output_embeddings().register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        logits = student.model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
        student.train(training)
    gap = float((student.head(seen[-1]).float() - logits.float()).abs().max())
    if gap > 1e-3 * max(1.0, float(logits.abs().max())):
        name = type(student.model).__name__
        raise ConfigError(
            f"student: {name} changes its logits after the vocabulary head (a cap or a scale), by up to {gap:.2g}; it "
            "cannot be trained here. Choose a model without that, such as Llama, Qwen, OPT, GPT-2, T5 or BART"
        )


def fall_back(student: Any, to: str, why: str | None) -> None:
    """Give up sharing for a reason, with a message; nothing happens without one."""
    if why is None:
        return
    name = type(student.model).__name__
    print(f"lmdistill: {name} is trained with sharing={to!r}, not {student.sharing!r}: {why}", file=sys.stderr)
    student.sharing = to
