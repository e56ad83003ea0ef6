"""Losses and their gradients. ``reduction``: 0 keeps every element, 1 means, 2 sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from oracle.buffers import Buffer, Machine, indices
from oracle.counting import exp, log, log1p, maximum, minimum, scaled, select, total

NONE, MEAN, SUM = 0, 1, 2


def _reduced(m: Machine, losses: list[Any], shape: Sequence[int], reduction: int, like: Buffer) -> Buffer:
    out = m.new(shape if reduction == NONE else [], like.dtype)
    if reduction == NONE:
        for i, v in zip(indices(shape), losses, strict=True):
            out[i] = v
    else:
        summed = total(losses)
        out[()] = summed / len(losses) if reduction == MEAN else summed
    return out


def elementwise_loss(f: Callable[[Any, Any], Any]) -> Callable[..., Buffer]:
    """A loss that is ``f(x, y)`` per element, then reduced."""

    def reference(m: Machine, x: Buffer, y: Buffer, reduction: int = MEAN) -> Buffer:
        return _reduced(m, [f(x[i], y[i]) for i in indices(x.shape)], x.shape, reduction, x)

    return reference


def elementwise_gradient(m: Machine, f: Callable[..., Any], grad: Buffer, x: Buffer, *others: Buffer) -> Buffer:
    """``f(g, x, ...)`` per element; the gradient of a reduced loss is a 0-dim tensor that broadcasts."""
    out = m.new(x.shape, x.dtype)
    g = grad.expand(x.shape)
    for i in indices(x.shape):
        out[i] = f(g[i], x[i], *(o[i] for o in others))
    return out


def _square(x: Any, y: Any) -> Any:
    d = x - y
    return d * d


mse_loss = elementwise_loss(_square)


def mse_loss_backward(m: Machine, grad: Buffer, x: Buffer, y: Buffer, reduction: int) -> Buffer:
    """2/n (x - y) g."""
    n = len(list(indices(x.shape)))
    factor = 2 / n if reduction == MEAN else 2
    return elementwise_gradient(m, lambda g, a, b: factor * (a - b) * g, grad, x, y)


def smooth_l1_loss(m: Machine, x: Buffer, y: Buffer, reduction: int = MEAN, beta: float = 1) -> Buffer:
    """z²/2beta below beta, z - beta/2 above, of z = |x - y|."""

    def f(a: Any, b: Any) -> Any:
        z = abs(a - b)
        small = 0.5 * z * z
        small = small if beta == 1 else small / beta
        return select(z < beta, small, z - 0.5 * beta)

    return elementwise_loss(f)(m, x, y, reduction)


def smooth_l1_loss_backward(m: Machine, grad: Buffer, x: Buffer, y: Buffer, reduction: int, beta: float) -> Buffer:
    """n g sign(d) outside [-beta, beta], n g d / beta inside, with d = x - y and n = 1/N under the mean."""
    norm = 1 / len(list(indices(x.shape))) if reduction == MEAN else 1

    def f(g: Any, a: Any, b: Any) -> Any:
        d = a - b
        step = g * norm if reduction == MEAN else g
        inside = d * step
        inside = inside if beta == 1 else inside / beta
        below, above = d <= -beta, d >= beta
        return select(below, -step, select(above, step, inside))

    return elementwise_gradient(m, f, grad, x, y)


def huber_loss(m: Machine, x: Buffer, y: Buffer, reduction: int = MEAN, delta: float = 1) -> Buffer:
    """z²/2 below delta, delta (z - delta/2) above, of z = |x - y|."""

    def f(a: Any, b: Any) -> Any:
        z = abs(a - b)
        return select(z <= delta, 0.5 * z * z, scaled(z - 0.5 * delta, delta))

    return elementwise_loss(f)(m, x, y, reduction)


def huber_loss_backward(m: Machine, grad: Buffer, x: Buffer, y: Buffer, reduction: int, delta: float) -> Buffer:
    """n g delta sign(d) outside [-delta, delta], n g d inside."""
    norm = 1 / len(list(indices(x.shape))) if reduction == MEAN else 1

    def f(g: Any, a: Any, b: Any) -> Any:
        d = a - b
        step = g * norm if reduction == MEAN else g
        inside = d * step
        outside = scaled(step, delta)
        below, above = d <= -delta, d >= delta
        return select(below, -outside, select(above, outside, inside))

    return elementwise_gradient(m, f, grad, x, y)


def binary_cross_entropy(
    m: Machine, x: Buffer, y: Buffer, weight: Buffer | None = None, reduction: int = MEAN
) -> Buffer:
    """(y - 1) max(log(1 - x), -100) - y max(log x, -100)."""
    w = weight.expand(x.shape) if weight else None

    def one(i: Any) -> Any:
        p, t = x[i], y[i]
        loss = (t - 1) * maximum(log1p(-p), -100) - t * maximum(log(p), -100)
        return loss * w[i] if w else loss

    return _reduced(m, [one(i) for i in indices(x.shape)], x.shape, reduction, x)


def binary_cross_entropy_backward(
    m: Machine, grad: Buffer, x: Buffer, y: Buffer, weight: Buffer | None = None, reduction: int = MEAN
) -> Buffer:
    """g (x - y) / max((1 - x) x, eps), over n under the mean."""
    n = len(list(indices(x.shape)))
    w = weight.expand(x.shape) if weight else None
    g = grad.expand(x.shape)
    out = m.new(x.shape, x.dtype)
    for i in indices(x.shape):
        p = x[i]
        d = g[i] * (p - y[i]) / maximum((1 - p) * p, 1e-12)
        d = d * w[i] if w else d
        out[i] = d / n if reduction == MEAN else d
    return out


def _log_sigmoid(v: Any) -> Any:
    return minimum(0, v) - log1p(exp(-abs(v)))


def bce_with_logits(
    m: Machine,
    x: Buffer,
    y: Buffer,
    weight: Buffer | None = None,
    pos_weight: Buffer | None = None,
    reduction: int = MEAN,
) -> Buffer:
    """(1 - y) x - (1 + (pos_weight - 1) y) log sigmoid(x)."""
    w = weight.expand(x.shape) if weight else None
    p = pos_weight.expand(x.shape) if pos_weight else None

    def one(i: Any) -> Any:
        t, v = y[i], x[i]
        ls = _log_sigmoid(v)
        loss = (1 - t) * v - (((p[i] - 1) * t + 1) * ls if p else ls)
        return loss * w[i] if w else loss

    return _reduced(m, [one(i) for i in indices(x.shape)], x.shape, reduction, x)


def soft_margin_loss(m: Machine, x: Buffer, y: Buffer, reduction: int = MEAN) -> Buffer:
    """log(1 + e^(-y x))."""
    return elementwise_loss(lambda a, b: log1p(exp(-b * a)))(m, x, y, reduction)


def _targets(x: Buffer, target: Buffer) -> list[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """For every target: its index, the index of the selected entry of x, its class. Classes are dimension 1."""
    out = []
    for i in indices(target.shape):
        label = int(target[i])
        out.append((i, (*i[:1], label, *i[1:]) if len(x.shape) > 1 else (label,), label))
    return out


def nll_loss(
    m: Machine, x: Buffer, target: Buffer, weight: Buffer | None, reduction: int, ignore_index: int
) -> tuple[Buffer, Buffer]:
    """-w[t] x[t] for each target; the mean divides by the weights of the targets present."""
    chosen = _targets(x, target)
    losses = [-x[place] * weight[label] if weight else -x[place] for _, place, label in chosen]
    total_weight = m.new([], x.dtype)
    if reduction == NONE:
        out = m.new(target.shape, x.dtype)
        for (i, _, _), v in zip(chosen, losses, strict=True):
            out[i] = v
        total_weight[()] = 0
        return out, total_weight
    out = m.new([], x.dtype)
    weights = total([weight[label] for _, _, label in chosen]) if weight else len(chosen)
    summed = total(losses)
    out[()] = summed / weights if reduction == MEAN else summed
    total_weight[()] = weights
    return out, total_weight


def nll_loss_backward(
    m: Machine,
    grad: Buffer,
    x: Buffer,
    target: Buffer,
    weight: Buffer | None,
    reduction: int,
    ignore_index: int,
    total_weight: Buffer,
) -> Buffer:
    """-w[t] g at the selected entries (over the total weight under the mean), zeros elsewhere."""
    out = m.zeros(x.shape, x.dtype)
    common = None
    if reduction != NONE:
        common = -grad[()]
        common = common / total_weight[()] if reduction == MEAN else common
    for i, place, label in _targets(x, target):
        g = -grad[i] if common is None else common
        out[place] = g * weight[label] if weight else g
    return out
