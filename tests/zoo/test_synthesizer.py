"""Synthesizers: weights from no pair of query and key, averaged over positions one by one."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from attnprof import zoo
from zoo.checks import (
    Flops,
    assert_causal,
    assert_one_sentence,
    assert_same,
    assert_same_gradients,
    assert_sees_everything,
    assert_works,
    counted,
    double,
    normal,
    pairs_of,
    parameters,
    saved_bytes,
    shapes,
)

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "trainable": ("synthesizer-random", {}),
    "fixed": ("synthesizer-random", {"trainable": False}),
    "dense": ("synthesizer-dense", {}),
}


def drawn(kind: str, at: Random) -> tuple[Any, int, int]:
    """A module, a length up to its N and a number of samples."""
    name, options = KINDS[kind]
    N = at.randint(1, 9)
    sizes = {"d": at.randint(1, 9), "H": at.randint(1, 3), "dh": at.randint(1, 4), "N": N}
    return zoo.build(name, **sizes, **options, causal=at.random() < 0.5), at.randint(1, N), at.randint(1, 2)


def row_of_scores(net: Any, x: Tensor, h: int, T: int) -> Tensor:
    """What head h gives one token's vector x for the first T positions, from the dense synthesizer's weights."""
    hidden = net.hidden.weight[h * net.dh : (h + 1) * net.dh] @ x
    hidden = torch.where(hidden > 0, hidden, 0)
    return torch.stack([hidden.dot(net.rows[h, :, j]) for j in range(T)])


def by_position(net: Any, x: Tensor) -> Tensor:
    """Each output as the sum over positions of a weight times a value."""
    T = x.shape[1]
    samples = []
    for sample in x:
        v = sample @ net.v_proj.weight.T
        outputs = []
        for i in range(T):
            heads = []
            for h in range(net.H):
                scores = net.matrix[h, i, :T] if hasattr(net, "matrix") else row_of_scores(net, sample[i], h, T)
                seen = i + 1 if net.causal else T
                weights = [torch.exp(scores[j]) for j in range(seen)]
                values = [v[j, h * net.dh : (h + 1) * net.dh] for j in range(seen)]
                heads.append(sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights))
            outputs.append(torch.cat(heads))
        samples.append(torch.stack(outputs) @ net.out_proj.weight.T)
    return torch.stack(samples)


@pytest.mark.parametrize("kind", KINDS)
def test_output_and_gradients(kind: str) -> None:
    for at in shapes(1, 10):
        net, T, B = drawn(kind, at)
        double(net)
        x = normal(B, T, net.d)
        assert_same(net(x), by_position(net, x))
        assert_same_gradients(net, lambda x, net=net: by_position(net, x), x)


def test_gradient_of_the_matrix() -> None:
    net: Any = double(zoo.build("synthesizer-random", d=4, H=2, N=5, causal=True))
    x, direction = normal(2, 4, 4), normal(2, 4, 4, seed=1)
    found = [torch.autograd.grad(out, net.matrix, direction)[0] for out in (net(x), by_position(net, x))]
    assert_same(*found)


@pytest.mark.parametrize("kind", KINDS)
def test_causal_or_not(kind: str) -> None:
    name, options = KINDS[kind]
    x = normal(2, 6, 8)
    assert_causal(double(zoo.build(name, d=8, N=7, causal=True, **options)), x)
    assert_sees_everything(double(zoo.build(name, d=8, N=7, **options)), x)


@pytest.mark.parametrize("kind", KINDS)
def test_flops_and_parameters(kind: str) -> None:
    for at in shapes(2):
        net, T, B = drawn(kind, at)
        d, n, N = net.d, net.H * net.dh, net.N
        projection, product, x = 2 * B * T * d * n, 2 * B * T * T * n, torch.randn(B, T, d)
        if kind == "dense":  # its hidden layer, and the product that makes the scores
            assert counted(net, x) == Flops(3 * projection + 2 * product, 6 * projection + 4 * product)
            assert parameters(net) == parameters(net, trainable=True) == 3 * d * n + n * N
        else:  # dV always, the gradient of the weights when something behind them is trained
            trained = kind == "trainable"
            assert counted(net, x) == Flops(2 * projection + product, 4 * projection + (1 + trained) * product)
            assert parameters(net) == 2 * d * n + trained * net.H * N * N
            assert sum(b.numel() for b in net.buffers()) == (not trained) * net.H * N * N


def test_flops_with_heads_of_the_usual_width() -> None:
    """Random 4 P + 2 A with 2 d² + H N² parameters; dense 6 P + 4 A with 3 d² + d N, one head or several."""
    for at in shapes(3):
        H, T, B = at.randint(1, 4), at.randint(1, 9), at.randint(1, 2)
        d = H * at.randint(1, 4)
        P, A, x = B * T * d * d, B * T * T * d, torch.randn(B, T, d)
        random, dense = zoo.build("synthesizer-random", d=d, H=H, N=T), zoo.build("synthesizer-dense", d=d, H=H, N=T)
        assert counted(random, x) == Flops(4 * P + 2 * A, 8 * P + 4 * A)
        assert parameters(random) == 2 * d * d + H * T * T
        assert counted(dense, x) == Flops(6 * P + 4 * A, 12 * P + 8 * A)
        assert parameters(dense) == 3 * d * d + d * T


@pytest.mark.parametrize("kind", KINDS)
def test_saved_activations(kind: str) -> None:
    """The weights of a random synthesizer are kept once for all samples; fixed ones need no v and no mask."""
    for at in shapes(4, 8):
        net, T, B = drawn(kind, at)
        inner, weights, mask = T * net.H * net.dh, net.H * T * T, T * T * net.causal
        elements = {
            "trainable": B * (T * net.d + 2 * inner) + weights,
            "fixed": B * (T * net.d + inner) + weights,
            "dense": B * (T * net.d + 3 * inner + weights),
        }[kind]
        assert saved_bytes(net, torch.randn(B, T, net.d)) == 4 * elements + (0 if kind == "fixed" else mask)


@pytest.mark.parametrize("kind", KINDS)
def test_pairs(kind: str) -> None:
    name, options = KINDS[kind]
    causal: Any = zoo.build(name, causal=True, **options)
    every: Any = zoo.build(name, **options)
    for T in range(7):
        assert causal.pairs(T) == pairs_of(lambda i, j: j <= i, T)
        assert every.pairs(T) == T * T


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_works(kind: str, causal: bool) -> None:
    name, options = KINDS[kind]
    assert_works(name, {"T": 6}, d=12, N=8, causal=causal, **options)


@pytest.mark.parametrize("name", ["synthesizer-random", "synthesizer-dense"])
def test_bad_sizes(name: str) -> None:
    assert_one_sentence(lambda: zoo.build(name, d=10, H=4), "H must divide d", "d=10", "H=4")
    assert_one_sentence(lambda: zoo.build(name, N=0), "N must be a whole number above zero", "not 0")
    net = zoo.build(name, N=5)
    assert_one_sentence(lambda: net(torch.randn(1, 6, 64)), "weights for N=5 tokens", "T=6")
