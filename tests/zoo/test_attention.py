"""Attention over all pairs: what it computes, position by position, and what it costs."""

from __future__ import annotations

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
    assert_sees_everything,
    assert_works,
    attention_by_position,
    by_sample_and_head,
    counted,
    differentiable,
    double,
    normal,
    pairs_of,
    parameters,
    saved_bytes,
    shapes,
)

EXPLICIT = ("mha", "mha-no-output", "gqa", "mqa")
FUSED = ("mha-sdpa", "gqa-sdpa")
SELF = (*EXPLICIT, *FUSED)


def heads_of(name: str, H: int, Hkv: int) -> tuple[int, dict[str, int]]:
    """The key heads that a mechanism has, and the symbols it takes for heads."""
    if name.startswith("gqa"):
        return Hkv, {"H": H, "Hkv": Hkv}
    return (1 if name == "mqa" else H), {"H": H}


def by_position(net: Any, x: Tensor, memory: Tensor | None = None) -> Tensor:
    """The definition, from the module's weights alone."""
    memory = x if memory is None else memory
    q, k, v = x @ net.q_proj.weight.T, memory @ net.k_proj.weight.T, memory @ net.v_proj.weight.T

    def head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention_by_position(q, k, v, lambda i, j: j <= i or not net.causal)

    y = by_sample_and_head(q, k, v, net.H, net.Hkv, head)
    return y @ net.out_proj.weight.T if hasattr(net.out_proj, "weight") else y


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", SELF)
def test_output_and_gradients(name: str, causal: bool) -> None:
    for at in shapes(1, 5):
        H, dh = at.choice([2, 4]), at.randint(1, 4)
        _, heads = heads_of(name, H, H // 2)
        net: Any = double(zoo.build(name, d=at.randint(1, 9), **heads, dh=dh, causal=causal))
        x = normal(2, at.randint(1, 6), net.d)
        assert_same(net(x), by_position(net, x))
        assert_same_gradients(net, lambda x, net=net: by_position(net, x), x)


def test_cross_attention_output_and_gradients() -> None:
    for at in shapes(2, 5):
        net: Any = double(zoo.build("cross-attention", d=at.randint(1, 9), H=at.randint(1, 3), dh=at.randint(1, 4)))
        x, memory = normal(2, at.randint(1, 6), net.d), normal(2, at.randint(1, 6), net.d, seed=1)
        assert_same(net(x, memory), by_position(net, x, memory))
        assert_same_gradients(net, lambda x, m, net=net: by_position(net, x, m), x, memory)


@pytest.mark.parametrize("name", SELF)
def test_causal_or_not(name: str) -> None:
    x = normal(2, 6, 8)
    assert_causal(double(zoo.build(name, d=8, causal=True)), x)
    assert_sees_everything(double(zoo.build(name, d=8, causal=False)), x)


@pytest.mark.parametrize("name", SELF)
def test_flops_and_parameters(name: str) -> None:
    """Four projections and two products per pair; a backward of two products for each, a fused one with a fifth.

    The mask of a causal run saves nothing.
    """
    for at in shapes(3):
        d, T, B = at.randint(1, 12), at.randint(1, 9), at.randint(1, 2)
        H, dh, causal = at.choice([2, 4, 6]), at.randint(1, 5), at.random() < 0.5
        Hkv, heads = heads_of(name, H, H // 2)
        net = zoo.build(name, d=d, **heads, dh=dh, causal=causal)
        projections = [H * dh, Hkv * dh, Hkv * dh] + [H * dh] * (name != "mha-no-output")
        product = 2 * B * H * T * T * dh
        forward = 2 * B * T * d * sum(projections) + 2 * product
        recompute = product if name in FUSED else 0
        assert counted(net, torch.randn(B, T, d)) == Flops(forward, 2 * forward, recompute)
        assert parameters(net) == d * sum(projections)


def test_flops_with_heads_of_the_usual_width() -> None:
    """With n = d they are the published forms of P = B T d² and A = B T² d."""
    for at in shapes(4):
        H, Hkv = at.choice([(2, 1), (4, 2), (6, 2), (6, 3)])
        d, T, B = H * at.randint(1, 4), at.randint(1, 9), at.randint(1, 2)
        P, A, x = B * T * d * d, B * T * T * d, torch.randn(B, T, d)
        assert counted(zoo.build("mha", d=d, H=H), x) == Flops(8 * P + 4 * A, 16 * P + 8 * A)
        assert counted(zoo.build("mha-sdpa", d=d, H=H), x) == Flops(8 * P + 4 * A, 16 * P + 8 * A, 2 * A)
        assert counted(zoo.build("mha-no-output", d=d, H=H), x) == Flops(6 * P + 4 * A, 12 * P + 8 * A)
        grouped = (4 * P * (H + Hkv)) // H + 4 * A  # 2 P (2 + 2 Hkv / H)
        assert counted(zoo.build("gqa", d=d, H=H, Hkv=Hkv), x) == Flops(grouped, 2 * grouped)
        one = (4 * P * (H + 1)) // H + 4 * A
        assert counted(zoo.build("mqa", d=d, H=H), x) == Flops(one, 2 * one)


def test_first_layer_on_data_needs_no_input_gradient() -> None:
    """x constant: no dX of the three input projections, 2 P each."""
    for fused in (False, True):
        for at in shapes(5, 5):
            d, T, B = 4 * at.randint(1, 3), at.randint(1, 9), at.randint(1, 2)
            P, A = B * T * d * d, B * T * T * d
            net = zoo.build("mha-sdpa" if fused else "mha", d=d)
            found = counted(net, torch.randn(B, T, d), input_grad=False)
            assert found == Flops(8 * P + 4 * A, 10 * P + 8 * A, 2 * A if fused else 0)


def test_cross_attention_flops_and_parameters() -> None:
    for at in shapes(6):
        d, T, S, B, H, dh = (at.randint(1, top) for top in (12, 9, 9, 2, 4, 5))
        net, n = zoo.build("cross-attention", d=d, H=H, dh=dh), H * dh
        x, memory = torch.randn(B, T, d), torch.randn(B, S, d)
        queries, keys, product = 2 * B * T * d * n, 2 * B * S * d * n, 2 * B * T * S * n
        forward = 2 * queries + 2 * keys + 2 * product
        assert counted(net, x, memory) == Flops(forward, 2 * forward)
        assert parameters(net) == 4 * d * n
        # A memory of constants: dW of k_proj and v_proj, no dX.
        x = differentiable(x)
        assert counted(net, x, memory, input_grad=False) == Flops(forward, 2 * forward - 2 * keys)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", SELF)
def test_saved_activations(name: str, causal: bool) -> None:
    """x, q, k, v, the heads merged (the input of the output projection), and the probabilities or their
    logsumexp; written out, a causal mask is T x T booleans."""
    for at in shapes(7, 5):
        d, T, B, H, dh = at.randint(1, 12), at.randint(2, 9), at.randint(1, 2), at.choice([2, 4]), at.randint(1, 5)
        Hkv, heads = heads_of(name, H, H // 2)
        net = zoo.build(name, d=d, **heads, dh=dh, causal=causal)
        elements = T * d + T * H * dh + 2 * T * Hkv * dh
        elements += T * H * dh * (name != "mha-no-output")
        elements += H * T if name in FUSED else H * T * T
        mask = T * T if causal and name in EXPLICIT else 0
        assert saved_bytes(net, torch.randn(B, T, d)) == 4 * B * elements + mask


def test_cross_attention_saved_activations() -> None:
    for at in shapes(8, 5):
        d, T, S, B, H, dh = (at.randint(2, top) for top in (12, 9, 9, 3, 4, 5))
        elements = T * d + S * d + 2 * T * H * dh + 2 * S * H * dh + H * T * S
        net = zoo.build("cross-attention", d=d, H=H, dh=dh)
        assert saved_bytes(net, torch.randn(B, T, d), torch.randn(B, S, d)) == 4 * B * elements


@pytest.mark.parametrize("name", ["mha", "mha-sdpa"])
def test_traffic(name: str) -> None:
    """Elements moved by a forward, op by op, with heads of the usual width.

    A projection reads x and its weights and writes its output: 2 T d + d² each. Written out, the core reads q, k
    and v and writes its output, 4 T d, and H T² six times: the scores out, in and out of the scale, in and out of
    the softmax, the probabilities in; merging the heads copies 2 T d. In a batch q, k and v are copied so that their
    heads lie apart, 6 T d more. The fused kernel moves 4 T d and a logsumexp per row, and merges nothing.
    """
    for at in shapes(9, 8):
        H, T, B = at.randint(2, 4), at.randint(2, 9), at.randint(1, 2)
        d = H * at.randint(2, 4)
        net = zoo.build(name, d=d, H=H)
        cost = attnprof.run(net, (torch.randn(B, T, d),)).phases["forward"]
        elements = 4 * (2 * B * T * d + d * d) + 4 * B * T * d
        if name == "mha":
            elements += 6 * B * H * T * T + 2 * B * T * d + (6 * B * T * d if B > 1 else 0)
        else:
            elements += B * H * T
        assert cost.bytes == 4 * elements


@pytest.mark.parametrize("name", SELF)
def test_pairs(name: str) -> None:
    causal: Any = zoo.build(name, causal=True)
    every: Any = zoo.build(name)
    for T in range(9):
        assert causal.pairs(T) == pairs_of(lambda i, j: j <= i, T)
        assert every.pairs(T) == pairs_of(lambda i, j: True, T)
    cross: Any = zoo.build("cross-attention")
    assert cross.pairs(3, 5) == pairs_of(lambda i, j: True, 3, 5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", SELF)
def test_works(name: str, causal: bool) -> None:
    assert_works(name, {"T": 5}, d=12, causal=causal)


def test_cross_attention_works() -> None:
    assert_works("cross-attention", {"T": 5, "S": 7}, d=12)


@pytest.mark.parametrize("name", [*SELF, "cross-attention"])
def test_bad_sizes(name: str) -> None:
    assert_one_sentence(lambda: zoo.build(name, d=10, H=4), "H must divide d", "d=10", "H=4")
    assert_one_sentence(lambda: zoo.build(name, H=0), "H must be a whole number above zero", "not 0")
    assert_one_sentence(lambda: zoo.build(name, d=-4), "d must be a whole number above zero", "not -4")
    assert_one_sentence(lambda: zoo.build(name, dh=1.5), "dh must be a whole number above zero", "not 1.5")


@pytest.mark.parametrize("name", ["gqa", "gqa-sdpa"])
def test_bad_key_heads(name: str) -> None:
    assert_one_sentence(lambda: zoo.build(name, H=4, Hkv=3), "Hkv must divide H", "H=4", "Hkv=3")
    assert_one_sentence(lambda: zoo.build(name, Hkv=0), "Hkv must be a whole number above zero", "not 0")
