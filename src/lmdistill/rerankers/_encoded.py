"""What rerankers share: an encoder from a folder, the Hub or random weights, and texts as padded tensors."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lmdistill import render
from lmdistill.errors import ConfigError, StoreError
from lmdistill.rerankers import Ranked, RerankerSettings
from lmdistill.rerankers._adapted import adapted
from lmdistill.students import Batch
from lmdistill.types import Hit, Item, View

MOST_CHARACTERS = 20_000
"""Of a longer text only the beginning is read: no encoder sees more, and tokenizers are slow on megabytes."""
TRAINED = "trained.safetensors"
ASCII = "abcdefghijklmnopqrstuvwxyz0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
"""Characters that every from-scratch vocabulary has, whether the texts show them or not."""


class Size(NamedTuple):
    """Width, feed-forward width, heads and layers of a from-scratch encoder."""

    width: int
    inner: int
    heads: int
    layers: int


SIZES = {"tiny": Size(64, 128, 4, 1), "mini": Size(128, 256, 4, 2), "small": Size(256, 512, 4, 3)}


@dataclass(frozen=True)
class Encoded(RerankerSettings):
    """Settings of every reranker with a BERT-like encoder.

    `model` is a folder or Hub id; without it `preset` (tiny, mini or small) makes a BERT from random weights with a
    vocabulary of `vocabulary_size` word pieces. `lora_rank` above 0 trains low-rank updates of queries and values
    instead of the encoder (a classifier's head is trained whole). Limits count tokens.
    """

    model: str | None = None
    revision: str | None = None
    preset: str = "mini"
    vocabulary_size: int = 8000
    max_query: int = 256
    max_length: int = 512
    lora_rank: int = 0
    lora_alpha: float = 32.0
    lora_dropout: float = 0.1
    batch_size: int = 64

    def __post_init__(self) -> None:
        least = {"max_length": 8, "max_query": 3, "batch_size": 1, "lora_rank": 0, "vocabulary_size": 1}
        wrong = [
            f"{name}: {getattr(self, name)} is below {low}" for name, low in least.items() if getattr(self, name) < low
        ]
        if not (self.lora_alpha > 0 and 0 <= self.lora_dropout < 1):
            wrong.append(
                f"lora_alpha above 0 and lora_dropout in [0, 1): got {self.lora_alpha} and {self.lora_dropout}"
            )
        if wrong:
            raise ConfigError([f"reranker.{problem}" for problem in wrong])

    def loaded(self, auto: Any, texts: Iterable[str], seed: int, **options: Any) -> tuple[Any, Any]:
        """Encoder and tokenizer.

        Raises:
            StoreError, ConfigError, MissingExtra: see `RerankerSettings.open`.
        """
        if self.model is None:
            encoder, tokenizer = self._scratch(auto, texts, seed, options)
        else:
            encoder, tokenizer = _pretrained(auto, self.model, self.revision, seed, options)
        if self.lora_rank:
            encoder = adapted(encoder, seed, self.lora_rank, alpha=self.lora_alpha, dropout=self.lora_dropout)
        return encoder, tokenizer

    def check(self) -> None:
        """See `RerankerSettings.check`; a model is opened once for it."""
        if self.model is not None:
            self.open()
        elif self.preset not in SIZES:
            raise ConfigError(f"reranker.preset: {self.preset!r} is not one of {', '.join(SIZES)}")

    def _scratch(self, auto: Any, texts: Iterable[str], seed: int, options: dict[str, Any]) -> tuple[Any, Any]:
        from transformers import BertConfig

        if self.preset not in SIZES:
            raise ConfigError(f"reranker.preset: {self.preset!r} is not one of {', '.join(SIZES)}")
        tokenizer = vocabulary(texts, self.vocabulary_size, self.max_length)
        size = SIZES[self.preset]
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.width,
            intermediate_size=size.inner,
            num_attention_heads=size.heads,
            num_hidden_layers=size.layers,
            max_position_embeddings=self.max_length,
            pad_token_id=0,
            **options,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return auto.from_config(config), tokenizer


def _pretrained(auto: Any, name: str, revision: str | None, seed: int, options: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    options.setdefault("dtype", torch.float32)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # a head that the checkpoint lacks is drawn
            encoder = auto.from_pretrained(name, revision=revision, use_safetensors=True, **options)
        return encoder, AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        message = f"reranker {name!r} cannot be opened: {first} A transformers folder with config.json, "
        raise StoreError(
            message + "model.safetensors and a tokenizer, or a Hub id that can be reached, was expected"
        ) from error


def vocabulary(texts: Iterable[str], size: int, limit: int) -> Any:
    """A lower-case word-piece tokenizer with BERT's special tokens: frequent words, frequent endings, all characters.

    The pieces are counted, not trained, so equal texts give equal pieces on every machine.

    Raises:
        ConfigError: no texts.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normal, cut = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for token, times in Counter(token for text in texts for token in text.split()).items():
        for word, _ in cut.pre_tokenize_str(normal.normalize_str(token)):
            words[word] += times
    if not words:
        raise ConfigError("a reranker from scratch (reranker.preset) needs training texts; there are none")
    letters: Counter[str] = Counter()
    endings: Counter[str] = Counter()
    for word, times in words.items():
        for letter in word:
            letters[letter] += times
        for length in range(2, min(5, len(word) - 2) + 1):
            endings[f"##{word[-length:]}"] += times
    alphabet = [*ASCII, *(letter for letter, _ in _ranked(letters)[:1000] if letter not in ASCII)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *alphabet, *(f"##{letter}" for letter in alphabet)]
    pieces += [ending for ending, _ in _ranked(endings)[: size // 8]]
    pieces += [word for word, _ in _ranked(words)[: max(0, size - len(pieces))]]
    ids = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normal, cut
    tokenizer.decoder = decoders.WordPiece()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=limit, **names)


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


class EncodedReranker(nn.Module):
    """Texts to tensors, ranking, saving; a concrete reranker adds `collate`, `forward` and its parts' weights."""

    def __init__(self, encoder: Any, tokenizer: Any, settings: Encoded) -> None:
        super().__init__()
        self.encoder, self.tokenizer, self.settings = encoder, tokenizer, settings
        longest = getattr(encoder.config, "max_position_embeddings", settings.max_length)
        self.max_length = min(settings.max_length, longest)
        self.max_query = min(settings.max_query, self.max_length // 2)
        self._lengths: dict[str, int] = {}

    @abstractmethod
    def collate(self, items: Sequence[Item], views: Sequence[Sequence[View]]) -> Batch:
        """See `lmdistill.students.Trainable`."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def length(self, view: View) -> tuple[int, int]:
        query = min(self._length(view.source), self.max_query)
        return query, min(self._length(view.target), self.max_length - query)

    def _length(self, text: str) -> int:
        if text not in self._lengths:
            if len(self._lengths) > 1_000_000:
                self._lengths.clear()
            self._lengths[text] = len(self.tokenizer(text[:MOST_CHARACTERS], verbose=False)["input_ids"])
        return self._lengths[text]

    def padded(self, texts: Sequence[str], limit: int) -> tuple[Tensor, Tensor]:
        """Token ids [R, S] and their mask, special tokens included."""
        short = [text[:MOST_CHARACTERS] for text in texts]
        found = self.tokenizer(short, truncation=True, max_length=limit, padding=True, return_tensors="pt")
        return found["input_ids"], found["attention_mask"]

    @torch.no_grad()
    def rerank_all(self, queries: Sequence[str], hits: Sequence[Sequence[Hit]], k: int) -> list[list[Hit]]:
        """See `Reranker.rerank_all`."""
        training = self.training
        self.eval()
        out: list[list[Hit]] = []
        at_once = max(1, self.settings.batch_size // max((len(own) for own in hits), default=1))
        for start in range(0, len(queries), at_once):
            pairs = list(zip(queries[start : start + at_once], hits[start : start + at_once], strict=True))
            views = [[view_of(query, hit) for hit in own] for query, own in pairs]
            if not any(views):
                out += [[] for _ in pairs]
                continue
            ranked: Ranked = self.forward(self.collate([], views).to(self.device))
            for (_, own), scores in zip(pairs, ranked.scores.float().cpu().tolist(), strict=True):
                scored = [Hit(hit.passage, score) for hit, score in zip(own, scores, strict=False)]
                out.append(sorted(scored, key=lambda hit: -hit.score)[: max(k, 0)])
        self.train(training)
        return out

    def rerank(self, query: str, hits: Sequence[Hit], k: int) -> list[Hit]:
        """See `Reranker.rerank`."""
        return self.rerank_all([query], [hits], k)[0]

    # --- files ---

    def save(self, folder: Path) -> None:
        """The encoder as a transformers folder (LoRA merged into it), and what was trained beside it."""
        import copy

        from safetensors.torch import save_file
        from transformers.utils import logging

        logging.disable_progress_bar()
        encoder = self.encoder
        if self.settings.lora_rank:
            encoder = copy.deepcopy(encoder).merge_and_unload()
        encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        save_file(self._beside(), folder / TRAINED)

    def load(self, folder: Path) -> None:
        """Take over the weights of a folder that `save` wrote, in place.

        Raises:
            StoreError: the folder lacks its weights.
        """
        from safetensors.torch import load_file, load_model

        for name in ("model.safetensors", TRAINED):
            if not (folder / name).exists():
                raise StoreError(f"{folder} has no {name}; the checkpoint is not whole. Train again, or copy it again")
        if not self.settings.lora_rank:
            load_model(self.encoder, str(folder / "model.safetensors"))
        beside = load_file(folder / TRAINED)
        self.load_state_dict(beside, strict=False)

    def _beside(self) -> dict[str, Tensor]:
        """Weights that the encoder's folder does not hold: those of other parts, and the adapters."""
        own = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("encoder.")}
        if self.settings.lora_rank:
            own |= {name: p for name, p in self.named_parameters() if p.requires_grad}
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in own.items()}

    def read_beside(self, folder: Path) -> None:
        """On opening a trained folder: the weights of the parts beside the encoder."""
        from safetensors.torch import load_file

        if (folder / TRAINED).exists():
            found = load_file(folder / TRAINED)
            own = {name: tensor for name, tensor in found.items() if not name.startswith("encoder.")}
            self.load_state_dict(own, strict=False)


def view_of(query: str, hit: Hit) -> View:
    return View(query, render.passage_text(hit.passage), "candidate")
