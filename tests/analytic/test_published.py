"""Closed forms as they are published, and known values at stated sizes."""

from __future__ import annotations

from math import ceil
from typing import Any

import pytest
from sympy import Min, Symbol, simplify

from attnprof.analytic import Prediction, adam_states, predict, two_n_rule
from attnprof.core.errors import AttnprofError


def symbols(names: str) -> list[Any]:
    return [Symbol(name, integer=True, positive=True) for name in names.split()]


B, T, S, d, H, Hkv, f, r, k, E, L, e = symbols("B T S d H Hkv f r k E L e")
P, A = B * T * d**2, B * T**2 * d


def flops(name: str, *phases: Any, **options: Any) -> Any:
    theory = predict(name, **options)
    return sum(theory.total("matmul_flops", phase) for phase in phases or ("forward",))


@pytest.mark.parametrize(
    ("name", "options", "forward"),
    [
        ("mha", {}, 8 * P + 4 * A),
        ("mha-sdpa", {}, 8 * P + 4 * A),
        ("mha-no-output", {}, 6 * P + 4 * A),
        ("gqa", {}, 2 * P * (2 + 2 * Hkv / H) + 4 * A),
        ("mqa", {}, 4 * P * (1 + 1 / H) + 4 * A),
        ("linear", {}, 8 * P + 4 * P / H + 2 * B * T * d),
        ("performer", {}, 8 * P + 8 * B * T * r * d + 2 * B * T * r * H),
        ("synthesizer-random", {}, 4 * P + 2 * A),
        ("synthesizer-dense", {}, 6 * P + 4 * A),
        ("topk", {}, 8 * P + 2 * A + 2 * B * T * Min(k, T) * d),
        ("ffn", {}, 4 * B * T * d * f),
        ("swiglu", {}, 6 * B * T * d * f),
        ("moe", {}, 4 * k * B * T * d * f + 2 * B * T * d * E),
        ("transformer", {}, L * (24 * P + 4 * A)),
        ("decode-layer", {}, B * T * (24 * d**2 + 4 * S * d)),
        ("decode-cached", {}, B * L * (24 * d**2 * T + 2 * d * T * (T + 1))),
        ("decode-naive", {}, B * L * (12 * d**2 * T * (T + 1) + 2 * d * T * (T + 1) * (2 * T + 1) / 3)),
    ],
)
def test_forward(name: str, options: dict[str, Any], forward: Any) -> None:
    """The matmul FLOPs of a forward, in symbols; the backward of all but random features is twice that."""
    theory = predict(name, **options)
    assert simplify(theory.total("matmul_flops", "forward") - forward) == 0
    if name != "performer":
        assert simplify(theory.total("matmul_flops", "backward") - 2 * forward) == 0


def test_performer_backward() -> None:
    """The directions are fixed: one product each for the gradients of q's and k's features."""
    assert simplify(flops("performer", "backward") - (16 * P + 12 * B * T * r * d + 4 * B * T * r * H)) == 0


FROZEN = ("q_proj", "k_proj")


@pytest.mark.parametrize(
    ("name", "frozen", "input_grad", "backward"),
    [
        ("mha", (), True, 16 * P + 8 * A),
        ("mha", FROZEN, True, 12 * P + 8 * A),
        ("mha", (), False, 10 * P + 8 * A),
        ("mha", FROZEN, False, 6 * P + 2 * A),
        ("mha-sdpa", (), True, 16 * P + 10 * A),
        ("mha-sdpa", FROZEN, True, 12 * P + 10 * A),
        ("mha-sdpa", (), False, 10 * P + 10 * A),
        ("mha-sdpa", FROZEN, False, 6 * P + 10 * A),
    ],
)
def test_frozen_queries_and_keys(name: str, frozen: Any, input_grad: bool, backward: Any) -> None:
    """Two weight gradients are saved, 4 P; the scores' own only where nothing below needs one and nothing is fused."""
    found = flops(name, "backward", "recompute", frozen=frozen, input_grad=input_grad)
    assert simplify(found - backward) == 0
    orthogonal = {"mha": "orthogonal", "mha-sdpa": "orthogonal-sdpa"}[name]
    if frozen:
        assert simplify(flops(orthogonal, "backward", "recompute", input_grad=input_grad) - backward) == 0


