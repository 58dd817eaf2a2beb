"""The inside of `lmdistill.train`: one step after another, rounds, evaluation, checkpoints."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from lmdistill.batching import Batches, Laid
from lmdistill.checkpoint import Lagged, SnapshotRing, load_state, save_state, swap_in
from lmdistill.errors import ConfigError, TrainingError
from lmdistill.machine import begin_tracking, precision, trackers
from lmdistill.objectives import Companion, Objective, Round
from lmdistill.optimizing import make_optimizer, make_schedule, place_schedule
from lmdistill.progress import progress
from lmdistill.registry import name_of
from lmdistill.store import Rows, Stage, seed_for, write_json, write_rows, write_text
from lmdistill.students import Batch
from lmdistill.train import CARD, Trained, TrainSettings, Validate, total_steps

HELD = 20_000
"""Up to this many items of a round are held in memory; more are read from their file when their turn comes."""


class Step(nn.Module):
    """Student and joint companions with the objective's loss inside: the only thing that is wrapped for processes."""

    def __init__(self, student: nn.Module, companions: Mapping[str, Companion], objective: Objective, teacher: Any):
        super().__init__()
        self.student = student
        self.companions = nn.ModuleDict({name: one.module for name, one in companions.items() if one.phase == "joint"})
        self.objective, self.teacher = objective, teacher

    def forward(self, batch: Batch, done: float, counts: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss of a micro-batch and its parts' totals; `counts` are those of the whole step."""
        parts = self.objective.loss(self.student, self.teacher, batch, done)
        if not parts.keys() <= counts.keys():
            owner = name_of(self.objective)
            raise TrainingError(f"objective {owner!r}: loss has parts {sorted(parts)}, counts has {sorted(counts)}")
        terms = [part.weight * part.total / max(counts[name], 1e-12) for name, part in parts.items()]
        return torch.stack(terms).sum(), {name: part.total.detach() for name, part in parts.items()}


class Loop:
    """One training run; see `lmdistill.train.train` for its arguments."""

    def __init__(
        self,
        student: Any,
        objective: Objective,
        items: Sequence[Any],
        settings: TrainSettings,
        opened: Stage,
        validate: Validate | None,
        teacher: Any,
        seed: int,
        card: Mapping[str, Any],
    ) -> None:
        self.settings, self.objective, self.opened, self.seed = settings, objective, opened, seed
        self.student, self.validate, self.teacher, self.card = student, validate, teacher, card
        cpu = settings.device == "cpu"
        self.accelerator = Accelerator(cpu=cpu, log_with=trackers(settings), project_dir=opened.folder)
        self.cast = precision(settings, self.accelerator, student)
        student.to(self.accelerator.device)
        self.base = self._usable(items)
        self._tell_of_cuts()
        objective.check(student, teacher, self.base)
        torch.manual_seed(seed_for(seed, "companions"))
        self.companions = objective.companions(student)
        for companion in self.companions.values():
            companion.module.to(self.accelerator.device)
        self.step = Step(student, self.companions, objective, teacher)
        self.optimizers = {"student": make_optimizer(settings, student, self.companions)}
        for name, companion in self.companions.items():
            if companion.phase == "own":
                companion.optimizer = make_optimizer(settings, companion.module, {}, companion.learning_rate)
                self.optimizers[name] = companion.optimizer
        self.ring = SnapshotRing(objective.lags + 1 if objective.lags else 0)
        self.batches = self._batches(self.base)
        self.laid = -1  # the round whose items `batches` has
        self.total = total_steps(settings, self.batches.steps_per_epoch)
        own = {f"own_{name}": one.module for name, one in self.companions.items() if one.phase == "own"}
        self.all = nn.ModuleDict({"step": self.step, **own})
        states = opened.folder / "state"
        self.schedule = make_schedule(settings, self.optimizers["student"], self.total)
        self.cursor = load_state(states, self.all, self.optimizers, self.ring)
        place_schedule(self.schedule, self.cursor.step)
        self.wrapped = self.accelerator.prepare_model(self.step) if self.accelerator.num_processes > 1 else self.step

    # --- the run ---

    def run(self) -> Trained:
        """Train to the end, or on from where a killed run stopped."""
        if self.settings.report_to:
            begin_tracking(self.accelerator, self.settings, self.opened.manifest.settings, self.opened.folder)
        started, before = time.monotonic(), self.cursor.seconds
        self.wrapped.train()
        with progress("train", self.total, "steps", done=self.cursor.step) as bar:
            while self.cursor.step < self.total and not self._out_of_patience():
                self._enter_round()
                loss, norm = self._update()
                self.cursor.step += 1
                self.cursor.seconds = before + time.monotonic() - started
                bar.advance(loss=round(loss, 4))
                self._log(loss, norm)
                self._evaluate()
                if self.cursor.step % self.settings.save_every == 0:
                    self._save_state()
        return self._finish()

    def _update(self) -> tuple[float, float]:
        """One optimizer step; the loss and the gradient's norm."""
        step = self.cursor.step
        torch.manual_seed(seed_for(self.seed, "step", step, self.accelerator.process_index))
        round = self._round()
        micro = self.batches.step(step)
        prepared = [self.objective.prepare(self._collate(laid), round) for laid in micro]
        if len(prepared) > 1 and not self.objective.decomposes:
            raise TrainingError(
                f"objective {name_of(self.objective)!r} compares the rows of a whole batch, so a step of "
                f"{self.settings.batch_size} items must fit into one: raise train.tokens_per_batch"
            )
        counts = self._counts(prepared)
        loss = torch.zeros((), device=self.accelerator.device)
        for index, batch in enumerate(prepared):
            last = index == len(prepared) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                with self._autocast():
                    share, _ = self.wrapped(batch, step / max(self.total, 1), counts)
                # Processes average their gradients, but the counts are already those of all of them.
                self.accelerator.backward(share * self.accelerator.num_processes)
            loss += share.detach()
        value = float(self.accelerator.reduce(loss)) if self.accelerator.num_processes > 1 else float(loss)
        norm = float(nn.utils.clip_grad_norm_(self.step.parameters(), self.settings.clip or math.inf))
        if not math.isfinite(value) or not math.isfinite(norm):
            self._explain(prepared, value, norm)
        self.optimizers["student"].step()
        self.schedule.step()
        self.optimizers["student"].zero_grad(set_to_none=True)
        return value, norm

    def _counts(self, prepared: Sequence[Batch]) -> dict[str, float]:
        """Denominators of the step, summed over micro-batches and processes."""
        return self._summed(*(self.objective.counts(batch) for batch in prepared))

    def _summed(self, *every: Mapping[str, float]) -> dict[str, float]:
        """Numbers by name, summed over all of them and all processes."""
        gathered = gather_object(list(every)) if self.accelerator.num_processes > 1 else every
        counts: dict[str, float] = {}
        for own in gathered:
            for name, count in own.items():
                counts[name] = counts.get(name, 0) + count
        return counts

    def _collate(self, laid: Sequence[Laid]) -> Batch:
        batch: Batch = self.student.collate([one.item for one in laid], [one.views for one in laid])
        return batch.to(self.accelerator.device)

    def _autocast(self) -> Any:
        return torch.autocast(self.accelerator.device.type, dtype=self.cast, enabled=self.cast is not None)

    def _explain(self, batches: Sequence[Batch], loss: float, norm: float) -> None:
        """Name what is not finite; the checkpoint before this step is kept."""
        bad = [name for name, p in self.student.named_parameters() if not bool(p.isfinite().all())]
        slopes = [
            n for n, p in self.student.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())
        ]
        ids = [item.id for batch in batches for item in batch.items][:3]
        where = f"weight {bad[0]}" if bad else f"gradient of {slopes[0]}" if slopes else "loss"
        raise TrainingError(
            f"step {self.cursor.step}: loss {loss}, gradient norm {norm}; first not finite: {where} (items {ids} ...). "
            f"Lower train.learning_rate (now {self.settings.learning_rate:g}), keep train.clip on, or set "
            "train.precision=fp32; a checkpoint from before this step is in the folder's state/"
        )

    # --- rounds ---

    def _enter_round(self) -> None:
        """At the start of a round: keep the weights, let the objective make new items, share them, learn from them."""
        if not self.objective.refreshes and not self.ring.size:
            return
        index = self.cursor.step // (self.batches.steps_per_epoch * self.settings.refresh_every)
        path = self.opened.folder / "rounds" / f"round-{index:04d}.jsonl"
        if index > self.cursor.round:
            self.cursor.round = index
            torch.manual_seed(seed_for(self.seed, "round", index, self.accelerator.process_index))
            self.ring.push(index, self.student)
            if self.objective.refreshes:
                self._refresh(path)
            self._save_state()
        if self.objective.refreshes and index != self.laid:
            self.laid = index
            rows = Rows(path, type(self.base[0]))
            self.batches = self._batches(list(rows) if len(rows) <= HELD else rows)

    def _refresh(self, path: Path) -> None:
        """Each process refreshes its share of the items; all of them read, and learn from, the union."""
        started = time.monotonic()
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        round = self._round()
        fresh = self.objective.refresh([self.base[i] for i in range(rank, len(self.base), processes)], round)
        shard = path.with_suffix(f".{rank}.jsonl")
        write_rows(shard, fresh)
        self.accelerator.wait_for_everyone()
        shards = [list(Rows(path.with_suffix(f".{r}.jsonl"), type(self.base[0]))) for r in range(processes)]
        union = [shards[i % processes][i // processes] for i in range(len(self.base))]
        sampled = time.monotonic()
        notes = self._summed(round.notes)
        torch.manual_seed(seed_for(self.seed, "learn", round.index))  # the same on every process
        round.notes = dict(notes)  # those of all processes, so that every one of them knows the whole
        learned = self.objective.learn(union, round)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            write_rows(path, learned)
        shard.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        seconds = {"refresh_seconds": sampled - started, "learn_seconds": time.monotonic() - sampled}
        told = {name: round_seconds(one) for name, one in seconds.items()} | round.notes
        self.cursor.rounds.append({"round": round.index, **told})
        self.cursor.history.append({"step": self.cursor.step, "round": round.index, **told})
        self.accelerator.log({f"round/{name}": value for name, value in told.items()}, step=self.cursor.step)

    def _round(self) -> Round:
        """What `refresh`, `learn` and `prepare` may use now."""
        return Round(
            index=max(self.cursor.round, 0),
            seed=self.seed,
            step=self.cursor.step,
            progress=self.cursor.step / max(self.total, 1),
            sampler=self._sampler,
            companions=self.companions,
            student=self.student,
        )

    def _sampler(self, lag: int) -> Any:
        """The student with the weights of `lag` rounds ago, or None before there were any."""
        if lag == 0:
            return self.student
        past = self.cursor.round - lag
        return Lagged(self.student, self.ring, past) if past in self.ring.weights else None

    # --- evaluation and checkpoints ---

    def _evaluate(self) -> None:
        """Validate when it is time; a better score replaces the chosen student."""
        step = self.cursor.step
        due = step % self.settings.eval_every == 0 or step == self.total
        if self.validate is None or not due:
            return
        metrics = self._validated()
        name = self.settings.select or next(iter(metrics))
        if name not in metrics:
            raise ConfigError(f"train.select: {name!r} is not among the validation metrics {', '.join(metrics)}")
        score = metrics[name] if self.settings.direction == "max" else -metrics[name]
        self.cursor.history.append({"step": step, "seconds": round_seconds(self.cursor.seconds), **metrics})
        self.accelerator.log({f"valid/{key}": value for key, value in metrics.items()}, step=step)
        if self.cursor.best is None or score > self.cursor.best:
            self.cursor.best, self.cursor.best_step, self.cursor.misses = score, step, 0
            self._save_student()
            self._save_state()  # so that a resumed run knows of the student that lies in the folder
        else:
            self.cursor.misses += 1

    def _validated(self) -> dict[str, float]:
        shared: list[Any] = [None]
        if self.accelerator.is_main_process and self.validate is not None:
            with torch.random.fork_rng(devices=[]):
                shared = [dict(self.validate(self.student))]
            self.wrapped.train()
        if self.accelerator.num_processes > 1:
            broadcast_object_list(shared)
        return dict(shared[0])

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.cursor.misses >= self.settings.patience

    def _save_student(self) -> None:
        def write(folder: Path) -> None:
            self.student.save(folder)
            for name, companion in self.companions.items():
                from safetensors.torch import save_model

                module: Any = companion.module
                if hasattr(module, "save") and companion.phase != "kept":
                    module.save(folder / f"companion-{name}")
                elif companion.phase != "kept":
                    save_model(module, str(folder / f"companion-{name}.safetensors"))
            write_json(folder / CARD, self.card)

        if self.accelerator.is_main_process:
            swap_in(self.opened.folder / "student", write)

    def _save_state(self) -> None:
        if self.accelerator.is_main_process:
            save_state(self.opened.folder / "state", self.all, self.optimizers, self.ring, self.cursor)
        self.accelerator.wait_for_everyone()

    def _log(self, loss: float, norm: float) -> None:
        if self.cursor.step % self.settings.log_every == 0:
            rate = self.schedule.get_last_lr()[0]
            entry = {"step": self.cursor.step, "loss": round(loss, 6), "gradient_norm": round(norm, 6), "rate": rate}
            self.cursor.history.append(entry)
            self.accelerator.log({f"train/{key}": value for key, value in entry.items()}, step=self.cursor.step)

    def _finish(self) -> Trained:
        if self.validate is None or self.cursor.best is None:
            self.cursor.best_step = self.cursor.step
            self._save_student()
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            log = "".join(json.dumps(entry) + "\n" for entry in self.cursor.history)
            write_text(self.opened.path("log.jsonl"), log)
        self.student.load(self.opened.folder / "student")
        shortened = {f"{kind}s_shortened": n for kind, n in getattr(self.student, "shortened", {}).items() if n}
        best, sign = self.cursor.best, 1 if self.settings.direction == "max" else -1
        return Trained(
            student=self.student,
            folder=self.opened.folder / "student",
            step=self.cursor.best_step,
            score=None if best is None else sign * best,
            seconds=self.cursor.seconds,
            counts={**self.left_out, **shortened, "items": len(self.base)},
            history=self.cursor.history,
            rounds=self.cursor.rounds,
        )

    # --- items ---

    def _batches(self, items: Sequence[Any]) -> Batches:
        return Batches(
            items=items,
            objective=self.objective,
            student=self.student,
            batch_size=self.settings.batch_size,
            tokens=self.settings.tokens_per_batch,
            bucket=self.settings.bucket,
            seed=self.seed,
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )

    def _usable(self, items: Sequence[Any]) -> Sequence[Any]:
        """The items that have something to train on, counted; a file-backed sequence stays one where all do."""
        probe = Batches(items, self.objective, self.student, 1, 1, 1, self.seed)
        keep = [i for i in range(len(items)) if probe.lay(items[i], 0).views] if len(items) else []
        self.left_out = {"items_without_targets": len(items) - len(keep)} if len(keep) < len(items) else {}
        if not keep and not self.objective.refreshes:
            needs = ", ".join(sorted(self.objective.needs)) or "items"
            owner = name_of(self.objective)
            raise TrainingError(f"objective {owner!r} needs {needs}; none of the {len(items)} items has them")
        return items if len(keep) == len(items) else _Chosen(items, keep)

    def _tell_of_cuts(self) -> None:
        """Say so, once, where more than a few of the texts to train on are over the student's limits."""
        if self.accelerator.is_main_process and hasattr(self.student, "tell_of_cuts"):
            for kind, seen in self.student.seen.items():
                self.student.tell_of_cuts(kind, self.student.shortened[kind], seen)


class _Chosen(Sequence[Any]):
    """Some rows of a sequence, by index, read when asked for."""

    def __init__(self, items: Sequence[Any], keep: Sequence[int]) -> None:
        self.items, self.keep = items, keep

    def __len__(self) -> int:
        return len(self.keep)

    def __getitem__(self, index: Any) -> Any:
        return self.items[self.keep[index]]

    def __iter__(self) -> Iterator[Any]:
        return (self.items[i] for i in self.keep)


def round_seconds(seconds: float) -> float:
    """Seconds to the millisecond, for logs."""
    return round(seconds, 3)
