"""Attention with frozen orthogonal queries and keys: the same function, and what its training really saves."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

import attnprof
from attnprof import zoo
from zoo.checks import (
    Flops,
    assert_causal,
    assert_one_sentence,
    assert_same,
    assert_same_gradients,
    assert_sees_everything,
    assert_works,
    attention_by_position,
    by_sample_and_head,
    counted,
    differentiable,
    double,
    normal,
    pairs_of,
    parameters,
    saved_bytes,
    shapes,
)

NAMES = ("orthogonal", "orthogonal-sdpa")
names = pytest.mark.parametrize("name", NAMES)


def drawn(name: str, at: Any) -> tuple[Any, int, int]:
    """A module, a length and a number of samples."""
    sizes = {"d": at.randint(1, 9), "H": at.randint(1, 3), "dh": at.randint(1, 4)}
    return zoo.build(name, **sizes, causal=at.random() < 0.5), at.randint(1, 8), at.randint(1, 2)


@names
def test_output_and_gradients(name: str) -> None:
    for at in shapes(1, 8):
        net, T, B = drawn(name, at)
        double(net)

        def by_position(x: Tensor, net: Any = net) -> Tensor:
            q, k, v = (x @ layer.weight.T for layer in (net.q_proj, net.k_proj, net.v_proj))

            def head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                return attention_by_position(q, k, v, lambda i, j: j <= i or not net.causal)

            return by_sample_and_head(q, k, v, net.H, net.H, head) @ net.out_proj.weight.T

        x = normal(B, T, net.d)
        assert_same(net(x), by_position(x))
        assert_same_gradients(net, by_position, x)


@names
def test_projections_are_orthogonal_and_frozen(name: str) -> None:
    """Rows [n, d] are orthonormal, or columns when n > d; drawn in float32, so to 1e-5."""
    for at in shapes(2, 6):
        net, _, _ = drawn(name, at)
        d, n = net.d, net.H * net.dh
        for projection in (net.q_proj, net.k_proj):
            w = projection.weight.detach()
            gram = w @ w.T if n <= d else w.T @ w
            assert float((gram - torch.eye(min(n, d))).abs().max()) < 1e-5
        assert {key for key, p in net.named_parameters() if not p.requires_grad} == {"q_proj.weight", "k_proj.weight"}
        assert parameters(net) == 4 * d * n
        assert parameters(net, trainable=True) == 2 * d * n


@names
def test_flops(name: str) -> None:
    """Two weight gradients fewer. When x is constant, neither q nor k needs a gradient: only the fused kernel, which
    makes all of them at once, still computes dP, dQ and dK."""
    fused = name == "orthogonal-sdpa"
    for at in shapes(3):
        net, T, B = drawn(name, at)
        projection, product = 2 * B * T * net.d * net.H * net.dh, 2 * B * T * T * net.H * net.dh
        forward, again, x = 4 * projection + 2 * product, product if fused else 0, torch.randn(B, T, net.d)
        # dX of four projections, dW of two; dV, dP, dQ, dK
        assert counted(net, x) == Flops(forward, 6 * projection + 4 * product, again)
        # dX of out_proj, dW of v_proj and out_proj
        constant = Flops(forward, 3 * projection + (4 if fused else 1) * product, again)
        assert counted(net, x, input_grad=False) == constant


@names
def test_what_freezing_saves(name: str) -> None:
    """2 of 8 projection products of the backward, d / (4 d + 2 T) of it: at most a quarter, and vanishing with T."""
    trained = {"orthogonal": "mha", "orthogonal-sdpa": "mha-sdpa"}[name]
    for at in shapes(4, 10):
        H, T, B = at.randint(1, 3), at.randint(1, 12), at.randint(1, 2)
        d = H * at.randint(1, 4)
        x = torch.randn(B, T, d)
        frozen, free = (counted(zoo.build(kind, d=d, H=H), x).backward for kind in (name, trained))
        assert Fraction(free - frozen, free) == Fraction(d, 4 * d + 2 * T)


@names
def test_gradient_flows_through_the_frozen_projections(name: str) -> None:
    """x gets a gradient from its queries and keys, frozen or not: without that part it would be another one."""
    net: Any = double(zoo.build(name, d=6, H=2))
    x = normal(2, 5, 6)
    cut: Any = double(zoo.build(name, d=6, H=2))
    for projection in (cut.q_proj, cut.k_proj):
        projection.register_forward_hook(lambda module, args, out: out.detach())
    leaf = differentiable(x)
    whole, part = (torch.autograd.grad(module(leaf).sum(), leaf)[0] for module in (net, cut))
    assert float((whole - part).norm()) > 1e-3 * float(whole.norm())


@names
def test_states(name: str) -> None:
    """Weights, gradients and two Adam states: 4 + 2 + 2 * 2 = 10 d² numbers where training all takes 16."""
    d = 12
    report = attnprof.run(zoo.build(name, d=d), (torch.randn(1, 3, d),), optimizer="adam")
    memory = report.memory
    assert memory is not None
    steps = 2 * 4  # Adam's step counts, one float32 per trained parameter
    states = memory.parameter_bytes + memory.gradient_bytes + memory.optimizer_bytes
    assert states - steps == 10 * d * d * 4


@names
def test_saved_activations(name: str) -> None:
    for at in shapes(5, 8):
        net, T, B = drawn(name, at)
        inner, fused = T * net.H * net.dh, name == "orthogonal-sdpa"
        elements = T * net.d + 4 * inner + net.H * T * (1 if fused else T)
        mask = T * T if net.causal and not fused else 0
        x = torch.randn(B, T, net.d)
        assert saved_bytes(net, x) == 4 * B * elements + mask
        if not fused:  # of constants: x, the probabilities and the heads merged; nothing that leads to q or k
            elements, mask = T * net.d + inner + net.H * T * T, 0
        assert saved_bytes(net, x, input_grad=False) == 4 * B * elements + mask


@names
def test_causal_or_not(name: str) -> None:
    x = normal(2, 6, 8)
    assert_causal(double(zoo.build(name, d=8, causal=True)), x)
    assert_sees_everything(double(zoo.build(name, d=8)), x)


@names
def test_pairs(name: str) -> None:
    causal: Any = zoo.build(name, causal=True)
    for T in range(7):
        assert causal.pairs(T) == pairs_of(lambda i, j: j <= i, T)


@names
def test_works(name: str) -> None:
    assert_works(name, {"T": 5}, d=12, causal=True)


@names
def test_bad_sizes(name: str) -> None:
    assert_one_sentence(lambda: zoo.build(name, d=10, H=4), "H must divide d", "d=10", "H=4")
    assert_one_sentence(lambda: zoo.build(name, dh=0), "dh must be a whole number above zero", "not 0")
