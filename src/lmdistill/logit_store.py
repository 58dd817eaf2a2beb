"""A teacher's distributions, recorded once: top tokens and the rest's mass, at completion positions only.

They are keyed by example, source and target tokens, never by step, so shuffling, epochs and resuming cannot give a
text another text's rows. Arrays are memory-mapped; with K = 32 a token takes 4 K + 2 K + 6 = 198 bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lmdistill.codec import digest
from lmdistill.distributions import TokenDistributions
from lmdistill.errors import ConfigError, DataError, StoreError
from lmdistill.store import stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

Precision = Literal["float16", "float32"]
ARRAYS = ("ids", "logprobs", "tail", "targets")
JOURNAL = "index.part"
"""While a recording grows: which texts are whole."""


class Recorded(NamedTuple):
    """The distributions of one text: whose it is, what it answers, and what the teacher said at each of its tokens."""

    example: str
    source: str
    distributions: TokenDistributions


def key_of(example: str, source: str, tokens: Sequence[int]) -> int:
    """What a text's rows are found by: 64 bits of a digest of example, source and target tokens."""
    text = json.dumps([example, source, [int(token) for token in tokens]], ensure_ascii=False)
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


def record(
    folder: Path,
    texts: Iterable[Recorded] | Callable[[Sequence[int]], Iterable[Recorded]],
    *,
    tokenizer_hash: str,
    top: int,
    teacher: str,
    wanted: Sequence[tuple[str, str, Sequence[int]]] = (),
    reading: Mapping[str, Any] | None = None,
    precision: Precision = "float16",
) -> LogitStore:
    """Write distributions to a folder and open it; a folder that is complete is opened as it is.

    Args:
        texts: one entry a text; repeated ones are kept once. Or what makes them, given the numbers of those among
            `wanted` that a killed recording lacks.
        teacher: what names it (a path and a fingerprint). reading: what else changes what it says of a text.
        wanted: what will be asked for (example, source, target tokens): its digest belongs to the folder.

    Raises:
        StoreError: the folder belongs to other texts, another teacher or other settings.
        DataError: a distribution that is not finite, or of another vocabulary; no texts.
    """
    settings: dict[str, Any] = {"tokenizer_hash": tokenizer_hash, "top": top, "teacher": teacher}
    settings |= {"precision": precision, "reading": dict(reading or {})}
    inputs = {"texts": digest([[one, source, list(tokens)] for one, source, tokens in wanted])}
    with stage(folder, "logits", settings=settings, inputs=inputs) as opened:
        if not opened.done:
            written = _Writer(folder, precision, tokenizer_hash)
            if callable(texts):
                texts = texts([i for i, text in enumerate(wanted) if key_of(*text) not in written.rows])
            for one in texts:
                written.add(one)
            facts = written.close()
            opened.manifest.counts.update(texts=facts["texts"], tokens=facts["tokens"])
            opened.manifest.facts.update(facts)
    return LogitStore.open(folder)


