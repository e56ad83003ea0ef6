"""Sizes on the command line: ``--vary T=128..8192``, ``--at T=1M``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from attnprof.core.errors import AttnprofError, closest
from attnprof.core.units import factor

_GRAMMAR = "write NAME=FIRST..LAST, NAME=FIRST..LAST:STEP or NAME=SIZE,SIZE,..., such as T=128..8192"
#: The most sizes in a list, and the largest size: tensors of more elements cannot be.
_MOST, _LARGEST = 1000, 10**12


def parse_varied(texts: Iterable[str]) -> dict[str, Sequence[int]]:
    """``T=128..8192`` as a range of which any size may be counted, ``T=128,256`` as these sizes alone.

    ``T=128..8192:64`` has multiples of 64 above the first, and ``T=128,256,...,8192`` goes on by ratio or difference.
    Raises :class:`AttnprofError` for what does not parse, and for a name given twice.
    """
    found: dict[str, Sequence[int]] = {}
    for text in texts:
        name, equals, sizes = (part.strip() for part in text.partition("="))
        if not equals or not name.isidentifier() or not sizes:
            raise AttnprofError(f"--vary '{text}' does not parse: {_GRAMMAR}.")
        if name in found:
            raise AttnprofError(f"--vary '{text}': {name} varies already.")
        found[name] = _sizes(text, sizes)
    return found


def _sizes(text: str, sizes: str) -> Sequence[int]:
    words = [word.strip() for word in sizes.split(",")]
    if len(words) == 1 and (match := re.fullmatch(r"(.+?)\.\.([^:.]+)(?::(.+))?", words[0])):
        first, last = (size(f"--vary '{text}'", match[i]) for i in (1, 2))
        step = size(f"--vary '{text}'", match[3]) if match[3] else 1
        if last <= first:
            raise AttnprofError(f"--vary '{text}': a range goes up, and has more than one size.")
        return range(first, last + 1, step)
    found: list[int] = []
    for at, word in enumerate(words):
        if word in ("...", "…"):
            if len(found) < 2 or at + 2 != len(words):
                raise AttnprofError(f"--vary '{text}': '...' stands between two sizes and the last: 128,256,...,8192.")
            found += _between(text, found[-2], found[-1], size(f"--vary '{text}'", words[-1]))
        else:
            found.append(size(f"--vary '{text}'", word))
    if len(found) > _MOST:
        raise AttnprofError(f"--vary '{text}': at most {_MOST} sizes are listed, not {len(found):,}; a range has more.")
    return sorted(set(found))


def _between(text: str, first: int, second: int, last: int) -> list[int]:
    """What comes after ``second`` and before ``last``: by ratio where that ends there, else by difference."""
    if first < second < last:
        sizes = [second]
        while second % first == 0 and sizes[-1] < last:
            sizes.append(sizes[-1] * (second // first))
        if len(sizes) > 1 and sizes[-1] == last:
            return sizes[1:-1]
        if (last - second) % (second - first) == 0:
            return list(range(2 * second - first, last, second - first))[: _MOST + 1]
    raise AttnprofError(f"--vary '{text}': {first},{second},... does not come to {last}, by ratio or by difference.")


def parse_at(texts: Iterable[str]) -> list[dict[str, int]]:
    """``T=1M,B=8`` as sizes, one set for each text."""
    found = []
    for text in texts:
        sizes: dict[str, int] = {}
        for part in text.split(","):
            name, equals, value = (word.strip() for word in part.partition("="))
            if not equals or not name.isidentifier():
                raise AttnprofError(
                    f"--at '{text}' does not parse: write NAME=SIZE, with commas between, such as T=1M."
                )
            if name in sizes:
                raise AttnprofError(f"--at '{text}': {name} is given twice.")
            sizes[name] = size(f"--at '{text}'", value)
        found.append(sizes)
    return found


def complete(sizes: Mapping[str, int], usual: Mapping[str, int], varied: Iterable[str]) -> dict[str, int]:
    """Sizes of everything that varied: those given, else usual ones; raises for a name that did not vary."""
    names = list(varied)
    for name in sizes:
        if name not in names:
            raise AttnprofError(f"--at {name}={sizes[name]}: {name} does not vary.{closest(name, names)}")
    missing = [name for name in names if name not in sizes and name not in usual]
    if missing:
        raise AttnprofError(f"--at: {', '.join(missing)} varies too; give it a size, as in {missing[0]}=4096.")
    return {name: sizes.get(name, usual.get(name, 0)) for name in names}


def size(where: str, text: str) -> int:
    """``4096``, ``4k``, ``4Ki``, ``1M``: a whole number above zero."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", text.strip().replace("_", ""))
    times = factor({"K": "k", "m": "M"}.get(match[2], match[2])) if match else None
    if match is None or times is None:
        raise AttnprofError(f"{where}: a size is a whole number above zero, such as 4096, 4k, 4Ki or 1M, not {text!r}.")
    whole, _, part = match[1].partition(".")
    value, rest = divmod(int(whole + part) * times, int(10 ** len(part)))
    if rest or value < 1:
        raise AttnprofError(f"{where}: a size is a whole number above zero, such as 4096, 4k, 4Ki or 1M, not {text!r}.")
    if value > _LARGEST:
        raise AttnprofError(f"{where}: a size can be at most {_LARGEST:,}, not {value:,}.")
    return value


def around(value: int) -> range:
    """Sizes around a usual one, to see how a count depends on it: from a quarter of it to twice as much."""
    return range(max(1, value // 4), 2 * value + 1)
