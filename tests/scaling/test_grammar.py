"""Claims are parsed as data: what they mean, and the sentence for what means nothing."""

from __future__ import annotations

import builtins

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy import Expr, Integer, Max, Min, Rational, ceiling, floor, log, sqrt

from attnprof.claims.grammar import assumption, parse
from attnprof.claims.words import LONGEST
from attnprof.core.errors import AttnprofError
from scaling.names import SYMBOLS, N, T, d, dh, read, s, w


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("6*s*d^2+4*s^2*d", 6 * s * d**2 + 4 * s**2 * d),
        ("6sd² + 4s²d", 6 * s * d**2 + 4 * s**2 * d),
        ("6·s·d**2 + 4×s^2⋅d", 6 * s * d**2 + 4 * s**2 * d),
        ("Nd", N * d),
        ("Tdh", T * dh),  # dh is a symbol: the only way to take the letters apart, as h is none
        ("2(N + d)N", 2 * (N + d) * N),
        ("-N + 3 - -d", d - N + 3),
        ("-N^2", -(N**2)),
        ("2^3^2", Integer(2**9)),
        ("N^-1 d", d / N),
        ("N⁻¹d", d / N),
        ("N^(1/2)", sqrt(N)),
        ("N^1.5", N ** Rational(3, 2)),
        ("N²³", N**23),
        ("1,024N", 1024 * N),
        ("1.5e3 N", 1500 * N),
        ("N/2*d", N * d / 2),
        ("N/(2d)", N / (2 * d)),
        ("N log N", N * log(N)),
        ("NlogN", N * log(N)),
        ("N log2 N", N * log(N, 2)),
        ("N·log₂(N)", N * log(N, 2)),
        ("√N", sqrt(N)),
        ("⌈T/w⌉w", ceiling(T / w) * w),
        ("floor(T/8)", floor(T / 8)),
        ("T min(T, w)", T * Min(T, w)),
        ("max(T, w, 3)", Max(T, w, 3)),
    ],
)
def test_what_a_text_means(text: str, meaning: Expr) -> None:
    assert read(text) == meaning


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("O(N)", "O"),
        ("Θ(N)", "Θ"),
        ("Theta(N)", "Θ"),
        ("Ω(N)", "Ω"),
        ("Omega (N)", "Ω"),
        ("N", "="),
        ("\N{MATHEMATICAL SCRIPT CAPITAL O}(N)", "O"),
    ],
)
def test_bounds(text: str, bound: str) -> None:
    claim = parse(text, SYMBOLS)
    assert (claim.bound, claim.expression) == (bound, N)


def test_a_symbol_called_o_is_a_symbol() -> None:
    O = SYMBOLS["N"]  # noqa: E741, N806 - the name is the point
    assert parse("O(d)", {"O": O, "d": d}).expression == O * d