class _Writer:
    """Appends arrays to files; what is in memory is one text and the index. What a killed run left is gone on with."""

    def __init__(self, folder: Path, precision: Precision, tokenizer_hash: str) -> None:
        self.folder, self.precision, self.tokenizer_hash = folder, precision, tokenizer_hash
        self.rows: dict[int, tuple[int, int, int]] = {}
        self.tokens = self.top = 0
        self.journal = folder / JOURNAL
        self._go_on()
        self.files = {name: (folder / f"{name}.bin").open("ab") for name in ARRAYS}
        self.noted = self.journal.open("ab")

    def _go_on(self) -> None:
        """Take over the texts that were written whole, and cut off what was not."""
        import numpy as np

        left = np.fromfile(self.journal, dtype="<u8") if self.journal.exists() else np.zeros(0, "<u8")
        for key, example, start, n, top in left[: len(left) // 5 * 5].reshape(-1, 5).tolist():
            self.rows[key], self.tokens, self.top = (example, start, n), start + n, top
        sizes = {name: self.tokens * self._width(name) for name in ARRAYS} | {JOURNAL: 5 * 8 * len(self.rows)}
        paths = {name: self.journal if name == JOURNAL else self.folder / f"{name}.bin" for name in sizes}
        if any(size > (paths[name].stat().st_size if paths[name].exists() else 0) for name, size in sizes.items()):
            self.rows, self.tokens, self.top = {}, 0, 0
            sizes = dict.fromkeys(sizes, 0)
        for name, path in paths.items():
            with path.open("ab") as file:
                file.truncate(sizes[name])

    def _width(self, name: str) -> int:
        """Bytes a token."""
        number = 2 if self.precision == "float16" else 4
        return {"ids": 4 * self.top, "logprobs": number * self.top, "tail": number, "targets": 4}[name]

    def add(self, one: Recorded) -> None:
        import numpy as np

        told = one.distributions
        if told.tokenizer_hash != self.tokenizer_hash:
            raise DataError(f"distributions of vocabulary {told.tokenizer_hash}; {self.tokenizer_hash} was expected")
        if not np.isfinite(told.logprobs).all() or np.isnan(told.tail).any():
            raise DataError(
                f"the teacher's logits for example {one.example!r} hold NaN or infinity; nothing was stored"
            )
        key = key_of(one.example, one.source, told.targets.tolist())
        if key in self.rows:
            return
        if self.top not in (0, told.ids.shape[1]):
            raise DataError(f"texts of {self.top} and of {told.ids.shape[1]} top tokens cannot share a folder")
        n, self.top = len(told.targets), told.ids.shape[1]
        tail = np.clip(told.tail, -69.0, 0.0)
        for name, array in (("ids", told.ids.astype("<i4")), ("targets", told.targets.astype("<i4"))):
            self.files[name].write(np.ascontiguousarray(array).tobytes())
        for name, array in (("logprobs", told.logprobs), ("tail", tail)):
            self.files[name].write(np.ascontiguousarray(array.astype(self.precision)).tobytes())
        self.rows[key] = (key_of(one.example, "", ()), self.tokens, n)
        for file in self.files.values():
            file.flush()
        self.noted.write(np.array([key, *self.rows[key], self.top], dtype="<u8").tobytes())
        self.noted.flush()
        self.tokens += n

    def close(self) -> dict[str, Any]:
        """Write the index; what the manifest says: texts, tokens, bytes a token, and what truncation hides."""
        import numpy as np

        for file in (*self.files.values(), self.noted):
            file.close()
        if not self.rows:
            raise DataError("there are no texts to record distributions of")
        index = np.array([(key, *self.rows[key]) for key in sorted(self.rows)], dtype="<u8")
        np.save(self.folder / "index.npy", index)
        self.journal.unlink()
        mass, worst = self._hidden()
        size = sum((self.folder / f"{name}.bin").stat().st_size for name in self.files)
        return {
            "texts": len(self.rows),
            "tokens": self.tokens,
            "top": self.top,
            "precision": self.precision,
            "tokenizer_hash": self.tokenizer_hash,
            "bytes_per_token": round(size / max(self.tokens, 1), 1),
            "mean_tail_mass": mass / max(self.tokens, 1),
            "largest_tail_mass": worst,
        }

    def _hidden(self) -> tuple[float, float]:
        """The sum and the largest of the masses that are not named."""
        import numpy as np

        tail = np.memmap(self.folder / "tail.bin", dtype=self.precision, mode="r")
        mass = worst = 0.0
        for start in range(0, len(tail), 1 << 20):
            piece = np.exp(tail[start : start + (1 << 20)].astype("float64"))
            mass, worst = mass + float(piece.sum()), max(worst, float(piece.max(initial=0.0)))
        return mass, worst


@dataclass(frozen=True, eq=False)
class LogitStore:
    """Recorded distributions, opened by memory map. `facts` are the manifest's, with the truncation error."""

    folder: Path
    tokenizer_hash: str
    top: int
    facts: dict[str, Any]
    index: NDArray[Any]
    arrays: dict[str, NDArray[Any]]

    @classmethod
    def open(cls, folder: Path) -> LogitStore:
        """The store in a folder.

        Raises:
            StoreError: there is none, it is not complete, or a file is shorter than its index says.
        """
        import numpy as np

        from lmdistill.store import read_manifest

        manifest = read_manifest(folder)
        if manifest is None or manifest.stage != "logits" or manifest.status != "complete":
            raise StoreError(f"{folder} holds no complete recording of a teacher's distributions; record them again")
        facts = manifest.facts
        tokens, top = int(facts["tokens"]), int(facts["top"])
        layout: dict[str, tuple[str, tuple[int, ...]]] = {
            "ids": ("<i4", (tokens, top)),
            "logprobs": (str(facts["precision"]), (tokens, top)),
        }
        layout |= {"tail": (str(facts["precision"]), (tokens,)), "targets": ("<i4", (tokens,))}
        try:
            arrays = {
                name: np.memmap(folder / f"{name}.bin", dtype=kind, mode="r", shape=shape)
                for name, (kind, shape) in layout.items()
            }
            index = np.load(folder / "index.npy", mmap_mode="r")
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder} is damaged ({error}); remove it to record the distributions again") from error
        return cls(folder, str(facts["tokenizer_hash"]), top, dict(facts), index, dict(arrays))

    def __len__(self) -> int:
        return len(self.index)

    def look_up(self, texts: Sequence[tuple[str, str, Sequence[int]]]) -> TokenDistributions:
        """The distributions of texts, each given as example id, source and target tokens, one after another.

        Raises:
            DataError: one was not recorded (never, or with another source or other target tokens).
        """
        import numpy as np

        spans = [self._span(*text) for text in texts]
        rows = np.concatenate([np.arange(start, start + n) for start, n in spans]) if spans else np.zeros(0, "i8")
        offsets = np.concatenate([[0], np.cumsum([n for _, n in spans])]).astype(np.int64)
        return TokenDistributions(
            np.asarray(self.arrays["ids"][rows], dtype=np.int32),
            np.asarray(self.arrays["logprobs"][rows], dtype=np.float32),
            np.asarray(self.arrays["tail"][rows], dtype=np.float32),
            np.asarray(self.arrays["targets"][rows], dtype=np.int32),
            offsets,
            self.tokenizer_hash,
        )

    def require(self, texts: Iterable[tuple[str, str, Sequence[int]]]) -> None:
        """Refuse at once what a later `look_up` would not find; nothing of the distributions is read.

        Raises:
            DataError: one was not recorded (never, or with another source or other target tokens).
        """
        for text in texts:
            self._span(*text)

    def _span(self, example: str, source: str, tokens: Sequence[int]) -> tuple[int, int]:
        import numpy as np

        key = np.uint64(key_of(example, source, tokens))
        at = int(np.searchsorted(self.index[:, 0], key))
        if at < len(self.index) and self.index[at, 0] == key:
            return int(self.index[at, 2]), int(self.index[at, 3])
        known = bool((self.index[:, 1] == np.uint64(key_of(example, "", ()))).any())
        what = "was recorded for another source or other target tokens" if known else "was never recorded"
        raise DataError(
            f"example {example!r} {what} (in {self.folder}). Record the teacher's distributions again, with the "
            "objective, task and tokenizer of this run"
        )


def split(distributions: TokenDistributions, names: Sequence[str], sources: Sequence[str]) -> Iterator[Recorded]:
    """Distributions of several texts as entries to record.

    Raises:
        ConfigError: not as many names and sources as texts.
    """
    if not len(names) == len(sources) == len(distributions):
        raise ConfigError(f"{len(distributions)} texts, {len(names)} names and {len(sources)} sources")
    for name, source, one in zip(names, sources, distributions, strict=True):
        yield Recorded(name, source, one)
