"""QCRD's objective: which samples are good, degenerate cases that are DSS, what is picked and what has a gradient."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from lmdistill.errors import ConfigError
from lmdistill.losses.contrast import Scheme, sequence_mean
from lmdistill.objectives import Companion, Objective, Round
from lmdistill.objectives._rationales import Ties, sampled_negatives, split
from lmdistill.objectives.contrastive_rationale import ContrastiveRationale
from lmdistill.objectives.mutual_information import MutualInformation
from lmdistill.objectives.quality_judging import QualityJudging
from lmdistill.objectives.step_by_step import StepByStep
from lmdistill.students import Batch
from lmdistill.students.causal import Causal
from lmdistill.students.seq2seq import Seq2seq, Seq2seqStudent
from lmdistill.types import Annotation, Completion, Example, Rationale, Sampling

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def item(index: int, positives: int = 3, negatives: int = 2) -> Annotation:
    rng = random.Random(index)

    def text() -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(2, 7)))

    good = tuple(Rationale(text(), "yes", "teacher", j) for j in range(positives))
    bad = tuple(Rationale(text(), "no", "teacher", positives + j) for j in range(negatives))
    return Annotation(Example(f"e{index}", text(), rng.choice(["yes", "no"])), good, negatives=bad)


def student_of(items: Sequence[Annotation], dropout: float = 0.0) -> Seq2seqStudent:
    texts = ["yes no predict: explain: <Predict> <Explain> question: explanation:", " ".join(WORDS)]
    return Seq2seq(dropout=dropout).open(texts, seed=1)


def batch_of(objective: Objective, items: Sequence[Annotation], student: Any) -> Batch:
    return student.collate(items, [objective.views(one, 0, random.Random(0)) for one in items])


def step(objective: Objective, items: Sequence[Annotation], dropout: float = 0.0) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients as the loop makes them."""
    student = student_of(items, dropout)
    student.train()
    torch.manual_seed(3)
    batch = batch_of(objective, items, student)
    counts = objective.counts(batch)
    parts = objective.loss(student, None, batch, 0.0)
    total = torch.stack([part.weight * part.total / counts[name] for name, part in parts.items()]).sum()
    total.backward()
    return float(total.detach()), [p.grad.clone() for p in student.parameters() if p.grad is not None]


PLAIN = ContrastiveRationale(
    negative_weight=0.0, positives="first", judge=None, prefix_style="released", rationale_reduction="token"
)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_without_contrast_it_is_step_by_step(dropout: float) -> None:
    items = [item(i, positives=1, negatives=0) for i in range(6)]
    ours, gradients = step(PLAIN, items, dropout)
    theirs, expected = step(StepByStep(), items, dropout)
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert len(gradients) == len(expected) > 10
    for own, other in zip(gradients, expected, strict=True):
        assert torch.allclose(own, other, atol=1e-6)


def test_without_contrast_it_is_step_by_step_per_sequence_too() -> None:
    items = [item(i, positives=1, negatives=0) for i in range(6)]
    reduced = replace(PLAIN, rationale_reduction="example", reduction="example")
    ours, gradients = step(reduced, items)
    theirs, expected = step(StepByStep(reduction="example"), items)
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert all(torch.allclose(own, other, atol=1e-6) for own, other in zip(gradients, expected, strict=True))


def test_several_positives_under_weight_zero_and_the_first_are_still_step_by_step() -> None:
    items = [item(i) for i in range(6)]  # with other positives and with negatives that must have no say
    ours, gradients = step(PLAIN, items)
    alone = [replace(one, rationales=one.rationales[:1], negatives=()) for one in items]
    theirs, expected = step(StepByStep(), alone)
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert all(torch.allclose(own, other, atol=1e-6) for own, other in zip(gradients, expected, strict=True))


