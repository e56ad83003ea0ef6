"""Sparse tensors: the work of the stored entries (nnz), and the data that conversions move.

Products of a sparse and a dense operand take nnz x n multiply-adds; mm, addmm, bmm and mv with such operands
are priced in ``gemm`` by the same rule. Bytes are those of values and indices (the default rule).
"""

from __future__ import annotations

from math import prod

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.formulas.gemm import flops_per_mac, multiply_adds, scaled_bias
from attnprof.costs.formulas.quantized import ACTIVATIONS
from attnprof.costs.registry import cost, free, movement, traffic
from attnprof.costs.traffic import default, distinct_bytes, stored_bytes


def _entries(tensor: TensorMeta) -> int:
    return tensor.numel if tensor.nnz is None else tensor.nnz


@cost("aten._sparse_addmm")
def sparse_addmm(op: OpSignature) -> Work:
    """self + mat1 @ mat2 with mat1 sparse; ``torch.sparse.mm`` arrives as this with beta = 0."""
    a, b = op.tensor("mat1"), op.tensor("mat2")
    return Work(flops_per_mac(a) * multiply_adds(a, b, op.out), scaled_bias(op, op.out.numel))


@cost("aten.hspmm")
def hspmm(op: OpSignature) -> Work:
    """Sparse x dense into a tensor of dense rows."""
    a, b = op.tensor("mat1"), op.tensor("mat2")
    return Work(matmul=flops_per_mac(a) * _entries(a) * b.shape[-1])


@cost("aten._sparse_sparse_matmul")
def sparse_sparse_matmul(op: OpSignature) -> Work:
    """[m, k] x [k, n], both sparse. A model: exact needs the positions, sum over k of nnz(column) nnz(row).

    From the counts alone: nnz_a nnz_b / k multiply-adds, rounded down, their mean over evenly spread entries.
    """
    a, b = op.tensor("self"), op.tensor("other")
    return Work(matmul=flops_per_mac(a) * multiply_adds(a, b, op.out))


@cost("aten.sparse_sampled_addmm")
def sparse_sampled_addmm(op: OpSignature) -> Work:
    """alpha (mat1 @ mat2) at the entries of self, plus beta self: k multiply-adds per entry."""
    a, nnz = op.tensor("mat1"), _entries(op.tensor("self"))
    return Work(flops_per_mac(a) * nnz * a.shape[-1], scaled_bias(op, nnz))


@cost("aten._sparse_mm_reduce_impl")
def sparse_mm_reduce(op: OpSignature) -> Work:
    """Each entry times its row of the dense operand, reduced: sum and mean are products; max and min compare.

    Mean also divides every output; with max or min the nnz n products and comparisons are vector work.
    """
    a, b, reduce = op.tensor("self"), op.tensor("other"), op.value("reduce")
    products = _entries(a) * b.shape[-1]
    if reduce in ("amax", "amin", "max", "min"):
        return Work(vector=2 * products)
    return Work(2 * products, op.out.numel if reduce == "mean" else 0)


@cost("aten._sparse_mm_reduce_impl_backward")
def sparse_mm_reduce_backward(op: OpSignature) -> Work:
    """The gradient of the entries samples dY other^T, that of the dense operand is self^T dY: nnz n each."""
    products = _entries(op.tensor("self")) * op.tensor("grad_out").shape[-1]
    flops = 2 * products * sum(op.flags("output_mask"))
    return Work(vector=flops) if op.value("reduce") in ("amax", "amin", "max", "min") else Work(flops)


