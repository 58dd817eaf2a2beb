"""An endpoint that says the same to everything."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextlib.contextmanager
def fixed_endpoint(said: str, **more: Any) -> Iterator[Mapping[str, Any]]:
    """The settings of a teacher behind an endpoint whose only choice is `said` (with `more` about it)."""
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"} | more
    told = json.dumps({"choices": [choice], "usage": {}, "model": "m"}).encode()

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {"name": "openai", "model": "m", "base_url": f"http://127.0.0.1:{server.server_port}/v1"}
    finally:
        server.shutdown()
        server.server_close()
