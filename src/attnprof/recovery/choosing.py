"""Sizes of a domain that points are chosen from."""

from __future__ import annotations

from collections.abc import Sequence

from attnprof.recovery.domain import Domain

#: Sizes of a domain that are looked at when points are chosen.
_LOOKED_AT = 4096
#: Sizes that are tried in a row for one that the rules allow.
TRIED = 512


def large(domains: Sequence[Domain]) -> list[tuple[int, ...]]:
    """Points of sizes in the middle of their ranges and at the end, multiples of 12 where there are any."""
    found = []
    for part in (0.5, 1.0, 0.75):
        ends = [domain.sizes[: max(1, round(len(domain) ** part))] for domain in domains]
        near = [[size for size in sizes[-12:] if size % 12 == 0] or [sizes[-1]] for sizes in ends]
        found.append(tuple(sizes[-1] for sizes in near))
    return found


def middle_first(sizes: Sequence[int]) -> list[int]:
    """The sizes in the middle, nearest first, as far as they are tried."""
    middle = len(sizes) // 2
    near = sizes[max(middle - TRIED // 2, 0) : middle + TRIED // 2]
    return sorted(near, key=lambda size: abs(size - sizes[middle]))


def with_divisors(domain: Domain, nth: int) -> list[int]:
    """Sizes in order of preference: multiples of 12, small ones first; of a small range those of 6, 4, 2.

    ``nth``: how many anchors there are; the second is looked for from the middle on.
    """
    pool = [size for size in looked_at(domain) if size > 1] or list(domain.sizes)
    if nth:
        pool = [size for size in pool if size**2 >= pool[0] * pool[-1]]
    bases = (6, 4, 12, 2, 1) if pool[0] <= 6 else (12, 6, 4, 2, 1)
    ranked: dict[int, None] = {}
    for base in bases:
        for size in [size for size in pool if size % base == 0][:4]:
            ranked[size] = None
    return list(ranked)


def looked_at(domain: Domain) -> list[int]:
    """All sizes of a domain, or of a large one those at its start and others ever further apart, up to its end."""
    sizes = domain.sizes
    if len(sizes) <= _LOOKED_AT:
        return list(sizes)
    dense = _LOOKED_AT // 2
    ratio = (len(sizes) / dense) ** (1 / dense)
    indices = {*range(dense), *(min(int(dense * ratio**i), len(sizes) - 1) for i in range(dense + 1)), len(sizes) - 1}
    return [sizes[i] for i in sorted(indices)]
