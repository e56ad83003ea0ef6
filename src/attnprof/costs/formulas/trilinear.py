"""The product of three tensors that ``nn.Bilinear`` and its gradients are made of."""

from __future__ import annotations

from collections.abc import Collection
from math import prod

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.formulas.gemm import flops_per_mac
from attnprof.costs.registry import cost


@cost("aten._trilinear")
def trilinear(op: OpSignature) -> Work:
    """sum over ``sumdim`` of i1 i2 i3, each of which lacks the dimensions of its ``expand``.

    Torch runs slice by slice along ``unroll_dim``: i1 with i2, summing what i3 has no part in, then the result
    with i3, summing the rest; the slices are added up where ``unroll_dim`` is itself summed. A step that sums
    is a contraction, one multiply-add for every index of its operands; one that does not is elementwise.
    For y = x1 W x2 (B x I, O x I x J, B x J): 2 B O I J and 2 B O J.
    """
    total = len(op.tensor("i1").shape) + len(op.ints("expand1"))
    size = [1] * total
    present: list[set[int]] = []
    for name, expand in (("i1", "expand1"), ("i2", "expand2"), ("i3", "expand3")):
        own = [d for d in range(total) if d not in op.ints(expand)]
        for d, n in zip(own, op.tensor(name).shape, strict=True):
            size[d] = n
        present.append(set(own))
    unroll = int(op.number("unroll_dim", 1))
    summed = set(op.ints("sumdim"))
    early = {d for d in summed - {unroll} if d not in present[2]}
    late = summed - {unroll} - early
    first = present[0] | present[1] | {unroll}
    second = (first - early) | present[2]

    def indices(dims: Collection[int]) -> int:
        return prod(size[d] for d in dims)

    mac = flops_per_mac(op.tensor("i1"))
    product = 6 if op.tensor("i1").is_complex else 1
    matmul = vector = 0
    for dims, contracted in ((first, early), (second, late)):
        matmul += mac * indices(dims) if contracted else 0
        vector += 0 if contracted else product * indices(dims)
    if unroll in summed:
        vector += (size[unroll] - 1) * op.out.numel * (2 if product > 1 else 1)
    return Work(matmul, max(0, vector))
