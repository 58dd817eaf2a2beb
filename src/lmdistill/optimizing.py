"""Optimizers and learning-rate schedules of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lmdistill.errors import ConfigError, did_you_mean
from lmdistill.objectives import Companion
from lmdistill.progress import first_process, note
from lmdistill.train import TrainSettings


def make_optimizer(
    settings: TrainSettings, module: nn.Module, companions: Mapping[str, Companion], rate: float | None = None
) -> torch.optim.Optimizer:
    """The optimizer of a module's trainable parameters and of its joint companions (each at its own rate).

    Weight decay spares biases and normalisation (parameters of one dimension).
    """
    base = settings.learning_rate if rate is None else rate
    groups = _groups(module, base, settings.weight_decay)
    for companion in companions.values():
        if companion.phase == "joint":
            groups += _groups(companion.module, companion.learning_rate or base, settings.weight_decay)
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, lr=base)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=base)
    fused = all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
    return torch.optim.AdamW(groups, lr=base, betas=settings.betas, eps=settings.epsilon, fused=fused)


def _groups(module: nn.Module, rate: float, decay: float) -> list[dict[str, Any]]:
    trainable = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trainable if p.ndim > 1]
    vectors = [p for p in trainable if p.ndim <= 1]
    groups = [{"params": matrices, "lr": rate, "weight_decay": decay}]
    return [group for group in [*groups, {"params": vectors, "lr": rate, "weight_decay": 0.0}] if group["params"]]


def make_schedule(settings: TrainSettings, optimizer: torch.optim.Optimizer, total: int) -> Any:
    """A schedule of transformers by name ('linear', 'cosine', 'constant_with_warmup' ...).

    Raises:
        ConfigError: no schedule of that name.
    """
    from transformers import SchedulerType, get_scheduler

    known = [kind.value for kind in SchedulerType]
    if settings.schedule not in known:
        near = did_you_mean(settings.schedule, known)
        raise ConfigError(f"train.schedule: {settings.schedule!r} is unknown{near} Known: {', '.join(known)}")
    warmup = int(settings.warmup * total) if settings.warmup < 1 else int(settings.warmup)
    if warmup >= total > 0 and first_process():
        note(f"train.warmup: {warmup:,} steps of {total:,}, so the learning rate never reaches its full height")
    return get_scheduler(settings.schedule, optimizer, num_warmup_steps=warmup, num_training_steps=total)


def place_schedule(schedule: Any, step: int) -> None:
    """Put a schedule, and its optimizer's rates, where they stand after `step` steps."""
    schedule.last_epoch = step
    rates = [base * scale(step) for base, scale in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates
