"""Synthesizers: attention weights that come from no pair of query and key."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.core.errors import AttnprofError
from attnprof.zoo.attention import head_width, merge_heads, split_heads
from attnprof.zoo.registry import mechanism, positive


class Synthesizer(nn.Module):
    """What both kinds share: values, an output projection, and weights for sequences of up to N tokens."""

    def __init__(self, d: int, H: int, N: int, dh: int | None, causal: bool) -> None:
        super().__init__()
        positive(N=N)
        self.d, self.H, self.N, self.dh, self.causal = d, H, N, head_width(d, H, dh), causal
        self.v_proj = nn.Linear(d, H * self.dh, bias=False)
        self.out_proj = nn.Linear(H * self.dh, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        T = x.shape[1]
        if T > self.N:
            raise AttnprofError(f"this synthesizer has weights for N={self.N} tokens, not for the T={T} given.")
        scores = self.scores(x)
        if self.causal:
            future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(future, -torch.inf)
        weights = torch.softmax(scores, dim=-1)  # [H, T, T] or [B, H, T, T]
        y: Tensor = self.out_proj(merge_heads(self.average(weights, split_heads(self.v_proj(x), self.H))))
        return y

    def scores(self, x: Tensor) -> Tensor:
        """What the softmax is taken of, [H, T, T] for all samples or [B, H, T, T]."""
        raise NotImplementedError

    def average(self, weights: Tensor, v: Tensor) -> Tensor:
        """[B, H, T, dh]."""
        return weights @ v

    def pairs(self, T: int) -> int:
        """(query, key) pairs per head that are not masked. The work done is that of all T * T."""
        return T * (T + 1) // 2 if self.causal else T * T


@mechanism("synthesizer-random")
class RandomSynthesizer(Synthesizer):
    """Random synthesizer: one matrix of scores per head, the same for every input, ``trainable`` or fixed.

    x [B, T, d] -> [B, T, d] for T up to N: H heads of width dh (d / H unless given), n = H dh. Causal if ``causal``.

    Forward   v_proj, out_proj   2 B T d n each
              weighted_sum       2 B T² n
              sum for n = d      4 B T d² + 2 B T² d
    Backward  twice the forward; when fixed, 2 B T² n less: nothing needs the gradient of the scores
    Saved     B (T d + 2 T n) + H T²: x, v, the heads merged, the weights once for all samples; and T² bytes of mask.
              When fixed neither v nor the mask
    Parameters  2 d n + H N² trainable; 2 d n and a buffer of H N² fixed

    Tay et al., Synthesizer: Rethinking Self-Attention for Transformer Models, 2021.
    """

    matrix: Tensor

    def __init__(
        self,
        d: int = 64,
        H: int = 4,
        N: int = 128,
        dh: int | None = None,
        trainable: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__(d, H, N, dh, causal)
        self.trainable = trainable
        matrix = torch.randn(H, N, N)
        if trainable:
            self.matrix = nn.Parameter(matrix)
        else:
            self.register_buffer("matrix", matrix)

    def scores(self, x: Tensor) -> Tensor:
        T = x.shape[1]
        return self.matrix[:, :T, :T]

    def average(self, weights: Tensor, v: Tensor) -> Tensor:
        side_by_side = v.permute(1, 2, 0, 3).flatten(2)  # [H, T, B dh]: one product per head for all samples
        y: Tensor = (weights @ side_by_side).unflatten(-1, (-1, self.dh))
        return y.permute(2, 0, 1, 3)


@mechanism("synthesizer-dense")
class DenseSynthesizer(Synthesizer):
    """Dense synthesizer: each token makes its own row of scores, without looking at the others.

    x [B, T, d] -> [B, T, d] for T up to N: H heads of width dh (d / H unless given), n = H dh. Row i of head h is
    relu(x_i W1) W2: W1 is d x n, of which head h has dh columns, and W2 is dh x N for each head, without the
    biases of the paper. Causal if ``causal``.

    Forward   hidden, v_proj, out_proj   2 B T d n each
              scores (x_i W1) W2         2 B T² n: W2 is cut to T columns
              weighted_sum               2 B T² n
              sum for n = d              6 B T d² + 4 B T² d
    Backward  twice the forward
    Saved     B (T d + 3 T n + H T²): x, the hidden layer, v, the heads merged, the weights; and T² bytes of mask
    Parameters  3 d n + n N

    Tay et al., Synthesizer, 2021.
    """

    def __init__(self, d: int = 64, H: int = 4, N: int = 128, dh: int | None = None, causal: bool = False) -> None:
        super().__init__(d, H, N, dh, causal)
        self.hidden = nn.Linear(d, H * self.dh, bias=False)
        self.rows = nn.Parameter(torch.randn(H, self.dh, N) * self.dh**-0.5)

    def scores(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        hidden = torch.relu(self.hidden(x)).view(B * T, self.H, self.dh).transpose(0, 1)  # [H, B T, dh]
        scores: Tensor = (hidden @ self.rows[..., :T]).unflatten(1, (B, T))
        return scores.transpose(0, 1)
