"""Diagonal linear recurrences: three ways to the same states, each with the joins its closed form states."""

from __future__ import annotations

from collections.abc import Callable
from math import log2

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
    vector_flops,
)

SCANS = ["diagonal-rnn-hillis-steele", "diagonal-rnn-brent-kung"]
every_way = pytest.mark.parametrize("name", ["diagonal-rnn", *SCANS])


def by_hand(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """The recurrence unrolled: h[t] = sum over s <= t of decay^(t - s) x[s]."""

    def forward(x: Tensor) -> Tensor:
        states = [sum(net.decay ** (t - s) * x[:, s] for s in range(t + 1)) for t in range(x.shape[1])]
        return torch.stack([torch.as_tensor(h) for h in states], dim=1)

    return forward


@every_way
def test_is_the_recurrence_unrolled(name: str) -> None:
    net = double(zoo.build(name, d=3))
    for T in range(1, 18):
        x = normal(2, T, 3)
        assert_same(net(x), by_hand(net)(x))
        assert_same_gradients(net, by_hand(net), x)


@every_way
def test_gradient_of_the_decays(name: str) -> None:
    net = double(zoo.build(name, d=3))
    x, direction = normal(2, 11, 3), normal(2, 11, 3, seed=1)
    found = [torch.autograd.grad(call(x), net.decay, direction) for call in (net, by_hand(net))]
    assert_same(*found)


@every_way
def test_causal(name: str) -> None:
    assert_causal(double(zoo.build(name, d=3)), normal(2, 11, 3))


def test_step_by_step_is_one_multiply_and_one_add() -> None:
    for draw in shapes(4):
        B, T, d = (draw.randint(1, high) for high in (2, 20, 8))
        net, x = zoo.build("diagonal-rnn", d=d), torch.randn(B, T, d)
        assert counted(net, x) == (0, 0, 0)
        assert vector_flops(net, x) == 2 * B * d * (T - 1)


@pytest.mark.parametrize("name", SCANS)
def test_a_scan_is_three_flops_per_join(name: str) -> None:
    for draw in shapes(5):
        B, T, d = (draw.randint(1, high) for high in (2, 40, 8))
        net, x = zoo.build(name, d=d), torch.randn(B, T, d)
        assert counted(net, x) == (0, 0, 0)
        assert vector_flops(net, x) == 3 * B * d * net.combines(T)


def test_joins_for_powers_of_two() -> None:
    """Hillis-Steele: the sum of T - 2^i over log2 T rounds. Brent-Kung: T - 1 up, T - 1 - log2 T down."""
    hillis_steele, brent_kung = map(zoo.build, SCANS)
    for rounds in range(11):
        T = 2**rounds
        assert hillis_steele.combines(T) == T * rounds - T + 1
        assert brent_kung.combines(T) == 2 * T - 2 - rounds
    assert hillis_steele.combines(64) == 321
    assert brent_kung.combines(64) == 120


def test_joins_for_any_length() -> None:
    """Hillis-Steele: T r - 2^r + 1 with r rounds. Brent-Kung: T - 1 at each level, then half of the positions."""
    hillis_steele, brent_kung = map(zoo.build, SCANS)
    for T in range(1, 70):
        rounds = next(r for r in range(T) if 2**r >= T)
        assert hillis_steele.combines(T) == T * rounds - 2**rounds + 1
        assert brent_kung.combines(T) == (T - 1 + brent_kung.combines(T // 2) if T > 1 else 0)
        assert brent_kung.combines(T) <= 2 * T - 2 - int(log2(T))


def test_saved_activations() -> None:
    """In float64, per channel. A join (a, b) then (a', b') saves a, a' and b for its two products.

    Step by step: x, of which h[0] is a part, and h[1] to h[T - 2]. Hillis-Steele: x, whose decays are the
    parameter, and both of the pair after each of log2 T rounds but the last. Brent-Kung, going up: x, and both
    of T / 2, T / 4, ... 2 joined pairs; coming down, where the products of decays are not wanted: the states
    at T / 2, T / 4, ... 1 odd positions.
    """
    B, d = 2, 3
    for rounds in range(2, 6):
        T = 2**rounds
        per_channel = {
            "diagonal-rnn": T + (T - 2),
            "diagonal-rnn-hillis-steele": T + 2 * T * (rounds - 1),
            "diagonal-rnn-brent-kung": T + 2 * sum(2**i for i in range(1, rounds)) + sum(2**i for i in range(rounds)),
        }
        for name, expected in per_channel.items():
            assert saved_bytes(double(zoo.build(name, d=d)), normal(B, T, d)) == 8 * B * d * expected
        assert per_channel["diagonal-rnn-brent-kung"] == 4 * T - 5


@every_way
def test_parameters(name: str) -> None:
    assert parameters(zoo.build(name, d=7)) == 7


@every_way
def test_works_wherever_a_module_is_used(name: str) -> None:
    assert_works(name, {"T": 7}, d=5)


@every_way
def test_bad_sizes(name: str) -> None:
    assert_one_sentence(lambda: zoo.build(name, d=0), "d", "0")
