"""Low-rank updates of an encoder's queries and values, whatever its architecture calls them."""

from __future__ import annotations

from typing import Any

import torch

from lmdistill.errors import ConfigError, MissingExtra

PROJECTIONS = (
    ("query", "value"),  # BERT, RoBERTa, ELECTRA, LinkBERT
    ("q_lin", "v_lin"),  # DistilBERT
    ("query_proj", "value_proj"),  # DeBERTa
    ("q_proj", "v_proj"),  # decoders, BART
    ("q", "v"),  # MPNet, T5
    ("Wqkv",),  # ModernBERT
    ("in_proj", "pos_q_proj"),  # DeBERTa's first version
)
"""The modules that make queries and values of hidden states; where one makes all three, it."""


def adapted(encoder: Any, seed: int, rank: int, *, alpha: float, dropout: float) -> Any:
    """The encoder with trainable low-rank updates; a head that stands on it is trained whole, as it is drawn anew.

    Raises:
        MissingExtra: no package `peft`. ConfigError: no linear layer that could be updated.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtra("peft", "lora", "reranker.lora_rank above 0") from error
    names = {name.rpartition(".")[2] for name, part in encoder.named_modules() if isinstance(part, torch.nn.Linear)}
    found = next((pair for pair in PROJECTIONS if names.issuperset(pair)), None)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear" if found is None else list(found),
        modules_to_save=_head(encoder) or None,
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return get_peft_model(encoder, config)
    except ValueError as error:
        kind = type(encoder).__name__
        raise ConfigError(
            f"reranker.lora_rank: {kind} has no layer that low-rank updates fit ({error}); set it to 0"
        ) from error


def _head(encoder: Any) -> list[str]:
    """The parts with weights beside the encoder proper, and the pooler that they read; none of a bare encoder."""
    if encoder.base_model is encoder:
        return []
    parts = [(name, part) for name, part in encoder.named_children() if part is not encoder.base_model]
    beside = [name for name, part in parts if any(True for _ in part.parameters())]
    pooled = any(name.rpartition(".")[2] == "pooler" for name, _ in encoder.base_model.named_modules())
    return [*beside, *(["pooler"] if pooled else [])]
