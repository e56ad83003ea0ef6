"""A decoder-only language model as its matrices, heads and norms: what a step of it computes, reads and keeps.

Symbols: B sequences, T new tokens of each, S tokens of each that are in its cache after the step, d the width.
"""
# ruff: noqa: N803 (the symbols are those of formulas)

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Matrix:
    """A linear map n_in -> n_out of every token; of ``experts`` alike, each token goes through ``chosen``."""

    n_in: int
    n_out: int
    bias: bool = False
    experts: int = 1
    chosen: int = 1

    @property
    def _each(self) -> int:
        return self.n_in * self.n_out + (self.n_out if self.bias else 0)

    @property
    def parameters(self) -> int:
        return self.experts * self._each

    def flops(self, rows: int) -> int:
        """2 rows n_in n_out through each expert that is chosen."""
        return 2 * rows * self.chosen * self.n_in * self.n_out

    def numbers_read(self, rows: int) -> int:
        """The parameters that so many rows meet, spread evenly over the experts: at most min(experts, rows chosen)."""
        return min(self.experts, rows * self.chosen) * self._each


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: attention of ``heads`` query heads and ``kv_heads`` key heads of width ``head_dim``, and what follows.

    ``projections`` make q, k, v and the output; ``feed_forward`` are the matrices each token meets, ``routed`` the
    experts of which it meets some. ``vectors`` are the numbers of norms and the like. A ``window`` limits attention
    to so many keys, a token's own included.
    """

    heads: int
    kv_heads: int
    head_dim: int
    projections: tuple[Matrix, ...]
    feed_forward: tuple[Matrix, ...]
    routed: tuple[Matrix, ...] = ()
    vectors: int = 0
    window: int | None = None

    @property
    def parameters(self) -> int:
        matrices = (*self.projections, *self.feed_forward, *self.routed)
        return sum(matrix.parameters for matrix in matrices) + self.vectors

    @property
    def cached_numbers(self) -> int:
        """Keys and values of one token: 2 Hkv dh."""
        return 2 * self.kv_heads * self.head_dim

    def keys(self, T: int, S: int) -> int:
        """How many keys T new tokens meet together: all S, or of those before them what the window leaves."""
        return S if self.window is None else min(S - T, self.window - 1) + T

    def kept(self, S: int) -> int:
        """The tokens of S whose keys a later step can still meet."""
        return S if self.window is None else min(S, self.window - 1)

    def useful_pairs(self, T: int, S: int) -> int:
        """Pairs of query and key that no mask hides: query i of T sees S - T + i + 1 keys, or its window."""
        before, w = S - T, S if self.window is None else self.window
        growing = max(0, min(T, w - before))  # queries whose window is not full yet
        return growing * before + growing * (growing + 1) // 2 + (T - growing) * w


@dataclass(frozen=True)
class Decoder:
    """A decoder-only language model: ``layers`` are kinds of layers, each with how many there are of it.

    ``positions`` is the longest sequence it has position embeddings for, which take ``position_numbers``; None
    where positions have no parameters. ``vectors`` are the numbers of the last norm. ``dtype`` is what the
    config names, if any, ``quantized`` whether it speaks of a quantization; ``longest`` is the length of sequence it
    was made for, where that is known.
    """

    model_type: str
    d: int
    vocabulary: int
    layers: tuple[tuple[int, Layer], ...]
    head: Matrix
    tied: bool
    vectors: int = 0
    positions: int | None = None
    position_numbers: int = 0
    longest: int | None = None
    dtype: str | None = None
    quantized: bool = False

    @property
    def depth(self) -> int:
        return sum(count for count, _ in self.layers)

    @cached_property
    def parameters(self) -> int:
        """All of them; a head that is the embedding counts once."""
        head = self.head.parameters if not self.tied else self.head.n_out * self.head.bias
        outside = self.vocabulary * self.d + self.position_numbers + self.vectors + head
        return outside + sum(count * layer.parameters for count, layer in self.layers)

    def cached_numbers(self, S: int) -> int:
        """Keys and values of one sequence of S tokens, in all layers."""
        return sum(count * layer.kept(S) * layer.cached_numbers for count, layer in self.layers)
