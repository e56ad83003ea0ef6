"""torch's own decompositions, priced op by op: an independent author's definition of the same ops.

Where torch defines an op as attnprof does, the parts cost exactly the whole. Where it does not, the excess of
the parts is derived beside the reason.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch._decomp import decomposition_table
from torch.fx.experimental.proxy_tensor import make_fx

from attnprof.core.cost import Cost
from attnprof.costs.pricing import price
from support import only_op, ops_of

aten = torch.ops.aten
NONE, MEAN, SUM = 0, 1, 2

#: Most cases are a [M, S] matrix of N elements; images are [B, C, P] with E elements in B·G groups.
M, S = 4, 6
N = M * S
B, C, P, G = 2, 4, 6, 2
E = B * C * P


def _n(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def _u(*shape: int) -> torch.Tensor:
    return torch.rand(shape, dtype=torch.float64) * 0.8 + 0.1


def _with(**options: Any) -> dict[str, Any]:
    return options


X, Y, GRAD, SCALAR = _n(M, S), _n(M, S), _n(M, S), _n()
LABELS = torch.tensor([0, 3, 5, 1])
MU, RSTD = _n(M, 1), _u(M, 1)
IMAGE, IMAGE_GRAD = _n(B, C, P), _n(B, C, P)
WEIGHT, BIAS, STAT, VARIANCE = _n(C), _n(C), _n(C), _u(C)
BATCH = (WEIGHT, STAT, VARIANCE, _n(C), _u(C))
ALL = [True, True, True]


def _g(reduction: int) -> torch.Tensor:
    return GRAD if reduction == NONE else SCALAR


#: (op, arguments): the parts cost the whole.
EQUAL: list[tuple[Any, tuple[Any, ...]]] = [
    (aten.silu_backward.default, (GRAD, X)),
    (aten.hardswish.default, (X,)),
    (aten.hardswish_backward.default, (GRAD, X)),
    (aten.hardsigmoid.default, (X,)),
    (aten.gelu.default, (X,)),
    (aten.gelu.default, (X, _with(approximate="tanh"))),
    (aten.gelu_backward.default, (GRAD, X)),
    (aten.gelu_backward.default, (GRAD, X, _with(approximate="tanh"))),
    (aten.softplus.default, (X, 1, 20)),
    (aten.softplus.default, (X, 2, 20)),
    (aten.log_sigmoid_backward.default, (GRAD, X, _u(M, S))),
    (aten.glu.default, (X, 1)),
    (aten.leaky_relu.default, (X, 0.1)),
    (aten.leaky_relu_backward.default, (GRAD, X, 0.1, False)),
    (aten.hardtanh.default, (X,)),
    (aten.sigmoid_backward.default, (GRAD, X)),
    (aten.tanh_backward.default, (GRAD, X)),
    (aten.threshold_backward.default, (GRAD, X, 0)),
    (aten._prelu_kernel.default, (_n(2, 3, 2), _n(1, 3, 1))),
    (aten.addcmul.default, (X, Y, GRAD, _with(value=0.3))),
    (aten.addcdiv.default, (X, Y, GRAD, _with(value=0.3))),
    (aten.rsub.Scalar, (X, 2.0)),
    (aten.rsub.Tensor, (X, Y)),
    (aten._softmax.default, (X, 1, False)),
    (aten._log_softmax.default, (X, 1, False)),
    (aten._softmax_backward_data.default, (GRAD, X, 1, torch.float64)),
    (aten._log_softmax_backward_data.default, (GRAD, X, 1, torch.float64)),
    *((aten.mse_loss.default, (X, Y, r)) for r in (NONE, MEAN, SUM)),
    *((aten.mse_loss_backward.default, (_g(r), X, Y, r)) for r in (NONE, MEAN, SUM)),
    *((aten.smooth_l1_loss.default, (X, Y, r, 0.5)) for r in (NONE, MEAN, SUM)),
    *((aten.huber_loss.default, (X, Y, r, 0.5)) for r in (NONE, MEAN, SUM)),
    *((aten.soft_margin_loss.default, (X, Y, r)) for r in (NONE, MEAN, SUM)),
    *((aten.binary_cross_entropy.default, (_u(M, S), _u(M, S), None, r)) for r in (NONE, MEAN, SUM)),
    *((aten.binary_cross_entropy_backward.default, (_g(r), _u(M, S), _u(M, S), None, r)) for r in (NONE, MEAN, SUM)),
    *((aten.binary_cross_entropy_with_logits.default, (X, _u(M, S), None, None, r)) for r in (NONE, MEAN, SUM)),
    (aten.binary_cross_entropy_with_logits.default, (X, _u(M, S), _u(M, S), _u(M, S), MEAN)),
    (aten.std.correction, (X, [1])),
    (aten.linalg_vector_norm.default, (X, 2, [1])),
    (aten.linalg_vector_norm.default, (X, 3, [1])),
    (aten.linalg_vector_norm.default, (X, math.inf, [1])),
    (aten.aminmax.default, (X,)),
    (aten.trace.default, (X,)),
    (aten.baddbmm.default, (_n(2, 3, 3), _n(2, 3, 4), _n(2, 4, 3))),
    (aten.index_add.default, (X, 0, torch.tensor([0, 2]), _n(2, S))),
    (aten.index_copy.default, (X, 0, torch.tensor([0, 2]), _n(2, S))),
    (aten.slice_backward.default, (_n(2, S), [M, S], 0, 1, 3, 1)),
    (aten.select_backward.default, (_n(S), [M, S], 0, 1)),
    (aten._weight_norm_interface.default, (_n(3, 4), _n(3, 1), 0)),
    (aten._euclidean_dist.default, (_n(3, 4), _n(2, 4))),
]

#: (op, arguments, excess of the parts in vector FLOPs, why they differ).
DIFFERENT: list[tuple[Any, tuple[Any, ...], int, str]] = [
    (aten.silu.default, (X,), N, "x sigmoid(x), 5 each; the kernel and we divide: x / (1 + e^-x)"),
    (aten.mish.default, (X,), N, "its softplus compares with a threshold"),
    (aten.mish_backward.default, (GRAD, X), N, "its softplus compares with a threshold"),
    (aten.hardsigmoid_backward.default, (GRAD, X), N, "joins its two masks with an and"),
    (aten.hardtanh_backward.default, (GRAD, X, -1, 1), N, "joins its two masks with an or"),
    (aten.elu.default, (X,), 3 * N, "multiplies by alpha scale, scale and input_scale though all are 1"),
    (aten.elu.default, (X, 1.67, 1.05, 1), N, "multiplies by an input_scale of 1"),
    (aten.elu_backward.default, (GRAD, 1.67, 1.05, 1, True, X), N, "multiplies by an input_scale of 1"),
    (aten.softplus_backward.default, (GRAD, X, 1, 20), 2 * N, "multiplies by beta, twice, though it is 1"),
    (aten.softplus_backward.default, (GRAD, X, 2, 20), N, "multiplies x by beta twice"),
    (aten.glu_backward.default, (_n(M, S // 2), X, 1), N // 2, "forms g sigmoid(b) twice"),
    (aten._prelu_kernel_backward.default, (_n(2, 3), _n(2, 3), _n(3)), 2 * 3, "compares twice"),
    (aten.addcmul.default, (X, Y, GRAD), N, "multiplies by a value of 1"),
    (aten.addcdiv.default, (X, Y, GRAD), N, "multiplies by a value of 1"),
    (aten.lerp.Scalar, (X, Y, 0.3), 3, "chooses a formula by |w| >= 1/2: abs, compare, 1 - w of one number"),
    (aten.lerp.Tensor, (X, Y, GRAD), 3 * N, "chooses a formula by |w| >= 1/2: abs, compare, 1 - w of each"),
    (aten.xlogy.Tensor, (X, _u(M, S)), N, "tests for nan"),
    (aten.logsumexp.default, (X, [1]), 2 * M, "tests the maximum for infinity: abs, compare"),
    (aten._safe_softmax.default, (X, 1), N + M * (S - 1), "looks for masked rows: compare, all"),
    (aten.linalg_vector_norm.default, (X, 1, [1]), N + M, "raises to the power 1 and back"),
    (aten.native_dropout_backward.default, (GRAD, X > 0, 2.0), N, "multiplies by the mask; we select"),
    (aten.tril.default, (X,), 2 * N, "computes positions; index arithmetic is not counted"),
    (aten.native_layer_norm.default, (X, [S], _n(S), _n(S), 1e-5), N, "centres twice: in the variance and after it"),
    (
        aten.native_layer_norm_backward.default,
        (GRAD, X, [S], MU, RSTD, _n(S), _n(S), ALL),
        N - M,
        "multiplies every g by S and divides once per row; we divide two sums per row",
    ),
    (
        aten.native_batch_norm.default,
        (IMAGE, WEIGHT, BIAS, None, None, True, 0.1, 1e-5),
        E,
        "centres twice: in the variance and after it",
    ),
    (
        aten.native_batch_norm.default,
        (IMAGE, WEIGHT, BIAS, STAT, VARIANCE, False, 0.1, 1e-5),
        2 * C,
        "1 * (1 / sqrt) where we have rsqrt",
    ),
    (
        aten.native_batch_norm_backward.default,
        (IMAGE_GRAD, IMAGE, *BATCH, True, 1e-5, ALL),
        3 * C,
        "keeps x - mean and scales per channel: 6 multiplications there, ours 2 divisions and 1",
    ),
    (
        aten.native_batch_norm_backward.default,
        (IMAGE_GRAD, IMAGE, *BATCH, False, 1e-5, ALL),
        -E + 5 * C,
        "scales the sum of g (x - mean) per channel, and forms the training factors too",
    ),
    (
        aten.native_group_norm.default,
        (IMAGE, WEIGHT, BIAS, B, C, P, G, 1e-5),
        -E + B * G + 3 * B * C,
        "folds statistics and affine map into a x + b: one pass fewer, factors per channel",
    ),
    *(
        (aten.nll_loss_forward.default, (X, LABELS, None, r, -100), 2 * M if r == NONE else 3 * M + M - 1, why)
        for r, why in [(NONE, "tests for ignore_index"), (MEAN, "and counts the rest"), (SUM, "and counts the rest")]
    ),
    (
        aten.nll_loss_backward.default,
        (SCALAR, X, LABELS, None, MEAN, -100, SCALAR),
        2 * M + N - 1,
        "tests for ignore_index and multiplies every entry; its -1 is a constant",
    ),
    *((aten.smooth_l1_loss.default, (X, Y, r, 1), N, "divides by a beta of 1") for r in (NONE, MEAN, SUM)),
    *((aten.huber_loss.default, (X, Y, r, 1), N, "multiplies by a delta of 1") for r in (NONE, MEAN, SUM)),
    (
        aten.smooth_l1_loss_backward.default,
        (SCALAR, X, Y, MEAN, 0.5),
        1,
        "abs, sign and a product for our two comparisons and neg; scales the 0-dim g once, and d by g/beta anew",
    ),
    (
        aten.huber_loss_backward.default,
        (SCALAR, X, Y, MEAN, 0.5),
        -2 * N + 4,
        "scales the 0-dim g by 1/n and delta (4 in all); broadcast operands are not hoisted here",
    ),
    (
        aten.embedding_dense_backward.default,
        (GRAD, LABELS, 7, -1, False),
        5 * M,
        "tests each index for padding and range",
    ),
    (aten.addmm.default, (_n(5), X, _n(S, 5)), 5 + M * 5, "multiplies by beta and alpha though both are 1"),
    (aten.addmv.default, (_n(M), X, _n(S)), M + M, "multiplies by beta and alpha though both are 1"),
]

#: (op, arguments, vector FLOPs of the parts): products written as sums take 2K - 1; a contraction counts 2K.
CONTRACTIONS: list[tuple[Any, tuple[Any, ...], int, int]] = [
    (aten.dot.default, (_n(S), _n(S)), 2 * S - 1, 2 * S),
    (aten.mv.default, (X, _n(S)), M * (2 * S - 1), M * 2 * S),
]


def _both(op: Any, args: tuple[Any, ...]) -> tuple[Cost, Cost]:
    """The cost of the op, and of the ops of its decomposition."""
    options = args[-1] if isinstance(args[-1], dict) else {}
    args = args[:-1] if options else args
    whole = price(only_op(lambda: op(*args, **options), str(op)))
    assert whole.status == "priced"
    graph = make_fx(lambda *a: op(*a, **options), decomposition_table={op: decomposition_table[op]})(*args)
    parts = [price(part) for part in ops_of(lambda: graph(*args))]
    assert op not in {node.target for node in graph.graph.nodes}
    assert [part.signature.op for part in parts if part.status == "unpriced"] == []
    return whole.cost, Cost.sum(part.cost for part in parts)


def _label(value: Any) -> str | None:
    return str(value) if hasattr(value, "_schema") else None


@pytest.mark.parametrize(("op", "args"), EQUAL, ids=_label)
def test_the_parts_cost_the_whole(op: Any, args: tuple[Any, ...]) -> None:
    whole, parts = _both(op, args)
    assert (parts.matmul_flops, parts.vector_flops) == (whole.matmul_flops, whole.vector_flops)


@pytest.mark.parametrize(("op", "args", "excess", "reason"), DIFFERENT, ids=_label)
def test_the_excess_of_the_parts_is_what_they_do_more(op: Any, args: tuple[Any, ...], excess: int, reason: str) -> None:
    whole, parts = _both(op, args)
    assert parts.matmul_flops == whole.matmul_flops
    assert parts.vector_flops - whole.vector_flops == excess, reason


@pytest.mark.parametrize(("op", "args", "parts_vector", "whole_matmul"), CONTRACTIONS, ids=_label)
def test_contractions_accumulate_onto_zero(
    op: Any, args: tuple[Any, ...], parts_vector: int, whole_matmul: int
) -> None:
    whole, parts = _both(op, args)
    assert (parts.matmul_flops, parts.vector_flops) == (0, parts_vector)
    assert (whole.matmul_flops, whole.vector_flops) == (whole_matmul, 0)
