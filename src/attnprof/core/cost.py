"""Costs as values: FLOPs of two kinds, bytes of two directions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Engine = Literal["matmul", "vector"]
#: FLOPs by engine and dtype, sorted: hardware has a peak for each.
Split = tuple[tuple[Engine, str, int], ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """What some work costs. Integers; a multiply-add is 2 FLOPs; bytes are per-op traffic.

    ``matmul_flops``: contractions. ``vector_flops``: scalar arithmetic everywhere else.
    ``useful_matmul_flops``: the part of ``matmul_flops`` that a kernel skipping masked or padded pairs
    would still do, equal to it wherever no pattern is known. ``read_bytes`` and ``write_bytes``: every
    distinct input element read once and every output element written once, at storage width.
    ``split``: the FLOPs by engine and dtype, which sums to ``flops``.
    """

    matmul_flops: int = 0
    vector_flops: int = 0
    useful_matmul_flops: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    split: Split = ()

    @property
    def flops(self) -> int:
        """All FLOPs: matmul and vector."""
        return self.matmul_flops + self.vector_flops

    @property
    def useful_flops(self) -> int:
        """All FLOPs less the matmul FLOPs spent on masked pairs."""
        return self.useful_matmul_flops + self.vector_flops

    @property
    def bytes(self) -> int:
        """All traffic: read and written."""
        return self.read_bytes + self.write_bytes

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, FLOPs per byte of traffic; infinite for work without traffic, 0 for none."""
        if self.bytes:
            return self.flops / self.bytes
        return float("inf") if self.flops else 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.matmul_flops + other.matmul_flops,
            self.vector_flops + other.vector_flops,
            self.useful_matmul_flops + other.useful_matmul_flops,
            self.read_bytes + other.read_bytes,
            self.write_bytes + other.write_bytes,
            _merge(self.split, other.split),
        )

    def __mul__(self, calls: int) -> Cost:
        return Cost(
            self.matmul_flops * calls,
            self.vector_flops * calls,
            self.useful_matmul_flops * calls,
            self.read_bytes * calls,
            self.write_bytes * calls,
            tuple((engine, dtype, n * calls) for engine, dtype, n in self.split if n * calls),
        )

    __rmul__ = __mul__

    def __bool__(self) -> bool:
        return self != ZERO

    @staticmethod
    def sum(costs: Iterable[Cost]) -> Cost:
        """The sum of many costs; zero of none."""
        total = ZERO
        for cost in costs:
            total = total + cost
        return total


def _merge(a: Split, b: Split) -> Split:
    if not a or not b:
        return a or b
    merged: dict[tuple[Engine, str], int] = {}
    for engine, dtype, n in (*a, *b):
        merged[engine, dtype] = merged.get((engine, dtype), 0) + n
    return tuple((engine, dtype, n) for (engine, dtype), n in sorted(merged.items()))


ZERO = Cost()
