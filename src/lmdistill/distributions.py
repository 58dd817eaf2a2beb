"""Distributions over a vocabulary at every token of a text: live, stored, or from an endpoint, in one type.

Only the `K` most probable tokens are named; `tail` holds what is left over, so that a divergence against them is
bounded instead of silently renormalised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class TokenDistributions:
    """The top of a teacher's distribution at N target tokens of R texts.

    Shapes:
        ids [N, K] int32, most probable first; logprobs [N, K] float32 in nats (natural logarithm, of the whole
        vocabulary); tail [N] float32, the log-probability of all other tokens together; targets [N] int32, the
        text's own tokens; offsets [R + 1] int64, text `r` owns rows `offsets[r]:offsets[r + 1]`.

    `tokenizer_hash` names the vocabulary that `ids` index.
    """

    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    tail: NDArray[np.float32]
    targets: NDArray[np.int32]
    offsets: NDArray[np.int64]
    tokenizer_hash: str

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> TokenDistributions:
        """One text's share, as distributions of a single text."""
        import numpy as np

        start, end = int(self.offsets[row]), int(self.offsets[row + 1])
        offsets = np.asarray([0, end - start], dtype=np.int64)
        own = slice(start, end)
        return TokenDistributions(
            self.ids[own], self.logprobs[own], self.tail[own], self.targets[own], offsets, self.tokenizer_hash
        )

    def __iter__(self) -> Iterator[TokenDistributions]:
        return (self[row] for row in range(len(self)))


def vocabulary_hash(tokenizer: Any) -> str:
    """What names a tokenizer's vocabulary: a digest of its tokens and their numbers; remembered on the tokenizer."""
    known = getattr(tokenizer, "_lmdistill_hash", None)
    size = len(tokenizer)
    if known is None or known[0] != size:
        vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        digest = hashlib.sha256(repr(vocabulary).encode(errors="surrogatepass")).hexdigest()[:16]
        known = (size, digest)
        tokenizer._lmdistill_hash = known
    return str(known[1])
