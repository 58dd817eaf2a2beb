"""The decoder-only student: where a target begins and ends, padding, chat templates, adapters, saving."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lmdistill.config import rebuild, settings_of
from lmdistill.errors import ConfigError, DataError, StoreError
from lmdistill.students._lora import Lora
from lmdistill.students.causal import Causal, CausalStudent
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.types import Sampling, View
from student_shapes import CAUSAL, WORDS, student, tokenizer

TEXTS = [" ".join(WORDS)]
TEMPLATE = (
    "{% for m in messages %}w1 {{ m['content'] }} w2 {% endfor %}"
    "{% if add_generation_prompt %}{% if think is defined %}w4 {% endif %}w3{% endif %}"
)


@pytest.mark.parametrize("shape", CAUSAL)
def test_scores_are_those_of_the_model_on_the_bare_sequence(shape: str) -> None:
    one = student(shape)
    pairs = [("w1 w2 w3 w4", "w5 w6"), ("w7", "w8 w9 w10 w11")]
    found = one.logprobs(*map(list, zip(*pairs, strict=True)))
    for (source, target), logprob in zip(pairs, found, strict=True):
        before, after = one.source_tokens(source), one.target_tokens(target)
        logits = one.model(torch.tensor([before + after])).logits[0].log_softmax(-1)
        expected = sum(float(logits.detach()[len(before) - 1 + i, token]) for i, token in enumerate(after))
        assert logprob == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("shape", CAUSAL)
def test_prompts_of_any_length_are_answered_as_if_alone(shape: str) -> None:
    one = student(shape)
    one.source_tokens = lambda text: one.tokenizer(text)["input_ids"][:-1]  # a random model repeats its last token
    prompts = ["w1", "w2 w3 w4 w5 w6 w7 w8 w9", "w10 w11 w12"]
    sampling = Sampling(max_tokens=6)
    together = [row[0].text for row in one.generate(prompts, sampling)]
    assert together == [one.generate([prompt], sampling)[0][0].text for prompt in prompts]
    assert len(set(together)) > 1


@pytest.mark.parametrize("kind", [Causal, Seq2seq])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_checkpoint_in_half_precision_is_opened_in_float32(tmp_path: Path, kind: Any, dtype: torch.dtype) -> None:
    one = kind(preset="nano").open(TEXTS, seed=1)
    one.model.to(dtype).save_pretrained(tmp_path)
    one.tokenizer.save_pretrained(tmp_path)
    again = kind(model=str(tmp_path)).open()
    assert {p.dtype for p in again.parameters()} == {torch.float32}


def test_the_end_of_sequence_is_trained_and_stops_generation() -> None:
    one = Causal(dropout=0.0).open(TEXTS, seed=1)
    assert one.source_tokens("w1 w2")[-1] == one.eos, "the vocabulary's own mark separates source and target"
    assert one.target_tokens("w3 w4").count(one.eos) == 1
    optimizer = torch.optim.AdamW(one.parameters(), lr=3e-3)
    views = [
        [View("w1 w2", "w3 w4", "answer")],
        [View("w5", "w6 w7 w8", "answer"), View("w5", "w6 w7 w8", "answer", 1)],
    ]
    batch = one.collate([], views)
    for _ in range(60):
        loss = one(batch)["answer"].nll.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    written = one.generate(["w5", "w1 w2"], Sampling(max_tokens=20))
    assert [row[0].text for row in written] == ["w6 w7 w8", "w3 w4"]
    assert [row[0].finish_reason for row in written] == ["stop", "stop"]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("vocabulary", ["word", "subword"])
def test_presets_and_saving(tmp_path: Path, architecture: Any, vocabulary: str) -> None:
    texts = ["the cat sat on the mat and the dog sat on the log", "so the answer is yes"]
    settings = Causal(architecture=architecture, vocabulary=vocabulary, vocabulary_size=60, max_source=20)
    one = settings.open(texts, seed=3)
    assert {n: p.sum().item() for n, p in one.named_parameters()} == {
        n: p.sum().item() for n, p in settings.open(texts, seed=3).named_parameters()
    }
    one.save(tmp_path)
    again = replace(settings, model=str(tmp_path)).open()
    wanted = (["the cat sat"] * 2, ["on the mat", "yes"])
    assert again.logprobs(*wanted) == pytest.approx(one.logprobs(*wanted), abs=1e-6)
    sampling = Sampling(n=2, temperature=1.0, max_tokens=5, seed=4)
    assert again.generate(["the dog"], sampling) == one.generate(["the dog"], sampling)


def test_a_chat_template_is_respected() -> None:
    own = tokenizer()
    own.chat_template = TEMPLATE
    model = student("llama").model
    one = CausalStudent(model, own, Causal(system="w9", chat_options={"think": True}))
    read = one.tokenizer.convert_ids_to_tokens
    assert read(one.source_tokens("w5")) == ["w1", "w9", "w2", "w1", "w5", "w2", "w4", "w3"]
    assert read(one.target_tokens("w6")) == ["w6", "</s>"]
    bare = CausalStudent(model, own, Causal(chat=False, before="w8 "))
    assert read(bare.source_tokens("w5")) == ["w8", "w5", "</s>"]
    with pytest.raises(ConfigError, match="has no chat template"):
        Causal(chat=True).open(TEXTS)


@pytest.mark.parametrize("sharing", ["full", "none"])
def test_a_chat_template_without_a_system_turn_is_named(sharing: Any) -> None:
    own = tokenizer()
    own.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
    )
    model = student("llama").model
    CausalStudent(model, own, Causal(sharing=sharing))
    with pytest.raises(ConfigError, match=r"refuses it \(no system\); leave out student\.system"):
        CausalStudent(model, own, Causal(system="w9", sharing=sharing))
    own.chat_template = "{{ raise_exception('nobody') }}"
    with pytest.raises(ConfigError, match=r"set student\.chat=false"):
        CausalStudent(model, own, Causal(sharing=sharing))


def test_a_tokenizer_that_ends_no_text_gets_a_line_break() -> None:
    from lmdistill.students import _vocabulary

    own = _vocabulary.build("subword", ["a b c\nd", "so it is a b c d"], size=40, trim=True)
    own.backend_tokenizer.post_processor = None
    model = student("llama").model
    one = CausalStudent(model, own, Causal(before="Q: ", sharing="none"))
    assert one.after == "\n"
    assert one.source_tokens("a")[-1] != one.eos
    cue = CausalStudent(model, own, Causal(after=" so", sharing="none"))
    assert own.decode(cue.target_tokens("a b")[:-1]).strip() == "a b"


def test_long_sources_lose_their_middle_or_are_refused() -> None:
    words = " ".join(WORDS[:20])
    one = Causal(max_source=6).open(TEXTS)
    kept = one.tokenizer.convert_ids_to_tokens(one.tokens("source", words))
    assert kept == ["w0", "w1", "w2", "w18", "w19", "</s>"]
    assert one.shortened["source"] == 1
    with pytest.raises(DataError, match="over the student's limit of 6"):
        Causal(max_source=6, overflow="refuse").open(TEXTS).tokens("source", words)


@pytest.mark.parametrize("kind", [Causal, Seq2seq])
def test_adapters_are_trained_alone_merged_when_saved_and_taken_up_again(tmp_path: Path, kind: Any) -> None:
    base = tmp_path / "base"
    kind(dropout=0.0).open(TEXTS, seed=1).save(base)
    settings = kind(model=str(base), dropout=0.0, lora=Lora(rank=4, dropout=0.0))
    one = settings.open(seed=2)
    trainable = {name for name, p in one.named_parameters() if p.requires_grad}
    assert trainable and all(".lora_" in name for name in trainable)
    pairs = (["w1 w2", "w3"], ["w4", "w5 w6"])
    plain = kind(model=str(base), dropout=0.0).open().logprobs(*pairs)
    assert one.logprobs(*pairs) == pytest.approx(plain, abs=1e-5), "fresh adapters change nothing"
    batch = one.collate([], [[View("w1 w2", "w4", "answer")]])
    optimizer = torch.optim.AdamW([p for p in one.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(5):
        one(batch)["answer"].nll.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = one.logprobs(*pairs)
    assert trained[0] > plain[0] + 0.5
    one.save(tmp_path / "tuned")
    alone = kind(model=str(tmp_path / "tuned"), dropout=0.0).open()
    assert alone.logprobs(*pairs) == pytest.approx(trained, abs=1e-4), "the saved folder stands alone"
    again = settings.open(seed=5)
    again.load(tmp_path / "tuned")
    assert again.logprobs(*pairs) == pytest.approx(trained, abs=1e-5)
    with pytest.raises(StoreError, match="adapter_model"):
        again.load(base)


def test_adapters_of_no_layer_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"lora\.targets"):
        Causal(lora=Lora(targets=("no_such_layer",))).open(TEXTS)
    with pytest.raises(ConfigError, match="rank 0"):
        Lora(rank=0)


def test_layers_stand_at_the_positions_of_the_target() -> None:
    one = student("gpt2", attention="eager")
    batch = one.collate([], [[View("w1 w2 w3", "w4 w5", "answer"), View("w1 w2 w3", "w6", "answer", 1)]])
    scored = one(batch, want=frozenset({"nll", "layers"}))["answer"]
    assert scored.layers["hidden_states"][0].shape[:2] == scored.mask.shape
    assert scored.layers["attentions"][0].shape == (2, 4, 3, 4 + 3 - 1)


def test_a_model_that_caps_its_logits_is_refused() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    own = tokenizer()
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    ids = {"vocab_size": len(own), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    model = Gemma2ForCausalLM(Gemma2Config(**sizes, **ids, num_key_value_heads=2, final_logit_softcapping=0.01))
    with pytest.raises(ConfigError, match="changes its logits after the vocabulary head"):
        CausalStudent(model, own, Causal())


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_adapters_and_chat_stand_in_a_run_file(kind: str) -> None:
    given: dict[str, Any] = {"name": kind, "lora": {"rank": 4, "targets": ["q_proj", "v_proj"]}}
    if kind == "causal":
        given |= {"chat": False, "chat_options": {"enable_thinking": False}}
    one = rebuild("students", given)
    assert one.lora == Lora(rank=4, targets=("q_proj", "v_proj"))
    assert rebuild("students", settings_of(one)) == one
