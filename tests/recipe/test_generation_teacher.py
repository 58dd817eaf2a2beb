"""What a local teacher writes and says belongs to how it reads; what is set is read or refused; nothing is lost."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from fixed_endpoint import fixed_endpoint
from lmdistill import config, registry
from lmdistill.errors import ConfigError, TrainingError
from lmdistill.logit_store import LogitStore
from lmdistill.recipes import _generation, _local_teacher
from lmdistill.shared import alone
from lmdistill.store import Rows, read_manifest
from lmdistill.train import TrainSettings
from lmdistill.types import Annotation, Report, Sampling

TASK = {"name": "retell", "train": 24, "valid": 6, "test": 8, "unlabelled": 10, "events": 1, "verbs": 4, "things": 4}
TRAIN: dict[str, Any] = {"steps": 2, "batch_size": 12, "eval_every": 2, "learning_rate": 3e-3, "device": "cpu"}
BASE: dict[str, Any] = {"task": TASK, "decoding": {"max_tokens": 12}, "train": TRAIN}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A larger student of the same task, fine-tuned well enough to be told from noise."""
    out = tmp_path_factory.mktemp("teacher")
    settings = BASE | {"student": {"preset": "tiny"}, "train": TRAIN | {"steps": 60, "eval_every": 60}}
    report = config.build(registry.load("recipes", "finetune"), settings).run(out)
    (out / "score.json").write_text(json.dumps({k: one.value for k, one in report.metrics.items()}))
    return {"name": "transformers", "model": str(out / "seed-0" / "train" / "student")}


def made(teacher: Any, recipe: str = "kd4gen", **changes: Any) -> Any:
    small = {"teacher": teacher, "student": {"preset": "nano"}, "pseudo": {"number": 2, "max_tokens": 10}}
    return config.build(registry.load("recipes", recipe), {**BASE, "tail_epochs": 0, **small, **changes})


def rebuilt(recipe: Any) -> Any:
    """The recipe from the settings that its report holds."""
    settings = config.settings_of(recipe)
    return config.build(registry.load("recipes", settings.pop("name")), settings)


def texts(rows: Any) -> list[list[str | None]]:
    return [[one.answer for one in item.rationales] for item in rows]


def test_texts_that_were_read_under_another_limit_are_not_shared(teacher: dict[str, Any], tmp_path: Path) -> None:
    one = {"number": 1, "max_tokens": 10}
    cut, whole = {"preset": "nano", "max_source": 3}, {"preset": "nano", "max_source": 200}
    shared = tmp_path / "shared"
    short = texts(made(teacher, student=cut, pseudo=one, shared=shared).items(tmp_path / "a"))
    long = texts(made(teacher, student=whole, pseudo=one, shared=shared).items(tmp_path / "b"))
    alone = texts(made(teacher, student=whole, pseudo=one).items(tmp_path / "c"))
    assert long == alone and short != long


def test_logits_belong_to_the_limits_they_were_read_under(teacher: dict[str, Any], tmp_path: Path) -> None:
    settings = {"stored_top": 4, "pseudo": {"number": 0}}
    made(teacher, **settings).run(tmp_path)
    manifest = read_manifest(tmp_path / "logits")
    assert manifest is not None and manifest.settings["reading"]["max_source"] == 1024
    other = made(teacher, student={"preset": "nano", "max_source": 3}, **settings)
    student = other.opened_student(other.items(tmp_path), 0)
    with pytest.raises(Exception, match=r"belongs to another run.*reading\.max_source was 1024, now 3"):
        other.teacher_of(student, other.items(tmp_path), tmp_path)


def test_one_pseudo_target_by_beam_is_searched_for(teacher: dict[str, Any]) -> None:
    asked = [made(teacher, pseudo={"number": n, "decoding": "beam"}).pseudo.sampling for n in (1, 8)]
    assert [(one.n, one.beams) for one in asked] == [(1, 4), (8, 8)]


def test_steps_that_are_set_count_and_epochs_otherwise(teacher: dict[str, Any]) -> None:
    assert (made(teacher).train.steps, made(teacher).train.epochs) == (2, None)
    plain = made(teacher, train={"device": "cpu"})
    assert plain.train.epochs == 96 and plain.train.batch_size == 96
    assert made(teacher, train={"steps": 7, "epochs": 3}).train.epochs == 3
    again = rebuilt(made(teacher))
    assert again == made(teacher) and TrainSettings.steps == 10_000


