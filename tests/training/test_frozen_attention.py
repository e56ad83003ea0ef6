"""Frozen queries and keys: what the backward of an attention layer is spared, at every length, as integers.

The claim that freezing W_Q and W_K leaves a backward of O(N d²) is false: each form keeps its N² d term. Forward
8 P + 4 A. Backward, with P = N d² and A = N² d:

- dX of a projection is 2 P, its dW 2 P; of the attention, dV, dP, dQ and dK are 2 A each.
- Trained, X with gradient: 16 P + 8 A. Frozen Q and K lose two dW: 12 P + 8 A.
- Trained, X constant: no dX of q, k and v, 10 P + 8 A. With Q and K frozen nothing needs the gradient of the scores:
  written out, dV alone is left, 6 P + 2 A. The fused kernel computes dP, dQ and dK all the same: 6 P + 8 A.
- The fused kernel does QK^T again, 2 A of recompute.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

import attnprof
from training.attention import Attention, sizes
from training.counts import matmul, phases

D, HEADS = 768, 12
LENGTHS = (128, 256, 512, 1024, 2048, 4096)


def layer(fused: bool, frozen: bool, d: int = D, heads: int = HEADS) -> nn.Module:
    net = Attention(d, heads, fused)
    for projection in (net.q, net.k):
        projection.requires_grad_(not frozen)
    return net


def counted(n: int, fused: bool, frozen: bool, input_grad: bool) -> attnprof.Report:
    with attnprof.fake_tensors():
        net, x = layer(fused, frozen), torch.randn(1, n, D, requires_grad=input_grad)
    return attnprof.run(net, (x,), backward=True, fake=True)


def expected(n: int, fused: bool, frozen: bool, input_grad: bool, d: int = D) -> dict[str, dict[str, int]]:
    p, a = sizes(n, d)
    product = 2 * p
    queries_needed = input_grad or not frozen
    back = 2 * 2 * a + 2 * 2 * a if queries_needed or fused else 2 * a
    return {
        "q": phases(forward=product, backward=(input_grad + (not frozen)) * product),
        "k": phases(forward=product, backward=(input_grad + (not frozen)) * product),
        "v": phases(forward=product, backward=(input_grad + 1) * product),
        "": phases(forward=4 * a, backward=back, recompute=fused * 2 * a),
        "o": phases(forward=product, backward=2 * product),
    }


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("input_grad", [True, False], ids=["X with gradient", "X constant"])
@pytest.mark.parametrize("fused", [False, True], ids=["explicit", "SDPA"])
def test_backward(n: int, fused: bool, input_grad: bool) -> None:
    """The closed forms as published: SDPA's five products of 2 A are four of backward and one of recompute."""
    p, a = sizes(n, D)
    closed = {
        (False, True): (16 * p + 8 * a, 12 * p + 8 * a),
        (True, True): (16 * p + 10 * a, 12 * p + 10 * a),
        (False, False): (10 * p + 8 * a, 6 * p + 2 * a),
        (True, False): (10 * p + 10 * a, 6 * p + 10 * a),
    }[fused, input_grad]
    for frozen, total in zip((False, True), closed, strict=True):
        report = counted(n, fused, frozen, input_grad)
        assert matmul(report) == expected(n, fused, frozen, input_grad)
        assert report.phases["forward"].matmul_flops == 8 * p + 4 * a
        found = report.phases
        assert found["backward"].matmul_flops + found["recompute"].matmul_flops == total


@pytest.mark.parametrize("input_grad", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("fused", [False, True])
def test_a_real_run_has_the_same_counts(fused: bool, frozen: bool, input_grad: bool) -> None:
    n, d, heads = 6, 8, 2
    x = torch.randn(1, n, d, requires_grad=input_grad)
    report = attnprof.run(layer(fused, frozen, d, heads), (x,), backward=True)
    assert matmul(report) == expected(n, fused, frozen, input_grad, d)


@pytest.mark.parametrize("n", LENGTHS)
def test_what_freezing_saves_is_half_of_the_weight_gradients(n: int) -> None:
    """4 P of 16 P + 8 A: d / (4 d + 2 N) of the backward, at most a quarter and vanishing with N; never a half."""
    trained, frozen = (counted(n, False, frozen, True).phases["backward"].matmul_flops for frozen in (False, True))
    assert Fraction(trained - frozen, trained) == Fraction(D, 4 * D + 2 * n)
    weight_gradients = 4 * 2 * n * D * D
    assert 2 * (trained - frozen) == weight_gradients
