"""The modules of the zoo: each has a closed form of its own name, and keeps the symbols it was built from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

from attnprof.analytic.binding import Given, Recorded, UnpredictableError, binds
from attnprof.analytic.prediction import Prediction
from attnprof.analytic.registry import Formula, find, names, predict
from attnprof.core.tensor import width

#: File of the zoo -> class -> name of the mechanism.
_ZOO = {
    "attention": {
        "MultiHeadAttention": "mha",
        "FusedAttention": "mha-sdpa",
        "AttentionWithoutOutput": "mha-no-output",
        "GroupedQueryAttention": "gqa",
        "FusedGroupedQueryAttention": "gqa-sdpa",
        "MultiQueryAttention": "mqa",
        "CrossAttention": "cross-attention",
    },
    "convolution": {
        "DepthwiseConv": "depthwise-conv",
        "DepthwiseConvIm2col": "depthwise-conv-im2col",
    },
    "decoding": {
        "CachedAttention": "decode-attention",
        "DecoderLayer": "decode-layer",
        "NaiveDecoding": "decode-naive",
        "CachedDecoding": "decode-cached",
    },
    "experts": {
        "MixtureOfExperts": "moe",
    },
    "feedforward": {
        "FeedForward": "ffn",
        "SwiGLU": "swiglu",
    },
    "flash": {
        "TiledAttention": "flash",
    },
    "hybrid": {
        "SparseLinearHybrid": "hybrid",
    },
    "latent": {
        "MultiHeadLatentAttention": "mla",
        "LatentDecoding": "mla-decode",
    },
    "linear": {
        "LinearAttention": "linear",
        "CausalLinearAttention": "linear-causal",
        "EfficientAttention": "efficient-attention",
    },
    "longformer": {
        "Longformer": "longformer",
    },
    "orthogonal": {
        "OrthogonalRandomAttention": "orthogonal",
        "FusedOrthogonalRandomAttention": "orthogonal-sdpa",
    },
    "performer": {
        "Performer": "performer",
    },
    "recurrent": {
        "DiagonalRNN": "diagonal-rnn",
        "DiagonalRNNHillisSteele": "diagonal-rnn-hillis-steele",
        "DiagonalRNNBrentKung": "diagonal-rnn-brent-kung",
    },
    "sparse": {
        "LocalAtrous": "local-atrous",
        "TopKAttention": "topk",
        "ClusteredAttention": "clustered",
    },
    "synthesizer": {
        "RandomSynthesizer": "synthesizer-random",
        "DenseSynthesizer": "synthesizer-dense",
    },
    "transformer": {
        "Transformer": "transformer",
        "LanguageModel": "lm",
    },
    "windows": {
        "LocalWindow": "local-window",
        "DilatedWindow": "dilated-window",
        "SlidingWindow": "sliding-window",
        "BlockWindow": "block-window",
    },
}
#: What does the same to every token: their batch may have any dimensions, or none.
_BY_TOKEN = ("ffn", "swiglu", "moe")


def mechanism(module: Recorded, call: Given) -> Prediction | None:
    """Its closed form, with the symbols that the module keeps and those of its input."""
    name = _NAMES[module.home, module.class_name]
    if name not in names():
        return None
    symbols = {**_kept(module, find(name)), **_of_input(find(name), call)}
    if call.stopped and ("L" in symbols or name.startswith("decode-")):  # one of many layers, or of many steps
        raise UnpredictableError("its recomputation stopped in one of its layers")
    # Reentrant checkpoints make an input that needs no gradient one that does.
    input_grad = symbols.get("checkpoint") == "reentrant" or _input_grad(name, call)
    whole = predict(name, input_grad=input_grad, stopped=call.stopped, **symbols)
    if module.idle:
        whole = _of_some_experts(whole)
    if all(parameter.trainable for parameter in module.parameters.values()):
        return whole
    every = predict(name, input_grad=input_grad, **symbols) if call.stopped else whole
    weights = [t.name for t in every.terms if t.quantity == "parameters"]
    covered = {p.ident for weight in weights for p in module.of_part(weight)}
    if any(not p.trainable and p.ident not in covered for p in module.parameters.values()):
        return None  # a formula of many layers cannot tell theirs apart
    frozen = [weight for weight in weights if not _trained(module, weight)]
    found = predict(name, frozen=frozen, input_grad=input_grad, stopped=call.stopped, **symbols)
    return _of_some_experts(found) if module.idle else found


def _of_some_experts(found: Prediction) -> Prediction:
    """Without what holds where every expert has a token: the sums of gradients of biases, and all that is moved."""
    stated = found.of("matmul", "vector")
    terms = tuple(t for t in stated.terms if t.quantity != "vector_flops" or t.phase == "forward")
    return replace(stated, terms=terms, complete=stated.complete - {("vector", "backward")})


_NAMES = {
    (f"attnprof.zoo.{file}", class_name): name for file, classes in _ZOO.items() for class_name, name in classes.items()
}
for _home, _class_name in _NAMES:
    binds(_home, _class_name)(mechanism)


def _kept(module: Recorded, formula: Formula) -> dict[str, Any]:
    """The symbols among the hyperparameters, of the module and of the parts it passes symbols on to."""
    found: dict[str, Any] = {}
    for entry, kept in _entries(module, formula):
        for symbol in entry.symbols:
            if symbol in kept and symbol not in found:
                found[symbol] = kept[symbol]
        if "bias" in entry.options and "bias" not in found:
            part = "blocks.0.ffn." if entry is not formula else ""
            found["bias"] = any(part in name and name.endswith("bias") for name in module.parameters)
    return found


def _entries(module: Recorded, formula: Formula) -> Iterator[tuple[Formula, Mapping[str, object]]]:
    yield formula, module.hyperparameters
    if not formula.passes_on:
        return
    for name, kept in module.parts.items():
        if name == "transformer":
            yield find("transformer"), kept
            for role in ("mixer", "ffn"):
                yield find(str(kept[role])), module.parts[f"transformer.blocks.0.{role}"]
        elif name == "blocks.0":
            for role in ("mixer", "ffn"):
                yield find(str(module.hyperparameters[role])), module.parts[f"blocks.0.{role}"]


def _of_input(formula: Formula, call: Given) -> dict[str, int]:
    """B, T and S, and the bytes of an element."""
    x = call.input(0)
    if formula.name == "lm":
        B, T = x.shape
    elif formula.name in _BY_TOKEN:
        B, T = prod(x.shape[:-2]), x.shape[-2]
    elif len(x.shape) == 3:
        B, T = x.shape[:2]
    else:
        raise UnpredictableError("its input is no batch of sequences")
    found = {"B": B, "T": T, "e": width((call.output or x).dtype)}
    if "S" in formula.sizes:
        other = call.find(1)
        if formula.name == "cross-attention":
            found["S"] = call.input(1, "memory").shape[1]
        elif other is not None:
            found["S"] = other.shape[1] + T
        else:
            found["S"] = T + (call.inside[0].shape[-2] if call.inside else 0)
    return found


def _input_grad(name: str, call: Given) -> bool | list[str]:
    """Which inputs need a gradient, by the names that formulas give them."""
    flags = [given.needs_grad for given in call.inputs]
    cached = any(given.needs_grad for given in call.inside)
    if len(flags) == 1 and not call.inside:
        return flags[0]
    second = "memory" if name == "cross-attention" else "kv_cache"
    return [name for name, needed in (("x", flags[0]), (second, cached or any(flags[1:]))) if needed]


def _trained(module: Recorded, weight: str) -> bool:
    """Whether a weight of the formula is trained: its matrix, or what there is where it has none."""
    matrices = any(len(p.shape) > 1 for p in module.of_part(weight))
    return module.trains_weight(weight) if matrices else module.trains(weight)