def test_a_local_teacher_is_tested_as_it_teaches(teacher: dict[str, Any], tmp_path: Path) -> None:
    told = json.loads((Path(teacher["model"]).parents[2] / "score.json").read_text())
    for learns in ("pseudo_target", {"name": "logit_kd", "targets": "gold"}):
        name = learns if isinstance(learns, str) else learns["name"]
        report: Report = made(teacher, learns=learns, measure_teacher=True).run(tmp_path / name)
        assert report.metrics["teacher_token_f1"].value == pytest.approx(told["token_f1"])
    assert told["token_f1"] > 0.2, "a prompt in an LLM's words would give nothing"


def test_the_teacher_s_type_and_device_are_its_own(teacher: dict[str, Any]) -> None:
    model = made(teacher | {"dtype": "bfloat16", "device": "meta"}).white_box().model
    assert model.device.type == "meta" and next(model.parameters()).dtype == torch.bfloat16
    plain = made(teacher).white_box().model
    assert plain.device.type == "cpu" and next(plain.parameters()).dtype == torch.float32


def test_a_local_teacher_s_texts_are_curated(teacher: dict[str, Any], tmp_path: Path) -> None:
    pseudo = {"number": 6, "max_tokens": 10}
    before = texts(made(teacher, pseudo=pseudo).items(tmp_path / "a"))
    after = texts(made(teacher, pseudo=pseudo, curation=["length", "dedup"]).items(tmp_path / "b"))
    assert sum(map(len, after)) < sum(map(len, before)) and any(len(own) > 1 for own in after)
    assert all(len(set(own)) == len(own) for own in after)


def test_pseudo_targets_are_how_an_endpoint_is_asked() -> None:
    recipe = made("scripted", learns="pseudo_target", pseudo={"number": 4, "temperature": 0.5})
    assert recipe.sampling == Sampling(n=4, temperature=0.5, top_p=0.95, max_tokens=64)
    assert made("scripted", learns="pseudo_target", pseudo={}).sampling == Sampling(max_tokens=256)
    own = made("scripted", learns="pseudo_target", pseudo={}, sampling={"n": 3})
    assert own.sampling.n == 3
    again = rebuilt(recipe)
    assert again == recipe
    with pytest.raises(ConfigError, match="sampling, pseudo: both"):
        made("scripted", learns="pseudo_target", pseudo={"number": 4}, sampling={"n": 3})


@pytest.mark.parametrize("learns", ["label_only", {"name": "logit_kd", "targets": "gold"}])
def test_an_objective_of_labels_has_no_texts_written(learns: Any, teacher: dict[str, Any], tmp_path: Path) -> None:
    rows = made(teacher, learns=learns).items(tmp_path)
    assert len(rows) == 24 and not (tmp_path / "pseudo-targets").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stored_top": 0}, "stored_top"),
        ({"tail_epochs": -1.0}, "tail_epochs"),
        ({"tail_learning_rate": 0.0}, "tail_learning_rate"),
        ({"pseudo": {"top_p": 0.0}}, "top_p"),
        ({"pseudo": {"top_k": -1}}, "top_k"),
        ({"pseudo": {"max_tokens": 0}}, "max_tokens"),
        ({"pseudo": {"batch_size": 0}}, "batch_size"),
        ({"pseudo": {"beams": 0}}, "beams"),
        ({"pseudo": {"temperature": float("inf")}}, "temperature"),
        ({"learns": "noisy_kd", "stored_top": 4}, "stored_top: objective 'noisy_kd' needs the teacher's model"),
        ({"learns": "universal_logit", "stored_top": 4}, "stored_top: objective 'universal_logit'"),
        ({"learns": {"name": "logit_kd", "temperature": 2.0}, "stored_top": 4}, r"learns\.temperature"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: dict[str, Any], message: str, teacher: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=message):
        made(teacher, **changes)


