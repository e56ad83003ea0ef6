"""Foreach ops: over each list, the price of the single-tensor op.

``_foreach_add(xs, ys)`` is ``add(x, y)`` for every pair, so its FLOPs are the sum of the prices of ``add``.
The single op's formula is looked up at pricing time: what prices ``aten.add`` prices ``aten._foreach_add``.
Traffic is that of the lists: each distinct tensor read once, what is changed in place read and written.
"""

from __future__ import annotations

from attnprof.core.signature import Argument, OpSignature
from attnprof.core.work import Work
from attnprof.costs.registry import cost, formula_of, traffic
from attnprof.costs.traffic import reading, write_only

_SAME_NAME = (
    "abs acos add addcdiv addcmul asin atan ceil clamp_max clamp_min clone copy cos cosh div erf erfc exp expm1 floor "
    "frac lerp lgamma log log10 log1p log2 max maximum minimum mul neg pow reciprocal round rsqrt sigmoid sign sin "
    "sinh sqrt sub tan tanh trunc zero"
)
_SINGLE = {name: name for name in _SAME_NAME.split()} | {"norm": "linalg_vector_norm"}

#: Where a foreach schema says it otherwise than the single op's.
_RENAMED = {"scalar": "other", "tensors1": "end", "weights": "weight"}


@cost(*(f"aten._foreach_{name}" for name in _SINGLE))
def foreach(op: OpSignature) -> Work:
    """The sum over the lists of the single-tensor op's FLOPs."""
    name = "aten." + _SINGLE[op.packet.removeprefix("aten._foreach_").removesuffix("_")]
    formula = formula_of(f"{name}.default")
    if formula is None:
        raise LookupError(f"{name} has no formula")
    works = [formula(single(op, name, i)) for i in range(_length(op))]
    return Work(matmul=sum(w.matmul for w in works), vector=sum(w.vector for w in works))


def _length(op: OpSignature) -> int:
    """How many tensors the lists have; in ``pow(number, exponents)`` self is a number."""
    return len(op.tensors("self") or op.tensors("exponent"))


def single(op: OpSignature, name: str, i: int) -> OpSignature:
    """The i-th call of ``name`` that a foreach op stands for."""
    args = tuple((_argument(op, arg), _item(value, i)) for arg, value in op.args)
    out: Argument = op.outs[i] if op.outs else op.tensors("self")[i]
    return OpSignature(f"{name}.default", args, (out,))


def _argument(op: OpSignature, arg: str) -> str:
    """The single op's name of an argument."""
    if arg == "scalars":
        return "value" if "tensor1" in op else "other"
    return _RENAMED.get(arg, arg)


def _item(value: Argument, i: int) -> Argument:
    """The i-th of a list; what is not a list is shared by all calls, and so is a packed tensor of numbers."""
    return value[i] if isinstance(value, tuple) else value


@traffic("aten._foreach_zero")
def zero_traffic(op: OpSignature) -> tuple[int, int]:
    """Only written."""
    return write_only(op)


@traffic("aten._foreach_copy")
def copy_traffic(op: OpSignature) -> tuple[int, int]:
    """The sources are read, the targets only written."""
    return reading(op, "src")
