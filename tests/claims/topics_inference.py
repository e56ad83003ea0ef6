"""Documents B, C and E: decoding, intensity, FlashAttention's traffic, sparse attention."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch.nn import functional as F

from attnprof.analysis.study import crossing
from attnprof.analytic import predict
from claims.of_mechanisms import intensity_of_a_product
from claims.runs import measured
from claims.topics import CLAIMS, Topic, exact, holds, percent, said, value


def caches() -> Topic:
    """Key-value caches, documents B and C."""
    d, t = 64, 32
    step = measured("decode-layer", t, d=d, H=4, backward=False)
    assert step.forward == 24 * d * d + 4 * t * d
    even = measured("decode-layer", 6 * d, d=d, H=4, backward=False)
    assert 2 * even.core == even.forward

    def cubic(T: int) -> int:
        """By how much attention's work over all steps exceeds everything else's, d = 4."""
        run = measured("decode-naive", T, d=4, H=1, backward=False)
        return 2 * run.core - run.forward

    first = crossing(cubic, 4, 64)
    assert first == (18 * 4) // 2  # 2 T + 1 > 18 d
    B, T, width, heads = 2, 16, 64, 4
    prefill = measured("mha", T, B=B, d=width, H=heads, backward=False).forward
    dh = width // heads
    terms = (6 * B * T * width * heads * dh, *[2 * B * heads * T * T * dh] * 2, 2 * B * T * heads * dh * width)
    rows = [
        (
            "prefill, B = 2, T = 16, d = 64, H = 4",
            "6BTdHdh + 2BHT²dh + 2BHT²dh + 2BTHdhd",
            exact(prefill),
            holds(sum(terms) == prefill, "reproduced"),
        ),
        (
            "a step with a cache",
            "O(nd)",
            f"24d² + 4td; attention is {percent(Fraction(step.core, step.forward))} of it at "
            "d = 64, t = 32, half at t = 6d",
            "misleading: 24d² is left out",
        ),
        (
            "T steps with a cache, d = 64, T = 32",
            "O(T²)",
            f"24d²T + 2dT(T + 1) = {exact(value('B.kv.cached_total'))}",
            "reproduced in order",
        ),
        (
            "T steps without",
            "O(T³)",
            f"12d²T(T + 1) + (2/3)dT(T + 1)(2T + 1) = {exact(value('C.kv.naive_total'))}",
            f"misleading: T³ leads only from 2T + 1 > 18d on (d = 4: T = {first})",
        ),
        (
            "scores of a decoding step: T = 1 in 2BHT²dh",
            exact(said("C.decode_score").document),
            f"2BHSdh = {exact(value('C.decode_score'))} (S = 32)",
            "wrong: queries and keys differ in number",
        ),
        (
            "a step looks at K and V of the tokens before",
            "1 ... t - 1",
            _without_itself(),
            "wrong: its own is left out",
        ),
        (
            "grouped queries, block, T = 32, d = 64, H = 4",
            "3 changes",
            ", ".join(f"Hkv = {k}: {exact(value(f'C.gqa.Hkv{k}'))}" for k in (1, 2, 4)),
            "reproduced: 2Td²(2 + 2Hkv/H) + 4T²d + 16Td²",
        ),
        (
            "SwiGLU, B = 2, T = 10, d = 64, f = 172",
            exact(said("C.ffn.swiglu").document),
            exact(value("C.ffn.swiglu")),
            "reproduced: 6BTdf",
        ),
        (
            "2 FLOPs a parameter and token, GPT-2 small",
            "all",
            ", ".join(f"{percent(value(f'C.rule2N.T{T}'))} missing (T = {T})" for T in (128, 1024, 4096)),
            "for short T only",
        ),
    ]
    return Topic("Decoding and caches (B, C)", "", CLAIMS, rows)


def _without_itself() -> str:
    """Causal attention against attention to the tokens before, on random numbers in float64 with a fixed seed."""
    q, k, v = torch.randn(3, 16, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    right = F.scaled_dot_product_attention(q[None, None], k[None, None], v[None, None], is_causal=True)[0, 0]
    wrong = [torch.softmax(q[t] @ k[:t].T / math.sqrt(8), -1) @ v[:t] for t in range(16)]
    error = max(float((a - b).abs().max()) for a, b in zip(wrong, right, strict=True))
    assert not wrong[0].any()
    assert error > 1
    return f"nothing at t = 1; off by up to {error:.1f} on normal numbers"


def roofline() -> Topic:
    """Intensities, document C."""

    def rows_above(m: int) -> int:
        return 1 if intensity_of_a_product(m, 4096, 4096) > 156 else -1

    first = crossing(rows_above, 1, 4096)
    limit = 1 + 6607077376 / (2 * 32 * 4096 * 4096)  # as B grows: 1 + weights / (2 L S d)
    decode = ", ".join(f"{float(value(f'C.decode_ai.B{B}.S4096')):.2f} (B = {B})" for B in (1, 64, 256))
    rows = [
        (
            "ridge of an A100",
            f"{said('C.ridge.a100').document:g}",
            f"312 / 2.0 = {float(value('C.ridge.a100')):.1f} FLOP/B",
            "reproduced (by arithmetic), dense half precision",
        ),
        (
            "ridge of an H100",
            f"{said('C.ridge.h100').document:g}",
            f"990 / 3.35 = {float(value('C.ridge.h100')):.1f} FLOP/B",
            "reproduced, cut off",
        ),
        (
            "a product's intensity, m rows by 4096 × 4096, fp16",
            "m",
            ", ".join(f"{float(value(f'C.gemm_ai.m{m}')):.1f} (m = {m})" for m in (1, 169, 4096)),
            holds(first == 169, f"wrong for large m, at most d/2; above 156 from m = {first} on"),
        ),
        (
            "decoding's intensity, LLaMA-7B, fp16, S = 4096",
            "O(B)",
            decode,
            f"wrong: the cache is read for every sequence; at most {limit:.2f} (closed form)",
        ),
        ("the same, S = 1", "O(B)", f"{float(value('C.decode_ai.B64.S1')):.1f} (B = 64)", "reproduced (closed form)"),
    ]
    return Topic("Intensity and ridge (C)", "", CLAIMS, rows)


def flash_traffic() -> Topic:
    """FlashAttention's traffic, documents B and C."""
    N, kib = 8192, 2**10 // 2

    def elements(name: str, dh: int, **more: int) -> int:
        theory = predict(name, B=1, H=1, T=N, dh=dh, e=1, **more)
        return sum(theory.evaluate(q, "forward") for q in ("read_bytes", "write_bytes"))

    assert value("C.flash.exact_fa1") == sum(
        predict("flash-io", B=1, H=1, T=512, dh=64, M=8192, e=1).evaluate(q, "forward")
        for q in ("read_bytes", "write_bytes")
    )
    rows = []
    for dh in (64, 128):
        flash, plain = elements("flash-io", dh, M=96 * kib), elements("attention-io", dh)
        assert plain == 4 * N * N + 4 * N * dh
        document = N * N * dh / (96 * kib)
        rows.append(
            [str(dh), f"{document / 1e6:.2f}", f"{flash / 1e6:.1f}", f"{plain / 1e6:.1f}", f"{flash / plain:.2f}"]
        )
    ratio = float(value("C.std_io_over_compute.a100"))
    by_width = math.log2(elements("flash-io", 128, M=96 * kib) / elements("flash-io", 64, M=96 * kib))
    by_memory = math.log2(elements("flash-io", 128, M=192 * kib) / elements("flash-io", 128, M=96 * kib))
    assert 1.9 < by_width < 2
    assert -1 <= by_memory < -0.9
    return Topic(
        "FlashAttention's traffic (C: O(T² d / M), M = 20 MB)",
        "Wrong: a factor d is missing, and M is of one multiprocessor, not of all. Millions of elements, one head, "
        "T = 8192, fp16, M = 96 KiB; closed forms, the first algorithm also block by block.",
        ("d", "C: T²d/M", "FlashAttention", "written out", "ratio"),
        rows,
        f"The traffic is 2Td + ⌈T / Bc⌉ (3Td + 4T), Bc = ⌈M / 4d⌉, about 12 T²d²/M: twice d is "
        f"{2**by_width:.1f} times the traffic, twice M {2**by_memory:.2f} times. At d = 128 nothing is gained by "
        f"this order of loops. With M = 20 MiB, C's formula gives {float(value('C.flash.document_absurd')):.0f} "
        f"elements, less than the {exact(4 * 8192 * 64)} of Q, K, V and O. That scores take longer to move "
        f"than to compute on an A100 ({ratio:.1f}× at d = 64, {ratio / 2:.1f}× at d = 128) is right, at every T.",
    )


