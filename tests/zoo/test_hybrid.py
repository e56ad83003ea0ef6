"""Sparse and linear attention together: the sum of the parts, in values and in counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attnprof import zoo
from zoo.checks import (
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
    parameters,
    saved_bytes,
    shapes,
)

causal_or_not = pytest.mark.parametrize("causal", [False, True])


def by_hand(net: Any) -> Callable[[Tensor], Tensor]:
    """Position by position: a softmax over the window, an average by φ(q)·φ(k) over all keys, and the gate's mix."""

    def phi(z: Tensor) -> Tensor:
        return torch.where(z > 0, z + 1, z.clamp(max=0).exp())  # elu(z) + 1

    def near(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen = (lambda i, j: 0 <= i - j < net.w) if net.causal else (lambda i, j: abs(i - j) <= net.w)
        return attention_by_position(q, k, v, seen)

    def far(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = []
        for i in range(len(q)):
            weights = [phi(q[i]) @ phi(k[j]) for j in range(i + 1 if net.causal else len(k))]
            rows.append(sum(w * v[j] for j, w in enumerate(weights)) / sum(weights))
        return torch.stack(rows)

    def forward(x: Tensor) -> Tensor:
        q, k, v = (x @ layer.weight.T for layer in (net.q_proj, net.k_proj, net.v_proj))
        share = (1 / (1 + torch.exp(-net.gate))).repeat_interleave(net.dh)
        parts = [by_sample_and_head(q, k, v, net.H, net.H, head) for head in (near, far)]
        return (share * parts[0] + (1 - share) * parts[1]) @ net.out_proj.weight.T

    return forward


@causal_or_not
def test_is_the_mix_of_its_parts(causal: bool) -> None:
    for T, w in [(1, 1), (3, 5), (7, 2), (9, 3)]:
        net = double(zoo.build("hybrid", d=6, H=2, w=w, causal=causal))
        x = normal(2, T, 6)
        assert_same(net(x), by_hand(net)(x))
        assert_same_gradients(net, by_hand(net), x)


def test_causal() -> None:
    x = normal(2, 9, 6)
    assert_causal(double(zoo.build("hybrid", d=6, H=2, w=2, causal=True)), x)
    assert_sees_everything(double(zoo.build("hybrid", d=6, H=2, w=2)), x)


@causal_or_not
def test_counts(causal: bool) -> None:
    """Projections; the window in whole blocks; state, read and normaliser, and causal the pairs within chunks."""
    for at in shapes(40):
        B, T, d, H, dh, w = (at.randint(1, most) for most in (2, 16, 12, 3, 5, 6))
        n = H * dh
        in_blocks = -(-T // w) * w
        window = 4 * B * in_blocks * (2 if causal else 3) * w * n
        chunk = min(w, T)
        in_chunks = -(-T // chunk) * chunk if causal else T
        linear = 4 * B * in_chunks * n * dh + 2 * B * in_chunks * n
        if causal:
            linear += 4 * B * in_chunks * chunk * n
        forward = 8 * B * T * d * n + window + linear
        net = zoo.build("hybrid", d=d, H=H, w=w, dh=dh, causal=causal)
        assert counted(net, torch.randn(B, T, d)) == (forward, 2 * forward, 0)
        assert window == 4 * dh * H * B * net.executed_pairs(T)
        assert parameters(net) == 4 * d * n + H


def test_it_is_the_sum_of_the_parts() -> None:
    """What ``sliding-window`` and ``linear`` cost, less one set of projections."""
    B, T, d, H, w = 2, 12, 8, 2, 3
    x, projections = torch.randn(B, T, d), 8 * B * T * d * d
    for causal, linear in (
        (False, zoo.build("linear", d=d, H=H)),
        (True, zoo.build("linear-causal", d=d, H=H, chunk=w)),
    ):
        window = zoo.build("sliding-window", d=d, H=H, w=w, causal=causal)
        parts = counted(window, x).forward + counted(linear, x).forward
        assert counted(zoo.build("hybrid", d=d, H=H, w=w, causal=causal), x).forward == parts - projections


@pytest.mark.parametrize("B", [1, 2])
@causal_or_not
def test_saved_activations(causal: bool, B: int) -> None:
    """In float64, T a multiple of w; the mask one byte per key. Of the gate, its share and the other's."""
    T, d, H, dh, w = 12, 10, 2, 3, 4
    n, c = H * dh, 2 if causal else 3
    elements = T * d + 10 * T * n + 2 * c * T * n + H * T * (c * w + 1)
    elements += H * T * w + (n * dh + n) * T // w if causal else n * dh + n
    net = double(zoo.build("hybrid", d=d, H=H, dh=dh, w=w, causal=causal))
    assert saved_bytes(net, normal(B, T, d)) == 8 * (B * elements + 2 * H) + T * c * w


@causal_or_not
def test_works_wherever_a_module_is_used(causal: bool) -> None:
    assert_works("hybrid", {"T": 10}, d=8, H=2, w=3, causal=causal)


def test_bad_sizes() -> None:
    for name, value in (("d", 0), ("H", 0), ("w", -2), ("dh", 1.5)):
        assert_one_sentence(lambda name=name, value=value: zoo.build("hybrid", **{name: value}), name, str(value))
    assert_one_sentence(lambda: zoo.build("hybrid", d=10, H=3), "H=3", "d=10")
