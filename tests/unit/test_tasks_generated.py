"""What each generated task promises, and that its settings are checked."""

from __future__ import annotations

import ast
import itertools
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from lmdistill import registry
from lmdistill.errors import ConfigError
from lmdistill.tasks import _made
from lmdistill.tasks._made import WORDS, split_of, word
from lmdistill.tasks._steps import derivation, mistaken, orders
from lmdistill.tasks.facts import Facts
from lmdistill.tasks.nli import Nli
from lmdistill.tasks.paths import Paths
from lmdistill.tasks.retell import Retell
from lmdistill.tasks.sums import Sums
from lmdistill.types import Example


def test_made_up_words_are_all_different_and_no_words_of_the_templates() -> None:
    every = {word(index) for index in range(WORDS)}
    assert len(every) == WORDS
    for name in ("nli", "sums", "facts", "paths", "retell", "_steps"):
        source = Path(_made.__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node):
                node.body = node.body[1:]  # the docstrings show made-up words
        texts = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        assert not every & set(re.findall(r"[a-z]+", " ".join(texts).lower())), name


def test_shares_of_the_questions() -> None:
    found = [split_of(f"question {i}") for i in range(20_000)]
    for split, share in (("train", 0.5), ("unlabelled", 0.2), ("valid", 0.1), ("test", 0.2)):
        assert found.count(split) / 20_000 == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("name", ["nli", "sums", "facts", "paths", "retell"])
def test_ten_thousand_examples_take_less_than_a_second(name: str) -> None:
    task = registry.load("tasks", name)(train=10_000)
    started = time.process_time()
    assert sum(1 for _ in task.examples("train")) == 10_000
    assert time.process_time() - started < 1.0


# --- nli -------------------------------------------------------------------------------------------------------------


def test_nli_is_balanced_and_labelled_by_its_classes() -> None:
    task = Nli(train=2000)
    labels = []
    for example in task.examples("train"):
        match = re.fullmatch(r"the (\w+) \w+ \w+ the (\w+) \. is a (\w+) there \?", example.input)
        assert match is not None
        index = {task.noun(i): i for i in range(task.nouns)}
        classes = {task.class_name(task.class_of(index[noun])) for noun in match.groups()[:2]}
        assert example.label == ("yes" if match[3] in classes else "no")
        labels.append(example.label)
    assert labels.count("yes") / 2000 == pytest.approx(0.5, abs=0.04)


def test_nli_rationales_name_both_classes() -> None:
    task = Nli()
    rationale, answer = task.explain(task.examples("test")[0].input, random.Random(3))
    first, second = re.findall(r"the (\w+) \w+ \w+ the (\w+)", task.examples("test")[0].input)[0]
    assert first in rationale and second in rationale and answer in ("yes", "no")


# --- sums and paths --------------------------------------------------------------------------------------------------


def test_orders_and_derivations_by_hand() -> None:
    assert orders(5, [2, -3]) == [(2, -3), (-3, 2)]
    assert orders(1, [2, -3]) == [(2, -3)]  # 1 - 3 is below zero
    assert orders(4, [1, 1, -2]) == [(1, 1, -2), (1, -2, 1), (-2, 1, 1)]
    assert derivation(5, (2, -3)) == [(5, 2, 7), (7, -3, 4)]


def test_mistakes_are_carried_through() -> None:
    lines = derivation(5, (2, -3, 4))
    for seed in range(300):
        wrong = mistaken(lines, random.Random(seed))
        assert wrong[-1][2] != lines[-1][2]
        assert all(after[0] == before[2] for before, after in itertools.pairwise(wrong))
        assert all(line[2] >= 0 for line in wrong)
        slips = [line for line in wrong if line[0] + line[1] != line[2]]
        turned = [i for i, line in enumerate(wrong) if line[1] != lines[i][1]]
        assert len(slips) + len(turned) == 1


def test_paths_has_six_derivations_with_other_numbers() -> None:
    task = Paths()
    example = Example("e", "start with 14 . add 5 . take 3 . put in 4 . what is there then ?", "20")
    told = {task.explain(example.input, random.Random(seed)) for seed in range(200)}
    assert len(told) == 6 and {answer for _, answer in told} == {"20"}
    assert "14 plus 5 is 19 . 19 minus 3 is 16 . 16 plus 4 is 20 ." in {rationale for rationale, _ in told}


def test_paths_never_falls_below_zero() -> None:
    for example in Paths(train=500).examples("train"):
        numbers = [int(number) for number in re.findall(r"\d+", example.input)]
        signs = [1 if verb in ("add", "put in") else -1 for verb in re.findall(r"add|put in|take|drop", example.input)]
        amounts = [sign * number for sign, number in zip(signs, numbers[1:], strict=True)]
        assert len(orders(numbers[0], amounts)) == len(set(itertools.permutations(amounts)))
        assert int(example.label or -1) == numbers[0] + sum(amounts)


