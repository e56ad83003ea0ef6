"""Pairwise distances: by differences (vector work), or through one product when the sets are large."""

from __future__ import annotations

from math import inf

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.registry import cost


def _per_pair(p: float, features: int) -> int:
    """Distance of one pair of points: sum over features of |x - y|^p, then its p-th root.

    p = 2: subtract, square, add, and the root: 3M. p = 0, 1 and inf: subtract, compare with 0 (absolute value),
    add (take the greater): 3M - 1. Any other: subtract, absolute value, power, add, and the root: 4M.
    """
    if not features:
        return 0
    return {2: 3 * features, 0: 3 * features - 1, 1: 3 * features - 1, inf: 3 * features - 1}.get(p, 4 * features)


def _gradient_per_pair(p: float, features: int) -> int:
    """What one pair contributes to the gradient of one point, before it is added to the others'.

    p = 2: the factor g / d once, then subtract and multiply: 2M + 1. p = 1: subtract, sign, multiply: 3M.
    p = inf: subtract, absolute value, compare with d, sign, multiply: 5M. p = 0: nothing. Any other: g / d^(p-1)
    once, 2; subtract, absolute value, its power p - 2, two products: 5M + 2.
    """
    if not features:
        return 0
    return {2: 2 * features + 1, 1: 3 * features, inf: 5 * features, 0: 0}.get(p, 5 * features + 2)


@cost("aten._euclidean_dist")
def euclidean_dist(op: OpSignature) -> Work:
    """|x|^2 + |y|^2 - 2 x y as one product: [P, M + 2] x [M + 2, R], the rows being (-2x, |x|^2, 1) and (y, 1, |y|^2).

    Vector: the squared norms, 2M - 1 per point; -2x, M per point; a clamp at 0 and the root, 2 per pair.
    """
    x, y = op.tensor("x1"), op.tensor("x2")
    m = x.shape[-1]
    points = (x.numel + y.numel) // m if m else 0
    vector = points * (2 * m - 1) + x.numel + 2 * op.out.numel
    return Work(2 * op.out.numel * (m + 2), vector)


@cost("aten._cdist_forward")
def cdist_forward(op: OpSignature) -> Work:
    """Every pair of the two sets by differences."""
    return Work(vector=op.out.numel * _per_pair(op.number("p", 2), op.tensor("x1").shape[-1]))


@cost("aten._cdist_backward")
def cdist_backward(op: OpSignature) -> Work:
    """The gradient of x1: each pair's part, and the sum of R parts for each of the P points, R - 1 additions."""
    grad, x, p = _grad(op), op.tensor("x1"), op.number("p", 2)
    parts = grad.numel * x.shape[-1]  # every pair has a part for every feature
    sums = 0 if p == 0 else max(0, parts - op.out.numel)
    return Work(vector=grad.numel * _gradient_per_pair(p, x.shape[-1]) + sums)


@cost("aten._pdist_forward")
def pdist_forward(op: OpSignature) -> Work:
    """Every pair of n points once: n (n - 1) / 2."""
    return Work(vector=op.out.numel * _per_pair(op.number("p", 2), op.tensor("self").shape[-1]))


@cost("aten._pdist_backward")
def pdist_backward(op: OpSignature) -> Work:
    """A pair's part is added to one point and subtracted from the other: n - 1 parts a point, n - 2 additions,
    and a negation for each pair and feature."""
    grad, x, p = _grad(op), op.tensor("self"), op.number("p", 2)
    parts = grad.numel * x.shape[-1]
    sums = 0 if p == 0 else parts + max(0, 2 * parts - x.numel)
    return Work(vector=grad.numel * _gradient_per_pair(p, x.shape[-1]) + sums)


def _grad(op: OpSignature) -> TensorMeta:
    """The gradient of the distances, which has another name since PyTorch 2.15."""
    return op.tensor("grad" if "grad" in op else "grad_output")
