"""The state of a training run on disk: written whole or not at all, tensors in safetensors, the rest in JSON."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmdistill.errors import StoreError
from lmdistill.store import write_json
from lmdistill.types import Completion, Sampling


@dataclass
class Cursor:
    """Where a run stands: `step` optimizer steps are done, `round` is the last one whose items are ready."""

    step: int = 0
    round: int = -1
    best: float | None = None
    best_step: int = 0
    misses: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)


class SnapshotRing:
    """Past trainable weights by round, in reduced precision on the CPU; the oldest makes room for the newest."""

    def __init__(self, size: int, dtype: torch.dtype = torch.bfloat16) -> None:
        self.size, self.dtype = size, dtype
        self.weights: dict[int, dict[str, Tensor]] = {}

    def push(self, round: int, module: nn.Module) -> None:
        """Keep the module's trainable parameters as those of a round."""
        if not self.size:
            return
        kept = {name: p.detach().to("cpu", self.dtype) for name, p in module.named_parameters() if p.requires_grad}
        self.weights[round] = {name: tensor.clone() for name, tensor in kept.items()}
        for old in sorted(self.weights)[: -self.size]:
            del self.weights[old]

    @contextlib.contextmanager
    def worn(self, round: int, module: nn.Module) -> Iterator[None]:
        """Within it, the module wears the weights of a round.

        Raises:
            KeyError: the round is not in the ring.
        """
        past = self.weights[round]
        parameters = {name: p for name, p in module.named_parameters() if name in past}
        present = {name: p.detach().clone() for name, p in parameters.items()}
        try:
            with torch.no_grad():
                for name, p in parameters.items():
                    p.copy_(past[name])
            yield
        finally:
            with torch.no_grad():
                for name, p in parameters.items():
                    p.copy_(present[name])


class Lagged:
    """A generator that wears a past round's weights while it writes."""

    def __init__(self, student: Any, ring: SnapshotRing, round: int) -> None:
        self.student, self.ring, self.round = student, ring, round

    def generate(self, prompts: Sequence[str], sampling: Sampling, **options: Any) -> list[list[Completion]]:
        """See `lmdistill.students.Student.generate`."""
        with self.ring.worn(self.round, self.student):
            completions: list[list[Completion]] = self.student.generate(prompts, sampling, **options)
        return completions


@contextlib.contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder` that takes its place on success.

    Raises:
        StoreError: the disk is full, the folder cannot be written; what was there before is kept.
    """
    temporary = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except StoreError:
        raise
    except Exception as error:
        # safetensors has an error type of its own for a full disk
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise StoreError(f"cannot write {folder}: {error}; what was there before is kept") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_state(
    folder: Path,
    module: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    ring: SnapshotRing,
    cursor: Cursor,
) -> None:
    """Write `folder/step-N` and remove all but the newest two."""
    from safetensors.torch import save_file

    with writing_folder(folder / f"step-{cursor.step:08d}") as temporary:
        save_file(_unshared(module.state_dict()), temporary / "weights.safetensors")
        for name, optimizer in optimizers.items():
            tensors, rest = _split(optimizer.state_dict())
            save_file(tensors, temporary / f"optimizer-{name}.safetensors")
            write_json(temporary / f"optimizer-{name}.json", rest)
        for round, weights in ring.weights.items():
            save_file(_unshared(weights), temporary / f"ring-{round}.safetensors")
        write_json(temporary / "cursor.json", asdict(cursor))
    for old in sorted(folder.glob("step-*"))[:-2]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(
    folder: Path,
    module: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    ring: SnapshotRing,
) -> Cursor:
    """Read the newest whole state below `folder` into the arguments; a fresh cursor where there is none.

    Raises:
        StoreError: a state folder lacks a file, or one is damaged.
    """
    from safetensors.torch import load_file

    states = sorted(folder.glob("step-*"))
    if not states:
        return Cursor()
    newest = states[-1]
    try:
        _load_weights(module, load_file(newest / "weights.safetensors"))
        for name, optimizer in optimizers.items():
            rest = json.loads((newest / f"optimizer-{name}.json").read_text(encoding="utf-8"))
            optimizer.load_state_dict(_joined(load_file(newest / f"optimizer-{name}.safetensors"), rest))
        for path in newest.glob("ring-*.safetensors"):
            ring.weights[int(path.stem.removeprefix("ring-"))] = load_file(path)
        return Cursor(**json.loads((newest / "cursor.json").read_text(encoding="utf-8")))
    except Exception as error:
        message = (
            f"the checkpoint {newest} cannot be read ({error}); remove that folder to go on from the one before it"
        )
        raise StoreError(message) from error


def _load_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights that were saved under one name for each storage: what is missing must be tied to what is there."""
    result = module.load_state_dict(weights, strict=False)
    own = module.state_dict()
    loaded = {own[name].data_ptr() for name in weights if name in own}
    lacking = [name for name in result.missing_keys if own[name].numel() and own[name].data_ptr() not in loaded]
    if lacking or result.unexpected_keys:
        raise KeyError(f"weights missing: {lacking[:3]}, unexpected: {result.unexpected_keys[:3]}")


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One name for each storage (tied weights), contiguous: what safetensors takes."""
    seen: dict[tuple[Any, ...], str] = {}
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.storage_offset(), tensor.shape)
        if tensor.numel() and key in seen:
            continue
        seen[key] = name
        out[name] = tensor.detach().cpu().contiguous()
    return out


def _split(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors by 'parameter.name' and the JSON rest."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for parameter, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{parameter}.{name}"] = value.detach().cpu().clone()
            else:
                scalars.setdefault(str(parameter), {})[name] = value
    return tensors, {"groups": state["param_groups"], "scalars": scalars}


def _joined(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(p): dict(values) for p, values in rest["scalars"].items()}
    for key, tensor in tensors.items():
        parameter, _, name = key.partition(".")
        state.setdefault(int(parameter), {})[name] = tensor
    return {"state": state, "param_groups": rest["groups"]}


def swap_in(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder that then takes the place of `folder` as a whole."""
    with writing_folder(folder) as temporary:
        write(temporary)
