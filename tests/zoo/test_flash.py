"""Tiled attention: the softmax put together from tiles is the softmax, forward and backward."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch

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


def drawn(at: Random) -> tuple[Any, int]:
    """A module and a sequence length, with tiles that divide it or do not, and some that are larger."""
    sizes = {"d": at.randint(1, 9), "H": at.randint(1, 3), "dh": at.randint(1, 4)}
    tiles = {"Br": at.randint(1, 7), "Bc": at.randint(1, 7)}
    return zoo.build("flash", **sizes, **tiles, causal=at.random() < 0.5), at.randint(1, 12)


def test_output_and_gradients() -> None:
    for at in shapes(1, 12):
        net, T = drawn(at)
        double(net)

        def by_position(x: torch.Tensor, net: Any = net) -> torch.Tensor:
            q, k, v = (x @ layer.weight.T for layer in (net.q_proj, net.k_proj, net.v_proj))

            def head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
                return attention_by_position(q, k, v, lambda i, j: j <= i or not net.causal)

            return by_sample_and_head(q, k, v, net.H, net.H, head) @ net.out_proj.weight.T

        x = normal(2, T, net.d)
        assert_same(net(x), by_position(x))
        assert_same_gradients(net, by_position, x)


def test_scores_that_would_overflow() -> None:
    """The running maximum keeps every exponential at 1 or below, whichever tile has the largest score."""
    for largest in range(6):
        q, k, v = (normal(1, 1, 6, 2, seed=s) for s in range(3))
        q, k = q.abs(), k.abs()
        k[..., largest, :] += 1e4  # its score is above 709, where exp overflows in float64
        net: Any = zoo.build("flash", d=2, H=1, Br=2, Bc=2)
        assert_same(net.attend(q, k, v), v[:, :, largest : largest + 1].expand(v.shape))


def test_causal_or_not() -> None:
    x = normal(2, 7, 8)
    assert_causal(double(zoo.build("flash", d=8, Br=3, Bc=2, causal=True)), x)
    assert_sees_everything(double(zoo.build("flash", d=8, Br=3, Bc=2)), x)


def is_computed(net: Any, T: int, i: int, j: int) -> bool:
    """Whether the tile of query i and key j has a pair that is not masked: its last query sees its first key."""
    last_query = min((i // net.Br + 1) * net.Br, T) - 1
    first_key = j // net.Bc * net.Bc
    return not net.causal or first_key <= last_query


def test_flops_parameters_and_pairs() -> None:
    for at in shapes(2):
        net, T = drawn(at)
        B, n = at.randint(1, 2), net.H * net.dh
        executed = pairs_of(lambda i, j, net=net, T=T: is_computed(net, T, i, j), T)
        assert net.executed_pairs(T) == executed
        assert net.pairs(T) == pairs_of(lambda i, j, net=net: j <= i or not net.causal, T)
        projections, product = 4 * 2 * B * T * net.d * n, 2 * B * n * executed
        # Five products per tile in the backward: the scores again, dV, dP, dQ, dK.
        assert counted(net, torch.randn(B, T, net.d)) == Flops(projections + 2 * product, 2 * projections + 5 * product)
        assert parameters(net) == 4 * net.d * n


def test_a_causal_run_does_about_half() -> None:
    """With square tiles of size b that divide T: the tiles on and below the diagonal, T (T + b) / 2 pairs."""
    for b in (1, 2, 4, 8, 16):
        net: Any = zoo.build("flash", Br=b, Bc=b, causal=True)
        assert net.executed_pairs(16) == 16 * (16 + b) // 2


def test_backward_does_a_quarter_more_than_the_written_out_attention() -> None:
    """10 A against 8 A, with A = B T² d: the same forward, the same gradients, no scores kept."""
    for at in shapes(3, 5):
        H, T = at.randint(1, 3), at.randint(1, 9)
        d = H * at.randint(1, 4)
        P, A, x = T * d * d, T * T * d, torch.randn(1, T, d)
        assert counted(zoo.build("flash", d=d, H=H, Br=3, Bc=2), x) == Flops(8 * P + 4 * A, 16 * P + 10 * A)
        assert counted(zoo.build("mha", d=d, H=H), x) == Flops(8 * P + 4 * A, 16 * P + 8 * A)


def test_saved_activations() -> None:
    """What the fused kernel keeps: x, q, k, v, the output, a logsumexp per query and head; no scores."""
    for at in shapes(4, 8):
        net, T = drawn(at)
        B = at.randint(1, 2)
        elements = T * net.d + 4 * T * net.H * net.dh + net.H * T
        assert saved_bytes(net, torch.randn(B, T, net.d)) == 4 * B * elements


@pytest.mark.parametrize("causal", [False, True])
def test_works(causal: bool) -> None:
    assert_works("flash", {"T": 7}, d=12, Br=3, Bc=2, causal=causal)


def test_bad_sizes() -> None:
    assert_one_sentence(lambda: zoo.build("flash", Br=0), "Br must be a whole number above zero", "not 0")
    assert_one_sentence(lambda: zoo.build("flash", Bc=-1), "Bc must be a whole number above zero", "not -1")
    assert_one_sentence(lambda: zoo.build("flash", d=10, H=4), "H must divide d", "d=10", "H=4")
