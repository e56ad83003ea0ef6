"""Formulas of other counters that are known to differ, each with what it must say: a cause is named only if it does."""

from __future__ import annotations

from math import prod

from attnprof.core.crosscheck import Said
from attnprof.core.signature import OpSignature

_COMPLEX = "a complex multiply-add is 8 FLOPs, and is counted as if it were real"
_GROUPS = "the gradient of a grouped convolution's weights is multiplied by its groups, so it is too high"
_BROADCAST = "batch dimensions that only the second operand has are left out"
_TWO = "the formula that is registered there is not the one that attnprof was given"
_EINSUM = "an einsum is counted as numpy's best order of contractions, not as the ops that run"


def of_op(op: OpSignature, matmul: int, theirs: int) -> str | None:
    """Why another counter says ``theirs`` FLOPs of a contraction that has ``matmul``; None for no reason known."""
    if _is_complex(op) and 4 * theirs == matmul:
        return _COMPLEX
    if op.packet == "aten.convolution_backward" and theirs - matmul == _excess_of_groups(op):
        return _GROUPS
    if not op.op.startswith(("aten.", "prims.", "higher_order.")):
        return _TWO
    return None


def of_node(said: Said, matmul: int, theirs: int) -> str | None:
    """The same of a node of a trace with the ops in it."""
    if said.op == "einsum":
        return _EINSUM
    if any(map(_is_complex, said.inner or ())) and 4 * theirs == matmul:
        return _COMPLEX
    if said.op == "matmul" and theirs * _only_in_second(said) == matmul:
        return _BROADCAST
    return None


def _is_complex(op: OpSignature) -> bool:
    return any(t.is_complex for t in op.inputs)


def _excess_of_groups(op: OpSignature) -> int:
    """groups - 1 times the gradient of the weights: 2 per element of the weights, per sample and position."""
    flags = op.flags("output_mask")
    if len(flags) < 2 or not flags[1]:
        return 0
    weight, output = op.tensor("weight"), op.tensor("grad_output")
    positions = op.tensor("input") if op.number("transposed") else output
    macs = weight.numel * output.shape[0] * prod(positions.shape[2:])
    return (int(op.number("groups", 1)) - 1) * 2 * macs


def _only_in_second(said: Said) -> int:
    """How often a matmul's first operand is repeated for the second, whose batch dimensions it lacks."""
    first, second = (*said.shapes, None, None)[:2]
    if first is None or second is None:
        return 1
    batch, own = second[:-2], first[:-2]
    own = (1,) * (len(batch) - len(own)) + own
    return prod(n for n, m in zip(batch, own[len(own) - len(batch) :], strict=True) if m == 1)
