"""The same run file with every teacher, and the wire format beside that of the openai package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lmdistill import registry
from lmdistill.cli.main import app
from lmdistill.store import Rows, read_manifest
from lmdistill.teachers.openai import OpenAI
from lmdistill.types import Annotation, Example, Sampling
from lmdistill.wire import Message, Prompt

pytestmark = pytest.mark.network
TASK = registry.load("tasks", "sums")()
COUNT = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder from random weights, with a tokenizer of the task's words."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    texts = [example.input for example in TASK.examples("train")[:500]]
    words = ["<pad>", "</s>", "<unk>", *sorted({word for text in texts for word in text.split()})]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1
    )
    folder = tmp_path_factory.mktemp("model")
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


RUN = f"""
task: {{name: sums, train: 200}}
limit: {COUNT}
sampling: {{n: 2, temperature: 0.7, max_tokens: 20}}
prompting: {{exemplars: fixed, shots: 2}}
budget: {{max_requests: 100}}
"""


@pytest.mark.parametrize("name", ["scripted", "replay", "transformers", "openai"])
def test_the_same_run_file_works_with_every_teacher(
    name: str, serve: Callable[..., Any], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMDISTILL_CACHE", str(tmp_path / "cache"))
    examples = registry.load("tasks", "sums")(train=200).examples("train")[:COUNT]
    recorded = tmp_path / "recorded.jsonl"
    rows = [{"id": e.id, "raw": [f"why. so the answer is {e.label}.", "who knows"]} for e in examples]
    recorded.write_text("".join(json.dumps(row) + "\n" for row in rows))
    teacher = {
        "scripted": {},
        "replay": {"path": str(recorded), "text": "raw"},
        "transformers": {"model": str(checkpoint)},
        "openai": {"model": "m", "base_url": serve().url} if name == "openai" else {},
    }[name]
    run = tmp_path / "run.yaml"
    run.write_text(RUN)
    out = tmp_path / "out"
    sets = [f"teacher={json.dumps({'name': name, **teacher})}"]
    arguments = [
        "annotate",
        "--config",
        str(run),
        "--out",
        str(out),
        "--json",
        *(x for s in sets for x in ("--set", s)),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["status"] == "complete" and told["counts"]["examples"] == COUNT
    found = list(Rows(out / "rows.jsonl", Annotation))
    assert [row.id for row in found] == [example.id for example in examples]
    assert all(len(row.rationales) + len(row.rejected) == 2 for row in found)
    if name in ("scripted", "replay"):
        assert all(TASK.is_correct(row.example, row.rationales[0].answer) for row in found)
    if name in ("scripted", "transformers"):
        every = [one for row in found for one in (*row.rationales, *row.rejected)]
        assert all(one.logprob is not None and one.logprob < 0 for one in every)
    manifest = read_manifest(out)
    assert manifest is not None and manifest.facts["complete"]
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0 and json.loads(again.stdout) == told


def test_what_we_send_is_what_the_openai_package_sends(serve: Callable[..., Any]) -> None:
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    server = serve(keep_bodies=True)
    client = openai.OpenAI(base_url=server.url, api_key="none")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße?"}]
    theirs = client.chat.completions.create(
        model="m", messages=messages, temperature=0.5, top_p=0.9, n=3, max_tokens=7, stop=["x"], seed=5, logprobs=True,
        top_logprobs=2,
    )  # fmt: skip
    sampling = Sampling(n=3, temperature=0.5, top_p=0.9, max_tokens=7, stop=("x",), seed=5)
    teacher = OpenAI(model="m", base_url=server.url, logprobs=2).open()
    prompt = Prompt(tuple(Message(message["role"], message["content"]) for message in messages))
    (ours,) = teacher.generate([prompt], sampling)
    sent = server.stats()["bodies"]
    assert sent[0] == sent[1]
    assert [one.text for one in ours] == [choice.message.content for choice in theirs.choices]
    assert ours[0].usage is not None and theirs.usage is not None
    assert ours[0].usage.prompt_tokens == theirs.usage.prompt_tokens
    client.completions.create(model="m", prompt="Grüße?", temperature=0.0, max_tokens=7, logprobs=1)
    plain = OpenAI(model="m", base_url=server.url, logprobs=1, api="completions").open()
    plain.generate(["Grüße?"], Sampling(max_tokens=7))
    sent = server.stats()["bodies"]
    assert sent[2] == sent[3]


def test_an_unreachable_model_is_named(serve: Callable[..., Any]) -> None:
    server = serve(refuses=[404, "The model `m` does not exist"])
    from lmdistill.errors import TeacherError

    with pytest.raises(TeacherError, match=r"HTTP 404: The model `m` does not exist.*Check base_url and model"):
        OpenAI(model="m", base_url=server.url).open().generate(["x"], Sampling())


def test_examples_keep_their_questions_apart(serve: Callable[..., Any], answer_to: Callable[[str], str]) -> None:
    """Many prompts at once through `generate`: each gets its own answer."""
    server = serve(latency=0.005)
    prompts = [f"What is the number of thing {i}?" for i in range(100)]
    found = OpenAI(model="m", base_url=server.url).open().generate(prompts, Sampling(n=2, temperature=1.0))
    for prompt, row in zip(prompts, found, strict=True):
        assert [TASK.parse(Example("", prompt), one.text).answer for one in row] == [answer_to(prompt)] * 2
