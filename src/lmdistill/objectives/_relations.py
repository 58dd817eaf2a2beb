"""The query, key and value vectors of a model's last attentions, caught while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from lmdistill.errors import ConfigError

NAMES = (("q", "k", "v"), ("q_proj", "k_proj", "v_proj"))
"""What T5, and BART, OPT, Llama and Qwen, call them; GPT-2 has all three in `c_attn`."""
CROSS = ("EncDecAttention", "encoder_attn")


def attentions(model: Any) -> dict[str, Any]:
    """The last attentions of a transformers model by name: 'encoder', 'decoder' and 'cross', or 'decoder' alone.

    Raises:
        ConfigError: a model whose projections have no known names.
    """
    both = bool(model.config.is_encoder_decoder)
    stacks = {"encoder": model.get_encoder(), "decoder": model.get_decoder()} if both else {"decoder": model.base_model}
    found: dict[str, Any] = {}
    for stack, module in stacks.items():
        for name, one in module.named_modules():
            if hasattr(one, "c_attn") or any(all(hasattr(one, part) for part in parts) for parts in NAMES):
                found["cross" if name.split(".")[-1] in CROSS else stack] = one
    if not found:
        raise ConfigError(
            f"feature_kd: the attention of {type(model).__name__} has no known projections; set relation_weight to 0"
        )
    return found


@contextlib.contextmanager
def caught(model: Any) -> Iterator[dict[str, Tensor]]:
    """Within it, a forward leaves the vectors [B, T, D] in the yielded mapping, as 'encoder.q', 'cross.v' and so on."""
    vectors: dict[str, Tensor] = {}
    hooks = []
    for name, attention in attentions(model).items():
        if hasattr(attention, "c_attn"):
            hooks.append(attention.c_attn.register_forward_hook(_joint(vectors, name)))
            continue
        parts = next(parts for parts in NAMES if hasattr(attention, parts[0]))
        for short, part in zip("qkv", parts, strict=True):
            hooks.append(getattr(attention, part).register_forward_hook(_single(vectors, f"{name}.{short}")))
    try:
        yield vectors
    finally:
        for hook in hooks:
            hook.remove()


def _single(vectors: dict[str, Tensor], name: str) -> Any:
    def hook(module: nn.Module, arguments: Any, output: Tensor) -> None:
        vectors[name] = output

    return hook


def _joint(vectors: dict[str, Tensor], name: str) -> Any:
    def hook(module: nn.Module, arguments: Any, output: Tensor) -> None:
        for short, part in zip("qkv", output.chunk(3, -1), strict=True):
            vectors[f"{name}.{short}"] = part

    return hook
