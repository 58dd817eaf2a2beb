"""Pruned teachers are smaller models that open, score and write like the layers that were kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lmdistill.errors import ConfigError, StoreError
from lmdistill.pruning import Pruning, layer_list, prune
from lmdistill.students.causal import Causal
from lmdistill.students.seq2seq import Seq2seq
from lmdistill.teachers.transformers import Transformers
from lmdistill.types import Sampling, View
from student_shapes import student as make

SEQ2SEQ = ("t5", "bart")


def saved(shape: str, folder: Path) -> Any:
    one = make(shape)
    one.save(folder)
    return one


@pytest.mark.parametrize("shape", ["t5", "bart", "gpt2", "opt", "llama"])
@pytest.mark.parametrize("kept", [0, 1])
def test_a_pruned_model_computes_what_its_layers_compute(shape: str, kept: int, tmp_path: Path) -> None:
    whole = saved(shape, tmp_path / "teacher")
    facts = prune(str(tmp_path / "teacher"), tmp_path / "student", Pruning(decoder=(kept,)))
    assert facts["decoder_layers"] == [kept] and facts["parameters"] < facts["parameters_before"]
    kind = Seq2seq if shape in SEQ2SEQ else Causal
    opened = kind(model=str(tmp_path / "student"), max_source=200, max_target=100).open().eval()
    stack = whole.model.get_decoder() if shape in SEQ2SEQ else whole.model.base_model
    layers = layer_list(stack)
    other = layers[1 - kept]
    _skip(other)
    sources, targets = ["w1 w2 w3", "w4"], ["w5 w6", "w7 w8 w9"]
    views = [[View(source, target, "t")] for source, target in zip(sources, targets, strict=True)]
    ours = opened(opened.collate([], views))["t"].nll
    if shape == "t5" and kept == 1:  # the first layer also holds every layer's position bias: compare by running both
        assert bool(torch.isfinite(ours).all())
    else:
        theirs = whole(whole.collate([], views))["t"].nll
        assert torch.allclose(ours, theirs, atol=1e-4)
    assert len(opened.generate(sources, Sampling(max_tokens=4))) == 2


def _skip(layer: Any) -> None:
    """Let a layer hand on what it is given."""
    plain = layer.forward

    def forward(hidden: Any, *arguments: Any, **options: Any) -> Any:
        result = plain(hidden, *arguments, **options)
        return (hidden, *result[1:]) if isinstance(result, tuple) else hidden

    layer.forward = forward


@pytest.mark.parametrize("shape", SEQ2SEQ)
def test_encoders_are_pruned_too_and_keep_what_is_not_named(shape: str, tmp_path: Path) -> None:
    saved(shape, tmp_path / "teacher")
    facts = prune(str(tmp_path / "teacher"), tmp_path / "student", Pruning(encoder=1))
    assert facts["encoder_layers"] == [0] and facts["decoder_layers"] == [0, 1]
    opened = Seq2seq(model=str(tmp_path / "student")).open().eval()
    assert [len(layer_list(stack)) for stack in (opened.model.get_encoder(), opened.model.get_decoder())] == [1, 2]
    ways = [Sampling(max_tokens=4), Sampling(n=2, temperature=1.0, max_tokens=4), Sampling(n=2, beams=2, max_tokens=4)]
    for sampling in ways:  # a decoder of more layers than its encoder writes too, as a student and as a teacher
        assert [len(own) for own in opened.generate(["w1 w2", "w4"], sampling)] == [sampling.n] * 2
        teacher = Transformers(model=str(tmp_path / "student"), device="cpu").open()
        assert [len(own) for own in teacher.generate(["w1 w2", "w4"], sampling)] == [sampling.n] * 2


def test_what_is_said_of_each_layer_goes_with_it(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    saved("qwen2", tmp_path / "teacher")
    prune(str(tmp_path / "teacher"), tmp_path / "student", Pruning(decoder=1))
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert len(opened.model.layers) == len(opened.config.layer_types) == opened.config.num_hidden_layers == 1


def test_which_layers_stay() -> None:
    assert Pruning(decoder=1).chosen("decoder", 6) == (0,)
    assert Pruning(decoder=3).chosen("decoder", 6) == (0, 1, 5)
    assert Pruning(decoder=3, how="even").chosen("decoder", 7) == (0, 3, 6)
    assert Pruning(decoder=6, how="even").chosen("decoder", 6) == (0, 1, 2, 3, 4, 5)
    assert Pruning(decoder=2).chosen("encoder", 3) == (0, 1, 2)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [(7, "1 to 6 layers, got 7"), (0, "1 to 6"), ((0, 6), r"names \[6\]"), ((0, -6), "twice"), ((), "names none")],
)
def test_layers_that_are_missing_are_refused(wanted: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pruning(decoder=wanted).chosen("decoder", 6)


def test_other_weights_in_the_same_folder_are_another_model(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    saved("t5", tmp_path / "teacher")
    weights = tmp_path / "teacher" / "model.safetensors"
    first = prune(str(tmp_path / "teacher"), tmp_path / "student", Pruning(decoder=1))
    assert prune(str(tmp_path / "teacher"), tmp_path / "student", Pruning(decoder=1)) == first
    save_file({name: one + 1 for name, one in load_file(weights).items()}, weights, metadata={"format": "pt"})
    with pytest.raises(StoreError, match=r"belongs to another run: input model\.safetensors was"):
        prune(str(tmp_path / "teacher"), tmp_path / "student", Pruning(decoder=1))


def test_what_cannot_be_pruned_is_refused(tmp_path: Path) -> None:
    saved("gpt2", tmp_path / "teacher")
    with pytest.raises(ConfigError, match="decoder-only"):
        prune(str(tmp_path / "teacher"), tmp_path / "a", Pruning(encoder=1))
    with pytest.raises(ConfigError, match="at least one"):
        prune(str(tmp_path / "teacher"), tmp_path / "b", Pruning())
    with pytest.raises(StoreError, match="cannot be opened"):
        prune(str(tmp_path / "nowhere"), tmp_path / "c", Pruning(decoder=1))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lmdistill.cli.main import main

    saved("t5", tmp_path / "teacher")
    with pytest.raises(SystemExit) as left:
        main(["prune", str(tmp_path / "teacher"), "--decoder", "1", "--out", str(tmp_path / "student")])
    assert left.value.code == 0
    told = capsys.readouterr().out
    assert "decoder layers kept: 0\n" in told and "encoder layers kept: 0, 1" in told
    with pytest.raises(SystemExit) as left:
        main(["prune", str(tmp_path / "teacher"), "--decoder", "0,9", "--out", str(tmp_path / "other")])
    assert left.value.code == 2 and "names [9]" in capsys.readouterr().err
