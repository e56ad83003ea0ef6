"""Linear attention equals the average over pairs that it stands for, at a cost that grows with T."""

from __future__ import annotations

from collections.abc import Callable
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
    attention_by_position,
    by_sample_and_head,
    counted,
    double,
    normal,
    pairs_of,
    parameters,
    saved_bytes,
    shapes,
)


def drawn(name: str, at: Random) -> tuple[Any, int, int]:
    """A module, a length and a number of samples; chunks that divide the length, or do not, or are longer."""
    chunk = {"chunk": at.randint(1, 6)} if name == "linear-causal" else {}
    net = zoo.build(name, d=at.randint(1, 9), H=at.randint(1, 3), dh=at.randint(1, 4), **chunk)
    return net, at.randint(1, 10), at.randint(1, 2)


def phi(x: Tensor) -> Tensor:
    """elu(x) + 1, by cases: x + 1 above zero, exp(x) below."""
    return torch.where(x > 0, x + 1, x.exp())


def by_pairs(net: Any, head: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The whole layer from its weights, with ``head`` for what happens in each head."""

    def layer(x: Tensor) -> Tensor:
        q, k, v = (x @ project.weight.T for project in (net.q_proj, net.k_proj, net.v_proj))
        return by_sample_and_head(q, k, v, net.H, net.H, head) @ net.out_proj.weight.T

    return layer


def weighted(causal: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Every pair's weight φ(q)·φ(k), written out."""

    def head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention_by_position(q, k, v, lambda i, j: j <= i or not causal, lambda a, b: phi(a).dot(phi(b)))

    return head


def efficient(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The weights of Shen et al. as a T x T matrix: row i is softmax(q_i) times the columns of softmaxed keys."""
    queries = torch.stack([row.exp() / row.exp().sum() for row in q])
    keys = torch.stack([column.exp() / column.exp().sum() for column in k.T], dim=1)
    weights = torch.stack([torch.stack([queries[i].dot(keys[j]) for j in range(len(k))]) for i in range(len(q))])
    assert_same(weights.sum(1), torch.ones(len(q), dtype=torch.float64))
    return weights @ v


HEADS = {"linear": weighted(False), "linear-causal": weighted(True), "efficient-attention": efficient}


@pytest.mark.parametrize("name", HEADS)
def test_output_and_gradients(name: str) -> None:
    for at in shapes(1, 12):
        net, T, B = drawn(name, at)
        reference = by_pairs(double(net), HEADS[name])
        x = normal(B, T, net.d)
        assert_same(net(x), reference(x))
        assert_same_gradients(net, reference, x)


def test_one_token_after_the_other_is_the_whole_sequence() -> None:
    """And what a step has to remember is H (dh² + dh) numbers per sample, however many came before."""
    for at in shapes(2, 8):
        net, T, B = drawn("linear-causal", at)
        double(net)
        x, state, outputs = normal(B, T, net.d), None, []
        for t in range(T):
            y, state = net.step(x[:, t : t + 1], state)
            outputs.append(y)
            assert sum(part.numel() for part in state) == B * net.H * (net.dh**2 + net.dh)
        assert_same(torch.cat(outputs, 1), net(x))


class Step(torch.nn.Module):
    """The step of a causal linear attention as a call."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        return self.net.step(x, state)


def test_flops_of_a_step() -> None:
    """Four projections of one vector, k vᵀ and q times the state, and the normaliser."""
    for at in shapes(3, 8):
        net, _, B = drawn("linear-causal", at)
        n, state = net.H * net.dh, (torch.rand(B, net.H, net.dh, net.dh), torch.rand(B, net.H, net.dh, 1))
        expected = B * (8 * net.d * n + 4 * n * net.dh + 2 * n)
        assert counted(Step(net), torch.randn(B, 1, net.d), state, backward=False) == Flops(expected)


def test_causal_or_not() -> None:
    x = normal(2, 7, 8)
    for chunk in (1, 2, 3, 7, 32):
        assert_causal(double(zoo.build("linear-causal", d=8, chunk=chunk)), x)
    for name in ("linear", "efficient-attention"):
        assert_sees_everything(double(zoo.build(name, d=8)), x)


@pytest.mark.parametrize("name", ["linear", "efficient-attention"])
def test_flops_and_parameters(name: str) -> None:
    """Per head [dh, T] x [T, dh] for the state, [T, dh] x [dh, dh] to read it, and [T, dh] x [dh, 1] for the
    normaliser; the gradient of each product is two."""
    for at in shapes(4):
        net, T, B = drawn(name, at)
        d, H, dh = net.d, net.H, net.dh
        normaliser = 2 * T * dh if name == "linear" else 0
        forward = B * (4 * 2 * T * d * H * dh + H * (2 * T * dh * dh + 2 * T * dh * dh + normaliser))
        assert counted(net, torch.randn(B, T, d)) == Flops(forward, 2 * forward)
        assert parameters(net) == 4 * d * H * dh


def test_flops_with_heads_of_the_usual_width() -> None:
    """8 P + 4 P / H + 2 T d with P = T d²; one efficient head is 4 T d² between its projections."""
    for at in shapes(5):
        H, T, B = at.randint(1, 4), at.randint(1, 9), at.randint(1, 2)
        d = H * at.randint(1, 4)
        x, P = torch.randn(B, T, d), B * T * d * d
        forward = 8 * P + 4 * P // H + 2 * B * T * d
        assert counted(zoo.build("linear", d=d, H=H), x) == Flops(forward, 2 * forward)
        assert counted(zoo.build("efficient-attention", d=d, H=1), x) == Flops(12 * P, 24 * P)


def test_causal_flops_and_parameters() -> None:
    """What the whole sequence does, on T' = n c tokens, and the products of c x c pairs in each of n chunks."""
    for at in shapes(6):
        net, T, B = drawn("linear-causal", at)
        c = min(net.chunk, T)
        chunks = -(-T // c)
        d, n, dh, padded = net.d, net.H * net.dh, net.dh, c * chunks
        core = 4 * padded * n * dh + 2 * padded * n + chunks * 2 * (2 * c * c * n)
        forward = B * (8 * T * d * n + core)
        assert counted(net, torch.randn(B, T, d)) == Flops(forward, 2 * forward)
        assert parameters(net) == 4 * d * n


def test_doubling_the_length_doubles_the_work() -> None:
    for name in ("linear", "efficient-attention", "linear-causal"):
        net: Any = zoo.build(name, d=8)
        one, two = (counted(net, torch.randn(1, T, 8), backward=False).forward for T in (64, 128))
        assert two == 2 * one


def test_saved_activations() -> None:
    for at in shapes(7, 8):
        for name in HEADS:
            net, T, B = drawn(name, at)
            d, H, n, dh = net.d, net.H, net.H * net.dh, net.dh
            kept = T * d + T * n  # x, and the heads merged
            if name == "linear":
                kept += 2 * T * n + 2 * T * n + T * n  # q and k, φ of each, v
                kept += n * dh + n + T * n + H * T  # the state, Σ φ(k); the weighted sum and its weight
            elif name == "efficient-attention":
                kept += 3 * T * n + n * dh  # both softmaxes, v; the state
            else:
                c = min(net.chunk, T)
                chunks = -(-T // c)
                kept += 2 * T * n + 3 * c * chunks * n  # q and k; in chunks: φ of each, v
                kept += chunks * (n * dh + n) + H * chunks * c * c  # states and totals; the weights of pairs
                kept += c * chunks * (n + H)  # the weighted sum and its weight
            assert saved_bytes(net, torch.randn(B, T, d)) == 4 * B * kept


def test_pairs() -> None:
    for T in range(7):
        for name in ("linear", "efficient-attention"):
            net: Any = zoo.build(name)
            assert net.pairs(T) == T * T
        causal: Any = zoo.build("linear-causal")
        assert causal.pairs(T) == pairs_of(lambda i, j: j <= i, T)


@pytest.mark.parametrize("name", HEADS)
def test_works(name: str) -> None:
    assert_works(name, {"T": 7}, d=12, **({"chunk": 3} if name == "linear-causal" else {}))


@pytest.mark.parametrize("name", HEADS)
def test_bad_sizes(name: str) -> None:
    assert_one_sentence(lambda: zoo.build(name, d=10, H=4), "H must divide d", "d=10", "H=4")
    assert_one_sentence(lambda: zoo.build(name, dh=0), "dh must be a whole number above zero", "not 0")


def test_bad_chunk() -> None:
    assert_one_sentence(lambda: zoo.build("linear-causal", chunk=0), "chunk must be a whole number above zero", "0")
