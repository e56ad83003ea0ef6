"""Transformers of any mixer and feed-forward network: the sum of their parts, and what checkpoints recompute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import attnprof
from attnprof import zoo
from attnprof.zoo.registry import find, sequence
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

CHECKPOINTS = ["reentrant", "non-reentrant"]
each_checkpoint = pytest.mark.parametrize("checkpoint", CHECKPOINTS)

#: What makes [B, T, d] of [B, T, d] and is not itself a model of several layers.
MIXERS = [
    name
    for name in zoo.names()
    if find(name).inputs is sequence and name != "transformer" and not name.startswith("decode-")
]

#: The mechanisms that keep their symbols, by the files that have them.
FILES = (
    "convolution",
    "experts",
    "feedforward",
    "hybrid",
    "longformer",
    "recurrent",
    "sparse",
    "transformer",
    "windows",
)
OWN = [name for name in zoo.names() if find(name).kind.__module__.rpartition(".")[2] in FILES]


def by_hand(net: Any) -> Callable[[Tensor], Tensor]:
    """Layer by layer from the definition of a pre-norm block; mixer and ffn have tests of their own."""

    def normed(x: Tensor, norm: Any) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + norm.eps) * norm.weight + norm.bias

    def forward(x: Tensor) -> Tensor:
        for block in net.blocks:
            x = x + block.mixer(normed(x, block.norm_1))
            x = x + block.ffn(normed(x, block.norm_2))
        return x

    return forward


@pytest.mark.parametrize("checkpoint", [None, *CHECKPOINTS])
@pytest.mark.parametrize(("mixer", "ffn"), [("mha", "ffn"), ("gqa", "swiglu"), ("sliding-window", "moe")])
def test_is_its_blocks_in_turn(mixer: str, ffn: str, checkpoint: str | None) -> None:
    net = double(zoo.build("transformer", d=8, L=3, mixer=mixer, ffn=ffn, checkpoint=checkpoint))
    x = normal(2, 6, 8)
    assert len(net.blocks) == 3
    assert_same(net(x), by_hand(net)(x))
    if checkpoint != "reentrant":  # which torch.autograd.grad refuses: see the next test
        assert_same_gradients(net, by_hand(net), x)


@each_checkpoint
@pytest.mark.parametrize("input_grad", [True, False])
def test_checkpoints_change_no_gradient(checkpoint: str, input_grad: bool) -> None:
    gradients = []
    for way in (None, checkpoint):
        net = double(zoo.build("transformer", d=8, L=2, mixer="gqa", checkpoint=way))
        x = normal(2, 5, 8).requires_grad_(input_grad)
        net(x).square().sum().backward()
        gradients.append([p.grad for p in (*net.parameters(), *([x] if input_grad else []))])
    # Four projections, two matrices with biases, two norms of weight and bias in each of two blocks; the input.
    assert len(gradients[0]) == 2 * (4 + 4 + 4) + input_grad
    assert all(map(torch.equal, *gradients))


def test_causal_if_the_mixer_is() -> None:
    x = normal(2, 6, 8)
    assert_causal(double(zoo.build("transformer", d=8, mixer="mha", causal=True)), x)
    assert_causal(double(zoo.build("transformer", d=8, mixer="sliding-window", ffn="swiglu", w=2, causal=True)), x)


def test_counts_and_parameters() -> None:
    """With P = B T d² and A = B T² d a block is 8 P + 4 A and 16 P; the backward is twice that."""
    for at in shapes(50):
        B, T, L, H = (at.randint(1, most) for most in (2, 10, 3, 3))
        d = H * at.randint(1, 4)
        P, A = B * T * d * d, B * T * T * d
        net = zoo.build("transformer", d=d, L=L, H=H)
        assert counted(net, torch.randn(B, T, d)) == (L * (24 * P + 4 * A), L * (48 * P + 8 * A), 0)
        assert parameters(net) == L * (12 * d * d + 9 * d)


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_mixer_fits(mixer: str) -> None:
    """L blocks cost L times their mixer and L times their feed-forward network; 16 is a multiple of every block."""
    B, T, d, f, L = 2, 16, 8, 12, 2
    symbols = {"N": T} if "N" in find(mixer).symbols else {}
    alone = zoo.build(mixer, d=d, **symbols, **({"f": f} if "f" in find(mixer).symbols else {}))
    x = torch.randn(B, T, d)
    parts = (counted(alone, x), counted(zoo.build("swiglu", d=d, f=f), x))
    whole = counted(zoo.build("transformer", d=d, f=f, L=L, mixer=mixer, ffn="swiglu", **symbols), x)
    assert whole == tuple(L * (of_mixer + of_ffn) for of_mixer, of_ffn in zip(*parts, strict=True))


def test_every_block_and_part_has_its_share() -> None:
    B, T, d, L = 2, 6, 8, 3
    layers = attnprof.run(zoo.build("transformer", d=d, L=L), (torch.randn(B, T, d),)).by_module("forward")
    for block in range(L):
        assert layers[f"blocks.{block}.mixer"].matmul_flops == 8 * B * T * d * d + 4 * B * T * T * d
        assert layers[f"blocks.{block}.ffn"].matmul_flops == 16 * B * T * d * d


@each_checkpoint
@pytest.mark.parametrize("fused", [False, True])
def test_recompute(checkpoint: str, fused: bool) -> None:
    """The whole forward again; or up to the last product, 8 P, of which only the input was saved.

    A fused attention also rebuilds its scores in the backward, 2 A, checkpointed or not.
    """
    for at in shapes(51, 8):
        B, T, L, H = (at.randint(1, most) for most in (2, 10, 3, 3))
        d = H * at.randint(1, 4)
        P, A = B * T * d * d, B * T * T * d
        net = zoo.build("transformer", d=d, L=L, H=H, mixer="mha-sdpa" if fused else "mha", checkpoint=checkpoint)
        again = 24 * P + 4 * A if checkpoint == "reentrant" else 16 * P + 4 * A
        scores = 2 * A if fused else 0
        forward = L * (24 * P + 4 * A)
        assert counted(net, torch.randn(B, T, d)) == (forward, 2 * forward, L * (again + scores))


@each_checkpoint
def test_recompute_of_gated_and_grouped_parts(checkpoint: str) -> None:
    """Forward 2 B T d² (2 + 2 Hkv / H) + 4 A + 6 B T d f; of swiglu the down product, 2 B T d f, is last."""
    B, T, d, f, L, H, Hkv = 2, 6, 8, 10, 2, 4, 2
    block = 2 * B * T * d * (2 * d + 2 * d * Hkv // H) + 4 * B * T * T * d + 6 * B * T * d * f
    net = zoo.build("transformer", d=d, f=f, L=L, H=H, Hkv=Hkv, mixer="gqa", ffn="swiglu", checkpoint=checkpoint)
    again = block if checkpoint == "reentrant" else block - 2 * B * T * d * f
    assert counted(net, torch.randn(B, T, d)) == (L * block, 2 * L * block, L * again)


def test_a_mixture_of_experts_is_recomputed_whole() -> None:
    """What an expert returned is saved to be weighted, so no product may be left out."""
    B, T, d, f, L, E, k = 2, 6, 8, 10, 2, 3, 2
    block = 8 * B * T * d * d + 4 * B * T * T * d + 2 * B * T * d * E + 4 * k * B * T * d * f
    for checkpoint in CHECKPOINTS:
        net = zoo.build("transformer", d=d, f=f, L=L, ffn="moe", E=E, k=k, checkpoint=checkpoint)
        assert counted(net, torch.randn(B, T, d)) == (L * block, 2 * L * block, L * block)


def test_an_input_that_needs_no_gradient() -> None:
    """saves no product: what comes to the first mixer needs one all the same, for the norm before it."""
    B, T, d, L = 2, 6, 8, 2
    P, A = B * T * d * d, B * T * T * d
    for checkpoint in (None, *CHECKPOINTS):
        net = zoo.build("transformer", d=d, L=L, checkpoint=checkpoint)
        flops = counted(net, torch.randn(B, T, d), input_grad=False)
        assert (flops.forward, flops.backward) == (L * (24 * P + 4 * A), L * (48 * P + 8 * A))


def test_share_of_recompute() -> None:
    """Of three forwards a full recompute is one more: a third. Stopped early, (16 P + 4 A) / (72 P + 12 A)."""
    B, T, d = 1, 8, 4
    P, A = B * T * d * d, B * T * T * d
    shares = {}
    for checkpoint in CHECKPOINTS:
        flops = counted(zoo.build("transformer", d=d, H=2, checkpoint=checkpoint), torch.randn(B, T, d))
        shares[checkpoint] = flops.recompute / (flops.forward + flops.backward)
    assert shares == {"reentrant": 1 / 3, "non-reentrant": (16 * P + 4 * A) / (72 * P + 12 * A)}


@pytest.mark.parametrize("name", OWN)
def test_a_trace_has_the_symbols(name: str) -> None:
    """A module keeps what it was built from, so that a saved run can be held against theory."""
    symbols = find(name).symbols.keys() - {"bias"}  # a bias is among the parameters
    trace = attnprof.run(zoo.build(name), zoo.inputs(name, T=16)).trace
    root = next(module for module in trace.modules if module.fqn == "")
    assert symbols <= root.hyperparameters.keys()
    assert None not in [root.hyperparameters[symbol] for symbol in symbols - {"checkpoint"}]


def test_without_gradients_nothing_is_checkpointed() -> None:
    for checkpoint in CHECKPOINTS:
        net = double(zoo.build("transformer", d=8, checkpoint=checkpoint))
        x = normal(2, 5, 8)
        with torch.no_grad():
            assert_same(net(x), by_hand(net)(x))


@pytest.mark.parametrize("B", [1, 2])
def test_saved_activations(B: int) -> None:
    """In float32. A block with a GELU: 16 T d + H T² + 4 T per sample; checkpointed, only its input, T d."""
    T, d, H, L = 6, 8, 2, 3
    x = torch.randn(B, T, d)
    plain = zoo.build("transformer", d=d, L=L, H=H, activation="gelu")
    assert saved_bytes(plain, x) == 4 * L * B * (16 * T * d + H * T * T + 4 * T)
    fused = zoo.build("transformer", d=d, L=L, H=H, activation="gelu", mixer="mha-sdpa")
    assert saved_bytes(fused, x) == 4 * L * B * (16 * T * d + H * T + 4 * T)
    for checkpoint in CHECKPOINTS:
        net = zoo.build("transformer", d=d, L=L, H=H, activation="gelu", checkpoint=checkpoint)
        assert saved_bytes(net, x) == 4 * L * B * T * d


def language_model_by_hand(net: Any) -> Callable[[Tensor], Tensor]:
    def forward(ids: Tensor) -> Tensor:
        rows = [[net.tokens.weight[i] + net.positions.weight[t] for t, i in enumerate(sample)] for sample in ids]
        x = net.transformer(torch.stack([torch.stack(row) for row in rows]))
        centred = x - x.mean(-1, keepdim=True)
        scale = torch.sqrt(centred.square().mean(-1, keepdim=True) + net.norm.eps)
        return (centred / scale * net.norm.weight + net.norm.bias) @ net.head.weight.T

    return forward


@pytest.mark.parametrize("tied", [True, False])
def test_language_model(tied: bool) -> None:
    net = double(zoo.build("lm", d=8, V=11, N=7, L=2, tied=tied))
    ids = torch.tensor([[1, 2, 3, 4], [5, 5, 10, 0]])
    assert_same(net(ids), language_model_by_hand(net)(ids))
    for t in range(4):
        changed = ids.clone()
        changed[:, t] = 9
        same = (net(changed) == net(ids)).all(-1)
        assert same[:, :t].all()
        assert not same[:, t].any()


def test_language_model_counts() -> None:
    """The blocks, and a head of 2 B T d V: 2 per token and weight in them, and 4 L A. Embeddings are looked up."""
    for at in shapes(52, 10):
        B, T, L, H, V = (at.randint(1, most) for most in (2, 8, 3, 3, 20))
        d = H * at.randint(1, 4)
        A = B * T * T * d
        weights = L * 12 * d * d + d * V
        for tied in (True, False):
            net = zoo.build("lm", d=d, V=V, N=8, L=L, H=H, tied=tied)
            forward = 2 * B * T * weights + 4 * L * A
            assert counted(net, torch.randint(V, (B, T))) == (forward, 2 * forward, 0)
            assert parameters(net) == V * d * (1 if tied else 2) + 8 * d + L * (12 * d * d + 9 * d) + 2 * d


def test_a_language_model_tells_its_mixer_what_it_knows() -> None:
    """Causal where the mixer can be, as long as the longest sequence where it has to know."""
    assert zoo.build("lm", N=9, mixer="synthesizer-random").transformer.blocks[0].mixer.causal
    assert zoo.build("lm", N=9, mixer="synthesizer-random").transformer.blocks[0].mixer.N == 9
    assert not zoo.build("lm", mixer="mha", causal=False).transformer.blocks[0].mixer.causal


@pytest.mark.parametrize("checkpoint", [None, *CHECKPOINTS])
def test_works_wherever_a_module_is_used(checkpoint: str | None) -> None:
    assert_works("transformer", {"T": 6}, d=8, L=2, checkpoint=checkpoint)
    assert_works("lm", {"T": 6}, d=8, L=2, V=11, checkpoint=checkpoint)


def test_a_fake_model_of_any_size() -> None:
    """A model of 96 layers as wide as the widest of 2020, counted without its 175 billion parameters."""
    B, T, d, L, V = 1, 2048, 12288, 96, 50257
    with attnprof.fake_tensors():
        net = zoo.build("lm", d=d, L=L, H=96, V=V, N=2048)
        ids = zoo.inputs("lm", B=B, T=T, V=V)
    forward = 2 * B * T * (L * 12 * d * d + d * V) + 4 * L * B * T * T * d
    assert counted(net, *ids, backward=False, fake=True).forward == forward


def test_bad_sizes() -> None:
    def transformer(**symbols: Any) -> Callable[[], Any]:
        return lambda: zoo.build("transformer", **symbols)

    for name in ("d", "L", "f"):
        assert_one_sentence(transformer(**{name: 0}), name, "0")
    assert_one_sentence(transformer(checkpoint="sometimes"), "checkpoint", "'sometimes'", "reentrant, non-reentrant")
    assert_one_sentence(transformer(w=3), "mha and ffn", "'w'", "H")
    assert_one_sentence(transformer(mixer="sliding-window", w=0), "w", "0")
    assert_one_sentence(transformer(mixer="cross-attention"), "mixer", "'cross-attention'")
    assert_one_sentence(transformer(ffn="lm"), "ffn", "'lm'")
    assert_one_sentence(transformer(mixer="zzz"), "'zzz'")
    for name in ("d", "V", "N"):
        assert_one_sentence(lambda name=name: zoo.build("lm", **{name: -1}), name, "-1")
    assert_one_sentence(lambda: zoo.build("lm", w=3), "'w'")
    net = zoo.build("lm", N=4)
    assert_one_sentence(lambda: net(torch.zeros(1, 5, dtype=torch.long)), "T=5", "N=4")
