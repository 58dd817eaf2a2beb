"""An OpenAI-compatible server for tests and benchmarks: real sockets, settable latency and faults.

    python endpoint_server.py --port 0 --latency 0.05 --fault 500=0.2

It prints its port, then serves. It is a bare protocol on asyncio, so that it takes little of the processor that it
shares with the client under test. What it answers depends on the question alone, so a test can check every answer.
Faults: 429, 500, hang, garbage, half (a body that breaks off), reset, 400 (for good, by question), length (truncated).
`GET /stats` says what was asked and answered; `POST /set` changes the settings.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import hashlib
import json
import random
from typing import Any

FAULTS = ("429", "500", "hang", "garbage", "half", "reset")


def answer_to(question: str) -> str:
    """The one right answer of this server to a question."""
    return str(int.from_bytes(hashlib.sha256(question.encode()).digest()[:4], "big") % 100_000)


class Endpoint:
    """State that all connections share."""

    def __init__(self, **settings: Any) -> None:
        self.settings: dict[str, Any] = {
            "latency": 0.0, "tail": 0.0, "tail_latency": 2.0, "faults": {}, "first_only": False, "retry_after": None,
            "ignores_n": False, "capacity": None, "seed": 0, "refuses": None, "echo_headers": False,
            "keep_bodies": False, "batch_stuck": False, "batch_fault": None, "batch_expires": 0,
            "batch_refused": None, **settings,
        }  # fmt: skip
        self.tries: collections.Counter[str] = collections.Counter()
        self.answered: collections.Counter[str] = collections.Counter()
        self.counts: collections.Counter[str] = collections.Counter()
        self.in_flight = self.most_in_flight = 0
        self.headers: dict[str, str] = {}
        self.bodies: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}

    def fault(self, key: str, question: str) -> str | None:
        """What goes wrong with this attempt, by its place in the sequence of attempts at this request."""
        faults = self.settings["faults"]
        sure = random.Random(f"{self.settings['seed']}|{question}").random()
        if sure < faults.get("400", 0.0):
            return "400"
        if self.settings["first_only"] and self.tries[key] > 1:
            return None
        draw = random.Random(f"{self.settings['seed']}|{key}|{self.tries[key]}").random()
        for kind in FAULTS:
            draw -= faults.get(kind, 0.0)
            if draw < 0:
                return kind
        return None

    def respond(self, body: dict[str, Any]) -> dict[str, Any]:
        chat = "messages" in body
        question = body["messages"][-1]["content"] if chat else body["prompt"]
        count = 1 if self.settings["ignores_n"] else int(body.get("n") or 1)
        room = int(body.get("max_tokens") or body.get("max_completion_tokens") or 10_000)
        cut = random.Random(f"cut|{question}").random() < self.settings["faults"].get("length", 0.0)
        choices = []
        for index in range(count):
            text = f"I looked it up for you. So the answer is {answer_to(question)}."
            reason = "stop"
            if cut and room < 1000:
                text, reason = text[:12], "length"
            choice: dict[str, Any] = {"index": index, "finish_reason": reason}
            choice.update({"message": {"role": "assistant", "content": text}} if chat else {"text": text})
            choices.append(choice)
        usage = {"prompt_tokens": len(question.split()) + 5, "completion_tokens": 12 * count}
        response = {"id": "x", "model": body.get("model"), "choices": choices, "usage": usage}
        return {**response, "headers": self.headers} if self.settings["echo_headers"] else response

    def stats(self) -> dict[str, Any]:
        return {
            "counts": dict(self.counts),
            "answered": dict(self.answered),
            "most_in_flight": self.most_in_flight,
            "headers": self.headers,
            "bodies": self.bodies,
        }


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive; one request at a time on each connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.buffer = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head, mark, rest = self.buffer.partition(b"\r\n\r\n")
            if not mark:
                return
            lines = head.decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return
            body, self.buffer = rest[:length], rest[length:]
            method, path, _ = lines[0].split(" ", 2)
            self.request(method, path, headers, body)

    def request(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        endpoint = self.endpoint
        if path.endswith("completions"):
            self.complete(headers, json.loads(body))
        elif path == "/stats":
            self.write(200, endpoint.stats())
        elif path == "/set":
            endpoint.settings.update(json.loads(body))
            self.write(200, {})
        else:
            status, value = batch_request(endpoint, method, path, headers, body)
            self.write(status, value)

    def complete(self, headers: dict[str, str], body: dict[str, Any]) -> None:
        endpoint, settings = self.endpoint, self.endpoint.settings
        endpoint.headers = headers
        if settings["keep_bodies"]:
            endpoint.bodies.append(body)
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        question = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        endpoint.tries[key] += 1
        endpoint.counts["requests"] += 1
        endpoint.in_flight += 1
        endpoint.most_in_flight = max(endpoint.most_in_flight, endpoint.in_flight)
        if settings["refuses"]:
            status, message = settings["refuses"]
            endpoint.in_flight -= 1
            self.write(status, {"error": {"message": message}})
            return
        crowded = settings["capacity"] is not None and endpoint.in_flight > settings["capacity"]
        fault = "429" if crowded else endpoint.fault(key, question)
        if fault:
            endpoint.counts[fault] += 1
        slow = random.Random(f"tail|{key}").random() < settings["tail"]
        latency = settings["tail_latency"] if slow else settings["latency"]
        loop = asyncio.get_running_loop()
        if fault == "hang":
            loop.call_later(30, self.finish, None, body, key)
        elif latency:
            loop.call_later(latency, self.finish, fault, body, key)
        else:
            self.finish(fault, body, key)

    def finish(self, fault: str | None, body: dict[str, Any], key: str) -> None:
        endpoint = self.endpoint
        endpoint.in_flight -= 1
        if self.transport.is_closing():
            return
        if fault == "429":
            wait = endpoint.settings["retry_after"]
            self.write(429, {"error": {"message": "too many requests"}}, {} if wait is None else {"retry-after": wait})
        elif fault == "500":
            self.write(500, {"error": {"message": "internal error"}})
        elif fault == "400":
            self.write(400, {"error": {"message": "this prompt is not allowed", "code": "content_policy"}})
        elif fault == "garbage":
            self.raw(200, b"<html>upstream timed out</html>")
        elif fault == "half":
            payload = json.dumps(endpoint.respond(body)).encode()
            self.transport.write(_head(200, len(payload)) + payload[: len(payload) // 2])
            self.transport.close()
        elif fault == "reset":
            self.transport.abort()
        else:
            endpoint.answered[key] += 1
            endpoint.counts["answered"] += 1
            self.write(200, endpoint.respond(body))

    def write(self, status: int, value: Any, headers: dict[str, Any] | None = None) -> None:
        payload = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.raw(status, payload, headers)

    def raw(self, status: int, payload: bytes, headers: dict[str, Any] | None = None) -> None:
        self.transport.write(_head(status, len(payload), headers) + payload)


def _head(status: int, length: int, headers: dict[str, Any] | None = None) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}content-length: {length}\r\n\r\n".encode()


def batch_request(endpoint: Endpoint, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
    """`/v1/files` and `/v1/batches`: a batch is worked on when it is asked for, a step each time."""
    parts = path.partition("?")[0].strip("/").split("/")[1:]
    endpoint.headers = headers
    trouble = endpoint.settings["batch_fault"]
    creating = method == "POST" and parts == ["batches"]
    if trouble == "call" or (trouble == "before create" and creating):
        return 400, {"error": {"message": "not now"}}
    if method == "POST" and parts == ["files"]:
        boundary = headers["content-type"].partition("boundary=")[2].strip('"').encode()
        content = next(part for part in body.split(b"--" + boundary) if b'name="file"' in part)
        number = f"file-{len(endpoint.files)}"
        endpoint.files[number] = content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        return 200, {"id": number, "purpose": "batch"}
    if creating:
        number = f"batch-{len(endpoint.batches)}"
        batch = {"id": number, "status": "validating", **json.loads(body)}
        endpoint.batches[number] = batch
        endpoint.counts["batches"] += 1
        if trouble == "after create":
            return 400, {"error": {"message": "not now"}}
        return 200, batch
    if method == "GET" and parts == ["batches"]:
        return 200, {"data": list(reversed(endpoint.batches.values()))}
    if method == "GET" and parts[0] == "batches" and parts[1] in endpoint.batches:
        batch = endpoint.batches[parts[1]]
        _advance(endpoint, batch)
        return 200, batch
    if method == "GET" and parts[0] == "files" and parts[-1] == "content" and parts[1] in endpoint.files:
        return 200, endpoint.files[parts[1]]
    if method == "POST" and parts[-1] == "cancel" and parts[1] in endpoint.batches:
        endpoint.batches[parts[1]]["status"] = "cancelled"
        return 200, endpoint.batches[parts[1]]
    return 404, {"error": {"message": f"no such path: {method} {path}"}}


def _advance(endpoint: Endpoint, batch: dict[str, Any]) -> None:
    if batch["status"] == "validating" and endpoint.settings["batch_refused"]:
        batch["status"] = "failed"
        batch["errors"] = {"data": [{"message": endpoint.settings["batch_refused"]}]}
    elif batch["status"] == "validating":
        batch["status"] = "in_progress"
    elif batch["status"] == "in_progress" and not endpoint.settings["batch_stuck"]:
        done, failed = [], []
        lines = endpoint.files[batch["input_file_id"]].decode().splitlines()
        expires = endpoint.settings["batch_expires"] > int(batch["id"].rpartition("-")[2])
        for line in lines[: len(lines) // 2] if expires else lines:
            row = json.loads(line)
            key = json.dumps(row["body"], sort_keys=True)
            endpoint.tries[key] += 1
            endpoint.counts["batched"] += 1
            fault = endpoint.fault(key, row["body"]["messages"][-1]["content"])
            if fault == "400":
                error = {"error": {"message": "this prompt is not allowed"}}
                failed.append({"custom_id": row["custom_id"], "response": {"status_code": 400, "body": error}})
            elif fault is not None:
                error = {"error": {"message": "internal error"}}
                failed.append({"custom_id": row["custom_id"], "response": {"status_code": 500, "body": error}})
            else:
                endpoint.answered[key] += 1
                endpoint.counts["answered_in_batches"] += 1
                body = endpoint.respond(row["body"])
                done.append({"custom_id": row["custom_id"], "response": {"status_code": 200, "body": body}})
        for name, rows in (("output_file_id", done), ("error_file_id", failed)):
            if rows:
                batch[name] = f"file-{len(endpoint.files)}"
                endpoint.files[batch[name]] = "\n".join(map(json.dumps, rows)).encode()
        batch["status"] = "expired" if expires else "completed"


async def serve(port: int, **settings: Any) -> None:
    endpoint = Endpoint(**settings)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(endpoint), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--settings", type=json.loads, default={})
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, **arguments.settings))


if __name__ == "__main__":
    main()
