"""Grounding: whose passages go where, what rerankers learn from, and where wrong answers come from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from lmdistill.errors import StoreError
from lmdistill.evaluate import evaluate
from lmdistill.faults import faults_of, side_by_side
from lmdistill.ground import Queries, by_gold, candidates, ground
from lmdistill.knowledge import Held
from lmdistill.metrics.hits_at_k import HitsAtK
from lmdistill.objectives import shown, silver
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.objectives.rationale_then_label import RationaleThenLabel
from lmdistill.objectives.step_by_step import StepByStep
from lmdistill.predict import Decoding, predict
from lmdistill.retrievers.bm25 import BM25
from lmdistill.store import write_rows
from lmdistill.tasks import Task
from lmdistill.types import Annotation, Completion, Example, Hit, Passage, Prediction, Rationale, Sampling

BASE = Held(
    [
        Passage("bird", "the tavo is a bird ."),
        Passage("eats", "every bird eats dalup ."),
        Passage("noise", "nobody saw what the tavo did eat ."),
        Passage("cat", "the miri is a cat ."),
        Passage("other", "every cat eats gono ."),
    ]
)
EXAMPLE = Example(
    "e1", "(q) what does the tavo eat ? A. dalup B. gono", "dalup", fields={"question": "what does the tavo eat ?"}
)
ITEM = Annotation(
    EXAMPLE,
    (Rationale("every bird eats dalup .", "dalup"), Rationale("the tavo is a bird .", "dalup"), Rationale("", "dalup")),
)
RETRIEVER = BM25().open(BASE)


def ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.passage.id for hit in hits]


def test_by_rationale_each_finds_its_own_and_an_empty_one_nothing() -> None:
    (found,) = ground([ITEM], RETRIEVER, k=1)
    assert [ids(one.hits) for one in found.rationales] == [["eats"], ["bird"], []]
    assert found.hits == ()
    assert found.example == EXAMPLE


def test_by_question_the_choices_are_no_part_of_the_query() -> None:
    (found,) = ground([ITEM], RETRIEVER, k=2, by="question")
    assert ids(found.hits) == ids(RETRIEVER.search("what does the tavo eat ?", 2))
    assert all(not one.hits for one in found.rationales)
    bare = Annotation(Example("e2", "miri"))
    assert ids(ground([bare], RETRIEVER, by="question")[0].hits) == ["cat"]


def test_by_both_and_the_query_of_the_released_code() -> None:
    queries = Queries(rationale="{{ rationale }} Answer: {{ answer }} {{ input }}")
    (found,) = ground([ITEM], RETRIEVER, k=5, by="both", queries=queries)
    assert ids(found.hits) == ids(RETRIEVER.search("what does the tavo eat ?", 5))
    asked = f"every bird eats dalup . Answer: dalup {EXAMPLE.input}"
    assert ids(found.rationales[0].hits) == ids(RETRIEVER.search(asked, 5))


class Backwards:
    """A reranker that turns every ranking round."""

    def rerank_all(self, queries: Sequence[str], hits: Sequence[Sequence[Hit]], k: int) -> list[list[Hit]]:
        self.seen = [len(own) for own in hits]
        return [list(own)[::-1][:k] for own in hits]


def test_a_reranker_chooses_among_the_candidates() -> None:
    reranker = Backwards()
    (found,) = ground([ITEM], RETRIEVER, k=1, by="question", reranker=reranker, candidates=3)  # type: ignore[arg-type]
    assert reranker.seen == [3]
    assert ids(found.hits) == ids(RETRIEVER.search("what does the tavo eat ?", 3))[-1:]


def test_an_item_without_a_rationale_is_grounded_by_its_question_and_counted(tmp_path: Path) -> None:
    bare = Annotation(Example("e2", "miri"))
    found = ground([ITEM, bare, Annotation(Example("e3", "?"))], RETRIEVER, k=1, folder=tmp_path)
    assert [ids(one.hits) for one in found] == [[], ["cat"], []]
    assert ids(found[0].rationales[0].hits) == ["eats"]
    counts = json.loads((tmp_path / "manifest.json").read_text())["counts"]
    assert counts == {
        "rows": 3,
        "items without a rationale, grounded by their question": 2,
        "questions that find nothing": 1,
        "rationales that find nothing": 1,
    }
    candidates([ITEM], RETRIEVER, folder=tmp_path / "pairs")
    counts = json.loads((tmp_path / "pairs" / "manifest.json").read_text())["counts"]
    assert counts == {"rows": 2, "rationales that find nothing": 1}


def test_candidates_are_the_distinct_union_all_scored_by_the_rationale() -> None:
    found = candidates([ITEM], RETRIEVER, from_rationale=2, from_question=3)
    assert [one.id for one in found] == ["e1#0", "e1#1"], "a rationale that finds nothing gives no row"
    for one, rationale in zip(found, ITEM.rationales, strict=False):
        by_rationale = ids(RETRIEVER.search(rationale.text, 2))
        by_question = ids(RETRIEVER.search("what does the tavo eat ?", 3))
        assert [p.id for p in one.passages] == list(dict.fromkeys(by_rationale + by_question))
        assert one.query == "what does the tavo eat ?"
        assert list(one.target_scores) == RETRIEVER.score(rationale.text, [p.id for p in one.passages])


def test_stages_are_read_again_and_other_settings_are_refused(tmp_path: Path) -> None:
    first = ground([ITEM], RETRIEVER, k=1, folder=tmp_path / "g")
    assert list(ground([ITEM], RETRIEVER, k=1, folder=tmp_path / "g")) == list(first)
    with pytest.raises(StoreError, match="k was 1, now 2"):
        ground([ITEM], RETRIEVER, k=2, folder=tmp_path / "g")
    other = BM25().open(Held([Passage("x", "the tavo is a bird .")]))
    with pytest.raises(StoreError, match="input base was"):
        ground([ITEM], other, k=1, folder=tmp_path / "g")
    pairs = candidates([ITEM], RETRIEVER, folder=tmp_path / "c")
    assert len(pairs) == 2 and list(candidates([ITEM], RETRIEVER, folder=tmp_path / "c")) == list(pairs)


def test_an_oracle_reads_what_is_marked_as_far_as_it_is_there() -> None:
    (found,) = by_gold([ITEM], RETRIEVER, lambda example: ("eats", "lost", "bird"))
    assert ids(found.hits) == ["eats", "bird"]


# --- in the student's input ------------------------------------------------------------------------------------------


def test_training_and_inference_show_passages_alike() -> None:
    import random

    (grounded,) = ground([ITEM], RETRIEVER, k=1)
    hits = (Hit(BASE.passage(1), 3.0),)
    for objective in (LabelOnly(), StepByStep(), RationaleThenLabel(rationales="all")):
        trained = objective.views(grounded, 0, random.Random(0))[0].source
        asked = objective.prompt(Annotation(EXAMPLE, hits=hits))
        assert trained == asked
        assert asked.endswith(f"{EXAMPLE.input}\nKnowledge: every bird eats dalup .")


def test_each_rationale_is_trained_behind_its_own_passages() -> None:
    import random

    (grounded,) = ground([ITEM], RETRIEVER, k=1)
    views = RationaleThenLabel(rationales="all").views(grounded, 0, random.Random(0))
    assert [view.source.rpartition("Knowledge: ")[2] for view in views] == [
        "every bird eats dalup .",
        "the tavo is a bird .",
    ]
    template = "{{ question }}{% if knowledge %}\nKnowledge: {{ knowledge }}{% endif %}\nExplanation:"
    own = RationaleThenLabel(rationales="all", template=template)
    assert own.views(grounded, 0, random.Random(0))[0].source == (
        "what does the tavo eat ?\nKnowledge: every bird eats dalup .\nExplanation:"
    )
    assert own.prompt(Annotation(EXAMPLE)) == "what does the tavo eat ?\nExplanation:"


def test_without_passages_nothing_is_shown() -> None:
    assert shown(ITEM) == EXAMPLE.input
    assert silver(ITEM) == ()


# --- analysis --------------------------------------------------------------------------------------------------------


class Marked(Task):
    """A task whose relevant passages stand in the fields."""

    def examples(self, split: str) -> Sequence[Example]:
        return [EXAMPLE]

    def relevant(self, example: Example) -> tuple[str, ...]:
        return tuple(example.fields.get("gold", ()))


def answered(own_id: str, answer: str | None, read: Sequence[str], gold: Sequence[str]) -> Prediction:
    example = Example(own_id, "?", "dalup", fields={"gold": gold})
    return Prediction(example, answer, hits=tuple(Hit(Passage(one, "text"), 1.0) for one in read))


PREDICTIONS = [
    answered("a", "dalup", ["x"], ["eats"]),
    answered("b", "gono", ["x", "y"], ["eats"]),
    answered("c", "gono", ["x", "eats"], ["eats", "bird"]),
    answered("d", None, ["x"], []),
]


def test_wrong_answers_are_for_want_of_passages_or_in_spite_of_them() -> None:
    assert faults_of(PREDICTIONS, Marked()) == {"right": 1, "retrieval": 1, "reasoning": 1, "unmarked": 1}


def test_side_by_side_cites_what_was_read() -> None:
    without = [answered("b", "dalup", [], []), answered("c", None, [], [])]
    pairs = side_by_side(PREDICTIONS, without, Marked())
    assert [(one.id, one.fault, one.gained, one.passages) for one in pairs] == [
        ("b", "retrieval", -1, ("x", "y")),
        ("c", "reasoning", 0, ("x", "eats")),
    ]


def test_hits_at_k_by_hand() -> None:
    report = evaluate(Marked(), PREDICTIONS, [HitsAtK(ks=(1, 2, 10))])
    assert {name: (one.value, one.n) for name, one in report.metrics.items()} == {
        "hits@1": (0.0, 3),
        "hits@2": (1 / 3, 3),
    }, "two passages were read: what a search gives below the second is not known"
    with pytest.raises(ValueError, match="numbers of 1 or more"):
        HitsAtK(ks=(0,))


def test_a_mark_of_a_document_is_a_mark_of_what_was_cut_from_it_or_kept_for_it() -> None:
    one = Prediction(
        Example("a", "?", "dalup", fields={"gold": ["doc"]}),
        "gono",
        hits=(Hit(Passage("x", "text"), 2.0), Hit(Passage("doc#3", "text", stands_for=("doc",)), 1.0)),
    )
    report = evaluate(Marked(), [one], [HitsAtK(ks=(1, 2))])
    assert [report.metrics["hits@1"].value, report.metrics["hits@2"].value] == [0.0, 1.0]
    assert faults_of([one], Marked())["reasoning"] == 1
    base = Held([Passage("doc#1", "a bird .", stands_for=("doc",)), Passage("doc#2", "a cat .", stands_for=("doc",))])
    (found,) = by_gold([ITEM], BM25().open(base), lambda example: ("doc", "doc#2", "lost"))
    assert ids(found.hits) == ["doc#1", "doc#2"]


class Echo:
    """Writes back the last word of its prompt's knowledge."""

    def generate(self, prompts: Sequence[str], sampling: Sampling, **more: object) -> list[list[Completion]]:
        return [[Completion(prompt.split()[-2])] for prompt in prompts]


def test_predictions_cite_the_passages_that_were_read(tmp_path: Path) -> None:
    items = ground([Annotation(EXAMPLE)], RETRIEVER, k=2, by="question", folder=tmp_path)
    (prediction,) = predict(Echo(), LabelOnly(), Marked(), items, decoding=Decoding())
    assert ids(prediction.hits) == ids(RETRIEVER.search("what does the tavo eat ?", 2))
    write_rows(tmp_path / "p.jsonl", [prediction])
    assert '"bird"' in (tmp_path / "p.jsonl").read_text()