def test_known_values() -> None:
    """Sizes and totals that others have published or counted."""
    assert predict("mha", B=1, T=512, d=768, H=12).evaluate("matmul_flops", "forward") == 3_221_225_472
    assert predict("mha", B=1, T=4096, d=768, H=12).evaluate("matmul_flops", "backward") == 141_733_920_768
    assert predict("performer", B=1, T=1024, d=768, H=12, r=266).evaluate(phase="forward") == 6_511_902_720
    assert predict("performer", B=1, T=256, d=256, H=4, r=100).evaluate(phase="backward") == 347_488_256
    assert predict("linear", B=1, T=256, d=256, H=4).evaluate(phase="forward") == 151_126_016
    assert predict("moe", B=1, T=256, d=128, f=512, E=8, k=2).evaluate(phase="forward") == 134_742_016
    assert predict("decode-cached", B=1, T=32, d=64, H=4, L=1).evaluate(phase="forward") == 3_280_896
    assert predict("decode-naive", B=1, T=32, d=64, H=4, L=1).evaluate(phase="forward") == 54_833_152
    assert predict("swiglu", B=2, T=10, d=64, f=172).evaluate(phase="forward") == 1_320_960
    assert predict("synthesizer-random", B=1, T=512, d=768, H=12, N=512).evaluate("parameters") == 4_325_376
    assert predict("mha", B=1, T=512, d=768, H=12).evaluate("vector_flops", "forward") == 15_716_352 + 12 * 512 * 512
    assert predict("mha", B=1, T=128, d=768, H=12).evaluate("saved_bytes") == 2_752_512
    assert predict("mha-sdpa", B=1, T=128, d=768, H=12).evaluate("saved_bytes") == 1_972_224


def test_traffic_of_attention_written_out() -> None:
    """14 T d of projections, products and merging, 4 d² of weights, 6 H T² of scores; copies of q, k, v for B > 1."""
    for batch, length, width, heads in ((1, 128, 64, 4), (1, 96, 256, 8), (2, 96, 256, 8)):
        theory = predict("mha", B=batch, T=length, d=width, H=heads)
        moved = theory.evaluate("read_bytes", "forward") + theory.evaluate("write_bytes", "forward")
        per_token = 14 + (6 if batch > 1 else 0)
        square = 6 * batch * heads * length**2
        assert moved == 4 * (per_token * batch * length * width + 4 * width**2 + square)


def test_models_by_their_parameters() -> None:
    """BERT-base's encoder and GPT-2 medium: 12 d² + 13 d per layer with biases in the attention, 4 d of them there."""
    bert = predict("transformer", B=1, T=1, d=768, L=12, H=12)
    assert bert.evaluate("parameters") + 12 * 4 * 768 == 85_054_464
    gpt2 = predict("lm", B=1, T=1, d=1024, L=24, H=16, V=50257, N=1024)
    assert gpt2.evaluate("parameters") + 24 * 4 * 1024 == 354_823_168


def test_saved_of_a_block() -> None:
    """A pre-norm block with a GELU network of 4 d: 16 T d + H T² + 4 T elements; fused, H T in place of H T²."""
    theory = predict("transformer", activation="gelu")
    assert simplify(theory.total("saved_bytes") - L * e * B * (16 * T * d + H * T**2 + 4 * T)) == 0
    fused = predict("transformer", activation="gelu", mixer="mha-sdpa")
    assert fused.evaluate("saved_bytes", B=1, T=96, d=64, H=4, L=1) == 4 * (16 * 96 * 64 + 4 * 96 + 4 * 96)


@pytest.mark.parametrize(("checkpoint", "again"), [("reentrant", 24 * P + 4 * A), ("non-reentrant", 16 * P + 4 * A)])
def test_checkpoints(checkpoint: str, again: Any) -> None:
    """All of it again, a third of 72 P + 12 A; stopping early, all but the last product. One T d per layer is kept."""
    theory = predict("transformer", checkpoint=checkpoint)
    assert simplify(theory.total("matmul_flops", "recompute") - L * again) == 0
    assert simplify(flops("transformer", "forward", "backward", checkpoint=checkpoint) - L * (72 * P + 12 * A)) == 0
    assert simplify(theory.total("saved_bytes") - L * B * T * d * e) == 0


