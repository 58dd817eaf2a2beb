from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from lmdistill import store
from lmdistill.errors import StoreError
from lmdistill.shared import alone
from lmdistill.types import Example


def run(folder: Path, rows: int = 2, seed: int | None = 0, **settings: object) -> store.Stage:
    with store.stage(folder, "annotate", settings=settings, inputs={"task": "abc"}, seed=seed) as opened:
        if not opened.done:
            opened.count("rows", rows)
            store.write_rows(opened.path(), (Example(str(i), "q") for i in range(rows)))
    return opened


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_stage_is_skipped_and_read(tmp_path: Path) -> None:
    first = run(tmp_path / "s", n=3)
    before = snapshot(tmp_path)
    again = run(tmp_path / "s", rows=99, n=3)
    assert (first.done, again.done) == (False, True)
    assert snapshot(tmp_path) == before
    assert [row.id for row in again.rows(Example)] == ["0", "1"]
    assert again.manifest.counts == {"rows": 2}
    assert again.manifest.status == "complete"
    assert set(again.manifest.versions) >= {"python", "lmdistill", "numpy"}


def test_another_run_is_refused_with_the_settings_that_differ(tmp_path: Path) -> None:
    run(tmp_path / "s", teacher={"name": "openai", "model": "a"}, n=3, gone=None)
    before = snapshot(tmp_path)
    with pytest.raises(StoreError) as caught:
        run(tmp_path / "s", seed=1, teacher={"name": "openai", "model": "b"}, n=3)
    assert str(caught.value) == (
        f"{tmp_path / 's'} belongs to another run: gone was None, now absent; seed was 0, now 1; "
        "teacher.model was 'a', now 'b'. Choose another --out, or remove the folder"
    )
    assert snapshot(tmp_path) == before


def test_long_settings_are_shortened_and_many_counted(tmp_path: Path) -> None:
    run(tmp_path / "s", **{f"k{i}": "x" * 500 for i in range(8)})
    with pytest.raises(StoreError) as caught:
        run(tmp_path / "s", **{f"k{i}": "x" * 499 + "y" for i in range(8)})
    message = str(caught.value)
    assert len(message) < 1500
    assert " and 3 more" in message
    before, now = message.split("; ")[0].split(" was ")[1].split(", now ")
    assert before != now


def test_another_stage_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "s")
    with (
        pytest.raises(StoreError, match=r"holds the stage 'annotate', not 'train'"),
        store.stage(tmp_path / "s", "train", settings={}),
    ):
        raise AssertionError("must not be reached")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_unfinished_work_is_marked_and_taken_up_again(tmp_path: Path, error: type[BaseException]) -> None:
    def broken() -> None:
        with store.stage(tmp_path / "s", "annotate", settings={}, inputs={"task": "abc"}, seed=0) as opened:
            store.write_json(opened.path("cursor.json"), {"at": 7})
            raise error

    with pytest.raises(error):
        broken()
    manifest = store.read_manifest(tmp_path / "s")
    assert manifest is not None
    assert manifest.status == ("interrupted" if error is KeyboardInterrupt else "partial")
    again = run(tmp_path / "s")
    assert not again.done
    assert (tmp_path / "s" / "cursor.json").exists()
    assert run(tmp_path / "s").done


def test_a_stage_may_say_that_it_is_not_finished(tmp_path: Path) -> None:
    with store.stage(tmp_path / "s", "annotate", settings={}) as opened:
        opened.manifest.status = "budget"
    with store.stage(tmp_path / "s", "annotate", settings={}) as opened:
        assert not opened.done


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"stage": "annotate"}', b'{"stage": "a", "settings": 1, "inputs": [1]}'],
)
def test_a_damaged_manifest_stops_the_run_and_nothing_is_overwritten(tmp_path: Path, content: bytes) -> None:
    run(tmp_path / "s")
    (tmp_path / "s" / "manifest.json").write_bytes(content)
    before = snapshot(tmp_path)
    with pytest.raises(StoreError, match=r"manifest\.json is damaged .* remove the folder to make it again"):
        run(tmp_path / "s")
    assert snapshot(tmp_path) == before


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "rows.jsonl").write_text("mine")
    with pytest.raises(StoreError, match=r"holds files that no run of lmdistill wrote \(rows\.jsonl, thesis\.tex\)"):
        run(tmp_path)
    assert snapshot(tmp_path) == {"thesis.tex": b"years of work", "rows.jsonl": b"mine"}
    with pytest.raises(StoreError, match="is a file; --out names a folder"):
        run(tmp_path / "thesis.tex")


def test_what_an_unfinished_write_left_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    (folder / "inner").mkdir(parents=True)
    (folder / ".manifest.json.1.part").write_text("{")
    assert not run(folder).done


def test_a_full_disk_when_the_stage_opens(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / f".manifest.json.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(StoreError, match="No space left on device"):
        run(folder)
    assert not (folder / "rows.jsonl").exists()


def test_a_full_disk_when_the_stage_closes_does_not_hide_the_first_error(tmp_path: Path) -> None:
    folder = tmp_path / "s"

    def broken() -> None:
        with store.stage(folder, "annotate", settings={}):
            (folder / f".manifest.json.{os.getpid()}.part").symlink_to("/dev/full")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    manifest = store.read_manifest(folder)
    assert manifest is not None
    assert manifest.status == "partial"


def test_an_older_manifest_with_fewer_fields_is_still_read(tmp_path: Path) -> None:
    run(tmp_path / "s", n=3)
    path = tmp_path / "s" / "manifest.json"
    value = json.loads(path.read_text())
    for name in ("versions", "threads", "seconds", "facts"):
        del value[name]
    value["from_a_newer_version"] = True
    path.write_text(json.dumps(value))
    assert run(tmp_path / "s", n=3).done


def test_who_comes_second_waits_says_so_and_finds_the_work_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, found = threading.Event(), []

    def second() -> None:
        begun.set()
        with alone(tmp_path / "s"):
            found.append(run(tmp_path / "s").done)

    other = threading.Thread(target=second)
    with alone(tmp_path / "s"):
        other.start()
        begun.wait()
        other.join(0.2)
        assert other.is_alive()
        assert not run(tmp_path / "s").done
    other.join()
    assert found == [True]
    assert "another process works here; waiting" in capsys.readouterr().err


def test_a_stage_that_failed_before_its_first_row_claims_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), store.stage(tmp_path / "s", "annotate", settings={"url": "mistyped"}):
        raise RuntimeError
    assert not run(tmp_path / "s", n=3).done
    assert run(tmp_path / "s", n=3).done
    (tmp_path / "t").mkdir()
    store.write_rows(tmp_path / "t" / "answers.jsonl", [Example("0", "q")])
    (tmp_path / "s" / "manifest.json").rename(tmp_path / "t" / "manifest.json")
    failed = json.loads((tmp_path / "t" / "manifest.json").read_text()) | {"status": "partial"}
    (tmp_path / "t" / "manifest.json").write_text(json.dumps(failed))
    with pytest.raises(StoreError):
        run(tmp_path / "t", n=4)