def test_sums_passes_over_what_does_not_count() -> None:
    task = Sums()
    question = (
        "anna has 8 apples . ben has 4 kites . anna finds 5 more . the day is warm . anna sells 3 . "
        "how many apples does anna have now ?"
    )
    for seed in range(20):
        rationale, answer = task.explain(question, random.Random(seed))
        assert answer == "10" and "4" not in rationale.split()


def test_numbers_of_a_test_question_are_in_no_training_question() -> None:
    for cls in (Sums, Paths):
        task = cls(train=1500, test=200)
        seen = [{tuple(re.findall(r"(\w+) (\d+)", e.input)) for e in task.examples(s)} for s in ("train", "test")]
        assert len(seen[1]) > 100
    numbers = []
    for split in ("train", "test"):
        rows = Paths(train=1500, test=200).examples(split)
        numbers.append({tuple((v in "add put in", n) for v, n in re.findall(r"(\w+) (\d+)", e.input)) for e in rows})
    assert not numbers[0] & numbers[1]


# --- facts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("facts", [300, 600, 5000])
def test_facts_has_as_many_passages_as_it_says(facts: int) -> None:
    task = Facts(facts=facts)
    passages = task.passages()
    assert len(passages) == len({passage.id for passage in passages}) == facts
    assert len({passage.text for passage in passages if not passage.id.startswith("noise")}) == 100 + task.entities
    by_id = {passage.id: passage.text for passage in passages}
    for example in task.examples("test")[:100]:
        kind, rule = (by_id[name] for name in task.relevant(example))
        creature = re.fullmatch(r"the (\w+) is a (\w+) \.", kind)
        assert creature is not None and creature[1] in example.input.split()
        assert rule.startswith(f"every {creature[2]} ") and rule.endswith(f" {example.label} .")


def test_facts_asks_of_pairs_that_training_never_shows() -> None:
    task = Facts(train=3000)

    def pairs(split: str) -> set[tuple[str, str]]:
        found = set()
        for example in task.examples(split):
            verb = next(
                w for w in example.input.split() if f"{w}s" in " ".join(p.text for p in task.passages()[:100]).split()
            )
            entity = next(w for w in example.input.split() if w in known)
            found.add((entity, verb))
        return found

    known = {task.entity(index) for index in range(task.entities)}
    train, test = pairs("train"), pairs("test")
    assert not train & test
    assert len(train) > 900 and {entity for entity, _ in test} <= {entity for entity, _ in train}


def test_the_rationale_is_a_better_query_than_the_question() -> None:
    # Words shared with the class passage of the entity against the passage that only mentions it.
    task = Facts()
    by_id = {passage.id: passage.text.split() for passage in task.passages()}
    better = 0
    for example in task.examples("test")[:100]:
        rationale, _ = task.explain(example.input, random.Random(0))
        right, rule = (set(by_id[name]) for name in task.relevant(example))
        better += len(right & set(rationale.split())) + len(rule & set(rationale.split())) > len(
            right & set(example.input.split())
        ) + len(rule & set(example.input.split()))
    assert better == 100


# --- retell ----------------------------------------------------------------------------------------------------------


def test_retell_takes_any_right_telling_and_no_other() -> None:
    task = Retell()
    example = task.examples("test")[0]
    told = {task.explain(example.input, random.Random(seed))[1] for seed in range(50)}
    assert len(told) > 20 and all(task.is_correct(example, answer) for answer in told)
    label = example.label or ""
    first, rest = label.split(" , ", 1)
    assert task.is_correct(example, f"{label} .")
    for wrong in (None, "", first, f"{rest} , then {first}", label.replace(" the ", " a "), label + " , then anna"):
        assert not task.is_correct(example, wrong)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("nli", {"classes": 2}),
        ("nli", {"nouns": 5}),
        ("sums", {"steps": 0}),
        ("sums", {"largest": 1}),
        ("paths", {"steps": 7}),
        ("paths", {"largest": 10}),
        ("facts", {"facts": 100}),
        ("facts", {"facts": 100_000}),
        ("facts", {"classes": 11}),
        ("retell", {"events": 7}),
        ("retell", {"things": 1}),
        ("nli", {"train": -1}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"expected|must be"):
        registry.load("tasks", name)(**settings)


def test_a_split_without_any_question_is_refused_rather_than_searched_for_ever() -> None:
    task = Paths(steps=1, largest=2, largest_step=2, train=3, valid=3, test=3, unlabelled=3)
    keys = [f"{start} [{amount}]" for start in range(3) for amount in (-2, -1, 1, 2) if start + amount >= 0]
    there = {split_of(key) for key in keys}
    assert there < {"train", "valid", "test", "unlabelled"}
    for split in ("train", "valid", "test", "unlabelled"):
        if split in there:
            assert len(list(task.examples(split))) == 3
        else:
            with pytest.raises(ConfigError, match="too few different questions"):
                list(task.examples(split))
