"""Token losses against torch's own and against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmdistill.losses import token
from lmdistill.losses.token import linear_nll, token_nll


def test_token_nll_by_hand() -> None:
    # softmax of (0, ln 3) is (1/4, 3/4): nll of label 0 is ln 4, of label 1 is ln(4/3); the padded place is 0.
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, math.log(3)], [5.0, 5.0]]])
    found = token_nll(logits, torch.tensor([[0, 1, -100]]))
    assert found.tolist() == [[pytest.approx(math.log(4)), pytest.approx(math.log(4 / 3)), 0.0]]


@pytest.mark.parametrize("kept", [1 << 27, 90], ids=["kept", "computed again"])
@pytest.mark.parametrize("biased", [False, True])
@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 40), seed=st.integers(0, 1000))
def test_linear_nll_equals_dense(kept: int, biased: bool, rows: int, seed: int) -> None:
    before, token.KEPT_ELEMENTS = token.KEPT_ELEMENTS, kept
    try:
        torch.manual_seed(seed)
        hidden, weight = torch.randn(rows, 8, requires_grad=True), torch.randn(37, 8, requires_grad=True)
        bias = torch.randn(37, requires_grad=True) if biased else None
        labels, slope = torch.randint(0, 37, (rows,)), torch.randn(rows)
        inputs = [hidden, weight] + ([bias] if bias is not None else [])
        ours = linear_nll(hidden, weight, labels, bias=bias)
        theirs = torch.nn.functional.cross_entropy(
            torch.nn.functional.linear(hidden, weight, bias), labels, reduction="none"
        )
        assert torch.allclose(ours, theirs, atol=1e-5)
        pairs = zip(
            torch.autograd.grad((ours * slope).sum(), inputs),
            torch.autograd.grad((theirs * slope).sum(), inputs),
            strict=True,
        )
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    finally:
        token.KEPT_ELEMENTS = before


def test_linear_nll_leaves_its_arguments_alone_and_works_without_gradients() -> None:
    hidden, weight, labels = torch.randn(5, 4), torch.randn(9, 4), torch.arange(5)
    copies = hidden.clone(), weight.clone()
    assert not linear_nll(hidden, weight, labels).requires_grad
    assert torch.equal(hidden, copies[0]) and torch.equal(weight, copies[1])


def test_linear_nll_in_bf16_is_near_float32() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 32, requires_grad=True), (torch.randn(300, 32) * 0.2).requires_grad_()
    labels = torch.randint(0, 300, (50,))
    exact = linear_nll(hidden, weight, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = linear_nll(hidden, weight, labels)
    assert rough.dtype == torch.float32
    assert float((exact - rough).detach().abs().max()) < 0.05
    (a,), (b,) = torch.autograd.grad(exact.sum(), [weight]), torch.autograd.grad(rough.sum(), [weight])
    assert float((a - b).abs().max() / a.abs().max()) < 0.02


def test_backward_twice_is_refused() -> None:
    hidden, weight = torch.randn(5, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    loss = linear_nll(hidden, weight, torch.arange(5)).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
