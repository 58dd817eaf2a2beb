"""A student that goes on after its answer: where the answer is complete, and that every row stops for itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lmdistill.objectives._ending import answer_end
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.objectives.rationale_then_label import RationaleThenLabel
from lmdistill.predict import Decoding, predict
from lmdistill.students.causal import Causal
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.tasks import Task
from lmdistill.tasks.nli import Nli
from lmdistill.tasks.sums import Sums
from lmdistill.types import Annotation, Example, Sampling
from student_shapes import student

CUE = "So the answer is:"
CHOSEN = Example("1", "x", None, ("new york", "new york city", "rome"))
OPEN = Example("1", "x")


@pytest.mark.parametrize(
    ("task", "example", "said", "kept"),
    [
        (Nli(), CHOSEN, "rome", None),
        (Nli(), CHOSEN, "rome , as it", None),
        (Nli(), CHOSEN, "rome , as it is the capital", "rome"),
        (Nli(), CHOSEN, "new york city is what they call it", "new york city"),
        (Nli(), CHOSEN, "rome or new york which of them is it", None),
        (Nli(), CHOSEN, "rome.\nQ: and now?", "rome."),
        (Nli(), CHOSEN, "nowhere\nrome", None),
        (Sums(), OPEN, "12 apples .", None),
        (Sums(), OPEN, "6 + 6 . then she went home", "6 + 6"),
        (Sums(), OPEN, "12 12 12 12 12 12", "12"),
        (Sums(), OPEN, "many . So the answer is: 12 and so on it goes", "many . So the answer is: 12"),
        (Sums(), OPEN, "5 . no . So the answer is: 6", "5"),
        (Sums(), OPEN, "", None),
    ],
)
def test_where_an_answer_is_complete(task: Task, example: Example, said: str, kept: str | None) -> None:
    text = f"because . {CUE} {said}"
    end = answer_end(text, CUE, task, example)
    assert (None if end is None else text[:end]) == (None if kept is None else f"because . {CUE} {kept}")
    assert answer_end(said if CUE not in said else "", CUE, task, example) is None, "no cue, no answer"


@pytest.mark.parametrize(("reads", "kept"), [("line", "one day"), ("text", "one day\nit rained .")])
def test_lines_and_texts_end_where_they_break(reads: Any, kept: str) -> None:
    task = Sums()
    object.__setattr__(task, "reads", reads)
    text = f"{CUE} one day\nit rained .\n\nand then"
    assert text[: answer_end(text, CUE, task, OPEN)] == f"{CUE} {kept}"
    assert answer_end(f"{CUE} one day it rained and rained and rained", CUE, task, OPEN) is None


@pytest.mark.parametrize("shape", ["t5", "bart", "gpt2", "llama"])
@pytest.mark.parametrize("sampling", [Sampling(max_tokens=40), Sampling(n=2, temperature=1.0, max_tokens=40, seed=3)])
def test_every_row_stops_for_itself(shape: str, sampling: Sampling) -> None:
    one = student(shape)
    with torch.no_grad():  # so that no row ends by itself
        one.model.get_output_embeddings().weight[one.eos] -= 10
    one.model.generation_config.eos_token_id = None
    prompts = ["w1 w2 w3", "w4", "w5 w6 w7 w8"]
    whole = one.generate(prompts, sampling)

    def after(words: int) -> Any:
        return lambda text: len(" ".join(text.split()[:words])) if len(text.split()) >= words else None

    passes: list[int] = []
    one.model.get_output_embeddings().register_forward_hook(lambda *_: passes.append(1))
    short = one.generate(prompts, sampling, enough=[after(2), after(3), after(1)])
    assert len(passes) <= 16, "all have said enough after a look or two, long before 40 tokens"
    mixed = one.generate(prompts, sampling, enough=[after(2), after(1000), after(1)])
    for own, cut, some, words in zip(whole, short, mixed, (2, 3, 1), strict=True):
        for full, less, other in zip(own, cut, some, strict=True):
            expected = " ".join(full.text.split()[:words])
            assert (less.text, less.finish_reason) == (expected, "stop")
            assert other.text == (full.text if words == 3 else expected)


@pytest.mark.parametrize("kind", [Causal, Seq2seq])
def test_the_first_complete_answer_counts(kind: Any) -> None:
    said = f"w1 w2 {CUE} yes w3 w4 w5 w6 {CUE} no"
    one = kind(dropout=0.0).open([f"{said} maybe"], seed=0)
    one._new_tokens = lambda prompts, sampling: [one.target_tokens(said)] * len(prompts) * sampling.n
    item = Annotation(Example("a", "w1", "yes", ("yes", "no")))
    (found,) = predict(one, RationaleThenLabel(CUE), Nli(), [item])
    assert (found.answer, found.rationale, found.text) == ("yes", "w1 w2", f"w1 w2 {CUE} yes")
    (plain,) = predict(one, RationaleThenLabel(CUE), Nli(), [item], decoding=Decoding(stop_at_answer=False))
    assert (plain.answer, plain.text) == ("no", said)
    (bare,) = predict(one, LabelOnly(), Nli(), [item])
    assert bare.text == said, "only of a student that thinks"
