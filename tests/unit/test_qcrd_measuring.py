"""The programs that measure QCRD: which cells they take as done, their table, and what they say to a wrong folder."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lmdistill.objectives.quality_judging import QualityJudging
from lmdistill.store import write_rows
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.types import Annotation, Example, Prediction, Rationale

FOLDER = Path(__file__).parents[2] / "benchmarks"


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def options(out: Path, **changes: Any) -> argparse.Namespace:
    own: dict[str, Any] = {"fraction": 1.0, "train": 2000, "nouns": 160, "classes": 10, "preset": "tiny", "steps": 1200}
    own |= {"batch": 64, "refresh_every": 4, "errors": [0.2], "only": ["finetune", "dss", "qcrd"], "seeds": [0, 1, 2]}
    return argparse.Namespace(**own | {"out": out} | changes)


def done(claims: ModuleType, asked: argparse.Namespace, name: str, seed: int, right: list[int]) -> None:
    """A finished cell as a run leaves it."""
    folder = claims.place(asked, name, seed, 0.2)
    kept = claims.settings(name, seed, 0.2, asked) | {"recipe": name, "valid_limit": 500}
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"settings": kept, "facts": {"train_seconds": {str(seed): 9.0}}}))
    rows = [Prediction(Example(str(i), f"{seed} {i}", "yes"), "yes" if one else "no") for i, one in enumerate(right)]
    write_rows(folder / f"seed-{seed}" / "test" / "rows.jsonl", rows)


def test_a_cell_that_was_made_with_other_settings_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = program("qcrd_claims")
    asked = options(tmp_path)
    done(claims, asked, "qcrd", 1, [1, 0])
    folder = claims.place(asked, "qcrd", 1, 0.2)
    assert folder == tmp_path / "error0.2" / "qcrd" / "seed1"
    claims.cell(folder, "qcrd", 1, 0.2, asked)
    for change in ("preset", "steps", "train", "nouns", "classes", "batch", "refresh_every"):
        other = options(tmp_path, **{change: "small" if change == "preset" else 7})
        with pytest.raises(SystemExit) as caught:
            claims.cell(folder, "qcrd", 1, 0.2, other)
        assert caught.value.code == 2
        told = capsys.readouterr().err
        assert str(folder) in told and ("small, not tiny" in told or ": 7, not " in told)


def test_the_table_says_its_regime_and_what_another_training_would_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Differences of 0.5, 0.5 and 0.0 over three seeds: 1/3 +- 4.303 * 0.2887 / sqrt(3) = -0.384 to 1.050."""
    claims = program("qcrd_claims")
    asked = options(tmp_path)
    for seed, (base, qcrd) in enumerate([([0, 0], [1, 0]), ([0, 1], [1, 1]), ([1, 0], [1, 0])]):
        done(claims, asked, "dss", seed, base)
        done(claims, asked, "qcrd", seed, qcrd)
    claims.table(asked)
    told = capsys.readouterr().out
    assert "2,000 questions about 160 nouns in 10 classes, 1,200 steps of 64, a round every 4 epochs" in told
    row = next(line for line in told.splitlines() if line.startswith("| qcrd"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == ["3", "0.667"] and cells[4] == "+0.333" and cells[5] == "-0.384 to +1.050"
    assert cells[6] == "0.500", "two questions differ: of 4 patterns of signs, 2 are as large"


def test_scores_of_a_folder_that_has_none_are_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program("qcrd_scores")
    module = sys.modules["qcrd_scores"]

    def called() -> str:
        sys.argv[1:] = [str(tmp_path)]
        with pytest.raises(SystemExit) as caught:
            module.main()
        assert caught.value.code == 2
        return capsys.readouterr().err

    argv = list(sys.argv)
    try:
        assert "no rounds/" in called()
        row = Annotation(Example("1", "x", "yes"), (Rationale("so", "yes"),), negatives=(Rationale("no", "no"),))
        write_rows(tmp_path / "rounds" / "round-0000.jsonl", [row])
        assert "contrast.judge: null" in called()
        row = replace(row, rationales=(Rationale("so", "yes", scores={"quality": 0.9}),), negatives=())
        write_rows(tmp_path / "rounds" / "round-0000.jsonl", [row])
        sys.argv[1:] = [str(tmp_path), "--items", str(tmp_path / "none.jsonl")]
        with pytest.raises(SystemExit) as caught:
            module.main()
        assert caught.value.code == 2 and "no such file" in capsys.readouterr().err
        student = Seq2seq().open(["yes no so x ."], seed=0)
        QualityJudging().companion(student).module.save(tmp_path / "student" / "companion-judge")  # type: ignore[operator]
        rows = [replace(row, rejected=(Rationale("no .", "no"),))]
        sys.argv[3] = str(tmp_path / "rows.jsonl")
        write_rows(tmp_path / "rows.jsonl", rows)
        module.main()
        assert "1 right and 1 wrong rationales, AUC" in capsys.readouterr().out
    finally:
        sys.argv[:] = argv
