"""Every number a person reads is formatted here: prefixes, rounding and alignment at their edges."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnprof.core.errors import AttnprofError
from attnprof.core.units import Units, align, duration, durations, exactly, intensity, rounded, share, split

PLAIN = Units()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1"),
        (999, "999"),
        (1536, "1536"),
        (9_999, "9999"),
        (10_000, "10.0 k"),
        (-10_000, "-10.0 k"),
        (99_949, "99.9 k"),
        (99_951, "100 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),  # rounding may reach the next prefix
        (1_312_000_000_000, "1.31 T"),
        (437_000_000_000, "437 G"),
        (10**15, "1.00 P"),
        (10**18, "1.00 E"),
        (10**30, "1.00 Q"),
        (10**33, "1000 Q"),  # past the last prefix the digits grow
        (999.5, "1000"),
        (0.25, "0.250"),
        (0.001234, "0.00123"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
    ],
)
def test_a_number_alone(value: float, text: str) -> None:
    assert PLAIN.text(value) == text


@pytest.mark.parametrize(
    ("value", "decimal", "binary"),
    [
        (0, "0 B", "0 B"),
        (999, "999 B", "999 B"),
        (9_999, "9999 B", "9999 B"),
        (10 * 1024, "10.2 kB", "10.0 KiB"),
        (248 * 10**6, "248 MB", "237 MiB"),  # 248e6 / 2**20 = 236.5
        (1023 * 2**20 + 2**19 + 1, "1.07 GB", "1.00 GiB"),  # 1023.5 MiB and a byte rounds to 1024 MiB
        (2**40, "1.10 TB", "1.00 TiB"),
    ],
)
def test_bytes_name_their_prefix(value: int, decimal: str, binary: str) -> None:
    assert PLAIN.text(value, "bytes") == decimal
    assert Units(binary=True).text(value, "bytes") == binary


def test_exact_units_lose_nothing() -> None:
    exact = Units(exact=True)
    assert exact.text(10**18 + 1) == "1,000,000,000,000,000,001"
    assert exact.text(2**53 + 1, "bytes") == "9,007,199,254,740,993 B"
    assert exact.text(float("inf")) == "inf"


@settings(deadline=None)
@given(st.integers(min_value=-(10**40), max_value=10**40))
def test_exact_text_reads_back(value: int) -> None:
    assert int(Units(exact=True).text(value).replace(",", "")) == value


def test_macs_halve_contractions_only() -> None:
    macs = Units(macs=True)
    assert macs.text(2 * 437 * 10**9, "matmul") == "437 G"
    assert macs.text(874 * 10**9, "flops") == "874 G"
    assert macs.text(874, "bytes") == "874 B"
    assert Units(macs=True, exact=True).text(7, "matmul") == "3.5"
    assert macs.name("matmul") == "MAC"
    assert macs.name("flops") == "FLOP"


def test_a_number_with_its_unit() -> None:
    assert PLAIN.named(19_300_000_000, "matmul") == "19.3 GFLOP"
    assert Units(macs=True).named(19_300_000_000, "matmul") == "9.65 GMAC"
    assert PLAIN.named(512) == "512 FLOP"
    assert PLAIN.named(13_600_000, "bytes") == "13.6 MB"
    assert PLAIN.named(12, "count") == "12"
    assert PLAIN.named(float("inf")) == "inf FLOP"


@settings(deadline=None)
@given(st.integers(min_value=1, max_value=10**33))
def test_three_figures_are_within_half_a_unit_of_the_third(value: int) -> None:
    number, prefix = split(value)
    scale = 1000 ** ["", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q"].index(prefix)
    assert abs(Fraction(number) * scale - value) * 200 <= value  # half of 1 in 100, at worst


@settings(deadline=None)
@given(st.floats(allow_nan=False))
def test_any_float_has_a_text(value: float) -> None:
    assert PLAIN.text(value)
    assert rounded(value)
    assert exactly(value)


@given(st.integers(min_value=0, max_value=10**60))
def test_half_of_any_number_keeps_its_half(value: int) -> None:
    assert exactly(Fraction(2 * value + 1, 2)) == f"{value:,}.5"


@pytest.mark.parametrize(
    ("value", "text"), [(9.996, "10.0"), (99.96, "100"), (0.9999, "1.00"), (1234.4, "1234"), (0, "0"), (2.5, "2.50")]
)
def test_rounding_keeps_three_figures_when_it_carries(value: float, text: str) -> None:
    assert rounded(value) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 10, "0"),
        (0, 0, "0"),
        (10, 10, "100"),
        (1, 3, "33.3"),
        (1, 10_000, "<0.1"),
        (1, 2_000, "0.1"),  # 0.05% is shown, less is not
        (9_999, 10_000, ">99.9"),
        (10**40 - 1, 10**40, ">99.9"),
        (20, 10, "200.0"),
    ],
)
def test_share(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_intensity() -> None:
    assert intensity(295.4) == "295"
    assert intensity(0.25) == "0.250"
    assert intensity(math.inf) == "inf"
    assert intensity(0.0) == "0"


def test_a_column_with_one_prefix_puts_it_in_the_header() -> None:
    header, cells = PLAIN.column([1_312 * 10**9, 437 * 10**9, 29 * 10**9, 0, None])
    assert header == "GFLOP"
    assert cells == ["1312  ", " 437  ", "  29.0", "   0  ", "     –"]


def test_a_column_of_many_sizes_has_a_prefix_per_cell() -> None:
    header, cells = PLAIN.column([1_312 * 10**9, 12_600, 1536, 0, None])
    assert header == "FLOP"
    assert cells == ["1.31 T", "12.6 k", "1536  ", "   0  ", "     –"]


def test_a_column_of_bytes() -> None:
    header, cells = PLAIN.column([38_200_000_000, 13_600_000, 512], "bytes")
    assert header == ""
    assert cells == ["38.2 GB", "13.6 MB", " 512  B"]
    header, cells = Units(binary=True).column([3 * 2**30, 2**29], "bytes")
    assert header == "GiB"
    assert cells == ["3.00 ", "0.500"]


def test_a_column_of_counts() -> None:
    assert PLAIN.column([12, 1, 144], "count") == ("", [" 12", "  1", "144"])
    assert PLAIN.column([7_090_000, 124_000_000, 2_360_000], "count") == ("M", ["  7.09", "124   ", "  2.36"])
    assert PLAIN.column([], "count") == ("", [])
    assert PLAIN.column([0, 0]) == ("FLOP", ["0", "0"])


def test_exact_columns_align() -> None:
    header, cells = Units(exact=True).column([1_312_000, 12, None])
    assert header == "FLOP"
    assert cells == ["1,312,000", "       12", "        –"]


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(min_value=0, max_value=10**20)), min_size=1))
def test_cells_of_a_column_have_one_width(values: list[int | None]) -> None:
    for units in (PLAIN, Units(exact=True), Units(binary=True)):
        for kind in ("flops", "bytes", "count", "matmul"):
            _, cells = units.column(values, kind)  # type: ignore[arg-type]
            assert len({len(c) for c in cells}) == 1


def test_align_at_the_point() -> None:
    assert align(["1312", "29.0", "0.123", None]) == ["1312    ", "  29.0  ", "   0.123", "       –"]


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("exact", Units(exact=True)),
        ("macs", Units(macs=True)),
        ("MACs, binary", Units(macs=True, binary=True)),
        ("decimal", Units()),
    ],
)
def test_parse(text: str, units: Units) -> None:
    assert Units.parse(text) == units


def test_parse_names_what_is_wrong() -> None:
    with pytest.raises(AttnprofError, match=r'no units "mac".*Did you mean macs'):
        Units.parse("mac")
    with pytest.raises(AttnprofError, match="either binary"):
        Units.parse("binary,decimal")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0, "0 s"),
        (61, "61.0 s"),
        (1, "1.00 s"),
        (9.83e-3, "9.83 ms"),
        (0.9996, "1.00 s"),  # 999.6 ms rounds to 1000 ms
        (999.6e-6, "1.00 ms"),
        (412e-6, "412 µs"),
        (7.5e-9, "7.50 ns"),
        (2e-11, "0.0200 ns"),
        (float("inf"), "inf s"),
        (Fraction(1, 3), "333 ms"),
    ],
)
def test_durations_take_the_largest_unit_they_fill(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_column_of_durations() -> None:
    assert durations([9.83e-3, 0.25e-3, 0, None]) == ("ms", ["9.83 ", "0.250", "0    ", "    –"])
    assert durations([9.83e-3, 250e-9]) == ("µs", ["9830    ", "   0.250"])
    assert durations([9.83e-3, 25e-9, 0, None]) == ("", ["9.83 ms", "25.0 ns", "   0  s", "      –"])
    assert durations([]) == ("s", [])
    assert durations([0, None]) == ("s", ["0", "–"])
