"""Knowledge bases: cutting, near-duplicates, ids, building that is killed, folders that are damaged, every source."""

from __future__ import annotations

import gzip
import json
import sys
import time
import types
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdistill import indexing
from lmdistill.chunking import Chunking, chunks, resemblance, sentences, signature, size
from lmdistill.errors import ConfigError, DataError, MissingExtra, StoreError
from lmdistill.indexing import build
from lmdistill.knowledge import Held, Stored, open_base
from lmdistill.sources import Columns, Document, Skipped, digests, documents
from lmdistill.types import Passage

WHOLE = Chunking(0)


def made(items: Iterable[Document | Skipped], folder: Path, **options: object) -> Stored:
    return build(items, folder, inputs={"source": "x"}, **options)  # type: ignore[arg-type]


def prose(number: int, words: int = 60) -> str:
    return " ".join(f"word{number * 7 + i * i}" for i in range(words)) + "."


# --- cutting ---------------------------------------------------------------------------------------------------------


def test_chunks_are_whole_sentences_that_overlap() -> None:
    text = "A b c. D e f. G h i. J k l."
    assert list(chunks(text, Chunking(6, 1))) == ["A b c. D e f.", "D e f. G h i.", "G h i. J k l."]
    assert list(chunks(text, Chunking(6, 0))) == ["A b c. D e f.", "G h i. J k l."]
    assert list(chunks(text, WHOLE)) == [text]
    assert list(chunks("  \n ", Chunking())) == []


@settings(max_examples=60, deadline=None)
@given(st.text("ab .!?\n。", max_size=400), st.integers(1, 12), st.integers(0, 2))
def test_no_chunk_is_over_the_limit_and_no_word_is_lost(text: str, words: int, overlap: int) -> None:
    found = list(chunks(text, Chunking(words, overlap)))
    assert all(size(one) <= words for one in found)
    # a long word may be cut, so letters are compared: every letter of the text stands in the passages, in order
    letters = "".join(text.split())
    if overlap == 0:
        assert "".join("".join(found).split()) == letters
    else:
        assert len("".join("".join(found).split())) >= len(letters)


def test_ten_megabytes_without_a_blank_are_cut() -> None:
    found = list(chunks("x" * 10_000_000, Chunking(100)))
    assert max(map(len, found)) <= 800
    assert sum(map(len, found)) == 10_000_000


def test_sentences_keep_numbers_and_closing_quotes() -> None:
    assert sentences('It is 3.5 m. "Stop!" he said. 好。很好。') == [
        "It is 3.5 m.",
        '"Stop!"',
        "he said.",
        "好。",
        "很好。",
    ]


def test_chunking_refuses_negative_numbers() -> None:
    with pytest.raises(ConfigError, match="0 or more words"):
        Chunking(-1)


def test_texts_that_resemble_share_a_band_and_others_do_not() -> None:
    words = [f"word{i}" for i in range(100)]
    one, nearly = " ".join(words), " ".join([*words[:50], "changed", *words[51:]])
    # 98 runs of 3 words; 3 of them change on each side: 95 in common of 101.
    assert resemblance(one, nearly) == pytest.approx(95 / 101)
    assert any(signature(one)[1:] == signature(nearly)[1:])
    assert not any(signature(one) == signature(prose(3)))
    assert signature(one)[0] == signature(one.upper() + "!")[0]


# --- building --------------------------------------------------------------------------------------------------------


def test_round_trip_and_rows_by_id(tmp_path: Path) -> None:
    documents = [Document(f"d{i}", prose(i), f"title {i}") for i in range(20)]
    base = made(documents, tmp_path, chunking=WHOLE)
    assert [passage.id for passage in base] == [f"d{i}" for i in range(20)]
    assert base.passage(7) == Passage("d7", prose(7), "title 7")
    assert [base.row(f"d{i}") for i in range(20)] == list(range(20))
    with pytest.raises(DataError, match="no passage 'nobody'"):
        base.row("nobody")
    assert Stored(tmp_path).digest == base.digest


