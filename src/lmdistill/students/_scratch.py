"""From-scratch sizes, and the settings that every text student shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lmdistill.errors import ConfigError, StoreError


class Size(NamedTuple):
    """Width, feed-forward width, heads and layers of a from-scratch student."""

    width: int
    inner: int
    heads: int
    layers: int


SIZES = {
    "nano": Size(32, 64, 4, 1),
    "tiny": Size(64, 128, 4, 2),
    "mini": Size(128, 256, 4, 2),
    "small": Size(128, 512, 4, 4),
    "medium": Size(256, 1024, 8, 4),
    "large": Size(512, 2048, 8, 6),
}

RATES = (
    "dropout_rate",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
)
"""What models call their dropout rates."""


TOKENIZERS = ("tokenizer.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt")
"""Files of which a transformers folder has at least one."""


@dataclass(frozen=True)
class Checkpoint:
    """Where pretrained weights come from."""

    name: str
    revision: str | None = None


def load_pretrained(auto: Any, checkpoint: Checkpoint, **options: Any) -> tuple[Any, Any]:
    """A model and its tokenizer from a folder or the Hub; weights in safetensors only, no remote code.

    Weights are float32 whatever the checkpoint holds (OPT is released in float16, Qwen and Llama in bfloat16): small
    updates would be rounded away in them. Training computes in bfloat16 where the device has it.

    Raises:
        StoreError: the folder or the Hub entry lacks a file (the message names it).
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    options.setdefault("dtype", torch.float32)
    folder = Path(checkpoint.name)
    if (folder / "config.json").exists() and not any((folder / name).exists() for name in TOKENIZERS):
        raise StoreError(f"{folder} has no tokenizer ({', '.join(TOKENIZERS)}); copy the whole folder again")
    try:
        model = auto.from_pretrained(checkpoint.name, revision=checkpoint.revision, use_safetensors=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.name, revision=checkpoint.revision)
    except SafetensorError as error:
        raise StoreError(f"student {checkpoint.name!r}: the weights are damaged ({error}); copy them again") from error
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        message = f"student {checkpoint.name!r} cannot be opened: {first} A transformers folder with config.json, "
        raise StoreError(
            message + "model.safetensors and a tokenizer, or a Hub id that can be reached, was expected"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return model, tokenizer


def size_of(preset: str) -> Size:
    """The size of a preset.

    Raises:
        ConfigError: no such preset.
    """
    if preset not in SIZES:
        raise ConfigError(f"student.preset: {preset!r} is not one of {', '.join(SIZES)}")
    return SIZES[preset]


def set_dropout(model: Any, rate: float) -> None:
    """Set every dropout of a model.

    Raises:
        ConfigError: the rate is not in [0, 1).
    """
    import torch

    if not 0 <= rate < 1:
        raise ConfigError(f"student.dropout: {rate} is not in [0, 1)")
    for name in RATES:
        if hasattr(model.config, name):
            setattr(model.config, name, rate)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
            continue
        for name in RATES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)
