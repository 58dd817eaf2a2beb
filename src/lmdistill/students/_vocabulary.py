"""Vocabularies of from-scratch students: words, trained subwords, or the used part of a given sentencepiece model.

All of them give `pad` 0, `</s>` 1 and `<unk>` 2, as T5 has them, and append `</s>` to every encoded text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lmdistill.errors import ConfigError, StoreError

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
SPACE = "\u2581"
MARKS = [f"<extra_id_{number}>" for number in range(100)]
"""What stands in a text for spans that were left out, one token each: in the vocabulary where the texts show them."""


def build(vocabulary: str, texts: Iterable[str], *, size: int, trim: bool) -> Any:
    """A fast tokenizer (`transformers.PreTrainedTokenizerFast`).

    Args:
        vocabulary: 'word' (tokens between blanks), 'subword' (unigram pieces trained on the texts), the path of a
            sentencepiece model, or of a model's folder whose tokenizer is taken as it is. size: at most this many
            words or subwords. trim: of a sentencepiece model, keep only the pieces that the texts use, and all single
            characters.

    Raises:
        ConfigError: no texts; no such vocabulary. StoreError: the sentencepiece file cannot be read.
    """
    if vocabulary == "word":
        return _wrapped(_words(texts, size))
    shown = _Shown(texts)
    if vocabulary == "subword":
        return _wrapped(_subwords(shown, size), shown.marks)
    path = Path(vocabulary).expanduser()
    if (path / "tokenizer.json").is_file():
        return _taken(path)
    if not path.is_file():
        raise ConfigError(f"student.vocabulary: {vocabulary!r} is neither 'word', 'subword' nor a sentencepiece file")
    made = _pieces(path, shown if trim else None)
    if not trim:
        for _ in shown:  # for its marks alone
            pass
    return _wrapped(made, shown.marks)


class _Shown:
    """Texts, and whether one of those that were read has a mark."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts, self.marks = texts, False

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.marks = self.marks or MARKS[0] in text
            yield text


def _taken(folder: Path) -> Any:
    """The tokenizer of a model in a folder."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    if ids != (0, 1):
        raise ConfigError(
            f"student.vocabulary: {folder} has padding and end at {ids}; a from-scratch student needs 0 and 1. "
            "Start from a pretrained or pruned student.model"
        )
    return tokenizer


def _words(texts: Iterable[str], size: int) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    counts = Counter(word for text in texts for word in text.split())
    if not counts:
        raise ConfigError("student.vocabulary 'word' needs training texts; there are none")
    ranked = sorted(counts, key=lambda word: (word not in MARKS, -counts[word], word))[: size - 3]
    words = [PAD, EOS, UNK, *(word for word in ranked if word not in (PAD, EOS, UNK))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNK))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return tokenizer


def _subwords(texts: Iterable[str], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import Unigram
    from tokenizers.trainers import UnigramTrainer

    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    trainer = UnigramTrainer(vocab_size=size, special_tokens=[PAD, EOS, UNK], unk_token=UNK, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _pieces(path: Path, texts: Iterable[str] | None) -> Any:
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import Unigram

    pieces, charsmap = _read_sentencepiece(path)

    def tokenizer_of(vocabulary: list[tuple[str, float]]) -> Any:
        tokenizer = Tokenizer(Unigram(vocabulary, unk_id=2, byte_fallback=False))
        if charsmap:
            tokenizer.normalizer = normalizers.Precompiled(charsmap)
        metaspace = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
        tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always", split=True)
        return tokenizer

    special = [(PAD, 0.0), (EOS, 0.0), (UNK, pieces[2][1])]
    whole = tokenizer_of([*special, *pieces[3:]])
    if texts is None:
        return whole
    whole.add_special_tokens([PAD, EOS, UNK])
    used: set[str] = set()
    seen: set[str] = set()
    for text in texts:
        if text not in seen:
            seen.add(text)
            used.update(whole.encode(text, add_special_tokens=False).tokens)
    if not used:
        raise ConfigError("student.trim needs training texts; there are none. Set student.trim=false to keep all")
    kept = [piece for piece in pieces[3:] if piece[0] in used or len(piece[0].lstrip(SPACE)) <= 1]
    return tokenizer_of([*special, *kept])


def _read_sentencepiece(path: Path) -> tuple[list[tuple[str, float]], bytes]:
    """Pieces with scores, and the normaliser's character map, of a sentencepiece model."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.Load(str(path))
        pieces = [(processor.IdToPiece(i), processor.GetScore(i)) for i in range(processor.GetPieceSize())]
        charsmap = _charsmap(path.read_bytes())
    except (OSError, RuntimeError, IndexError) as error:
        raise StoreError(f"{path} is not a sentencepiece model ({error})") from error
    ids = (processor.pad_id(), processor.eos_id(), processor.unk_id())
    if ids != (0, 1, 2):
        raise StoreError(f"{path}: pad, end and unknown are pieces {ids}; 0, 1, 2 (as T5 has them) were expected")
    return pieces, charsmap


def _charsmap(model: bytes) -> bytes:
    """The precompiled character map inside a sentencepiece model: field 2 of its field 3 (protobuf wire form)."""
    for number, value in _fields(model):
        if number == 3 and isinstance(value, bytes):
            for inner, content in _fields(value):
                if inner == 2 and isinstance(content, bytes):
                    return content
    return b""


def _fields(message: bytes) -> Iterable[tuple[int, int | bytes]]:
    position = 0

    def varint() -> int:
        nonlocal position
        shift = result = 0
        while True:
            byte = message[position]
            position += 1
            result |= (byte & 127) << shift
            if byte < 128:
                return result
            shift += 7

    while position < len(message):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
            continue
        size = varint() if tag & 7 == 2 else {1: 8, 5: 4}[tag & 7]
        yield tag >> 3, message[position : position + size]
        position += size


def _wrapped(tokenizer: Any, marks: bool = False) -> Any:
    from tokenizers import AddedToken
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    # Through JSON: tokenizers' Python objects share state with the model that trained them.
    ids = {token: tokenizer.token_to_id(token) for token in (PAD, EOS, UNK)}
    assert ids == {PAD: 0, EOS: 1, UNK: 2}, f"the vocabulary has its special tokens at {json.dumps(ids)}"
    if marks:
        tokenizer.add_special_tokens([AddedToken(mark, lstrip=True, rstrip=True, special=True) for mark in MARKS])
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[(EOS, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
        model_max_length=1_000_000,
    )
