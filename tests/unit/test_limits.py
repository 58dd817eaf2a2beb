"""What becomes of texts over a student's limits: a cue and its answer are never lost, and what was cut is counted."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from lmdistill.errors import ConfigError, DataError
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.objectives.rationale_then_label import RationaleThenLabel
from lmdistill.predict import Decoding, predict
from lmdistill.students.causal import Causal, CausalStudent
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.tasks.sums import Sums
from lmdistill.types import Annotation, Completion, Example, Rationale, Sampling, View
from student_shapes import WORDS, student, tokenizer

TEXTS = ["w1 yes no So the answer is: " + " ".join(WORDS)]
LONG = " ".join(WORDS[i % 40] for i in range(20))
ITEM = Annotation(Example("a", "w1", "no", ("yes", "no")))
OBJECTIVE, TASK = RationaleThenLabel(), Sums()
KINDS = [Causal, Seq2seq]


def thinker(kind: Any, **settings: Any) -> Any:
    """A student with a limit of 20 tokens that has always used it up with its thought."""
    one = kind(max_target=20, dropout=0.0, **settings).open(TEXTS, seed=1)
    one.generate = lambda prompts, sampling, **_: [[Completion(LONG, finish_reason="length")] for _ in prompts]
    return one


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overflow", ["middle", "refuse"])
def test_choices_after_a_long_thought_are_scored_whole(kind: Any, overflow: str) -> None:
    one, roomy = thinker(kind, overflow=overflow), thinker(kind)
    roomy.max_target = 200
    decoding = Decoding(constrained=True, max_tokens=20)
    (found,), (expected,) = (predict(each, OBJECTIVE, TASK, [ITEM], decoding=decoding) for each in (one, roomy))
    assert (found.answer, found.confidence) == (expected.answer, expected.confidence)
    assert found.confidence != 0.5, "the cue and the choices were cut off, so all choices were alike"
    turned = predict(one, OBJECTIVE, TASK, [Annotation(Example("a", "w1", "no", ("no", "yes")))], decoding=decoding)
    assert turned[0].answer == found.answer, "the first choice wins whatever it is"


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_follows_the_given_text_is_scored(kind: Any) -> None:
    one = thinker(kind)
    one.max_target = 200
    target, given = OBJECTIVE.with_answer(LONG, "yes"), OBJECTIVE.with_answer(LONG, "")
    batch = one.collate([], [[View("w1", target, "scored")]])
    nll = one.eval()(batch)["scored"].nll[0]
    (found,) = one.logprobs(["w1"], [target], [given])
    assert found == pytest.approx(-nll[-2:].sum().item(), abs=1e-5), "the answer and the end of sequence"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overflow", ["middle", "refuse"])
def test_a_student_that_used_up_its_budget_is_given_its_cue(kind: Any, overflow: str) -> None:
    one = thinker(kind, overflow=overflow)
    seen: list[str] = []
    plain = one._continued

    def spy(prompts: Any, starts: Any, sampling: Any) -> Any:
        seen.append(one.tokenizer.decode(starts[0]))
        return plain(prompts, starts, sampling)

    one._continued = spy
    predict(one, OBJECTIVE, TASK, [ITEM], decoding=Decoding(max_tokens=20, answer_tokens=3))
    assert seen == [OBJECTIVE.with_answer(LONG, "")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_rationale_is_trained_without_its_middle_but_with_its_answer(kind: Any) -> None:
    one = kind(max_target=20, dropout=0.0).open(TEXTS, seed=1)
    item = Annotation(ITEM.example, (Rationale(LONG, "yes"),))
    views = OBJECTIVE.views(item, 0, random.Random(0))
    labels = one.collate([item], [views]).targets["answer"].labels[0].tolist()
    words = LONG.split()
    expected = [*words[:7], *words[-7:], "So", "the", "answer", "is:", "yes", "</s>"]
    assert one.tokenizer.convert_ids_to_tokens(labels) == expected
    assert one.shortened == {"source": 0, "target": 1}
    assert one.length(views[0])[1] == 20
    one.max_target = 4  # less than cue and answer: what is left of them is still their beginning
    one._tokens.clear()
    left = one.tokenizer.convert_ids_to_tokens(one.tokens("target", views[0].target, views[0].tail))
    assert left == ["So", "the", "answer", "</s>"]
    refusing = kind(max_target=20, overflow="refuse").open(TEXTS, seed=1)
    with pytest.raises(DataError, match="a target has 26 tokens"):
        refusing.collate([item], [views])


@pytest.mark.parametrize("cue", ["So the answer is:", "\n#### "])
@pytest.mark.parametrize("kind", KINDS)
def test_a_target_s_tail_is_found_in_any_vocabulary(kind: Any, cue: str) -> None:
    objective = RationaleThenLabel(cue)
    text = "the cat sat on the mat and the dog sat on the log so it is 12 . " * 4
    one = kind(vocabulary="subword", vocabulary_size=70, max_target=40).open([text, f"{text}{cue} 12"], seed=1)
    (view,) = objective.views(Annotation(ITEM.example, (Rationale(text, "12"),)), 0, random.Random(0))
    full = one.target_tokens(view.target)
    kept = list(one.tokens("target", view.target, view.tail))
    assert len(kept) == 40 < len(full)
    assert one.tokenizer.decode(kept, skip_special_tokens=True).endswith(f"{cue.strip()} 12")
    assert kept[:5] == full[:5]


def test_cuts_are_counted_and_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    one = Causal(max_source=6, dropout=0.0).open(TEXTS, seed=1)
    items = [Annotation(Example(f"e{i}", " ".join(WORDS[: 3 + i]), "w1")) for i in range(5)]
    for _ in range(2):
        predict(one, LabelOnly(), TASK, items, decoding=Decoding(max_tokens=2))
    assert capsys.readouterr().err.count("2 of 5 sources have more than 6 tokens") == 1
    assert one.shortened["source"] == 2


def test_targets_that_are_cut_are_told_before_training(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from lmdistill.train import TrainSettings, train

    one = Causal(max_target=20, dropout=0.0).open(TEXTS, seed=1)
    items = [Annotation(Example(f"e{i}", f"w{i}", "no"), (Rationale(LONG, "no"),)) for i in range(3)]
    settings = TrainSettings(steps=1, batch_size=3, device="cpu")
    trained = train(one, OBJECTIVE, items, settings=settings, folder=tmp_path)
    assert "1 of 1 targets have more than 20 tokens" in capsys.readouterr().err
    assert trained.counts["targets_shortened"] == 1


# --- the model's own positions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["gpt2", "opt", "bart"])
def test_limits_are_those_of_the_model(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Learnt positions, of which there are 256: 200 and 100 are too many together, and for 1,000 there are none."""
    one = student(shape)
    if shape != "bart":
        assert (one.max_source, one.max_target) == (156, 100)
        assert "max_source is 156, not 200" in capsys.readouterr().err
    source = " ".join(WORDS * 10)
    one.overflow = "middle"
    one.logprobs([source] * 2, ["w1", source])
    one.logprobs([source], [f"{source} w2"], [source])
    (written,) = one.generate([source], Sampling(max_tokens=1000))
    assert len(written[0].text.split()) <= 256
    one.finish([source], [source], Sampling(max_tokens=1000))
    with torch.no_grad():
        one(one.collate([], [[View(source, source, "answer"), View(source, "w1", "answer", 1)]]))


def test_a_tiny_model_halves_its_positions() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    own = tokenizer()
    ids = {"vocab_size": len(own), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=4, n_positions=32, **ids))
    one = CausalStudent(model, own, Causal())
    assert (one.max_source, one.max_target) == (16, 16)
    assert one.logprobs([" ".join(WORDS)], ["w1"])[0] < 0


@pytest.mark.parametrize("shape", ["t5", "llama", "qwen3"])
def test_models_without_position_tables_keep_their_limits(shape: str) -> None:
    assert (student(shape).max_source, student(shape).max_target) == (200, 100)


@pytest.mark.parametrize("kind", KINDS)
def test_limits_below_one_are_refused(kind: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(max_source=0, max_target=-3)
    assert caught.value.problems == [
        "max_source: at least 1 token was expected, got 0",
        "max_target: at least 1 token was expected, got -3",
    ]
