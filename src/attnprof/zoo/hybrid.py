"""Sparse and linear attention side by side: near keys by a softmax, all keys by their sum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.zoo.linear import causal_linear_attention, feature_map, linear_attention
from attnprof.zoo.registry import mechanism
from attnprof.zoo.windows import SlidingWindow


@mechanism("hybrid")
class SparseLinearHybrid(SlidingWindow):
    """A sliding window plus linear attention over the same q, k and v, mixed by a gate per head.

    x [B, T, d] -> [B, T, d]; the linear part sees all keys, the window w on each side. If ``causal``, both see none
    ahead, and the linear part runs in chunks of min(w, T). ``pairs`` and ``executed_pairs`` are the window's.

    The sum of the parts (``sliding-window`` and ``linear`` or ``linear-causal``), with the projections once:
        forward     8 B T d n + 4 B n executed_pairs(T), for T a multiple of w 12 B T w n, causal 8 B T w n
                    + state and read 4 B T n dh + normaliser 2 B T n
                    + causal, within the chunks 4 B T w n; T rounded up to whole chunks
        backward    twice that
        saved       B (T d + 10 T n + 2 c T n + H T (c w + 1) + n dh + n) + 2 H, with c = 3 blocks of keys; causal c = 2
                    and B (T d + 10 T n + 2 c T n + H T (c w + w + 1) + (n dh + n) T / w) + 2 H: what the parts save,
                    x, q, k, v and the heads merged once, and both results; and T c w bytes of mask
        parameters  4 d n + H

    The gate as in Munkhdalai et al., Infini-attention, 2024; window and linear attention in turns: Arora et al.,
    Simple Linear Attention Language Models Balance the Recall-Throughput Tradeoff, 2024.
    """

    def __init__(self, d: int = 64, H: int = 4, w: int = 16, dh: int | None = None, causal: bool = False) -> None:
        super().__init__(d, H, w, dh, causal)
        self.gate = nn.Parameter(torch.zeros(H))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        features = feature_map(q), feature_map(k), v
        near = super().attend(q, k, v)
        far = causal_linear_attention(*features, chunk=self.w) if self.causal else linear_attention(*features)
        share = torch.sigmoid(self.gate)[:, None, None]
        return share * near + (1 - share) * far
