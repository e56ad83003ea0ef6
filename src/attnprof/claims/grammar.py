"""A claim as a value: its expression is built from the parts of the text, which is never run as code.

claim   = [O|Θ|Ω] "(" sum ")" | sum
sum     = ["+"|"-"] product {("+"|"-") product}
product = power {("*"|"/"|nothing) power}
power   = atom [("^"|"**") signed | raised digits]
atom    = number | symbol | "(" sum ")" | "⌈" sum "⌉" | "⌊" sum "⌋" | function "(" sum {"," sum} ")" | log atom
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Literal

from sympy import Expr, Max, Min, Pow, Rational, ceiling, floor, log, sqrt

from attnprof.claims.words import BARE, Word, split
from attnprof.core.errors import AttnprofError

Bound = Literal["=", "O", "Θ", "Ω"]

#: The largest exponent, the longest number in bits, the deepest nesting, the most terms when multiplied out, and the
#: most values of min and max.
_EXPONENT, _BITS, _DEPTH, _TERMS, _VALUES = 32, 4096, 40, 1000, 6
_CLOSING = {"(": ")", "⌈": "⌉", "⌊": "⌋"}


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed: that a count is this expression (``=``), or grows at most (O), at least (Ω) or just (Θ) so."""

    text: str
    bound: Bound
    expression: Expr


def parse(text: str, symbols: Mapping[str, Expr], also: Mapping[str, Expr] | None = None) -> Claim:
    """The claim that a text makes about these symbols; ``also`` has other names of some.

    Raises :class:`AttnprofError`, one sentence, for what does not parse, another symbol and a size out of all measure.
    """
    return _Parser(text, symbols, also or {}).claim()


def expression_of(text: str, symbols: Mapping[str, Expr], also: Mapping[str, Expr] | None = None) -> Expr:
    """The expression that a text without O, Θ and Ω is."""
    claim = parse(text, symbols, also)
    if claim.bound != "=":
        raise AttnprofError(f"'{_cut(text)}' is a claim of growth where an expression should be.")
    return claim.expression


def assumption(text: str, symbols: Mapping[str, Expr], also: Mapping[str, Expr] | None = None) -> tuple[Expr, Expr]:
    """``H<=d`` as the smaller and the larger expression."""
    small, sign, large = text.replace("≤", "<=").partition("<=")
    if not sign:
        raise AttnprofError(f"'{_cut(text)}' is no bound of one size by another: write one such as H<=d.")
    return expression_of(small, symbols, also), expression_of(large, symbols, also)


