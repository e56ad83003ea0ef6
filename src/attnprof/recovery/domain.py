"""The sizes that a symbol may have: any of a range, or those of a list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from attnprof.core.errors import AttnprofError
from attnprof.core.sizes import positive


@dataclass(frozen=True, slots=True)
class Domain:
    """What sizes of one symbol can be counted, in order. ``listed``: these were given one by one, and are all there is.

    Of a range any size is taken that helps; of a list only those in it.
    """

    name: str
    sizes: range | tuple[int, ...]

    @property
    def listed(self) -> bool:
        return not isinstance(self.sizes, range)

    @property
    def first(self) -> int:
        return self.sizes[0]

    @property
    def last(self) -> int:
        return self.sizes[-1]

    def __contains__(self, size: int) -> bool:
        return size in self.sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def __str__(self) -> str:
        """``T=128..8192``, ``T=128,256,512``, ``T=128..8192 in steps of 64``."""
        if not isinstance(self.sizes, range):
            return f"{self.name}={','.join(map(str, self.sizes))}"
        step = f" in steps of {self.sizes.step}" if self.sizes.step > 1 else ""
        return f"{self.name}={self.first}..{self.last}{step}"


def domain(name: str, sizes: Any) -> Domain:
    """A domain from what a user gives: a ``range``, of which any size may be counted, or sizes.

    Raises :class:`AttnprofError` for what is no size, and for one size alone.
    """
    if not isinstance(sizes, range) and (isinstance(sizes, str) or not isinstance(sizes, Iterable)):
        raise AttnprofError(
            f"{name} varies over a list of sizes or a range, as in {name}=[128, 256, 512], not {sizes!r}."
        )
    found: range | tuple[int, ...]
    if isinstance(sizes, range):
        found = sizes if sizes.step > 0 else sizes[::-1]
        ends: Iterable[int] = (found[0], found[-1]) if found else ()
    else:
        given = list(sizes)
        ends = given
        positive(**{f"{name}": size for size in given if type(size) is not int})
        found = tuple(sorted(set(given)))
    for size in ends:
        positive(**{name: size})
    if len(found) < 2:
        only = f"one size, {found[0]}" if found else "no size"
        raise AttnprofError(f"{name} has {only}: how a count grows with {name} takes several; fix what does not vary.")
    return Domain(name, found)
