"""Many modules in few words."""

from __future__ import annotations

import pytest

from attnprof.reports.names import folded, listed, place


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a"], {"a": 1}),
        (["h.0.q", "h.1.q", "h.2.q"], {"h.[0-2].q": 3}),
        (["h.2.q", "h.1.q"], {"h.[1-2].q": 2}),
        (["h.0.q", "h.2.q"], {"h.[0,2].q": 2}),
        (["h.0.q", "h.2.q", "h.3.q", "h.5.q"], {"h.*.q": 4}),
        (["h.3.q"], {"h.3.q": 1}),
        (["h.0.q", "h.0.k", "h.1.q", "h.1.k"], {"h.[0-1].q": 2, "h.[0-1].k": 2}),
        (["a.0.b.0", "a.0.b.1", "a.1.b.0", "a.1.b.1"], {"a.[0-1].b.[0-1]": 4}),
        (["a.0.b.0", "a.1.b.1"], {"a.*.b.*": 2}),
        (["a.0.b.5", "a.1.b.5"], {"a.[0-1].b.5": 2}),
        (["0", "01"], {"0": 1, "01": 1}),  # no number that Python would write
        (["", "0", "1"], {"": 1, "[0-1]": 2}),
        ([], {}),
    ],
)
def test_folded(names: list[str], text: dict[str, int]) -> None:
    assert folded(names) == text
    assert sum(folded(names).values()) == len(names)


def test_listed() -> None:
    assert listed(["h.0.q", "h.1.q", "o"]) == "h.[0-1].q, o"
    assert listed(["a", "b", "c", "d"]) == "a, b, c and 1 more module"
    assert listed([*"abc", "h.0", "h.1"]) == "a, b, c and 2 more modules"
    assert listed(["a\x1b[31m"]) == "a\\x1b[31m"


def test_place() -> None:
    assert place([f"h.{i}.{part}" for part in ("q", "k", "mlp.up", "mlp.down") for i in (0, 1)]) == "h.[0-1]"
    assert place(["h.0.q", "h.0.k", "h.1.v", "h.1.o"]) == "h"
    assert place(["a", "b", "c", "d"]) == "a, b, c and 1 more module"
    assert place(["h.0.q"]) == "h.0.q"
    assert place(["a", "b"]) == "a, b"
    assert place(["h.0.q", "h.1.q", "h.0.k"]) == "h.[0-1].q, h.0.k"
