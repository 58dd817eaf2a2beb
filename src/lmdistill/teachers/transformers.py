"""A local model of transformers, decoder-only or encoder-decoder: batched, with log-probabilities and distributions."""

from __future__ import annotations

import bisect
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lmdistill.caching import cache_name, fresh_cache
from lmdistill.distributions import TokenDistributions, vocabulary_hash
from lmdistill.errors import ConfigError, StoreError
from lmdistill.pricing import FREE, Ledger
from lmdistill.response_cache import ResponseCache
from lmdistill.store import seed_for
from lmdistill.tasks import Task
from lmdistill.teachers import Request, TeacherSettings, WhiteBox
from lmdistill.teachers._local import LocalTeacher
from lmdistill.teachers._scoring import Scoring
from lmdistill.types import Sampling
from lmdistill.wire import Prompt

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Transformers(TeacherSettings):
    """A checkpoint folder or a Hub id (with `revision` pinned).

    `batch_size` counts sequences (prompts times samples); `top` is how many tokens a distribution names. A chat prompt
    goes through the tokenizer's chat template where it has one, else as plain text.
    """

    operational: ClassVar[frozenset[str]] = frozenset({"batch_size", "device", "top"})

    model: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    batch_size: int = 32
    top: int = 32
    seed: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.top < 1:
            raise ConfigError(f"batch_size and top must be at least 1, got {self.batch_size} and {self.top}")

    def digests(self) -> Mapping[str, str]:
        return {self.model: fingerprint(Path(self.model))} if Path(self.model).is_dir() else {}

    def open(
        self, task: Task | None = None, *, ledger: Ledger | None = None, cache: ResponseCache | None = None
    ) -> Any:
        return LocalModel(self, cache)


