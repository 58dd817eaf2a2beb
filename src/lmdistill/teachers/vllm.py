"""vLLM in this process, for machines with an accelerator (a vLLM server is asked through teacher `openai`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lmdistill.errors import ConfigError, MissingExtra
from lmdistill.pricing import FREE, Ledger
from lmdistill.response_cache import ResponseCache
from lmdistill.tasks import Task
from lmdistill.teachers import Request, TeacherSettings
from lmdistill.teachers._local import LocalTeacher
from lmdistill.types import Sampling


@dataclass(frozen=True)
class Vllm(TeacherSettings):
    """A model that vLLM can load; `engine` holds further arguments of `vllm.LLM` (tensor_parallel_size ...)."""

    operational: ClassVar[frozenset[str]] = frozenset({"batch_size", "engine"})

    model: str
    revision: str | None = None
    dtype: str = "auto"
    seed: int = 0
    batch_size: int = 4096
    engine: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def open(
        self, task: Task | None = None, *, ledger: Ledger | None = None, cache: ResponseCache | None = None
    ) -> Any:
        return Engine(self, cache)


class Engine(LocalTeacher):
    """An open engine; it is started when first needed."""

    price = FREE

    def __init__(self, settings: Vllm, cache: ResponseCache | None = None) -> None:
        self.settings = settings
        self.cache = cache
        self.batch_size = settings.batch_size
        self.source = settings.source or Path(settings.model).name
        self.endpoint = f"vllm ({settings.dtype}, seed {settings.seed})"
        self.model = f"{settings.model}@{settings.revision or 'main'}"

    @functools.cached_property
    def llm(self) -> Any:
        try:
            import vllm
        except ModuleNotFoundError as error:
            raise MissingExtra("vllm", "vllm", "teacher 'vllm'") from error
        own = {"revision": self.settings.revision, "dtype": self.settings.dtype, "seed": self.settings.seed}
        return vllm.LLM(self.settings.model, **own, **self.settings.engine)

    def parameters(self, sampling: Sampling, count: int) -> Any:
        """The sampling in vLLM's words."""
        import vllm

        if sampling.beams != 1:
            raise ConfigError(f"teacher 'vllm' samples, it has no beam search; sampling.beams is {sampling.beams}")
        return vllm.SamplingParams(
            n=count,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or -1,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop) or None,
            seed=sampling.seed,
            logprobs=0,
        )

    def respond(self, requests: Sequence[Request]) -> Sequence[Sequence[Mapping[str, Any]]]:
        llm = self.llm
        parameters = self.parameters(requests[0].sampling, len(requests[0].samples))
        found: dict[int, Any] = {}
        for plain in (True, False):
            rows = [row for row, request in enumerate(requests) if request.prompt.plain == plain]
            if not rows:
                continue
            if plain:
                outputs = llm.generate([requests[row].prompt.text for row in rows], parameters, use_tqdm=False)
            else:
                turns = [
                    [{"role": one.role, "content": one.content} for one in requests[row].prompt.messages]
                    for row in rows
                ]  # fmt: skip
                outputs = llm.chat(turns, parameters, use_tqdm=False)
            found.update(zip(rows, outputs, strict=True))
        return [[_choice(one, found[row]) for one in found[row].outputs] for row in range(len(requests))]


def _choice(output: Any, request: Any) -> dict[str, Any]:
    steps = output.logprobs or []
    tokens = [
        (step[token].decoded_token or "", float(step[token].logprob))
        for token, step in zip(output.token_ids, steps, strict=False)
    ]
    reason = output.finish_reason or "stop"
    read = len(request.prompt_token_ids or ())
    return {"text": output.text, "finish_reason": reason, "tokens": tokens, "prompt_tokens": read}
