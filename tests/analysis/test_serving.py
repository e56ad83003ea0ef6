"""Serving predicted: intensity by batch and its limit, what a device allows, and one sentence for every mistake.

The figures are those of LLaMA-7B in float16: W weights in its matrices, L layers of width d.
"""
# ruff: noqa: N806 (the symbols are those of formulas)

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from typing import Any

import pytest
import torch

import attnprof
from attnprof.analysis.matmul_intensity import matmul_intensity, rows_above
from attnprof.api.serving import Serving
from attnprof.core.device import DeviceSpec, Peak, Provenance
from attnprof.core.errors import AttnprofError

d, f, L, H, V = 4096, 11008, 32, 32, 32000
W = L * (4 * d * d + 3 * d * f) + V * d
NORMS = (2 * L + 1) * d
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": d,
    "intermediate_size": f,
    "num_hidden_layers": L,
    "num_attention_heads": H,
    "vocab_size": V,
    "torch_dtype": "float16",
    "max_position_embeddings": 2048,
}
QUOTED = Provenance("quoted", ("a test",))


def spec(peak: int, bandwidth: int | None, memory: int | None = 80 * 2**30) -> DeviceSpec:
    """A device of one peak."""
    peaks = (Peak("matmul", "float16", peak, QUOTED),)
    return DeviceSpec("made-up", "made up", "", peaks=peaks, bandwidth_bytes_per_s=bandwidth, memory_bytes=memory)


#: 312 TFLOP/s over 2.0 TB/s: a ridge of 156 FLOP/B.
A100 = spec(312 * 10**12, 2 * 10**12)


def decode(batch: Any = 1, kv: int = 4096, device: Any = None, **changes: Any) -> Serving:
    return attnprof.serving({**LLAMA, **changes}, phase="decode", batch=batch, kv=kv, device=device)


# Intensity


@pytest.mark.parametrize(("batch", "shown"), [(1, "1.00"), (16, "5.17"), (64, "6.53"), (256, "6.99")])
def test_intensity_of_a_decode_step(batch: int, shown: str) -> None:
    """(2 W B + 4 B L S d) / e (W + 2 B L S Hkv dh), the norms' weights beside W: each weight and key is read once."""
    S = 4096
    (row,) = decode(batch, S).rows
    assert row.flops == 2 * W * batch + 4 * batch * L * S * d
    assert row.step.weight_bytes == 2 * (W + NORMS)
    assert row.step.cache_bytes == 2 * (2 * batch * L * S * d) == row.kv_cache_bytes
    assert row.step.cache_write_bytes == 2 * (2 * batch * L * 1 * d)
    assert row.bytes == row.step.weight_bytes + row.step.cache_bytes
    assert row.intensity == Fraction(row.flops, row.bytes)
    assert f"{float(row.intensity):.2f}" == shown


def test_the_limit_as_the_batch_grows() -> None:
    """Weights fade away beside the caches: (2 W + 4 L S d) / e 2 L S d, which is 1 + W / 2 L S d in two bytes."""
    found = decode()
    assert found.intensity_limit == 1 + Fraction(W, 2 * L * 4096 * d)
    assert f"{float(found.intensity_limit):.2f}" == "7.15"
    (huge,) = decode(10**9).rows
    assert huge.intensity < found.intensity_limit
    # What is missing of the limit is the share of the weights, at most W / (B 2 L S d) of the whole.
    assert 1 - huge.intensity / found.intensity_limit < Fraction(W + NORMS, 10**9 * 2 * L * 4096 * d)


def test_with_a_single_key_the_batch_raises_it() -> None:
    """S = 1: near one FLOP per byte and sequence."""
    (row,) = decode(64, 1).rows
    assert row.flops == 64 * (2 * W + 4 * L * d)
    assert f"{float(row.intensity):.1f}" == "63.8"


