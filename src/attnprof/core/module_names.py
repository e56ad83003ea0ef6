"""Dotted names of modules, many in one: ``h.[0-11].mlp`` are twelve, ``encoder.*`` all below the encoder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from functools import lru_cache
from itertools import product

_RANGES = re.compile(r"\[\d{1,6}(?:-\d{1,6})?(?:,\d{1,6}(?:-\d{1,6})?)*\]", re.ASCII)
#: More names than any model could have: a pattern of more is damage, not data.
_MOST = 1_000_000
#: Characters that no name has, to stand for something else for a while.
_PRIVATE = 0xE000


def fold(names: Iterable[str]) -> dict[str, int]:
    """Names that differ in numbers, as one, with how many it stands for; each name is in exactly one."""
    found = {tuple(_escaped(part) for part in name.split(".")): 1 for name in names}
    for position in reversed(range(max(map(len, found), default=0))):
        alike: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for parts in found:
            numbered = position < len(parts) and _is_number(parts[position])
            alike.setdefault((*parts[:position], "*", *parts[position + 1 :]) if numbered else parts, []).append(parts)
        merged: dict[tuple[str, ...], int] = {}
        for group in alike.values():
            first = group[0]
            if len(group) > 1:
                first = (*first[:position], _ranges(int(p[position]) for p in group), *first[position + 1 :])
            merged[first] = sum(found[parts] for parts in group)
        found = merged
    return {".".join(parts): count for parts, count in found.items()}


def unfold(text: str) -> list[str]:
    """The names that :func:`fold` made one of; raises ``ValueError`` for a range that is none."""
    choices = [list(_numbers(part)) if _RANGES.fullmatch(part) else [_plain(part)] for part in text.split(".")]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > _MOST:
        raise ValueError(f"{text!r} stands for {total} modules")
    return [".".join(parts) for parts in product(*choices)]


def matches(pattern: str, name: str) -> bool:
    """Whether a name is of a pattern: ``*`` is anything, dots too, ``[0-11]`` a number from 0 to 11."""
    return _expression(pattern).fullmatch(name) is not None


@lru_cache
def _expression(pattern: str) -> re.Pattern[str]:
    parts = pattern.split(".")
    ranges = {chr(_PRIVATE + i): part for i, part in enumerate(parts) if _RANGES.fullmatch(part)}
    marks = {part: mark for mark, part in ranges.items()}
    text = translate(".".join(marks.get(part, part) for part in parts))
    for mark, part in ranges.items():
        text = text.replace(mark, f"(?:{'|'.join(_numbers(part))})")
    return re.compile(text)


def _is_number(part: str) -> bool:
    return part.isdecimal() and part.isascii() and part == str(int(part)) and len(part) <= 6


def _escaped(part: str) -> str:
    """A part of a name that looks like a range, which a key of a ``ModuleDict`` may, is marked as none."""
    return f"\\{part}" if part.startswith(("[", "\\", "*")) else part


def _plain(part: str) -> str:
    return part.removeprefix("\\")


def _ranges(numbers: Iterable[int]) -> str:
    """``[0-4,6]`` for 0, 1, 2, 3, 4 and 6."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return f"[{','.join(str(run[0]) if len(run) == 1 else f'{run[0]}-{run[-1]}' for run in runs)}]"


def _numbers(part: str) -> Iterator[str]:
    for run in part[1:-1].split(","):
        first, _, last = run.partition("-")
        if int(last or first) < int(first):
            raise ValueError(f"{part!r} runs backwards")
        yield from map(str, range(int(first), int(last or first) + 1))