def test_near_duplicates_are_dropped_and_counted_the_first_stays(tmp_path: Path) -> None:
    words = prose(1, 100).split()
    nearly = " ".join([*words[:50], "changed", *words[51:]])
    items = [
        Document("a", " ".join(words)),
        Document("b", prose(2)),
        Document("c", nearly),
        Document("d", prose(2).upper()),
    ]
    base = made(items, tmp_path / "some", chunking=WHOLE)
    assert [passage.id for passage in base] == ["a", "b"]
    assert base.manifest.counts == {"near_duplicates_dropped": 2, "documents": 4, "passages": 2}
    every = made(items, tmp_path / "all", chunking=WHOLE, resemblance_limit=2.0)
    assert len(every) == 4


def test_short_facts_that_differ_in_a_word_all_stay(tmp_path: Path) -> None:
    items = [Document(str(i), f"the creature number{i} is a bird .") for i in range(200)]
    assert len(made(items, tmp_path)) == 200


def test_empty_documents_are_counted_with_their_place(tmp_path: Path) -> None:
    items = [Document("a", prose(1)), Document("b", "  \n", where="x.jsonl:2"), Skipped("no text", "x.jsonl:3")]
    base = made(items, tmp_path, chunking=WHOLE)
    assert len(base) == 1
    assert base.manifest.counts["empty"] == base.manifest.counts["no text"] == 1
    assert base.manifest.facts["first empty"] == "x.jsonl:2"


def test_nothing_usable_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no passage could be made: 1 empty \(first: x:1\)"):
        made([Document("a", "", where="x:1")], tmp_path)


def test_duplicate_ids_keep_their_texts_under_new_ids(tmp_path: Path) -> None:
    items = [Document("a", prose(1)), Document("a", prose(2)), Document("b", prose(3)), Document("a", prose(4))]
    base = made(items, tmp_path, chunking=WHOLE)
    assert [passage.id for passage in base] == ["a", "a~2", "b", "a~3"]
    assert base.passage(base.row("a~3")).text == prose(4)
    assert base.passage(base.row("a")).text == prose(1)
    assert base.manifest.counts["duplicate_ids_renamed"] == 2


def test_what_was_cut_or_dropped_is_found_by_its_own_id(tmp_path: Path) -> None:
    long = " ".join(f"Sentence number {i} tells of thing {i * 7}." for i in range(60))
    items = [Document("long", long), Document("b", prose(2)), Document("twin", prose(2) + "!"), Document("d", prose(4))]
    items += [
        Document("cut", f"{prose(9, 150)} {prose(8, 150)}"),
        Document("cut again", f"{prose(9, 150)} {prose(8, 150)}"),
    ]
    base = made(items, tmp_path)
    assert [base.passage(row).id for row in base.named("long")] == [
        f"long#{i}" for i in range(1, 1 + len(base.named("long")))
    ]
    assert len(base.named("long")) > 2 and base.named("long#2") == [base.named("long")[1]]
    assert base.named("twin") == base.named("b") == [base.row("b")] and base.passage(base.row("b")).names == (
        "b",
        "twin",
    )
    assert base.named("cut again") == base.named("cut") != []
    assert base.named("d") == [base.row("d")] and base.named("nobody") == []
    held = Held(base)
    for name in ("long", "long#2", "twin", "cut again", "d", "nobody"):
        assert held.named(name) == base.named(name)
    with pytest.raises(DataError, match="no passage 'twin'"):
        base.row("twin")


def test_a_new_id_is_never_one_that_is_taken(tmp_path: Path) -> None:
    texts = ["one apple here", "two pears there", "three plums today", "four figs now", "five nuts tonight"]
    names = ["a", "a", "a~2", "a", "a~4"]
    documents = [Document(name, text) for name, text in zip(names, texts, strict=True)]
    base = build(documents, tmp_path, inputs={})
    assert [passage.id for passage in base] == ["a", "a~3", "a~2", "a~5", "a~4"]
    assert [base.passage(base.row(passage.id)).text for passage in base] == texts


