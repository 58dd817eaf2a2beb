"""Answers as SQuAD compares them."""

from __future__ import annotations

import re
import string

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalised(text: str) -> str:
    """Lower case, without ASCII punctuation, without articles, white space made single: in that order.

    >>> normalised("  The U.S. Army's\\tan  answer ")
    'us armys answer'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