class LocalModel(LocalTeacher, WhiteBox):
    """An open local teacher; weights are loaded when first needed (a run that finds all answers needs none)."""

    price = FREE

    def __init__(self, settings: Transformers, cache: ResponseCache | None = None) -> None:
        self.settings = settings
        self.cache = cache
        self.batch_size = settings.batch_size
        self.source = settings.source or Path(settings.model).name
        self.endpoint = f"transformers ({settings.dtype}, seed {settings.seed})"
        self.model = f"{settings.model}@{settings.revision or fingerprint(Path(settings.model))}"

    # --- the model ---

    @functools.cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        tokenizer = _loaded(AutoTokenizer, self.settings.model, revision=self.settings.revision)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "right" if self.encodes else "left"
        return tokenizer

    @functools.cached_property
    def config(self) -> Any:
        from transformers import AutoConfig

        return _loaded(AutoConfig, self.settings.model, revision=self.settings.revision)

    @property
    def encodes(self) -> bool:
        """Whether the model is an encoder-decoder."""
        return bool(self.config.is_encoder_decoder)

    @functools.cached_property
    def module(self) -> Any:
        """The model, in evaluation mode."""
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

        kind = AutoModelForSeq2SeqLM if self.encodes else AutoModelForCausalLM
        module = _loaded(kind, self.settings.model, revision=self.settings.revision, dtype=self.settings.dtype)
        return module.to(self.device).eval()

    @functools.cached_property
    def device(self) -> torch.device:
        import torch

        if self.settings.device != "auto":
            return torch.device(self.settings.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def text(self, prompt: Prompt) -> str:
        """The prompt as the model reads it."""
        if prompt.plain or not getattr(self.tokenizer, "chat_template", None):
            return prompt.text.rstrip("\n") + ("" if prompt.plain else "\n")
        turns = [{"role": message.role, "content": message.content} for message in prompt.messages]
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    # --- writing ---

    def respond(self, requests: Sequence[Request]) -> Sequence[Sequence[Mapping[str, Any]]]:
        import torch

        sampling, count = requests[0].sampling, len(requests[0].samples)
        texts = [self.text(request.prompt) for request in requests]
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True).to(self.device)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(seed_for(self.settings.seed, sampling.seed, requests[0].key, requests[0].samples))
            written, logprobs = self._write(inputs, sampling, count)
        read = inputs["attention_mask"].sum(-1).tolist()
        choices = [
            self._choice(ids, None if logprobs is None else logprobs[row].tolist(), sampling, read[row // count])
            for row, ids in enumerate(written.tolist())
        ]
        return [choices[row * count : (row + 1) * count] for row in range(len(requests))]

    def _write(self, inputs: Any, sampling: Sampling, count: int) -> tuple[Tensor, Tensor | None]:
        """New tokens and their log-probabilities, `count` rows for each input in turn; [B * count, T]."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        start = 1 if self.encodes else ids.shape[1]
        options = self._options(sampling, start)
        options["generation_config"].num_return_sequences = count if sampling.beams > 1 else 1
        if sampling.beams > 1:
            output = self.module.generate(input_ids=ids, attention_mask=mask, **options)
            return output[:, start:], None
        recorder = _Recorder()
        options["logits_processor"] = [recorder]
        alike = 1  # how often each row stands for itself
        if sampling.temperature == 0:
            alike, count = count, 1
        if count > 1 and self.encodes:
            options["generation_config"].num_return_sequences = count  # the encoder runs once
        elif count > 1 and ids.shape[1] > 1:  # one pass over each prompt; its samples start from copies of what it left
            shared = self._prefilled(ids[:, :-1], mask[:, :-1])
            shared.batch_repeat_interleave(count)
            options[cache_name()] = shared
        if count > 1 and not self.encodes:
            ids, mask = ids.repeat_interleave(count, 0), mask.repeat_interleave(count, 0)
        output = self.module.generate(input_ids=ids, attention_mask=mask, **options)
        written = output[:, start:]
        return written.repeat_interleave(alike, 0), recorder.logprobs(output).repeat_interleave(alike, 0)

    def _prefilled(self, ids: Tensor, mask: Tensor) -> Any:
        from transformers import DynamicCache

        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.config)
        named = {cache_name(): cache}
        self.module.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **named)
        return cache

    def _options(self, sampling: Sampling, start: int) -> dict[str, Any]:
        """Generation options in full, so that nothing of the checkpoint's own defaults acts unseen (top_k 50 ...)."""
        from transformers import GenerationConfig

        own = self.module.generation_config
        eos = own.eos_token_id if own.eos_token_id is not None else self.tokenizer.eos_token_id
        settings: dict[str, Any] = {
            "max_new_tokens": sampling.max_tokens,
            "num_beams": sampling.beams,
            "do_sample": sampling.temperature > 0,
            "eos_token_id": eos,
            "pad_token_id": self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0,
            "bos_token_id": own.bos_token_id,
            "decoder_start_token_id": own.decoder_start_token_id,
        }
        if sampling.temperature > 0:
            settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        options: dict[str, Any] = {"generation_config": GenerationConfig(**settings), **fresh_cache(self.module)}
        if sampling.stop:
            options["stopping_criteria"] = [self._stops(sampling.stop, start)]
        return options

    def _stops(self, stops: Sequence[str], start: int) -> Any:
        """A criterion that ends a row at a stop string after `start` (the library's own refuses some tokenizers)."""
        import torch

        window = max(map(len, stops)) + 4  # a token is at least a character, but for special ones

        def ended(input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
            tails = self.tokenizer.batch_decode(input_ids[:, max(start, input_ids.shape[1] - window) :])
            found = [any(stop in tail for stop in stops) for tail in tails]
            return torch.tensor(found, device=input_ids.device)

        return ended

    def _choice(
        self, ids: Sequence[int], logprobs: Sequence[float] | None, sampling: Sampling, read: int
    ) -> dict[str, Any]:
        """One sample in the dialect: what stands before its end, a stop string, or the room's end."""
        end = next((at for at, token in enumerate(ids) if token in self._ends), None)
        kept = list(ids if end is None else ids[:end])
        counted = len(ids) if end is None else end + 1  # the end itself was chosen too
        reason = "length" if end is None else "stop"
        text = self._decoded(kept)
        if any(stop in text for stop in sampling.stop):
            said = functools.partial(self._says, kept, sampling.stop)
            counted = bisect.bisect_left(range(len(kept)), True, key=said) + 1
            text = min((text.partition(stop)[0] for stop in sampling.stop), key=len)
            reason = "stop"
        choice: dict[str, Any] = {"text": text, "finish_reason": reason, "prompt_tokens": read}
        if logprobs is not None:
            tokens = self.tokenizer.convert_ids_to_tokens(list(ids[:counted]))
            choice["tokens"] = [(token, round(value, 5)) for token, value in zip(tokens, logprobs, strict=False)]
        return choice

    def _says(self, ids: Sequence[int], stops: Sequence[str], last: int) -> bool:
        return any(stop in self._decoded(ids[: last + 1]) for stop in stops)

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    @functools.cached_property
    def _ends(self) -> frozenset[int]:
        eos = self.module.generation_config.eos_token_id
        ids = eos if isinstance(eos, list) else [eos, self.tokenizer.eos_token_id]
        return frozenset(token for token in ids if token is not None)

    # --- probabilities ---

    def distributions(self, sources: Sequence[str], targets: Sequence[str]) -> TokenDistributions:
        """The model's distribution at every token of every target (its end included), given its source."""
        if len(sources) != len(targets):
            raise ConfigError(f"as many targets as sources were expected, got {len(targets)} and {len(sources)}")
        scoring = Scoring(self.module, self.tokenizer, self.device, self.batch_size)
        return scoring.distributions(sources, targets, self.settings.top, vocabulary_hash(self.tokenizer))


class _Recorder:
    """Notes the log-probability of each chosen token before temperature and truncation; memory holds one step."""

    def __init__(self) -> None:
        self._scores: Tensor | None = None
        self._steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._note(input_ids)
        self._scores = scores.float().log_softmax(-1)
        return scores

    def _note(self, ids: Tensor) -> None:
        if self._scores is not None:
            self._steps.append(self._scores.gather(1, ids[:, -1:]).cpu())

    def logprobs(self, output: Tensor) -> Tensor:
        import torch

        self._note(output)
        return torch.cat(self._steps, 1)


def fingerprint(folder: Path) -> str:
    """What tells checkpoints in one folder apart: names, sizes, and the ends of their files."""
    if not folder.is_dir():
        return "main"
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".json", ".model"):
            size = path.stat().st_size
            with path.open("rb") as file:
                head = file.read(1 << 16)
                file.seek(max(size - (1 << 16), 0))
                found.update(f"{path.name} {size} ".encode() + head + file.read())
    return found.hexdigest()[:12]


def _loaded(kind: Any, model: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(model, **options)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise StoreError(f"teacher 'transformers' cannot load {model!r}: {reason}") from error
