"""The pages that the program writes are what it would write now: ``UPDATE_DOCS=1`` writes them anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attnprof import zoo
from claims import claims_page, zoo_page
from claims.patterns import drawn, sees

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [("zoo.md", zoo_page.page), ("claims.md", claims_page.page)]
MARK = "<!-- From here on written by UPDATE_DOCS=1 pytest tests/claims/test_pages.py -->\n\n"


@pytest.mark.parametrize(("name", "page"), PAGES, ids=[name for name, _ in PAGES])
def test_the_page_is_what_the_program_says(name: str, page: Callable[[], str]) -> None:
    head, mark, below = (DOCS / name).read_text(encoding="utf-8").partition(MARK)
    assert mark
    written = page()
    if os.environ.get("UPDATE_DOCS"):
        (DOCS / name).write_text(head + MARK + written, encoding="utf-8")
        below = written
    assert below == written


def test_every_mechanism_is_on_the_page() -> None:
    assert zoo_page.listed() == set(zoo.names())


COUNTED = [(n, s) for n, s in zoo_page.PICTURES if n not in ("clustered", "topk", "hybrid", "diagonal-rnn", "ffn")]


@pytest.mark.parametrize(("name", "symbols"), COUNTED, ids=[f"{n}-{zoo_page.name_of(s)}" for n, s in COUNTED])
def test_a_picture_has_as_many_marks_as_the_module_keeps_pairs(name: str, symbols: dict[str, Any]) -> None:
    """By gradients on one side, by the module's closed form on the other (of a cluster's, some are of no one)."""
    torch.manual_seed(0)
    heads = {"H": 1} if "H" in zoo.find(name).symbols else {}
    net: Any = zoo.build(name, d=4, **heads, **symbols)
    assert sum(map(sum, sees(net, 24, 4))) == net.pairs(24)


@pytest.mark.parametrize("causal", [False, True])
def test_a_row_of_the_best_keys(causal: bool) -> None:
    """Each query its k keys, or all it has; its own position shows besides, since its query is made there."""
    k, net = 4, zoo.build("topk", d=4, H=1, k=4, causal=causal)
    for at, row in enumerate(sees(net, 24, 4)):
        chosen = min(k, at + 1) if causal else k
        assert row[at]
        assert sum(row) in (chosen, chosen + 1)
        assert not (causal and any(row[at + 1 :]))


def test_a_drawing() -> None:
    """Rows two by two: X. over .X is the upper half, then the lower."""
    rows = [[True, False, True, False], [False, True, True, False]]
    assert drawn(rows).splitlines() == ["┌────┐", "│▀▄█ │", "└────┘"]
