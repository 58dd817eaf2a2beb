"""N targets of one source cost one pass over it, and the step is the plain one: loss and every gradient."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from lmdistill.students import Batch, _sharing
from lmdistill.types import View
from student_shapes import CAUSAL, SEQ2SEQ, sentence, student

EVERY = [(shape, "sdpa") for shape in (*SEQ2SEQ, *CAUSAL)] + [("t5", "eager"), ("bart", "eager"), ("qwen2", "eager")]


def batch_of(one: Any, rows: list[int], *, equal: bool = False, seed: int = 0) -> Batch:
    """Items with so many targets each, of ragged length unless `equal`."""
    rng = random.Random(seed)
    views = []
    for n in rows:
        source = sentence(rng, 9, 9) if equal else sentence(rng, 1, 12)
        views.append([View(source, sentence(rng, 1, 8), "answer", i, rng.choice([0.5, 1.0])) for i in range(n)])
    return one.collate([], views)


def step(one: Any, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    """A weighted loss and its gradients."""
    one.zero_grad(set_to_none=True)
    rows = batch.targets["answer"]
    scored = one(batch)["answer"]
    loss = (scored.nll.sum(-1) * rows.weight).sum() / scored.mask.sum()
    loss.backward()
    return loss.item(), {name: p.grad for name, p in one.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("shape", "attention"), EVERY)
@pytest.mark.parametrize("rows", [[5, 5, 5], [1], [7], [4, 3, 5], [12, 4, 2, 1]])
def test_a_shared_step_is_the_plain_step(shape: str, attention: str, rows: list[int]) -> None:
    plain, shared = student(shape, "none", attention), student(shape, "full", attention)
    assert shared.sharing == "full"
    batch = batch_of(plain, rows, equal=len(rows) == 1)
    loss, gradients = step(plain, batch)
    again, others = step(shared, batch)
    assert again == pytest.approx(loss, abs=1e-5)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        scale = max(1.0, float(gradient.abs().max()))
        assert float((gradient - others[name]).abs().max()) <= 1e-5 * scale, name


@pytest.mark.parametrize("shape", SEQ2SEQ)
def test_the_encoder_alone_can_be_shared(shape: str) -> None:
    plain, shared = student(shape, "none"), student(shape, "encoder")
    batch = batch_of(plain, [3, 1, 4])
    loss, gradients = step(plain, batch)
    again, others = step(shared, batch)
    assert again == pytest.approx(loss, abs=1e-5)
    assert max(float((gradients[name] - others[name]).abs().max()) for name in gradients) <= 1e-4


@pytest.mark.parametrize("shape", SEQ2SEQ)
def test_keys_and_values_are_made_once_a_source(shape: str) -> None:
    shared = student(shape)
    batch = batch_of(shared, [6, 6])
    made: list[int] = []
    for module in shared.crossing.modules:
        keys = getattr(module, "k", None) or module.k_proj
        keys.register_forward_hook(lambda _, given, output: made.append(given[0].shape[0]))
    shared(batch)
    assert made == [2, 2]  # two sources, in each of two layers; the plain step would show 12


@pytest.mark.parametrize("shape", CAUSAL)
def test_a_prompt_runs_once(shape: str) -> None:
    shared = student(shape)
    batch = batch_of(shared, [6, 6])
    tokens: list[int] = []
    shared.model.get_input_embeddings().register_forward_hook(lambda _, given, output: tokens.append(given[0].numel()))
    shared(batch)
    sources, rows = batch.source_ids, batch.targets["answer"].labels
    assert tokens == [sources.numel() - len(sources), rows.numel()]


@pytest.mark.parametrize("shape", ["t5", "bart", "llama"])
def test_several_roles_with_their_own_sources(shape: str) -> None:
    views = [
        [View(f"w1 {x}", "w4", "label"), View(f"w2 {x}", "w5 w6", "rationale"), View(f"w2 {x}", "w7", "rationale", 1)]
        for x in ("w10", "w11 w12")
    ]
    plain, shared = student(shape, "none"), student(shape, "full")
    batch = plain.collate([], views)
    for role, scored in plain(batch).items():
        torch.testing.assert_close(shared(batch)[role].nll, scored.nll, atol=1e-5, rtol=1e-5)


def test_rows_fold_and_unfold() -> None:
    states = torch.randn(5, 3, 2)
    fold = _sharing.fold_rows(torch.tensor([4, 1, 4, 1, 4]))
    assert fold is not None and fold.sources.tolist() == [1, 4] and fold.width == 3
    folded = fold.folded(states)
    assert folded.shape == (2, 9, 2)
    torch.testing.assert_close(folded[0, :6], torch.cat([states[1], states[3]]))
    torch.testing.assert_close(fold.unfolded(folded, 3), states)
    assert _sharing.fold_rows(torch.tensor([0, 1, 2])) is None
    assert _sharing.fold_rows(torch.tensor([0] * 30 + list(range(1, 20)))) is None, "mostly fillers"


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_rows_fold_in_pieces_of_any_sizes(source: list[int]) -> None:
    rows = torch.tensor(source)
    fold = _sharing.fold_rows(rows)
    if fold is None:
        return
    states = torch.arange(len(source) * 2.0).reshape(-1, 2, 1)
    folded = fold.folded(states)
    assert folded.shape == (len(fold.sources), 2 * fold.width, 1)
    torch.testing.assert_close(fold.unfolded(folded, 2), states)
    for piece, own in zip(folded.reshape(len(fold.sources), -1, 2, 1), fold.sources.tolist(), strict=True):
        inside = [int(state[0]) // 2 for state in piece]
        assert all(source[row] == own or row == 0 for row in inside), "a piece has rows of one source (or fillers)"
    assert len(fold.sources) < len(source)


def test_uneven_numbers_of_rationales_are_shared_too() -> None:
    """30, 10, 5 and 2 rows: 4 sources in a decoder-only student; 10 pieces instead of 47 in an encoder-decoder."""
    one = student("llama")
    passes: list[tuple[int, ...]] = []
    one.model.base_model.register_forward_pre_hook(
        lambda _, arguments, named: passes.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    batch = batch_of(one, [30, 10, 5, 2], equal=True)
    one(batch)
    assert [rows for rows, _ in passes] == [4, 47]
    passes.clear()
    one(batch_of(one, [3, 1, 1, 1, 1, 1], equal=True))
    assert [rows for rows, _ in passes] == [6, 8], "wherever a source has two rows"
    other = student("t5")
    made: list[int] = []
    other.crossing.modules[0].k.register_forward_hook(lambda _, given, output: made.append(given[0].shape[0]))
    other(batch_of(other, [30, 10, 5, 2], equal=True))
    assert made == [10]


def test_a_sliding_window_is_trained_without_sharing(capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    from lmdistill.students.causal import Causal, CausalStudent
    from student_shapes import tokenizer

    own = tokenizer()
    ids = {"vocab_size": len(own), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    for window, sharing in ((64, "none"), (None, "full")):
        config = MistralConfig(**sizes, **ids, num_key_value_heads=2, sliding_window=window)
        one = CausalStudent(MistralForCausalLM(config), own, Causal())
        assert one.sharing == sharing
        passes: list[int] = []
        one.model.base_model.register_forward_pre_hook(lambda *_, counted=passes: counted.append(1))
        one(batch_of(one, [4], equal=True))
        assert len(passes) == (1 if sharing == "none" else 2), "nothing is computed twice"
    assert "trained with sharing='none'" in capsys.readouterr().err


def test_a_model_that_cannot_take_it_falls_back_with_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    from lmdistill.students.seq2seq import Seq2seqStudent
    from student_shapes import tokenizer

    own = tokenizer()
    config = T5Config(vocab_size=len(own), d_model=16, d_kv=8, d_ff=16, num_heads=2, num_layers=1)
    config.decoder_start_token_id = 0
    model = T5ForConditionalGeneration(config)
    cross = model.decoder.block[0].layer[1].EncDecAttention
    kept = cross.forward

    def positional(hidden_states, mask=None, key_value_states=None, position_bias=None, **rest):  # type: ignore[no-untyped-def]
        """An attention that minds where a query stands."""
        place = torch.arange(hidden_states.shape[1])[None, :, None] * 1.0
        return kept(hidden_states + place, mask, key_value_states, position_bias, **rest)

    cross.forward = positional
    one = Seq2seqStudent(model, own, sharing="full", max_source=9, max_target=9, overflow="refuse")
    assert one.sharing == "encoder"
    assert "trained with sharing='encoder'" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_that_share_equal_one_that_does_not(tmp_path: Path) -> None:
    program = Path(__file__).parents[1] / "sharing_program.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for launcher, sharing in (([], "none"), (two, "full")):
        command = [sys.executable, *launcher, str(program), str(tmp_path / sharing), sharing]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
    for kind in ("Causal", "Seq2seq"):
        plain, shared = (load_file(tmp_path / way / kind / "student/model.safetensors") for way in ("none", "full"))
        assert max(float((plain[name] - shared[name]).abs().max()) for name in plain) < 1e-5
        logs = [(tmp_path / way / kind / "log.jsonl").read_text() for way in ("none", "full")]
        losses = [[json.loads(line)["loss"] for line in log.splitlines()] for log in logs]
        assert losses[1] == pytest.approx(losses[0], abs=1e-5)
        assert losses[0][-1] < losses[0][0]