class _Parser:
    """One pass over the words; each method takes what it is named after."""

    def __init__(self, text: str, symbols: Mapping[str, Expr], also: Mapping[str, Expr]) -> None:
        self.text = text.strip()
        self._symbols = {**also, **symbols}
        self._words = split(self.text, symbols, also)
        self._depth = 0

    def claim(self) -> Claim:
        bound: Bound = "="
        if self._next.kind == "bound":
            bound = self._take().text  # type: ignore[assignment]  # the lexer knows these only
            if self._next.text != "(":
                raise self._unexpected("(")
            self._take()
            expression = self._sum()
            self._expect(")")
        else:
            expression = self._sum()
        if self._next.kind != "end":
            raise self._unexpected("a sign or the end")
        return Claim(self.text, bound, expression)

    def _sum(self) -> Expr:
        self._deeper()
        total = self._signed_product()
        while self._next.text in ("+", "-") and self._next.kind == "sign":
            total = self._checked(total + self._signed_product())
        self._depth -= 1
        return total

    def _signed_product(self) -> Expr:
        negative = False
        while self._next.kind == "sign" and self._next.text in ("+", "-"):
            negative ^= self._take().text == "-"
        product = self._product()
        return -product if negative else product

    def _product(self) -> Expr:
        product = self._power()
        divided = False
        while True:
            if self._next.kind == "sign" and self._next.text in ("*", "/"):
                divided = self._take().text == "/"
                factor = self._power()
                if divided and factor.is_zero:
                    raise self._refused("divides by zero")
                product = self._checked(product / factor if divided else product * factor)
            elif self._begins_atom():
                if divided:
                    raise self._refused("divides by something with no sign after it: write parentheses, as in N/(2·d)")
                product = self._checked(product * self._power())
            else:
                return product

    def _power(self) -> Expr:
        base = self._atom()
        if self._next.kind == "raised":
            return self._raise(base, Rational(self._take().text))
        if self._next.text != "**":
            return base
        self._take()
        self._deeper()
        negative = False
        while self._next.kind == "sign" and self._next.text in ("+", "-"):
            negative ^= self._take().text == "-"
        exponent = self._power()
        self._depth -= 1
        return self._raise(base, -exponent if negative else exponent)

    def _raise(self, base: Expr, exponent: Expr) -> Expr:
        if not exponent.is_Rational:
            raise self._refused(f"has the exponent {exponent}; an exponent is a number")
        if abs(exponent) > _EXPONENT or exponent.q > _EXPONENT:
            raise self._refused(f"has an exponent larger than {_EXPONENT}")
        if base.is_zero and exponent <= 0:
            raise self._refused("divides by zero")
        if not exponent.is_Integer and base.is_number and base.is_negative:
            raise self._refused("takes a root of a negative number")
        return self._checked(Pow(base, exponent))

    def _atom(self) -> Expr:
        word = self._take()
        if word.kind == "number":
            return Rational(str(Fraction(word.text)))
        if word.kind == "name":
            return self._symbols[word.text]
        if word.kind == "function":
            return self._function(word)
        if word.text in _CLOSING:
            inner = self._sum()
            self._expect(_CLOSING[word.text])
            return {"(": lambda x: x, "⌈": ceiling, "⌊": floor}[word.text](inner)
        self._words.insert(0, word)
        raise self._unexpected("a number, a symbol or (")

    def _function(self, word: Word) -> Expr:
        if self._next.text != "(" and word.text in BARE:
            self._deeper()
            arguments = [self._power()]
            self._depth -= 1
        else:
            self._expect("(")
            arguments = [self._sum()]
            while self._next.text == ",":
                self._take()
                arguments.append(self._sum())
            self._expect(")")
        if len(arguments) > _VALUES:
            raise self._refused(f"gives {word.text} {len(arguments)} values; {_VALUES} are the most")
        if word.text in ("min", "max"):
            return self._checked((Min if word.text == "min" else Max)(*arguments))
        if len(arguments) > 1:
            raise self._refused(f"gives {word.text} {len(arguments)} values; it takes one")
        (argument,) = arguments
        if word.text in ("log", "log2", "sqrt") and argument.is_number and not argument.is_positive:
            raise self._refused(f"takes {word.text} of {argument}, which is not above zero")
        made = {
            "log": log,
            "log2": lambda x: log(x, 2),
            "sqrt": sqrt,
            "ceil": ceiling,
            "floor": floor,
        }[word.text]
        return self._checked(made(argument))

    # Words

    @property
    def _next(self) -> Word:
        return self._words[0]

    def _take(self) -> Word:
        return self._words.pop(0) if len(self._words) > 1 else self._words[0]

    def _begins_atom(self) -> bool:
        return self._next.kind in ("number", "name", "function") or self._next.text in _CLOSING

    def _expect(self, sign: str) -> None:
        if self._next.text != sign:
            raise self._unexpected(sign)
        self._take()

    # What is refused

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEPTH:
            raise self._refused(f"is nested deeper than {_DEPTH} levels")

    def _checked(self, expression: Expr) -> Expr:
        """The expression, if it has a size that one can go on with."""
        if _terms(expression) > _TERMS:
            raise self._too_large()
        for number in expression.atoms(Rational):
            if max(abs(number.p), number.q).bit_length() > _BITS:
                raise self._too_large()
        return expression

    def _too_large(self) -> AttnprofError:
        return self._refused("is too large to be worked out")

    def _refused(self, why: str) -> AttnprofError:
        return AttnprofError(f"claim '{_cut(self.text)}' {why}.")

    def _unexpected(self, wanted: str) -> AttnprofError:
        found = self._next
        where = "it ends" if found.kind == "end" else f"{found.text!r} stands at character {found.at + 1}"
        example = "" if self.text else ": write one, such as O(N*d^2) or 6*s*d^2 + 4*s^2*d"
        return AttnprofError(f"claim '{_cut(self.text)}' does not parse: {where} where {wanted} should be{example}.")


def _terms(expression: Expr) -> int:
    """At least as many terms as there are when everything is multiplied out."""
    counts = [_terms(part) for part in expression.args]
    if expression.is_Add:
        return sum(counts)
    if expression.is_Pow and expression.exp.is_Integer:
        most = min(counts[0], _TERMS + 1)
        return int(most ** abs(int(expression.exp)))
    return prod(min(count, _TERMS + 1) for count in counts)


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
