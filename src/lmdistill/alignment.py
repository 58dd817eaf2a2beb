"""Pieces of one text by two tokenizers, side by side by edit distance; a teacher's few log-probabilities with them.

An endpoint names its tokens as texts and gives each the logarithms of a few alternatives; the student cuts the same
text otherwise. Where a student token stands beside a teacher token, the teacher's alternatives become a distribution
over the student's tokens; elsewhere the student's own token is a hard target. Tokens are compared as bytes, so that
vocabularies of bytes and of characters meet in any script.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from lmdistill.distributions import TokenDistributions, vocabulary_hash
from lmdistill.errors import DataError
from lmdistill.types import TokenLogprob

MARKS = ("\u2581", "\u0120", " ")
"""How tokenizers write the blank before a word: sentencepiece, byte-level BPE, and as it is."""
HARD = -1e-6
"""The log-probability of a hard target, as the authors of KD4Gen write it."""
SURE = -69.0


def plain(token: str) -> str:
    """A token's text without the mark of a word's beginning, and byte-level line breaks as they are.

    >>> plain("\u2581cat"), plain("\u0120cat"), plain(" cat"), plain("cat")
    ('cat', 'cat', 'cat', 'cat')
    """
    text = token.replace("\u010a", "\n")
    for mark in MARKS:
        text = text.removeprefix(mark)
    return text


def align(student: Sequence[str], teacher: Sequence[str]) -> list[int | None]:
    """For each student token the place of the teacher token beside it, or None.

    Tokens are put side by side at the least number of edits (insert, delete, replace: 1 each; of equal paths the one
    that pairs more tokens from the end backwards). A pair counts where the tokens are equal or one is the other's
    beginning; so of a word that the student cuts in two, the first piece has the teacher's token and the second none.

    >>> align(["the", "cat", "sat"], ["the", "cat", "sat"])
    [0, 1, 2]
    >>> align(["un", "believ", "able"], ["unbeliev", "able"])
    [0, None, 1]
    """
    ours, theirs = [plain(token) for token in student], [plain(token) for token in teacher]
    n, m = len(ours), len(theirs)
    cost = [[0.0] * (m + 1) for _ in range(n + 1)]
    for i in range(n + 1):
        for j in range(m + 1):
            if not i or not j:
                cost[i][j] = float(i + j)
                continue
            swap = cost[i - 1][j - 1] + _distance(ours[i - 1], theirs[j - 1])
            cost[i][j] = min(swap, cost[i - 1][j] + 1, cost[i][j - 1] + 1)
    pairs: list[int | None] = [None] * n
    i, j = n, m
    while i and j:
        distance = _distance(ours[i - 1], theirs[j - 1])
        if cost[i][j] == cost[i - 1][j - 1] + distance:
            pairs[i - 1] = j - 1 if distance < 1 else None
            i, j = i - 1, j - 1
        elif cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
        else:
            j -= 1
    return pairs


def _distance(ours: str, theirs: str) -> float:
    """0 for equal tokens, a half where one begins the other (a replacement that still is a match), 1 else."""
    if ours == theirs:
        return 0.0
    return 0.5 if ours and theirs and (ours.startswith(theirs) or theirs.startswith(ours)) else 1.0


def from_logprobs(
    tokens: Sequence[TokenLogprob], labels: Sequence[int], tokenizer: Any, *, top: int = 5
) -> TokenDistributions:
    """An endpoint's top log-probabilities of a text as distributions over the student's tokens of the same text.

    Of each aligned teacher token the chosen one's probability is that of the student's own token, and those
    alternatives that are one token of the student's vocabulary (with the same beginning-of-word mark as the student's
    token has) are kept; together they are renormalised. Unmatched and unknown tokens, and those without an alternative,
    are hard targets: the student's own token.

    Args:
        tokens: the completion's tokens. labels: the student's token ids of the same text, its end included.

    Raises:
        DataError: there are no log-probabilities; a positive or not-a-number one.
    """
    if not tokens:
        raise DataError("the completion has no log-probabilities of its tokens; ask the endpoint for them (logprobs)")
    return _over_labels(tokens, labels, tokenizer, top)


def hard(labels: Sequence[int], tokenizer: Any, *, top: int = 5) -> TokenDistributions:
    """A text of which no log-probabilities are known, as distributions that are sure of its own tokens."""
    return _over_labels((), labels, tokenizer, top)


def _over_labels(tokens: Sequence[TokenLogprob], labels: Sequence[int], tokenizer: Any, top: int) -> TokenDistributions:
    import numpy as np

    pieces = Pieces.of(tokenizer)
    end, unknown = tokenizer.eos_token_id, tokenizer.unk_token_id
    own = [pieces.texts[label] for label in labels]
    coded = _coded(tokens)
    places = align(
        [text for text, label in zip(own, labels, strict=True) if label != end],
        [raw(token.token, coded) for token in tokens],
    )
    ids = np.zeros((len(labels), top), dtype=np.int32)
    logprobs = np.full((len(labels), top), SURE, dtype=np.float32)
    for row, label in enumerate(labels):
        place = places[row] if row < len(places) else None
        known = {label: HARD}
        if place is not None and label != unknown:
            known = _known(tokens[place], label, pieces, coded)
        best = sorted(known.items(), key=lambda one: (one[0] != label, -one[1]))[:top]
        best.sort(key=lambda one: -one[1])
        total = math.log(sum(math.exp(value) for _, value in best)) if len(best) > 1 else 0.0
        for column, (token, value) in enumerate(best):
            ids[row, column], logprobs[row, column] = token, value - total if len(best) > 1 else HARD
        _fill(ids[row], len(best), len(pieces.texts))
    tail = np.full(len(labels), SURE, dtype=np.float32)
    offsets = np.asarray([0, len(labels)], dtype=np.int64)
    return TokenDistributions(
        ids, logprobs, tail, np.asarray(labels, dtype=np.int32), offsets, vocabulary_hash(tokenizer)
    )  # fmt: skip


def _known(token: TokenLogprob, label: int, pieces: Pieces, coded: bool) -> dict[int, float]:
    """The log-probabilities of the student's tokens: the chosen one's is that of the student's own token."""
    mark = " " if pieces.texts[label].startswith(" ") else ""
    found: dict[int, float] = {}
    for text, value in ((token.token, token.logprob), *token.top):
        if not value <= 1e-3:
            raise DataError(f"log-probability {value} of token {text!r}: expected a number of at most 0")
        place = label if text == token.token else pieces.numbers.get(mark + plain(raw(text, coded)))
        if place is not None:
            found[place] = max(value, found.get(place, -math.inf))
    return found


