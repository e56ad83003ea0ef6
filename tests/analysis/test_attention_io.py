"""FlashAttention's traffic: its loops run tile by tile through a memory that counts, and give the softmax's result."""
# ruff: noqa: N803, N806 (the symbols are those of the paper)

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import attnprof
from attnprof.api.serving import AttentionIO
from attnprof.core.device import DeviceSpec, Peak, Provenance
from attnprof.core.errors import AttnprofError


class Memory:
    """Arrays off chip, and how many of their elements were loaded and stored."""

    def __init__(self, **arrays: np.ndarray[Any, Any]) -> None:
        self.arrays = arrays
        self.loaded = self.stored = 0

    def load(self, name: str, rows: slice) -> np.ndarray[Any, Any]:
        found = self.arrays[name][rows].copy()
        self.loaded += found.size
        return found

    def store(self, name: str, rows: slice, value: np.ndarray[Any, Any]) -> None:
        self.arrays[name][rows] = value
        self.stored += value.size

    @property
    def moved(self) -> int:
        return self.loaded + self.stored


def memory(T: int, dh: int) -> Memory:
    """One head of normal numbers, and room for what attention makes."""
    random = np.random.default_rng(T + dh)
    q, k, v = (random.standard_normal((T, dh)) for _ in range(3))
    return Memory(Q=q, K=k, V=v, O=np.zeros((T, dh)), l=np.zeros(T), m=np.full(T, -np.inf))