def test_experts() -> None:
    """E times 2 d f + f + d and the router; a token meets k of them."""
    theory = predict("moe")
    assert simplify(theory.total("parameters") - (E * (2 * d * f + f + d) + d * E)) == 0
    assert simplify(theory.total("active_parameters") - (k * (2 * d * f + f + d) + d * E)) == 0


def test_cache() -> None:
    assert simplify(predict("gqa").total("kv_cache_bytes") - 2 * B * T * Hkv * d / H * e) == 0
    llama = predict("decode-cached", B=1, T=4096, d=4096, H=32, L=32, e=2)
    assert llama.evaluate("kv_cache_bytes") == 2 * 32 * 4096 * 4096 * 2  # 2 GiB


def standard(n: int, width: int) -> int:
    return 4 * n * n + 4 * n * width


def flash(n: int, width: int, on_chip: int) -> int:
    """Algorithm 1, load by load and store by store."""
    columns = ceil(on_chip / (4 * width))
    moved = 0
    for start in range(0, n, columns):
        keys = min(columns, n - start)
        moved += 2 * keys * width  # a block of K and of V
        moved += n * (2 * width + 2)  # all rows of Q and O, of m and l, come in
        moved += n * (width + 2)  # and those of O, m and l go out
    return moved


@pytest.mark.parametrize(("n", "width", "on_chip"), [(512, 64, 8192), (100, 8, 100), (33, 16, 17), (64, 16, 1024)])
def test_traffic_of_flash_attention(n: int, width: int, on_chip: int) -> None:
    theory = predict("flash-io", B=1, H=1, T=n, dh=width, M=on_chip, e=1)
    moved = theory.evaluate("read_bytes", "forward") + theory.evaluate("write_bytes", "forward")
    assert moved == flash(n, width, on_chip)
    assert moved == 2 * n * width + ceil(n / ceil(on_chip / (4 * width))) * (3 * n * width + 4 * n)
    other = predict("attention-io", B=1, H=1, T=n, dh=width, e=1)
    both = other.evaluate("read_bytes", "forward") + other.evaluate("write_bytes", "forward")
    assert both == standard(n, width)


def test_on_chip_memory_is_that_of_one_multiprocessor() -> None:
    """20 MiB, the sum over all of an A100, is refused: 8192 keys of width 64 would fit in it."""
    with pytest.raises(AttnprofError, match=r"^M can be at most T dh.* of one SM.*524288\.$"):
        predict("flash-io", B=1, H=1, T=8192, dh=64, M=10 * 2**20)
    with pytest.raises(AttnprofError, match=r"^M must be at least dh.* M=63 is below dh=64\.$"):
        predict("flash-io", dh=64, M=63)
    for edge in (64, 8192 * 64):
        assert predict("flash-io", B=1, H=1, T=8192, dh=64, M=edge).evaluate("read_bytes", "forward") > 0


@pytest.mark.parametrize("frozen", [(), FROZEN])
def test_states_of_training(frozen: tuple[str, ...]) -> None:
    """16 d² e without and 10 d² e with frozen queries and keys: 37.5% less; in mixed precision 16 bytes or 2."""
    theory = predict("mha", d=768, H=12, e=2, frozen=frozen)
    trained = 2 if frozen else 4
    found = adam_states(theory)
    assert total_bytes(found) == 2 * (4 + 3 * trained) * 768**2
    assert total_bytes(adam_states(theory, "amp")) == (16 * trained + 2 * (4 - trained)) * 768**2


def total_bytes(states: Prediction) -> int:
    return sum(states.evaluate(q) for q in ("parameter_bytes", "gradient_bytes", "optimizer_bytes"))


@pytest.mark.parametrize("length", [128, 1024, 2048, 4096])
def test_the_rule_of_two_n(length: int) -> None:
    """GPT-2 small: 2 W per token for the W = 123,532,032 weights of its matrices; missed are 4 L T² d, 1.9% to 38%."""
    theory = two_n_rule(predict("lm", B=1, T=length, d=768, L=12, H=12, V=50257, N=4096))
    weights, missed = (theory.value(t.expression) for t in theory.terms)
    assert weights == 2 * 123_532_032 * length
    assert missed == 4 * 12 * length**2 * 768
    assert theory.evaluate() == weights + missed