# --- tokens as bytes -------------------------------------------------------------------------------------------------


class Pieces(NamedTuple):
    """A vocabulary with each token as the bytes that it stands for (one character a byte), a blank as a blank."""

    texts: dict[int, str]
    numbers: dict[str, int]

    @classmethod
    def of(cls, tokenizer: Any) -> Pieces:
        """Those of a tokenizer; remembered on it."""
        known: tuple[int, Pieces] | None = getattr(tokenizer, "_lmdistill_pieces", None)
        if known is None or known[0] != len(tokenizer):
            coded = byte_level(tokenizer)
            texts = {number: raw(token, coded) for token, number in tokenizer.get_vocab().items()}
            numbers: dict[str, int] = {}
            for number in sorted(texts):
                numbers.setdefault(texts[number], number)
            known = (len(tokenizer), cls(texts, numbers))
            tokenizer._lmdistill_pieces = known
        return known[1]


def byte_level(tokenizer: Any) -> bool:
    """Whether a tokenizer writes each byte as a character (GPT-2, Llama 3, Qwen)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hasattr(tokenizer, "byte_decoder")
    return "ByteLevel" in f"{backend.decoder!r} {backend.pre_tokenizer!r}"


def raw(token: str, coded: bool) -> str:
    """The UTF-8 bytes of a token as characters below 256; `coded`: its characters already stand for bytes.

    >>> raw("\u2581cat", False), raw("\u0120cat", True), raw("<0x0A>", False), raw("bytes:\\\\xc3", False)
    (' cat', ' cat', '\\n', '\xc3')
    """
    if coded and all(character in BYTES for character in token):
        return "".join(BYTES[character] for character in token)
    text = re.sub("^[\u2581\u0120]", " ", token.replace("\u010a", "\n"))
    if named := _BYTE.fullmatch(text):
        return "".join(chr(int(number, 16)) for number in re.findall("x([0-9A-Fa-f]{2})", named[0]))
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def _coded(tokens: Sequence[TokenLogprob]) -> bool:
    """Whether a teacher's tokens are written byte by byte: a blank or a line break among them is not itself."""
    every = "".join(text for token in tokens for text in (token.token, *(other for other, _ in token.top)))
    return ("\u0120" in every or "\u010a" in every) and " " not in every and "\n" not in every


_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>|bytes:(?:\\x[0-9A-Fa-f]{2})+")
"""How sentencepiece, and OpenAI's endpoint, write tokens that are bytes and no text."""


def _byte_characters() -> dict[str, str]:
    """The character of each byte in byte-level vocabularies: itself where it can be seen, one from 256 on elsewhere."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte if byte in seen else 256 + hidden.index(byte)): chr(byte) for byte in range(256)}


BYTES = _byte_characters()


def _fill(row: Any, used: int, size: int) -> None:
    """Put distinct unused token ids into the rest of a row: their probability is nothing."""
    taken = set(row[:used].tolist())
    spare = (token for token in range(size) if token not in taken)
    for column in range(used, len(row)):
        row[column] = next(spare, row[0])
