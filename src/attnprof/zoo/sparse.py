"""Sparse attention beyond a window: a fixed pattern of strides, the k best keys, clusters of like tokens.

``pairs(T)`` are the (query, key) pairs per head that the pattern keeps: useful work. n = H dh (d / H unless given).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attnprof.zoo.attention import Attention
from attnprof.zoo.registry import divides, mechanism, positive
from attnprof.zoo.windows import gathered, probabilities, scores_of, weighted_sum


@mechanism("local-atrous")
class LocalAtrous(Attention):
    """Local and atrous attention: the k positions on each side, and every k-th position of the whole sequence.

    x [B, T, d] -> [B, T, d]: |i - j| <= k or i - j a multiple of k; the keys up to the query if ``causal``.
    Near keys are gathered. Far ones are those of the same remainder modulo k: k groups of ceil(T / k) positions,
    each a small dense attention. One softmax is over both, with what both hold (0 and k away) taken once.

    pairs           T (2 k + 1) - k (k + 1) + 2 sum over m = 2 ... (T - 1) // k of (T - m k)
                    causal T (k + 1) - k (k + 1) / 2 + sum over the same m of (T - m k); for T > k
    executed_pairs  T (2 k + 1) + k ceil(T / k)²; causal T (k + 1) + k ceil(T / k)²
    forward         8 B T d n + 4 B n executed_pairs, which grows as T k + T² / k: with k = √T as T^1.5
    backward        twice that
    saved           B (T d + 5 T n + 2 T m n + H T (m + 2 T / k)) with m = 2 k + 1, causal k + 1; T a multiple of k:
                    x, q, q and k and v in groups, the heads merged, m gathered keys and values per query, the
                    probabilities, those of far keys once more in groups; and T m positions, T (m + T / k) of mask
    parameters      4 d n

    Child et al., Generating Long Sequences with Sparse Transformers, 2019 (there, in separate heads or layers).
    """

    def __init__(self, d: int = 64, H: int = 4, k: int = 8, dh: int | None = None, causal: bool = False) -> None:
        super().__init__(d, H, H, dh, causal)
        positive(k=k)
        self.k = k

    def pairs(self, T: int) -> int:
        """Near offsets, and the multiples of k that are not among them: T - |offset| pairs each."""
        near = sum(max(0, T - offset) for offset in range(1, self.k + 1))
        far = sum(T - offset for offset in range(2 * self.k, T, self.k))
        return T + (near + far) * (1 if self.causal else 2)

    def executed_pairs(self, T: int) -> int:
        """Near keys, those outside the sequence included, and all pairs of each group."""
        per_group = -(-T // self.k)
        return T * (self.k * (1 if self.causal else 2) + 1) + self.k * per_group**2

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T = q.shape[2]
        at = torch.arange(T, device=q.device)
        near = at[:, None] + torch.arange(-self.k, 1 if self.causal else self.k + 1, device=q.device)
        far = at[:, None] % self.k + self.k * torch.arange(-(-T // self.k), device=q.device)
        steps = at[:, None] // self.k - far // self.k  # i - j = k * steps
        kept_far = (far < T) & ((steps if self.causal else steps.abs()) >= 2)
        kept = torch.cat(((near >= 0) & (near < T), kept_far), dim=1)

        near = near.clamp(0, T - 1)
        in_groups = self.groups(q) @ self.groups(k).transpose(-2, -1) * q.shape[-1] ** -0.5
        scores = torch.cat((scores_of(q, gathered(k, near)), self.in_order(in_groups, T)), dim=-1)
        to_near, to_far = probabilities(scores, kept).split((near.shape[1], far.shape[1]), dim=-1)
        return weighted_sum(to_near, gathered(v, near)) + self.in_order(self.groups(to_far) @ self.groups(v), T)

    def groups(self, x: Tensor) -> Tensor:
        """[B, H, T, n] -> [B, H, k, ceil(T / k), n]: position a k + r becomes position a of group r."""
        missing = -x.shape[2] % self.k
        whole = F.pad(x, (0, 0, 0, missing)) if missing else x
        grid: Tensor = whole.unflatten(2, (-1, self.k))
        return grid.transpose(2, 3)

    def in_order(self, x: Tensor, T: int) -> Tensor:
        """[B, H, k, ceil(T / k), n] -> [B, H, T, n]: the inverse of :meth:`groups`."""
        return x.transpose(2, 3).flatten(2, 3)[:, :, :T]


@mechanism("topk")
class TopKAttention(Attention):
    """Attention to the k keys with the highest scores. To know them, all scores are computed.

    x [B, T, d] -> [B, T, d]: of each query the k best scores, a softmax over them, and the sum of their k values,
    gathered. Keys up to the query if ``causal``; a query with fewer than k keys takes all it has.

    pairs       T k; causal T k - k (k - 1) / 2; for T >= k
    forward     8 B T d n + scores 2 B T² n + weighted_sum 2 B T k n
    backward    twice that: the gradient of the scores is a T x T matrix, though all but T k entries are zero
    saved       B (T d + 3 T n + T k n + H T k): x, q, k, the heads merged, the gathered values, the probabilities;
                and 2 B H T k places (int64), causal T² bytes of mask
    parameters  4 d n

    Gupta et al., Memory-efficient Transformers via Top-k Attention, 2021.
    """

    def __init__(self, d: int = 64, H: int = 4, k: int = 8, dh: int | None = None, causal: bool = False) -> None:
        super().__init__(d, H, H, dh, causal)
        positive(k=k)
        self.k = k

    def pairs(self, T: int) -> int:
        """Each query its k keys, or all it has."""
        return sum(min(self.k, i + 1 if self.causal else T) for i in range(T))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T = q.shape[2]
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if self.causal:
            future = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(future, -torch.inf)
        best, chosen = scores.topk(min(self.k, T), dim=-1)
        return weighted_sum(torch.softmax(best, dim=-1), chosen_rows(v, chosen))


@mechanism("clustered")
class ClusteredAttention(Attention):
    """Attention inside clusters: C centroids per head each take the T / C queries and keys closest to them.

    x [B, T, d] -> [B, T, d]. Closest is by dot product. Clusters are balanced by construction; a query that several
    took gets the mean of their answers, a query that none took gets zero. Not causal: whom a cluster takes
    depends on all tokens. Centroids are a buffer, moved by k-means and not by gradients; here they stay.

    T is a multiple of C, or it is an error. With c = T / C:
        pairs       C c², counted in each cluster
        forward     8 B T d n + routing 4 B T C n (queries and keys against the centroids) + 4 B C c² n
        backward    16 B T d n + 8 B C c² n: a choice has no gradient
        saved       B (T d + T n + 3 C c n + H C c² + H T): x, the heads merged, queries, keys and values in their
                    clusters, the probabilities, how many clusters took each query; and 4 B H C c places (int64)
        parameters  4 d n, and a buffer of C n

    Roy et al., Efficient Content-Based Sparse Attention with Routing Transformers, 2021.
    """

    centroids: Tensor

    def __init__(self, d: int = 64, H: int = 4, C: int = 8, dh: int | None = None) -> None:
        super().__init__(d, H, H, dh, causal=False)
        positive(C=C)
        self.C = C
        self.register_buffer("centroids", torch.randn(H, C, self.dh))

    def pairs(self, T: int) -> int:
        """Pairs per head inside the clusters: the work that is done, too."""
        return self.C * self.size(T) ** 2

    @property
    def multiple_of(self) -> int:
        """What divides every length that it takes."""
        return self.C

    def size(self, T: int) -> int:
        """How many of T queries, and of T keys, each cluster takes."""
        divides(T=T, C=self.C)
        return T // self.C

    def closest(self, x: Tensor) -> Tensor:
        """Which T / C of the rows of x [B, H, T, dh] each cluster takes: [B, H, C, T / C]."""
        return (self.centroids @ x.detach().transpose(-2, -1)).topk(self.size(x.shape[2]), dim=-1).indices

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        askers, answerers = self.closest(q), self.closest(k)
        queries, keys, values = chosen_rows(q, askers), chosen_rows(k, answerers), chosen_rows(v, answerers)
        scores = queries @ keys.transpose(-2, -1) * q.shape[-1] ** -0.5
        answers = (torch.softmax(scores, dim=-1) @ values).flatten(2, 3)  # [B, H, C c, dh]

        to = askers.flatten(2)[..., None]
        total = torch.zeros_like(q).scatter_add(2, to.expand_as(answers), answers)
        count = torch.zeros_like(q[..., :1]).scatter_add(2, to, torch.ones_like(answers[..., :1]))
        return total / count.clamp(min=1)


def chosen_rows(x: Tensor, chosen: Tensor) -> Tensor:
    """The rows of x [B, H, T, dh] at places [B, H, m, k] of the same sample and head: [B, H, m, k, dh]."""
    B, H, T, _ = x.shape
    starts = T * torch.arange(B * H, device=x.device).view(B, H, 1, 1)
    rows: Tensor = x.flatten(0, 2)[starts + chosen]
    return rows
