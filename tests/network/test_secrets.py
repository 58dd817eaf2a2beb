"""A key goes to the endpoint, and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lmdistill.annotate import annotate
from lmdistill.errors import TeacherError
from lmdistill.flow import Limits
from lmdistill.pacing import Batch
from lmdistill.tasks import Task
from lmdistill.teachers.openai import OpenAI
from lmdistill.types import Example

pytestmark = pytest.mark.network
KEY, SECOND = "sk-live-0123456789abcdef", "another-secret-42"


@dataclass(frozen=True)
class Lookup(Task):
    def examples(self, split: str) -> Sequence[Example]:
        return []


EXAMPLES = [Example(f"q{i}", f"What is the number of thing {i}?") for i in range(5)]


def everything_written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("batch", [None, Batch(poll=0.01)])
def test_the_key_reaches_the_endpoint_and_no_file(
    serve: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    batch: Batch | None,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("MY_OTHER", SECOND)
    server = serve(echo_headers=True)  # every answer repeats the headers it came with
    teacher = OpenAI(
        model="m", base_url=server.url, api_key_env="MY_KEY", secret_headers={"X-Tenant": "MY_OTHER"}, batch=batch,
        headers={"X-Team": "blue"},
    )  # fmt: skip
    rows = annotate(Lookup(), teacher, EXAMPLES, folder=tmp_path / "a", cache=tmp_path / "c.sqlite")
    assert len(rows) == 5
    sent = server.stats()["headers"]
    assert sent["authorization"] == f"Bearer {KEY}" and sent["x-tenant"] == SECOND and sent["x-team"] == "blue"
    written = everything_written(tmp_path)
    assert b"What is the number" in written
    assert KEY.encode() not in written and SECOND.encode() not in written
    shown = caplog.text + "".join(capfd.readouterr())
    assert KEY not in shown and SECOND not in shown
    assert KEY not in repr(teacher)


@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_an_error_that_repeats_the_key_is_cleaned(
    serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve(refuses=[status, f"Incorrect key {KEY} (Bearer {KEY}); ask about sk-other-key-99999"])
    limits = Limits(tries=2, backoff=0.0)
    teacher = OpenAI(model="m", base_url=server.url, limits=limits)
    with pytest.raises(TeacherError) as caught:
        annotate(Lookup(), teacher, EXAMPLES, folder=tmp_path / "a", cache=tmp_path / "c.sqlite")
    assert KEY not in str(caught.value) and "sk-other-key-99999" not in str(caught.value)
    assert f"HTTP {status}" in str(caught.value)
    written = everything_written(tmp_path)
    assert KEY.encode() not in written and b"sk-other-key-99999" not in written
