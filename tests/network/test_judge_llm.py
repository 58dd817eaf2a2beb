"""An LLM judge behind a real socket, asked from the command line; what it said is never asked twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from lmdistill.cli.main import app
from lmdistill.store import write_rows
from lmdistill.types import Example, Prediction

pytestmark = pytest.mark.network


class Judge(BaseHTTPRequestHandler):
    """Prefers the explanation that says 'because'; counts what it is asked."""

    asked = 0

    def do_POST(self) -> None:
        type(self).asked += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        first = prompt.index("because") < prompt.index("Explanation B")
        choice = {"index": 0, "message": {"role": "assistant", "content": f"Better: {'A' if first else 'B'}"}}
        answer: dict[str, Any] = {"choices": [choice | {"finish_reason": "stop"}], "model": "judge"}
        data = json.dumps(answer | {"usage": {"prompt_tokens": 9, "completion_tokens": 2}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def predictions(folder: Path, say: Callable[[int], str]) -> None:
    rows = [Prediction(Example(f"e{i}", f"question {i}", "4"), "4", say(i)) for i in range(6)]
    write_rows(folder / "rows.jsonl", rows)


def test_a_judge_is_asked_in_both_orders_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JUDGE_KEY", "none")
    predictions(tmp_path / "first", lambda i: f"because of {i}")
    predictions(tmp_path / "second", lambda i: f"just {i}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    command = ["judge", "ask", str(tmp_path / "first"), str(tmp_path / "second"), "--teacher", "openai"]
    command += ["--set", "teacher.model=judge", "--set", f"teacher.base_url={url}"]
    command += ["--set", "teacher.api_key_env=JUDGE_KEY", "--out", str(tmp_path / "told.json")]
    try:
        for _ in range(2):
            result = CliRunner().invoke(app, command)
            assert result.exit_code == 0, result.output
    finally:
        server.shutdown()
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["counts"]["first"] == 6 and told["agreement"] == 1.0
    assert told["left"]["value"] == 0.5
    assert Judge.asked == 12, "six pairs in two orders; the second run finds them in the cache"
