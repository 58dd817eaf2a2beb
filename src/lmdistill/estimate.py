"""What `annotate` would do and cost, without asking anybody: the bill before the meal, and prompts to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmdistill.annotate import NO_CAP, PROMPTING, ROOM, open_cache, prepare
from lmdistill.answering import read_state
from lmdistill.asking import Asking
from lmdistill.pricing import Ledger, bound
from lmdistill.prompting import Prompting
from lmdistill.render import join_rationale
from lmdistill.tasks import Task
from lmdistill.teachers import TeacherSettings, run_async
from lmdistill.types import Example, Rationale, Sampling, Usage
from lmdistill.wire import Prompt, shown

BYTES_PER_TOKEN = 4.0
"""Of English text, for a model that was never asked before."""


@dataclass(frozen=True)
class Bill:
    """What one teacher would be asked, what that would probably use, and the most that it could cost.

    `cost` and `most` are dollars, None where no price is known. `learned` says from how many earlier responses of the
    model the tokens were estimated (0: from the length of the prompts, and half of the room for each answer).
    """

    source: str
    model: str
    answers: int
    found: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    most: float | None
    learned: int


def estimate(
    task: Task,
    teacher: TeacherSettings | Sequence[TeacherSettings],
    examples: Sequence[Example],
    *,
    prompting: Prompting = PROMPTING,
    sampling: Sampling = ROOM,
    seed: int = 0,
    cache: Path | None = None,
) -> list[Bill]:
    """A bill for each teacher; arguments as of `annotate`. What is in the cache costs nothing.

    Raises:
        ConfigError: a setting is wrong.
    """
    teachers = (teacher,) if isinstance(teacher, TeacherSettings) else tuple(teacher)
    with open_cache(teachers, cache) as store:
        askings = prepare(task, teachers, examples, prompting, sampling, seed, store, Ledger(NO_CAP))
        return [_bill(asking, len(examples) * sampling.n) for asking in askings]


def _bill(asking: Asking, answers: int) -> Bill:
    teacher = asking.teacher
    price, batch = teacher.price, teacher.batched
    per_byte, per_answer, learned = _rates(asking)
    requests = samples = size = 0
    read = written = most = 0.0
    for request in asking.lacking():
        text = shown(request.body)
        count = len(request.samples)
        requests += 1
        samples += count
        size += len(text.encode(errors="surrogatepass"))
        written += count * (per_answer if learned else request.sampling.max_tokens / 2)
        cap = bound(request.body, text, price, samples=count, room=request.sampling.max_tokens, batch=batch)
        most += cap.cost or 0.0
    stages = asking.prompter.stages  # a later stage reads at least what the first one did
    read, written, most, requests = size * per_byte * stages, written * stages, most * stages, requests * stages
    usage = Usage(round(read), round(written))
    return Bill(
        teacher.source,
        teacher.model,
        answers,
        answers - samples,
        requests,
        usage.prompt_tokens,
        usage.completion_tokens,
        None if price is None else price.of(usage, batch=batch),
        None if price is None else most,
        learned,
    )


def _rates(asking: Asking, last: int = 200) -> tuple[float, float, int]:
    """Input tokens for a byte of the prompt, output tokens for an answer, and from how many responses that is known."""
    recent = asking.cache.recent(asking.teacher.endpoint, asking.teacher.model, last)
    if not recent:
        return 1 / BYTES_PER_TOKEN, 0.0, 0
    size = sum(len(prompt.encode(errors="surrogatepass")) for prompt, *_ in recent)
    read, written = sum(row[1] for row in recent), sum(row[2] for row in recent)
    return read / max(size, 1), written / sum(row[3] for row in recent), len(recent)


@dataclass(frozen=True)
class Preview:
    """What a teacher would be shown for an example, and how an answer is read: one that is there already (recorded or
    in the cache), or one in the form that is asked for (`made_up`)."""

    source: str
    prompt: Prompt
    answer: str
    read: Rationale
    made_up: bool


def preview(
    task: Task,
    teacher: TeacherSettings | Sequence[TeacherSettings],
    examples: Sequence[Example],
    *,
    prompting: Prompting = PROMPTING,
    sampling: Sampling = ROOM,
    seed: int = 0,
    cache: Path | None = None,
) -> list[Preview]:
    """Prompts and parses of some examples, for each teacher; nothing is asked."""
    teachers = (teacher,) if isinstance(teacher, TeacherSettings) else tuple(teacher)
    with open_cache(teachers, cache) as store:
        askings = prepare(task, teachers, examples, prompting, sampling, seed, store, Ledger(NO_CAP))
        for asking in askings:
            if asking.teacher.recorded:
                run_async(asking.fill(lambda index, sample: None))
        return [_preview(task, asking, index) for index in range(len(examples)) for asking in askings]


def _preview(task: Task, asking: Asking, index: int) -> Preview:
    example = asking.examples[index]
    prompt = asking.prompter.ask(example)
    state = asking.state(index, 0)
    if state.lacks is None:
        read = read_state(task, asking, example, 0, state)
        return Preview(asking.teacher.source, prompt, read.raw, read, made_up=False)
    answer = example.label if example.label is not None else (example.choices or ("...",))[0]
    text = join_rationale("(reasoning)", task.shown(example, answer), asking.prompter.cue)
    parsed = task.parse(example, text)
    read = Rationale(parsed.rationale, parsed.answer, asking.teacher.source, reason=parsed.reason)
    return Preview(asking.teacher.source, prompt, text, read, made_up=True)
