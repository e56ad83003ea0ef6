"""Dense contractions: every output element of an [m, k] x [k, n] product takes k multiply-adds.

A bias is vector work, one addition per output; so is a scale that is not 1. The same ops take sparse and
nested operands: then the multiply-adds are those of the stored entries, or of each piece.
"""

from __future__ import annotations

from math import prod

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.registry import cost, traffic
from attnprof.costs.traffic import default, distinct_bytes


def flops_per_mac(tensor: TensorMeta) -> int:
    """2 for a real multiply-add; 8 for a complex one (4 mul, 2 add, 2 add)."""
    return 8 if tensor.is_complex else 2


def is_sparse(tensor: TensorMeta) -> bool:
    """Whether only some entries are stored (COO, CSR, CSC, BSR, BSC)."""
    return tensor.layout.startswith("sparse")


def multiply_adds(a: TensorMeta, b: TensorMeta, out: TensorMeta) -> int:
    """Multiply-adds of ``a @ b``, vectors and broadcast batches included.

    Dense: each output sums over a's last dimension. Sparse x dense: each stored entry of a meets the n
    columns of b, each stored entry of b the m rows of a (a block layout stores, and multiplies, its zeros).
    Sparse x sparse depends on where the entries are: the nnz_a entries of a meet nnz_b / k entries of b
    each when b's are spread evenly over its k rows; that mean, rounded down, is the convention here.
    """
    if "nested" in (a.layout, b.layout):
        return sum(prod(o) * x[-1] for x, o in zip(*_matching_pieces(a, b, out), strict=True))
    k = a.shape[-1]
    if a.nnz is not None and b.nnz is not None:
        return a.nnz * b.nnz // max(k, 1)
    if a.nnz is not None:
        return a.nnz * (b.shape[-1] if len(b.shape) > 1 else 1)
    if b.nnz is not None:
        return b.nnz * (a.shape[-2] if len(a.shape) > 1 else 1)
    return out.numel * k


