"""Costs that can be counted by hand, and the likelihood of gold texts."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch

from lmdistill import profiling
from lmdistill.errors import DataError
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.profiling import ProfileSettings, forward_flops, gap_closed, peak_mib, profile, reference_predictions
from lmdistill.types import Annotation, Example
from student_shapes import student as make

QUICK = ProfileSettings(new_tokens=4, warmups=1, calls=3, largest_batch=4)


@pytest.mark.parametrize("shape", ["t5", "llama"])
def test_a_profile_counts_and_measures(shape: str) -> None:
    student = make(shape)
    found = profile(student, ["w1 w2 w3", "w4 w5"], QUICK)
    assert found.parameters == sum(p.numel() for p in student.parameters())
    assert 0 < found.latency_ms <= found.latency_p95_ms and found.batch in (1, 2, 4)
    assert found.throughput_per_minute > 0 and found.prompts == 2
    assert profile(student, ["w1"], ProfileSettings(2, 0, 1, 4, memory_mib=-1)).throughput_per_minute == 0
    with pytest.raises(DataError, match="needs prompts"):
        profile(student, [])


def test_flops_are_two_for_each_weight_and_token() -> None:
    """What four more target tokens cost a decoder: its matrices, the head, and some attention."""
    student = make("llama")
    one, two = forward_flops(student, "w1", 4), forward_flops(student, "w1", 8)
    matrices = sum(p.numel() for name, p in student.named_parameters() if p.ndim == 2 and "layers" in name)
    head = student.model.get_output_embeddings().weight.numel()
    least = 4 * 2 * (matrices + head)
    assert least <= two - one <= 1.3 * least


@pytest.mark.parametrize("shape", ["t5", "llama", "gpt2"])
def test_flops_do_not_depend_on_how_attention_is_computed(shape: str) -> None:
    fused, written = (forward_flops(make(shape, attention=one), "w1 w2 w3", 6) for one in ("sdpa", "eager"))
    assert fused == written > 0


def test_the_peak_is_that_of_the_fastest_batch_and_full_memory_ends_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = make("t5")
    sizes: list[int] = []

    def peak(work: Any, student: Any = None) -> float:
        work()
        if sizes[-1] == 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 100.0 * sizes[-1]

    def generate(prompts: Any, sampling: Any, batch_size: int = 1) -> list[Any]:
        sizes.append(len(prompts))
        time.sleep(0.3 if len(prompts) == 4 else 0.02)
        return [[] for _ in prompts]

    monkeypatch.setattr(profiling, "peak_mib", peak)
    monkeypatch.setattr(student, "generate", generate)
    found = profile(student, ["w1"], ProfileSettings(4, 0, 1, 64))
    assert sizes == [1, 1, 2, 4, 8], "one call for the latency, then doubling until nothing is left"
    assert (found.batch, found.peak_mib) == (2, 200.0)


def test_peak_memory_sees_what_is_held_for_a_moment() -> None:
    def work() -> None:
        held = torch.ones(40, 1024, 256)  # 40 MiB
        held.mul_(2)
        assert float(held.sum()) > 0

    assert 30 < peak_mib(work) < 120


def test_gold_texts_have_the_likelihood_that_training_sees() -> None:
    student = make("t5")
    items = [Annotation(Example("1", "w1 w2", "w3 w4")), Annotation(Example("2", "w5"))]
    (one,) = reference_predictions(student, LabelOnly(), items)
    batch = student.collate(items[:1], [LabelOnly().views(items[0], 0, None)])  # type: ignore[arg-type]
    nll = student(batch)["label"].nll
    assert one.confidence == pytest.approx(math.exp(-float(nll.sum().detach()) / 3), rel=1e-4)  # two words and the end


def test_the_gap_closed() -> None:
    assert gap_closed(16.9, 14.8, 17.8) == pytest.approx(0.7)
    with pytest.raises(ValueError, match="no better"):
        gap_closed(1.0, 2.0, 2.0)
