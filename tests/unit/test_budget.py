"""A rationale budget that is used up: the student is made to answer; texts that are begun are finished as if alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lmdistill.objectives.rationale_then_label import RationaleThenLabel
from lmdistill.predict import Decoding, predict
from lmdistill.tasks.sums import Sums
from lmdistill.types import Annotation, Completion, Example, Sampling
from student_shapes import student


class Talker:
    """A student that talks for as long as it may, and answers 12 when the cue is put into its mouth."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def generate(self, prompts: Sequence[str], sampling: Sampling, **_: Any) -> list[list[Completion]]:
        texts = ["on and on", "1 and 2 . so the answer is 3"][: sampling.n] * (2 // sampling.n)
        return [[Completion(text, finish_reason="length") for text in texts[: sampling.n]] for _ in prompts]

    def finish(self, prompts: Sequence[str], begun: Sequence[str], sampling: Sampling, **_: Any) -> list[Completion]:
        assert sampling.max_tokens == 5
        self.begun += begun
        return [Completion("12") for _ in begun]


def test_only_those_without_an_answer_are_made_to_answer() -> None:
    items = [Annotation(Example(f"e{i}", "how many ?", "12")) for i in range(2)]
    objective, task = RationaleThenLabel("so the answer is"), Sums()
    talker = Talker()
    told = predict(talker, objective, task, items, decoding=Decoding(answer_tokens=5))
    assert [(one.answer, one.rationale, one.reason) for one in told] == [("12", "on and on", None)] * 2
    assert talker.begun == ["on and on so the answer is"] * 2
    several = predict(Talker(), objective, task, items, decoding=Decoding(answer_tokens=5, samples=2))
    assert several[0].votes == {"12": 1, "3": 1}
    none = predict(Talker(), objective, task, items, decoding=Decoding())
    assert [one.answer for one in none] == [None, None]


@pytest.mark.parametrize("shape", ["t5", "bart", "gpt2", "llama", "opt"])
def test_a_text_that_was_begun_goes_on_as_generation_would(shape: str) -> None:
    one: Any = student(shape)
    with torch.no_grad():  # so that the end of sequence is not all it writes
        one.model.get_output_embeddings().weight[one.eos] -= 10
    prompts = ["w1 w2 w3", "w4", "w5 w6 w7 w8"]
    whole = one.generate(prompts, Sampling(max_tokens=6))
    begun = [" ".join(own[0].text.split()[:k]) for own, k in zip(whole, (2, 3, 2), strict=True)]
    rest = one.finish(prompts, begun, Sampling(max_tokens=6))
    for own, start, end in zip(whole, begun, rest, strict=True):
        assert (
            own[0].text.split()[: len(own[0].text.split())] == f"{start} {end.text}".split()[: len(own[0].text.split())]
        )
    assert one.finish([], [], Sampling()) == []