def _matching_pieces(
    a: TensorMeta, b: TensorMeta, out: TensorMeta
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The piece shapes of a nested ``a`` (or of a dense ``a``, row by row of its batch) and of ``out``.

    A signature lists the sizes of all pieces in one row; how many belong to a piece is the number that
    makes the elements add up and the shapes fit the product.
    """
    for dims in range(2, 6):
        outs = out.pieces(dims)
        if outs is None:
            continue
        lefts = a.pieces(dims) if a.layout == "nested" else [a.shape[1:]] * len(outs)
        rights = b.pieces(dims) if b.layout == "nested" else [b.shape[-2:]] * len(outs)
        if lefts and rights and len(lefts) == len(rights) == len(outs):
            fits = (
                x[-1] == y[-2] and o[-1] == y[-1] for x, y, o in zip(lefts, rights, outs, strict=True) if len(y) > 1
            )
            if dims > 1 and all(fits):
                return lefts, outs
    raise ValueError(f"the pieces of {a}, {b} and {out} do not form a product")


def scaled_bias(op: OpSignature, n: int) -> int:
    """Vector FLOPs of beta * self + alpha * product over n outputs.

    The addition (none when beta is 0: self is not used then), and one multiplication per output for
    each of alpha and beta that is neither 1 nor, for beta, 0. A complex addition or real scale is 2.
    """
    alpha, beta = op.number("alpha", 1), op.number("beta", 1)
    per_output = int(beta != 0) + int(alpha != 1) + int(beta not in (0, 1))
    return n * per_output * (2 if op.out.is_complex else 1)


@cost("aten.mm", "aten.bmm")
def mm(op: OpSignature) -> Work:
    """[m, k] x [k, n]: m n outputs of k multiply-adds each; bmm does so for each of the batch."""
    a, b = op.tensor("self"), op.tensor("mat2")
    return Work(matmul=flops_per_mac(a) * multiply_adds(a, b, op.out))


@cost("aten._foreach_mm")
def foreach_mm(op: OpSignature) -> Work:
    """One mm per pair of the two lists."""
    triples = zip(op.tensors("self"), op.tensors("mat2"), op.outs, strict=True)
    return Work(matmul=sum(flops_per_mac(a) * multiply_adds(a, b, out) for a, b, out in triples))


@cost("aten.addmm")
def addmm(op: OpSignature) -> Work:
    """self + mat1 @ mat2: the product, and the bias as vector work."""
    a, b = op.tensor("mat1"), op.tensor("mat2")
    return Work(flops_per_mac(a) * multiply_adds(a, b, op.out), scaled_bias(op, op.out.numel))


@cost("aten._addmm_activation")
def addmm_activation(op: OpSignature) -> Work:
    """addmm followed by relu (1 per output) or gelu.

    On CUDA the epilogue is the tanh gelu (9: the cube is 2 multiplications, then 2 for the inner sum with
    its constant, the scale, tanh, 1 +, and 2 products), elsewhere the erf gelu (5: scale, erf, 1 +, x, half).
    """
    linear, n = addmm(op), op.out.numel
    gelu = 9 if op.out.device.startswith("cuda") else 5
    return Work(linear.matmul, linear.vector + n * (gelu if op.number("use_gelu") else 1))


@cost("aten.baddbmm", "aten.addbmm")
def baddbmm(op: OpSignature) -> Work:
    """[b, m, k] x [b, k, n]; addbmm also sums over b, which makes its outputs contractions over b k."""
    a, b = op.tensor("batch1"), op.tensor("batch2")
    return Work(flops_per_mac(a) * a.numel * b.shape[-1], scaled_bias(op, op.out.numel))


@cost("aten.mv")
def mv(op: OpSignature) -> Work:
    """[m, k] x [k]."""
    a = op.tensor("self")
    return Work(matmul=flops_per_mac(a) * multiply_adds(a, op.tensor("vec"), op.out))


@cost("aten.addmv")
def addmv(op: OpSignature) -> Work:
    """self + mat @ vec."""
    a = op.tensor("mat")
    return Work(flops_per_mac(a) * multiply_adds(a, op.tensor("vec"), op.out), scaled_bias(op, op.out.numel))


@cost("aten.dot", "aten.vdot")
def dot(op: OpSignature) -> Work:
    """One output of n multiply-adds."""
    a = op.tensor("self")
    return Work(matmul=flops_per_mac(a) * a.numel)


@cost("aten.addr")
def addr(op: OpSignature) -> Work:
    """self + vec1 vec2^T: an [m, 1] x [1, n] product and its bias."""
    a = op.tensor("vec1")
    return Work(flops_per_mac(a) * op.out.numel, scaled_bias(op, op.out.numel))


@traffic(
    "aten.addmm",
    "aten._addmm_activation",
    "aten.baddbmm",
    "aten.addbmm",
    "aten.addmv",
    "aten.addr",
    "aten._sparse_addmm",
)
def bias_traffic(op: OpSignature) -> tuple[int, int]:
    """The default rule, without reading self when beta is 0 (in place, it is then only written)."""
    reads, writes = default(op)
    if op.number("beta", 1) == 0:
        reads = distinct_bytes(t for name, _ in op.args if name not in ("self", "out") for t in op.tensors(name))
    return reads, writes


@cost("aten.linear", "aten.mkldnn_linear")
def linear(op: OpSignature) -> Work:
    """input [..., k] x weight [n, k]^T, and the bias. Composites arrive so only with nested or opaque operands."""
    x = op.maybe("input") or op.tensor("self")
    weight, bias = op.tensor("weight"), op.maybe("bias")
    k = weight.shape[-1]
    per_row = weight.nnz if weight.nnz is not None else weight.numel
    rows = x.numel // k if k else 0
    return Work(flops_per_mac(x) * rows * per_row, op.out.numel * (2 if x.is_complex else 1) if bias else 0)


@cost("aten.linear_backward", "aten.mkldnn_linear_backward")
def linear_backward(op: OpSignature) -> Work:
    """dX = dY W and dW = dY^T X, each as many multiply-adds as the forward; db sums the rows of dY."""
    x, grad, weight = op.tensor("self"), op.tensor("grad_output"), op.tensor("weight")
    to_input, to_weight, to_bias = op.flags("output_mask")
    rows = x.numel // weight.shape[-1] if weight.shape[-1] else 0
    bias = max(rows - 1, 0) * (grad.numel // rows) if rows and to_bias else 0
    return Work(flops_per_mac(x) * rows * weight.numel * (to_input + to_weight), bias)


@traffic("aten.linear_backward", "aten.mkldnn_linear_backward")
def linear_backward_traffic(op: OpSignature) -> tuple[int, int]:
    """dY always; X for dW; W for dX."""
    to_input, to_weight, _ = op.flags("output_mask")
    read = [op.tensor("grad_output")]
    read += [op.tensor("weight")] if to_input else []
    read += [op.tensor("self")] if to_weight else []
    return distinct_bytes(read), default(op)[1]


@cost("aten.mkldnn_linear_backward_input")
def mkldnn_linear_backward_input(op: OpSignature) -> Work:
    """dX = dY W."""
    grad, weight = op.tensor("grad_output"), op.tensor("weight")
    return Work(matmul=2 * grad.numel * weight.shape[-1])


@cost("aten.mkldnn_linear_backward_weights")
def mkldnn_linear_backward_weights(op: OpSignature) -> Work:
    """dW = dY^T X, and db sums the rows of dY."""
    grad, x = op.tensor("grad_output"), op.tensor("input")
    bias = grad.numel - grad.shape[-1] if op.number("bias_defined") and grad.numel else 0
    return Work(2 * grad.numel * x.shape[-1], bias)


@cost("aten.matmul")
def matmul(op: OpSignature) -> Work:
    """Any ``@``: each output sums over the last dimension of self."""
    a = op.tensor("self")
    return Work(matmul=flops_per_mac(a) * multiply_adds(a, op.tensor("other"), op.out))


@cost("aten.matmul_backward")
def matmul_backward(op: OpSignature) -> Work:
    """d self = grad @ other^T and d other = self^T @ grad: the forward's multiply-adds for each asked for."""
    a, asked = op.tensor("self"), sum(op.flags("mask"))
    return Work(matmul=flops_per_mac(a) * asked * multiply_adds(a, op.tensor("other"), op.tensor("grad")))


@traffic("aten.matmul_backward")
def matmul_backward_traffic(op: OpSignature) -> tuple[int, int]:
    """grad always; each operand only for the other's gradient."""
    to_self, to_other = op.flags("mask")
    read = [op.tensor("grad")] if to_self or to_other else []
    read += [op.tensor("other")] if to_self else []
    read += [op.tensor("self")] if to_other else []
    return distinct_bytes(read), default(op)[1]
