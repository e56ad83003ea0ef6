"""Lengths that are too many to compare are refused before any of them is made."""

from __future__ import annotations

import pytest

from attnprof.cli.lengths import parse_lengths
from attnprof.core.errors import AttnprofError


def test_as_many_as_can_be() -> None:
    assert parse_lengths("3,4,...,1002") == list(range(3, 1003))


@pytest.mark.parametrize("text", ["3,4,...,1003", "3,4,...,99999999999999999999", ",".join(map(str, range(1, 1002)))])
def test_too_many(text: str) -> None:
    with pytest.raises(AttnprofError, match="at most 1000 lengths are compared"):
        parse_lengths(text)