def test_a_killed_build_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "SAVE_EVERY", 10)
    items = [Document(f"d{i}", prose(i % 40, 120)) for i in range(60)]
    read: list[int] = []

    def source(stop: int) -> Iterator[Document]:
        for i, item in enumerate(items):
            if i == stop:
                raise KeyboardInterrupt
            read.append(i)
            yield item

    with pytest.raises(KeyboardInterrupt):
        made(source(37), tmp_path / "killed")
    with pytest.raises(StoreError, match="not finished"):
        Stored(tmp_path / "killed")
    state = json.loads((tmp_path / "killed" / "state.json").read_text())
    assert state["documents"] == 30
    again = made(source(1000), tmp_path / "killed")
    whole = made(items, tmp_path / "whole")
    assert list(again) == list(whole)
    assert again.digest == whole.digest
    assert again.manifest.counts == whole.manifest.counts


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    items = [Document("a", prose(1))]
    made(items, tmp_path)
    with pytest.raises(StoreError, match=r"chunking\.words was absent, now 50|chunking was .*words"):
        made(items, tmp_path, chunking=Chunking(50))


# --- opening ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["passages.jsonl", "starts.npy", "ids.npy", "rows.npy"])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, name: str) -> None:
    made([Document(f"d{i}", prose(i)) for i in range(5)], tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StoreError, match=rf"{name} is cut short: [\d,]+ bytes were written"):
        Stored(tmp_path)


def test_a_base_of_an_older_version_is_refused(tmp_path: Path) -> None:
    made([Document("d", prose(1))], tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"]["format"] = 0
    path.write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="has the format 0, this version reads 1"):
        Stored(tmp_path)


def test_what_is_no_base_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="lmdistill index SOURCE --out"):
        Stored(tmp_path)
    with pytest.raises(DataError, match="no knowledge base"):
        open_base(None, ())


def test_opening_reads_no_passage(tmp_path: Path) -> None:
    base = made((Document(f"d{i}", f"text {i} of many") for i in range(20_000)), tmp_path, resemblance_limit=2.0)
    started = time.perf_counter()
    assert Stored(tmp_path).passage(19_999).id == "d19999"
    assert time.perf_counter() - started < 1.0
    assert len(base) == 20_000


def test_held_refuses_two_passages_of_one_id_and_drops_empty_ones() -> None:
    assert len(Held([Passage("a", "x"), Passage("b", " ")])) == 1
    with pytest.raises(DataError, match="two passages have the id 'a'"):
        Held([Passage("a", "x"), Passage("a", "y")])


# --- sources ---------------------------------------------------------------------------------------------------------


def test_jsonl_by_the_usual_names_and_by_given_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"_id": "x", "title": "T", "text": "one"}\n\n{"_id": 7, "text": "two"}\n')
    assert list(documents(str(path))) == [Document("x", "one", "T", "a.jsonl:1"), Document("7", "two", "", "a.jsonl:3")]
    path.write_text('{"key": "k", "says": "three"}\n')
    (found,) = documents(str(path), Columns("key", "says"))
    assert isinstance(found, Document) and (found.id, found.text) == ("k", "three")
    with pytest.raises(DataError, match="which column is the text"):
        list(documents(str(path)))
    with pytest.raises(DataError, match="no column 'say'; did you mean 'says'"):
        list(documents(str(path), Columns(text="say")))


def test_rows_that_cannot_be_used_are_skipped_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"id": "a", "text": "one"}\n{"id": "b", "te\n[1]\n{"id": "c", "text": 5}\n{"id": "d", "text": "two"}\n'
    )
    found = list(documents(str(path)))
    skipped = [one for one in found if isinstance(one, Skipped)]
    assert skipped == [
        Skipped("not a JSON object", "a.jsonl:2"),
        Skipped("not a JSON object", "a.jsonl:3"),
        Skipped("no text", "a.jsonl:4"),
    ]
    assert [one.id for one in found if isinstance(one, Document)] == ["a", "d"]


