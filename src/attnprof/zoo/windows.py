"""Attention to near positions only: local, dilated and sliding windows, and blocks.

A window of w is w positions on each side of a query and its own, |i - j| <= w; causal, w positions that end with
its own, 0 <= i - j < w. ``pairs(T)`` are the (query, key) pairs per head that the pattern keeps: useful work.
``executed_pairs(T)`` are those that the code computes, some on padding or behind a mask: what the counts show.

With n = H dh (d / H unless given), every mechanism here costs

    forward     8 B T d n for the four projections + 4 B n executed_pairs(T) for scores and weighted sum
    backward    twice that
    parameters  4 d n
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from attnprof.zoo.attention import Attention
from attnprof.zoo.registry import divides, mechanism, positive


def probabilities(scores: Tensor, kept: Tensor) -> Tensor:
    """The softmax over the kept keys of each query; the others get zero."""
    return torch.softmax(scores.masked_fill(~kept, -torch.inf), dim=-1)


def gathered(x: Tensor, positions: Tensor) -> Tensor:
    """The rows of x [B, H, T, dh] at positions [T, m]: [B, H, T, m, dh]."""
    rows: Tensor = x[:, :, positions]
    return rows


def scores_of(q: Tensor, keys: Tensor) -> Tensor:
    """Each query [B, H, T, dh] against m keys of its own [B, H, T, m, dh]: [B, H, T, m], scaled."""
    scores: Tensor = (keys @ q[..., None]).squeeze(-1) * q.shape[-1] ** -0.5
    return scores


def weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """Weights [B, H, T, m] of m values per query [B, H, T, m, dh]: [B, H, T, dh]."""
    return (weights[..., None, :] @ values).squeeze(-2)


@dataclass(frozen=True)
class Blocks:
    """T positions in blocks of w; each block of queries sees ``before`` and ``after`` more blocks of keys.

    The last block is filled up with padding, and there is padding before the first and behind the last.
    """

    T: int
    w: int
    before: int = 0
    after: int = 0

    @property
    def count(self) -> int:
        return -(-self.T // self.w)

    @property
    def span(self) -> int:
        """The keys that a block of queries sees."""
        return (self.before + 1 + self.after) * self.w

    @property
    def pairs(self) -> int:
        """All pairs of a query and a key of a block, padding included."""
        return self.count * self.w * self.span

    def padded(self, x: Tensor, before: int = 0, after: int = 0) -> Tensor:
        """[B, H, T, dh] -> [B, H, whole blocks, dh], with so many blocks of zeros more."""
        ends = before * self.w, (self.count + after) * self.w - self.T
        return F.pad(x, (0, 0, *ends)) if any(ends) else x

    def queries(self, q: Tensor) -> Tensor:
        """[B, H, T, dh] -> [B, H, count, w, dh]."""
        blocks: Tensor = self.padded(q).unflatten(2, (self.count, self.w))
        return blocks

    def keys(self, k: Tensor) -> Tensor:
        """[B, H, T, dh] -> [B, H, count, span, dh]: a view, in which each key is seen by several blocks."""
        return self.padded(k, self.before, self.after).unfold(2, self.span, self.w).transpose(-2, -1)

    def positions(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Where queries and keys stand, [count, w, 1] and [count, 1, span]; outside 0 to T - 1 is padding."""
        starts = torch.arange(self.count, device=device)[:, None, None] * self.w
        i = starts + torch.arange(self.w, device=device)[:, None]
        j = starts - self.before * self.w + torch.arange(self.span, device=device)
        return i, j

    def inside(self, i: Tensor, j: Tensor) -> Tensor:
        """Which pairs are of two positions of the sequence, or of two behind it (so that no row is empty)."""
        return (j >= 0) & ((i < self.T) == (j < self.T))

    def joined(self, y: Tensor) -> Tensor:
        """[B, H, count, w, dh] -> [B, H, T, dh], the padding cut off."""
        return y.flatten(2, 3)[:, :, : self.T]


class Window(Attention):
    """What windows share: which distances from a query they keep."""

    def __init__(self, d: int, H: int, w: int, dh: int | None, causal: bool, dilation: int = 1) -> None:
        super().__init__(d, H, H, dh, causal)
        positive(w=w, dilation=dilation)
        self.w, self.dilation = w, dilation

    @property
    def offsets(self) -> range:
        """j - i for the keys j of a query i."""
        first, last = (1 - self.w, 0) if self.causal else (-self.w, self.w)
        return range(first * self.dilation, last * self.dilation + 1, self.dilation)

    def pairs(self, T: int) -> int:
        """Pairs per head that the window keeps: at each offset, those that lie inside the sequence."""
        return sum(max(0, T - abs(offset)) for offset in self.offsets)

    def kept(self, i: Tensor, j: Tensor) -> Tensor:
        """Which pairs are in the window, dilation aside."""
        return (j - i >= self.offsets[0]) & (j - i <= self.offsets[-1])


