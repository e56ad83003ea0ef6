"""Small random sizes for each mechanism of the zoo: what its module is built from and called with."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

Symbols = dict[str, Any]


def sequence(at: Random) -> Symbols:
    return {"B": at.randint(1, 3), "T": at.randint(1, 9), "d": at.randint(1, 12)}


def long_sequence(at: Random) -> Symbols:
    return {**sequence(at), "T": at.randint(1, 40)}


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


def windowed(at: Random) -> Symbols:
    return {**causal_or_not(at), "T": at.randint(1, 14), "w": at.randint(1, 6)}


def whole(sizes: Symbols, part: str) -> Symbols:
    """T rounded up to a multiple of a part."""
    return {**sizes, "T": -(-sizes["T"] // sizes[part]) * sizes[part]}


def synthesized(at: Random) -> Symbols:
    sizes = causal_or_not(at)
    return {**sizes, "N": sizes["T"] + at.randint(0, 3)}


def convolved(at: Random) -> Symbols:
    causal = at.random() < 0.5
    return {**sequence(at), "k": at.randint(1, 12) if causal else at.choice([1, 3, 5, 9]), "causal": causal}


def latent(at: Random) -> Symbols:
    widths = {"dr": 2 * at.randint(1, 3), "dc": at.randint(1, 6), "dq": at.choice([None, 1, 5])}
    return {**heads(at), **widths}


def step(at: Random) -> Symbols:
    """T new tokens of S."""
    T = at.choice([1, 1, 3])
    return {"T": T, "S": T + at.randint(0, 6)}


def routed(at: Random) -> Symbols:
    E = at.randint(1, 5)
    return {**sequence(at), "f": at.randint(1, 9), "E": E, "k": at.randint(1, E)}


def decoding(at: Random) -> Symbols:
    """Hkv given or not."""
    sizes = heads(at)
    if at.random() < 0.5:
        sizes["Hkv"] = at.choice([n for n in range(1, sizes["H"] + 1) if sizes["H"] % n == 0])
    return {**sizes, "T": at.randint(1, 6)}


def layered(at: Random) -> Symbols:
    """A transformer of some mixer, network and checkpoint, with their symbols."""
    mixers: Symbols = {
        "mha": {"causal": at.random() < 0.5},
        "gqa-sdpa": {"H": 4, "Hkv": 2},
        "linear": {},
        "topk": {"k": 3},
        "diagonal-rnn-hillis-steele": {},
    }
    networks: Symbols = {
        "ffn": {"activation": at.choice(["relu", "gelu"])},
        "swiglu": {"f": at.randint(1, 9)},
        "moe": {"E": 3, "k": 2, "f": 5},
    }
    mixer, ffn = at.choice(sorted(mixers)), at.choice(sorted(networks))
    own = {"B": at.randint(1, 2), "T": at.randint(1, 9), "d": 8, "L": at.randint(1, 3), "mixer": mixer, "ffn": ffn}
    H = {} if mixer.startswith("diagonal") else {"H": 4}
    return {**own, **H, **mixers[mixer], **networks[ffn], "checkpoint": at.choice([None, "reentrant", "non-reentrant"])}


def language(at: Random) -> Symbols:
    sizes = {**layered(at), "V": at.randint(2, 20), "tied": at.random() < 0.5}
    return {**sizes, "N": sizes["T"] + at.randint(0, 3)}


#: Name -> how to draw sizes for it.
DRAWN: dict[str, Callable[[Random], Symbols]] = {
    "block-window": lambda at: whole(windowed(at), "w"),
    "clustered": lambda at: whole({**heads(at), "C": at.randint(1, 5)}, "C"),
    "cross-attention": lambda at: {**heads(at), "S": at.randint(1, 9)},
    "decode-attention": lambda at: {**decoding(at), **step(at)},
    "decode-cached": lambda at: {**decoding(at), "L": at.randint(1, 3)},
    "decode-layer": lambda at: {**decoding(at), **step(at), "f": at.choice([None, 5])},
    "decode-naive": lambda at: {**decoding(at), "L": at.randint(1, 3), "f": at.choice([None, 5])},
    "depthwise-conv": convolved,
    "depthwise-conv-im2col": convolved,
    "diagonal-rnn": long_sequence,
    "diagonal-rnn-brent-kung": long_sequence,
    "diagonal-rnn-hillis-steele": long_sequence,
    "dilated-window": lambda at: {**windowed(at), "dilation": at.randint(1, 3)},
    "efficient-attention": heads,
    "ffn": lambda at: {**feedforward(at), "activation": at.choice(["relu", "gelu"])},
    "flash": lambda at: {**causal_or_not(at), "Br": at.randint(1, 5), "Bc": at.randint(1, 5)},
    "gqa": grouped,
    "gqa-sdpa": grouped,
    "hybrid": windowed,
    "lm": language,
    "linear": heads,
    "linear-causal": lambda at: {**heads(at), "chunk": at.randint(1, 6)},
    "local-atrous": lambda at: {**causal_or_not(at), "T": at.randint(1, 14), "k": at.randint(1, 5)},
    "local-window": windowed,
    "longformer": lambda at: {**windowed(at), "g": at.randint(1, 4)},
    "mha": causal_or_not,
    "mha-no-output": causal_or_not,
    "mha-sdpa": causal_or_not,
    "mla": lambda at: {**latent(at), "causal": at.random() < 0.5},
    "mla-decode": lambda at: {**latent(at), **step(at)},
    "moe": lambda at: {**routed(at), "activation": at.choice(["relu", "gelu"])},
    "mqa": causal_or_not,
    "orthogonal": causal_or_not,
    "orthogonal-sdpa": causal_or_not,
    "performer": lambda at: {**heads(at), "r": at.randint(1, 9)},
    "sliding-window": windowed,
    "swiglu": feedforward,
    "synthesizer-dense": synthesized,
    "synthesizer-random": lambda at: {**synthesized(at), "trainable": at.random() < 0.6},
    "topk": lambda at: {**causal_or_not(at), "k": at.randint(1, 12)},
    "transformer": layered,
}
