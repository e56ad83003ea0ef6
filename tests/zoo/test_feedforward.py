"""Feed-forward networks of the zoo: their values, their counts, what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attnprof import zoo
from zoo.checks import (
    assert_causal,
    assert_one_sentence,
    assert_same,
    assert_same_gradients,
    assert_works,
    counted,
    double,
    normal,
    parameters,
    saved_bytes,
    shapes,
)


def weights(layer: nn.Module) -> tuple[Tensor, Tensor | float]:
    assert isinstance(layer, nn.Linear)
    return layer.weight, 0.0 if layer.bias is None else layer.bias


def ffn_by_hand(net: nn.Module, activation: str) -> Callable[[Tensor], Tensor]:
    """One token after the other, from the definitions of ReLU and GELU."""

    def one(token: Tensor) -> Tensor:
        (up, up_bias), (down, down_bias) = weights(net.up), weights(net.down)
        hidden = up @ token + up_bias
        hidden = hidden.clamp(min=0) if activation == "relu" else hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        return down @ hidden + down_bias

    return lambda x: torch.stack([torch.stack([one(token) for token in sample]) for sample in x])


def swiglu_by_hand(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """One token after the other; silu(z) = z / (1 + exp(-z))."""

    def one(token: Tensor) -> Tensor:
        (gate, gate_bias), (up, up_bias), (down, down_bias) = map(weights, (net.gate, net.up, net.down))
        z = gate @ token + gate_bias
        return down @ (z / (1 + torch.exp(-z)) * (up @ token + up_bias)) + down_bias

    return lambda x: torch.stack([torch.stack([one(token) for token in sample]) for sample in x])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_ffn_is_its_definition(activation: str, bias: bool) -> None:
    net = double(zoo.build("ffn", d=6, f=10, activation=activation, bias=bias))
    x = normal(2, 5, 6)
    by_hand = ffn_by_hand(net, activation)
    assert_same(net(x), by_hand(x))
    assert_same_gradients(net, by_hand, x)
    assert_causal(net, x)


@pytest.mark.parametrize("bias", [True, False])
def test_swiglu_is_its_definition(bias: bool) -> None:
    net = double(zoo.build("swiglu", d=6, f=10, bias=bias))
    x = normal(2, 5, 6)
    by_hand = swiglu_by_hand(net)
    assert_same(net(x), by_hand(x))
    assert_same_gradients(net, by_hand, x)
    assert_causal(net, x)


@pytest.mark.parametrize("matrices", [2, 3], ids=["ffn", "swiglu"])
def test_counts(matrices: int) -> None:
    """Each matrix is 2 n d f forward; in the backward a weight gradient and an input gradient, 2 n d f each."""
    for draw in shapes(1):
        B, T, d, f = (draw.randint(1, high) for high in (2, 9, 12, 30))
        net = zoo.build("ffn", d=d, f=f) if matrices == 2 else zoo.build("swiglu", d=d, f=f)
        one = 2 * B * T * d * f
        assert counted(net, torch.randn(B, T, d)) == (matrices * one, 2 * matrices * one, 0)


@pytest.mark.parametrize(("name", "first"), [("ffn", 1), ("swiglu", 2)])
def test_an_input_that_needs_no_gradient_saves_one_product_per_first_matrix(name: str, first: int) -> None:
    net, one = zoo.build(name, d=6, f=10), 2 * (2 * 5) * 6 * 10
    forward, backward, _ = counted(net, torch.randn(2, 5, 6), input_grad=False)
    assert backward == 2 * forward - first * one


def test_parameters() -> None:
    d, f = 6, 10
    assert parameters(zoo.build("ffn", d=d, f=f)) == 2 * d * f + f + d
    assert parameters(zoo.build("ffn", d=d, f=f, bias=False)) == 2 * d * f
    assert parameters(zoo.build("swiglu", d=d, f=f)) == 3 * d * f
    assert parameters(zoo.build("swiglu", d=d, f=f, bias=True)) == 3 * d * f + 2 * f + d


def test_saved_activations() -> None:
    """In float64. A ReLU's output is the input of ``down``; a GELU saves its own input besides."""
    B, T, d, f = 2, 5, 6, 10
    n, x = B * T, normal(B, T, d)
    assert saved_bytes(double(zoo.build("ffn", d=d, f=f)), x) == 8 * (n * d + n * f)
    assert saved_bytes(double(zoo.build("ffn", d=d, f=f, activation="gelu")), x) == 8 * (n * d + 2 * n * f)
    assert saved_bytes(double(zoo.build("swiglu", d=d, f=f)), x) == 8 * (n * d + 4 * n * f)


@pytest.mark.parametrize("name", ["ffn", "swiglu"])
def test_works_wherever_a_module_is_used(name: str) -> None:
    assert_works(name, {"T": 6}, d=8, f=12)


def test_bad_sizes() -> None:
    for name in ("ffn", "swiglu"):
        assert_one_sentence(lambda name=name: zoo.build(name, d=0), "d", "0")
        assert_one_sentence(lambda name=name: zoo.build(name, f=2.5), "f", "2.5")
    assert_one_sentence(lambda: zoo.build("ffn", activation="tanh"), "activation", "'tanh'", "relu, gelu")
