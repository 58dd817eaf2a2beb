"""Learning-rate schedules: what is longer than the run is said."""

from __future__ import annotations

import pytest
import torch

from lmdistill.optimizing import make_schedule
from lmdistill.train import TrainSettings


@pytest.mark.parametrize(
    ("warmup", "total", "told"), [(500, 6, True), (6, 6, True), (5, 6, False), (0.5, 6, False), (0, 6, False)]
)
def test_a_warmup_that_outlasts_the_run_is_told(
    warmup: float, total: int, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    make_schedule(TrainSettings(warmup=warmup), optimizer, total)
    assert ("never reaches its full height" in capsys.readouterr().err) == told
