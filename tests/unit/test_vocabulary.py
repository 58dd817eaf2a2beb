"""Vocabularies of from-scratch students."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmdistill.errors import ConfigError, StoreError
from lmdistill.students import _vocabulary as vocabularies

TEXTS = ["the m3 sits near the m7 .", "yes", "a long enough text to train some pieces on, with 12 numbers and more"]


def test_words_round_trip_and_unknown_words_are_marked() -> None:
    tokenizer = vocabularies.build("word", TEXTS, size=100, trim=False)
    ids = tokenizer("the m7 sits").input_ids
    assert ids[-1] == 1 and tokenizer.decode(ids, skip_special_tokens=True) == "the m7 sits"
    assert tokenizer("the unseen").input_ids[1] == 2
    assert [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id] == [0, 1, 2]


def test_the_commonest_words_are_kept() -> None:
    tokenizer = vocabularies.build("word", ["a a a b b c"], size=5, trim=False)
    assert len(tokenizer) == 5 and tokenizer("a b c").input_ids == [3, 4, 2, 1]


def test_subwords_round_trip() -> None:
    tokenizer = vocabularies.build("subword", TEXTS * 20, size=60, trim=False)
    assert tokenizer.decode(tokenizer("the text yes").input_ids, skip_special_tokens=True) == "the text yes"


def test_no_texts_and_no_such_vocabulary() -> None:
    with pytest.raises(ConfigError, match="needs training texts"):
        vocabularies.build("word", [], size=10, trim=False)
    with pytest.raises(ConfigError, match="'wrod' is neither 'word', 'subword' nor a sentencepiece file"):
        vocabularies.build("wrod", TEXTS, size=10, trim=False)


def test_a_file_that_is_no_sentencepiece_model(tmp_path: Path) -> None:
    path = tmp_path / "spiece.model"
    path.write_bytes(b"not a model")
    with pytest.raises(StoreError, match=r"spiece.model is not a sentencepiece model"):
        vocabularies.build(str(path), TEXTS, size=10, trim=True)


@pytest.mark.real
def test_the_trimmed_vocabulary_cuts_texts_as_the_whole_one_does(real_data: Path) -> None:
    path = str(real_data / "t5_sentencepiece" / "spiece.model")
    texts = ["translate English to German: Hello</s>World", "Ünïcode ﬁne, 12.5 % of it"]
    whole = vocabularies.build(path, (), size=0, trim=False)
    trimmed = vocabularies.build(path, texts, size=0, trim=True)
    assert len(trimmed) < 600 < len(whole) == 32_000
    for text in texts:
        pieces = [tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) for tokenizer in (whole, trimmed)]
        assert pieces[0] == pieces[1]
    assert whole("translate English to German").input_ids[:4] == [13959, 1566, 12, 2968]
