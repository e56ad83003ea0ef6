"""What a study compares: mechanisms of the zoo, each with the symbols it is built from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from attnprof.core.errors import AttnprofError, closest
from attnprof.core.short_names import SHORT_NAMES, full_name

DEFAULT = ["mha", "mha-sdpa", "gqa", "linear", "performer", "local-window", "longformer", "orthogonal"]


@dataclass(frozen=True)
class Competitor:
    """A mechanism with the symbols it is built from; ``label`` is what the user called it."""

    label: str
    name: str
    symbols: Mapping[str, Any]


def symbols(where: str, texts: list[str]) -> dict[str, Any]:
    """``["w=256", "causal=true"]`` as a dict."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise AttnprofError(f"{where} '{text}': write NAME=VALUE, as in w=256.")
        found[name.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    """A whole number, another number, true, false, none or a word."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_names(
    texts: Iterable[str], sizes: Mapping[str, int], for_all: Mapping[str, Any], where: str = ""
) -> list[Competitor]:
    """The mechanisms named, each with the symbols that it has of those for all, and with its own.

    A name may carry symbols: ``performer:r=64``. ``where`` is what an error calls those for all: ``--symbol``.
    """
    from attnprof import zoo

    known = {*zoo.names(), *SHORT_NAMES}
    found: list[Competitor] = []
    used: set[str] = set()
    for text in texts:
        word, colon, rest = text.partition(":")
        if word not in known:
            raise AttnprofError(f"no mechanism {word!r}.{closest(word, known)} There are {', '.join(zoo.names())}.")
        name = full_name(word)
        own = symbols(text, rest.split(",")) if colon else {}
        takes = _takes(name, own)
        given = {s: v for s, v in {**sizes, **for_all}.items() if s in takes}
        used |= given.keys()
        _check_kinds(name, {**given, **own})
        label = f"{name}:{rest}" if colon else name
        if any(label == other.label for other in found):
            raise AttnprofError(f"{label} is named twice.")
        found.append(Competitor(label, name, {**given, **own}))
    for unused in for_all.keys() - used:
        called = f"{where} {unused}".strip()
        raise AttnprofError(f"{called}: none of {', '.join(c.name for c in found)} has a symbol {unused!r}.")
    return found


def _check_kinds(name: str, given: Mapping[str, Any]) -> None:
    """Switches are on or off and small constants are numbers; the modules check their sizes and words themselves."""
    from attnprof import zoo

    defaults = zoo.find(name).symbols
    for symbol, value in given.items():
        default = defaults.get(symbol)
        if isinstance(default, bool) and not isinstance(value, bool):
            raise AttnprofError(f"{symbol} of {name} is true or false, not {value!r}.")
        if isinstance(default, float) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise AttnprofError(f"{symbol} of {name} is a number, not {value!r}.")


def _takes(name: str, own: Mapping[str, Any]) -> set[str]:
    """The symbols that a mechanism is built from, and those of its parts where it passes them on."""
    from attnprof import zoo

    entry = zoo.find(name)
    found = set(entry.symbols)
    if entry.passes_on:
        defaults = {**zoo.find("transformer").symbols, **entry.symbols}
        found |= defaults.keys()
        for part in ("mixer", "ffn"):
            found |= zoo.find(str(own.get(part, defaults[part]))).symbols.keys()
    return found
