"""Numbers are shown in the page as on the terminal, digit for digit."""

from __future__ import annotations

import random
from fractions import Fraction
from importlib import resources
from typing import Any

import pytest
from playwright.sync_api import Browser

from attnprof.core.units import Kind, Units, duration, intensity, share

#: Around every place where a rule turns: prefixes, halves, carries, the end of a double's whole numbers.
EDGES = [
    *(0, 1, 7, 999, 1000, 9_999, 10_000, 10_050, 10_150, 12_350, 99_949, 99_950, 99_951, 999_499, 999_500, 999_999),
    *(1023, 1024, 10_239, 10_240, 10_485_760, 1_048_575, 2**30 - 1, 2**30, 2**53 - 1, 2**53, 2**53 + 1, 10**18),
    *(9_995, 99_949_999, 999_499_999, 10**27, 3 * 10**33),
]


@pytest.fixture(scope="module")
def shown(browser: Browser) -> Any:
    """Calls a function of the page's own numbers.js for each of some lists of arguments."""
    source = resources.files("attnprof.reports.html").joinpath("static", "numbers.js").read_text(encoding="utf-8")
    page = browser.new_page()

    def call(function: str, cases: list[list[Any]]) -> list[Any]:
        found: list[Any] = page.evaluate(f"(cases) => {{ {source}; return cases.map((c) => {function}(...c)) }}", cases)
        return found

    yield call
    page.close()


def _values() -> list[int]:
    chance = random.Random(0)
    return EDGES + [chance.randrange(10 ** chance.randrange(1, 28)) for _ in range(400)]


@pytest.mark.parametrize("kind", ["matmul", "flops", "bytes", "count"])
@pytest.mark.parametrize("words", ["decimal", "binary", "exact", "macs", "exact,macs"])
def test_counts(shown: Any, kind: Kind, words: str) -> None:
    units = Units.parse(words)
    flags = {"exact": units.exact, "binary": units.binary, "macs": units.macs}
    values = _values()
    sent = [str(value) if value > 2**53 - 1 else value for value in values]  # as the page's data has them
    assert shown("named", [[value, kind, flags] for value in sent]) == [units.named(v, kind) for v in values]


def test_times(shown: Any) -> None:
    chance = random.Random(1)
    values = [
        0.0,
        1e-12,
        9.995e-7,
        0.9995,
        0.99951,
        1.0,
        59.95,
        1e6,
        *(10 ** chance.uniform(-12, 4) for _ in range(300)),
    ]
    assert shown("duration", [[value] for value in values]) == [duration(value) for value in values]


def test_shares(shown: Any) -> None:
    chance = random.Random(2)
    pairs = [(0, 5), (5, 5), (4999, 10**7), (5001, 10**7), (9996, 10_000), (1, 16), (3, 16), (0, 0)]
    pairs += [(chance.randrange(10**9), 10**9) for _ in range(200)]
    assert shown("percent", [[a, b] for a, b in pairs]) == [share(a, b) for a, b in pairs]


def test_intensities(shown: Any) -> None:
    chance = random.Random(3)
    pairs = [(chance.randrange(1, 10**15), chance.randrange(1, 10**12)) for _ in range(300)]
    found = shown("((a, b) => perByte(BigInt(a), BigInt(b)))", [[a, b] for a, b in pairs])
    assert found == [intensity(Fraction(a, b)) for a, b in pairs]  # type: ignore[arg-type]
    assert shown("((a, b) => perByte(BigInt(a), BigInt(b)))", [[5, 0]]) == [None]