def tiled(at: Memory, T: int, dh: int, M: int) -> None:
    """Algorithm 1 of Dao et al., 2022, its lines in their order: blocks of keys outside, blocks of queries inside."""
    Bc = -(-M // (4 * dh))
    Br = min(Bc, dh)
    for j in range(0, T, Bc):
        columns = slice(j, min(j + Bc, T))
        K, V = at.load("K", columns), at.load("V", columns)
        for i in range(0, T, Br):
            rows = slice(i, min(i + Br, T))
            Q, O, l, m = (at.load(name, rows) for name in ("Q", "O", "l", "m"))  # noqa: E741 - names of the paper
            S = Q @ K.T
            here = S.max(1)
            P = np.exp(S - here[:, None])
            highest = np.maximum(m, here)
            total = np.exp(m - highest) * l + np.exp(here - highest) * P.sum(1)
            before = (np.exp(m - highest) * l)[:, None] * O
            at.store("O", rows, (before + np.exp(here - highest)[:, None] * (P @ V)) / total[:, None])
            at.store("l", rows, total)
            at.store("m", rows, highest)


def explicit(at: Memory, T: int) -> None:
    """Algorithm 0: the scores are written and read, the probabilities too."""
    everything = slice(0, T)
    at.arrays |= {"S": np.zeros((T, T)), "P": np.zeros((T, T))}
    at.store("S", everything, at.load("Q", everything) @ at.load("K", everything).T)
    scores = at.load("S", everything)
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    at.store("P", everything, exponentials / exponentials.sum(1, keepdims=True))
    at.store("O", everything, at.load("P", everything) @ at.load("V", everything))


def softmax(at: Memory) -> np.ndarray[Any, Any]:
    weights = np.exp(at.arrays["Q"] @ at.arrays["K"].T)
    return weights @ at.arrays["V"] / weights.sum(1, keepdims=True)


def predicted(T: int, dh: int, M: int | None = None, device: Any = "a100-sxm-80gb", **more: Any) -> AttentionIO:
    return attnprof.attention_io(T=T, dh=dh, M=M, device=device, **{"dtype": "fp16", **more})


@pytest.mark.parametrize(
    ("T", "dh", "M"),
    [(1, 3, 3), (8, 4, 16), (8, 4, 32), (13, 3, 17), (33, 16, 100), (64, 16, 1024), (100, 8, 100), (128, 32, 512)],
)
def test_every_element_that_is_loaded_or_stored(T: int, dh: int, M: int) -> None:
    at = memory(T, dh)
    tiled(at, T, dh, M)
    # The two orders of summation round differently: a few units in the last place of sums of at most T terms.
    assert np.allclose(at.arrays["O"], softmax(at), rtol=1e-10, atol=1e-12)
    found = predicted(T, dh, M)
    assert found.tiled_bytes == 2 * at.moved
    written_out = memory(T, dh)
    explicit(written_out, T)
    assert np.allclose(written_out.arrays["O"], softmax(at), rtol=1e-10, atol=1e-12)
    assert found.explicit_bytes == 2 * written_out.moved
    assert predicted(T, dh, M, B=2, H=3).tiled_bytes == 6 * 2 * at.moved
    assert predicted(T, dh, M, dtype="fp32").tiled_bytes == 4 * at.moved


# What is said of it elsewhere, in elements of one head at T = 8192

N, KIB = 8192, 2**10 // 2  # of two bytes


def elements(count: int | None) -> int:
    assert count is not None
    assert count % 2 == 0
    return count // 2


@pytest.mark.parametrize(
    ("dh", "tiled_millions", "explicit_millions"), [(64, "70.1", "270.5"), (128, "275.4", "272.6")]
)
def test_with_96_kib(dh: int, tiled_millions: str, explicit_millions: str) -> None:
    """Bc = 96 KiB / 8 dh keys at a time: at a width of 128 there is no gain."""
    found = predicted(N, dh, 96 * KIB)
    passes = -(-N // (96 * KIB // (4 * dh)))
    assert elements(found.tiled_bytes) == 2 * N * dh + passes * (3 * N * dh + 4 * N)
    assert elements(found.explicit_bytes) == 4 * N * N + 4 * N * dh
    assert f"{elements(found.tiled_bytes) / 1e6:.1f}" == tiled_millions
    assert f"{elements(found.explicit_bytes) / 1e6:.1f}" == explicit_millions
    assert found.gain is not None
    assert (found.gain > 1) == (dh == 64)


def test_it_grows_with_the_square_of_the_width_over_the_memory() -> None:
    """12 T² dh² / M to the first order; the running sums add 4 / 3 dh of it, K and V 2 T dh. Blocks are whole here."""
    for dh, M in ((64, 2**14), (64, 2**15), (128, 2**15), (128, 2**16)):
        leading = Fraction(12 * N * N * dh * dh, M)
        assert elements(predicted(N, dh, M).tiled_bytes) == leading * (1 + Fraction(4, 3 * dh)) + 2 * N * dh


@pytest.mark.parametrize(("T", "dh", "shown"), [(512, 64, "5.5"), (8192, 64, "4.9"), (8192, 128, "2.5")])
def test_scores_take_longer_to_move_than_to_compute(T: int, dh: int, shown: str) -> None:
    """At every length: e (4 T² + 4 T dh) / bandwidth over 4 T² dh / peak, at a ridge of 156 FLOP/B."""
    found = predicted(T, dh, device=spec(312 * 10**12, 2 * 10**12, 192 * 2**10))
    assert found.explicit_ratio == Fraction(156 * 2 * (4 * T * T + 4 * T * dh), 4 * T * T * dh)
    assert f"{float(found.explicit_ratio):.1f}" == shown
    of_scores_alone = Fraction(156 * 2, dh)
    assert found.explicit_ratio == of_scores_alone * (1 + Fraction(dh, T))


def test_on_chip_memory_is_that_of_one_unit() -> None:
    """Not the 20 MiB of all SMs, in which 8192 keys of width 64 would fit: there the formula says nothing."""
    a100 = attnprof.device("a100-sxm-80gb")
    assert a100.on_chip_bytes_per_unit == 164 * 2**10
    assert predicted(N, 64).on_chip_elements == 164 * KIB
    assert predicted(N, 64, dtype="fp32").on_chip_elements == 164 * KIB // 2
    whole = predicted(N, 64, 20 * 2**20 // 2)
    assert (whole.tiled_bytes, whole.gain, whole.tiled_ratio) == (None, None, None)
    assert whole.valid_from == 20 * 2**20 // 2 // 64
    # T² dh / M, without the factor dh that is missing in it, would be less than Q, K, V and the output once.
    assert round(N * N * 64 / whole.on_chip_elements) == 410 < 4 * N * 64 == elements(whole.compulsory_bytes)
    for edge in (64, 64 * N):
        assert predicted(N, 64, edge).tiled_bytes is not None
    assert predicted(N, 64, 64 * N + 1).tiled_bytes is None


def test_what_has_to_move_at_least() -> None:
    found = predicted(N, 64, B=2, H=3)
    assert found.compulsory_bytes == 2 * 4 * 6 * N * 64
    assert found.flops == 4 * 6 * N * N * 64
    assert found.tiled_bytes is not None
    assert found.compulsory_bytes < found.tiled_bytes


def spec(peak: int, bandwidth: int | None, on_chip: int | None) -> DeviceSpec:
    peaks = (Peak("matmul", "float16", peak, Provenance("quoted", ("a test",))),)
    return DeviceSpec(
        "made-up", "made up", "", peaks=peaks, bandwidth_bytes_per_s=bandwidth, on_chip_bytes_per_unit=on_chip
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"T": 0}, "T must be a whole number above zero, not 0."),
        ({"dh": "wide"}, "dh must be a whole number above zero, not 'wide'."),
        ({"T": 10**200}, "T can be at most 1e+12."),
        ({"M": 63}, "M must be at least dh, or no row fits on chip: M=63 is below dh=64."),
        ({"M": 0}, "M must be a whole number above zero, not 0."),
        ({"dtype": "int8"}, "dtype must be one of float64, float32, float16, bfloat16, float8, not 'int8'."),
        ({"device": spec(1, 1, None)}, "made-up has no known on-chip memory: give M, the elements that fit on chip."),
        ({"device": spec(1, None, 4096)}, "made-up has no known bandwidth, so nothing is known about traffic on it."),
        ({"device": "a100"}, '"a100" is several devices: '),
        ({"dtype": "fp8"}, "a100-sxm-80gb has no known matmul peak for float8: "),
    ],
)
def test_mistakes(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AttnprofError) as raised:
        attnprof.attention_io(**{"T": N, "dh": 64, "device": "a100-sxm-80gb", "dtype": "fp16", **changes})
    assert str(raised.value).startswith(sentence)
