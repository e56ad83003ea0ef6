"""Facts that are about no module: the documents' own models and expressions, evaluated exactly."""

from __future__ import annotations

import math
from fractions import Fraction

from claims.facts import source


@source("arithmetic", r"D\.ops\.performer\..*")
def performer_by_the_document(N: int, d: int) -> float:
    """N d² + N d log2 d: no number of random features in it."""
    return (N * d * d + N * d * math.log2(d)) / 1e9


@source("arithmetic", r"D\.ops\.ortho_bwd\..*")
def backward_by_the_document(N: int, d: int) -> Fraction:
    """N d², its claim for frozen query and key projections."""
    return Fraction(N * d * d, 10**9)


@source("arithmetic", r"D\.(speedup\.table|scenario\.speedup)\..*")
def time_model(N: int, d: int) -> Fraction:
    """Forward 1, backward 2, optimizer 1/2; the second is to fall by d / (N + d), the third by half."""
    return 100 * (2 * Fraction(d, N + d) + Fraction(1, 4)) / (1 + 2 + Fraction(1, 2))


@source("arithmetic", r"D\.speedup\.text_rule\..*")
def time_model_of_the_text(N: int, d: int) -> Fraction:
    """The same with the ratio that the text gives, 1 / (1 + d / N)."""
    return 100 * (2 / (1 + Fraction(d, N)) + Fraction(1, 4)) / (1 + 2 + Fraction(1, 2))


@source("arithmetic", r"D\.speedup\.limit_inf")
def limit_of_long_sequences() -> Fraction:
    return 100 * Fraction(1, 4) / (1 + 2 + Fraction(1, 2))


@source("arithmetic", r"D\.speedup\.limit_0")
def limit_of_short_sequences() -> Fraction:
    return 100 * (2 + Fraction(1, 4)) / (1 + 2 + Fraction(1, 2))


@source("arithmetic", r"D\.mem\.amp_ratio(?P<master>_frozen_fp32_master)?")
def mixed_precision(master: str | None) -> Fraction:
    """Bytes: 2 weight, 2 gradient, 4 master, 8 moments where trained; half of the weights frozen, 2 or 2 + 4 each."""
    trained, frozen = 2 + 2 + 4 + 8, 2 + (4 if master else 0)
    return 100 * (1 - Fraction(2 * trained + 2 * frozen, 4 * trained))


@source("arithmetic", r"A\.mha\.space")
def elements(s: int, d: int, h: int) -> int:
    """q, k, v; scores and probabilities; the heads side by side."""
    return 3 * s * d + 2 * h * s * s + s * d


@source("arithmetic", r"C\.sum_t(?P<power>2?)")
def sum_over_steps(T: int, power: str) -> int:
    return sum(t**2 if power else t for t in range(1, T + 1))


@source("arithmetic", r"C\.ridge\.(?P<name>a100|h100)")
def ridge(name: str) -> Fraction:
    """FLOP/s over bytes/s as the document has them."""
    peak, bandwidth = {"a100": (312, Fraction("2.0")), "h100": (990, Fraction("3.35"))}[name]
    return peak / bandwidth


@source("arithmetic", r"C\.flash\.exact_fa1")
def flash_traffic(N: int, d: int, M: int) -> int:
    """Elements moved by FlashAttention's first algorithm, block by block: on chip are a block of each of K, V, Q, O."""
    moved, columns = 0, math.ceil(M / (4 * d))
    for start in range(0, N, columns):
        keys = min(columns, N - start)
        moved += 2 * keys * d  # K and V
        rows = min(columns, d)
        for top in range(0, N, rows):
            queries = min(rows, N - top)
            moved += 2 * queries * d + 2 * queries  # read Q, O, and their l, m
            moved += queries * d + 2 * queries  # write O, l, m
    return moved


@source("arithmetic", r"C\.flash\.document_absurd")
def flash_by_the_document(T: int, d: int, M: float) -> Fraction:
    return Fraction(T * T * d) / Fraction(M)


@source("arithmetic", r"C\.std_io_over_compute\.a100")
def traffic_over_compute(bw: float, pk: float, dh: int) -> Fraction:
    """Scores and probabilities written and read in half precision, 4 x 2 bytes a pair; 4 dh FLOPs a pair."""
    return Fraction(4 * 2) / Fraction(bw) / (Fraction(4 * dh) / Fraction(pk))


@source("arithmetic", r"C\.decode_ai\..*")
def decoding_intensity(N: int, L: int, d: int, B: int, S: int) -> Fraction:
    """2 N weights' FLOPs a token and 4 S d a layer; bytes of the weights once, of keys and values for each sequence."""
    layer = 4 * d * d + 3 * d * 11008  # four projections, three matrices of the gated network
    assert L * layer + 32000 * d == N  # and the head
    return Fraction(2 * N * B + 4 * B * L * S * d, 2 * N + 2 * 2 * B * L * S * d)


@source("arithmetic", r"E\.sparse\.literal")
def literal_rule(N: int, k: int) -> int:
    """|i - j| <= k and k does not divide i - j."""
    return sum(1 for i in range(N) for j in range(max(0, i - k), min(N, i + k + 1)) if (i - j) % k)
