"""Many names in one: folded, unfolded again, matched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnprof.core.module_names import fold, matches, unfold


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ([], {}),
        ([""], {"": 1}),
        (["h.0", "h.1", "h.2"], {"h.[0-2]": 3}),
        (["h.0.a", "h.1.a", "h.3.a"], {"h.[0-1,3].a": 3}),
        (["a", "b"], {"a": 1, "b": 1}),
        (["h.0.b.0", "h.0.b.1", "h.1.b.0", "h.1.b.1"], {"h.[0-1].b.[0-1]": 4}),
        (["h.0.b.0", "h.0.b.1", "h.1.b.0"], {"h.0.b.[0-1]": 2, "h.1.b.0": 1}),  # not every combination is there
        (["h.01", "h.02"], {"h.01": 1, "h.02": 1}),  # keys, not numbers of a list
        (["[0-1]", "x"], {"\\[0-1]": 1, "x": 1}),
    ],
)
def test_folding(names: list[str], folded: dict[str, int]) -> None:
    assert fold(names) == folded


PARTS = st.sampled_from(["h", "0", "1", "2", "10", "01", "mlp", "[0-1]", "\\", "*", "", "(Net)", "٣"])


@given(st.lists(st.lists(PARTS, min_size=1, max_size=4).map(".".join), unique=True, max_size=12))
def test_what_is_folded_unfolds_to_the_same_names(names: list[str]) -> None:
    folded = fold(names)
    back = {text: unfold(text) for text in folded}
    assert sorted(name for found in back.values() for name in found) == sorted(names)
    assert {text: len(found) for text, found in back.items()} == folded


@pytest.mark.parametrize("text", ["h.[3-1]", "[0-999999].[0-999999]"])
def test_damaged_ranges_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"runs backwards|stands for"):
        unfold(text)


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("encoder", "encoder", True),
        ("encoder", "encoder.0", False),
        ("encoder.*", "encoder", False),
        ("encoder.*", "encoder.0.attn", True),
        ("*.mlp", "h.3.mlp", True),
        ("h.[0-11].mlp", "h.11.mlp", True),
        ("h.[0-11].mlp", "h.12.mlp", False),
        ("h.[0-11].*", "h.10.mlp", True),
        ("h.[0-11].*", "h.10.mlp.up", True),
        ("h.[0,2]", "h.1", False),
        ("h.[0,2].[1-3]", "h.2.3", True),
        ("h.[0,2].[1-3]", "h.3.2", False),
        ("h.[ab]", "h.a", True),
    ],
)
def test_matching(pattern: str, name: str, found: bool) -> None:
    assert matches(pattern, name) is found