@mechanism("local-window")
class LocalWindow(Window):
    """Local attention: each query gathers the keys and values of its window, and meets no others.

    x [B, T, d] -> [B, T, d]; two-sided, or causal if ``causal``. m = 2 w + 1 keys per query (causal: w).

    pairs           T (2 w + 1) - w (w + 1); causal T w - w (w - 1) / 2, for T >= w
    executed_pairs  T m: near the ends a window reaches outside, where it is filled up and masked
    forward         8 B T d n + 4 B T m n; backward twice that
    saved           B (T d + 2 T n + 2 T m n + H T m): x, q, the heads merged, gathered keys and values (m times k
                    and v), the probabilities; and the T m positions and mask
    parameters      4 d n

    Luong et al., Effective Approaches to Attention-based Neural Machine Translation, 2015; Child et al., 2019.
    """

    def __init__(self, d: int = 64, H: int = 4, w: int = 8, dh: int | None = None, causal: bool = False) -> None:
        super().__init__(d, H, w, dh, causal)

    def executed_pairs(self, T: int) -> int:
        return T * len(self.offsets)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T = q.shape[2]
        offsets = torch.arange(self.offsets.start, self.offsets.stop, self.offsets.step, device=q.device)
        positions = torch.arange(T, device=q.device)[:, None] + offsets
        kept = (positions >= 0) & (positions < T)
        positions = positions.clamp(0, T - 1)
        scores = scores_of(q, gathered(k, positions))
        return weighted_sum(probabilities(scores, kept), gathered(v, positions))


@mechanism("dilated-window")
class DilatedWindow(LocalWindow):
    """Dilated attention: a window of every dilation-th position, each query gathering its keys and values.

    x [B, T, d] -> [B, T, d]; w taps on each side and the query's own, or causal: w taps that end with it.

    pairs           T (2 w + 1) - dilation w (w + 1); causal T w - dilation w (w - 1) / 2; for T > dilation w
    executed_pairs  T (2 w + 1); causal T w
    forward         as local-window: the dilation widens the window at no cost
    saved           as local-window
    parameters      4 d n

    Beltagy et al., Longformer: The Long-Document Transformer, 2020.
    """

    def __init__(
        self, d: int = 64, H: int = 4, w: int = 8, dilation: int = 2, dh: int | None = None, causal: bool = False
    ) -> None:
        super(LocalWindow, self).__init__(d, H, w, dh, causal, dilation)


@mechanism("sliding-window")
class SlidingWindow(Window):
    """Sliding-window attention in overlapping blocks: w queries at once against the blocks their windows touch.

    x [B, T, d] -> [B, T, d]. Two-sided, a block sees three blocks of keys; causal (``causal``), two. A decoder's
    key-value cache never needs more than the last min(S, w) positions.

    pairs           as local-window
    executed_pairs  3 w per query; causal 2 w, about twice the useful ones; T rounded up to whole blocks
    forward         8 B T d n + 12 B T w n; causal 8 B T d n + 8 B T w n; backward twice that
    saved           B (T d + 2 T n + 2 c T n + H T c w) with c = 3, causal 2: x, q, the heads merged, keys and values
                    c times each, the probabilities; and T c w bytes of mask
    parameters      4 d n

    Beltagy et al., Longformer: The Long-Document Transformer, 2020; Jiang et al., Mistral 7B, 2023 (causal).
    """

    def __init__(self, d: int = 64, H: int = 4, w: int = 16, dh: int | None = None, causal: bool = False) -> None:
        super().__init__(d, H, w, dh, causal)

    def blocks(self, T: int) -> Blocks:
        return Blocks(T, self.w, before=1, after=0 if self.causal else 1)

    def executed_pairs(self, T: int) -> int:
        return self.blocks(T).pairs

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        blocks = self.blocks(q.shape[2])
        i, j = blocks.positions(q.device)
        kept = self.kept(i, j) & blocks.inside(i, j)
        scores = blocks.queries(q) @ blocks.keys(k).transpose(-2, -1) * q.shape[-1] ** -0.5
        return blocks.joined(probabilities(scores, kept) @ blocks.keys(v))


@mechanism("block-window")
class BlockWindow(SlidingWindow):
    """Attention in blocks of w positions that do not overlap: a query sees its own block only.

    x [B, T, d] -> [B, T, d]; the block up to the query if ``causal``. T is a multiple of w, or it is an error.

    pairs           T w; causal T (w + 1) / 2
    executed_pairs  T w
    forward         8 B T d n + 4 B T w n; backward twice that
    saved           B (T d + 4 T n + H T w): x, q, k, v, the heads merged, the probabilities; and T w bytes of mask
    parameters      4 d n

    Qiu et al., Blockwise Self-Attention for Long Document Understanding, 2020.
    """

    @property
    def multiple_of(self) -> int:
        """What divides every length that it takes."""
        return self.w

    def blocks(self, T: int) -> Blocks:
        divides(T=T, w=self.w)
        return Blocks(T, self.w)

    @property
    def offsets(self) -> range:
        """j - i for the keys j that a query i can have in its block."""
        return range(1 - self.w, 1 if self.causal else self.w)

    def pairs(self, T: int) -> int:
        """Pairs per head inside the blocks."""
        inside = self.w * (self.w + 1) // 2 if self.causal else self.w**2
        return self.blocks(T).count * inside