def scalar(objective: ContrastiveRationale, items: Sequence[Annotation], margin: float) -> dict[str, float]:
    """Equations (6) and (7) in plain loops over one rationale at a time."""
    student = student_of(items)
    student.eval()
    total = {"positive": 0.0, "negative": 0.0}
    largest = objective.scheme == "maxmin"
    for one in items:
        views = objective.views(one, 0, random.Random(0))
        scored: dict[str, list[tuple[float, float]]] = {"positive": [], "negative": []}
        for view in views:
            if view.role == "label":
                continue
            found = student(student.collate([one], [[view]]))[view.role]
            loss = float(sequence_mean(found.nll, found.mask).detach())
            scored[view.role].append((loss if view.role == "positive" else min(loss - margin, 0.0), view.weight))
        if scored["positive"]:
            loss, weight = (max if largest else min)(scored["positive"])
            total["positive"] += weight * loss
        if scored["negative"]:
            loss, weight = (min if largest else max)(scored["negative"], key=lambda pair: pair[0])
            total["negative"] += weight * -loss
    return total


@pytest.mark.parametrize("scheme", ["minmax", "maxmin"])
@pytest.mark.parametrize("margin", [2.4, 2.7, 9.0])
def test_the_pair_that_is_picked_is_that_of_a_scalar_loop(scheme: Scheme, margin: float) -> None:
    rng = random.Random(5)

    def judged(several: Sequence[Rationale]) -> tuple[Rationale, ...]:
        return tuple(replace(one, scores={"quality": rng.uniform(0.1, 0.9)}) for one in several)

    items = [item(i, positives=1 + i % 4, negatives=i % 3) for i in range(9)]
    items = [replace(one, rationales=judged(one.rationales), negatives=judged(one.negatives)) for one in items]
    objective = ContrastiveRationale(scheme=scheme, margin=margin)
    student = student_of(items)
    parts = objective.loss(student.train(), None, batch_of(objective, items, student), 0.0)
    expected = scalar(objective, items, margin)
    assert parts["positive"].total.item() == pytest.approx(expected["positive"], rel=1e-5)
    negative = parts["negative"].total.item() if "negative" in parts else 0.0
    assert negative == pytest.approx(expected["negative"], rel=1e-4, abs=1e-5)
    assert parts["positive"].count == 9.0
    assert parts["positive"].weight == 0.5 and objective.counts(batch_of(objective, items, student))["negative"] == 9.0


def test_only_the_chosen_pair_has_a_gradient_and_none_beyond_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [item(i, positives=3, negatives=2) for i in range(4)]
    seen: list[tuple[bool, int]] = []
    plain = Seq2seqStudent._decoded

    def counted(self: Any, rows: Any, *rest: Any) -> Any:
        seen.append((torch.is_grad_enabled(), rows.labels.shape[0]))
        return plain(self, rows, *rest)

    encoded: list[int] = []
    encode = Seq2seqStudent._encoded

    def once(self: Any, ids: Any, *rest: Any) -> Any:
        encoded.append(ids.shape[0])
        return encode(self, ids, *rest)

    student = student_of(items)
    monkeypatch.setattr(Seq2seqStudent, "_decoded", counted)
    monkeypatch.setattr(Seq2seqStudent, "_encoded", once)
    for margin, chosen in ((50.0, 4 + 4), (1e-6, 4)):
        seen.clear()
        encoded.clear()
        objective = ContrastiveRationale(margin=margin)
        parts = objective.loss(student, None, batch_of(objective, items, student), 0.0)
        assert seen == [(False, 4 * 3 + 4 * 2), (True, 4), (True, chosen)], (
            "look at all, learn from labels and the pair"
        )
        assert encoded == [8], "each input is encoded once for its label and once for all its rationales"
        assert (float(parts["negative"].total.detach()) == 0) == (margin != 50.0)


def test_pushing_away_makes_the_negative_less_likely_and_leaves_far_ones_alone() -> None:
    items = [item(1, positives=1, negatives=1)]
    objective = ContrastiveRationale(label_weight=0.0, negative_weight=1.0, margin=30.0)
    student = student_of(items)
    batch = batch_of(objective, items, student)
    before = float(student(batch)["negative"].nll.sum().detach())
    parts = objective.loss(student, None, batch, 0.0)
    (parts["negative"].weight * parts["negative"].total).backward()
    with torch.no_grad():
        for p in student.parameters():
            if p.grad is not None:
                p -= 0.05 * p.grad
    assert float(student(batch)["negative"].nll.sum().detach()) > before


