"""The points that can be counted: each once, those that break the model left out, and what can be learned of why."""

from __future__ import annotations

import itertools
import random
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from attnprof.core.errors import AttnprofError
from attnprof.recovery.choosing import TRIED, large, looked_at, middle_first, with_divisors
from attnprof.recovery.domain import Domain
from attnprof.recovery.outcome import Sizes
from attnprof.recovery.rules import Rule, explaining

Counts: TypeAlias = Mapping[Any, int]
#: Sizes in the order of the domains.
Point: TypeAlias = tuple[int, ...]
#: Points at which a model may fail before it is given up, and points that may be counted.
_FAILURES, _RUNS = 400, 600
#: Failures that make a rule believed, and points that are counted for it.
_EVIDENCE, _QUESTIONS = 3, 24
#: Small points that are tried before large ones are.
_SMALL = 12
#: Failures with the same message after which it is given up, if nothing worked.
_ALIKE = 30


class UnmeasurableError(Exception):
    """The model fails at these sizes; ``error`` is what it raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class TooManyRunsError(Exception):
    """A formula takes more points than are worth counting."""


@dataclass
class Space:
    """The sizes there are, and the counts at those that were asked for."""

    measure: Callable[[Sizes], Counts]
    domains: Sequence[Domain]
    given: Sizes

    def __post_init__(self) -> None:
        self.names = [domain.name for domain in self.domains]
        self.counted: dict[Point, Counts] = {}
        self.failed: dict[Point, Exception] = {}
        self.rules: list[Rule] = []
        self._confirmed: Counter[Rule] = Counter()
        self._believed: set[Rule] = set()  # no point is there to question them with
        self.draw = random.Random(0)
        #: Points from which one size at a time is varied; sizes that do not vary are as in the first.
        self.anchors: list[Point] = []

    def sizes(self, point: Point) -> dict[str, int]:
        """The sizes at a point, those that are given included."""
        return {**self.given, **dict(zip(self.names, point, strict=True))}

    def point(self, sizes: Sizes) -> Point:
        return tuple(sizes[name] for name in self.names)

    def count(self, point: Point) -> Counts | None:
        """The counts at a point, or None where the model fails."""
        if point in self.counted:
            return self.counted[point]
        if point in self.failed or not self.allows(point):
            return None
        if len(self.counted) >= _RUNS:
            raise TooManyRunsError(f"{_RUNS} points")
        found = self._measured(point)
        if self.counted:
            self._question()
        return found

    def _measured(self, point: Point) -> Counts | None:
        try:
            found = self.measure(self.sizes(point))
        except UnmeasurableError as failure:
            self.failed[point] = failure.error
            self._learn()
            if len(self.failed) >= _FAILURES:
                raise self.failure() from failure.error
            return None
        self.counted[point] = found
        if not self.allows(point):
            self._learn()
        return found

    def _question(self) -> None:
        """Break each rule that was learned, and no other, until it has failed often enough to be believed."""
        for _ in range(_QUESTIONS):
            rule = next((rule for rule in self.rules if self._evidence(rule) < _EVIDENCE), None)
            if rule is None:
                return
            others = [other for other in self.rules if other != rule]
            near = self._evidence(rule) % 2 == 0  # unlike a point that worked in one size alone, or in all
            for _ in range(1000):
                point = self._near(rule) if near else self._anywhere()
                sizes = self.sizes(point)
                fresh = point not in self.failed and point not in self.counted
                if fresh and not rule.allows(sizes) and all(other.allows(sizes) for other in others):
                    self._confirmed[rule] += self._measured(point) is None
                    break
                near = False
            else:
                self._believed.add(rule)

    def _anywhere(self) -> Point:
        return tuple(self.draw.choice(looked_at(domain)) for domain in self.domains)

    def _near(self, rule: Rule) -> Point:
        """A point that worked, with another size near it of a symbol of a rule that breaks it, where there is one."""
        names = [rule.name, *([rule.other] if isinstance(rule.other, str) else [])]
        at = self.names.index(names[self._confirmed[rule] // 2 % len(names)])
        point = self.draw.choice([*self.counted])
        sizes = self.sizes(point)
        others = [s for s in looked_at(self.domains[at]) if not rule.allows({**sizes, self.names[at]: s})]
        others.sort(key=lambda size: abs(size - point[at]))
        other = self.draw.choice(others[: len(others) // 4 + 1]) if others else point[at]
        return (*point[:at], other, *point[at + 1 :])

    def settle(self) -> None:
        """Count between sizes that work and those that fail until the limits of rules are right to the last."""
        for _ in range(_QUESTIONS):
            for rule in self.rules:
                point = self._doubtful(rule)
                if point is not None:
                    self._measured(point)
                    break
            else:
                return

    def _doubtful(self, rule: Rule) -> Point | None:
        """The point halfway between the last size that worked and the last that a rule allows, if there is one."""
        if rule.kind not in ("at most", "at least") or not isinstance(limit := rule.other, int):
            return None
        at, anchor = self.names.index(rule.name), self.anchors[0]
        worked = [point[at] for point in self.counted]
        low, high = (max(worked), limit) if rule.kind == "at most" else (limit, min(worked))
        every = self.domains[at].sizes
        inside = every[bisect_right(every, low) if rule.kind == "at most" else bisect_left(every, low) :]
        inside = inside[: bisect_right(inside, high) if rule.kind == "at most" else bisect_left(inside, high)]
        points = [(*anchor[:at], size, *anchor[at + 1 :]) for size in middle_first(inside)]
        return next((p for p in points if p not in self.failed and self.allows(p)), None)

    def _evidence(self, rule: Rule) -> int:
        """Failures that were predicted by a rule: those that it was made from may have another reason."""
        return _EVIDENCE if rule in self._believed else self._confirmed[rule]

    def allows(self, point: Point) -> bool:
        """Whether no rule that was learned says that the model fails there."""
        sizes = self.sizes(point)
        return all(rule.allows(sizes) for rule in self.rules)

    def _learn(self) -> None:
        worked = [self.sizes(point) for point in self.counted]
        self.rules = explaining([self.sizes(point) for point in self.failed], worked, self.names) if worked else []

    def failure(self) -> AttnprofError:
        """The first failure of the model, as a sentence."""
        point, error = next(iter(self.failed.items()))
        where = ", ".join(f"{name}={size}" for name, size in self.sizes(point).items())
        told = str(error).strip().partition("\n")[0]
        what = f"{type(error).__name__}: {told}" if told else type(error).__name__
        return AttnprofError(f"the model fails at {where}: {what.rstrip('.')}.")

    # Choosing points

    def find_anchor(self, must: bool = True) -> bool:
        """Find a point where the model works, or another one, from which one size at a time is varied.

        Its sizes have many divisors and differ, so that what must divide another does, and what depends on one size
        is not taken to depend on another. Where there is none: False, or for the first an error with the model's.
        """
        for point in self._candidates():
            if point in self.anchors or any(point[i] == a[i] for a in self.anchors for i in self._free):
                continue
            if self.count(point) is not None:
                self.anchors.append(point)
                return True
            if len(self.failed) >= _FAILURES // 2 or (not self.counted and self._fails_alike()):
                break
        if must and not self.anchors:
            raise self.failure()
        return False

    def _fails_alike(self) -> bool:
        """Whether so many failures say the same that it is not for the sizes."""
        return len(self.failed) >= _ALIKE and len({(type(error), str(error)) for error in self.failed.values()}) == 1

    def _candidates(self) -> Iterator[Point]:
        choices = [with_divisors(domain, len(self.anchors)) for domain in self.domains]
        indices = itertools.product(*(range(min(len(choice), 6)) for choice in choices))
        ranked = sorted(indices, key=lambda at: (sum(at), at))[:4000]
        points = [tuple(choice[i] for choice, i in zip(choices, at, strict=True)) for at in ranked]
        points[_SMALL:_SMALL] = large(self.domains)  # small ones may be too small
        yield from (point for point in points if len({*point}) == len(point))
        yield from (point for point in points if len({*point}) < len(point))
        for _ in range(100):
            yield tuple(self.draw.choice(domain.sizes) for domain in self.domains)

    @property
    def _free(self) -> list[int]:
        """The symbols that have sizes enough for two anchors to differ in."""
        return [i for i, domain in enumerate(self.domains) if len(domain) > 8]

    def line(self, name: str, anchor: Sizes) -> list[int]:
        """The sizes of a symbol at which the model is not known to fail, the others as in ``anchor``; 1 left out."""
        at = self.names.index(name)
        rest = self.point(anchor)
        points = ((*rest[:at], size, *rest[at + 1 :]) for size in looked_at(self.domains[at]) if size > 1)
        return [point[at] for point in points if point not in self.failed and self.allows(point)]

    def looked_at(self, at: int) -> list[int]:
        """The sizes of a symbol, those that points are chosen from; of a large domain ever further apart."""
        return looked_at(self.domains[at])

    def may_be(self, at: int, size: int) -> bool:
        """Whether no rule of this symbol alone says that the model fails at the size."""
        name = self.names[at]
        return all(r.allows({name: size}) for r in self.rules if r.name == name and not isinstance(r.other, str))

    def between(self, name: str, anchor: Sizes, low: int, high: int, many: int = 64) -> list[int]:
        """Sizes of a symbol between two at which the model is not known to fail, evenly spread where there are many."""
        at = self.names.index(name)
        every, rest = self.domains[at].sizes, self.point(anchor)
        inside = every[bisect_right(every, low) : bisect_left(every, high)]
        found: list[int] = []
        for part in range(many):
            start, end = (len(inside) * i // many for i in (part, part + 1))
            for size in inside[start : min(end, start + TRIED)]:
                point = (*rest[:at], size, *rest[at + 1 :])
                if point not in self.failed and self.allows(point):
                    found.append(size)
                    break
        return found

    def on_line(self, name: str, anchor: Sizes) -> Iterator[tuple[Point, Counts]]:
        """The points that were counted in which only this symbol differs from ``anchor``."""
        at, rest = self.names.index(name), self.point(anchor)
        for point, counts in self.counted.items():
            if point[:at] == rest[:at] and point[at + 1 :] == rest[at + 1 :]:
                yield point, counts

    def within(self, names: Sequence[str]) -> list[tuple[Point, Counts]]:
        """The points that were counted in which only these symbols differ from the first anchor; none with a 1."""
        anchor = self.anchors[0]
        return [
            (point, counts)
            for point, counts in self.counted.items()
            if all(
                size != 1 or anchor[i] == 1 if self.names[i] in names else size == anchor[i]
                for i, size in enumerate(point)
            )
        ]

    def is_off_lines(self, point: Point) -> bool:
        """Whether a point differs from every anchor in more than one size."""
        return all(sum(a != b for a, b in zip(point, anchor, strict=True)) > 1 for anchor in self.anchors)

    def unlike(self, wanted: Callable[[Sizes], bool] = lambda sizes: True) -> Point | None:
        """A point, of some at random, of which as many pairs of sizes as possible were not counted together yet."""
        seen = {(i, j, point[i], point[j]) for point in self.counted for i in range(len(point)) for j in range(i + 1)}

        def fresh(point: Point) -> int:
            return sum((i, j, point[i], point[j]) not in seen for i in range(len(point)) for j in range(i + 1))

        found = (point for point in self.random(self.names, evenly=True) if wanted(self.sizes(point)))
        return max(itertools.islice(found, 64), key=fresh, default=None)

    def random(self, names: Sequence[str], evenly: bool = False) -> Iterator[Point]:
        """Points not yet counted in which these symbols vary and the others are as in the first anchor.

        Small sizes are drawn more often, unless ``evenly``.
        """
        pools = []
        for i, domain in enumerate(self.domains):
            sizes = looked_at(domain) if domain.name in names else [self.anchors[0][i]]
            pools.append([size for size in sizes if size > 1] or sizes)
        for _ in range(20_000):
            point = tuple(pool[int(len(pool) * self.draw.random() ** (1 if evenly else 2))] for pool in pools)
            if point not in self.counted and point not in self.failed and self.allows(point):
                yield point
