"""Short names for the mechanisms that people look for most, the same wherever one is named."""

from __future__ import annotations

from attnprof.core.errors import AttnprofError

_FULL = {
    "sdpa": "mha-sdpa",
    "window": "local-window",
    "synthesizer": "synthesizer-random",
    "conv": "depthwise-conv",
    "rnn": "diagonal-rnn",
}
SHORT_NAMES = tuple(_FULL)


def full_name(name: str) -> str:
    """The name of the mechanism that a name is short for; any other name as it is.

    Raises :class:`AttnprofError` for what is no name at all.
    """
    if not isinstance(name, str) or not name:
        raise AttnprofError(f'a mechanism is a name such as "gqa", not {name!r}.')
    return _FULL.get(name, name)
