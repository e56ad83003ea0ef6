"""The mixture of experts: real routing, and work that follows the rows really routed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import attnprof
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


def by_hand(net: nn.Module, k: int) -> Callable[[Tensor], Tensor]:
    """One token after the other through the experts with its k largest probabilities."""

    def one(token: Tensor) -> Tensor:
        logits = net.router.weight @ token
        probabilities = logits.exp() / logits.exp().sum()
        best = sorted(range(len(probabilities)), key=lambda e: -float(probabilities[e].detach()))[:k]
        total = torch.zeros_like(token)
        for e in best:
            up, down = net.experts[e].up, net.experts[e].down
            hidden = (up.weight @ token + up.bias).clamp(min=0)
            total = total + probabilities[e] * (down.weight @ hidden + down.bias)
        return total

    return lambda x: torch.stack([torch.stack([one(token) for token in sample]) for sample in x])


def test_each_token_goes_through_its_best_experts() -> None:
    for k in (1, 2, 4):
        net = double(zoo.build("moe", d=6, f=10, E=4, k=k))
        x = normal(2, 7, 6)
        assert_same(net(x), by_hand(net, k)(x))
        assert_same_gradients(net, by_hand(net, k), x)
        assert_causal(net, x)


def test_counts() -> None:
    """Router 2 n d E; two matrices for each of the n k routed rows; the backward is two products for each one."""
    for draw in shapes(2):
        B, T, d, f, E = (draw.randint(1, high) for high in (2, 9, 12, 20, 6))
        k = draw.randint(1, E)
        n = B * T
        forward = 2 * n * d * E + k * n * (2 * d * f + 2 * f * d)
        net = zoo.build("moe", d=d, f=f, E=E, k=k)
        assert counted(net, torch.randn(B, T, d)) == (forward, 2 * forward, 0)


def test_with_four_times_the_width_it_grows_with_k() -> None:
    n, d, E = 8, 6, 4
    counts = [counted(zoo.build("moe", d=d, f=4 * d, E=E, k=k), torch.randn(1, n, d)).forward for k in (1, 2, 3, 4)]
    assert counts == [16 * k * n * d * d + 2 * n * d * E for k in (1, 2, 3, 4)]


def test_every_expert_executes_its_load() -> None:
    d, f, E, k = 6, 10, 5, 2
    net = double(zoo.build("moe", d=d, f=f, E=E, k=k))
    x = normal(2, 9, d)
    load = net.load(x).tolist()
    assert sum(load) == 2 * 9 * k
    assert len(set(load)) > 1  # this routing is uneven
    layers = attnprof.run(net, (x,)).by_module("forward")
    assert [layers[f"experts.{e}"].matmul_flops for e in range(E)] == [4 * d * f * rows for rows in load]


def test_an_idle_expert_costs_nothing() -> None:
    """The first two logits are the largest for every token: the others get no rows."""
    net = double(zoo.build("moe", d=4, f=6, E=4, k=2))
    with torch.no_grad():
        net.router.weight.copy_(torch.tensor([2.0, 1.0, -1.0, -2.0])[:, None].expand(4, 4))
    x = normal(1, 5, 4).abs()
    assert net.load(x).tolist() == [5, 5, 0, 0]
    layers = attnprof.run(net, (x,)).by_module("forward")
    assert [layers[f"experts.{e}"].matmul_flops for e in range(4)] == [4 * 4 * 6 * 5, 4 * 4 * 6 * 5, 0, 0]
    assert_same(net(x), by_hand(net, 2)(x))


def test_parameters() -> None:
    d, f, E = 6, 10, 5
    assert parameters(zoo.build("moe", d=d, f=f, E=E)) == E * (2 * d * f + f + d) + d * E


def test_saved_activations() -> None:
    """In float64. The places are those of the k best, and where among them an expert's rows came from."""
    B, T, d, f, E, k = 2, 7, 6, 10, 4, 2
    n = B * T
    net = double(zoo.build("moe", d=d, f=f, E=E, k=k))
    assert saved_bytes(net, normal(B, T, d)) == 8 * (n * d + n * E + n * k * (3 * d + f + 1) + 3 * n * k)


def test_works_wherever_a_module_is_used() -> None:
    assert_works("moe", {"T": 20}, fake=False, choosing=True, d=8, f=12, E=3, k=2)


def test_bad_sizes() -> None:
    assert_one_sentence(lambda: zoo.build("moe", d=0), "d", "0")
    assert_one_sentence(lambda: zoo.build("moe", f=-1), "f", "-1")
    assert_one_sentence(lambda: zoo.build("moe", E=0), "E", "0")
    assert_one_sentence(lambda: zoo.build("moe", k=0), "k", "0")
    assert_one_sentence(lambda: zoo.build("moe", E=4, k=5), "k=5", "E=4")
    assert_one_sentence(lambda: zoo.build("moe", activation="tanh"), "'tanh'")
