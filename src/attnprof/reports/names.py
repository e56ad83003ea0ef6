"""Lists of modules in few words: numbered ones folded, the rest counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from attnprof.reports.text import printable

#: Names (folded) that a sentence lists before it counts the rest.
_LISTED = 3


def called(fqn: str, model: str) -> str:
    """A module in a sentence: its dotted name (``Sequential.0`` where that is but a number), or the model's class."""
    if not fqn or not model:
        return fqn or model
    return f"{model}.{fqn}" if _is_number(fqn.split(".")[0]) else fqn


def folded(names: Iterable[str]) -> dict[str, int]:
    """``h.[0-11].attn.q`` for twelve names that differ in a number, with how many names it stands for.

    ``[0,2]`` are a few numbers with gaps, ``*`` many, or such as do not combine in every way.
    """
    groups: dict[tuple[str, ...], list[tuple[int, ...]]] = {}
    for name in names:
        parts = name.split(".")
        numbers = tuple(int(part) for part in parts if _is_number(part))
        groups.setdefault(tuple("*" if _is_number(part) else part for part in parts), []).append(numbers)
    return {_pattern(parts, numbers): len(numbers) for parts, numbers in groups.items()}


def listed(names: Sequence[str]) -> str:
    """``h.[0-11].attn.q, h.[0-11].attn.k, lm_head and 4 more modules``."""
    found = folded(names)
    shown = list(found)[:_LISTED]
    rest = sum(found.values()) - sum(found[name] for name in shown)
    more = f" and {rest} more {'module' if rest == 1 else 'modules'}" if rest else ""
    return printable(", ".join(shown) + more)


def place(names: Sequence[str]) -> str:
    """Where all these modules are: the list, or for a long one the beginning that the names share, if any."""
    parts = [name.split(".") for name in folded(names)]
    if len(parts) <= _LISTED:
        return listed(names)
    shared: list[str] = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return printable(".".join(shared)) or listed(names)


def _is_number(part: str) -> bool:
    return part.isdecimal() and part == str(int(part))


def _pattern(parts: tuple[str, ...], numbers: Sequence[tuple[int, ...]]) -> str:
    columns = [sorted(set(column)) for column in zip(*numbers, strict=True)]
    complete = len(set(numbers)) == prod(map(len, columns))
    texts = iter([_range(column, complete) for column in columns])
    return ".".join(next(texts) if part == "*" else part for part in parts)


def _range(values: Sequence[int], complete: bool) -> str:
    if len(values) == 1:
        return str(values[0])
    if complete and values[-1] - values[0] == len(values) - 1:
        return f"[{values[0]}-{values[-1]}]"
    return f"[{','.join(map(str, values))}]" if complete and len(values) <= _LISTED else "*"