@pytest.mark.parametrize("kv_heads", [1, 4, 8, 32])
def test_attention_alone(kv_heads: int) -> None:
    """4 H dh FLOPs and 2 e Hkv dh bytes per key: H / Hkv in two bytes, at any batch and length."""
    for S in (1, 4096):
        assert decode(1, S, num_key_value_heads=kv_heads).attention_intensity == Fraction(H, kv_heads)
    assert decode(1, num_key_value_heads=kv_heads).kv_bytes_per_token == 2 * (2 * L * kv_heads * d // H)


def test_intensity_of_a_matmul() -> None:
    """2 m d² / e (2 m d + d²) tends to d / 2 in two bytes; a ridge of 156 takes 169 rows: 156 d / (d - 312) = 168.9."""
    assert matmul_intensity(3, 5, 7, 4) == Fraction(2 * 3 * 5 * 7, 4 * (3 * 5 + 5 * 7 + 3 * 7))
    for m in (1, 10**6, 10**12):
        assert matmul_intensity(m, d, d, 2) == Fraction(m * d, 2 * m + d) < d // 2
    assert matmul_intensity(10**12, d, d, 2) > d // 2 - 1
    ridge = Fraction(156)
    assert rows_above(ridge, d, d, 2) == 169 == int(ridge * d / (d - 2 * ridge)) + 1
    assert matmul_intensity(168, d, d, 2) <= ridge < matmul_intensity(169, d, d, 2)
    assert rows_above(Fraction(d, 2), d, d, 2) is None
    for k, n in ((5, 9), (64, 16)):  # row by row
        for bound in (Fraction(1, 3), Fraction(1), Fraction(5, 2)):
            first = next(m for m in range(1, 1000) if matmul_intensity(m, k, n, 2) > bound)
            assert rows_above(bound, k, n, 2) == first


# On a device


def test_decode_never_turns_compute_bound() -> None:
    (ceiling,) = decode(device=A100).ceilings
    assert ceiling.ridge == 156
    assert ceiling.turns_at is None
    # 2 W B > 156 e (W + norms): the first batch above 156, as the norms are less than a thousandth.
    assert ceiling.matmuls_turn_at == 157
    assert ceiling.square_rows == 169


def test_it_does_where_the_cache_is_small() -> None:
    """One key: (2 W + 4 L d) B > 156 e (W + norms + 2 B L d), solved for B."""
    (ceiling,) = decode(kv=1, device=A100).ceilings
    per_sequence = 2 * W + 4 * L * d - 156 * 2 * 2 * L * d
    assert ceiling.turns_at == 156 * 2 * (W + NORMS) // per_sequence + 1
    before, after = decode([ceiling.turns_at - 1, ceiling.turns_at], 1, A100).rows
    assert (before.bound, after.bound) == ("memory", "compute")


def test_at_the_ridge_it_is_the_memory() -> None:
    """Compute-bound is above the ridge, not on it."""
    (row,) = decode(8).rows
    on, above = spec(row.flops, row.bytes), spec(row.flops - 1, row.bytes)
    assert [r.bound for r in decode(8, device=[on, above]).rows] == ["memory", "compute"]


def test_time_is_the_sum_over_parts() -> None:
    """At batch 1000 the matmuls are compute-bound and attention is not: 2 W B / peak + cache / bandwidth."""
    (row,) = decode(1000, device=A100).rows
    assert row.attainable is not None
    assert row.attainable.compute_s == float(Fraction(2 * W * 1000, 312 * 10**12))
    assert row.attainable.memory_s == float(Fraction(row.step.cache_bytes, 2 * 10**12))
    assert row.overlapped_s == float(Fraction(row.bytes, 2 * 10**12)) < row.attainable.seconds
    assert row.tokens_per_s == 1000 / row.attainable.seconds
    assert row.tokens_per_s_per_sequence == 1 / row.attainable.seconds


def test_what_fits() -> None:
    """Weights, the embedding among them, and 2 e L S d of cache for each sequence."""
    weights, each = 2 * (W + NORMS + V * d), 2 * 2 * L * 4096 * d
    exactly = spec(1, 1, weights + 3 * each)
    found = decode([3, 4], device=exactly)
    assert [row.fits for row in found.rows] == [True, False]
    assert [row.resident_bytes for row in found.rows] == [weights + 3 * each, weights + 4 * each]
    assert found.ceilings[0].most_sequences == 3
    assert decode(device=spec(1, 1, weights + 3 * each - 1)).ceilings[0].most_sequences == 2
    assert decode(device=spec(1, 1, weights - 1)).ceilings[0].most_sequences == 0
    unknown = decode(device=spec(1, 1, None))
    assert unknown.ceilings[0].most_sequences is None
    assert unknown.rows[0].fits is None


def test_rows_are_for_each_device_and_batch() -> None:
    found = attnprof.serving(LLAMA, batch=[1, 8, 8], kv=9, device=["h100-sxm", A100])
    assert [(r.ceiling.device.id, r.batch) for r in found.rows if r.ceiling] == [
        ("h100-sxm", 1), ("h100-sxm", 8), ("made-up", 1), ("made-up", 8)
    ]  # fmt: skip
    bare = attnprof.serving(LLAMA, batch=2, kv=9).rows[0]
    assert (bare.bound, bare.attainable, bare.overlapped_s, bare.tokens_per_s, bare.fits) == (None,) * 5


# Prefill


def test_prefill() -> None:
    """All prompts at once; the head is for the last token of each: 2 W' T + 4 L T² d, and 2 V d."""
    B, T = 3, 512
    (row,) = attnprof.serving(LLAMA, phase="prefill", batch=B, kv=T, device=A100).rows
    in_layers = W - V * d
    assert row.flops == B * (2 * in_layers * T + 4 * L * T * T * d + 2 * V * d)
    assert row.step.useful_flops == row.flops - B * 4 * L * d * (T * T - T * (T + 1) // 2)
    assert (row.step.cache_read_bytes, row.step.cache_write_bytes) == (0, B * 2 * 2 * L * T * d)
    assert row.bound == "compute"
    assert row.attainable is not None
    assert row.tokens_per_s == B * T / row.attainable.seconds


def test_prefill_after_a_cached_beginning() -> None:
    """128 new tokens of 512: each meets all 512 keys, of which 384 are read."""
    T, S = 128, 512
    (row,) = attnprof.serving(LLAMA, phase="prefill", prompt=T, kv=S).rows
    assert row.flops == 2 * (W - V * d) * T + 4 * L * T * S * d + 2 * V * d
    assert row.step.cache_read_bytes == 2 * 2 * L * (S - T) * d
    assert (
        attnprof.serving(LLAMA, phase="prefill", prompt=S).rows == attnprof.serving(LLAMA, phase="prefill", kv=S).rows
    )


# Experts and windows

MIXTRAL: dict[str, Any] = {
    **LLAMA,
    "model_type": "mixtral",
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}


def test_experts_that_are_executed() -> None:
    """Each token goes through 2 of 8: FLOPs of 2, weights of min(8, 2 B) of them."""
    expert = 3 * d * f
    outside = L * (2 * d * d + 2 * d * d // 4 + 8 * d) + V * d
    found = attnprof.serving(MIXTRAL, batch=[1, 3, 64], kv=1)
    for row, met in zip(found.rows, (2, 6, 8), strict=True):
        assert row.flops == row.batch * (2 * (outside + L * 2 * expert) + 4 * L * d)
        assert row.step.weight_bytes == 2 * (outside + NORMS + L * met * expert)
    assert found.model.parameters == outside + NORMS + V * d + L * 8 * expert
    assert "Experts: tokens are spread over them" in found.notes[-1]
    # The limit is with all experts read: 2 (outside + 2 experts) + 4 L d FLOPs per 2 e L Hkv dh bytes.
    assert found.intensity_limit == Fraction(2 * (outside + L * 2 * expert) + 4 * L * d, 2 * 2 * L * d // 4)


def test_the_first_compute_bound_batch_is_found_batch_by_batch() -> None:
    """Where experts come in one after the other, intensity is no simple fraction of the batch."""
    for peak in (3, 20, 90, 500):
        device = spec(peak, 1)
        found = attnprof.serving(MIXTRAL, batch=range(1, 3000), kv=1, device=device)
        first = next(row.batch for row in found.rows if row.bound == "compute")
        assert found.ceilings[0].turns_at == first


def test_a_window_caps_the_cache() -> None:
    """Mistral's layers see w keys; the cache keeps the w - 1 that the next token can still see."""
    w = 100
    mistral = {**LLAMA, "model_type": "mistral", "num_key_value_heads": 8, "sliding_window": w}
    kept, token = w - 1, 2 * 2 * L * 8 * (d // H)
    for S, seen in ((50, 50), (100, 100), (5000, 100)):
        (row,) = attnprof.serving(mistral, kv=S).rows
        assert row.step.cache_bytes == seen * token
        assert row.kv_cache_bytes == min(S, kept) * token
    nothing_kept = attnprof.serving({**mistral, "sliding_window": 1}, kv=9, device="h100-sxm")
    assert (nothing_kept.kv_bytes_per_sequence, nothing_kept.ceilings[0].most_sequences) == (0, None)


# Notes and mistakes


def test_notes() -> None:
    assert decode(1, 2048).notes == ()
    assert decode(1, 2049).notes == ("2,049 tokens are more than the 2,048 that the model was made for.",)
    unnamed = {name: value for name, value in LLAMA.items() if name != "torch_dtype"}
    assert attnprof.serving(unnamed, kv=1).notes == ("The config names no dtype: bfloat16 is taken.",)
    for name in ("float32", "torch.float32", torch.float32):
        assert attnprof.serving({**unnamed, "dtype": name}, kv=1).rows[0].step.weight_bytes == 4 * (W + NORMS)
    with pytest.raises(AttnprofError, match=r"dtype must be one of .*, not '3'"):
        attnprof.serving({**unnamed, "torch_dtype": 3}, kv=1)
    assert attnprof.serving(unnamed, kv=1, dtype="fp8").rows[0].step.weight_bytes == W + NORMS
    quantized = {**LLAMA, "quantization_config": {"bits": 4}}
    assert "weights are counted in float16" in attnprof.serving(quantized, kv=1).notes[0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"phase": "decoding"}, "phase must be one of prefill, decode, not 'decoding'. Did you mean decode?"),
        ({"kv": None}, "a decode step depends on how many tokens are in the cache: give kv, as in kv=4096."),
        ({"kv": 0}, "kv must be a whole number above zero, not 0."),
        ({"kv": 2.5}, "kv must be a whole number above zero, not 2.5."),
        ({"batch": 0}, "batch must be a whole number above zero, not 0."),
        ({"batch": 10**400}, "batch can be at most 1e+12."),
        ({"kv": 10**13}, "kv can be at most 1e+12."),
        ({"device": 3}, "a device is a name such as h100-sxm, not 3;"),
        ({"batch": 2.5}, "batch must be a whole number above zero, not 2.5."),
        ({"batch": None}, "batch must be a whole number above zero, not None."),
        ({"batch": "1,8"}, "batch must be a whole number above zero, not '1,8'."),
        ({"batch": []}, "no batch was given: name at least one, as in batch=[1, 8, 64]."),
        ({"prompt": 3}, "a decode step has one new token: prompt is for phase='prefill'."),
        ({"phase": "prefill", "prompt": 9, "kv": 4}, "prompt can be at most kv: prompt=9 is more than kv=4."),
        ({"device": "h100-sxn"}, 'unknown device "h100-sxn". Did you mean h100-sxm'),
        ({"device": spec(0, 1)}, "made-up has a peak of 0; it must be a positive number."),
        ({"device": spec(1, -1)}, "made-up has a bandwidth of -1; it must be a positive number."),
        (
            {"device": spec(1, None)},
            "made-up has no known bandwidth, so nothing is known about memory-bound work on it.",
        ),
        ({"device": "a100-sxm-80gb", "dtype": "fp8"}, "a100-sxm-80gb has no known matmul peak for float8: known are"),
        ({"dtype": "int3"}, "dtype must be one of float64, float32, float16, bfloat16, float8, int8, not 'int3'."),
    ],
)
def test_mistakes(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AttnprofError) as raised:
        attnprof.serving(LLAMA, **{"kv": 4096, **changes})
    assert str(raised.value).startswith(sentence)


def test_a_dtype_of_torch_is_one() -> None:
    assert attnprof.serving(LLAMA, kv=1, dtype="torch.float32").rows == attnprof.serving(LLAMA, kv=1, dtype="fp32").rows


def test_learned_positions_end() -> None:
    gpt2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 9, "n_positions": 16}
    assert attnprof.serving(gpt2, kv=16).keys == 16
    with pytest.raises(AttnprofError, match=r"^the gpt2 has 16 positions: kv=17 is more\.$"):
        attnprof.serving(gpt2, kv=17)


def test_forms() -> None:
    served = decode([1, 8], device="h100-sxm,a100-80gb-sxm")
    assert str(served) == served.to_table()
    assert served.to_table(width=60, units="binary").count("GiB") > 2
    assert [text.count("h100-sxm") for text in (served.to_csv(), served.to_markdown())] == [2, 1]
    assert '"format": "attnprof serving"' in served.to_json()
    assert "gain" in str(attnprof.attention_io(T=8192, dh=64, device="h100-sxm"))
    with pytest.raises(AttnprofError, match=r"^attention's traffic is that of one device, not of 2\.$"):
        attnprof.attention_io(T=8192, dh=64, device="h100-sxm,a100-80gb-sxm")


def test_it_needs_no_torch() -> None:
    code = (
        "import sys, attnprof\n"
        f"attnprof.serving({LLAMA!r}, kv=4096, batch=[1, 64], device='h100-sxm')\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
