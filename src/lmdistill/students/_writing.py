"""How text students write: generation in length order, endings of texts that were begun, and where a text stops."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lmdistill.caching import fresh_cache
from lmdistill.students._noise import seeded, within
from lmdistill.students._stopping import Enough, stopping
from lmdistill.types import Completion, Sampling


class Writer(nn.Module):
    """The half of a text student that writes; a concrete student adds how new tokens come out of its model."""

    tokenizer: Any
    _seeds: Sequence[int] | None = None  # one for each prompt that is being answered
    _enough: Sequence[Enough] = ()  # likewise, or none

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def eos(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a text, the one that targets are trained with first."""
        return (self.eos,)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @abstractmethod
    def tokens(self, kind: Literal["source", "target"], text: str, tail: str = "") -> tuple[int, ...]:
        """Token ids within the student's limit."""

    @abstractmethod
    def target_tokens(self, text: str) -> list[int]:
        """Token ids of a target with its end of sequence, before any limit."""

    def room(self, source: int) -> int | None:
        """How many target tokens a model has positions for after a source of so many; None: as many as one likes."""
        return None

    # --- writing ---

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        batch_size: int = 64,
        seeds: Sequence[int] | None = None,
        enough: Sequence[Enough] = (),
    ) -> list[list[Completion]]:
        """See `lmdistill.students.Student.generate`; longest prompts first: memory runs out at once or never."""
        if seeds is not None and sampling.n > 1:
            every = [prompt for prompt in prompts for _ in range(sampling.n)]
            own = [seed + i for seed in seeds for i in range(sampling.n)]
            ends = [one for one in enough for _ in range(sampling.n)]
            flat = self.generate(every, replace(sampling, n=1), batch_size=batch_size, seeds=own, enough=ends)
            return [[one for (one,) in flat[i : i + sampling.n]] for i in range(0, len(flat), sampling.n)]
        training = self.training
        self.eval()
        order = sorted(range(len(prompts)), key=lambda i: -len(self.tokens("source", prompts[i])))
        out: list[list[Completion]] = [[] for _ in prompts]
        rows = max(1, batch_size // max(1, sampling.n, sampling.beams))
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            for start in range(0, len(order), rows):
                chunk = order[start : start + rows]
                if sampling.seed is not None:
                    torch.manual_seed(sampling.seed + start)
                self._seeds = None if seeds is None else [seeds[i] for i in chunk]
                self._enough = [enough[i] for i in chunk] if enough else ()
                for index, completions in zip(chunk, self._write([prompts[i] for i in chunk], sampling), strict=True):
                    out[index] = completions
        self._seeds, self._enough = None, ()
        self.train(training)
        return out

    @torch.no_grad()
    def generate_tokens(self, prompts: Sequence[str], sampling: Sampling) -> list[list[int]]:
        """New token ids (end of sequence included where it was reached) of each of the n samples of each prompt."""
        return self._new_tokens(prompts, sampling)

    @torch.no_grad()
    def finish(
        self, prompts: Sequence[str], begun: Sequence[str], sampling: Sampling, *, batch_size: int = 64
    ) -> list[Completion]:
        """What follows texts that were begun for prompts (a rationale and its cue), one completion each.

        A text is taken up whole, whatever the limit; where the model has no positions for it, it loses its middle.
        """
        training = self.training
        self.eval()
        starts = [[token for token in self.target_tokens(text) if token not in self.ends] for text in begun]
        for i, prompt in enumerate(prompts):
            room = self.room(len(self.tokens("source", prompt)))
            if room is not None:
                starts[i] = without_middle(starts[i], max(room - sampling.max_tokens, room // 2))
        order = sorted(range(len(prompts)), key=lambda i: len(starts[i]))
        out: dict[int, Completion] = {}
        while order:
            same = [i for i in order[:batch_size] if len(starts[i]) == len(starts[order[0]])]
            rows = self._continued([prompts[i] for i in same], [starts[i] for i in same], sampling)
            out |= zip(same, self._completed(rows, sampling), strict=True)
            order = order[len(same) :]
        self.train(training)
        return [out[i] for i in range(len(prompts))]

    @abstractmethod
    def _continued(self, prompts: Sequence[str], starts: Sequence[list[int]], sampling: Sampling) -> list[list[int]]:
        """New token ids after starts of equal length, one row for each prompt."""

    @abstractmethod
    def _new_tokens(self, prompts: Sequence[str], sampling: Sampling) -> list[list[int]]:
        """`sampling.n` rows of new token ids for each prompt, one after another."""

    def _write(self, prompts: Sequence[str], sampling: Sampling) -> list[list[Completion]]:
        completions = self._completed(self._new_tokens(prompts, sampling), sampling)
        return [completions[i : i + sampling.n] for i in range(0, len(completions), sampling.n)]

    def _completed(self, rows: Sequence[list[int]], sampling: Sampling) -> list[Completion]:
        """Texts of rows of new token ids, cut at the first stop string, and where they said enough."""
        completions = []
        for number, row in enumerate(rows):
            finished = bool(row) and row[-1] in self.ends
            text = self.tokenizer.decode(row, skip_special_tokens=True).strip()
            for stop in sampling.stop:
                if stop in text:
                    text, finished = text[: text.index(stop)], True
            if self._enough:
                end = self._enough[number * len(self._enough) // len(rows)](text)
                text, finished = (text, finished) if end is None else (text[:end], True)
            completions.append(Completion(text, finish_reason="stop" if finished else "length"))
        return completions

    def generation_settings(self, sampling: Sampling, room: int | None = None) -> dict[str, Any]:
        """Arguments for transformers' `generate`, every one of them explicit (no silent top_k = 50)."""
        settings: dict[str, Any] = {
            "max_new_tokens": sampling.max_tokens if room is None else max(1, min(sampling.max_tokens, room)),
            "num_return_sequences": sampling.n,
            "num_beams": max(sampling.beams, 1),
            "do_sample": sampling.temperature > 0,
            "pad_token_id": self.pad,
            "eos_token_id": list(self.ends),
            **fresh_cache(self.model),
        }
        if sampling.temperature > 0:
            settings |= {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
            if self._seeds is not None:
                for unused in ("temperature", "top_k", "top_p"):
                    del settings[unused]
                settings |= seeded(sampling, self._seeds)
            elif 0 < sampling.top_p < 1 and sampling.n == settings["num_beams"] == 1:
                for unused in ("temperature", "top_k", "top_p"):
                    del settings[unused]
                settings |= within(sampling)
        elif sampling.n > settings["num_beams"]:
            settings["num_return_sequences"] = 1
        if self._enough and settings["num_beams"] == 1:
            settings["stopping_criteria"] = stopping(self.tokenizer, self._enough)
        if sampling.stop:
            settings |= {"stop_strings": list(sampling.stop), "tokenizer": self.tokenizer}
        return settings

    def trimmed_rows(self, sequences: Tensor, sampling: Sampling) -> list[list[int]]:
        """Rows of new token ids cut after their end of sequence; greedy samples are the same one n times."""
        rows = []
        for row in sequences.tolist():
            end = next((i + 1 for i, token in enumerate(row) if token in self.ends), len(row))
            rows.append([token for token in row[:end] if token != self.pad or token in self.ends])
        if sampling.temperature == 0 and sampling.n > max(sampling.beams, 1):
            return [row for row in rows for _ in range(sampling.n)]
        return rows


def without_middle(ids: Sequence[int], limit: int) -> list[int]:
    """At most `limit` tokens: as many from the beginning as from the end."""
    if len(ids) <= limit:
        return list(ids)
    head = limit // 2
    return [*ids[:head], *ids[len(ids) - (limit - head) :]]
