"""Plain values out of a file, each checked for being what it must be: a file may be damaged, or somebody else's."""

from __future__ import annotations

from typing import Any

#: Counts and bytes at or above this are damage, not data.
LIMIT = 2**63


def as_int(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def as_count(value: Any) -> int:
    """A whole number that is not negative."""
    if as_int(value) < 0:
        raise ValueError(f"{value} is negative")
    if value >= LIMIT:
        raise ValueError("a number is too large")
    return int(value)


def as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def as_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is not true or false")
    return value


def as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


def as_dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value


def as_ints(value: Any) -> list[int]:
    found = as_list(value)
    if set(map(type, found)) <= {int}:  # a log may have a million
        return found
    return [as_int(item) for item in found]


def as_counts(value: Any) -> list[int]:
    found = as_ints(value)
    if not found or (min(found) >= 0 and max(found) < LIMIT):
        return found
    return [as_count(item) for item in found]


def as_texts(value: Any) -> tuple[str, ...]:
    return tuple(as_text(item) for item in as_list(value))
