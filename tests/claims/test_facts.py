"""Every single fact of the documents, found anew."""

from __future__ import annotations

import math
from collections import Counter
from decimal import Decimal

import pytest

from claims import of_arithmetic, of_attention, of_mechanisms, of_models  # noqa: F401 - they enter the sources
from claims.facts import DOCUMENTS, FACTS, Fact, found


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.id)
def test_fact(fact: Fact) -> None:
    _, value = found(fact)
    if isinstance(fact.value, int) or fact.value == int(fact.value):
        assert value == fact.value
    else:
        # The file has decimals of float64: rounding of the few operations of a formula, 2**-53 each.
        assert math.isclose(value, fact.value, rel_tol=1e-14, abs_tol=0)


#: The document's own expression, evaluated: the number is right and what it is said of is not.
ITS_OWN = {"C.flash.document_absurd", "E.sparse.literal"}


@pytest.mark.parametrize("fact", [f for f in FACTS if isinstance(f.document, int | float)], ids=lambda fact: fact.id)
def test_the_verdict_follows_from_the_numbers(fact: Fact) -> None:
    places = max(0, -Decimal(str(fact.document)).normalize().as_tuple().exponent)
    rounded = round(fact.value, places) == fact.document
    cut_off = math.floor(fact.value * 10**places) == fact.document * 10**places
    first, *_ = fact.verdict.split()
    if "upper bound" in fact.verdict:
        assert fact.value <= fact.document
    elif "truncation" in fact.verdict:
        assert cut_off
    elif "approximately" in fact.verdict or "~" in fact.verdict:
        # The document says "about", in numbers of one or two digits.
        assert rounded or math.isclose(fact.value, fact.document, rel_tol=0.06)
    elif first.startswith("reproduced"):
        assert rounded
    elif first.startswith("wrong") and fact.id not in ITS_OWN:
        assert not rounded


def test_every_document_and_every_fact_is_there() -> None:
    assert len({fact.id for fact in FACTS}) == len(FACTS) == 297
    assert {fact.id[0] for fact in FACTS} == DOCUMENTS.keys()


def test_most_facts_are_found_by_running_something() -> None:
    kinds = Counter(found(fact)[0] for fact in FACTS)
    assert kinds["measured"] > 2 * (kinds["arithmetic"] + kinds["closed form"])
