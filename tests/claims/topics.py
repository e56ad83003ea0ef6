"""What a section of docs/claims.md is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from tabulate import tabulate

from claims import of_arithmetic, of_attention, of_mechanisms, of_models  # noqa: F401 - they enter the sources
from claims.facts import FACTS, Fact, Number, found

_BY_ID = {fact.id: fact for fact in FACTS}
#: The headings of most tables.
CLAIMS = ("claim", "the document says", "measured", "verdict")


@dataclass(frozen=True)
class Topic:
    """A table with a sentence or two above and below it."""

    title: str
    before: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    after: str = ""

    def markdown(self) -> str:
        align = ["left" if self.headings is CLAIMS else "right" for _ in self.headings]
        cells = [[_cell(cell) for cell in row] for row in self.rows]
        headings = [_cell(heading) for heading in self.headings]
        table = tabulate(cells, headings, tablefmt="pipe", disable_numparse=True, colalign=align)
        return "\n\n".join(filter(None, (f"## {self.title}", self.before, table, self.after)))


def said(fact_id: str) -> Fact:
    """A fact, for what its document says."""
    return _BY_ID[fact_id]


@cache
def value(fact_id: str) -> Number:
    """The value of a fact, found anew."""
    return found(_BY_ID[fact_id])[1]


def holds(statement: bool, verdict: str) -> str:
    """The verdict, of which the statement is the proof."""
    assert statement, verdict
    return verdict


def compared(fact_id: str, decimals: int, wrong: str = "wrong") -> str:
    """``reproduced`` where the right value, rounded, is what the document says."""
    fact = said(fact_id)
    return "reproduced" if round(float(value(fact_id)), decimals) == round(float(fact.document), decimals) else wrong


def giga(flops: Number) -> str:
    return f"{float(Fraction(flops) / 10**9):.3f}"


def percent(share: Number, decimals: int = 1) -> str:
    """Of a share as a fraction of 1."""
    return f"{float(share) * 100:.{decimals}f}%"


def exact(number: Number) -> str:
    """Every digit of a whole number."""
    assert number == int(number)
    return f"{int(number):,}"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("*", r"\*").replace("<", "&lt;").replace(">", "&gt;")


Maker = Callable[[], Topic]
