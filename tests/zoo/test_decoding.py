"""Decoding step by step gives what the whole sequence gives at once, and costs what its steps cost."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

import attnprof
from attnprof import zoo
from zoo.checks import (
    Flops,
    assert_causal,
    assert_one_sentence,
    assert_same,
    assert_same_gradients,
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


def sizes(at: Random) -> dict[str, int]:
    """Symbols of one layer; H and Hkv equal or grouped."""
    H, Hkv = at.choice([(1, 1), (2, 2), (2, 1), (4, 2)])
    return {"d": at.randint(1, 9), "H": H, "Hkv": Hkv, "dh": at.randint(1, 4)}


def widths(net: Any) -> tuple[int, int]:
    """(n, m): all query heads, and all key heads, side by side."""
    return net.H * net.dh, net.Hkv * net.dh


def attention_of(net: Any, x: Tensor) -> Tensor:
    """Causal attention over the whole sequence, position by position."""
    q, k, v = (x @ layer.weight.T for layer in (net.q_proj, net.k_proj, net.v_proj))

    def head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention_by_position(q, k, v, lambda i, j: j <= i)

    return by_sample_and_head(q, k, v, net.H, net.Hkv, head) @ net.out_proj.weight.T


def norm_of(net: Any, x: Tensor) -> Tensor:
    """Layer normalisation of each vector."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + net.eps).sqrt() * net.weight + net.bias


def layer_of(net: Any, x: Tensor) -> Tensor:
    """A pre-norm layer over the whole sequence."""
    x = x + attention_of(net.attention, norm_of(net.norm_1, x))
    hidden = norm_of(net.norm_2, x) @ net.up.weight.T
    gelu = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    return x + gelu @ net.down.weight.T


REFERENCES = {"decode-attention": attention_of, "decode-layer": layer_of}
steps = pytest.mark.parametrize("name", REFERENCES)


@steps
def test_steps_are_the_whole_sequence(name: str) -> None:
    """In steps of any length: a prefill, then chunks or single tokens."""
    for at in shapes(1, 8):
        net: Any = double(zoo.build(name, **sizes(at)))
        B, T = at.randint(1, 2), at.randint(1, 8)
        x = normal(B, T, net.d)

        def by_steps(x: Tensor, net: Any = net, at: Random = at) -> Tensor:
            outputs, cache, start = [], None, 0
            while start < x.shape[1]:
                new = x[:, start : start + at.randint(1, 3)]
                y, cache = net(new, cache)
                outputs.append(y)
                start += new.shape[1]
            assert [part.shape for part in cache] == 2 * [(len(x), net.Hkv, x.shape[1], net.dh)]
            return torch.cat(outputs, 1)

        def reference(x: Tensor, net: Any = net) -> Tensor:
            return REFERENCES[name](net, x)

        assert_same(net(x)[0], reference(x))
        assert_same(by_steps(x), reference(x))
        assert_same_gradients(by_steps, reference, x)


@steps
def test_flops_and_parameters_of_a_step(name: str) -> None:
    """The T new tokens are projected; they meet all S keys, those of the cache and their own."""
    for at in shapes(2):
        symbols = sizes(at) | ({"f": at.randint(1, 9)} if name == "decode-layer" else {})
        net: Any = zoo.build(name, **symbols)
        B, T = at.randint(1, 2), at.choice([1, 1, 2, 3])
        S = T + at.randint(0, 6)
        x, cache = zoo.inputs(name, **symbols, B=B, T=T, S=S)
        (n, m), d, f = widths(net), net.d, symbols.get("f", 0)
        forward = B * (2 * T * d * (2 * n + 2 * m) + 2 * 2 * T * S * n + 2 * 2 * T * d * f)
        assert counted(net, x, cache) == Flops(forward, 2 * forward)
        norms = 2 * 2 * d if name == "decode-layer" else 0
        assert parameters(net) == d * (2 * n + 2 * m) + 2 * d * f + norms


def test_a_token_of_a_layer() -> None:
    """24 d² + 4 t d with heads of the usual width and f = 4 d, t tokens in all."""
    for at in shapes(3):
        H = at.randint(1, 4)
        d, t, B = H * at.randint(1, 4), at.randint(1, 9), at.randint(1, 2)
        x, cache = zoo.inputs("decode-layer", d=d, H=H, B=B, T=1, S=t)
        assert counted(zoo.build("decode-layer", d=d, H=H), x, cache, backward=False) == Flops(
            B * (24 * d * d + 4 * t * d)
        )


def test_a_prefill_costs_what_the_layer_costs() -> None:
    """Without a cache it is causal attention over the prompt: 8 T d² + 4 T² d."""
    for at in shapes(4, 5):
        d, T = 4 * at.randint(1, 3), at.randint(1, 9)
        forward = 8 * T * d * d + 4 * T * T * d
        assert counted(zoo.build("decode-attention", d=d), torch.randn(1, T, d)) == Flops(forward, 2 * forward)


def test_cache_bytes() -> None:
    """Keys and values of S tokens and Hkv heads in float32, as attnprof finds them in the call."""
    for at in shapes(5, 8):
        for name in REFERENCES:
            symbols, B, S = sizes(at), at.randint(1, 2), at.randint(1, 8)
            net: Any = zoo.build(name, **symbols)
            memory = attnprof.run(net, zoo.inputs(name, **symbols, B=B, T=1, S=S)).memory
            assert memory is not None
            assert memory.cache is not None
            assert memory.cache.bytes == 2 * B * S * net.Hkv * net.dh * 4


