"""Longformer: a sliding window, and a few global tokens that see and are seen by everything."""

from __future__ import annotations

import torch
from torch import Tensor

from attnprof.zoo.attention import attend
from attnprof.zoo.registry import mechanism, positive
from attnprof.zoo.windows import SlidingWindow, probabilities


@mechanism("longformer")
class Longformer(SlidingWindow):
    """Sliding-window attention, with g leading global tokens: all queries see them, and they see all keys.

    x [B, T, d] -> [B, T, d], a window of w positions on each side. Not causal: global tokens look ahead. If
    ``causal``, a query sees the w positions that end with its own, and the global tokens up to it.
    Windows are cut as in ``sliding-window``; one softmax is over window and global keys, each key taken once. The
    published model gives global attention projections of its own; here it shares those of the window.

    With g at most T, and T rounded up to a multiple of w for the windows:
        pairs           2 g T - g² + the window's among the T - g others
                        causal g T - g (g - 1) / 2 + the window's among the T - g others: for T - w >= g
                        T w - w (w - 1) / 2 + g (T - w) - g (g - 1) / 2
        executed_pairs  3 w T + 2 g T (the windows of the global tokens too); causal 2 w T + g T
        forward         8 B T d n + 4 B n executed_pairs; backward twice that
        saved           B (T d + 4 T n + 2 (3 T + g) n + H T (3 w + g) + H g T): x, q, k, v, the heads merged, keys and
                        values in windows and global, the probabilities of all and of the global queries
                        causal B (T d + 2 T n + 2 (2 T + g) n + H T (2 w + g)); and T (c w + g) bytes of mask, c = 3
                        or causal 2
        parameters      4 d n

    Beltagy et al., Longformer: The Long-Document Transformer, 2020.
    """

    def __init__(
        self, d: int = 64, H: int = 4, w: int = 16, g: int = 2, dh: int | None = None, causal: bool = False
    ) -> None:
        super().__init__(d, H, w, dh, causal)
        positive(g=g)
        self.g = g

    def pairs(self, T: int) -> int:
        """All pairs with a global token, and those of the window among the others."""
        g = min(self.g, T)
        with_global = g * T - g * (g - 1) // 2 if self.causal else 2 * g * T - g * g
        return with_global + super().pairs(T - g)

    def executed_pairs(self, T: int) -> int:
        """The windows whole, every query with the global keys, and unless causal the global queries with every key."""
        return super().executed_pairs(T) + (1 if self.causal else 2) * min(self.g, T) * T

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = q.contiguous()  # read by two products
        blocks, g = self.blocks(q.shape[2]), min(self.g, q.shape[2])
        i, j = blocks.positions(q.device)
        near = self.kept(i, j) & blocks.inside(i, j) & (j >= g)
        everywhere = torch.arange(g, device=q.device).expand(blocks.count, self.w, g)
        kept = torch.cat((near, (everywhere <= i) if self.causal else (everywhere >= 0)), dim=-1)

        global_keys, global_values = (t[:, :, :g].contiguous() for t in (k, v))
        to_near = blocks.queries(q) @ blocks.keys(k).transpose(-2, -1)
        to_global = blocks.queries(q @ global_keys.transpose(-2, -1))
        weights = probabilities(torch.cat((to_near, to_global), dim=-1) * q.shape[-1] ** -0.5, kept)
        of_near, of_global = weights.split((blocks.span, g), dim=-1)
        y = blocks.joined(of_near @ blocks.keys(v)) + blocks.joined(of_global) @ global_values
        if self.causal:
            return y
        return torch.cat((attend(q[:, :, :g], k, v), y[:, :, g:]), dim=2)
