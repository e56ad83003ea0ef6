"""Depthwise convolution over a sequence: each channel with its own k taps, directly or as a matrix product."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.core.errors import AttnprofError
from attnprof.zoo.registry import mechanism, positive


class _DepthwiseConvolution(nn.Module):
    """The weight [d, k], and where its taps lie: centred on each position, or ending at it when causal."""

    def __init__(self, d: int = 64, k: int = 5, causal: bool = False) -> None:
        super().__init__()
        positive(d=d, k=k)
        if k % 2 == 0 and not causal:
            raise AttnprofError(f"k must be odd for as many taps on each side, not {k}; or causal=True.")
        self.d, self.k, self.causal = d, k, causal
        self.before = k - 1 if causal else k // 2
        self.after = 0 if causal else k // 2
        self.weight = nn.Parameter(torch.randn(d, k) * k**-0.5)

    def pairs(self, T: int) -> int:
        """The taps of one channel that meet a position of the sequence rather than padding.

        With q taps on each side and T > q: k T - q (q + 1); causal, T >= k: k T - k (k - 1) / 2.
        """
        return sum(max(0, T - abs(offset)) for offset in range(-self.before, self.after + 1))


@mechanism("depthwise-conv")
class DepthwiseConv(_DepthwiseConvolution):
    """Depthwise convolution in one direct kernel, which copies no windows.

    x [B, T, d] -> y [B, T, d], y[t] = sum of weight[j] x[t - q + j] with q = (k - 1) / 2, zeros outside;
    ``causal``: x[t - k + 1 + j], so that no later token is seen.

        forward     2 B T d k; the taps on padding are executed too: useful 2 B d pairs(T)
        backward    4 B T d k
        saved       B T d (the input), causal B (T + k - 1) d (the input, padded on the left)
        parameters  d k

    LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998; depthwise: Chollet, Xception, 2017.
    """

    def forward(self, x: Tensor) -> Tensor:
        channels, taps = x.transpose(1, 2), self.weight[:, None]
        if self.causal:
            channels = F.pad(channels, (self.before, 0))
        return F.conv1d(channels, taps, padding=self.after, groups=len(taps)).transpose(1, 2)


@mechanism("depthwise-conv-im2col")
class DepthwiseConvIm2col(_DepthwiseConvolution):
    """Depthwise convolution as a matrix product per channel, over windows copied out of the input.

    x [B, T, d] -> windows [d, B T, k] -> times weight [d, k, 1] -> y [B, T, d]; the same y as the direct kernel's.
    The windows are a view of the padded input until they are copied: B T d k elements, k times the input.

        forward     2 B T d k; useful 2 B d pairs(T)
        backward    4 B T d k
        saved       B T d k (the windows); with k = 1 they are the input: B T d
        parameters  d k

    Chellapilla et al., High Performance Convolutional Neural Networks for Document Processing, 2006.
    """

    def forward(self, x: Tensor) -> Tensor:
        B, T, d = x.shape
        channels = F.pad(x.permute(2, 0, 1), (self.before, self.after))
        windows = channels.unfold(-1, self.before + self.after + 1, 1).reshape(d, B * T, -1)
        return (windows @ self.weight[:, :, None]).view(d, B, T).permute(1, 2, 0)
