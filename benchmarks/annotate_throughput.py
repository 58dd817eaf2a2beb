"""How much of an endpoint's speed `annotate` keeps, against a bare aiohttp loop in the same run.

    python benchmarks/annotate_throughput.py [--requests 4000] [--rounds 3] [--in-flight 64 256]

A local server (its own process) answers after 50 ms; then 2 % of the answers come 2 seconds later still. The bare loop
posts the same bodies with as many workers as may be in flight, and reads the JSON: nothing is parsed further, retried,
counted or kept. `annotate` does all of its work: prompts, keys, ledger, one commit an answer, parsing, rows. Runs
alternate; the best of the rounds is shown. `distilabel` runs beside them where it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmdistill.annotate import annotate
from lmdistill.flow import Limits
from lmdistill.prompting import Prompter, Prompting
from lmdistill.tasks import Task
from lmdistill.teachers.openai import OpenAI
from lmdistill.types import Example, Sampling
from lmdistill.wire import request_body

SERVER = Path(__file__).parents[1] / "tests" / "network" / "endpoint_server.py"
FILLER = "Consider everything that is known about it before you answer. " * 16  # prompts of about 1 KB


@dataclass(frozen=True)
class Lookup(Task):
    """Questions with about 1 KB of text."""

    def examples(self, split: str) -> list[Example]:
        return [Example(f"q{i}", f"{FILLER}What is the number of thing {i} of {split}?") for i in range(100_000)]


@dataclass
class Measured:
    seconds: float
    cpu: float

    def line(self, requests: int) -> str:
        cpu = f"{1e3 * self.cpu / requests:6.2f} ms cpu/request"
        return f"{requests / self.seconds:7.0f} requests/s {self.seconds:7.2f} s {cpu}"


def timed(work: Callable[[], Any]) -> Measured:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return Measured(time.perf_counter() - started, time.process_time() - cpu)


def bare(url: str, bodies: list[bytes], in_flight: int) -> None:
    """As fast as aiohttp goes."""
    import aiohttp

    async def run() -> int:
        queue = iter(bodies)
        connector = aiohttp.TCPConnector(limit=0)
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

            async def worker() -> int:
                done = 0
                for body in queue:
                    async with session.post(f"{url}/chat/completions", data=body) as response:
                        done += len((await response.json())["choices"])
                return done

            return sum(await asyncio.gather(*(worker() for _ in range(in_flight))))

    assert asyncio.run(run()) == len(bodies)


def ours(url: str, examples: list[Example], in_flight: int) -> None:
    """The whole of `annotate`, from examples to rows."""
    with tempfile.TemporaryDirectory() as folder:
        limits = Limits(concurrency=in_flight)
        teacher = OpenAI(model="m", base_url=url, limits=limits)
        path = Path(folder)
        rows = annotate(
            Lookup(), teacher, examples, folder=path / "a", cache=path / "c.sqlite", sampling=Sampling(), progress=False
        )
        assert len(rows) == len(examples) and len(rows[-1].rationales) == 1


def distilabel(url: str, examples: list[Example], in_flight: int) -> None:
    """The best-known tool: its pipeline with batches of the same size."""
    from distilabel.llms import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    with Pipeline(name="bench") as pipeline:
        rows = [{"instruction": example.input} for example in examples]
        load = LoadDataFromDicts(data=rows, batch_size=in_flight)
        llm = OpenAILLM(model="m", base_url=url, api_key="none")
        load >> TextGeneration(llm=llm, input_batch_size=in_flight)
    pipeline.run(use_cache=False)


def compare(name: str, settings: dict[str, Any], requests: int, in_flight: int, rounds: int) -> dict[str, Any]:
    """Alternating runs against one server; prints and returns the best of each."""
    command = [sys.executable, str(SERVER), "--settings", json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        examples = Lookup().examples("bench")[:requests]
        prompter = Prompter(Prompting(), Lookup())
        bodies = [
            json.dumps(request_body("m", prompter.ask(example), Sampling())).encode() for example in examples
        ]  # fmt: skip
        runs: dict[str, list[Measured]] = {"bare aiohttp": [], "lmdistill": []}
        for _ in range(rounds):
            runs["bare aiohttp"].append(timed(lambda: bare(url, bodies, in_flight)))
            runs["lmdistill"].append(timed(lambda: ours(url, examples, in_flight)))
        if importlib.util.find_spec("distilabel"):
            runs["distilabel"] = [timed(lambda: distilabel(url, examples, in_flight))]
        server.kill()
    best = {who: min(measured, key=lambda one: one.seconds) for who, measured in runs.items()}
    print(f"\n{name}, {requests:,} requests, {in_flight} in flight")
    for who, measured in best.items():
        share = best["bare aiohttp"].seconds / measured.seconds
        print(f"  {who:14} {measured.line(requests)}   {share:.2f} of the bare loop's rate")
    share = best["bare aiohttp"].seconds / best["lmdistill"].seconds
    return {"case": name, "in_flight": in_flight, "share": round(share, 3), "time_ratio": round(1 / share, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--json", action="store_true", help="one line of JSON at the end")
    arguments = parser.parse_args()
    ours_warm_up()
    results = []
    for in_flight in arguments.in_flight:
        results.append(compare("50 ms", {"latency": 0.05}, arguments.requests, in_flight, arguments.rounds))
    tail = {"latency": 0.05, "tail": 0.02}
    results.append(compare("50 ms, 2 % of them 2 s", tail, arguments.requests, 64, arguments.rounds))
    if arguments.json:
        print(json.dumps(results))


def ours_warm_up() -> None:
    """Imports are not what is measured."""
    import aiohttp  # noqa: F401


if __name__ == "__main__":
    main()
