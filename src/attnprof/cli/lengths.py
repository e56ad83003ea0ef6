"""The lengths that ``attnprof compare`` was asked for: ``128,256,...,8192``."""

from __future__ import annotations

from attnprof.api.measuring import LONGEST
from attnprof.core.errors import AttnprofError

#: The most lengths of one comparison.
_MOST = 1000


def parse_lengths(text: str, option: str = "--seq") -> list[int]:
    """``128,256,...,1024`` as 128, 256, 512, 1024: by the ratio of the two before where that ends there, else by
    their difference. ``option`` is what messages call it.
    """
    found: list[int] = []
    words = [word.strip() for word in text.split(",")]
    for at, word in enumerate(words):
        if word in ("...", "…"):
            last = words[at + 1] if at + 1 < len(words) else ""
            if len(found) < 2 or not last.isdecimal():
                raise AttnprofError(
                    f"{option} '{text}': '...' stands between two numbers and a last: 128,256,...,8192."
                )
            found += _between(found[-2], found[-1], int(last), text, option)
        elif not word.isdecimal() or int(word) < 1:
            raise AttnprofError(f"{option} '{text}': each size must be a whole number above zero, not {word!r}.")
        else:
            found.append(int(word))
    if len(set(found)) > _MOST:
        raise AttnprofError(f"{option} '{text}': at most {_MOST} lengths are compared, not {len(set(found)):,}.")
    if max(found) > LONGEST:
        raise AttnprofError(f"{option} '{text}': a size can be at most {LONGEST}, not {max(found)}.")
    return sorted(set(found))


def _between(first: int, second: int, last: int, text: str, option: str) -> list[int]:
    """What comes after ``second`` and before ``last``."""
    if first < second < last:
        if second % first == 0:
            found, ratio = [second], second // first
            while found[-1] < last:
                found.append(found[-1] * ratio)
            if found[-1] == last:
                return found[1:-1]
        if (last - second) % (second - first) == 0:
            if (last - second) // (second - first) > _MOST:
                raise AttnprofError(f"{option} '{text}': at most {_MOST} lengths are compared; these are more.")
            return list(range(2 * second - first, last, second - first))
    raise AttnprofError(f"{option} '{text}': {first},{second},... does not come to {last}, by ratio or by difference.")
