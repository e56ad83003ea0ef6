"""What a formula says of one op call, and the verdict that comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attnprof.core.cost import ZERO, Cost
from attnprof.core.signature import OpSignature

Status = Literal["priced", "free", "unpriced"]


@dataclass(frozen=True, slots=True)
class Work:
    """FLOPs of one op call, as its formula states them.

    ``matmul``: contraction FLOPs (2 per multiply-add, 8 when complex). ``vector``: scalar arithmetic.
    ``useful``: the matmul FLOPs that remain when masked pairs are skipped; None where no pattern is known.
    ``recompute_matmul`` and ``recompute_vector``: the part, beside the others, that does forward work
    again (a fused attention backward rebuilds QK^T). ``dtype``: the dtype the arithmetic runs in, where
    it is not that of the operands; ``matmul_dtype``: that of the contractions alone.
    """

    matmul: int = 0
    vector: int = 0
    useful: int | None = None
    recompute_matmul: int = 0
    recompute_vector: int = 0
    dtype: str | None = None
    matmul_dtype: str | None = None


@dataclass(frozen=True, slots=True)
class PricedOp:
    """One signature with its verdict.

    ``priced``: a formula gave ``cost`` (and ``recompute``, booked to that phase). ``free``: declared to
    do nothing. ``unpriced``: nobody knows; ``cost`` is zero but for the traffic of the default rule,
    which is kept apart in ``unknown_bytes``.
    """

    signature: OpSignature
    status: Status
    cost: Cost = ZERO
    recompute: Cost = ZERO
    unknown_bytes: int = 0

    @property
    def does_work(self) -> bool:
        """Whether a call computes or moves anything, as far as anybody knows: views and empty tensors do not."""
        return bool(self.cost or self.recompute or self.unknown_bytes)

    @property
    def moved(self) -> int:
        """Bytes of traffic of a call, those of the default rule among them."""
        return self.cost.bytes + self.unknown_bytes

    @property
    def flops(self) -> int:
        """FLOPs of a call, what it does again among them."""
        return self.cost.flops + self.recompute.flops
