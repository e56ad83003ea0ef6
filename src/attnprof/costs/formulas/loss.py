"""Losses of N elements: the arithmetic per element, then N - 1 additions for a sum, and a division for a mean.

A backward multiplies by the incoming gradient and, for a mean, by 1 / N: both per element.
"""

from __future__ import annotations

from math import prod

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.formulas.normalization import given
from attnprof.costs.registry import cost, traffic
from attnprof.costs.traffic import default, distinct_bytes, reading

_NONE, _MEAN, _SUM = 0, 1, 2


def _n(op: OpSignature) -> int:
    """Elements of the broadcast operands."""
    return max(op.tensor("self").numel, op.tensor("target").numel)


def _reduced(op: OpSignature, n: int) -> int:
    """Joining n losses: sum n - 1, mean n (a division more)."""
    return {_NONE: 0, _MEAN: n, _SUM: n - 1}[int(op.number("reduction", _MEAN))] if n else 0


def _forward(op: OpSignature, per_element: int) -> Work:
    n = _n(op)
    return Work(vector=n * per_element + _reduced(op, n))


def _backward(op: OpSignature, per_element: int) -> Work:
    """``per_element`` includes the product with g; a mean's 1 / N is one more."""
    return Work(vector=_n(op) * (per_element + (op.number("reduction", _MEAN) == _MEAN)))


@cost("aten.mse_loss")
def mse_loss(op: OpSignature) -> Work:
    """(x - t)^2: 2."""
    return _forward(op, 2)


@cost("aten.mse_loss_backward")
def mse_loss_backward(op: OpSignature) -> Work:
    """c (x - t) g: 3, the constant c being 2 or 2 / N."""
    return Work(vector=3 * _n(op))


@cost("aten.smooth_l1_loss")
def smooth_l1_loss(op: OpSignature) -> Work:
    """d = |x - t| 2, a comparison with beta, d d / 2 / beta 3, d - beta / 2 1: 7; 6 where beta is 1."""
    return _forward(op, 6 + (op.number("beta", 1) != 1))


@cost("aten.huber_loss")
def huber_loss(op: OpSignature) -> Work:
    """d = |x - t| 2, a comparison with delta, d d / 2 2, delta (d - delta / 2) 2: 7; 6 where delta is 1."""
    return _forward(op, 6 + (op.number("delta", 1) != 1))


@cost("aten.smooth_l1_loss_backward", "aten.huber_loss_backward")
def huber_loss_backward(op: OpSignature) -> Work:
    """d = x - t, |d|, a comparison, the sign, g: 5. Smooth l1 divides d by beta, huber scales the sign by delta."""
    return _backward(op, 5 + (op.number("beta" if "beta" in op else "delta", 1) != 1))


@cost("aten.binary_cross_entropy")
def binary_cross_entropy(op: OpSignature) -> Work:
    """(t - 1) max(log1p(-x), -100) - t max(log x, -100): sub, neg, log1p, max, mul; log, max, mul; sub: 9. Weight 1."""
    return _forward(op, 9 + given(op, "weight"))


@cost("aten.binary_cross_entropy_backward")
def binary_cross_entropy_backward(op: OpSignature) -> Work:
    """g (x - t) / max(x (1 - x), eps): sub, sub, mul, max, mul, div: 6. A weight 1."""
    return _backward(op, 6 + given(op, "weight"))


