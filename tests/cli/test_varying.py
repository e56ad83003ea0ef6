"""Sizes of ``attnprof scale``: ranges, lists, prefixes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from attnprof.cli.varying import around, complete, parse_at, parse_varied, size
from attnprof.core.errors import AttnprofError


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("T=128..8192", range(128, 8193)),
        ("T = 128 .. 8192", range(128, 8193)),
        ("T=128..512:64", range(128, 513, 64)),
        ("T=1k..4Ki:1000", range(1000, 4097, 1000)),
        ("T=128,256,512", [128, 256, 512]),
        ("T=512,128,128", [128, 512]),
        ("T=128,256,...,2048", [128, 256, 512, 1024, 2048]),
        ("T=128,256,...,640", [128, 256, 384, 512, 640]),
        ("T=3,5,...,9", [3, 5, 7, 9]),
    ],
)
def test_what_varies(text: str, sizes: Sequence[int]) -> None:
    assert parse_varied([text]) == {"T": sizes}


@pytest.mark.parametrize(
    "text", ["T", "T=", "=8", "2=8", "T=8..", "T=..8", "T=8..4", "T=8...16", "T=8:16", "T=8,x", "T=3,5,...,8",
             "T=3,...,8", "T=8..16:0", "T=-8..16", "T=1,2,...,9999999", "T=2T"]
)  # fmt: skip
def test_what_does_not_parse_is_one_sentence(text: str) -> None:
    with pytest.raises(AttnprofError) as raised:
        parse_varied([text])
    assert str(raised.value).startswith(f"--vary '{text}'")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("4096", 4096), ("4k", 4000), ("4K", 4000), ("4Ki", 4096), ("1M", 10**6), ("1.5M", 1_500_000), ("1_000", 1000)],
)
def test_sizes(text: str, value: int) -> None:
    assert size("--at", text) == value


@pytest.mark.parametrize("text", ["0", "1.5", "1e3", "x", "", "4kB", "-1", "10000G", "1.0001k"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(AttnprofError, match="--at: a size"):
        size("--at", text)


def test_other_sizes() -> None:
    assert parse_at(["T=1M,B=8", "T=2k"]) == [{"T": 10**6, "B": 8}, {"T": 2000}]
    assert complete({"T": 5}, {"d": 7}, ["T", "d"]) == {"T": 5, "d": 7}
    for text in ("T", "T=1,T=2", "1=2"):
        with pytest.raises(AttnprofError, match="--at"):
            parse_at([text])


def test_around_a_usual_size() -> None:
    assert around(768) == range(192, 1537)
    assert around(2) == range(1, 5)
