"""Every reranker: trained by the loop, ranks alone as in company, saved and read back, opened by its card."""

from __future__ import annotations

import functools
import logging
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmdistill import config, registry
from lmdistill.errors import ConfigError, StoreError
from lmdistill.ground import open_reranker
from lmdistill.objectives.rationale_reranking import RationaleReranking
from lmdistill.train import Trained, TrainSettings, train
from lmdistill.types import Candidates, Hit, Passage, View

NAMES = registry.names("rerankers")
ANIMALS = ["mouse", "horse", "otter", "eagle", "snail", "tiger"]
FOODS = ["cheese", "grass", "fish", "mice", "leaves", "deer"]
PASSAGES = [
    Passage(f"p{i}", f"every {animal} eats {food} .")
    for i, (animal, food) in enumerate(zip(ANIMALS, FOODS, strict=True))
]
PAIRS = [
    Candidates(f"q{i}", f"what does the {animal} eat ?", tuple(PASSAGES), tuple(8.0 * (j == i) for j in range(6)))
    for i, animal in enumerate(ANIMALS)
]
TEXTS = [*(pair.query for pair in PAIRS), *(passage.text for passage in PASSAGES)]
SETTINGS: dict[str, Any] = {"preset": "tiny", "max_length": 32}
TRAINING = TrainSettings(steps=350, batch_size=6, learning_rate=3e-3, log_every=10, device="cpu", save_every=10_000)


def opened(name: str, seed: int = 0, **more: Any) -> Any:
    return config.rebuild("rerankers", {"name": name, **SETTINGS, **more}).open(TEXTS, seed)


def hits(passages: list[Passage]) -> list[Hit]:
    return [Hit(passage, 0.0) for passage in passages]


