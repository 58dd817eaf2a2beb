"""A local endpoint, in a process of its own, for every test that wants one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("endpoint_server.py")


class Server:
    """A running endpoint: `url` is its base_url."""

    def __init__(self, settings: dict[str, Any]) -> None:
        command = [sys.executable, str(PROGRAM), "--settings", json.dumps(settings)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.root = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"
        self.url = f"{self.root}/v1"

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.root}/stats") as response:
            return dict(json.load(response))

    def set(self, **settings: Any) -> None:
        body = json.dumps(settings).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.root}/set", body, method="POST")).close()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start endpoints with settings; they stop with the test."""
    running: list[Server] = []

    def start(**settings: Any) -> Server:
        running.append(Server(settings))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def answer_to() -> Callable[[str], str]:
    """The one right answer of such an endpoint to a question."""
    spec = importlib.util.spec_from_file_location("endpoint_server", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[[str], str] = module.answer_to
    return function
