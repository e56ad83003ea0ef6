"""Depthwise convolution, direct and as a matrix product: one result, one count, other traffic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof import zoo
from zoo.checks import (
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

both = pytest.mark.parametrize("name", ["depthwise-conv", "depthwise-conv-im2col"])
causal_or_not = pytest.mark.parametrize("causal", [False, True])


def by_hand(net: nn.Module, k: int, causal: bool) -> Callable[[Tensor], Tensor]:
    """Position by position, tap by tap: y[t] = sum over j of weight[j] x[t - before + j]."""
    before = k - 1 if causal else (k - 1) // 2

    def forward(x: Tensor) -> Tensor:
        T = x.shape[1]
        rows = []
        for t in range(T):
            row = torch.zeros_like(x[:, 0])
            for j in range(k):
                if 0 <= t - before + j < T:
                    row = row + net.weight[:, j] * x[:, t - before + j]
            rows.append(row)
        return torch.stack(rows, dim=1)

    return forward


@both
@causal_or_not
@pytest.mark.parametrize("k", [1, 3, 5])
def test_is_its_definition(name: str, causal: bool, k: int) -> None:
    net = double(zoo.build(name, d=4, k=k, causal=causal))
    for T in (1, 2, 9):
        x = normal(2, T, 4)
        assert_same(net(x), by_hand(net, k, causal)(x))
        assert_same_gradients(net, by_hand(net, k, causal), x)


@both
def test_causal(name: str) -> None:
    x = normal(2, 7, 4)
    assert_causal(double(zoo.build(name, d=4, k=4, causal=True)), x)
    assert_sees_everything(double(zoo.build(name, d=4, k=13)), x)


@both
@causal_or_not
def test_counts(name: str, causal: bool) -> None:
    """Every tap of every output: 2 B T d k; the backward pairs the same taps twice, for input and weight."""
    for draw in shapes(3):
        B, T, d = (draw.randint(1, high) for high in (2, 12, 8))
        k = 2 * draw.randint(0, 4) + 1
        forward = 2 * B * T * d * k
        net = zoo.build(name, d=d, k=k, causal=causal)
        assert counted(net, torch.randn(B, T, d)) == (forward, 2 * forward, 0)
        assert parameters(net) == d * k


@both
@causal_or_not
def test_pairs_are_the_taps_inside_the_sequence(name: str, causal: bool) -> None:
    for k in (1, 3, 7):
        net = zoo.build(name, k=k, causal=causal)
        q = k // 2
        for T in range(1, 12):
            seen = (lambda i, j, k=k: 0 <= i - j < k) if causal else (lambda i, j, q=q: abs(i - j) <= q)
            assert net.pairs(T) == pairs_of(seen, T)
            if not causal and q < T:
                assert net.pairs(T) == k * T - q * (q + 1)
            if causal and k <= T:
                assert net.pairs(T) == k * T - k * (k - 1) // 2


def test_only_im2col_copies_the_windows() -> None:
    """Windows are written once, B T d k elements. The direct kernel pads inside; a causal one before, on one side."""
    B, T, d, k, width = 2, 9, 4, 5, 8
    x = normal(B, T, d)

    def written(name: str, causal: bool) -> dict[str, int]:
        report = attnprof.run(double(zoo.build(name, d=d, k=k, causal=causal)), (x,))
        return {op: cost.write_bytes for op, cost in report.by_operator("forward").items() if cost.write_bytes}

    for causal in (False, True):
        assert written("depthwise-conv-im2col", causal)["aten.clone.default"] == B * T * d * k * width
    out = {"aten.convolution.default": B * T * d * width}
    assert written("depthwise-conv", False) == out
    assert written("depthwise-conv", True) == out | {"aten.constant_pad_nd.default": B * (T + k - 1) * d * width}


@causal_or_not
def test_saved_activations(causal: bool) -> None:
    """In float64. The direct kernel: its input, which a causal one has padded. im2col: the windows."""
    B, T, d, k = 2, 9, 4, 5
    direct, copied = (
        saved_bytes(double(zoo.build(name, d=d, k=k, causal=causal)), normal(B, T, d))
        for name in ("depthwise-conv", "depthwise-conv-im2col")
    )
    assert direct == 8 * B * (T + k - 1 if causal else T) * d
    assert copied == 8 * B * T * d * k


@both
@causal_or_not
def test_works_wherever_a_module_is_used(name: str, causal: bool) -> None:
    assert_works(name, {"T": 6}, d=8, k=3, causal=causal)


@both
def test_bad_sizes(name: str) -> None:
    assert_one_sentence(lambda: zoo.build(name, d=0), "d", "0")
    assert_one_sentence(lambda: zoo.build(name, k=0), "k", "0")
    assert_one_sentence(lambda: zoo.build(name, k=4), "k", "odd", "4")
