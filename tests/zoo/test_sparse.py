"""Sparse patterns beyond windows: what each keeps, what it executes, and what its choice costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
    by_sample_and_head,
    counted,
    double,
    normal,
    parameters,
    saved_bytes,
    shapes,
)
from zoo.patterns import Rule, assert_executes, assert_keeps, masked_attention

NAMES = ["local-atrous", "topk", "clustered"]
causal_or_not = pytest.mark.parametrize("causal", [False, True])


def atrous_rule(k: int, causal: bool) -> Rule:
    """Near, or a multiple of k away; not ahead when causal."""
    return lambda i, j: (abs(i - j) <= k or (i - j) % k == 0) and (j <= i or not causal)


@causal_or_not
def test_local_atrous_is_the_masked_softmax(causal: bool) -> None:
    for T, k in [(1, 1), (2, 5), (6, 1), (7, 2), (9, 3), (11, 4), (12, 3)]:
        net = double(zoo.build("local-atrous", d=6, H=2, k=k, causal=causal))
        by_hand = masked_attention(net, atrous_rule(k, causal))
        x = normal(2, T, 6)
        assert_same(net(x), by_hand(x))
        assert_same_gradients(net, by_hand, x)


@causal_or_not
def test_local_atrous_counts(causal: bool) -> None:
    """Gathered: k keys on each side (causal: one side) and the query's own. Groups: k of ceil(T / k) squared."""

    def executed(T: int, k: int) -> int:
        return T * (k + 1 if causal else 2 * k + 1) + k * (-(-T // k)) ** 2

    assert_executes(partial(zoo.build, "local-atrous", causal=causal), executed, seed=20, k=6)


def test_local_atrous_pairs() -> None:
    for k in (1, 2, 3, 5):
        for causal in (False, True):
            assert_keeps(zoo.build("local-atrous", k=k, causal=causal), atrous_rule(k, causal), *range(1, 20))
        for T in range(k + 1, 30):
            far = sum(T - m * k for m in range(2, (T - 1) // k + 1))
            two_sided, causal_ones = (zoo.build("local-atrous", k=k, causal=c).pairs(T) for c in (False, True))
            assert two_sided == T * (2 * k + 1) - k * (k + 1) + 2 * far
            assert causal_ones == T * (k + 1) - k * (k + 1) // 2 + far


@causal_or_not
def test_local_atrous_saves(causal: bool) -> None:
    """In float64, with T a multiple of k and k > 1; the positions are int64 and the mask one byte per key."""
    B, T, d, H, dh, k = 2, 12, 10, 2, 3, 4
    n, m = H * dh, k + 1 if causal else 2 * k + 1
    elements = B * (T * d + 5 * T * n + 2 * T * m * n + H * T * (m + 2 * (T // k)))
    net = double(zoo.build("local-atrous", d=d, H=H, dh=dh, k=k, causal=causal))
    assert saved_bytes(net, normal(B, T, d)) == 8 * (elements + T * m) + T * (m + T // k)


def best_keys(net: Any) -> Callable[[Tensor], Tensor]:
    """One query after the other: a softmax over the k largest of its scores."""

    def head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = []
        for i, query in enumerate(q):
            scores = {j: query.dot(k[j]) / len(query) ** 0.5 for j in range(i + 1 if net.causal else len(k))}
            best = sorted(scores, key=lambda j: -float(scores[j].detach()))[: net.k]
            weights = {j: scores[j].exp() for j in best}
            rows.append(sum(w * v[j] for j, w in weights.items()) / sum(weights.values()))
        return torch.stack(rows)

    return lambda x: through_projections(net, x, head)


def through_projections(net: Any, x: Tensor, head: Callable[..., Tensor]) -> Tensor:
    q, k, v = (x @ layer.weight.T for layer in (net.q_proj, net.k_proj, net.v_proj))
    return by_sample_and_head(q, k, v, net.H, net.H, head) @ net.out_proj.weight.T


@causal_or_not
def test_topk_is_the_softmax_over_the_best_keys(causal: bool) -> None:
    for T, k in [(1, 1), (3, 5), (7, 1), (8, 3), (6, 6)]:
        net = double(zoo.build("topk", d=6, H=2, k=k, causal=causal))
        x = normal(2, T, 6)
        assert_same(net(x), best_keys(net)(x))
        assert_same_gradients(net, best_keys(net), x)


@causal_or_not
def test_topk_counts(causal: bool) -> None:
    """Scores of all pairs, 2 T² n; the sum of k values, 2 T k n. The gradient of the scores is dense too."""
    for at in shapes(21):
        B, T, d, H, dh, k = (at.randint(1, most) for most in (2, 16, 12, 3, 5, 6))
        n = H * dh
        net = zoo.build("topk", d=d, H=H, dh=dh, k=k, causal=causal)
        forward = 8 * B * T * d * n + 2 * B * T * T * n + 2 * B * T * min(k, T) * n
        assert counted(net, torch.randn(B, T, d)) == (forward, 2 * forward, 0)
        assert parameters(net) == 4 * d * n


def test_topk_is_far_from_linear() -> None:
    """Next to 4 T k n, the work if the best keys were known, the scores alone are T / (2 k) as much."""
    T, d, k = 64, 8, 2
    core = counted(zoo.build("topk", d=d, H=2, k=k), torch.randn(1, T, d)).forward - 8 * T * d * d
    assert core / (4 * T * k * d) == T / (2 * k) + 0.5


def test_topk_pairs() -> None:
    for k in (1, 3, 7):
        for T in range(1, 15):
            two_sided, causal = (zoo.build("topk", k=k, causal=c).pairs(T) for c in (False, True))
            assert two_sided == sum(len(range(T)[:k]) for _ in range(T))
            assert causal == sum(len(range(i + 1)[:k]) for i in range(T))
            if k <= T:
                assert two_sided == T * k
                assert causal == T * k - k * (k - 1) // 2


@causal_or_not
def test_topk_saves(causal: bool) -> None:
    B, T, d, H, dh, k = 2, 12, 10, 2, 3, 4
    n = H * dh
    net = double(zoo.build("topk", d=d, H=H, dh=dh, k=k, causal=causal))
    elements = B * (T * d + 3 * T * n + T * k * n + H * T * k) + 2 * B * H * T * k
    assert saved_bytes(net, normal(B, T, d)) == 8 * elements + (T * T if causal else 0)


def in_clusters(net: Any) -> Callable[[Tensor], Tensor]:
    """Each cluster's closest queries over its closest keys, one pair after the other; then a mean per query."""

    def forward(x: Tensor) -> Tensor:
        heads = iter(list(net.centroids) * len(x))
        return through_projections(net, x, lambda q, k, v: one_head(q, k, v, next(heads)))

    def one_head(q: Tensor, k: Tensor, v: Tensor, centroids: Tensor) -> Tensor:
        T = len(q)
        size = (T + net.C - 1) // net.C
        answers: list[list[Tensor]] = [[] for _ in range(T)]
        for centroid in centroids:
            near_queries, near_keys = (
                sorted(range(T), key=lambda t, rows=rows, centroid=centroid: -float(rows[t].detach() @ centroid))[:size]
                for rows in (q, k)
            )
            for i in near_queries:
                weights = [torch.exp(q[i] @ k[j] / q.shape[1] ** 0.5) for j in near_keys]
                total = sum(w * v[j] for w, j in zip(weights, near_keys, strict=True))
                answers[i].append(torch.as_tensor(total / sum(weights)))
        return torch.stack([sum(a) / len(a) if a else torch.zeros_like(q[0]) for a in answers])

    return forward


def test_clustered_is_attention_inside_clusters() -> None:
    for T, C in [(1, 1), (5, 5), (6, 2), (9, 3), (12, 4)]:
        net = double(zoo.build("clustered", d=6, H=2, C=C))
        x = normal(2, T, 6)
        assert_same(net(x), in_clusters(net)(x))
        assert_same_gradients(net, in_clusters(net), x)


def test_one_cluster_is_full_attention() -> None:
    net = double(zoo.build("clustered", d=6, H=2, C=1))
    x = normal(2, 7, 6)
    assert_same(net(x), masked_attention(net, lambda i, j: True)(x))


def test_clustered_counts() -> None:
    """Queries and keys meet C centroids, 2 T C n each, without a gradient; then c queries meet c keys C times."""
    for at in shapes(22):
        B, c, d, H, dh, C = (at.randint(1, most) for most in (2, 5, 12, 3, 5, 6))
        n, T = H * dh, c * C
        net = zoo.build("clustered", d=d, H=H, dh=dh, C=C)
        projections, routing, inside = 8 * B * T * d * n, 4 * B * T * C * n, 4 * B * C * c * c * n
        flops = counted(net, torch.randn(B, T, d))
        assert flops == (projections + routing + inside, 2 * (projections + inside), 0)
        assert inside == 4 * dh * H * B * net.pairs(T)
        assert parameters(net) == 4 * d * n


def test_clustered_core_for_whole_clusters() -> None:
    """4 T C d + 4 T² d / C: with C = √T it grows as T^1.5."""
    T, d = 12, 6
    for C in (1, 2, 3, 4, 6, 12):
        core = counted(zoo.build("clustered", d=d, H=2, C=C), torch.randn(1, T, d)).forward - 8 * T * d * d
        assert core == 4 * T * C * d + 4 * T * T * d // C


def test_clustered_saves() -> None:
    B, T, d, H, dh, C = 2, 12, 10, 2, 3, 3
    n, c = H * dh, T // C
    net = double(zoo.build("clustered", d=d, H=H, dh=dh, C=C))
    elements = B * (T * d + T * n + 3 * C * c * n + H * C * c * c + H * T) + 4 * B * H * C * c
    assert saved_bytes(net, normal(B, T, d)) == 8 * elements


def test_causal() -> None:
    x = normal(2, 9, 6)
    for name in ("local-atrous", "topk"):
        assert_causal(double(zoo.build(name, d=6, H=2, k=2, causal=True)), x)
        assert_sees_everything(double(zoo.build(name, d=6, H=2, k=8)), x)
    assert_sees_everything(double(zoo.build("clustered", d=6, H=2, C=1)), x)


@causal_or_not
def test_works_wherever_a_module_is_used(causal: bool) -> None:
    assert_works("local-atrous", {"T": 10}, d=8, H=2, k=3, causal=causal)
    assert_works("topk", {"T": 10}, choosing=True, d=8, H=2, k=3, causal=causal)


def test_clusters_work_wherever_a_module_is_used() -> None:
    assert_works("clustered", {"T": 24}, choosing=True, d=8, H=2, C=3)  # whole clusters of the default, too


@pytest.mark.parametrize("name", NAMES)
def test_bad_sizes(name: str) -> None:
    size = "C" if name == "clustered" else "k"
    assert_one_sentence(lambda: zoo.build(name, d=0), "d", "0")
    assert_one_sentence(lambda: zoo.build(name, d=10, H=3), "H", "d=10")
    assert_one_sentence(lambda: zoo.build(name, H=0), "H", "0")
    assert_one_sentence(lambda: zoo.build(name, dh=-1), "dh", "-1")
    assert_one_sentence(lambda: zoo.build(name, **{size: 0}), size, "0")


def test_a_length_that_does_not_divide_into_clusters() -> None:
    net = zoo.build("clustered", d=6, H=2, C=4)
    assert_one_sentence(lambda: net(torch.randn(1, 10, 6)), "C must divide T", "T=10", "C=4")
