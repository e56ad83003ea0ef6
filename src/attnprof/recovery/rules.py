"""Why a model takes some sizes and not others: the weakest rules that tell those apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import lcm
from typing import Literal

from attnprof.recovery.outcome import Sizes


@dataclass(frozen=True, slots=True)
class Rule:
    """A size is a multiple of another or of a number, or at most (at least) another, or odd (no multiple of 2)."""

    kind: Literal["multiple", "odd", "at most", "at least"]
    name: str
    other: str | int

    def allows(self, sizes: Sizes) -> bool:
        """Whether sizes follow it."""
        size, other = sizes[self.name], sizes[self.other] if isinstance(self.other, str) else self.other
        if self.kind == "multiple":
            return size % other == 0
        if self.kind == "odd":
            return size % other != 0
        return size <= other if self.kind == "at most" else size >= other

    def __str__(self) -> str:
        if self.kind == "multiple":
            return f"{self.name} a multiple of {self.other}"
        if self.kind == "odd":
            return f"{self.name} odd"
        return f"{self.name} {self.kind} {self.other}"


def explaining(failed: Sequence[Sizes], worked: Sequence[Sizes], names: Sequence[str]) -> list[Rule]:
    """Rules that everything that worked follows and, as far as there are any, each failure breaks one of."""
    found: list[Rule] = []
    for sizes in failed:
        if any(not rule.allows(sizes) for rule in found):
            continue
        for rule in _rules(sizes, names):
            if not rule.allows(sizes) and all(rule.allows(other) for other in worked):
                found.append(rule)
                break
    return _merged([rule for rule in found if not any(_implies(other, rule) for other in found if other != rule)])


def _merged(rules: Sequence[Rule]) -> list[Rule]:
    """With one number that a size is a multiple of, not several."""
    found: dict[tuple[str, str, str], Rule] = {}
    for rule in rules:
        other = rule.other
        key = (rule.kind, rule.name, "" if isinstance(other, int) else other)
        if key in found and isinstance(other, int) and isinstance(known := found[key].other, int):
            other = lcm(known, other) if rule.kind == "multiple" else other
        found[key] = Rule(rule.kind, rule.name, other)
    return [*found.values()]


def _rules(sizes: Sizes, names: Sequence[str]) -> Iterator[Rule]:
    """Those that may have been broken, in order of what they leave."""
    for name, other in permutations(names, 2):
        yield Rule("multiple", name, other)
    for name in names:
        yield Rule("odd", name, 2)
    for name in names:
        for number in range(2, 257):
            yield Rule("multiple", name, number)
    for name, other in permutations(names, 2):
        yield Rule("at most", name, other)
    for name in names:
        yield Rule("at least", name, sizes[name] + 1)
        yield Rule("at most", name, sizes[name] - 1)


def _implies(strong: Rule, weak: Rule) -> bool:
    """Whether whatever follows the first follows the second."""
    if strong.kind != weak.kind or strong.name != weak.name:
        return False
    if not isinstance(strong.other, int) or not isinstance(weak.other, int):
        return False
    if strong.kind == "multiple":
        return strong.other % weak.other == 0
    return strong.other < weak.other if strong.kind == "at most" else strong.other > weak.other
