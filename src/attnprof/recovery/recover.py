"""From counts at points to a formula."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Hashable, Mapping, Sequence

from sympy import Add, Mul

from attnprof.analytic.symbols import symbol
from attnprof.recovery.domain import Domain
from attnprof.recovery.exact import System
from attnprof.recovery.outcome import Formula, NoFormula, Outcome, Piece, Sizes, rational


def recover(measure: Callable[[Sizes], Mapping[Hashable, int]], domains: Sequence[Domain], key: Hashable) -> Outcome:
    draw = random.Random(0)
    basis = list(itertools.product(range(3), repeat=len(domains)))
    system, right, used = System(len(basis)), [], []
    names = [d.name for d in domains]
    tried = 0
    while not system.is_full and tried < 10 * len(basis):
        tried += 1
        point = {d.name: draw.choice(d.sizes) for d in domains}
        row = []
        for powers in basis:
            value = 1
            for name, power in zip(names, powers, strict=True):
                value *= point[name] ** power
            row.append(value)
        if system.add(row):
            right.append(measure(point)[key])
            used.append(point)
    solution = system.solve(right) if system.is_full else None
    if solution is None:
        return NoFormula("no polynomial fits")
    expression = Add(
        *(
            rational(c) * Mul(*(symbol(n) ** p for n, p in zip(names, powers, strict=True)))
            for c, powers in zip(solution, basis, strict=True)
        )
    )
    formula = Formula((Piece(expression),), len(used), 4)
    for _ in range(4):
        point = {d.name: draw.choice(d.sizes) for d in domains}
        if formula.pieces[0].expression.subs({symbol(n): v for n, v in point.items()}) != measure(point)[key]:
            return NoFormula("no polynomial fits")
    return formula
