"""The keys and values that a model keeps while it writes."""

from __future__ import annotations

from typing import Any


def fresh_cache(model: Any) -> dict[str, Any]:
    """For an encoder-decoder's `generate`: a cache that grows layer by layer; nothing for a decoder alone.

    transformers 5 makes room for as many decoder layers as T5's *encoder* has, and ends with an IndexError where the
    decoder has more of them (a student whose encoder was pruned).
    """
    from transformers import DynamicCache, EncoderDecoderCache

    if not model.config.is_encoder_decoder:
        return {}
    return {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())}
