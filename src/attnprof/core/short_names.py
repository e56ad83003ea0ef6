"""Short names for the mechanisms that people look for most, the same wherever one is named."""

from __future__ import annotations

_FULL = {
    "sdpa": "mha-sdpa",
    "window": "local-window",
    "synthesizer": "synthesizer-random",
    "conv": "depthwise-conv",
    "rnn": "diagonal-rnn",
}
SHORT_NAMES = tuple(_FULL)


def full_name(name: str) -> str:
    """The name of the mechanism that a name is short for; any other name as it is."""
    return _FULL.get(name, name)