@pytest.fixture(scope="module")
def trained_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Each kind, trained once."""

    @functools.cache
    def trained(name: str) -> Trained:
        objective = RationaleReranking(per_step=4, keep_best=True)
        folder = tmp_path_factory.mktemp(name)
        card = {"reranker": {"name": name, **SETTINGS}}
        return train(opened(name), objective, PAIRS, settings=TRAINING, folder=folder, card=card)

    return trained


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_what_the_rationale_would_have_found(name: str, trained_of: Callable[[str], Trained]) -> None:
    trained = trained_of(name)
    losses = [entry["loss"] for entry in trained.history if "loss" in entry]
    guessing = math.log(4)  # of the equally good four, at the last temperatures
    assert sum(losses[-5:]) / 5 < 0.4 * guessing, losses
    found = [trained.student.rerank(pair.query, hits(PASSAGES), 1)[0].passage.id for pair in PAIRS]
    assert sum(own == f"p{i}" for i, own in enumerate(found)) >= 5, found
    again = open_reranker(trained.folder)
    queries = [pair.query for pair in PAIRS]
    before = trained.student.rerank_all(queries, [hits(PASSAGES)] * 6, 3)
    after = again.rerank_all(queries, [hits(PASSAGES)] * 6, 3)
    for one, other in zip(before, after, strict=True):
        assert [hit.passage.id for hit in one] == [hit.passage.id for hit in other]
        assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_alone_as_in_company_and_in_any_order(name: str) -> None:
    reranker = opened(name)
    long = Passage("long", " ".join(["every", "otter", "eats"] * 30))
    company = hits([*PASSAGES, long, Passage("empty", "?")])
    together = {hit.passage.id: hit.score for hit in reranker.rerank(PAIRS[2].query, company, 99)}
    backwards = {hit.passage.id: hit.score for hit in reranker.rerank(PAIRS[2].query, company[::-1], 99)}
    many = reranker.rerank_all([PAIRS[0].query, PAIRS[2].query, ""], [company[:2], company, []], 99)
    assert [len(own) for own in many] == [2, 8, 0]
    assert backwards == pytest.approx(together, rel=1e-2)
    assert {hit.passage.id: hit.score for hit in many[1]} == pytest.approx(together, rel=1e-2)
    for passage_id, score in together.items():
        (alone,) = reranker.rerank(PAIRS[2].query, [hit for hit in company if hit.passage.id == passage_id], 1)
        assert alone.score == pytest.approx(score, rel=1e-2), passage_id
    assert [hit.score for hit in many[1]] == sorted((hit.score for hit in many[1]), reverse=True)


@pytest.mark.parametrize("name", NAMES)
def test_training_scores_equal_ranking_scores(name: str) -> None:
    reranker = opened(name).eval()
    views = [RationaleReranking(per_step=3).views(pair, 0, random.Random(0)) for pair in PAIRS[:2]]
    with torch.no_grad():
        ranked = reranker(reranker.collate(PAIRS[:2], views))
    assert ranked.mask.tolist() == [[True] * 3] * 2
    for pair, own, scores in zip(PAIRS, views, ranked.scores.tolist(), strict=False):
        found = {hit.passage.text: hit.score for hit in reranker.rerank(pair.query, hits(PASSAGES), 6)}
        assert scores == pytest.approx([found[view.target] for view in own], rel=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_length_is_within_the_limit(name: str) -> None:
    reranker = opened(name)
    from lmdistill.types import View

    for query, passage in (("a", "b"), ("the otter " * 500, "eats " * 500), ("", "x" * 2_000_000)):
        assert sum(reranker.length(View(query, passage, "candidate"))) <= 32
        batch = reranker.collate([], [[View(query, passage, "candidate")]])
        assert batch.source_ids.shape[1] <= 32


@pytest.mark.parametrize("name", NAMES)
def test_wrong_settings_are_told(name: str, tmp_path: Path) -> None:
    spec = config.rebuild("rerankers", {"name": name})
    with pytest.raises(ConfigError, match="needs training texts"):
        spec.open()
    with pytest.raises(ConfigError, match="'huge' is not one of tiny"):
        config.rebuild("rerankers", {"name": name, "preset": "huge"}).open(TEXTS)
    with pytest.raises(StoreError, match="cannot be opened"):
        config.rebuild("rerankers", {"name": name, "model": str(tmp_path)}).open()
    with pytest.raises(StoreError, match="is not a reranker that lmdistill trained"):
        open_reranker(tmp_path)
    with pytest.raises(StoreError, match=r"has no model\.safetensors"):
        opened(name).load(tmp_path)


def test_equal_texts_and_seeds_give_equal_rerankers() -> None:
    one, other = opened("late_interaction"), opened("late_interaction")
    assert one.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    assert all(bool((a == b).all()) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    ids = one.tokenizer("Every OTTER eats unheard-of otters !")["input_ids"]
    assert one.tokenizer.unk_token_id not in ids
    assert one.tokenizer.decode(ids, skip_special_tokens=True).startswith("every otter eats")


def test_low_rank_updates_train_few_weights_and_are_merged_when_saved(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    reranker = opened("late_interaction", lora_rank=2)
    trainable = {n for n, p in reranker.named_parameters() if p.requires_grad}
    assert all("lora_" in name or name == "project.weight" for name in trainable)
    settings = TrainSettings(steps=8, batch_size=6, learning_rate=1e-2, device="cpu", save_every=10_000)
    card = {"reranker": {"name": "late_interaction", **SETTINGS, "lora_rank": 2}}
    trained = train(reranker, RationaleReranking(per_step=4), PAIRS, settings=settings, folder=tmp_path, card=card)
    merged = open_reranker(trained.folder)
    untrained = opened("late_interaction", lora_rank=2)
    scores = [
        {hit.passage.id: hit.score for hit in one.rerank(PAIRS[1].query, hits(PASSAGES), 6)}
        for one in (trained.student, merged, untrained)
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-2)
    assert scores[0] != pytest.approx(scores[2], rel=1e-2)
    untrained.load(trained.folder)
    assert {h.passage.id: h.score for h in untrained.rerank(PAIRS[1].query, hits(PASSAGES), 6)} == pytest.approx(
        scores[0]
    )


def test_a_frozen_encoder_gives_the_same_scores_and_only_w_is_trained(tmp_path: Path) -> None:
    frozen, plain = opened("late_interaction", frozen=True), opened("late_interaction")
    assert [name for name, p in frozen.named_parameters() if p.requires_grad] == ["project.weight"]
    one, other = (
        {hit.passage.id: hit.score for hit in each.rerank(PAIRS[0].query, hits(PASSAGES), 6)}
        for each in (frozen, plain)
    )
    assert one == pytest.approx(other, rel=1e-2)
    settings = TrainSettings(steps=30, batch_size=6, learning_rate=1e-2, log_every=5, device="cpu", save_every=10_000)
    before = {name: p.detach().clone() for name, p in frozen.encoder.named_parameters()}
    trained = train(frozen, RationaleReranking(per_step=6), PAIRS, settings=settings, folder=tmp_path)
    assert all(bool((before[name] == p).all()) for name, p in trained.student.encoder.named_parameters())
    losses = [entry["loss"] for entry in trained.history if "loss" in entry]
    assert losses[-1] < losses[0]


def test_the_trained_dual_encoder_opens_as_a_dense_retriever(trained_of: Callable[[str], Trained]) -> None:
    pytest.importorskip("sentence_transformers")
    from lmdistill.knowledge import Held
    from lmdistill.retrievers.dense import Dense

    trained = trained_of("dual_encoder")
    retriever = Dense(model=str(trained.folder)).open(Held(PASSAGES))
    for pair in PAIRS[:3]:
        by_search = {hit.passage.id: hit.score * 2000 for hit in retriever.search(pair.query, 6)}
        by_rerank = {hit.passage.id: hit.score for hit in trained.student.rerank(pair.query, hits(PASSAGES), 6)}
        assert by_search == pytest.approx(by_rerank, rel=0.02, abs=20)


def test_a_classifier_with_low_rank_updates_trains_its_head_too(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    reranker = opened("cross_encoder", lora_rank=2)
    trainable = {name for name, p in reranker.named_parameters() if p.requires_grad}
    assert any("classifier" in name for name in trainable) and any("pooler" in name for name in trainable)
    assert not any("embeddings" in name for name in trainable)
    before = {name: p.detach().clone() for name, p in reranker.named_parameters() if "classifier" in name}
    settings = TrainSettings(steps=8, batch_size=6, learning_rate=1e-2, device="cpu", save_every=10_000)
    card = {"reranker": {"name": "cross_encoder", **SETTINGS, "lora_rank": 2}}
    trained = train(reranker, RationaleReranking(per_step=4), PAIRS, settings=settings, folder=tmp_path, card=card)
    after = dict(trained.student.named_parameters())
    assert any(not bool((before[name] == after[name]).all()) for name in before)
    again = opened("cross_encoder", lora_rank=2)
    again.load(trained.folder)
    scores = [
        [hit.score for hit in one.rerank(PAIRS[1].query, hits(PASSAGES), 6)]
        for one in (trained.student, open_reranker(trained.folder), again)
    ]
    assert scores[1] == pytest.approx(scores[0], rel=1e-3) and scores[2] == pytest.approx(scores[0], rel=1e-3)


@pytest.mark.parametrize("kind", ["MPNet", "DebertaV2", "ModernBert", "DistilBert"])
def test_low_rank_updates_of_other_architectures(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    import transformers

    from lmdistill.rerankers._encoded import vocabulary

    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 32}
    config_class = getattr(transformers, f"{kind}Config")
    getattr(transformers, f"{kind}Model")(config_class(vocab_size=200, pad_token_id=0, **sizes)).save_pretrained(
        tmp_path
    )
    vocabulary(TEXTS, 200, 64).save_pretrained(tmp_path)
    names = ["late_interaction"] if kind == "MPNet" else ["late_interaction", "cross_encoder"]
    for name in names:
        own = {"name": name, "model": str(tmp_path), "max_length": 32, "lora_rank": 2}
        reranker = config.rebuild("rerankers", own).open()
        assert any("lora_" in n for n, p in reranker.named_parameters() if p.requires_grad)


def test_what_no_loss_reaches_is_not_trained() -> None:
    for name in ("late_interaction", "dual_encoder"):
        reranker = opened(name)
        views = [RationaleReranking(per_step=3).views(pair, 0, random.Random(0)) for pair in PAIRS[:2]]
        reranker(reranker.collate(PAIRS[:2], views)).scores.sum().backward()
        assert all(p.grad is not None for p in reranker.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_cannot_be_are_refused(name: str) -> None:
    for wrong in ({"max_length": 0}, {"batch_size": 0}, {"max_query": 1}, {"lora_rank": -1}, {"lora_dropout": 1.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            opened(name, **wrong)
    with pytest.raises(ConfigError, match="with lora_rank 2 the encoder is to be trained"):
        opened("late_interaction", frozen=True, lora_rank=2)
    with pytest.raises(ConfigError, match="'huge' is not one of tiny"):
        config.rebuild("rerankers", {"name": name, "preset": "huge"}).check()


def test_low_rank_updates_of_any_linear_layer_or_a_plain_refusal() -> None:
    pytest.importorskip("peft")
    from transformers import FunnelConfig, FunnelModel, PretrainedConfig, PreTrainedModel

    from lmdistill.rerankers._adapted import adapted

    small = {"d_model": 32, "n_head": 2, "d_head": 16, "d_inner": 32, "block_sizes": [1], "num_decoder_layers": 1}
    funnel = adapted(FunnelModel(FunnelConfig(vocab_size=50, **small)), 0, 2, alpha=8.0, dropout=0.0)
    assert any("q_head.lora_" in name for name, p in funnel.named_parameters() if p.requires_grad)

    class Bare(PreTrainedModel):
        """An encoder without a layer that could be updated."""

        config_class = PretrainedConfig

        def __init__(self, config: PretrainedConfig) -> None:
            super().__init__(config)
            self.words = torch.nn.Embedding(5, 4)
            self.post_init()

    with pytest.raises(ConfigError, match="Bare has no layer that low-rank updates fit"):
        adapted(Bare(PretrainedConfig()), 0, 2, alpha=8.0, dropout=0.0)


@pytest.mark.parametrize("name", NAMES)
def test_long_texts_are_cut_without_a_false_alarm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, told = opened(name), []
    one.tokenizer.model_max_length = 8
    monkeypatch.setattr(logging.Logger, "warning", lambda self, message, *more: told.append(message))
    long = " ".join(ANIMALS * 9)
    one.length(View(long, " ".join(FOODS * 20), "pair"))
    one.rerank(long, hits([Passage("long", " ".join(FOODS * 20)), *PASSAGES]), 3)
    assert not told