def sparse() -> Topic:
    """Document E."""
    rows = [
        (
            "rule: beyond k or a multiple of k is zero, N = 1024, k = 32",
            "keeps the near and the multiples",
            f"{exact(value('E.sparse.literal'))} pairs, not even i = j",
            "wrong: an “except” is lost",
        ),
        (
            "rule as meant: within k, or a multiple of k away",
            "linear",
            f"{exact(value('E.sparse.intended'))} pairs, N(2k + 1) - k(k + 1) + 2 Σ (N - mk)",
            "wrong: O(Nk + N²/k)",
        ),
        (
            "its linear attention, B = 2, n = 64, d = 16",
            "O(Nd²)",
            f"4Bnd² = {exact(value('E.linear_attn'))}",
            "reproduced",
        ),
        ("its mask sets k to the least number", "keys are left out", _masked_keys(), "wrong: no softmax is over k"),
        ("weights are not negative: softmax(q), k as it is", "all", _negative(), "wrong: k needs a map of its own"),
    ]
    return Topic("Sparse and linear attention (E)", "", CLAIMS, rows)


def _masked_keys() -> str:
    k, v = torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(0))
    k[:8] = torch.finfo(k.dtype).min
    assert not (k.T @ v).isfinite().all()
    return "kᵀv is not finite"


def _negative() -> str:
    q, k = torch.randn(2, 64, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.softmax(q, -1) @ k.T
    share = float((weights < 0).double().mean())
    assert 0.4 < share < 0.6
    return f"{share:.0%} of the weights are below zero on normal numbers"


TOPICS = (caches, roofline, flash_traffic, sparse)
