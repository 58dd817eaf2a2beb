"""How a training uses the machine and what hears of it: precision, trackers."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from lmdistill.errors import ConfigError, TrainingError, did_you_mean
from lmdistill.train import TrainSettings


def trackers(settings: TrainSettings) -> list[str] | None:
    """The trackers that get the run's numbers, by Accelerate's names.

    Raises:
        ConfigError: an unknown tracker, or one whose package is not installed.
    """
    from accelerate.tracking import get_available_trackers
    from accelerate.utils import LoggerType

    present = {str(kind) for kind in get_available_trackers()}
    for name in settings.report_to:
        known = [kind.value for kind in LoggerType if kind.value != "all"]
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError(f"train.report_to: {name!r} is unknown{near} Known: {', '.join(known)}")
        if name not in present:
            raise ConfigError(f"train.report_to: {name!r} needs its package, which is not installed")
    return list(settings.report_to) or None


def precision(settings: TrainSettings, accelerator: Accelerator, student: nn.Module) -> torch.dtype | None:
    """The autocast type, or None for float32.

    Raises:
        TrainingError: weights in half precision (T5 and its kin overflow there, and losses turn into not-a-number).
    """
    for name, p in student.named_parameters():
        if p.requires_grad and p.dtype in (torch.float16, torch.bfloat16):
            kind = str(p.dtype).removeprefix("torch.")
            raise TrainingError(
                f"the student's weights are {kind} ({name}): small updates are rounded away in it, and T5 overflows in "
                "float16. Open it in float32, as lmdistill's students do, and set train.precision=bf16"
            )
    if settings.precision == "fp32":
        return None
    if settings.precision == "bf16" or accelerator.mixed_precision == "bf16":
        return torch.bfloat16
    capable = accelerator.device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if settings.precision == "auto" and capable else None


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """A run's settings as trackers take them: one level, text values.

    >>> flat({"train": {"steps": 3, "adapter": {"rank": 8}}, "teacher": "transformers", "card": {}})
    {'train.steps': '3', 'train.adapter.rank': '8', 'teacher': 'transformers'}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": str(value)}
    return found


# --- trackers: a run of theirs for each training, open until its student is tested ---

RUN_NAMES = {
    "wandb": "name",
    "mlflow": "run_name",
    "clearml": "task_name",
    "swanlab": "experiment_name",
    "trackio": "name",
}
"""What each tracker calls the name of a run; the others tell runs apart by their folder."""

_open: dict[Path, Accelerator] = {}
"""The training whose trackers are open, by its folder: one at most, as trackers have one run in a process."""


def begin_tracking(
    accelerator: Accelerator, settings: TrainSettings, described: Mapping[str, Any], folder: Path
) -> None:
    """Open the trackers for a training, named by the end of its folder's path."""
    end_tracking()
    name = "/".join(folder.absolute().parts[-4:])
    named = {kind: {RUN_NAMES[kind]: name} for kind in settings.report_to if kind in RUN_NAMES}
    accelerator.init_trackers("lmdistill", config={"run": name, **flat(described)}, init_kwargs=named)
    _open[folder] = accelerator


def track_test(folder: Path, metrics: Mapping[str, float]) -> None:
    """The last thing that trackers hear of a training, or of the one after it beside it: how its student did."""
    for opened, accelerator in _open.items():
        if opened.parent == folder.parent:
            accelerator.log({f"test/{name}": value for name, value in metrics.items()})
            end_tracking()
            return


def end_tracking() -> None:
    """Close the trackers. The processes stay together, for what comes after training."""
    while _open:
        _, accelerator = _open.popitem()
        for tracker in accelerator.trackers:
            tracker.finish()


atexit.register(end_tracking)
