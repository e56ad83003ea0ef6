"""The arithmetic intensity of one matmul alone, and how many rows it needs to be compute-bound."""

from __future__ import annotations

from fractions import Fraction


def matmul_intensity(m: int, k: int, n: int, item_bytes: int) -> Fraction:
    """FLOPs per byte of an [m, k] x [k, n] matmul alone, its inputs and output moved once: 2 m k n of them."""
    return Fraction(2 * m * k * n, item_bytes * (m * k + k * n + m * n))


def rows_above(ridge: Fraction, k: int, n: int, item_bytes: int) -> int | None:
    """The fewest rows m that take a matmul's intensity above a ridge point; None where no number does.

    As m grows the intensity tends to 2 k n / (e (k + n)): d / 2 for a d x d matrix in two bytes.
    """
    per_row = 2 * k * n - ridge * item_bytes * (k + n)
    return None if per_row <= 0 else int(ridge * item_bytes * k * n // per_row) + 1
