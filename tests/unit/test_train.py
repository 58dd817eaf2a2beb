"""What the loop promises: equalities between settings, guards, resume, checkpoints that transformers opens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lmdistill.errors import ConfigError, StoreError, TrainingError
from lmdistill.objectives import Objective
from lmdistill.objectives.label_only import LabelOnly
from lmdistill.objectives.step_by_step import StepByStep
from lmdistill.students.seq2seq import Seq2seq, Seq2seqStudent
from lmdistill.train import Trained, TrainSettings, train
from lmdistill.types import Annotation, Example, Rationale, Sampling

SETTINGS = TrainSettings(
    steps=6, batch_size=8, learning_rate=1e-3, device="cpu", log_every=1, bucket=2, schedule="constant"
)


def items(n: int = 24) -> list[Annotation]:
    made = []
    for i in range(n):
        a, b = i % 7, i % 5
        text = f"{a} and then {b}" + " more" * (i % 4) + f" make {a + b}"
        made.append(Annotation(Example(f"e{i}", f"{a} plus {b}", str(a + b)), (Rationale(text, str(a + b)),)))
    return made


def student(dropout: float = 0.0) -> Seq2seqStudent:
    texts = ["predict: explain: plus and then more make", " ".join(map(str, range(14)))]
    return Seq2seq(dropout=dropout).open(texts, seed=1)


def run(folder: Path, objective: Objective, own: Sequence[Any] | None = None, **changes: Any) -> Trained:
    options = {key: changes.pop(key) for key in ("validate", "seed") if key in changes}
    own = items() if own is None else own
    one = student(changes.pop("dropout", 0.0))
    return train(one, objective, own, settings=replace(SETTINGS, **changes), folder=folder, **options)


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return load_file(trained.folder / "model.safetensors")


def distance(a: Trained, b: Trained) -> float:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def losses(trained: Trained) -> list[float]:
    return [entry["loss"] for entry in trained.history if "loss" in entry]


def test_rationale_weight_zero_is_finetuning_on_prefixed_inputs(tmp_path: Path) -> None:
    ours = run(tmp_path / "dss", StepByStep(rationale_weight=0.0), dropout=0.1)
    plain = run(tmp_path / "plain", LabelOnly(prefix="predict: "), dropout=0.1)
    assert distance(ours, plain) == 0.0
    assert losses(ours) == losses(plain)
    other = run(tmp_path / "other", StepByStep(rationale_weight=0.01), dropout=0.1)
    assert distance(ours, other) > 1e-5, "a rationale that weighs something must move the weights"


def test_accumulation_equals_one_batch(tmp_path: Path) -> None:
    # SGD: a step's size is the gradient's, so a wrong scale would show; Adam would hide it.
    options = {"optimizer": "sgd", "learning_rate": 0.1, "clip": 0.0}
    whole = run(tmp_path / "whole", StepByStep(), **options)
    parts = run(tmp_path / "parts", StepByStep(), tokens_per_batch=60, **options)
    assert distance(whole, parts) < 1e-6
    assert losses(whole) == pytest.approx(losses(parts), abs=1e-5)


@pytest.mark.parametrize("reduction", ["token", "example"])
def test_the_first_loss_is_the_named_mean(tmp_path: Path, reduction: Any) -> None:
    own = items(8)
    trained = run(tmp_path, LabelOnly(reduction=reduction), own, steps=1, batch_size=8)
    model = student()
    nll = [
        -score for score in model.logprobs([one.example.input for one in own], [one.example.label or "" for one in own])
    ]
    lengths = [len(model.tokens("target", one.example.label or "")) for one in own]
    by_hand = {"token": sum(nll) / sum(lengths), "example": sum(n / k for n, k in zip(nll, lengths, strict=True)) / 8}
    assert losses(trained)[0] == pytest.approx(by_hand[reduction], abs=1e-5)


def test_a_transformers_folder_is_left(tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    trained = run(tmp_path, LabelOnly(), steps=30, learning_rate=5e-3)
    model, tokenizer = (kind.from_pretrained(trained.folder) for kind in (AutoModelForSeq2SeqLM, AutoTokenizer))
    model.eval()
    written = model.generate(**tokenizer(["3 plus 3"], return_tensors="pt"), max_new_tokens=4)
    ours = trained.student.generate(["3 plus 3"], Sampling(max_tokens=4))[0][0].text
    assert tokenizer.decode(written[0], skip_special_tokens=True) == ours
    card = json.loads((trained.folder / "lmdistill.json").read_text())
    assert card["objective"]["name"] == "label_only"


def test_eight_examples_are_overfitted_and_reload_is_the_same(tmp_path: Path) -> None:
    own = items(8)
    trained = run(tmp_path, StepByStep(), own, steps=150, batch_size=8, learning_rate=1e-2)
    prompts = ["predict: " + one.example.input for one in own]
    answers = [own[0].text for own in trained.student.generate(prompts, Sampling(max_tokens=4))]
    assert answers == [one.example.label for one in own]
    again = Seq2seq(model=str(trained.folder)).open()
    assert again.logprobs(prompts, answers) == pytest.approx(trained.student.logprobs(prompts, answers), abs=1e-5)


def test_a_finished_training_is_read_back_and_another_is_refused(tmp_path: Path) -> None:
    first = run(tmp_path, LabelOnly())
    second = run(tmp_path, LabelOnly())
    assert second.step == first.step and distance(first, second) == 0.0
    assert [entry["loss"] for entry in second.history] == losses(first)
    with pytest.raises(StoreError, match=r"belongs to another run.*learning_rate was 0.001, now 0.5"):
        run(tmp_path, LabelOnly(), learning_rate=0.5)


def test_the_best_checkpoint_and_patience(tmp_path: Path) -> None:
    scores = iter([0.1, 0.5, 0.4, 0.4, 0.9])
    trained = run(tmp_path, LabelOnly(), validate=lambda _: {"score": next(scores)}, steps=50, eval_every=2, patience=2)
    assert (trained.step, trained.score) == (4, 0.5)
    assert trained.history[-1]["step"] == 8, "two evaluations without progress end the run"


def test_items_without_targets_are_counted_and_an_empty_rest_is_refused(tmp_path: Path) -> None:
    own = [*items(8), Annotation(Example("bare", "1 plus 1"))]
    trained = run(tmp_path / "some", LabelOnly(), own, steps=2)
    assert trained.counts["items_without_targets"] == 1
    with pytest.raises(TrainingError, match="objective 'step_by_step' needs label, rationale; none of the 1 items"):
        run(tmp_path / "none", StepByStep(), own[-1:], steps=2)


def test_a_loss_that_is_not_finite_is_explained(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step \d+: loss .* first not finite: .* Lower train.learning_rate"):
        run(tmp_path, LabelOnly(), learning_rate=1e30, optimizer="sgd", clip=0.0, steps=50)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    half = student().to(dtype)
    with pytest.raises(TrainingError, match=rf"{str(dtype).removeprefix('torch.')}.*float32.*bf16"):
        train(half, LabelOnly(), items(), settings=SETTINGS, folder=tmp_path)


def test_an_unknown_schedule_and_selection_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.schedule: 'lineal' is unknown; did you mean 'linear'\?"):
        run(tmp_path / "a", LabelOnly(), schedule="lineal")
    with pytest.raises(ConfigError, match=r"train.select: 'f1' is not among the validation metrics accuracy"):
        run(tmp_path / "b", LabelOnly(), validate=lambda _: {"accuracy": 0.0}, select="f1")


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"epochs": 0.0}, {"batch_size": 0}, {"tokens_per_batch": 0}, {"bucket": 0}, {"refresh_every": 0},
     {"eval_every": 0}, {"save_every": 0}, {"log_every": 0}, {"patience": 0}, {"learning_rate": -1.0},
     {"learning_rate": float("nan")}, {"weight_decay": -0.1}, {"epsilon": -1.0}, {"warmup": -1.0}, {"clip": -1.0},
     {"betas": (0.9, 1.0)}],
)  # fmt: skip
def test_a_number_that_cannot_be_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainSettings(**wrong)


def test_a_damaged_state_names_the_remedy(tmp_path: Path) -> None:
    scores = iter([0.0])

    def validate(_: Any) -> dict[str, float]:
        return {"score": next(scores)}  # the second evaluation breaks the run off

    with pytest.raises(StopIteration):
        run(tmp_path, LabelOnly(), validate=validate, save_every=2, eval_every=2, steps=6)
    state = tmp_path / "state" / "step-00000002"
    (state / "weights.safetensors").write_bytes(b"cut")
    with pytest.raises(StoreError, match=r"step-00000002 cannot be read .* remove that folder"):
        run(tmp_path, LabelOnly(), validate=lambda _: {"score": 1.0}, save_every=2, eval_every=2, steps=6)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmdistill import checkpoint

    real, calls = checkpoint.write_json, []

    def full(path: Path, value: Any) -> None:
        calls.append(path)
        if path.name == "cursor.json" and "00000004" in str(path.parent):
            raise OSError(28, "No space left on device")
        real(path, value)

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(StoreError, match=r"No space left on device.*kept"):
        run(tmp_path, LabelOnly(), save_every=2)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-00000002"]
    monkeypatch.setattr(checkpoint, "write_json", real)
    resumed = run(tmp_path, LabelOnly(), save_every=2)
    assert distance(resumed, run(tmp_path / "other", LabelOnly(), save_every=2)) == 0.0


def test_bf16_trains(tmp_path: Path) -> None:
    trained = run(tmp_path, StepByStep(), precision="bf16", steps=20, learning_rate=5e-3)
    assert losses(trained)[-1] < losses(trained)[0] - 0.5
    assert all(tensor.dtype == torch.float32 for tensor in weights(trained).values())


def test_a_tracker_that_is_unknown_or_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"report_to: 'tensorbord' is unknown; did you mean 'tensorboard'"):
        run(tmp_path / "a", LabelOnly(), report_to=("tensorbord",))
    import accelerate.tracking

    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: [])
    with pytest.raises(ConfigError, match="report_to: 'tensorboard' needs its package"):
        run(tmp_path / "b", LabelOnly(), report_to=("tensorboard",))


def test_a_tracker_gets_losses_and_validation_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate

    told: list[tuple[int, str]] = []
    monkeypatch.setattr("lmdistill.loop.trackers", lambda settings: None)
    monkeypatch.setattr(accelerate.Accelerator, "init_trackers", lambda *_, **__: told.append((0, "init")))
    monkeypatch.setattr(
        accelerate.Accelerator, "log", lambda _, values, step=0: told.extend((step, name) for name in values)
    )
    run(tmp_path, LabelOnly(), report_to=("tensorboard",), validate=lambda _: {"accuracy": 0.5}, eval_every=3)
    assert (0, "init") in told and (6, "train/loss") in told and (3, "valid/accuracy") in told


def test_a_finished_training_is_not_served_for_another_starting_student(tmp_path: Path) -> None:
    run(tmp_path, LabelOnly(), steps=2)
    texts = ["predict: explain: plus and then more make", " ".join(map(str, range(14)))]
    other = Seq2seq(dropout=0.0).open(texts, seed=2)
    with pytest.raises(StoreError, match="input student"):
        train(other, LabelOnly(), items(), settings=replace(SETTINGS, steps=2), folder=tmp_path)


def test_explicit_fp32_is_honoured() -> None:
    from types import SimpleNamespace

    from lmdistill.machine import precision

    launched = SimpleNamespace(mixed_precision="bf16", device=torch.device("cpu"))
    assert precision(TrainSettings(precision="fp32"), launched, student()) is None  # type: ignore[arg-type]
    assert precision(TrainSettings(), launched, student()) is torch.bfloat16  # type: ignore[arg-type]
