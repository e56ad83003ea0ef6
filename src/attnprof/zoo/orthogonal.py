"""Attention whose query and key projections are random orthogonal matrices that are never trained.

What freezing saves is the two weight gradients. The gradient still has to pass through the scores and through the
frozen projections to x: it is not zero, and its cost keeps a T² term. Only where x needs no gradient (a first layer
on data) and the scores are written out does the backward of the scores fall away.
"""

from __future__ import annotations

from torch import nn

from attnprof.zoo.attention import FusedAttention, MultiHeadAttention
from attnprof.zoo.registry import mechanism


def freeze_orthogonal(projection: nn.Linear) -> None:
    """Give a projection random orthonormal rows (columns, when there are more rows), and no gradient."""
    nn.init.orthogonal_(projection.weight)
    projection.weight.requires_grad_(False)


@mechanism("orthogonal")
class OrthogonalRandomAttention(MultiHeadAttention):
    """Multi-head attention with frozen orthogonal query and key projections, its scores written out.

    x [B, T, d] -> [B, T, d]: H heads of width dh (d / H unless given), n = H dh. Causal if ``causal``.

    Forward   as mha: 8 B T d n + 4 B T² n
    Backward  when x needs a gradient: 12 B T d n + 8 B T² n (mha has 16 and 8)
              when x needs none: 6 B T d n + 2 B T² n (mha has 10 and 8): dV, and v_proj and out_proj
    Saved     as mha when x needs a gradient: B (T d + 4 T n + H T²). When it needs none, B (T d + T n + H T²)
    Parameters  4 d n, of which 2 d n are trained

    Frozen queries and keys: Dong et al., Is Random Attention Sufficient for Sequence Modeling?, 2025. Orthogonal
    initialisation: Saxe et al., Exact Solutions to the Nonlinear Dynamics of Learning in Deep Linear Neural
    Networks, 2014.
    """

    def __init__(self, d: int = 64, H: int = 4, dh: int | None = None, causal: bool = False) -> None:
        super().__init__(d, H, dh, causal)
        freeze_orthogonal(self.q_proj)
        freeze_orthogonal(self.k_proj)


@mechanism("orthogonal-sdpa")
class FusedOrthogonalRandomAttention(FusedAttention):
    """Multi-head attention with frozen orthogonal query and key projections, by torch's fused kernel.

    x [B, T, d] -> [B, T, d], as :class:`OrthogonalRandomAttention`. Causal if ``causal``.

    Forward    as mha-sdpa: 8 B T d n + 4 B T² n
    Backward   when x needs a gradient: 12 B T d n + 8 B T² n
               when x needs none: 6 B T d n + 8 B T² n; the kernel computes dQ and dK all the same
    Recompute  2 B T² n, in both cases
    Saved      as mha-sdpa: B (T d + 4 T n + H T)
    Parameters  4 d n, of which 2 d n are trained

    As :class:`OrthogonalRandomAttention`.
    """

    def __init__(self, d: int = 64, H: int = 4, dh: int | None = None, causal: bool = False) -> None:
        super().__init__(d, H, dh, causal)
        freeze_orthogonal(self.q_proj)
        freeze_orthogonal(self.k_proj)
