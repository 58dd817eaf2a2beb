"""`lmdistill profile`: what runs' students cost beside how good they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmdistill import config, registry
from lmdistill.cli.main import main


def run(out: Path, preset: str) -> dict[str, Any]:
    """A short training of a student of a size; its report."""
    settings = {
        "task": {"name": "retell", "train": 12, "valid": 0, "test": 6, "events": 1, "verbs": 4, "things": 4},
        "student": {"preset": preset},
        "decoding": {"max_tokens": 6},
        "train": {"steps": 1, "batch_size": 4, "device": "cpu"},
    }
    report = config.build(registry.load("recipes", "finetune"), settings).run(out)
    return {name: one.value for name, one in report.metrics.items()}


def test_students_are_measured_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {name: run(tmp_path / name, name) for name in ("nano", "tiny")}
    (tmp_path / "tiny").rename(tmp_path / "moved")
    quick = ["--prompts", "3", "--new-tokens", "2", "--calls", "2", "--memory", "4000"]
    with pytest.raises(SystemExit) as left:
        main(["profile", str(tmp_path / "nano"), str(tmp_path / "moved"), *quick, "--json",
              "--chart", str(tmp_path / "costs.html")])  # fmt: skip
    assert left.value.code == 0
    small, large = json.loads(capsys.readouterr().out)
    assert small["token_f1"]["value"] == told["nano"]["token_f1"]
    assert small["parameters"] < large["parameters"] and 0 < small["flops"] < large["flops"]
    assert small["prompts"] == 3 and small["latency_ms"] > 0
    page = (tmp_path / "costs.html").read_text()
    assert "<svg" in page and "<style>" in page and str(tmp_path / "moved") in page
    with pytest.raises(SystemExit) as left:
        main(["profile", str(tmp_path)])
    assert left.value.code == 2 and "no report.json" in capsys.readouterr().err
