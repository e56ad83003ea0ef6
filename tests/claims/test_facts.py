"""Every single fact of the documents, found anew."""

from __future__ import annotations

import math
from collections import Counter

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


def test_every_document_and_every_fact_is_there() -> None:
    assert len({fact.id for fact in FACTS}) == len(FACTS) == 297
    assert {fact.id[0] for fact in FACTS} == DOCUMENTS.keys()


def test_most_facts_are_found_by_running_something() -> None:
    kinds = Counter(found(fact)[0] for fact in FACTS)
    assert kinds["measured"] > 2 * (kinds["arithmetic"] + kinds["closed form"])
