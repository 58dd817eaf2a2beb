"""Low-rank adapters (LoRA, through peft) inside a student: only they are trained, and saving merges them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmdistill.errors import ConfigError, MissingExtra, StoreError

PREFIX = "base_model.model."
"""What peft puts before the names in its own files."""


@dataclass(frozen=True)
class Lora:
    """Adapters of a `rank` on the linear layers that `targets` names ('all-linear': all but the vocabulary head)."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    targets: tuple[str, ...] = ("all-linear",)

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(f"lora: rank {self.rank} must be at least 1, dropout {self.dropout} in [0, 1)")


def add(model: Any, lora: Lora | None, seed: int) -> None:
    """Put fresh adapters into a model, in place, and freeze everything else; they change nothing before training.

    Raises:
        MissingExtra: peft is not installed. ConfigError: no layer has one of the names.
    """
    if lora is None:
        return
    try:
        import peft
    except ModuleNotFoundError as error:
        raise MissingExtra("peft", "lora", "student.lora") from error
    import torch

    targets = lora.targets[0] if lora.targets == ("all-linear",) else list(lora.targets)
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(config, model)
        except ValueError as error:
            raise ConfigError(f"student.lora.targets: {str(error).splitlines()[0]}") from error


def _layers(model: Any) -> dict[str, Any]:
    """The layers that carry an adapter, by name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}


def merged(model: Any) -> dict[str, Any] | None:
    """The model's weights with its adapters added, under the names they have without any; None where it has none."""
    layers = _layers(model)
    if not layers:
        return None
    weights = {}
    for name, tensor in model.state_dict().items():
        owner, base, last = name.partition(".base_layer.")
        if owner in layers and last == "weight":
            weights[f"{owner}.{last}"] = tensor + layers[owner].get_delta_weight("default").to(tensor.dtype)
        elif base:
            weights[f"{owner}.{last}"] = tensor
        elif ".lora_" not in name:
            weights[name] = tensor
    return weights


def save(model: Any, folder: Path) -> None:
    """Write the adapters alone, as peft reads them; nothing where there are none."""
    layers = _layers(model)
    if not layers:
        return
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if ".lora_" in name}
    named = {PREFIX + name.replace(".default.", "."): tensor for name, tensor in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    next(iter(model.peft_config.values())).save_pretrained(folder)


def load(model: Any, folder: Path) -> bool:
    """Take over saved adapters in place; False where the model has none.

    Raises:
        StoreError: the model has adapters, and the folder lacks theirs.
    """
    layers = _layers(model)
    if not layers:
        return False
    import torch
    from safetensors.torch import load_file

    path = folder / "adapter_model.safetensors"
    if not path.exists():
        raise StoreError(f"{path} is missing; the checkpoint is not whole. Train again, or copy it again")
    saved = load_file(path)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".lora_" in name:
                p.copy_(saved[PREFIX + name.replace(".default.", ".")])
    return True
