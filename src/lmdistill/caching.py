"""The keys and values that a model keeps while it writes."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any


@functools.cache
def cache_name() -> str:
    """What transformers calls a model's keys and values, as an argument and in its output.

    'cache' from 5.24 on, where the older name warns and is to go; 'past_key_values' before.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPast

    names = {field.name for field in dataclasses.fields(BaseModelOutputWithPast)}
    return "cache" if "cache" in names else "past_key_values"


def fresh_cache(model: Any) -> dict[str, Any]:
    """For an encoder-decoder's `generate`: a cache that grows layer by layer; nothing for a decoder alone.

    transformers 5 makes room for as many decoder layers as T5's *encoder* has, and ends with an IndexError where the
    decoder has more of them (a student whose encoder was pruned).
    """
    from transformers import DynamicCache, EncoderDecoderCache

    if not model.config.is_encoder_decoder:
        return {}
    return {cache_name(): EncoderDecoderCache(DynamicCache(), DynamicCache())}
