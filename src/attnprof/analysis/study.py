"""A study of several mechanisms over several lengths: what each costs, and from which length on one is cheaper."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import lcm
from typing import Literal, get_args

Quantity = Literal["forward", "backward", "recompute", "vector", "bytes", "saved", "parameters"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
#: Those in which one mechanism may become cheaper than another as the length grows.
CROSSING: tuple[Quantity, ...] = ("forward", "backward", "bytes", "saved")
#: Times are compared as whole numbers of these: what differs by less is a rounding error of their sums.
_PER_SECOND = 10**15


@dataclass(frozen=True, slots=True)
class Measures:
    """One mechanism at one length, measured.

    ``forward``, ``backward``, ``recompute``: matmul FLOPs. ``vector``: vector FLOPs of the forward. ``bytes``:
    traffic of all phases. ``saved``: bytes that autograd keeps for the backward. ``parameters``: how many numbers.
    ``attainable_s``: of each device of the study, the least time of all phases there, in seconds.
    """

    forward: int
    backward: int
    recompute: int
    vector: int
    bytes: int
    saved: int
    parameters: int
    attainable_s: tuple[float, ...] = ()

    def of(self, quantity: Quantity) -> int:
        """A quantity by its name."""
        value: int = getattr(self, quantity)
        return value


@dataclass(frozen=True, slots=True)
class Crossing:
    """``cheaper`` takes less than ``dearer`` at ``length``, and did not at ``length - step``: both were measured.

    ``step`` is 1 unless a mechanism takes multiples of something alone. With a ``device`` the quantity is the
    attainable time there.
    """

    quantity: Quantity | Literal["attainable"]
    cheaper: str
    dearer: str
    length: int
    device: str = ""
    step: int = 1


@dataclass(frozen=True)
class Study:
    """Measures by mechanism and length, and where the others cross the first mechanism.

    ``settings`` says what was compared at; ``notes`` what a reader has to know besides. ``devices`` are those that
    times are given for, in the order of ``Measures.attainable_s``.
    """

    settings: Mapping[str, str]
    mechanisms: tuple[str, ...]
    lengths: tuple[int, ...]
    measured: Mapping[tuple[str, int], Measures]
    crossings: tuple[Crossing, ...]
    notes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    def row(self, mechanism: str, quantity: Quantity) -> list[int]:
        """A quantity of one mechanism at each length."""
        return [self.measured[mechanism, length].of(quantity) for length in self.lengths]

    def times(self, mechanism: str, device: str) -> list[float]:
        """The attainable time of one mechanism at each length, in seconds."""
        at = self.devices.index(device)
        return [self.measured[mechanism, length].attainable_s[at] for length in self.lengths]

    def shown(self) -> tuple[Quantity, ...]:
        """The quantities worth a table: those that are not zero everywhere.

        Vector FLOPs only where a mechanism has no matmul FLOPs to be judged by.
        """
        found = [q for q in QUANTITIES if any(m.of(q) for m in self.measured.values())]
        if all(m.forward for m in self.measured.values()):
            found.remove("vector")
        return tuple(found)


def crossings(
    measure: Callable[[str, int], Measures],
    mechanisms: Sequence[str],
    lengths: Sequence[int],
    devices: Sequence[str] = (),
    steps: Mapping[str, int] | None = None,
) -> Iterator[Crossing]:
    """Where each mechanism becomes cheaper or dearer than the first, between the first length and the last.

    ``measure`` is called for lengths between the given ones, and of mechanisms in ``steps`` for multiples of that
    number. One crossing is looked for between two neighbours.
    """
    steps = steps or {}
    for quantity in CROSSING:

        def amount(name: str, length: int, quantity: Quantity = quantity) -> int:
            return measure(name, length).of(quantity)

        for cheaper, dearer, length, step in _cross(amount, mechanisms, lengths, steps):
            yield Crossing(quantity, cheaper, dearer, length, step=step)
    for at, device in enumerate(devices):

        def time(name: str, length: int, at: int = at) -> int:
            return round(measure(name, length).attainable_s[at] * _PER_SECOND)

        for cheaper, dearer, length, step in _cross(time, mechanisms, lengths, steps):
            yield Crossing("attainable", cheaper, dearer, length, device, step)


def _cross(
    amount: Callable[[str, int], int], mechanisms: Sequence[str], lengths: Sequence[int], steps: Mapping[str, int]
) -> Iterator[tuple[str, str, int, int]]:
    """The cheaper, the dearer, from which length on, and by how much the next length that was looked at is smaller."""
    first, *others = mechanisms
    for other in others:
        step = lcm(steps.get(first, 1), steps.get(other, 1))

        def more(count: int, other: str = other, step: int = step) -> int:
            return amount(other, count * step) - amount(first, count * step)

        for low, high in pairwise(length // step for length in lengths):
            if more(low) >= 0 > more(high):
                yield other, first, step * crossing(more, low, high), step
            elif more(low) <= 0 < more(high):
                yield first, other, step * crossing(more, low, high), step


def crossing(difference: Callable[[int], int], low: int, high: int) -> int:
    """A whole number in (low, high] where ``difference`` has the sign that it has at ``high``, and not just before.

    ``low`` has not that sign. Counts are mostly polynomials of degree two: the parabola through both ends and the
    middle says where to look first, and halving the range makes sure that it is found.
    """
    sign = 1 if difference(high) > 0 else -1
    while high - low > 1:
        middle = (low + high) // 2
        guess = _first(_parabola([(n, sign * difference(n)) for n in (low, middle, high)]), low, high)
        for n in (middle, guess - 1, guess):
            if low < n < high:
                low, high = (low, n) if sign * difference(n) > 0 else (n, high)
    return high


def _parabola(points: Sequence[tuple[int, int]]) -> Callable[[int], Fraction]:
    """The polynomial of least degree through the points, which may fall together."""
    known = dict(points)

    def value(at: int) -> Fraction:
        total = Fraction(0)
        for x, y in known.items():
            part = Fraction(y)
            for other in known:
                if other != x:
                    part *= Fraction(at - other, x - other)
            total += part
        return total

    return value


def _first(value: Callable[[int], Fraction], low: int, high: int) -> int:
    """By halving: a number in (low, high] where ``value`` is above zero and is not just before."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if value(middle) > 0 else (middle, high)
    return high