def test_other_names_of_a_symbol() -> None:
    assert parse("nd", {"T": T, "d": d}, {"n": T}).expression == T * d
    with pytest.raises(AttnprofError, match="there are T, d"):  # and not n, which is none of its own
        parse("x", {"T": T, "d": d}, {"n": T})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "claim '' does not parse: it ends where a number, a symbol or ( should be: write one, such as O(N*d^2)"),
        ("O(N", "claim 'O(N' does not parse: it ends where ) should be."),
        ("O()", "')' stands at character 3 where a number, a symbol or ( should be."),
        ("N)", "')' stands at character 2 where a sign or the end should be."),
        ("O(N) + d", "'+' stands at character 6 where a sign or the end should be."),
        ("N*", "it ends where a number, a symbol or ( should be."),
        ("N == d", "'=' at character 3 has no meaning."),
        ("x", "there is no symbol 'x'; there are N, d, T, H, w, s, L, dh."),
        ("n", "there is no symbol 'n'; there are N, d,"),
        ("1/2d", "claim '1/2d' divides by something with no sign after it: write parentheses, as in N/(2·d)."),
        ("N/0", "claim 'N/0' divides by zero."),
        ("N/(2-2)", "claim 'N/(2-2)' divides by zero."),
        ("0^-1", "claim '0^-1' divides by zero."),
        ("(0-4)^0.5", "takes a root of a negative number."),
        ("N^d", "has the exponent d; an exponent is a number."),
        ("9^9^9^9", "has an exponent larger than 32."),
        ("N^33", "has an exponent larger than 32."),
        ("(N+d)^32", None),
        ("(N+d+T+H+w+s)^9", "is too large to be worked out."),
        ("((((9^32)^32)^32)^32)", "is too large to be worked out."),
        ("1e99", "claim '1e99': a number has at most 30 digits."),
        ("1" * 31, "a number has at most 30 digits."),
        ("(" * 100 + "N" + ")" * 100, "is nested deeper than 40 levels."),
        ("log " * 200 + "N", "is nested deeper than 40 levels."),
        ("N^" * 90 + "1", "is nested deeper than 40 levels."),
        ("N+" * LONGEST + "N", "a claim has at most 1000 characters; this one has 2,001."),
        ("log(0)", "claim 'log(0)' takes log of 0, which is not above zero."),
        ("log(N, d)", "claim 'log(N, d)' gives log 2 values; it takes one."),
        ("min(N,d,T,H,w,s,L)", "gives min 7 values; 6 are the most."),
        ("log", "it ends where a number, a symbol or ( should be."),
        ("ceil N", "'N' stands at character 6 where ( should be."),
        ("\N{FULLWIDTH DIGIT NINE}N", "'\N{FULLWIDTH DIGIT NINE}' at character 1 has no meaning."),
    ],
)
def test_what_means_nothing_is_one_sentence(text: str, sentence: str | None) -> None:
    if sentence is None:  # 33 terms when multiplied out, and counted as 2^32 before
        sentence = "is too large to be worked out."
    with pytest.raises(AttnprofError) as raised:
        parse(text, SYMBOLS)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_letters_that_can_be_taken_apart_in_two_ways() -> None:
    names = {"d": d, "dh": dh, "h": SYMBOLS["H"]}
    assert parse("dh", names).expression == dh  # a symbol of that name comes first
    with pytest.raises(AttnprofError, match=r"'ddh' can be (d·dh or d·d·h|d·d·h or d·dh): write the signs\."):
        parse("ddh", names)


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('true')", "N.__class__", "[N]", "lambda: N", "N if N else d", "exec(N)", "N; d", "'N'"],
)
def test_code_is_never_run(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*_: object, **__: object) -> None:
        raise AssertionError("text was run")

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "eval", called)
        patched.setattr(builtins, "exec", called)
        with pytest.raises(AttnprofError):
            parse(text, SYMBOLS)


@given(st.text(alphabet="Nds0129 +-*/^().,²⌈⌉√·logminceilOΘe", max_size=40))
def test_any_text_is_a_claim_or_one_sentence(text: str) -> None:
    refused, claim = "", None
    try:
        claim = parse(text, SYMBOLS)
    except AttnprofError as error:
        refused = str(error)
    if claim is None:
        assert refused.count("\n") == 0
        assert refused.endswith(("?", "."))
    else:
        assert {symbol.name for symbol in claim.expression.free_symbols} <= SYMBOLS.keys()


_ATOMS = st.sampled_from(["N", "d", "3", "2.5", "T"])


@st.composite
def _texts(draw: st.DrawFn, depth: int = 3) -> tuple[str, Expr]:
    """A text and its meaning, worked out beside each other."""
    values = {"N": N, "d": d, "T": T, "3": Integer(3), "2.5": Rational(5, 2)}
    if depth == 0:
        text = draw(_ATOMS)
        return text, values[text]
    left, x = draw(_texts(depth - 1))
    right, y = draw(_texts(depth - 1))
    sign = draw(st.sampled_from(["+", "-", "*", "²"]))
    if sign == "²":
        return f"({left})²", x**2
    return f"({left}){sign}({right})", {"+": x + y, "-": x - y, "*": x * y}[sign]


@given(_texts())
def test_arithmetic_means_what_it_says(pair: tuple[str, Expr]) -> None:
    text, meaning = pair
    assert read(text) == meaning


def test_assumptions() -> None:
    assert assumption("H <= d", SYMBOLS) == (SYMBOLS["H"], d)
    assert assumption("2w≤T", SYMBOLS) == (2 * w, T)
    for text in ("H < d", "H", "O(H)<=d"):
        with pytest.raises(AttnprofError):
            assumption(text, SYMBOLS)
