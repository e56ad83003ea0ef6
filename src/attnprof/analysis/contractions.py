"""The contractions of one module's own ops, forward and backward, and what of them is due to weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from attnprof.analysis.tree import ModuleNode
from attnprof.analysis.weights import Weights
from attnprof.core.work import PricedOp


def flops(op: PricedOp) -> int:
    """What a forward call of an op adds to the matmul FLOPs of the forward."""
    return op.cost.matmul_flops + op.recompute.matmul_flops


@dataclass(slots=True)
class Contractions:
    """Matmul FLOPs of one module's own ops.

    ``forward`` by signature, and how much of the weight in it is frozen (``parts``; None: no weight).
    ``weight_gradients`` is what of the ``backward`` can be gradients of weights; ``idle`` the forward that was
    taken off because no backward followed it.
    """

    fqn: str
    calls: int
    forward: dict[int, int]
    parts: Mapping[int, Fraction | None]
    backward: int
    weight_gradients: Fraction
    idle: int = 0

    @classmethod
    def of(cls, node: ModuleNode, priced: Sequence[PricedOp]) -> Contractions:
        """Those of a module in the tree whose signature ``i`` has the price ``priced[i]``."""
        forward = {s: flops(priced[s]) * n for (phase, s), n in node.self_ops.items() if phase == "forward"}
        forward = {s: n for s, n in forward.items() if n}
        weights = Weights(node, [priced[s].signature for s in forward])
        parts = {s: weights.frozen_part(priced[s].signature) for s in forward}
        found = [(priced[s], n) for (phase, s), n in node.self_ops.items() if phase == "backward"]
        backward = [(op.signature, op.cost.matmul_flops * n) for op, n in found if op.cost.matmul_flops]
        gradients = _sum(n * weights.gradient_part(op) for op, n in backward)
        return cls(node.fqn, node.calls, forward, parts, sum(n for _, n in backward), gradients)

    def trains(self, signature: int) -> bool:
        """Whether a forward op uses a trainable weight."""
        return self.parts.get(signature) not in (None, 1)

    def take_off(self, signature: int, idle: int) -> None:
        """So much of the forward had no backward."""
        if idle:
            self.forward[signature] -= idle
            self.idle += idle

    @property
    def missing(self) -> int:
        """By how much the backward is less than twice the forward that is left; negative when it is more."""
        return 2 * sum(self.forward.values()) - self.backward

    @property
    def trained(self) -> Fraction:
        """The forward with trainable weights, each of which has a gradient wherever a backward follows."""
        return _sum(n * (1 - part) for n, part in self._weighted())

    @property
    def frozen(self) -> Fraction:
        """The forward with frozen weights."""
        return _sum(n * part for n, part in self._weighted())

    @property
    def inputs(self) -> int:
        """The gradients of inputs that there can be: an op with a weight has one other factor, one without two."""
        return sum(n * (2 if self.parts[s] is None else 1) for s, n in self.forward.items())

    @property
    def is_short(self) -> bool:
        """Whether weights got fewer gradients than they were used in several calls: some had no backward."""
        return self.calls > 1 and self.backward > 0 and self.weight_gradients < self.trained

    def _weighted(self) -> Iterator[tuple[int, Fraction]]:
        for s, n in self.forward.items():
            part = self.parts[s]
            if part is not None:
                yield n, part


def _sum(values: Iterable[Fraction]) -> Fraction:
    return sum(values, Fraction(0))
