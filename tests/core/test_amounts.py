"""Amounts with units: strict, exact, and refused with the grammar."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import attnprof
from attnprof.core import amounts
from attnprof.core.errors import AttnprofError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0 FLOP", 0),
        ("1 FLOP", 1),
        ("4.2 GFLOP", 42 * 10**8),
        ("4.2GFLOP", 42 * 10**8),
        ("4.2 GFLOPs", 42 * 10**8),
        (" 4.2 GFLOP ", 42 * 10**8),
        ("4_200 MFLOP", 42 * 10**8),
        ("0.1 kFLOP", 100),  # exact, though no binary fraction is
        ("1.5 TFLOP", 15 * 10**11),
        ("2 PFLOP", 2 * 10**15),
        ("1 EFLOP", 10**18),
        ("3 ZFLOP", 3 * 10**21),
        ("310 MMAC", 2 * 310 * 10**6),
        ("0.5 MAC", 1),
        ("3 GMACs", 6 * 10**9),
        (7, 7),
    ],
)
def test_flops(text: str | int, value: int) -> None:
    assert attnprof.flops(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0 B", 0),
        ("120 MB", 120 * 10**6),
        ("1 kB", 1000),
        ("1 KiB", 1024),
        ("1.5 GiB", 3 * 2**29),
        ("2TiB", 2**41),
        (2**20, 2**20),
    ],
)
def test_bytes(text: str | int, value: int) -> None:
    assert attnprof.bytes(text) == value


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("4.2", "It has no unit."),
        ("", ""),
        ("GFLOP", ""),
        ("-1 FLOP", ""),
        ("+1 FLOP", ""),
        ("1e9 FLOP", ""),
        (".5 GFLOP", ""),
        ("5. GFLOP", ""),
        ("4,2 GFLOP", "Digits are grouped with _ and fractions have a point."),
        ("1__0 FLOP", ""),
        ("4.2  GFLOP", 'Did you mean "4.2 GFLOP"?'),
        ("4.2 G FLOP", 'Did you mean "4.2 GFLOP"?'),
        ("4.2 gflop", 'Did you mean "4.2 GFLOP"?'),
        ("4_200 Kflops", 'Did you mean "4_200 kFLOP"?'),
        ("310 mmacs", 'Did you mean "310 MMAC"?'),
        ("310 kiflop", ""),
        ("4.2 G", ""),
        ("4.2 YFLOP", 'There is no prefix "Y".'),
        ("4.2 GFLOPS", "FLOPS and FLOP/s are a rate; a budget is a count: FLOP."),
        ("4.2 GFLOP/s", "FLOPS and FLOP/s are a rate; a budget is a count: FLOP."),
        ("4.2 KFLOP", 'There is no prefix "K": write k for 1000.'),
        ("4.2 GiFLOP", 'There is no prefix "Gi": FLOPs have decimal prefixes.'),
        ("4.2 gFLOP", 'There is no prefix "g", though there is G.'),
        ("4.2 XFLOP", 'There is no prefix "X".'),
        ("1.5 FLOP", "It is no whole number of flops."),
        ("4.2 GB", "B is a unit of bytes."),
        ("inf FLOP", ""),
        ("9" * 400, "It has no unit."),
        ("9" * 400 + ".5 FLOP", "It is no whole number of flops."),
        ("٤ GFLOP", ""),
    ],
)
def test_what_is_no_amount_of_flops_is_refused_with_the_grammar(text: str, hint: str) -> None:
    with pytest.raises(AttnprofError) as refused:
        attnprof.flops(text)
    told = str(refused.value)
    assert told.startswith(f"{text!r} is no amount of flops: NUMBER UNIT, the unit FLOP or MAC")
    assert '"4.2 GFLOP"' in told
    assert told.endswith(hint or "or a whole number.")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("4.2 GFLOP", "FLOP is a unit of flops."),
        ("310 MMAC", "MAC is a unit of flops."),
        ("100 Mb", "A small b is a bit; bytes are B."),
        ("120 mb", 'Did you mean "120 MB"?'),
        ("3 bytes", 'Did you mean "3 B"?'),
        ("1 gib", 'Did you mean "1 GiB"?'),
        ("1 GIB", 'There is no prefix "GI".'),
        ("1 kbyte", 'Did you mean "1 kB"?'),
        ("1 YiB", 'There is no prefix "Yi".'),
        ("1 GB/s", ""),
        ("1 KB", 'There is no prefix "K": write k for 1000 or Ki for 1024.'),
        ("1 kiB", 'There is no prefix "ki".'),
        ("0.3 B", "It is no whole number of bytes."),
    ],
)
def test_what_is_no_amount_of_bytes_is_refused_with_the_grammar(text: str, hint: str) -> None:
    with pytest.raises(AttnprofError) as refused:
        attnprof.bytes(text)
    told = str(refused.value)
    assert told.startswith(f"{text!r} is no amount of bytes: NUMBER UNIT, the unit B")
    assert '"1.5 GiB"' in told
    assert told.endswith(hint or "or a whole number.")


@pytest.mark.parametrize("value", [True, None, -1, 1.5, float("nan"), [1], b"1 B"])
def test_other_values_are_refused(value: object) -> None:
    for parse in (attnprof.flops, attnprof.bytes):
        with pytest.raises(AttnprofError, match="is no amount of"):
            parse(value)  # type: ignore[arg-type]


def test_a_whole_float_is_refused_with_the_int_it_is() -> None:
    with pytest.raises(AttnprofError, match=r"A float is not exact: write 4200000000 if that is meant\."):
        attnprof.flops(4.2e9)  # type: ignore[arg-type]


def test_one_kind_is_not_taken_for_the_other() -> None:
    with pytest.raises(AttnprofError, match=r"'1 GB' is no amount of flops.*It is an amount of bytes\."):
        attnprof.flops(attnprof.bytes("1 GB"))
    assert attnprof.flops(attnprof.flops("1 GFLOP")) == 10**9


@given(st.integers(0, 10**24), st.sampled_from(["", "k", "M", "G", "T"]))
def test_thousandths_are_exact(thousandths: int, prefix: str) -> None:
    scale = 1000 ** ["", "k", "M", "G", "T"].index(prefix)
    text = f"{thousandths // 1000}.{thousandths % 1000:03d} {prefix}FLOP"
    if thousandths * scale % 1000:
        with pytest.raises(AttnprofError, match="no whole number"):
            attnprof.flops(text)
    else:
        assert attnprof.flops(text) * 1000 == thousandths * scale


def test_an_amount_is_an_int_that_shows_how_it_was_written() -> None:
    amount = attnprof.flops("4.2 GFLOP")
    assert repr(amount) == "flops('4.2 GFLOP')"
    assert (str(amount), f"{amount:,}") == ("4200000000", "4,200,000,000")
    for same in (pickle.loads(pickle.dumps(amount)), copy.deepcopy(amount)):
        assert (same, repr(same)) == (amount, repr(amount))
    assert type(amount + 1) is int


@pytest.mark.parametrize(
    ("text", "value"),
    [("1%", Fraction(1, 100)), ("0.5 %", Fraction(1, 200)), ("0", Fraction(0)), (0, Fraction(0)), ("250%", 5 / 2)],
)
def test_tolerance(text: str | int, value: Fraction) -> None:
    assert amounts.tolerance(text) == value


@pytest.mark.parametrize("text", ["1", "", "1 percent", "-1%", "0.01", 0.01, 1, True, False, "nan%", "1%%"])
def test_what_is_no_percentage_is_refused(text: object) -> None:
    with pytest.raises(AttnprofError, match='is no percentage: write "1%"'):
        amounts.tolerance(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [-1, 1.0, "1", True, None])
def test_a_count_is_a_whole_number(count: object) -> None:
    with pytest.raises(AttnprofError, match="a count is a whole number"):
        amounts.read(count, "count")  # type: ignore[arg-type]