def test_tsv_knows_no_quotes_and_csv_does(tmp_path: Path) -> None:
    tsv, csv = tmp_path / "a.tsv", tmp_path / "a.csv"
    tsv.write_text('id\ttext\ttitle\n1\tsay "hi\tT\n2\tshort\n3\tlast\tU\n')
    found = list(documents(str(tsv)))
    assert found[0] == Document("1", 'say "hi', "T", "a.tsv:2")
    assert found[1] == Skipped("not 3 columns", "a.tsv:3")
    assert found[2] == Document("3", "last", "U", "a.tsv:4")
    csv.write_text('id,text\n1,"a, b"\n')
    assert next(documents(str(csv)))[:2] == ("1", "a, b")


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a", "b"], "text": ["one", None]}), path)
    assert [type(one) for one in documents(str(path))] == [Document, Skipped]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a whole Parquet file"):
        list(documents(str(path)))


def test_a_folder_of_text_markdown_and_html(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("plain text")
    (tmp_path / "b.md").write_text(
        "---\nx: 1\n---\n# The *Heart*\n\nIt [pumps](http://x.y) **blood**.\n\n- one\n- two\n"
    )
    head = "<head><title>Mice &amp; men</title><style>p{}</style></head>"
    page = f"<html>{head}<body><p>Mice</p><script>x()</script>eat</body></html>"
    (tmp_path / "sub" / "c.html").write_text(page)
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "e.png").write_bytes(b"no text")
    a, b, d, c = documents(str(tmp_path))
    assert a == Document("a.txt", "plain text", "a", "a.txt")
    assert isinstance(b, Document) and b.title == "The *Heart*"
    assert "It pumps blood." in b.text and "http" not in b.text and "x: 1" not in b.text
    assert isinstance(c, Document) and (c.id, c.title, c.text.split()) == ("sub/c.html", "Mice & men", ["Mice", "eat"])
    assert d == Skipped("not UTF-8", "d.txt")


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        documents(str(tmp_path / "nothing.jsonl"))
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(DataError, match="the format 'pdf' is unknown"):
        documents(str(tmp_path / "a.pdf"))
    with pytest.raises(DataError, match="holds no file to read"):
        list(documents(str(tmp_path)))


def test_the_hub_is_streamed_or_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def load_dataset(*arguments: object, **options: object) -> list[dict[str, str]]:
        asked.append((arguments, options))
        return [{"id": "1", "text": "from the hub"}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    (found,) = documents("hub:wikimedia/wikipedia:20231101.en:train")
    assert isinstance(found, Document) and found.text == "from the hub"
    assert asked == [(("wikimedia/wikipedia", "20231101.en"), {"split": "train", "streaming": True})]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"lmdistill\[hub\]"):
        list(documents("hub:any"))


def test_digests_follow_contents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    before = digests(str(tmp_path))
    assert digests(str(tmp_path)) == before
    (tmp_path / "a.txt").write_text("two")
    assert digests(str(tmp_path)) != before


@pytest.mark.parametrize("packed", [False, True])
def test_a_line_that_is_not_utf8_is_counted_and_stops_nothing(tmp_path: Path, packed: bool) -> None:
    lines = [
        b'\xef\xbb\xbf{"id": "a", "text": "one"}',
        b'{"id": "b", "text": "caf\xe9"}',
        b'{"id": "c", "text": "three"}',
    ]
    path = tmp_path / ("x.jsonl.gz" if packed else "x.jsonl")
    path.write_bytes(gzip.compress(b"\n".join(lines)) if packed else b"\n".join(lines))
    found = list(documents(str(path)))
    assert [one.id if isinstance(one, Document) else one for one in found] == [
        "a",
        Skipped("not UTF-8", f"{path.name}:2"),
        "c",
    ]
    for separator, name in ((b"\t", "x.tsv"), (b",", "x.csv")):
        rows = [b"id%stext", b"a%sone", b"b%scaf\xe9", b"c%sthree", b"d%s\xff"]
        (tmp_path / name).write_bytes(b"\n".join(row % separator for row in rows))
        found = list(documents(str(tmp_path / name)))
        assert [one.id for one in found if isinstance(one, Document)] == ["a", "c"]
        assert [one.where for one in found if isinstance(one, Skipped)] == [f"{name}:3", f"{name}:5"]
        (tmp_path / name).write_bytes(b"id\xff%stext\na%sone" % (separator, separator))
        with pytest.raises(DataError, match="the header is not UTF-8"):
            list(documents(str(tmp_path / name)))
