"""Products of functions of sizes: what a count of several sizes may be a sum of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from attnprof.recovery.atoms import ONE, Monomial, capped, monomial, of, times
from attnprof.recovery.outcome import Sizes

#: Symbol -> the functions of it that a count is made of.
Bases: TypeAlias = Mapping[str, Sequence[Monomial]]


def described(sizes: Sequence[int]) -> str:
    """Where it was counted, in words."""
    if len(sizes) <= 4:
        return f"counted at {', '.join(map(str, sizes))} alone: each term takes a size, and checking them two more"
    return f"counted at {len(sizes)} sizes from {sizes[0]} to {sizes[-1]}"


def apart(product: Monomial, included: Iterable[str]) -> Monomial:
    """What of a product does not depend on sizes that are included already."""
    known = {*included}
    return tuple((atom, power) for atom, power in product if not atom.names & known)


def simple_first(product: Monomial) -> tuple[int, str]:
    return sum(abs(power) * len(atom.names) for atom, power in product), repr(product)


def closed(name: str, basis: Iterable[Monomial], lowest: int = 0, highest: int = 0) -> list[Monomial]:
    """With all powers of a size that are less, down to 0 (or up, of inverses), times what other functions there are."""
    powers, others = {*range(lowest, highest + 1)}, {ONE}
    for product in basis:
        for atom, power in product:
            if atom.kind == "size":
                powers |= {*range(min(power, 0), max(power, 0) + 1)}
        others.add(monomial((atom, power) for atom, power in product if atom.kind != "size"))
    return sorted({times(of(name, power), other) for power in powers for other in others}, key=repr)


def with_caps(bases: Bases, anchor: Sizes) -> Iterator[Bases]:
    """With the product of two sizes, at most a number, for one of them at most a number, as it is at an anchor."""
    least = {a for basis in bases.values() for product in basis for a, _ in product if a.kind == "min"}
    for atom in sorted((a for a in least if not a.bound.names), key=repr):
        for other in bases:
            most = atom.bound.at(anchor) * anchor[other]
            if other == atom.name or most != int(most):
                continue
            instead = capped(atom.name, other, int(most))
            changed = [
                monomial((instead if a == atom else a, power) for a, power in product) for product in bases[atom.name]
            ]
            yield {**bases, atom.name: changed}
