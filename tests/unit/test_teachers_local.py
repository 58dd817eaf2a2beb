"""Local transformers models: batches, shared prompts, log-probabilities, distributions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmdistill.errors import ConfigError, DataError, StoreError
from lmdistill.teachers.transformers import Transformers, fingerprint
from lmdistill.types import Sampling
from lmdistill.wire import Message, Prompt

WORDS = ["<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(40)), "So", "the", "answer", "is", "."]
PROMPTS = ["w1 w2 w3", "w4 w5 w6 w7 w8 w9", "w3"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny decoder with absolute positions, one with rotary ones, and an encoder-decoder, from random weights."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("models")
    size = len(WORDS)
    torch.manual_seed(0)
    special = {"bos_token_id": 1, "eos_token_id": 1, "initializer_range": 0.5}
    llama = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    t5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    made = {
        "gpt2": transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=64, **special)
        ),
        "llama": transformers.LlamaForCausalLM(
            transformers.LlamaConfig(vocab_size=size, num_key_value_heads=1, **llama, **special)
        ),
        "t5": transformers.T5ForConditionalGeneration(
            transformers.T5Config(vocab_size=size, eos_token_id=1, pad_token_id=0, **t5)
        ),
    }
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    for name, model in made.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: folder / name for name in made}


Open = Callable[..., Any]


@pytest.fixture
def opened(checkpoints: dict[str, Path]) -> Open:
    def open_(name: str, **options: Any) -> Any:
        return Transformers(model=str(checkpoints[name]), **options).open()

    return open_


KINDS = ["gpt2", "llama", "t5"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_says_what_each_prompt_alone_says(opened: Open, kind: str) -> None:
    sampling = Sampling(max_tokens=8)
    together = opened(kind, batch_size=8).generate(PROMPTS, sampling)
    for prompt, (one,) in zip(PROMPTS, together, strict=True):
        ((alone,),) = opened(kind).generate([prompt], sampling)
        assert alone.text == one.text and alone.logprob == pytest.approx(one.logprob, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_transformers_says(opened: Open, checkpoints: dict[str, Path], kind: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoints[kind])
    model = (AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM).from_pretrained(checkpoints[kind]).eval()
    inputs = tokenizer(PROMPTS[:1], return_tensors="pt")
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0]
    plain = tokenizer.decode(ids[1 if kind == "t5" else inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    ((one,),) = opened(kind).generate(PROMPTS[:1], Sampling(max_tokens=8))
    assert one.text == plain


@pytest.mark.parametrize("kind", KINDS)
def test_the_noted_logprobs_are_the_models_own_at_any_temperature(opened: Open, kind: str) -> None:
    """Also where samples share one pass over their prompt: a plain forward pass over the whole text agrees."""
    teacher = opened(kind, top=len(WORDS), batch_size=64)
    compared = 0
    for prompt, samples in zip(
        PROMPTS, teacher.generate(PROMPTS, Sampling(n=6, max_tokens=6, temperature=2.0)), strict=True
    ):
        assert len({one.text for one in samples}) > 1
        for one in samples:
            if "<" in "".join(token.token for token in one.tokens[:-1]):
                continue  # a special token in the middle does not survive being text
            found = teacher.distributions([prompt], [one.text])
            for place, token in enumerate(one.tokens):
                if place >= len(found.targets) or (one.finish_reason == "length" and place >= len(one.tokens)):
                    break
                row = list(found.ids[place]).index(WORDS.index(token.token))
                assert found.logprobs[place][row] == pytest.approx(token.logprob, abs=2e-4)
                compared += 1
    assert compared > 20


@pytest.mark.parametrize("kind", KINDS)
def test_distributions_are_those_of_a_plain_forward_pass(opened: Open, kind: str) -> None:
    import torch

    teacher = opened(kind, top=5)
    targets = ["w1 w2", "w3", "w4 w5 w6"]
    found = teacher.distributions(PROMPTS, targets)
    assert len(found) == 3 and found.offsets.tolist() == [0, 3, 5, 9]
    assert found.ids.shape == found.logprobs.shape == (9, 5)
    total = np.exp(found.logprobs).sum(-1) + np.exp(found.tail)
    assert total == pytest.approx(np.ones(9), abs=1e-5)
    tokenizer, model = teacher.tokenizer, teacher.module
    for row, (prompt, target) in enumerate(zip(PROMPTS, targets, strict=True)):
        source = tokenizer(prompt, return_tensors="pt")["input_ids"]
        labels = torch.tensor([[*tokenizer(target)["input_ids"], 1]])
        with torch.inference_mode():
            if kind == "t5":
                logits = model(input_ids=source, labels=labels).logits[0]
            else:
                whole = model(input_ids=torch.cat([source, labels], 1)).logits[0]
                logits = whole[source.shape[1] - 1 : -1]
        best = logits.log_softmax(-1).topk(5)
        one = found[row]
        assert one.targets.tolist() == labels[0].tolist()
        assert one.logprobs == pytest.approx(best.values.numpy(), abs=1e-4)
        assert (one.ids == best.indices.numpy()).mean() > 0.9  # ties may swap
    assert [len(one.targets) for one in found] == [3, 2, 4]


def test_small_batches_give_the_same_distributions(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmdistill.teachers import _scoring

    many = opened("gpt2", top=3).distributions(PROMPTS, PROMPTS)
    monkeypatch.setattr(_scoring, "CELLS", 10)  # one row at a time
    single = opened("gpt2", top=3).distributions(PROMPTS, PROMPTS)
    assert single.logprobs == pytest.approx(many.logprobs, abs=1e-4)
    assert single.offsets.tolist() == many.offsets.tolist() and single.tokenizer_hash == many.tokenizer_hash


def test_a_run_of_one_seed_repeats(opened: Open) -> None:
    sampling = Sampling(n=4, max_tokens=6, temperature=1.0)
    first = opened("gpt2").generate(PROMPTS, sampling)
    assert opened("gpt2").generate(PROMPTS, sampling) == first
    assert opened("gpt2", seed=1).generate(PROMPTS, sampling) != first


def test_stop_strings_the_end_and_the_room(opened: Open) -> None:
    teacher = opened("llama")
    ((free,),) = teacher.generate(PROMPTS[:1], Sampling(max_tokens=8))
    words = free.text.split()
    place = next(i for i in range(1, len(words)) if words[i] not in " ".join(words[:i]))
    word = words[place]
    ((stopped,),) = teacher.generate(PROMPTS[:1], Sampling(max_tokens=8, stop=(word,)))
    assert stopped.finish_reason == "stop" and word not in stopped.text and free.text.startswith(stopped.text)
    ((begun,),) = teacher.generate(
        ["w1 w2 w3"], Sampling(max_tokens=8, stop=("w3 ", "w2"))
    )  # what is asked stops nothing
    assert begun.text and begun.text.split()[0] == words[0]
    assert len(stopped.tokens) == place + 1 and stopped.tokens[-1].token == word
    ((cut,),) = teacher.generate(PROMPTS[:1], Sampling(max_tokens=2))
    assert cut.finish_reason == "length" and len(cut.tokens) == 2
    assert cut.usage is not None and (cut.usage.prompt_tokens, cut.usage.completion_tokens) == (3, 2)


def test_beams(opened: Open) -> None:
    for kind in ("llama", "t5"):
        ((one, two),) = opened(kind).generate(PROMPTS[:1], Sampling(n=2, beams=3, max_tokens=4))
        assert one.text != two.text and one.logprob is None


def test_greedy_samples_are_all_alike(opened: Open) -> None:
    for row in opened("t5").generate(PROMPTS, Sampling(n=3, max_tokens=5)):
        assert len(row) == 3 and len({one.text for one in row}) == 1


def test_a_chat_goes_through_the_template_where_there_is_one(opened: Open) -> None:
    teacher = opened("gpt2")
    prompt = Prompt((Message("system", "w1"), Message("user", "w2")))
    assert teacher.text(prompt) == "w1\n\nw2\n"
    teacher.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}<go>"
    assert teacher.text(prompt) == "<system> w1 <user> w2 <go>"


def test_weights_are_loaded_only_when_needed(opened: Open) -> None:
    teacher = opened("gpt2")
    teacher.request(Prompt((Message("user", "w1"),)), Sampling(), None)
    assert "module" not in vars(teacher)


def test_another_checkpoint_in_the_same_folder_is_another_teacher(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"a" * 200_000)
    first = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"a" * 199_999 + b"b")
    assert fingerprint(tmp_path) != first


def test_what_cannot_be_done_is_said(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="teacher 'transformers' cannot load"):
        Transformers(model=str(tmp_path)).open().generate(["x"], Sampling())
    with pytest.raises(ConfigError, match="as many targets as sources"):
        opened("gpt2").distributions(["w1"], [])
    with pytest.raises(DataError, match="without a single token"):
        opened("gpt2").distributions([""], ["w1"])
    with pytest.raises(ConfigError, match="batch_size and top"):
        Transformers(model="x", batch_size=0)
