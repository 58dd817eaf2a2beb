"""Small random models of the shapes that students have, with a word vocabulary, for the tests of students."""

from __future__ import annotations

import random
from typing import Any

import torch

from lmdistill.students import _vocabulary
from lmdistill.students.causal import Causal, CausalStudent
from lmdistill.students.seq2seq import Seq2seqStudent

WORDS = [f"w{i}" for i in range(40)]
SEQ2SEQ = ("t5", "t5_gated", "bart")
CAUSAL = ("gpt2", "opt", "llama", "qwen2", "qwen3")


def tokenizer() -> Any:
    """Words, with padding 0, end of sequence 1, unknown 2."""
    return _vocabulary.build("word", [" ".join(WORDS)], size=100, trim=True)


def _common(vocabulary: int) -> dict[str, Any]:
    return {"vocab_size": vocabulary, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}


def _model(shape: str, vocabulary: int) -> Any:
    import transformers as t

    common = _common(vocabulary)
    decoder = common | {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }
    t5 = common | {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4, "num_layers": 2, "decoder_start_token_id": 0}
    if shape == "t5":
        return t.T5ForConditionalGeneration(t.T5Config(**t5))
    if shape == "t5_gated":
        return t.T5ForConditionalGeneration(t.T5Config(**t5, feed_forward_proj="gated-gelu", tie_word_embeddings=False))
    if shape == "bart":
        sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 256}
        heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
        inner = {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 1, "forced_eos_token_id": None}
        return t.BartForConditionalGeneration(t.BartConfig(**common, **sizes, **heads, **inner))
    if shape == "gpt2":
        return t.GPT2LMHeadModel(t.GPT2Config(**common, n_embd=32, n_layer=2, n_head=4, n_positions=256))
    if shape == "opt":
        opt = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        return t.OPTForCausalLM(t.OPTConfig(**common, **opt, word_embed_proj_dim=32, max_position_embeddings=256))
    if shape == "llama":
        return t.LlamaForCausalLM(t.LlamaConfig(**decoder))
    if shape == "qwen2":
        return t.Qwen2ForCausalLM(t.Qwen2Config(**decoder))
    if shape == "qwen3":
        return t.Qwen3ForCausalLM(t.Qwen3Config(**decoder, head_dim=8))
    raise ValueError(shape)


def student(shape: str, sharing: str = "full", attention: str = "sdpa", **settings: Any) -> Any:
    """A student of a shape, always with the same weights, dropout off."""
    own = tokenizer()
    torch.manual_seed(7)
    model = _model(shape, len(own))
    model.set_attn_implementation(attention)
    with torch.no_grad():  # larger than at initialisation, so that attention is not flat
        for p in model.parameters():
            p.mul_((1.5 if shape.startswith("t5") else 3.0) if p.ndim > 1 else 1.0)
    if shape in SEQ2SEQ:
        one: Any = Seq2seqStudent(model, own, sharing=sharing, max_source=200, max_target=100, overflow="refuse")
    else:
        one = CausalStudent(model, own, Causal(sharing=sharing, max_source=200, max_target=100, **settings))
    return one.eval()


def sentence(rng: random.Random, least: int, most: int) -> str:
    """Random words."""
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(least, most)))
