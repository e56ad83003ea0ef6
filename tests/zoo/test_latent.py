"""Latent attention: heads made of latent vectors, or looked up in them; the same outputs, another cost."""

from __future__ import annotations

import cmath
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

import attnprof
from attnprof import zoo
from attnprof.zoo.latent import rotate
from zoo.checks import (
    Flops,
    assert_causal,
    assert_one_sentence,
    assert_same,
    assert_same_gradients,
    assert_sees_everything,
    assert_works,
    attention_by_position,
    counted,
    double,
    normal,
    pairs_of,
    parameters,
    saved_bytes,
    shapes,
)


def sizes(at: Random) -> dict[str, Any]:
    """Symbols, with a latent vector of queries or without."""
    return {
        "d": at.randint(1, 9),
        "H": at.randint(1, 3),
        "dh": at.randint(1, 4),
        "dr": at.choice([2, 4]),
        "dc": at.randint(1, 6),
        "dq": at.choice([None, at.randint(1, 6)]),
    }


def normed(x: Tensor, weight: Tensor) -> Tensor:
    """Each vector over its root mean square."""
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def turned(x: Tensor) -> Tensor:
    """Pairs of a sequence [T, dr] as complex numbers: position t turns pair p by an angle of t 10000^(-2p/dr)."""
    rows = []
    for t, vector in enumerate(x):
        row = []
        for p in range(len(vector) // 2):
            turn = cmath.exp(1j * t * 10_000 ** (-2 * p / len(vector)))
            a, b = vector[2 * p], vector[2 * p + 1]
            row += [a * turn.real - b * turn.imag, a * turn.imag + b * turn.real]
        rows.append(torch.stack(row))
    return torch.stack(rows)


def by_position(net: Any, x: Tensor) -> Tensor:
    """Every head of keys and values made in full from the weights, then attention position by position."""
    samples = []
    for sample in x:
        queries = sample
        if net.dq is not None:
            down, norm = net.q_down
            queries = normed(sample @ down.weight.T, norm.weight)
        queries = queries @ net.q_up.weight.T
        both = sample @ net.kv_down.weight.T
        latent, position = normed(both[:, : net.dc], net.kv_norm.weight), turned(both[:, net.dc :])
        keys, values, width = latent @ net.k_up.weight.T, latent @ net.v_up.weight.T, net.dh + net.dr
        heads = []
        for h in range(net.H):
            q = queries[:, h * width : (h + 1) * width]
            q = torch.cat([q[:, : net.dh], turned(q[:, net.dh :])], 1)
            own = slice(h * net.dh, (h + 1) * net.dh)
            k = torch.cat([keys[:, own], position], 1)
            heads.append(attention_by_position(q, k, values[:, own], lambda i, j: j <= i or not net.causal))
        samples.append(torch.cat(heads, 1) @ net.out_proj.weight.T)
    return torch.stack(samples)


@pytest.mark.parametrize("causal", [False, True])
def test_output_and_gradients(causal: bool) -> None:
    for at in shapes(1, 8):
        net: Any = double(zoo.build("mla", **sizes(at), causal=causal))
        x = normal(at.randint(1, 2), at.randint(1, 6), net.d)
        assert_same(net(x), by_position(net, x))
        assert_same_gradients(net, lambda x, net=net: by_position(net, x), x)


def test_steps_are_the_whole_sequence() -> None:
    """In steps of any length, from latent vectors alone: dc + dr numbers per token."""
    for at in shapes(2, 8):
        net: Any = double(zoo.build("mla-decode", **sizes(at)))
        x = normal(at.randint(1, 2), at.randint(1, 7), net.d)

        def by_steps(x: Tensor, net: Any = net, at: Random = at) -> Tensor:
            outputs, cache, start = [], None, 0
            while start < x.shape[1]:
                new = x[:, start : start + at.randint(1, 3)]
                y, cache = net(new, cache)
                outputs.append(y)
                start += new.shape[1]
            assert cache.shape == (len(x), x.shape[1], net.dc + net.dr)
            return torch.cat(outputs, 1)

        assert_same(by_steps(x), by_position(net, x))
        assert_same_gradients(by_steps, lambda x, net=net: by_position(net, x), x)


def test_both_forms_share_their_weights() -> None:
    one, two = double(zoo.build("mla", d=8), seed=1), double(zoo.build("mla-decode", d=8), seed=2)
    two.load_state_dict(one.state_dict())
    x = normal(2, 5, 8)
    assert_same(two(x)[0], one(x))


def test_rotation_depends_on_distance_alone() -> None:
    """q at position s + a and k at s + b have the same product for every s, and it is not that without a turn."""
    q, k = normal(1, 4), normal(1, 4, seed=1)
    products = [rotate(q, s + 5).flatten().dot(rotate(k, s + 2).flatten()) for s in range(4)]
    assert_same(products, [products[0]] * 4)
    assert abs(products[0] - q.flatten().dot(k.flatten())) > 1e-3
    assert_same(rotate(q, 0), q)


def test_causal_or_not() -> None:
    x = normal(2, 6, 8)
    assert_causal(double(zoo.build("mla", d=8)), x)
    assert_sees_everything(double(zoo.build("mla", d=8, causal=False)), x)
    decode = double(zoo.build("mla-decode", d=8))
    assert_causal(lambda x: decode(x)[0], x)


def projections(net: Any) -> int:
    """Multiply-adds per token: what each of the weight matrices holds."""
    d, n, width = net.d, net.H * net.dh, net.H * (net.dh + net.dr)
    queries = d * width if net.dq is None else d * net.dq + net.dq * width
    return queries + d * (net.dc + net.dr) + 2 * net.dc * n + n * d


def test_flops_and_parameters() -> None:
    """Queries and keys are dh + dr wide, values dh."""
    for at in shapes(3):
        net: Any = zoo.build("mla", **sizes(at), causal=at.random() < 0.5)
        B, T = at.randint(1, 2), at.randint(1, 8)
        forward = 2 * B * T * projections(net) + 2 * B * net.H * T * T * (net.dh + net.dr + net.dh)
        assert counted(net, torch.randn(B, T, net.d)) == Flops(forward, 2 * forward)
        assert parameters(net) == projections(net) + net.dc + (net.dq or 0)


def test_flops_and_parameters_of_a_step() -> None:
    """Keys are the latent vectors, dc + dr wide, and values dc; k_up and v_up run on the new tokens only."""
    for at in shapes(4):
        symbols = sizes(at)
        net: Any = zoo.build("mla-decode", **symbols)
        B, T = at.randint(1, 2), at.choice([1, 1, 2, 3])
        S = T + at.randint(0, 6)
        forward = 2 * B * T * projections(net) + 2 * B * net.H * T * S * (net.dc + net.dr + net.dc)
        args = zoo.inputs("mla-decode", **symbols, B=B, T=T, S=S)
        assert counted(net, *args) == Flops(forward, 2 * forward)
        assert parameters(net) == projections(net) + net.dc + (net.dq or 0)


def test_cache_bytes() -> None:
    for at in shapes(5, 6):
        symbols, B, S = sizes(at), at.randint(1, 2), at.randint(1, 8)
        args = zoo.inputs("mla-decode", **symbols, B=B, T=1, S=S)
        memory = attnprof.run(zoo.build("mla-decode", **symbols), args).memory
        assert memory is not None
        assert memory.cache is not None
        assert memory.cache.bytes == B * S * (symbols["dc"] + symbols["dr"]) * 4


def test_saved_activations() -> None:
    for at in shapes(6, 8):
        for name in ("mla", "mla-decode"):
            symbols, B, T = sizes(at), at.randint(1, 2), at.randint(1, 4)
            net: Any = zoo.build(name, **symbols)
            S = T if name == "mla" else T + at.randint(1, 4)
            d, H, dh, dr, dc, n = net.d, net.H, net.dh, net.dr, net.dc, net.H * net.dh
            kept = T * d + T * n  # x, and the heads merged
            kept += 0 if net.dq is None else T * (3 * net.dq + 1)  # before, within and after the norm, its scale
            kept += T * (dc + dr) + T * dc + T  # the output of kv_down, within its norm, its scale
            if name == "mla":
                kept += T * (dc + dr)  # the latent vectors, beside the turned keys
                kept += 2 * T * H * (dh + dr) + T * n + H * T * T  # q, k, v, the probabilities
                mask = T * T
            else:
                kept += S * (dc + dr)  # the cache
                kept += T * H * (dh + dr) + T * H * (dc + dr)  # the queries before and after absorbing k_up
                kept += H * T * S + T * H * dc  # the probabilities, the averages
                mask = T * S if T > 1 else 0
            turns = 2 * 2 * T * dr // 2  # sine and cosine of queries and of keys, for each of dr / 2 pairs
            args = zoo.inputs(name, **symbols, B=B, T=T, **({"S": S} if name == "mla-decode" else {}))
            assert saved_bytes(net, *args) == 4 * (B * kept + turns) + mask


def test_pairs() -> None:
    for T in range(7):
        for causal in (False, True):
            net: Any = zoo.build("mla", causal=causal)
            assert net.pairs(T) == pairs_of(lambda i, j, causal=causal: j <= i or not causal, T)


@pytest.mark.parametrize("dq", [6, None])
def test_works(dq: int | None) -> None:
    assert_works("mla", {"T": 5}, d=12, dr=4, dc=6, dq=dq)
    assert_works("mla-decode", {"S": 6}, d=12, dr=4, dc=6, dq=dq)
    assert_works("mla-decode", {"T": 3, "S": 6}, d=12, dr=4, dc=6, dq=dq)


@pytest.mark.parametrize("name", ["mla", "mla-decode"])
def test_bad_sizes(name: str) -> None:
    assert_one_sentence(lambda: zoo.build(name, d=10, H=4), "H must divide d", "d=10", "H=4")
    assert_one_sentence(lambda: zoo.build(name, dr=3), "dr must be even", "dr=3")
    for symbol in ("dr", "dc", "dq"):
        assert_one_sentence(
            lambda symbol=symbol: zoo.build(name, **{symbol: 0}), f"{symbol} must be a whole number above zero", "0"
        )


def test_bad_step() -> None:
    assert_one_sentence(lambda: zoo.inputs("mla-decode", T=4, S=3), "S=3 must be at least T=4")
