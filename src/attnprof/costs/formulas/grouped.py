"""Grouped products: several GEMMs of unequal size in one call, their ends given as offsets (mixture of experts)."""

from __future__ import annotations

from itertools import pairwise

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.formulas.gemm import flops_per_mac
from attnprof.costs.formulas.quantized import scaling
from attnprof.costs.registry import cost, traffic
from attnprof.costs.traffic import default, distinct_bytes

_GROUPED = ("aten._grouped_mm", "aten._scaled_grouped_mm", "aten._scaled_grouped_mm_v2")


def _group_sizes(op: OpSignature, along: int) -> tuple[int, ...]:
    """The size of each group; ``along`` in one group when the offsets' values are not known (fake tensors)."""
    offsets = op.maybe("offs")
    if offsets is None or offsets.values is None:
        return (along,)
    ends = (0, *offsets.values)
    return tuple(max(end - start, 0) for start, end in pairwise(ends))


def _packed(tensor: TensorMeta) -> int:
    """Numbers per stored element along the contraction: fp4 holds two to a byte."""
    return 2 if tensor.dtype == "float4_e2m1fn_x2" else 1


@cost(*_GROUPED)
def grouped_mm(op: OpSignature) -> Work:
    """Products of the groups, each counted as one mm; what lies beyond the last offset is not computed.

    [M, k] x [G, k, n]: the offsets cut the rows M: 2 k n offs[-1].
    [G, m, k] x [k, N]: they cut the columns N: 2 m k offs[-1].
    [m, K] x [K, n]: they cut the contraction K, and G products are kept: 2 m n offs[-1].
    [G, m, k] x [G, k, n]: no offsets, a bmm.
    Vector: a bias adds, the scales of quantised operands multiply, once per computed output.
    """
    a, b = op.tensor("self"), op.tensor("mat2")
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    match len(a.shape), len(b.shape):
        case 2, 3:
            m = sum(_group_sizes(op, m))
            outputs = m * n
        case 3, 2:
            n = sum(_group_sizes(op, n))
            outputs = m * n
        case 2, 2:
            k = sum(_group_sizes(op, k))
            outputs = op.out.numel
        case _:
            m *= a.shape[0]
            outputs = m * n
    vector = outputs if op.maybe("bias") else 0
    if op.packet != "aten._grouped_mm":
        vector += scaling(op, outputs)
    return Work(flops_per_mac(a) * m * k * n * _packed(a), vector)


@traffic(*_GROUPED)
def grouped_traffic(op: OpSignature) -> tuple[int, int]:
    """Rows, columns or contraction up to the last offset, and the matrices of the groups that have any."""
    a, b = op.tensor("self"), op.tensor("mat2")
    offsets = op.maybe("offs")
    if offsets is None or offsets.values is None:
        return default(op)
    read, written = default(op)
    sizes = _group_sizes(op, 0)
    used, busy, groups = sum(sizes), sum(1 for size in sizes if size), len(sizes)
    match len(a.shape), len(b.shape):
        case 2, 3:
            cut, full, whole = a, b, a.shape[0]
        case 3, 2:
            cut, full, whole = b, a, b.shape[-1]
        case _:
            whole = a.shape[-1]
            skipped = distinct_bytes([a, b]) * (whole - used) // max(whole, 1)
            return read - skipped, written
    read -= cut.bytes * (whole - used) // max(whole, 1)
    read -= full.bytes * (groups - busy) // max(groups, 1)
    return read, written * used // max(whole, 1)
