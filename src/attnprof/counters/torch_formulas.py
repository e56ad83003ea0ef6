"""What torch's own table of FLOP formulas says of an op call that attnprof recorded.

The counter itself is given live tensors. This gives the same formulas the shapes of a signature: what it must have
said of a call, found without running it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from attnprof.core.signature import Argument, OpSignature
from attnprof.core.tensor import TensorMeta


def has_formula(op: OpSignature) -> bool:
    """Whether the table has the op."""
    return _packet(op) in flop_registry


def flops_of(op: OpSignature) -> int | None:
    """FLOPs of the call by torch's formula; None where it has none, or where it cannot take the call."""
    packet = _packet(op)
    formula = flop_registry.get(packet)
    if formula is None:
        return None
    schema = getattr(packet, op.op.rpartition(".")[2])._schema
    named = {a.name for a in schema.arguments if a.kwarg_only}
    args = [_live(value) for name, value in op.args if name not in named]
    kwargs = {name: _live(value) for name, value in op.args if name in named}
    outputs = tuple(_live(out) for out in op.outputs)
    try:
        return int(formula(*args, **kwargs, out_val=outputs if len(outputs) != 1 else outputs[0]))
    except (AssertionError, TypeError, ValueError, AttributeError, IndexError):  # of shapes it was not written for
        return None


def _packet(op: OpSignature) -> Any:
    namespace, name, *_ = op.op.split(".")
    return None if namespace == "higher_order" else getattr(getattr(torch.ops, namespace, None), name, None)


def _live(value: Argument) -> Any:
    """A tensor of the shape, without memory; the contents where they are known."""
    if isinstance(value, TensorMeta):
        return _tensor(value)
    if isinstance(value, tuple):
        return [_live(item) for item in value]
    return value


def _tensor(meta: TensorMeta) -> Tensor:
    dtype = getattr(torch, meta.dtype)
    if meta.values is not None and meta.layout == "strided":
        return torch.tensor(meta.values, dtype=dtype).reshape(meta.shape)
    return torch.empty(meta.shape, dtype=dtype, device="meta")