def layer_saves(net: Any, T: int, S: int, attention: bool = False) -> int:
    """Elements per sample: x, q, heads merged, keys and values, probabilities; around it two norms and a network."""
    n, m = widths(net)
    kept = T * net.d + 2 * T * n + 2 * S * m + net.H * T * S
    # The input of norm_1 (that of the projections is counted above), norm_2 in and out, their means and deviations;
    # before and after the GELU.
    return kept if attention else kept + 3 * T * net.d + 2 * 2 * T + 2 * T * net.f


@steps
def test_saved_activations(name: str) -> None:
    for at in shapes(6, 8):
        symbols, B, T = sizes(at), at.randint(1, 2), at.randint(1, 3)
        net, S = zoo.build(name, **symbols), T + at.randint(1, 6)
        elements, mask = layer_saves(net, T, S, attention=name == "decode-attention"), T * S if T > 1 else 0
        assert saved_bytes(net, *zoo.inputs(name, **symbols, B=B, T=T, S=S)) == 4 * B * elements + mask


def drawn(name: str, at: Random) -> tuple[Any, Tensor]:
    """Layers that decode, and the tokens to decode."""
    net: Any = zoo.build(name, **sizes(at), L=at.randint(1, 2))
    return net, normal(at.randint(1, 2), at.randint(1, 6), net.d)


@pytest.mark.parametrize("name", ["decode-naive", "decode-cached"])
def test_decoding_is_the_whole_sequence(name: str) -> None:
    for at in shapes(7, 5):
        net, x = drawn(name, at)
        double(net)

        def reference(x: Tensor, net: Any = net) -> Tensor:
            for layer in net.layers:
                x = layer_of(layer, x)
            return x

        assert_same(net(x), reference(x))
        assert_same_gradients(net, reference, x)
        assert_causal(net, x)


def test_decoding_flops() -> None:
    """Step t without a cache runs t tokens against t keys, with one a single token against t keys."""
    for at in shapes(8, 10):
        for name in ("decode-naive", "decode-cached"):
            net, x = drawn(name, at)
            (B, T, d), (n, m), L = x.shape, widths(net), net.L
            forward = 0
            for t in range(1, T + 1):
                tokens = t if name == "decode-naive" else 1
                forward += L * B * (2 * tokens * d * (2 * n + 2 * m + 2 * net.f) + 4 * tokens * t * n)
            assert counted(net, x.float()) == Flops(forward, 2 * forward)
            assert parameters(net) == L * (d * (2 * n + 2 * m + 2 * net.f) + 4 * d)


@pytest.mark.parametrize(("d", "T"), [(8, 1), (8, 5), (64, 32)])
def test_sums_over_all_steps(d: int, T: int) -> None:
    """12 d² T (T+1) + 2/3 d T (T+1) (2T+1) against 24 d² T + 2 d T (T+1), with f = 4 d."""
    x = torch.randn(1, T, d)
    naive = 12 * d * d * T * (T + 1) + 2 * d * T * (T + 1) * (2 * T + 1) // 3
    assert counted(zoo.build("decode-naive", d=d), x, backward=False) == Flops(naive)
    cached = 24 * d * d * T + 2 * d * T * (T + 1)
    assert counted(zoo.build("decode-cached", d=d), x, backward=False) == Flops(cached)


def test_decoding_saved_activations() -> None:
    """Of each step what its layers save; x itself, of which the first layer sees slices, is kept once."""
    for at in shapes(9, 5):
        for name in ("decode-naive", "decode-cached"):
            net, x = drawn(name, at)
            B, T, d = x.shape
            elements, masks = T * d, 0
            for t in range(1, T + 1):
                tokens = t if name == "decode-naive" else 1
                elements += net.L * layer_saves(net.layers[0], tokens, t) - tokens * d
                masks += net.L * t * t if tokens > 1 else 0
            assert saved_bytes(net, x.float()) == 4 * B * elements + masks


def test_works() -> None:
    assert_works("decode-attention", {"S": 6}, d=12)
    assert_works("decode-layer", {"T": 3, "S": 6}, d=12, Hkv=2)
    assert_works("decode-naive", {"T": 4}, d=12, L=2)
    assert_works("decode-cached", {"T": 4}, d=12, L=2)


def test_bad_sizes() -> None:
    for name in ("decode-attention", "decode-layer", "decode-naive", "decode-cached"):
        assert_one_sentence(lambda name=name: zoo.build(name, d=10, H=4), "H must divide d", "d=10", "H=4")
        assert_one_sentence(lambda name=name: zoo.build(name, H=4, Hkv=3), "Hkv must divide H", "H=4", "Hkv=3")
    for name in ("decode-layer", "decode-naive", "decode-cached"):
        assert_one_sentence(lambda name=name: zoo.build(name, f=0), "f must be a whole number above zero", "not 0")
    for name in ("decode-naive", "decode-cached"):
        assert_one_sentence(lambda name=name: zoo.build(name, L=0), "L must be a whole number above zero", "not 0")
    assert_one_sentence(lambda: zoo.inputs("decode-attention", T=4, S=3), "S=3 must be at least T=4")
