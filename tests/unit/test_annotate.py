"""`annotate` end to end, in process: nothing asked twice, nothing lost, nothing partial taken for whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lmdistill import registry
from lmdistill.annotate import annotate
from lmdistill.errors import BudgetReached, ConfigError, DataError, StoreError, TeacherError
from lmdistill.flow import Limits
from lmdistill.pricing import Budget, Ledger, Price
from lmdistill.prompting import Prompting
from lmdistill.response_cache import ResponseCache
from lmdistill.store import read_manifest
from lmdistill.tasks import Task
from lmdistill.teachers import TeacherSettings
from lmdistill.teachers._client import Client, HttpAnswer
from lmdistill.teachers.replay import Replay
from lmdistill.teachers.scripted import Scripted
from lmdistill.types import Annotation, Example, Parsed, Sampling

SUMS = registry.load("tasks", "sums")()


@dataclass(frozen=True)
class Echo(Task):
    """Answers are single words after the cue; `strict` stands for a better parser."""

    strict: bool = False

    def examples(self, split: str) -> Sequence[Example]:
        return [Example(f"e{i}", f"question {i}", "yes") for i in range(8)]

    def parse(self, example: Example, text: str) -> Parsed:
        read = super().parse(example, text)
        return read._replace(answer=None, reason="too vague") if self.strict and read.answer == "maybe" else read


@dataclass
class Endpoint:
    """Answers as it is told to, by question; counts what it was asked."""

    says: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    ignores_n: bool = False

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def call(self, *_: Any) -> HttpAnswer:
        return HttpAnswer(404, {}, b"{}")

    async def post(self, path: str, payload: bytes) -> HttpAnswer:
        body = json.loads(payload)
        self.asked.append(body)
        question = body["messages"][-1]["content"]
        said = self.says.get(question, ["Surely. So the answer is yes."])
        said = said if isinstance(said, list) else said(body)
        if isinstance(said[0], int):
            return HttpAnswer(said[0], {}, json.dumps({"error": {"message": said[1]}}).encode())
        count = 1 if self.ignores_n else body.get("n", 1)
        room = body["max_tokens"]
        choices = []
        for index in range(count):
            words = said[index % len(said)].split()
            text, reason = " ".join(words[:room]), "stop" if len(words) <= room else "length"
            choices.append({"index": index, "message": {"content": text}, "finish_reason": reason})
        usage = {"prompt_tokens": 10, "completion_tokens": 5 * count}
        return HttpAnswer(200, {}, json.dumps({"choices": choices, "usage": usage}).encode())


@dataclass(frozen=True)
class Told(TeacherSettings):
    """A teacher whose endpoint is an object of the test."""

    endpoint: Endpoint = field(default_factory=Endpoint, compare=False)
    source: str = "told"
    price: Price | None = Price(1.0, 2.0)

    def identity(self) -> dict[str, Any]:
        return {"name": "told", "source": self.source}

    def open(
        self, task: Task | None = None, *, ledger: Ledger | None = None, cache: ResponseCache | None = None
    ) -> Any:
        limits = Limits(concurrency=4, backoff=0.0, tries=3)
        return Client(
            self.endpoint, self.source, "here", "m", limits=limits, price=self.price, ledger=ledger or Ledger()
        )


ECHO = Echo()
EXAMPLES = ECHO.examples("train")


def run(tmp_path: Path, endpoint: Endpoint, name: str = "a", **options: Any) -> Sequence[Annotation]:
    task = options.pop("task", ECHO)
    examples = options.pop("examples", EXAMPLES)
    teacher = options.pop("teacher", Told(endpoint))
    return annotate(task, teacher, examples, folder=tmp_path / name, cache=tmp_path / "c.sqlite", **options)


def manifest(tmp_path: Path, name: str = "a") -> Any:
    return read_manifest(tmp_path / name)


# --- what comes out --------------------------------------------------------------------------------------------------


def test_every_example_has_its_samples_in_order(tmp_path: Path) -> None:
    endpoint = Endpoint({"question 3": ["One. So the answer is yes.", "Two. So the answer is no.", "Three?"]})
    rows = run(tmp_path, endpoint, sampling=Sampling(n=3, temperature=1.0))
    assert [row.id for row in rows] == [example.id for example in EXAMPLES]
    third = rows[3]
    assert [(one.text, one.answer, one.sample, one.source) for one in third.rationales] == [
        ("One.", "yes", 0, "told"),
        ("Two.", "no", 1, "told"),
    ]
    (rejected,) = third.rejected
    assert (rejected.raw, rejected.sample, rejected.answer) == ("Three?", 2, None) and rejected.reason
    assert len(endpoint.asked) == 8 and all(body["n"] == 3 for body in endpoint.asked)


def test_the_manifest_tells_counts_and_cost(tmp_path: Path) -> None:
    run(tmp_path, Endpoint({"question 3": ["Three?"]}), sampling=Sampling(n=2))
    found = manifest(tmp_path)
    assert found.status == "complete" and found.facts["complete"] is True
    counts = found.counts
    assert (counts["examples"], counts["answers"], counts["parsed"], counts["correct"]) == (8, 16, 14, 14)
    assert sum(count for name, count in counts.items() if name.startswith("rejected: ")) == 2
    facts = found.facts
    # 8 requests of 10 + 10 tokens: 8 * (10 * 1 + 10 * 2) / 10^6 dollars
    assert facts["cost"] == pytest.approx(240e-6) == facts["cost_of_all_answers"]
    assert facts["cost_per_example"] == pytest.approx(30e-6)
    assert (facts["requests"], facts["prompt_tokens"], facts["completion_tokens"]) == (8, 80, 80)
    assert facts["accuracy"] == 1.0 and facts["teachers"] == ["told: m at here"]


def test_votes_are_stored_and_ties_named(tmp_path: Path) -> None:
    says = {
        "question 1": ["So the answer is no.", "So the answer is Yes.", "So the answer is yes", "So the answer is NO"]
    }
    rows = run(tmp_path, Endpoint(says), sampling=Sampling(n=4))
    assert rows[1].vote.counts == {"no": 2, "Yes": 2}  # equal answers are equal strings, as first seen
    votes = [json.loads(line) for line in (tmp_path / "a" / "votes.jsonl").read_text().splitlines()]
    assert votes[1] == {"id": "e1", "answer": "no", "counts": {"no": 2, "Yes": 2}, "tied": ["no", "Yes"]}
    assert votes[0] == {"id": "e0", "answer": "yes", "counts": {"yes": 4}, "tied": []}
    assert manifest(tmp_path).counts["tied"] == 1


def test_several_teachers_each_sign_their_rationales(tmp_path: Path) -> None:
    first, second = Endpoint(), Endpoint({"question 0": ["No. So the answer is no."]})
    teachers = (Told(first, "ann"), Told(second, "bob"))
    rows = run(tmp_path, first, teacher=teachers, examples=EXAMPLES[:2])
    # both have one endpoint name and model, so equal questions would share answers: two samples are asked once
    assert [(one.source, one.answer) for one in rows[1].rationales] == [("ann", "yes"), ("bob", "yes")]
    with pytest.raises(ConfigError, match="two teachers are called 'ann'"):
        run(tmp_path, first, "b", teacher=(Told(first, "ann"), Told(second, "ann")))


def test_a_server_that_ignores_n_is_asked_again(tmp_path: Path) -> None:
    endpoint = Endpoint(ignores_n=True)
    rows = run(tmp_path, endpoint, sampling=Sampling(n=3), examples=EXAMPLES[:3])
    assert all(len(row.rationales) == 3 for row in rows)
    assert len(endpoint.asked) == 9
    assert sum(body.get("n", 1) > 1 for body in endpoint.asked) <= 3


def test_a_server_that_refuses_n_is_asked_one_by_one(tmp_path: Path) -> None:
    def says(body: dict[str, Any]) -> list[Any]:
        return [400, "n must be 1"] if body.get("n", 1) > 1 else ["So the answer is yes."]

    endpoint = Endpoint({example.input: says for example in EXAMPLES})  # type: ignore[misc]
    rows = run(tmp_path, endpoint, sampling=Sampling(n=3))
    assert all(len(row.rationales) == 3 for row in rows)


def test_a_seed_differs_from_sample_to_sample(tmp_path: Path) -> None:
    endpoint = Endpoint(ignores_n=True)
    run(tmp_path, endpoint, sampling=Sampling(n=3, seed=7, temperature=1.0), examples=EXAMPLES[:1])
    assert sorted(body["seed"] for body in endpoint.asked) == [7, 8, 9]


def test_show_answer_takes_the_gold_label_where_only_an_explanation_came(tmp_path: Path) -> None:
    endpoint = Endpoint()
    told = "\nThe correct answer is yes. Explain step by step why."
    endpoint.says = {
        body["question"]: [body["answer"]]
        for body in [
            {"question": f"{EXAMPLES[0].input}{told}", "answer": "For."},
            {"question": f"{EXAMPLES[1].input}{told}", "answer": "But. So the answer is no."},
        ]
    }  # fmt: skip
    rows = run(tmp_path, endpoint, prompting=Prompting(show_answer=True), examples=EXAMPLES[:2])
    assert [(one.text, one.answer) for row in rows for one in row.rationales] == [("For.", "yes"), ("But.", "no")]


def test_two_stages_ask_twice_and_are_joined(tmp_path: Path) -> None:
    endpoint = Endpoint({"Therefore, the answer is": ["yes."]})
    endpoint.says[f"{EXAMPLES[0].input} Let's think step by step."] = ["I think so."]
    rows = run(tmp_path, endpoint, prompting=Prompting(stages=2), examples=EXAMPLES[:1])
    (rationale,) = rows[0].rationales
    assert (rationale.text, rationale.answer, rationale.raw) == ("I think so.", "yes", "I think so.\nyes.")
    assert len(endpoint.asked) == 2


# --- nothing is asked twice ------------------------------------------------------------------------------------------


def test_a_finished_folder_is_simply_read(tmp_path: Path) -> None:
    endpoint = Endpoint()
    first = list(run(tmp_path, endpoint))
    assert list(run(tmp_path, endpoint)) == first and len(endpoint.asked) == 8


def test_one_changed_row_asks_for_that_row_alone(tmp_path: Path) -> None:
    endpoint = Endpoint()
    run(tmp_path, endpoint, sampling=Sampling(n=2))
    changed = [*EXAMPLES[:3], replace(EXAMPLES[3], input="a new question"), *EXAMPLES[4:]]
    with pytest.raises(StoreError, match="belongs to another run: input examples was"):
        run(tmp_path, endpoint, sampling=Sampling(n=2), examples=changed)
    run(tmp_path, endpoint, "b", sampling=Sampling(n=2), examples=changed)
    assert [body["messages"][-1]["content"] for body in endpoint.asked[8:]] == ["a new question"]
    assert manifest(tmp_path, "b").counts["found"] == 14 and manifest(tmp_path, "b").facts["cost"] == pytest.approx(
        30e-6
    )


def test_more_samples_ask_for_the_missing_ones(tmp_path: Path) -> None:
    endpoint = Endpoint()
    run(tmp_path, endpoint, sampling=Sampling(n=2))
    run(tmp_path, endpoint, "b", sampling=Sampling(n=5))
    assert [body.get("n") for body in endpoint.asked] == [2] * 8 + [3] * 8


def test_a_changed_parser_asks_for_nothing(tmp_path: Path) -> None:
    endpoint = Endpoint({"question 2": ["So the answer is maybe."]})
    assert run(tmp_path, endpoint)[2].answer == "maybe"
    rows = run(tmp_path, endpoint, "b", task=Echo(strict=True))
    assert rows[2].rejected[0].reason == "too vague" and len(endpoint.asked) == 8


def test_a_folder_can_be_parsed_again_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint()
    run(tmp_path, endpoint)
    monkeypatch.setattr(Echo, "parse", lambda self, example, text: Parsed("better", "ja"))
    assert run(tmp_path, endpoint)[0].answer == "yes"
    assert run(tmp_path, endpoint, reparse=True)[0].answer == "ja" and len(endpoint.asked) == 8
    with pytest.raises(StoreError, match="holds no annotations to parse again"):
        run(tmp_path, endpoint, "none", reparse=True)
    before = (tmp_path / "a" / "rows.jsonl").read_bytes()
    with pytest.raises(StoreError, match="belongs to another run"):
        run(tmp_path, endpoint, sampling=Sampling(n=3), reparse=True)
    assert len(endpoint.asked) == 8 and (tmp_path / "a" / "rows.jsonl").read_bytes() == before


def test_equal_questions_are_asked_once(tmp_path: Path) -> None:
    endpoint = Endpoint()
    same = [Example(f"s{i}", "the same question") for i in range(20)]
    rows = run(tmp_path, endpoint, examples=same)
    assert len(endpoint.asked) == 1 and all(row.answer == "yes" for row in rows) and len(rows) == 20


def test_a_truncated_answer_is_asked_once_more_with_more_room(tmp_path: Path) -> None:
    endpoint = Endpoint(
        {
            "question 1": ["one two three four five So the answer is yes."],
            "question 2": ["word " * 40 + "So the answer is yes."],
        }
    )
    sampling = Sampling(max_tokens=8)
    rows = run(tmp_path, endpoint, sampling=sampling, prompting=Prompting(more_room=2))
    assert rows[1].answer == "yes" and not rows[1].rejected
    (cut,) = rows[2].rejected
    assert cut.reason == "truncated" and cut.raw == "word " * 15 + "word" and not rows[2].rationales
    rooms = [b["max_tokens"] for b in endpoint.asked if b["messages"][-1]["content"] in ("question 1", "question 2")]
    assert sorted(rooms) == [8, 8, 16, 16] and len(endpoint.asked) == 10
    assert manifest(tmp_path).counts["rejected: truncated"] == 1
    assert manifest(tmp_path).status == "complete"
    run(tmp_path, endpoint, "b", sampling=sampling, prompting=Prompting(more_room=2))
    assert len(endpoint.asked) == 10


def test_more_room_may_be_declined(tmp_path: Path) -> None:
    endpoint = Endpoint({"question 2": ["word " * 40]})
    rows = run(tmp_path, endpoint, sampling=Sampling(max_tokens=8), prompting=Prompting(more_room=1))
    assert rows[2].rejected[0].reason == "truncated" and len(endpoint.asked) == 8


# --- what is not whole -----------------------------------------------------------------------------------------------


def test_refused_rows_are_tried_once_and_named(tmp_path: Path) -> None:
    endpoint = Endpoint({"question 5": [400, "this prompt is not allowed"]})
    with pytest.raises(TeacherError, match="1 of 8 answers are missing: 1 x HTTP 400: this prompt is not allowed") as e:
        run(tmp_path, endpoint)
    assert e.value.exit_code == 3 and len(endpoint.asked) == 8
    assert manifest(tmp_path).status == "partial" and manifest(tmp_path).facts["complete"] is False
    assert not (tmp_path / "a" / "rows.jsonl").exists()
    partial = (tmp_path / "a" / "partial.jsonl").read_text().splitlines()
    assert len(partial) == 8 and "not allowed" in partial[5]
    del endpoint.says["question 5"]
    assert len(run(tmp_path, endpoint)) == 8 and len(endpoint.asked) == 9
    assert manifest(tmp_path).status == "complete" and not (tmp_path / "a" / "partial.jsonl").exists()


def test_some_refusals_may_be_allowed(tmp_path: Path) -> None:
    endpoint = Endpoint({"question 5": [400, "no"]})
    rows = run(tmp_path, endpoint, allow_failed=0.2)
    assert rows[5].rejected[0].reason == "HTTP 400: no" and not rows[5].rationales
    assert manifest(tmp_path).status == "complete" and manifest(tmp_path).counts["failed"] == 1


def test_a_wrong_key_stops_before_more_is_sent(tmp_path: Path) -> None:
    endpoint = Endpoint({example.input: [401, "Incorrect API key provided: sk-abcdefghijkl"] for example in EXAMPLES})
    with pytest.raises(TeacherError, match="HTTP 401") as caught:
        run(tmp_path, endpoint)
    assert "sk-abcdefghijkl" not in str(caught.value) and len(endpoint.asked) <= 4


def test_an_empty_account_is_not_asked_again(tmp_path: Path) -> None:
    endpoint = Endpoint({example.input: [429, "You exceeded your current quota"] for example in EXAMPLES})
    with pytest.raises(TeacherError, match="has nothing left"):
        run(tmp_path, endpoint)
    assert len(endpoint.asked) <= 4


def test_max_requests_is_never_passed_and_the_rest_follows(tmp_path: Path) -> None:
    endpoint = Endpoint()
    for number, budget in enumerate((5, 2)):
        with pytest.raises(BudgetReached, match=f"max_requests = {budget} is reached") as caught:
            run(tmp_path, endpoint, budget=Budget(max_requests=budget))
        assert caught.value.exit_code == 4
        assert len(endpoint.asked) == (5, 7)[number]
        assert manifest(tmp_path).status == "budget" and not (tmp_path / "a" / "rows.jsonl").exists()
    assert len(run(tmp_path, endpoint)) == 8 and len(endpoint.asked) == 8


def test_max_cost_is_never_passed(tmp_path: Path) -> None:
    # a request may cost (bytes of the prompt + 40) * 1 + 20 * 2, and does cost 10 * 1 + 5 * 2 = 20 millionths
    endpoint = Endpoint()
    sampling = Sampling(max_tokens=20)
    with pytest.raises(BudgetReached, match=r"max_cost = \$0\.0002"):
        run(tmp_path, endpoint, sampling=sampling, budget=Budget(max_cost=200e-6))
    spent = manifest(tmp_path).facts["cost"]
    assert spent == pytest.approx(20e-6 * len(endpoint.asked)) and 0 < spent <= 200e-6
    assert len(endpoint.asked) >= 1


def test_a_cap_on_cost_needs_prices_before_anything_is_sent(tmp_path: Path) -> None:
    endpoint = Endpoint()
    with pytest.raises(ConfigError, match="max_cost needs the price of every teacher"):
        run(tmp_path, endpoint, teacher=Told(endpoint, price=None), budget=Budget(max_cost=1.0))
    assert endpoint.asked == []


def test_an_unknown_price_is_no_price_of_zero(tmp_path: Path) -> None:
    endpoint = Endpoint()
    run(tmp_path, endpoint, teacher=Told(endpoint, price=None))
    assert manifest(tmp_path).facts["cost"] is None and manifest(tmp_path).facts["cost_per_example"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"teacher": ()}, "at least one teacher"), ({"sampling": Sampling(n=0)}, r"sampling\.n: 0 samples")],
)
def test_settings_are_checked_before_anything_is_sent(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    endpoint = Endpoint()
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, endpoint, **options)
    assert endpoint.asked == []


def test_no_examples_make_no_rows(tmp_path: Path) -> None:
    assert list(run(tmp_path, Endpoint(), examples=[])) == [] and manifest(tmp_path).status == "complete"


def test_a_record_counts_by_what_stands_in_it(tmp_path: Path) -> None:
    def recorded(name: str, answer: str) -> Replay:
        path = tmp_path / name
        path.write_text(
            "".join(json.dumps({"id": e.id, "raw": f"So the answer is {answer}."}) + "\n" for e in EXAMPLES)
        )
        return Replay(path=path, text="raw", source="old")

    first = annotate(ECHO, recorded("r.jsonl", "yes"), EXAMPLES, folder=tmp_path / "a")
    assert first[0].answer == "yes"
    (tmp_path / "moved").mkdir()
    (tmp_path / "r.jsonl").rename(tmp_path / "moved" / "r.jsonl")
    moved = Replay(path=tmp_path / "moved" / "r.jsonl", text="raw", source="old")
    assert list(annotate(ECHO, moved, EXAMPLES, folder=tmp_path / "a")) == list(first)
    with pytest.raises(StoreError, match=r"input teacher 0, r\.jsonl was"):
        annotate(ECHO, recorded("r.jsonl", "no"), EXAMPLES, folder=tmp_path / "a")
    with pytest.raises(DataError, match="no such file"):
        annotate(ECHO, Replay(path=tmp_path / "none.jsonl"), EXAMPLES, folder=tmp_path / "b")


# --- with the scripted teacher ---------------------------------------------------------------------------------------


def test_scripted_faults_end_in_the_same_rows(tmp_path: Path) -> None:
    examples = SUMS.examples("train")[:150]
    sampling = Sampling(n=2, temperature=1.0)
    calm = annotate(SUMS, Scripted(), examples, folder=tmp_path / "a", sampling=sampling)
    limits = Limits(backoff=0.0)
    faulty = Scripted(failure_rate=0.5, limits=limits)
    assert list(annotate(SUMS, faulty, examples, folder=tmp_path / "b", sampling=sampling)) == list(calm)
    found = read_manifest(tmp_path / "b")
    assert found is not None and sum(found.facts["retries"].values()) > 30


def test_a_teacher_that_costs_nothing_leaves_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMDISTILL_CACHE", str(tmp_path / "cache"))
    annotate(SUMS, Scripted(), SUMS.examples("train")[:3], folder=tmp_path / "a")
    assert not (tmp_path / "cache").exists()
    annotate(ECHO, Told(Endpoint()), EXAMPLES, folder=tmp_path / "b")
    assert (tmp_path / "cache" / "responses.sqlite").exists()


def test_annotate_works_where_a_loop_is_running(tmp_path: Path) -> None:
    import asyncio

    async def notebook() -> int:
        return len(annotate(SUMS, Scripted(), SUMS.examples("train")[:3], folder=tmp_path / "a"))

    assert asyncio.run(notebook()) == 3


@pytest.mark.parametrize("style", ["standard", "dss", "scotd", "kard", "qcrd", "zero_shot_cot"])
@pytest.mark.parametrize("form", [None, "chat", "plain"])
def test_every_style_works_with_the_scripted_teacher(tmp_path: Path, style: Any, form: Any) -> None:
    examples = SUMS.examples("train")[:10]
    rows = annotate(SUMS, Scripted(), examples, folder=tmp_path / "a", prompting=Prompting(style=style, form=form))
    assert sum(SUMS.is_correct(row.example, row.answer) for row in rows) == 10


def test_two_processes_in_one_folder_leave_what_one_leaves(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys; from pathlib import Path; from lmdistill import registry; from lmdistill.annotate import annotate;"
        "task = registry.load('tasks', 'sums')(train=400); teacher = registry.load('teachers', 'scripted')();"
        "annotate(task, teacher, task.examples('train'), folder=Path(sys.argv[1]))"
    )

    def start(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", program, str(folder)], stderr=subprocess.PIPE)

    alone, first, second = (start(tmp_path / name) for name in ("alone", "both", "both"))
    for process in (alone, first, second):
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    rows = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("alone", "both")]
    assert rows[0] == rows[1] and rows[0].count(b"\n") == 400
