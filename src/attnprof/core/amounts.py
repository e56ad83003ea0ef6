"""Amounts as people write them in a budget: ``"4.2 GFLOP"``, ``"120 MB"``, ``"1%"``. Read strictly, and exactly.

An amount is a number and a unit, and a whole number of FLOPs or bytes. What is not one is refused with the
grammar, so that a limit never means something else than it says.
"""

from __future__ import annotations

import re
from fractions import Fraction

from attnprof.core.errors import AttnprofError
from attnprof.core.units import factor

_NUMBER = r"(?P<number>\d+(?:_\d+)*(?:\.\d+)?)"
_AMOUNT = re.compile(rf"{_NUMBER} ?(?P<prefix>[A-Za-z]*?)(?P<unit>FLOPs?|MACs?|B)", re.ASCII)
_PERCENT = re.compile(rf"{_NUMBER} ?%", re.ASCII)
#: What people write for a unit, in any case and with spaces before the unit.
_NEARLY = re.compile(rf"{_NUMBER} *(?P<prefix>[kmgtpez]?i?) *(?P<unit>flop|mac|b|byte)s?", re.ASCII | re.IGNORECASE)
_PREFIXES = {"flops": ("", *"kMGTPEZ"), "bytes": ("", *"kMGTPE", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")}
_GRAMMAR = {
    "flops": 'NUMBER UNIT, the unit FLOP or MAC (2 FLOP) with k, M, G, T, P, E or Z before it: "4.2 GFLOP", "310 MMAC"',
    "bytes": 'NUMBER UNIT, the unit B with k, M, G, T, P, E or Ki, Mi, Gi, Ti, Pi, Ei before it: "120 MB", "1.5 GiB"',
}


class Amount(int):
    """A whole number of FLOPs or bytes that remembers how it was written."""

    kind: str
    text: str

    def __new__(cls, value: int, kind: str, text: str) -> Amount:
        made = super().__new__(cls, value)
        made.kind, made.text = kind, text
        return made

    def __repr__(self) -> str:
        return f"{self.kind}({self.text!r})"

    def __str__(self) -> str:
        return int.__repr__(self)

    def __reduce__(self) -> tuple[type[Amount], tuple[int, str, str]]:
        return Amount, (int(self), self.kind, self.text)


def flops(amount: str | int) -> int:
    """So many FLOPs: ``flops("4.2 GFLOP") == 4_200_000_000``; a MAC is 2. An int is taken as it is.

    Raises :class:`AttnprofError`, with the grammar, for anything else.
    """
    return _read(amount, "flops")


def bytes(amount: str | int) -> int:
    """So many bytes: ``bytes("1 GiB") == 2**30``, ``bytes("1 GB") == 10**9``. An int is taken as it is.

    Raises :class:`AttnprofError`, with the grammar, for anything else.
    """
    return _read(amount, "bytes")


def read(amount: str | int, kind: str) -> int:
    """An amount of a kind: ``flops``, ``bytes``, or ``count``, which is an int."""
    if kind != "count":
        return _read(amount, kind)
    if isinstance(amount, bool) or not isinstance(amount, int) or amount < 0:
        raise AttnprofError(f"a count is a whole number, 0 or more, not {amount!r}.")
    return amount


def tolerance(text: str | int | float) -> Fraction:
    """A tolerance as a fraction: ``"1%"`` is 1/100; 0 is none.

    Raises :class:`AttnprofError` for a number that is not a percentage.
    """
    if not isinstance(text, str):
        if text == 0 and not isinstance(text, bool):
            return Fraction(0)
    elif text.strip() == "0":
        return Fraction(0)
    elif found := _PERCENT.fullmatch(text.strip()):
        return Fraction(found["number"].replace("_", "")) / 100
    raise AttnprofError(f'tolerance {text!r} is no percentage: write "1%", "0.5%" or "0".')


def _read(amount: str | int, kind: str) -> int:
    if isinstance(amount, int) and not isinstance(amount, bool):
        if isinstance(amount, Amount) and amount.kind != kind:
            raise _refused(amount.text, kind, f" It is an amount of {amount.kind}.")
        if amount < 0:
            raise _refused(amount, kind)
        return amount
    if not isinstance(amount, str):
        hint = f" A float is not exact: write {int(amount)} if that is meant." if _is_whole(amount) else ""
        raise _refused(amount, kind, hint)
    text = amount.strip()
    found = _AMOUNT.fullmatch(text)
    if found is None or (found["unit"] == "B") != (kind == "bytes"):
        raise _refused(amount, kind, _hint(text, kind))
    scale = factor(found["prefix"])
    if scale is None or found["prefix"] not in _PREFIXES[kind]:
        raise _refused(amount, kind, f' There is no prefix "{found["prefix"]}"{_prefix_hint(found["prefix"], kind)}.')
    value = Fraction(found["number"].replace("_", "")) * scale * (2 if found["unit"].startswith("MAC") else 1)
    if value.denominator != 1:
        raise _refused(amount, kind, f" It is no whole number of {kind}.")
    return Amount(int(value), kind, text)


def _refused(amount: object, kind: str, hint: str = "") -> AttnprofError:
    return AttnprofError(f"{amount!r} is no amount of {kind}: {_GRAMMAR[kind]}; or a whole number.{hint}")


def _is_whole(amount: object) -> bool:
    return isinstance(amount, float) and amount.is_integer()


def _hint(text: str, kind: str) -> str:
    """What a common mistake is, if it is one."""
    if kind == "flops" and re.search(r"FLOPS|/s", text):
        return " FLOPS and FLOP/s are a rate; a budget is a count: FLOP."
    if kind == "bytes" and re.fullmatch(r".*\d ?[kKMGTPE]?b", text):
        return " A small b is a bit; bytes are B."
    if re.fullmatch(_NUMBER, text):
        return " It has no unit."
    if re.match(r"[\d.]+,\d", text):
        return " Digits are grouped with _ and fractions have a point."
    if nearly := _NEARLY.fullmatch(text):
        return _meant(nearly, kind)
    return ""


def _meant(nearly: re.Match[str], kind: str) -> str:
    """The right spelling of what is nearly one."""
    prefix, unit = nearly["prefix"].upper().replace("I", "i"), nearly["unit"].upper()
    prefix = "k" if prefix == "K" else prefix
    unit = "B" if unit == "BYTE" else unit
    if (unit == "B") != (kind == "bytes"):
        return f" {unit} is a unit of {'bytes' if unit == 'B' else 'flops'}."
    return f' Did you mean "{nearly["number"]} {prefix}{unit}"?' if prefix in _PREFIXES[kind] else ""


def _prefix_hint(prefix: str, kind: str) -> str:
    if prefix == "K":
        return ": write k for 1000" + (" or Ki for 1024" if kind == "bytes" else "")
    if kind == "flops" and prefix.endswith("i"):
        return ": FLOPs have decimal prefixes"
    return f", though there is {prefix.upper()}" if prefix.islower() and factor(prefix.upper()) else ""
