"""Softmax: M rows of S elements, N = M S."""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.registry import cost


def rows(op: OpSignature, x: TensorMeta) -> int:
    """M: the rows along ``dim``, each of at least one element. Of a nested tensor, over all pieces."""
    if x.layout == "nested":
        for dims in (2, 3, 4, 1):
            pieces = x.pieces(dims)
            dim = int(op.number("dim", -1))
            if pieces is not None and -dims - 1 <= dim <= dims:
                axis = dim if dim < 0 else dim - 1
                return sum(_product(p) // max(p[axis], 1) for p in pieces)
    if not x.shape:
        return 1
    return x.numel // max(x.shape[int(op.number("dim", -1))], 1)


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


@cost("aten._softmax", "aten._safe_softmax", "aten._masked_softmax")
def softmax(op: OpSignature) -> Work:
    """max S - 1, x - max S, exp S, sum S - 1, division S: 5 S - 2 per row; masks select."""
    x = op.tensor("self")
    return Work(vector=5 * x.numel - 2 * rows(op, x))


@cost("aten._log_softmax")
def log_softmax(op: OpSignature) -> Work:
    """max S - 1, x - max S, exp S, sum S - 1, log, subtraction S: 5 S - 1 per row."""
    x = op.tensor("self")
    return Work(vector=5 * x.numel - rows(op, x))


@cost(
    "aten._softmax_backward_data",
    "aten._log_softmax_backward_data",
    "aten._masked_softmax_backward",
    "aten._nested_softmax_backward",
)
def softmax_backward(op: OpSignature) -> Work:
    """y (g - sum(g y)): product S, sum S - 1, subtraction S, product S: 4 S - 1 per row.

    Log: g - exp(y) sum(g): sum S - 1, exp S, product S, subtraction S: the same.
    """
    grad = op.tensor("grad_output" if "grad_output" in op else "grad")
    return Work(vector=4 * grad.numel - rows(op, grad))
