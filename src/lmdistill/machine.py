"""How a training uses the machine and what hears of it: precision, trackers."""

from __future__ import annotations

from collections.abc import Mapping
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


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings as trackers take them: one level, text values."""
    return {f"{group}.{key}": str(value) for group, own in settings.items() if own for key, value in own.items()}
