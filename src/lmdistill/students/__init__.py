"""A student: the small model that is trained, and that the user owns.

A kind is a frozen dataclass of settings with `open(texts)`, which gives a `Student`: a torch module that turns views
into tensors, scores target rows, generates, and saves itself as an ordinary transformers folder. Its `forward` shares
work: equal sources in a batch are encoded once, and the vocabulary head runs on real target positions only.

To add one: a file `students/NAME.py` with a frozen dataclass `Name(StudentSettings)`; the contract test finds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lmdistill.types import Completion, Item, Sampling, View

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

IGNORED = -100
"""The label of a padding position."""


@dataclass
class Targets:
    """The target rows of one role: R rows, each conditioned on one of the batch's sources."""

    labels: Tensor  # [R, T] int64, -100 = padding
    source: Tensor  # [R] int64, row of Batch.source_ids
    item: Tensor  # [R] int64, index into Batch.items
    group: Tensor  # [R] int64, View.group
    weight: Tensor  # [R] float32, View.weight


@dataclass
class Batch:
    """Whole items as tensors: U distinct sources and, by role, the rows that are scored on them."""

    items: Sequence[Item]
    views: Sequence[Sequence[View]]
    source_ids: Tensor  # [U, S] int64
    source_mask: Tensor  # [U, S] int64, 0 = padding
    targets: dict[str, Targets]
    extras: dict[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on a device."""

        def moved(value: Any) -> Any:
            return value.to(device, non_blocking=True) if hasattr(value, "to") else value

        targets = {role: Targets(*(moved(v) for v in vars(rows).values())) for role, rows in self.targets.items()}
        extras = {name: moved(value) for name, value in self.extras.items()}
        ids, mask = moved(self.source_ids), moved(self.source_mask)
        return replace(self, source_ids=ids, source_mask=mask, targets=targets, extras=extras)


@dataclass
class Scored:
    """What a student says of the R rows of one role; N counts their real target positions, row by row.

    `logits` and `hidden` are there only where asked for; `head` maps hidden states to logits, so that a loss can work
    through the vocabulary in chunks and never hold [N, V] at once.
    """

    nll: Tensor | None  # [R, T] float32 in nats, 0 at padding
    mask: Tensor  # [R, T] bool, True = real target position
    logits: Tensor | None = None  # [N, V]
    hidden: Tensor | None = None  # [N, D], what the head reads
    layers: Mapping[str, Any] = field(default_factory=dict)  # by name: hidden states or attentions, per layer


class Generator(Protocol):
    """Whatever writes text for prompts: students and teachers alike."""

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[list[Completion]]:
        """`sampling.n` completions for each prompt, in order."""
        ...


class Trainable(Protocol):
    """What the loop needs of a module: students and rerankers meet it."""

    def length(self, view: View) -> tuple[int, int]:
        """Source and target length of a view in tokens, after truncation."""
        ...

    def collate(self, items: Sequence[Item], views: Sequence[Sequence[View]]) -> Batch:
        """Whole items as one padded batch, on the CPU."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything that `open` needs to read it back."""
        ...

    def load(self, folder: Path) -> None:
        """Take over the weights that `save` wrote, in place."""
        ...

    def parameters(self, recurse: bool = True) -> Iterable[nn.Parameter]: ...


class Student(Trainable, Generator, Protocol):
    """The contract; see the module's docstring. Concrete students are `torch.nn.Module`s."""

    def forward(
        self, batch: Batch, roles: Sequence[str] | None = None, want: frozenset[str] = ...
    ) -> dict[str, Scored]:
        """Score the target rows of the roles (all by default).

        Args:
            want: among 'nll' (default), 'logits', 'hidden', 'layers', 'attention'.
        """
        ...

    def encoded(self, batch: Batch) -> Batch:
        """The batch with its sources encoded, where a student can, for who scores rows on them more than once."""
        ...

    def generate(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        batch_size: int = 64,
        seeds: Sequence[int] | None = None,
        enough: Sequence[Callable[[str], int | None]] = (),
    ) -> list[list[Completion]]:
        """`sampling.n` completions for each prompt, in order, `batch_size` rows at a time.

        With `seeds`, one for each prompt, a prompt's samples follow from its seed alone: they do not change with what
        else is in the batch. With `enough`, one for each prompt, a text ends where that says how much of it to keep.
        """
        ...

    def logprobs(
        self, sources: Sequence[str], targets: Sequence[str], given: Sequence[str] = (), *, batch_size: int = 64
    ) -> list[float]:
        """Log-probability in nats, summed over the target's tokens (end of sequence included), of each pair.

        With `given` (what each target begins with), only the tokens after it count, and the target is scored whole,
        whatever the student's limit; where a model has no positions for it, `given` loses its middle.
        """
        ...


class StudentSettings(ABC):
    """The contract of a kind's settings."""

    @abstractmethod
    def open(self, texts: Iterable[str] = (), seed: int = 0) -> Any:
        """A `Student` on the CPU, its weights loaded, or drawn from `seed` for a from-scratch preset.

        Args:
            texts: what the vocabulary of a from-scratch student is made from (sources and targets of training).

        Raises:
            StoreError: a checkpoint folder that lacks a file.
            ConfigError: neither a checkpoint nor a preset; a preset without texts.
        """