def test_what_training_would_refuse_is_refused_before_the_teacher_writes(
    teacher: dict[str, Any], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    settings = BASE | {"student": {"preset": "nano", "vocabulary": "subword"}, "train": TRAIN | {"steps": 1}}
    config.build(registry.load("recipes", "finetune"), settings).run(other)
    student = {"name": "seq2seq", "model": str(other / "seed-0" / "train" / "student")}
    with pytest.raises(TrainingError, match="vocabulary"):
        made(teacher, student=student).run(tmp_path / "a")
    with pytest.raises(ConfigError, match="no layer 9"):
        made(teacher, learns={"name": "feature_kd", "layers": [[9, 0]], "hidden_weight": 1.0}).run(tmp_path / "b")
    assert not list(tmp_path.glob("[ab]/pseudo-targets"))


def test_a_teacher_that_was_stopped_goes_on_where_it_was(
    teacher: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = made(teacher, pseudo={"number": 2, "batch_size": 5, "max_tokens": 5})
    whole = list(recipe.items(tmp_path / "whole"))
    real, asked = _generation.written_by, []

    def stopped(model: Any, objective: Any, examples: Any, *rest: Any) -> Any:
        if len(asked) == 5:
            raise KeyboardInterrupt
        asked.append([one.id for one in examples])
        return real(model, objective, examples, *rest)

    monkeypatch.setattr(_generation, "written_by", stopped)
    with pytest.raises(KeyboardInterrupt):
        recipe.items(tmp_path / "stopped")
    left = tmp_path / "stopped" / "pseudo-targets" / "written.jsonl"
    assert len(left.read_text().splitlines()) == 25
    with left.open("a") as file:
        file.write('{"example": {"id": "torn')  # what a killed process leaves
    done, asked[:] = {name for batch in asked for name in batch}, []
    other = made(teacher, pseudo={"number": 2, "batch_size": 3, "max_tokens": 5})  # of another size: the same texts
    assert list(other.items(tmp_path / "stopped")) == whole
    assert len(asked) == 3 and not done & {name for batch in asked for name in batch}
    assert not left.exists()


def test_a_recording_that_was_stopped_goes_on_where_it_was(
    teacher: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_local_teacher, "ROWS", 4)
    recipe = made(teacher, stored_top=4, pseudo={"number": 0})
    stores, asked = [], []
    real = _local_teacher.frozen

    def counting(*arguments: Any) -> Any:
        model = real(*arguments)
        top = model.top

        def stopped(batch: Any, role: str, k: int) -> Any:
            if len(asked) == 3:
                asked.append(0)
                raise KeyboardInterrupt
            asked.append(len(batch.items))
            return top(batch, role, k)

        model.top = stopped
        return model

    monkeypatch.setattr(_generation, "frozen", counting)
    for name in ("stopped", "whole"):
        items = recipe.items(tmp_path / name)
        student = recipe.opened_student(items, 0)
        if name == "stopped":
            with pytest.raises(KeyboardInterrupt):
                recipe.teacher_of(student, items, tmp_path / name)
            with (tmp_path / name / "logits" / "ids.bin").open("ab") as file:
                file.write(b"torn")
            assert sum(asked) == 12
        stores.append(recipe.teacher_of(student, items, tmp_path / name))
    assert sum(asked) == 2 * len({view.target for item in items for view in recipe.learns.views(item, 0, None)}) == 48
    one, other = stores
    assert isinstance(one, LogitStore) and len(one) == len(other) == 24
    assert one.facts == other.facts
    for name, array in one.arrays.items():
        assert array.tolist() == other.arrays[name].tolist(), name
    assert not (tmp_path / "stopped" / "logits" / "index.part").exists()


@pytest.mark.network
def test_an_endpoint_that_gives_no_logprobs_teaches_nothing_by_them(tmp_path: Path) -> None:
    with fixed_endpoint("so the answer is anna tirop") as teacher:
        recipe = made({**teacher, "logprobs": 5}, pseudo={"unlabelled": False})
        with pytest.raises(TrainingError, match=r"none of the .* tokens .* 24 texts.*pseudo_target"):
            recipe.run(tmp_path)


def test_rows_are_read_back_as_they_were_written(teacher: dict[str, Any], tmp_path: Path) -> None:
    made(teacher).items(tmp_path)
    rows = list(Rows(tmp_path / "pseudo-targets" / "rows.jsonl", Annotation))
    assert [row.id for row in rows] == [one.id for split in ("train", "unlabelled") for one in _task().examples(split)]


def _task() -> Any:
    return config.build(registry.load("tasks", "retell"), {key: TASK[key] for key in TASK if key != "name"})


def test_a_recording_waits_for_who_records_in_the_same_folder(teacher: dict[str, Any], tmp_path: Path) -> None:
    recipe = made(teacher, stored_top=4, pseudo={"number": 0})
    items = recipe.items(tmp_path)
    student, found = recipe.opened_student(items, 0), []
    worker = threading.Thread(target=lambda: found.append(recipe.teacher_of(student, items, tmp_path)), daemon=True)
    with alone(tmp_path / "logits"):
        worker.start()
        worker.join(1.0)
        assert worker.is_alive() and not (tmp_path / "logits" / "ids.bin").exists()
    worker.join(60)
    assert len(found) == 1 and len(found[0]) == 24
