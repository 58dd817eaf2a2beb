"""SCoTD's run files on recorded answers of real teachers: what they asked for arrives, and the road is walked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmdistill import config
from lmdistill.recipes.scotd import Scotd

pytestmark = pytest.mark.real

EXAMPLES = Path(__file__).parents[2] / "examples" / "scotd"
# For each: rationales asked for, and the share that leads to the gold answer, as the data's own marks say.
RECORDED = {"coin_flip": (1, 0.914), "last_letters": (1, 0.576), "quarel": (5, None), "svamp": (10, None)}
SMALL = ["train.steps=3", "train.eval_every=3", "train.batch_size=8", "valid_limit=6", "decoding.max_tokens=8"]


def recipe(name: str, *sets: str) -> Any:
    return config.build(Scotd, config.load(EXAMPLES / f"{name}.yaml", [*SMALL, *sets]))


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_rationales_arrive_and_wrong_ones_are_set_aside(name: str, real_data: Path, tmp_path: Path) -> None:
    asked, share = RECORDED[name]
    one = recipe(name)
    items = one.items(tmp_path)
    assert len(items) > 300
    given = [len([each for each in (*item.rationales, *item.rejected) if each.raw]) for item in items]
    assert max(given) == asked and sum(given) >= 0.95 * asked * len(items)
    right = [one.task.is_correct(item.example, each.answer) for item in items for each in item.rationales]
    assert right and all(right)
    if share is not None:
        assert sum(bool(item.rationales) for item in items) / len(items) == pytest.approx(share, abs=0.05)
    texts = [each.text for item in items for each in item.rationales]
    assert sum(map(bool, texts)) == len(texts)


def test_the_road_is_walked(real_data: Path, tmp_path: Path) -> None:
    report = recipe("coin_flip").run(tmp_path)
    assert report.metrics["accuracy"].n >= 80
    assert report.facts["rationales"]["asked_per_input"] == 1
    assert (tmp_path / "seed-0" / "train" / "student" / "model.safetensors").exists()