@cost("aten.binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(op: OpSignature) -> Work:
    """(1 - t) x - log sigmoid(x): 2, then 6 (min, abs, neg, exp, log1p, sub), then 1: 9. A weight 1.

    pos_weight p scales the logarithm by (p - 1) t + 1: 4 more.
    """
    return _forward(op, 9 + given(op, "weight") + 4 * given(op, "pos_weight"))


@cost("aten.soft_margin_loss")
def soft_margin_loss(op: OpSignature) -> Work:
    """log1p(exp(-t x)): neg, mul, exp, log1p."""
    return _forward(op, 4)


@cost("aten.soft_margin_loss_backward")
def soft_margin_loss_backward(op: OpSignature) -> Work:
    """z = exp(-t x) 3; -t g z / (z + 1): the negative of t is kept; two products, an addition, a division."""
    return _backward(op, 7)


_NLL = ("aten.nll_loss_forward", "aten.nll_loss2d_forward")
_NLL_BACKWARD = ("aten.nll_loss_backward", "aten.nll_loss2d_backward")


@cost(*_NLL)
def nll_loss(op: OpSignature) -> Work:
    """R targets select one log-probability each: its negative, and its weight. Sum: R - 1 additions, as many for the
    total weight. Mean: a division more. The class that is ignored is a selection."""
    r, weighted = op.tensor("target").numel, given(op, "weight")
    reduction = int(op.number("reduction", _MEAN))
    if not r:
        return Work()
    joined = 0 if reduction == _NONE else (r - 1) * (1 + weighted) + (reduction == _MEAN)
    return Work(vector=r * (1 + weighted) + joined)


@cost(*_NLL_BACKWARD)
def nll_loss_backward(op: OpSignature) -> Work:
    """Only the selected entries: -g, divided by the total weight for a mean, both once; then each target's weight."""
    r, weighted = op.tensor("target").numel, given(op, "weight")
    reduction = int(op.number("reduction", _MEAN))
    if not r:
        return Work()
    once = r if reduction == _NONE else 1 + (reduction == _MEAN)
    return Work(vector=once + r * weighted)


@traffic(*_NLL)
def nll_loss_traffic(op: OpSignature) -> tuple[int, int]:
    """The targets, the entries they select, and their weights."""
    x, target, weight = op.tensor("self"), op.tensor("target"), op.maybe("weight")
    read = target.bytes + min(target.numel, x.distinct) * x.width
    if weight is not None:
        read += min(target.numel, weight.numel) * weight.width
    return read, default(op)[1]


@traffic(*_NLL_BACKWARD)
def nll_loss_backward_traffic(op: OpSignature) -> tuple[int, int]:
    """The gradient, the targets and their weights, the total weight for a mean; the whole gradient is written."""
    target, weight = op.tensor("target"), op.maybe("weight")
    read = distinct_bytes([op.tensor("grad_output"), target])
    if op.number("reduction", _MEAN) == _MEAN:
        read += op.tensor("total_weight").bytes
    if weight is not None:
        read += min(target.numel, weight.numel) * weight.width
    return read, default(op)[1]


def _margin_terms(op: OpSignature) -> int:
    """Pairs (the target's score, another score) of a multi-class margin loss."""
    x = op.tensor("self")
    return x.numel - (x.shape[0] if len(x.shape) > 1 else 1) if x.numel else 0


@cost("aten.multi_margin_loss")
def multi_margin_loss(op: OpSignature) -> Work:
    """Per row of C scores, C - 1 terms max(0, margin - x_y + x_j)^p: the difference once per row; add, compare, the
    square for p = 2, the weight; joined by C - 2 additions and divided by C. Then the rows are joined."""
    x, terms = op.tensor("self"), _margin_terms(op)
    rows = x.numel - terms
    per_term = 2 + (op.number("p", 1) == 2) + given(op, "weight")
    return Work(vector=terms * per_term + rows + max(0, terms - rows) + rows + _reduced(op, rows))


@cost("aten.multi_margin_loss_backward")
def multi_margin_loss_backward(op: OpSignature) -> Work:
    """Per term the forward's add and compare; g / C once per row, times 2 z for p = 2 and the weight; the target's
    gradient is minus their sum. Per row margin - x_y, g / C (and 1 / rows for a mean), the sign."""
    x, terms = op.tensor("self"), _margin_terms(op)
    rows = x.numel - terms
    per_term = 2 + 2 * (op.number("p", 1) == 2) + given(op, "weight")
    per_row = 3 + (op.number("reduction", _MEAN) == _MEAN)
    return Work(vector=terms * per_term + rows * per_row + max(0, terms - rows))


@cost("aten.multilabel_margin_loss_forward", "aten.multilabel_margin_loss_backward")
def multilabel_margin_loss(op: OpSignature) -> Work:
    """Every pair of a target y and a class j of the same row: max(0, 1 - (x_y - x_j)).

    Targets are data: as if all C classes could be, C C pairs of sub, sub, compare, and an addition (forward) or
    two (backward, one for each score); a division per row. A model, an upper bound.
    """
    x = op.tensor("self")
    rows, classes = (prod(x.shape[:-1]), x.shape[-1]) if x.shape else (1, 1)
    backward = "backward" in op.packet
    return Work(
        vector=rows * classes * classes * (5 if backward else 4) + rows + (0 if backward else _reduced(op, rows))
    )


@traffic("aten.soft_margin_loss_backward", "aten.mse_loss_backward")
def pairwise_backward_traffic(op: OpSignature) -> tuple[int, int]:
    """Gradient, input and target."""
    return reading(op, "grad_output", "self", "target")


def _ctc(op: OpSignature) -> list[tuple[int, int]]:
    """(frames, states) of each sample: the blanks and labels, 2 S + 1 states for S labels.

    Lengths in tensors are data: then every sample has all frames and, of padded targets, all labels.
    """
    scores, targets = op.tensor("log_probs"), op.tensor("targets")
    batch = scores.shape[1] if len(scores.shape) == 3 else 1
    frames = op.ints("input_lengths") or (scores.shape[0],) * batch
    if op.ints("target_lengths"):
        labels = op.ints("target_lengths")
    elif len(targets.shape) == 2:
        labels = (targets.shape[1],) * batch
    else:  # concatenated: their total is known
        labels = (targets.numel, *(0,) * (batch - 1))
    return [(t, 2 * s + 1) for t, s in zip(frames, labels, strict=True)]


@cost("aten._ctc_loss", "aten._cudnn_ctc_loss", "aten.miopen_ctc_loss")
def ctc_loss(op: OpSignature) -> Work:
    """The forward recursion: per frame after the first and state, the log-sum-exp of three states (max 2, sub 3,
    exp 3, add 2, log, add) and the state's score: 13.

    At the end the log-sum-exp of two (8) and its negative.
    """
    return Work(vector=sum(13 * max(0, t - 1) * states + 9 for t, states in _ctc(op)))


@cost("aten._ctc_loss_backward")
def ctc_loss_backward(op: OpSignature) -> Work:
    """The backward recursion 13; alpha + beta 1, joined into its class by a log-sum-exp of two 8.

    Then per frame and class g (exp(lp) - exp(l + nll - lp)): 6.
    """
    scores = op.tensor("log_probs")
    recursion = sum(13 * max(0, t - 1) * states + 9 * t * states for t, states in _ctc(op))
    return Work(vector=recursion + 6 * scores.numel)