def _rows(op: OpSignature, x: TensorMeta) -> int:
    """Rows a softmax along ``dim`` runs over: at most one per stored entry, and none that is empty."""
    dim = int(op.number("dim"))
    return min(x.numel // max(x.shape[dim], 1), _entries(x)) if x.shape else 0


@cost("aten._sparse_softmax")
def sparse_softmax(op: OpSignature) -> Work:
    """5 per stored entry less 2 per row (5S - 2 for a row of S), as if no row were empty."""
    x = op.tensor("self")
    return Work(vector=5 * _entries(x) - 2 * _rows(op, x))


@cost("aten._sparse_log_softmax")
def sparse_log_softmax(op: OpSignature) -> Work:
    """5S - 1 for a row of S stored entries, as if no row were empty."""
    x = op.tensor("self")
    return Work(vector=5 * _entries(x) - _rows(op, x))


@cost("aten._sparse_softmax_backward_data", "aten._sparse_log_softmax_backward_data")
def sparse_softmax_backward(op: OpSignature) -> Work:
    """4S - 1 for a row of S stored entries, as for the dense ones."""
    x = op.tensor("output")
    return Work(vector=4 * _entries(x) - _rows(op, x))


@cost("aten._sparse_sum", "aten._sparse_csr_sum", "aten._sparse_csr_prod", "aten._coalesce")
def sparse_reduction(op: OpSignature) -> Work:
    """Stored entries that are combined: one operation for each that disappears into another."""
    return Work(vector=max(0, _entries(op.tensor("self")) - _entries(op.out)))


@cost("aten._sparse_semi_structured_linear")
def semi_structured_linear(op: OpSignature) -> Work:
    """x [.., k] times a 2:4 weight stored as [n, k / 2]: half the dense product, bias and activation fused."""
    x, weight, n = op.tensor("input"), op.tensor("weight"), op.out.numel
    rows = x.numel // x.shape[-1] if x.shape[-1] else 0
    per_output = int(op.maybe("bias") is not None) + ACTIVATIONS[str(op.value("activation"))]
    return Work(2 * rows * weight.numel, n * per_output)


@cost("aten._sparse_semi_structured_mm", "aten._sparse_semi_structured_addmm")
def semi_structured_mm(op: OpSignature) -> Work:
    """A 2:4 mat1 stored as [m, k / 2] times dense [k, n]: m (k / 2) n multiply-adds, and addmm's bias."""
    a, b = op.tensor("mat1"), op.tensor("mat2")
    return Work(2 * a.numel * b.shape[-1], scaled_bias(op, op.out.numel) if "addmm" in op.packet else 0)


@cost("aten._cslt_sparse_mm")
def cslt_sparse_mm(op: OpSignature) -> Work:
    """The same through cuSPARSELt, whose operand is packed: k / 2 multiply-adds per output, k from the dense one."""
    per_output = int(op.maybe("bias") is not None) + int(op.maybe("alpha") is not None)
    return Work(op.out.numel * op.tensor("dense_B").shape[0], op.out.numel * per_output)


movement(
    (
        "aten._to_sparse",
        "aten._to_sparse_csr",
        "aten._to_sparse_csc",
        "aten._to_sparse_bsr",
        "aten._to_sparse_bsc",
        "aten._to_dense",
        "aten.sparse_mask",
        "aten._sparse_mask_projection",
        "aten._sparse_sum_backward",
        "aten._sparse_broadcast_to_copy",
        "aten.copy_sparse_to_sparse",
        "aten._convert_indices_from_coo_to_csr",
        "aten._convert_indices_from_csr_to_coo",
        "aten._validate_compressed_sparse_indices",
        "aten._to_sparse_semi_structured",
        "aten._sparse_semi_structured_tile",
        "aten._sparse_semi_structured_apply",
        "aten._sparse_semi_structured_apply_dense",
        "aten._cslt_compress",
    )
)

free(
    (
        "aten.sparse_coo_tensor",
        "aten._sparse_coo_tensor_with_dims",
        "aten._sparse_coo_tensor_with_dims_and_tensors",
        "aten._sparse_compressed_tensor_with_dims",
        "aten.sparse_compressed_tensor",
        "aten._sparse_compressed_tensor_unsafe",
        "aten._sparse_coo_tensor_unsafe",
        "aten._sparse_broadcast_to",
        "aten._coalesced",
        "aten._indices",
        "aten._values",
        "aten.indices",
        "aten.values",
        "aten.crow_indices",
        "aten.col_indices",
        "aten.ccol_indices",
        "aten.row_indices",
        "aten.sparse_resize",
        "aten.sparse_resize_and_clear",
        "aten.resize_as_sparse",
        "aten._cslt_sparse_mm_search",
    ),
    "wraps or hands out the stored indices and values without touching them",
)

free(
    ("aten.is_coalesced", "aten.sparse_dim", "aten.dense_dim", "aten._dimI", "aten._dimV", "aten._nnz"),
    "a question about how a sparse tensor is stored",
)


@traffic("aten.sparse_mask")
def sparse_mask_traffic(op: OpSignature) -> tuple[int, int]:
    """Reads the indices of the mask, not its values, and the elements of self that they select."""
    x, mask = op.tensor("self"), op.tensor("mask")
    indices = stored_bytes(mask) - _entries(mask) * mask.width
    return indices + _entries(mask) * x.width, default(op)[1]


@traffic("aten._sparse_sum_backward")
def sparse_sum_backward_traffic(op: OpSignature) -> tuple[int, int]:
    """The gradient, and the indices of self, whose values are not needed."""
    x = op.tensor("self")
    return stored_bytes(op.tensor("grad")) + stored_bytes(x) - _entries(x) * x.width, default(op)[1]


@traffic("aten.sparse_sampled_addmm")
def sparse_sampled_addmm_traffic(op: OpSignature) -> tuple[int, int]:
    """Rows and columns that some entry needs (at most nnz of each), and self: its values only if beta is not 0."""
    x, a, b = op.tensor("self"), op.tensor("mat1"), op.tensor("mat2")
    nnz, k = _entries(x), a.shape[-1]
    batch = prod(a.shape[:-2])
    rows, columns = min(nnz, a.shape[-2] * batch), min(nnz, b.shape[-1] * batch)
    values = 0 if op.number("beta", 1) == 0 else nnz * x.width
    read = stored_bytes(x) - nnz * x.width + values + (rows + columns) * k * a.width
    return read, distinct_bytes(op.outs)