def test_every_scheme_weighs_by_its_own_shares() -> None:
    items = [item(i) for i in range(3)]
    rng = random.Random(1)
    items = [
        replace(one, rationales=tuple(replace(r, scores={"quality": rng.random()}) for r in one.rationales))
        for one in items
    ]
    student = student_of(items)
    totals = {}
    for scheme in ("mean", "weighted_mean"):
        objective = ContrastiveRationale(scheme=scheme, quality_of="picked")  # type: ignore[arg-type]
        batch = batch_of(objective, items, student)
        parts = objective.loss(student, None, batch, 0.0)
        scored = student(batch)["positive"]
        means = sequence_mean(scored.nll, scored.mask).reshape(3, 3)
        quality = batch.targets["positive"].weight.reshape(3, 3)
        share = torch.full((3, 3), 1 / 3) if scheme == "mean" else quality / quality.sum(-1, keepdim=True)
        factor = quality if scheme == "mean" else torch.ones(3, 3)  # a weighted mean is weighted once
        assert torch.allclose(parts["positive"].total, (share * factor * means).sum(), rtol=1e-5)
        totals[scheme] = parts["positive"].total.item()
    assert totals["mean"] != pytest.approx(totals["weighted_mean"])


def said(*answers: str | None, label: str = "yes") -> Annotation:
    every = [Rationale(f"text {i}", answer, "teacher", i) for i, answer in enumerate(answers)]
    used, aside = [r for r in every if r.answer is not None], [r for r in every if r.answer is None]
    return Annotation(Example("e", "x", label), tuple(used), tuple(replace(r, reason="no answer") for r in aside))


def sides(annotation: Annotation, ties: Ties = "all", unparsable: bool = True) -> tuple[list[int], list[int]]:
    parts = split(annotation, positives="majority", ties=ties, unparsable_is_negative=unparsable, labels="gold")
    return [r.sample for r in parts.positives], [r.sample for r in parts.negatives]


def test_the_majority_is_good_the_minority_and_the_unparsable_are_bad() -> None:
    assert sides(said("no", "yes", "no", None, "no")) == ([0, 2, 4], [1, 3])
    assert sides(said("no", "yes", "no", None, "no"), unparsable=False) == ([0, 2, 4], [1])
    assert sides(said(None, None)) == ([], [])


def test_ties_follow_the_training_label_or_are_skipped() -> None:
    assert sides(said("yes", "no")) == ([0, 1], [])
    assert sides(said("yes", "no", None)) == ([0, 1], [2])
    assert sides(said("maybe", "no")) == ([], [])
    assert sides(said("yes", "no"), ties="label") == ([0], [1])
    assert sides(said("yes", "no"), ties="skip") == ([], [])


def test_a_sample_that_was_set_aside_is_never_good_and_equal_texts_count_once() -> None:
    one = said("yes", "yes", "no")
    long = Rationale("far too long", "yes", "teacher", 9, reason="too long")
    twin = replace(one.rationales[1], text="text 0")
    one = replace(one, rationales=(one.rationales[0], twin, one.rationales[2]), rejected=(long,))
    assert sides(one) == ([0], [2])
    wrong_twin = replace(one.rationales[2], text="text 0")
    assert sides(replace(one, rationales=(one.rationales[0], twin, wrong_twin))) == ([0], [])


def test_equal_texts_are_told_apart_by_the_vote_and_the_winning_one_stays() -> None:
    """The minority's text comes first: it must not take the majority's place."""
    texts = [("foo", "no"), ("foo", "yes"), ("bar", "yes")]
    one = Annotation(Example("e", "x", "yes"), tuple(Rationale(t, a, "t", i) for i, (t, a) in enumerate(texts)))
    assert sides(one) == ([1, 2], [])
    parts = split(one, positives="majority", ties="all", unparsable_is_negative=True, labels="gold")
    assert parts.copies == 1 and parts.reason is None


