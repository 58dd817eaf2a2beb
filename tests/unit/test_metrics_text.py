"""BLEU, ROUGE, BERTScore and NLL against worked numbers and the reference packages; empty predictions are wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import sacrebleu

from lmdistill.errors import DataError, StoreError
from lmdistill.evaluate import evaluate
from lmdistill.metrics.bertscore import Bertscore
from lmdistill.metrics.bleu import Bleu
from lmdistill.metrics.nll import Nll
from lmdistill.metrics.rouge import Rouge
from lmdistill.tasks import Task
from lmdistill.types import Example, Prediction


@dataclass(frozen=True)
class Plain(Task):
    def examples(self, split: str) -> Sequence[Example]:
        return ()

    def references(self, example: Example) -> tuple[str, ...]:
        return (*super().references(example), *example.fields.get("more", ()))


TEXTS = [
    ("the cat sat on the mat .", "the cat sat on a mat ."),
    ("a dog barked loudly at the moon tonight .", "the dog barked at the moon ."),
    ("who hid the golden key ?", "Where did the miller hide the golden key?"),
    ("", "never empty"),
]


def predictions(texts: Sequence[tuple[str, str]] = TEXTS) -> list[Prediction]:
    return [Prediction(Example(str(i), "?", gold), text or None) for i, (text, gold) in enumerate(texts)]


def test_bleu_is_sacrebleu_s_with_empty_predictions_in() -> None:
    metric = Bleu()
    found = metric.aggregate([metric.score(one, Plain()) for one in predictions()])["bleu"]
    theirs = sacrebleu.corpus_bleu([text for text, _ in TEXTS], [[gold for _, gold in TEXTS]])
    assert found.value == pytest.approx(theirs.score) and found.n == 4
    assert found.low <= found.value <= found.high
    without = metric.aggregate([metric.score(one, Plain()) for one in predictions(TEXTS[:3])])["bleu"]
    assert without.value > found.value, "dropping what is empty would flatter"


def test_bleu_takes_the_best_of_several_references() -> None:
    metric = Bleu()
    example = Example("1", "?", "no word in common here", fields={"more": ["the very same five words"]})
    one = metric.score(Prediction(example, "the very same five words"), Plain())
    assert metric.aggregate([one])["bleu"].value == pytest.approx(100.0)


def test_rouge_by_hand() -> None:
    # answer "the cat sat", reference "the cat ran": 2 of 3 words, 1 of 2 pairs, subsequence 2 of 3
    values = Rouge(stem=False).score(Prediction(Example("1", "?", "the cat ran"), "the cat sat"), Plain()).values
    assert values["rouge1"] == pytest.approx(2 / 3) and values["rouge2"] == pytest.approx(1 / 2)
    assert values["rougeL"] == pytest.approx(2 / 3) and values["rouge"] == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)
    metric = Rouge()
    assert metric.score(Prediction(Example("1", "?", "runs"), "running"), Plain()).values["rouge1"] == 1.0
    found = metric.aggregate([metric.score(one, Plain()) for one in predictions()])
    assert set(found) == {"rouge", "rouge1", "rouge2", "rougeL"} and found["rouge"].n == 4
    assert metric.score(predictions()[3], Plain()).values["rouge"] == 0.0


def test_nll_is_in_nats_and_perplexity_its_exponential() -> None:
    metric = Nll()
    made = [
        Prediction(Example("1", "?", "x"), "x", confidence=0.5),
        Prediction(Example("2", "?", "x"), "x", confidence=0.25),
    ]
    found = metric.aggregate([metric.score(one, Plain()) for one in made])
    assert found["nll"].value == pytest.approx(1.5 * math.log(2))
    assert found["perplexity"].value == pytest.approx(math.exp(1.5 * math.log(2)))
    assert metric.score(Prediction(Example("3", "?", "x"), None), Plain()).values["nll"] == pytest.approx(
        -math.log(1e-6)
    )


def test_bertscore_of_nothing_is_wrong_and_a_missing_model_is_named() -> None:
    metric = Bertscore(model="/nowhere/encoder", layer=2)
    assert metric.score(Prediction(Example("1", "?", "x"), " "), Plain()).values == {"bertscore": 0.0}
    with pytest.raises(StoreError, match="/nowhere/encoder"):
        metric.score(Prediction(Example("1", "?", "x"), "y"), Plain())


def test_bertscore_with_a_local_encoder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Equal texts score 1; the score is bert_score's own for a model in a folder."""
    import torch
    import transformers

    from lmdistill.students import _vocabulary

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = _vocabulary.build("word", ["the cat sat on a mat dog"], size=50, trim=True)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    names = json.loads((folder / "tokenizer_config.json").read_text())
    names.pop("model_max_length", None)  # as microsoft/deberta-base-mnli is published
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    metric = Bertscore(model=str(folder), layer=2)
    same = metric.score(Prediction(Example("1", "?", "the cat sat"), "the cat sat"), Plain())
    other = metric.score(Prediction(Example("1", "?", "the cat sat"), "a dog mat"), Plain())
    assert same.values["bertscore"] == pytest.approx(1.0, abs=1e-5)
    assert other.values["bertscore"] < same.values["bertscore"]
    long = " ".join(["cat mat dog"] * 60)
    assert 0 < metric.score(Prediction(Example("1", "?", long), f"the {long}"), Plain()).values["bertscore"] <= 1.0
    texts = [("the cat sat", "a dog mat"), ("", "the"), ("dog", "dog on a mat"), ("mat", "mat")]
    example = Example("x", "?", "a dog", fields={"more": ["the cat", " "]})
    made = [*predictions(texts), Prediction(example, "the cat")]
    together = [one.values["bertscore"] for one in metric.score_all(made, Plain())]
    assert together == pytest.approx([metric.score(one, Plain()).values["bertscore"] for one in made], abs=1e-5)
    assert together[1] == 0.0 and together[3:] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert evaluate(Plain(), made, [metric]).metrics["bertscore"].value == pytest.approx(sum(together) / 5)


def test_nll_of_an_answer_whose_probability_nobody_asked_for_is_refused() -> None:
    made = Prediction(Example("e7", "?", "x"), "x")
    with pytest.raises(DataError, match=r"'e7'.*decoding\.confidence=true.*metrics: \[nll\]"):
        evaluate(Plain(), [made], ["nll"])
