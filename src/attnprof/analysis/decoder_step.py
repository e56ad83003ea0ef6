"""One step of a decoder: what its kinds of work compute, and what they have to move."""
# ruff: noqa: N803 (the symbols are those of formulas)

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attnprof.analysis.decoder import Decoder, Matrix

#: The part that no weight takes part in.
ATTENTION = "attention"


@dataclass(frozen=True, slots=True)
class Part:
    """What one kind of work in a step computes and moves.

    ``flops`` are matmul FLOPs, of which ``useful_flops`` are outside masks. ``weight_bytes``: its parameters, each
    once. ``cache_read_bytes``: keys and values of earlier tokens, once; ``cache_write_bytes``: those of the new
    ones. ``activation_bytes``: what goes into and out of layers, and can stay on chip.
    """

    name: str
    flops: int = 0
    useful_flops: int = 0
    weight_bytes: int = 0
    cache_read_bytes: int = 0
    cache_write_bytes: int = 0
    activation_bytes: int = 0

    @property
    def cache_bytes(self) -> int:
        return self.cache_read_bytes + self.cache_write_bytes

    @property
    def bytes(self) -> int:
        """What has to move, however well kernels are fused: weights and cache."""
        return self.weight_bytes + self.cache_bytes

    def __add__(self, other: Part) -> Part:
        return Part(
            self.name,
            self.flops + other.flops,
            self.useful_flops + other.useful_flops,
            self.weight_bytes + other.weight_bytes,
            self.cache_read_bytes + other.cache_read_bytes,
            self.cache_write_bytes + other.cache_write_bytes,
            self.activation_bytes + other.activation_bytes,
        )

    def __mul__(self, times: int) -> Part:
        return Part(
            self.name,
            self.flops * times,
            self.useful_flops * times,
            self.weight_bytes * times,
            self.cache_read_bytes * times,
            self.cache_write_bytes * times,
            self.activation_bytes * times,
        )


def total(parts: Iterable[Part], name: str = "step") -> Part:
    """The sum of parts, under one name."""
    found = Part(name)
    for part in parts:
        found = found + part
    return found


def parts(model: Decoder, B: int, T: int, S: int, item_bytes: int) -> tuple[Part, ...]:
    """What a step of B sequences consists of: T new tokens of each, S of each in the cache after it.

    Every weight is read once, every cached key and value too, and the new ones are written. Activations are the
    input and output of each layer, the rows looked up in the embedding, and the logits, of the last token alone.
    Experts are met evenly. Layers of one kind are one part each.
    """
    rows = B * T
    stream = rows * model.d * item_bytes  # what goes from layer to layer
    positions = 0 if model.positions is None else T * model.d * item_bytes
    found = [Part("embedding", weight_bytes=positions, activation_bytes=2 * stream)]
    for count, layer in model.layers:
        vectors = Part("projections", weight_bytes=layer.vectors * item_bytes, activation_bytes=stream)
        keys, token = layer.keys(T, S), layer.cached_numbers * item_bytes
        per_pair = 4 * B * layer.heads * layer.head_dim
        attention = Part(
            ATTENTION,
            per_pair * T * keys,
            per_pair * layer.useful_pairs(T, S),
            cache_read_bytes=B * (keys - T) * token,
            cache_write_bytes=rows * token,
        )
        in_layer = [_through("projections", layer.projections, rows, item_bytes) + vectors, attention]
        if layer.feed_forward:
            in_layer.append(_through("feed-forward", layer.feed_forward, rows, item_bytes))
        if layer.routed:
            in_layer.append(_through("experts", layer.routed, rows, item_bytes))
        in_layer[-1] += Part("output", activation_bytes=stream)
        found += [part * count for part in in_layer]
    ends = Part("head", weight_bytes=model.vectors * item_bytes, activation_bytes=B * model.d * item_bytes)
    logits = Part("head", activation_bytes=B * model.vocabulary * item_bytes)
    found.append(_through("head", (model.head,), B, item_bytes) + ends + logits)
    return tuple(found)


def _through(name: str, matrices: tuple[Matrix, ...], rows: int, item_bytes: int) -> Part:
    """So many rows through matrices."""
    flops = sum(matrix.flops(rows) for matrix in matrices)
    return Part(name, flops, flops, sum(matrix.numbers_read(rows) for matrix in matrices) * item_bytes)
