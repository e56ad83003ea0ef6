"""Dense contractions: every output element of an [m, k] x [k, n] product takes k multiply-adds."""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.registry import cost


def flops_per_mac(tensor: TensorMeta) -> int:
    """2 for a real multiply-add; 8 for a complex one (4 mul, 2 add, 2 add)."""
    return 8 if tensor.is_complex else 2


@cost("aten.mm")
def mm(op: OpSignature) -> Work:
    """[m, k] x [k, n]: m n outputs of k multiply-adds each."""
    a, b = op.tensor("self"), op.tensor("mat2")
    return Work(matmul=flops_per_mac(a) * a.shape[0] * a.shape[1] * b.shape[1])
