"""Dropout: the draw and the selection are free, the scale 1 / (1 - p) is a product per element."""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.registry import cost


@cost("aten.native_dropout", "aten._fused_dropout")
def dropout(op: OpSignature) -> Work:
    """A product per element, when training with p neither 0 nor 1."""
    drops = op.number("train", 1) and op.number("p") not in (0, 1)
    return Work(vector=op.out.numel if drops else 0)


@cost("aten.native_dropout_backward", "aten._masked_scale")
def dropout_backward(op: OpSignature) -> Work:
    """A product per element unless the scale is 1."""
    return Work(vector=op.out.numel if op.number("scale", 1) != 1 else 0)
