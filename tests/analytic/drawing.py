"""Small random sizes for each mechanism of the zoo: what its module is built from and called with."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

Symbols = dict[str, Any]


def sequence(at: Random) -> Symbols:
    return {"B": at.randint(1, 3), "T": at.randint(1, 9), "d": at.randint(1, 12)}


def heads(at: Random) -> Symbols:
    """Heads of a width of their own, or of d / H."""
    H = at.randint(1, 4)
    sizes = {**sequence(at), "H": H}
    return {**sizes, "d": H * at.randint(1, 4)} if at.random() < 0.5 else {**sizes, "dh": at.randint(1, 5)}


def causal_or_not(at: Random) -> Symbols:
    return {**heads(at), "causal": at.random() < 0.5}


def grouped(at: Random) -> Symbols:
    Hkv = at.randint(1, 3)
    H = Hkv * at.randint(1, 3)
    return {**causal_or_not(at), "H": H, "Hkv": Hkv, "d": 12, "dh": at.choice([None, 3]) if 12 % H == 0 else 3}


def feedforward(at: Random) -> Symbols:
    return {**sequence(at), "f": at.randint(1, 20), "bias": at.random() < 0.5}


#: Name -> how to draw sizes for it.
DRAWN: dict[str, Callable[[Random], Symbols]] = {
    "cross-attention": lambda at: {**heads(at), "S": at.randint(1, 9)},
    "ffn": lambda at: {**feedforward(at), "activation": at.choice(["relu", "gelu"])},
    "gqa": grouped,
    "gqa-sdpa": grouped,
    "mha": causal_or_not,
    "mha-no-output": causal_or_not,
    "mha-sdpa": causal_or_not,
    "mqa": causal_or_not,
    "swiglu": feedforward,
}
