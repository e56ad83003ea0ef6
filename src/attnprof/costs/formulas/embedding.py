"""Embeddings: rows of a [V, D] table selected by indices, and their gradients, one addition per source element."""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.formulas.reduction import norm_flops
from attnprof.costs.registry import cost, movement, traffic
from attnprof.costs.traffic import default, distinct_bytes

_SUM, _MEAN, _MAX = 0, 1, 2

movement(("aten.embedding",))


def _selected_bytes(op: OpSignature) -> int:
    """The distinct rows the indices can select, at most all."""
    weight, n = op.tensor("weight"), op.tensor("indices").numel
    rows, width = weight.shape
    return min(n, rows) * width * weight.width


@traffic("aten.embedding")
def embedding_traffic(op: OpSignature) -> tuple[int, int]:
    """Indices and the rows they select."""
    return op.tensor("indices").bytes + _selected_bytes(op), default(op)[1]


@cost("aten.embedding_dense_backward")
def embedding_dense_backward(op: OpSignature) -> Work:
    """Each row of the gradient is added to its row of the table; scaled by frequency, also divided, and counted."""
    grad, n = op.tensor("grad_output"), op.tensor("indices").numel
    return Work(vector=grad.numel + (grad.numel + n) * bool(op.number("scale_grad_by_freq")))


@cost("aten.embedding_renorm")
def embedding_renorm(op: OpSignature) -> Work:
    """Each selected row: its norm, a comparison, max_norm / (norm + eps) 2, and a product per element."""
    table, n = op.tensor("self"), op.tensor("indices").numel
    rows, width = table.shape
    n = min(n, rows)
    return Work(vector=norm_flops(n * width, n, op.number("norm_type", 2)) + 3 * n + n * width if n * width else 0)


@traffic("aten.embedding_renorm")
def embedding_renorm_traffic(op: OpSignature) -> tuple[int, int]:
    """Indices and the rows they select, read; those rows (functional: all) written."""
    table, indices = op.tensor("self"), op.tensor("indices")
    rows, width = table.shape
    selected = min(indices.numel, rows) * width * table.width
    return indices.bytes + selected, selected if op.mutated else default(op)[1]


_BAGS = ("aten._embedding_bag", "aten._embedding_bag_forward_only")


@cost(*_BAGS)
def embedding_bag(op: OpSignature) -> Work:
    """I rows of D joined into B bags: (I - B) D additions (max: comparisons); mean: a division per result.

    Weights per sample: a product per element of a row.
    """
    n, width = op.tensor("indices").numel, op.tensor("weight").shape[1]
    results = op.out.numel
    joins = max(0, n * width - results)
    divisions = results if op.number("mode") == _MEAN else 0
    return Work(vector=joins + divisions + (n * width if op.maybe("per_sample_weights") else 0))


@traffic(*_BAGS)
def embedding_bag_traffic(op: OpSignature) -> tuple[int, int]:
    """Indices, offsets and weights per sample; the selected rows."""
    names = ("indices", "offsets", "per_sample_weights")
    return distinct_bytes(t for name in names for t in op.tensors(name)) + _selected_bytes(op), default(op)[1]


_BAG_BACKWARD = ("aten._embedding_bag_backward", "aten._embedding_bag_dense_backward")


@cost(*_BAG_BACKWARD)
def embedding_bag_backward(op: OpSignature) -> Work:
    """A bag's gradient is added to the row of each of its I indices: I D. Mean: each bag's is divided first, B D.

    Max: only one row per result takes it, B D. Weights per sample: a product for each addition. Scaled by frequency:
    a division for each, and the count.
    """
    grad, n = op.tensor("grad"), op.tensor("indices").numel
    if op.number("mode") == _MAX:
        return Work(vector=grad.numel)
    width = grad.shape[-1] if grad.shape else 1
    additions = n * width
    total = additions * (1 + (op.maybe("per_sample_weights") is not None))
    total += grad.numel if op.number("mode") == _MEAN else 0
    return Work(vector=total + (additions + n) * bool(op.number("scale_grad_by_freq")))


@cost("aten._embedding_bag_per_sample_weights_backward")
def per_sample_weights_backward(op: OpSignature) -> Work:
    """Each of I indices: the dot product of its row with its bag's gradient, 2 D - 1."""
    n, width = op.tensor("indices").numel, op.tensor("grad").shape[-1]
    return Work(vector=n * max(0, 2 * width - 1))


@traffic("aten._embedding_bag_per_sample_weights_backward")
def per_sample_weights_backward_traffic(op: OpSignature) -> tuple[int, int]:
    """The gradient, the indices, their bags, the rows they select."""
    names = ("grad", "indices", "offsets", "offset2bag")
    return distinct_bytes(t for name in names for t in op.tensors(name)) + _selected_bytes(op), default(op)[1]
