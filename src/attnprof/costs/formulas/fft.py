"""Fast Fourier transforms: vector work, 5 n log2 n for a complex transform of length n, half of it for a real one.

The count is that of the radix-2 algorithm. For lengths that are no power of two it is the same expression,
rounded to the nearest integer per transform: a model of the mixed-radix algorithms that run. A transform over
several dimensions is one pass of one-dimensional transforms per dimension. Normalising multiplies every real
number of the result once.
"""

from __future__ import annotations

from math import log2

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.registry import cost


def complex_transform(n: int) -> int:
    """5 n log2 n: n / 2 log2 n butterflies of a complex product (6) and two complex sums (4)."""
    return round(5 * n * log2(n)) if n > 1 else 0


def real_transform(n: int) -> int:
    """2.5 n log2 n: to or from a real sequence, by the symmetry of its spectrum."""
    return round(2.5 * n * log2(n)) if n > 1 else 0


def _passes(elements: int, lengths: list[int]) -> int:
    """One complex pass per dimension over an array of ``elements``."""
    return sum(elements // n * complex_transform(n) for n in lengths if n)


@cost("aten._fft_c2c")
def fft_c2c(op: OpSignature) -> Work:
    """Complex to complex over every dimension of ``dim``."""
    x = op.tensor("self")
    scaled = 2 * x.numel if op.number("normalization") else 0
    return Work(vector=_passes(x.numel, [x.shape[d] for d in op.ints("dim")]) + scaled)


@cost("aten._fft_r2c")
def fft_r2c(op: OpSignature) -> Work:
    """Real transforms along the last of ``dim``, then complex ones over the n / 2 + 1 frequencies kept.

    A two-sided result repeats the conjugates: movement.
    """
    x, dims = op.tensor("self"), op.ints("dim")
    n = x.shape[dims[-1]]
    half = x.numel // n * (n // 2 + 1) if n else 0
    real = x.numel // n * real_transform(n) if n else 0
    scaled = 2 * half if op.number("normalization") else 0
    return Work(vector=real + _passes(half, [x.shape[d] for d in dims[:-1]]) + scaled)


@cost("aten._fft_c2r")
def fft_c2r(op: OpSignature) -> Work:
    """Complex passes over the kept frequencies, then transforms to real sequences along the last of ``dim``."""
    x, dims, n = op.tensor("self"), op.ints("dim"), int(op.number("last_dim_size"))
    half = x.numel // x.shape[dims[-1]] * (n // 2 + 1) if x.numel else 0
    real = op.out.numel // n * real_transform(n) if n else 0
    scaled = op.out.numel if op.number("normalization") else 0
    return Work(vector=real + _passes(half, [x.shape[d] for d in dims[:-1]]) + scaled)