def test_a_line_break_does_not_make_a_copy_of_a_positive_a_negative() -> None:
    good = Rationale("Sure, line one.\nSo  line two.", "yes", "t", 0)
    again = Rationale("Sure, line one. So line two.", "no", "t", 2)
    one = Annotation(Example("e", "x", "yes"), (good, replace(good, sample=1), again))
    assert sides(one) == ([0], [])

    class Writer:
        def generate(self, prompts: Sequence[str], sampling: Sampling, **options: Any) -> list[list[Completion]]:
            return [[Completion("Sure, line one. So line two."), Completion("Else."), Completion(" ")] for _ in prompts]

    notes: dict[str, float] = {}
    options: dict[str, Any] = {"seed": 0, "round": 0, "source": "student@round-0", "batch_size": 4, "notes": notes}
    made = sampled_negatives([one], ["x"], Writer(), Sampling(n=3), **options)  # type: ignore[arg-type]
    assert [r.text for r in made[0]] == ["Else."]
    assert notes == {"student_empty": 1, "student_copies": 1, "student_unfinished": 0}


def curated(*answers: str, label: str = "yes") -> Annotation:
    from lmdistill.curation.correct import Correct
    from lmdistill.tasks.nli import Nli

    return Correct().apply(said(*answers, label=label), Nli(), random.Random(0))


def test_curation_by_gold_labels_takes_the_vote_of_what_it_set_aside() -> None:
    one = curated("no", "yes", "no", "yes", "no")
    assert [r.sample for r in one.rationales] == [1, 3] and one.vote.answer == "no"
    assert sides(one) == ([1, 3], [0, 2, 4]), "what is left is right, however many were wrong"
    fresh = ContrastiveRationale(judge=None, negatives="teacher").refresh([one], round_of(None, 0)[0])[0]
    assert all(r.answer == "yes" for r in fresh.rationales) and all(r.answer == "no" for r in fresh.negatives)


def test_where_no_winner_is_left_in_use_there_is_no_contrast_and_a_reason() -> None:
    gone = [Rationale(f"gone {i}", "yes", "t", i, reason="too long") for i in range(2)]
    one = Annotation(Example("e", "x", "yes"), (Rationale("here", "no", "t", 2),), tuple(gone))
    parts = split(one, positives="majority", ties="all", unparsable_is_negative=True, labels="gold")
    assert parts == ((), (), "the winning samples were set aside", 0)
    objective = ContrastiveRationale(judge=None, negatives="teacher")
    round, _ = round_of(None, 0)
    fresh = objective.refresh([one, said("yes", "yes", "no")], round)
    assert fresh[0].negatives == () and fresh[0].rationales == ()
    assert round.notes == {
        "items": 2,
        "with_contrast": 1,
        "teacher_negatives": 1,
        "student_negatives": 0,
        "teacher_copies": 0,
        "without_contrast: the winning samples were set aside": 1,
    }


def test_votes_of_samples_set_aside_make_no_sample_in_use_a_negative() -> None:
    used = tuple(Rationale(f"used {i}", answer, "t", i) for i, answer in enumerate(["yes", "no", "no", "maybe"]))
    gone = tuple(Rationale(f"gone {i}", "yes", "t", 4 + i, reason="too long") for i in range(2))
    one = Annotation(Example("e", "x", "yes"), used, gone)
    assert sides(one) == ([0], [3]), "'no' would have won without what was too long, so it is neither"
    assert sides(replace(one, rejected=())) == ([1, 2], [0, 3])


def test_a_round_without_any_bad_rationale_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    objective = ContrastiveRationale(judge=None, negatives="teacher")
    for index in (0, 1):
        round, _ = round_of(None, index)
        objective.learn(objective.refresh([said("yes"), said("yes", "yes")], round), round)
        told = capsys.readouterr().err
        assert ("no bad rationale to push away from (no bad rationale: 2 items)" in told) == (index == 0)
    round, _ = round_of(None, 0)
    objective.learn(objective.refresh([said("yes", "yes", "no")], round), round)
    replace(objective, negative_weight=0.0).learn([said("yes")], round)
    waits = ContrastiveRationale(judge=None, negatives="student", early="teacher")
    waits.learn(waits.refresh([said("yes", "yes")], round), round)
    assert capsys.readouterr().err == ""


