"""Attention without a softmax over pairs: keys and values are summed up first, so the work grows with T, not T².

The sum over keys of φ(k) vᵀ is dh x dh per head, whatever the length; a query reads it with φ(q).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attnprof.zoo.attention import MultiHeadAttention, merge_heads, split_heads
from attnprof.zoo.registry import mechanism, positive


def feature_map(x: Tensor) -> Tensor:
    """elu(x) + 1: positive, so that every weight of the implied average is."""
    return F.elu(x) + 1


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Means of v weighted by q·k: q and k [B, H, T, r], positive, v [B, H, T, dh] -> [B, H, T, dh].

    The weights of query i add up to q_i · Σ_j k_j, one number per query, and that is what to divide by.
    """
    q = q.contiguous()  # read by two products
    state = k.transpose(-2, -1) @ v  # [B, H, r, dh]
    total = k.sum(-2).unsqueeze(-1)  # [B, H, r, 1]
    return (q @ state) / (q @ total)


def causal_linear_attention(q: Tensor, k: Tensor, v: Tensor, chunk: int) -> Tensor:
    """:func:`linear_attention` over the keys up to each query's own, by chunks of the sequence.

    Within its chunk a query meets the keys one by one, under a mask; what came before it reads from the sums of
    the earlier chunks. The last chunk is filled up with zeros, which add nothing.
    """
    T = q.shape[-2]
    chunk = min(chunk, T)
    q, k, v = (in_chunks(t, chunk) for t in (q, k, v))  # [B, H, n, chunk, r or dh]
    state = sum_before(k.transpose(-2, -1) @ v)  # [B, H, n, r, dh]
    total = sum_before(k.sum(-2).unsqueeze(-1))  # [B, H, n, r, 1]
    weights = (q @ k.transpose(-2, -1)).tril()  # [B, H, n, chunk, chunk]
    weighted = weights @ v + q @ state
    weight = weights.sum(-1, keepdim=True) + q @ total
    return weighted.flatten(2, 3)[:, :, :T] / weight.flatten(2, 3)[:, :, :T]


def in_chunks(x: Tensor, chunk: int) -> Tensor:
    """[B, H, T, width] -> [B, H, n, chunk, width], with zeros after the end."""
    chunks: Tensor = F.pad(x, (0, 0, 0, -x.shape[-2] % chunk)).contiguous().unflatten(-2, (-1, chunk))
    return chunks


def sum_before(chunks: Tensor) -> Tensor:
    """For each chunk [B, H, n, ...] the sum of those before it: zeros for the first."""
    none = torch.zeros_like(chunks[:, :, :1])
    return torch.cat([none, chunks[:, :, :-1]], 2).cumsum(2)


@mechanism("linear")
class LinearAttention(MultiHeadAttention):
    """Linear attention: the weight of a pair is φ(q)·φ(k) with φ(x) = elu(x) + 1, and sums over keys come first.

    x [B, T, d] -> [B, T, d]: H heads of width dh (d / H unless given), n = H dh. Not causal.

    Forward   q_proj, k_proj, v_proj   2 B T d n each
              state Σ φ(k) vᵀ          2 B T n dh
              read φ(q) state          2 B T n dh
              normaliser φ(q) Σ φ(k)   2 B T n
              out_proj                 2 B T n d
              sum for n = d            8 B T d² + 4 B T d² / H + 2 B T d
    Backward  twice the forward
    Saved     B (T d + 7 T n + H T + n dh + n): x, q, k, φ(q), φ(k), v, state and Σ φ(k), both sides of the
              division, the heads merged
    Parameters  4 d n

    Katharopoulos et al., Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention, 2020.
    """

    def __init__(self, d: int = 64, H: int = 4, dh: int | None = None) -> None:
        super().__init__(d, H, dh)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return linear_attention(feature_map(q), feature_map(k), v)


#: What a causal linear attention has to remember of a sequence: Σ φ(k) vᵀ [B, H, dh, dh] and Σ φ(k) [B, H, dh, 1].
State = tuple[Tensor, Tensor]


@mechanism("linear-causal")
class CausalLinearAttention(MultiHeadAttention):
    """Causal linear attention: a running sum over the keys so far, in chunks, or token by token with :meth:`step`.

    x [B, T, d] -> [B, T, d]: H heads of width dh (d / H unless given), n = H dh. Causal. With c = min(chunk, T),
    and T' = T rounded up to a multiple of c:

    Forward   projections              8 B T d n
              state, read              2 B T' n dh each
              normaliser               2 B T' n
              scores, weighted_sum     2 B T' c n each, within the chunks
    Backward  twice the forward
    Saved     B (T d + 3 T n + 4 T' n + H T' (c + 1) + (n dh + n) T' / c): x, q, k, the heads merged; φ(q), φ(k), v,
              the weighted sum; weights within the chunks and their sums; states and totals before each chunk
    Parameters  4 d n

    A step costs 8 B d n + 4 B n dh + 2 B n, whatever came before; the state is B (n dh + n) numbers.

    Katharopoulos et al., Transformers are RNNs, 2020; in chunks: Hua et al., Transformer Quality in Linear Time, 2022.
    """

    def __init__(self, d: int = 64, H: int = 4, dh: int | None = None, chunk: int = 32) -> None:
        super().__init__(d, H, dh, causal=True)
        positive(chunk=chunk)
        self.chunk = chunk

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return causal_linear_attention(feature_map(q), feature_map(k), v, self.chunk)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The next token x [B, 1, d] after those of ``state`` (None: the first); its output and the new state."""
        q, k, v = (split_heads(project(x), self.H) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = feature_map(q), feature_map(k)
        after = k.transpose(-2, -1) @ v, k.transpose(-2, -1)
        if state is not None:
            after = state[0] + after[0], state[1] + after[1]
        y = (q @ after[0]) / (q @ after[1])
        return self.out_proj(merge_heads(y)), after


@mechanism("efficient-attention")
class EfficientAttention(MultiHeadAttention):
    """Efficient attention: softmax of each query over its features and of the keys over positions, then linear.

    x [B, T, d] -> [B, T, d]: H heads of width dh (d / H unless given), n = H dh. Not causal, and it cannot be made
    so by a mask: the softmax of the keys has seen all positions. The weights of each query add up to 1 without a
    normaliser.

    Forward   projections              8 B T d n
              state softmax(k)ᵀ v      2 B T n dh
              read softmax(q) state    2 B T n dh
              sum for n = d            8 B T d² + 4 B T d² / H
    Backward  twice the forward
    Saved     B (T d + 4 T n + n dh): x, both softmaxes, v, the state, the heads merged
    Parameters  4 d n

    Shen et al., Efficient Attention: Attention with Linear Complexities, 2021.
    """

    def __init__(self, d: int = 64, H: int = 4, dh: int | None = None) -> None:
        super().__init__(d, H, dh)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        state = k.softmax(-2).transpose(-2, -1) @ v  # [B, H, dh, dh]
        return q.softmax(-1) @ state
