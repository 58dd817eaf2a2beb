"""Every student in the folder: rows are scored as they are written, batches as singles, and a saved one is the same."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmdistill import registry
from lmdistill.config import rebuild, settings_of
from lmdistill.errors import ConfigError, StoreError
from lmdistill.students import StudentSettings
from lmdistill.types import Sampling, View

NAMES = registry.names("students")
TEXTS = ["the sum of one and two is three", "so the answer is four or five"]
WORDS = sorted({word for text in TEXTS for word in text.split()})
OPENED: dict[str, Any] = {}


def kind(name: str) -> Any:
    return registry.load("students", name)


def opened(name: str) -> Any:
    if name not in OPENED:
        OPENED[name] = kind(name)(dropout=0.0).open(TEXTS, seed=1).eval()
    return OPENED[name]


@pytest.mark.parametrize("name", NAMES)
def test_settings_go_to_a_run_file_and_back(name: str) -> None:
    one = kind(name)()
    assert isinstance(one, StudentSettings) and dataclasses.is_dataclass(one)
    assert rebuild("students", settings_of(one)) == one


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_weights(name: str) -> None:
    one, same, other = (kind(name)().open(TEXTS, seed=seed) for seed in (1, 1, 2))
    weights = [torch.cat([p.detach().flatten() for p in each.parameters()]) for each in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", NAMES)
def test_bad_settings_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vocabulary"):
        kind(name)().open([])
    with pytest.raises(ConfigError, match="preset"):
        kind(name)(preset="huge").open(TEXTS)
    with pytest.raises(StoreError, match="cannot be opened"):
        kind(name)(model=str(tmp_path)).open()


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizers_own_limit_raises_no_false_alarm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, told = kind(name)(dropout=0.0).open(TEXTS, seed=1), []
    one.tokenizer.model_max_length = 8  # as T5's is 512, whatever the model can read
    monkeypatch.setattr(logging.Logger, "warning", lambda self, message, *more: told.append(message))
    one.source_tokens(" ".join(WORDS * 9))
    one.tokens("target", " ".join(WORDS * 9))
    assert not told


sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs=st.lists(st.tuples(sentences, st.lists(sentences, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_a_batch_is_its_rows(name: str, pairs: list[tuple[str, list[str]]]) -> None:
    """Padding, order and company change no row's score; scores are those of `logprobs`."""
    one = opened(name)
    views = [[View(source, target, "answer", i) for i, target in enumerate(own)] for source, own in pairs]
    batch = one.collate([], views)
    with torch.no_grad():
        found = one(batch)["answer"].nll.sum(-1)
    flat = [(source, target) for source, own in pairs for target in own]
    alone = [one.logprobs([source], [target])[0] for source, target in flat]
    assert found.tolist() == pytest.approx([-logprob for logprob in alone], abs=1e-3)
    rows = batch.targets["answer"]
    assert rows.item.tolist() == [i for i, own in enumerate(views) for _ in own]
    assert len(batch.source_ids) == len({source for source, _ in pairs}), "equal sources stand once"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_for_is_there_and_agrees(name: str) -> None:
    one = opened(name)
    views = [[View("one and two", "three", "a"), View("one and two", "the answer is four", "b")]]
    scored = one(one.collate([], views), want=frozenset({"nll", "logits", "hidden"}))
    for role in ("a", "b"):
        own = scored[role]
        n = int(own.mask.sum())
        assert own.logits.shape == (n, len(one.tokenizer)) and own.hidden.shape[0] == n
        labels = one.collate([], views).targets[role].labels[own.mask]
        nll = torch.nn.functional.cross_entropy(own.logits.float(), labels, reduction="none")
        assert own.nll[own.mask].tolist() == pytest.approx(nll.tolist(), abs=1e-4)
        assert not own.nll[~own.mask].any()
    assert set(one(one.collate([], views), roles=["b"])) == {"b"}


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_student_is_the_same(name: str, tmp_path: Path) -> None:
    one = opened(name)
    one.save(tmp_path)
    again = kind(name)(model=str(tmp_path), dropout=0.0).open()
    other = kind(name)(dropout=0.0).open(TEXTS, seed=9)
    other.load(tmp_path)
    pairs = (["one and two", "the sum"], ["is three", "is four"])
    for each in (again, other):
        assert each.logprobs(*pairs) == pytest.approx(one.logprobs(*pairs), abs=1e-5)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(StoreError, match=r"model\.safetensors"):
        other.load(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_from_their_seeds(name: str) -> None:
    one = opened(name)
    prompts = ["one and two", "the sum of one and two is", "so"]
    sampling = Sampling(n=2, temperature=1.0, max_tokens=5)
    together = one.generate(prompts, sampling, seeds=[1, 2, 3])
    assert [len(own) for own in together] == [2, 2, 2]
    assert one.generate(prompts[1:2], sampling, seeds=[2])[0] == together[1]
    assert one.generate(prompts[::-1], sampling, seeds=[3, 2, 1])[::-1] == together
    greedy = one.generate(prompts, Sampling(n=2, max_tokens=5))
    assert all(own[0] == own[1] for own in greedy)
    state = torch.get_rng_state()
    one.generate(prompts, replace_seed(sampling))
    assert torch.equal(state, torch.get_rng_state()), "writing leaves the random state of training alone"


def replace_seed(sampling: Sampling) -> Sampling:
    return dataclasses.replace(sampling, seed=5)