def test_gold_is_what_the_task_says_it_is() -> None:
    from lmdistill.tasks.svamp import Svamp

    task = Svamp(path="nowhere")
    told = tuple(Rationale(f"text {i}", a, "t", i) for i, a in enumerate(["8 + 2", "( 8 - 2 )", "8 + 2", "( 8 - 2 )"]))
    one = Annotation(Example("e", "x", "( 8.0 + 2.0 )"), told)
    (asked,) = ContrastiveRationale().marked([one], task)
    for positives, ties in (("label", "all"), ("majority", "label")):
        options: dict[str, Any] = {"positives": positives, "ties": ties}
        parts = split(asked, **options, unparsable_is_negative=True, labels="gold")
        assert [r.sample for r in parts.positives] == [0, 2] and [r.sample for r in parts.negatives] == [1, 3]
    plain = split(one, positives="label", ties="all", unparsable_is_negative=True, labels="gold")
    assert plain.positives == plain.negatives == (), "nobody asked the task: no positive, so no negative either"


def test_a_negative_that_was_cut_has_no_end() -> None:
    items = [item(i, positives=1, negatives=2) for i in range(3)]
    cut = [
        replace(one, negatives=(replace(one.negatives[0], scores={"unfinished": 1.0}), one.negatives[1]))
        for one in items
    ]
    student = student_of(items)
    objective = ContrastiveRationale(judge=None, margin=50.0, scheme="mean", label_weight=0.0)
    batch = batch_of(objective, cut, student)
    before = batch.targets["negative"].labels.clone()
    opened = objective._open_ended(student, batch).targets["negative"].labels
    for row, (own, whole) in enumerate(zip(opened.tolist(), before.tolist(), strict=True)):
        length = sum(token != -100 for token in whole)
        assert whole[length - 1] == student.eos
        short = row % 2 == 0
        assert own == [*whole[: length - short], *[-100] * (len(whole) - length + short)]
    assert torch.equal(batch.targets["negative"].labels, before), "the batch itself is not changed"
    ended = float(objective.loss(student, None, batch_of(objective, items, student), 0.0)["negative"].total.detach())
    total = float(objective.loss(student, None, batch, 0.0)["negative"].total.detach())
    scored = student(objective._open_ended(student, batch))["negative"]
    expected = (50.0 - sequence_mean(scored.nll, scored.mask)).reshape(3, 2).mean(-1).sum()
    assert total == pytest.approx(float(expected.detach()), rel=1e-5) and total != pytest.approx(ended, rel=1e-5)


@pytest.mark.parametrize(("unfinished", "kept"), [("open", [{"unfinished": 1.0}, {}]), ("drop", [{}])])
def test_samples_that_were_cut_are_counted_and_left_open_or_out(unfinished: Any, kept: list[dict[str, float]]) -> None:
    class Writer:
        def generate(self, prompts: Sequence[str], sampling: Sampling, **options: Any) -> list[list[Completion]]:
            return [[Completion("one two", finish_reason="length"), Completion("three")] for _ in prompts]

    objective = ContrastiveRationale(judge=None, negatives="student", samples=2, unfinished=unfinished)
    round, _ = round_of(Writer(), 0)
    fresh = objective.refresh([said("yes", "yes")], round)[0]
    assert round.notes["student_unfinished"] == 1 and [one.scores for one in fresh.negatives] == kept
    student = student_of([])
    (short,) = student.generate(["one two"], Sampling(temperature=1.5, max_tokens=1), seeds=[1])[0]
    assert short.finish_reason == "length", "a student says of its samples that they were cut"


class Ring:
    """A sampler that says which weights it was asked for."""

    def __init__(self, student: Any) -> None:
        self.student, self.asked = student, []  # type: ignore[var-annotated]

    def __call__(self, lag: int) -> Any:
        self.asked.append(lag)
        return self.student


def round_of(student: Any, index: int, companions: dict[str, Companion] | None = None) -> tuple[Round, Ring]:
    ring = Ring(student)
    return Round(index, 7, 0, 0.0, ring, companions or {}, student), ring  # type: ignore[arg-type]


