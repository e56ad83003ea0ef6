"""The facts of the documents, and how each is found anew: measured, from closed forms, or by arithmetic.

``tests/data/complexity_facts.json`` holds them: what the document says (``document``), the right value (``value``),
its formula. The value of a fact about a cost is what attnprof counts when it runs the mechanism.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

#: The documents, by the letter that begins a fact's id.
DOCUMENTS = {
    "A": "notes on convolution, linear recurrences and attention as one operation",
    "B": "survey of attention: sparse, linear, FlashAttention, mixtures of experts, caches",
    "C": "notes on inference: prefill and decode, roofline, FlashAttention, caches",
    "D": "paper proposing attention with frozen orthogonal query and key projections",
    "E": "notes on sparse and linear attention",
}
Kind = Literal["measured", "closed form", "arithmetic"]
Number = int | Fraction | float


@dataclass(frozen=True)
class Fact:
    """One of them. ``document`` is a number, or what it says in words."""

    id: str
    statement: str
    formula: str
    inputs: dict[str, int | float]
    document: Any
    value: int | float
    verdict: str


FACTS = [
    Fact(**fact)
    for fact in json.loads((Path(__file__).parents[1] / "data" / "complexity_facts.json").read_text(encoding="utf-8"))
]
_SOURCES: list[tuple[re.Pattern[str], Kind, Callable[..., Number]]] = []
Source = Callable[..., Number]


def source(kind: Kind, pattern: str) -> Callable[[Source], Source]:
    """The function finds the facts whose id fits the pattern, from its inputs and the pattern's named groups."""

    def enter(function: Source) -> Source:
        _SOURCES.append((re.compile(pattern), kind, function))
        return function

    return enter


def found(fact: Fact) -> tuple[Kind, Number]:
    """How a fact is found anew, and its value."""
    fitting = [(kind, f, m) for pattern, kind, f in _SOURCES if (m := pattern.fullmatch(fact.id))]
    assert len(fitting) == 1, f"{fact.id} has {len(fitting)} sources"
    kind, function, match = fitting[0]
    return kind, function(**fact.inputs, **match.groupdict())
