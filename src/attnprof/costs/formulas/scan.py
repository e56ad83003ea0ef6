"""Scans: every element after the first of a chain is joined to the running value. M chains of S elements."""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.arithmetic import flops, is_complex
from attnprof.costs.registry import cost

#: What joins an element to the running value.
_JOINED_BY = {
    "aten.cumsum": "add",
    "aten.cumprod": "mul",
    "aten.cummax": "ge",
    "aten.cummin": "le",
    "aten._cummax_helper": "ge",
    "aten._cummin_helper": "le",
    "aten.logcumsumexp": "max sub abs neg exp log1p add",  # max(a, b) + log1p(exp(-|a - b|))
    "aten._logcumsumexp": "max sub abs neg exp log1p add",
}


@cost(*_JOINED_BY)
def scan(op: OpSignature) -> Work:
    """M (S - 1) joins."""
    x = op.tensor("self")
    chains = x.numel // max(x.shape[int(op.number("dim"))], 1) if x.shape else 1
    words = _JOINED_BY.get(op.packet) or _JOINED_BY[op.packet.removesuffix("_")]
    return Work(vector=max(0, x.numel - chains) * flops(words, is_complex(op)))