@pytest.mark.parametrize(("index", "lag"), [(0, 0), (3, 3), (5, 5), (8, 5)])
def test_negatives_come_from_the_right_weights_and_say_so(index: int, lag: int) -> None:
    items = [said("yes", "yes", "no") for _ in range(2)]
    items = [replace(one, example=replace(one.example, id=f"e{i}", input=WORDS[i])) for i, one in enumerate(items)]
    student = student_of(items)
    objective = ContrastiveRationale(judge=None, max_tokens=5)
    round, ring = round_of(student, index)
    fresh = objective.refresh(items, round)
    assert ring.asked == [lag] and objective.lags == 5
    for one in fresh:
        assert [r.sample for r in one.rationales] == [0, 1]
        assert one.negatives[0].source == "teacher" and one.negatives[0].sample == 2
        assert {r.source for r in one.negatives[1:]} <= {f"student@round-{index - lag}"}
        assert one.vote.answer == "yes", "the teacher's vote survives a refresh"
    assert objective.refresh(items, round) == fresh, "the same round again gives the same negatives"
    again = objective.refresh(fresh, round)
    for old, new in zip(fresh, again, strict=True):
        assert old.rationales == new.rationales
        assert [(r.text, r.source, r.sample) for r in old.negatives] == [
            (r.text, r.source, r.sample) for r in new.negatives
        ]


def test_negative_sources_are_a_setting() -> None:
    items = [said("yes", "yes", "no")]
    student = student_of(items)
    round, ring = round_of(student, 2)
    teacher = ContrastiveRationale(judge=None, negatives="teacher")
    assert [r.source for r in teacher.refresh(items, round)[0].negatives] == ["teacher"] and teacher.lags == 0
    assert ContrastiveRationale(judge=None, negatives="none").refresh(items, round)[0].negatives == ()
    waits = ContrastiveRationale(judge=None, negatives="student", early="teacher")
    assert waits.refresh(items, round)[0].negatives == () and ring.asked == []
    fixed = ContrastiveRationale(judge=None, negatives="fixed", max_tokens=4)
    made = fixed.companions(student)
    with torch.no_grad():
        for p in student.parameters():
            p.zero_()
    assert any(float(p.detach().abs().sum()) > 0 for p in made["initial"].module.parameters()), "it is a copy"
    round, ring = round_of(student, 40, made)
    assert [r.source for r in fixed.refresh(items, round)[0].negatives] == ["student@round-0"]
    assert ring.asked == [] and fixed.lags == 0


def test_a_negative_follows_from_seed_round_and_id_whatever_else_is_in_the_batch() -> None:
    items = [replace(item(i, negatives=0), example=Example(f"e{i}", " ".join(WORDS[: 1 + i]), "yes")) for i in range(7)]
    student = student_of(items)
    sampling = Sampling(temperature=1.5, max_tokens=8)

    def drawn(some: Sequence[Annotation], size: int, round: int = 3) -> dict[str, tuple[Rationale, ...]]:
        prompts = [one.example.input for one in some]
        made = sampled_negatives(
            some, prompts, student, sampling, seed=1, round=round, source="student@round-1", batch_size=size
        )
        return {one.id: own for one, own in zip(some, made, strict=True)}

    whole, alone = drawn(items, 64), drawn(items[3:4], 64)
    assert alone["e3"] == whole["e3"] and drawn(items[::-1], 2) == whole
    assert drawn(items, 64, round=4) != whole
    first = next(own[0] for own in whole.values() if own)
    assert first.sample > 0 and first.source == "student@round-1"
    index = next(i for i, one in enumerate(items) if whole[one.id] and whole[one.id][0] is first)
    again = student.generate([items[index].example.input], sampling, seeds=[first.sample])
    assert again[0][0].text == first.text, "text and seed are stored, so a negative can be written again"


def test_seeded_samples_have_the_distribution_of_the_softmax() -> None:
    student = student_of([])
    prompt, n = "one two", 1500
    drawn = student.generate([prompt] * n, Sampling(temperature=1.5, max_tokens=1), batch_size=500, seeds=range(n))
    counts: dict[str, int] = {}
    for (one,) in drawn:
        counts[one.text] = counts.get(one.text, 0) + 1
    ids = torch.tensor([student.tokens("source", prompt)])
    start = torch.full((1, 1), student.model.config.decoder_start_token_id)
    logits = student.eval().model(input_ids=ids, decoder_input_ids=start).logits[0, 0] / 1.5
    for token, probability in enumerate(logits.softmax(-1).tolist()):
        text = student.tokenizer.decode([token], skip_special_tokens=True).strip()
        if text:
            spread = (n * probability * (1 - probability)) ** 0.5
            assert abs(counts.get(text, 0) - n * probability) < 5 * spread + 1


def test_seeded_samples_keep_to_the_cut() -> None:
    student = student_of([])
    prompts = ["one two", "three four five"]
    cut = Sampling(temperature=1.5, top_k=1, max_tokens=6)
    greedy = student.generate(prompts, Sampling(max_tokens=6))
    assert student.generate(prompts, cut, seeds=[5, 6]) == greedy
    free = student.generate(prompts, replace(cut, top_k=0), seeds=[5, 6])
    assert free != greedy and free == student.generate(prompts[::-1], replace(cut, top_k=0), seeds=[6, 5])[::-1]


def test_long_work_of_a_round_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmdistill.objectives import _rationales, quality_judging

    told: list[tuple[str, int, int]] = []

    class Bar:
        def __init__(self, title: str, total: int, unit: str) -> None:
            self.title, self.total, self.done = title, total, 0

        def __enter__(self) -> Bar:
            return self

        def advance(self, by: int = 1) -> None:
            self.done += by

        def __exit__(self, *rest: Any) -> None:
            told.append((self.title, self.done, self.total))

    monkeypatch.setattr(_rationales, "progress", Bar)
    monkeypatch.setattr(quality_judging, "progress", Bar)
    judge = QualityJudging(pretrain_steps=2, steps=1, batch_size=2)
    objective = ContrastiveRationale(judge=judge, max_tokens=2, generation_batch=1)
    items = [item(i, negatives=0) for i in range(6)]
    student = student_of(items)
    made = objective.companions(student)
    made["judge"].optimizer = torch.optim.AdamW(made["judge"].module.parameters(), lr=1e-3)
    round, _ = round_of(student, 0, made)
    objective.learn(objective.refresh(items, round), round)
    assert told == [("negatives", 6, 6), ("judge", 2, 2), ("judge", 1, 1)]


def test_settings_that_cannot_be_are_told_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ContrastiveRationale(margin=-1.0, lag=0, temperature=0.0, judge=StepByStep())
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["margin", "lag", "temperature", "judge"]
    with pytest.raises(ConfigError, match="500"):
        QualityJudging(pretrain_steps=501)
    with pytest.raises(ConfigError) as caught:
        ContrastiveRationale(margin=math.nan, contrast_weight=math.inf, temperature=math.nan)
    assert [one.partition(":")[0] for one in caught.value.problems] == ["contrast_weight", "margin", "temperature"]


@pytest.mark.parametrize("objective", [ContrastiveRationale(max_tokens=4, lag=1), MutualInformation(mode="released")])
def test_decoder_only_students_learn_by_it_too(objective: Objective) -> None:
    items = [item(i) for i in range(3)]
    texts = ["yes no predict: explain: <Predict> <Explain> question: explanation:", " ".join(WORDS)]
    student = Causal(dropout=0.0).open(texts, seed=1)
    batch = batch_of(objective, items, student)
    counts = objective.counts(batch)
    parts = objective.loss(student, None, batch, 0.0)
    assert parts.keys() <= counts.keys() and {"label"} < parts.keys()
    torch.stack([part.weight * part.total / counts[name] for name, part in parts.items()]).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in student.parameters() if p.grad is not None)
    if isinstance(objective, ContrastiveRationale):
        made = objective.companions(student)
        made["judge"].optimizer = torch.optim.AdamW(made["judge"].module.parameters(), lr=1e-3)
        round, _ = round_of(student, 1, made)
        fresh = objective.learn(objective.refresh(items, round), round)
        assert all("quality" in one.scores for row in fresh for one in (*row.rationales, *row.negatives))
