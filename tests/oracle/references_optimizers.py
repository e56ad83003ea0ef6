"""Optimizer kernels: what happens to each element; the scalars of a step (bias corrections) belong to the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt as root
from typing import Any

from oracle.buffers import Buffer, Machine, indices
from oracle.counting import maximum, sqrt
from oracle.references_pointwise import pointwise

Buffers = Sequence[Buffer]


def _gradient(g: Any, maximize: bool) -> Any:
    return -g if maximize else g


def _adam(decoupled: bool) -> Callable[..., list[None]]:
    def reference(
        m: Machine,
        params: Buffers,
        grads: Buffers,
        exp_avgs: Buffers,
        exp_avg_sqs: Buffers,
        max_exp_avg_sqs: Buffers,
        steps: Buffers,
        *,
        lr: float,
        beta1: float,
        beta2: float,
        weight_decay: float,
        eps: float,
        amsgrad: bool,
        maximize: bool,
        grad_scale: Buffer | None = None,
    ) -> None:
        """m <- m + (1 - b1)(g - m); v <- b2 v + (1 - b2) g²; p <- p - lr/c1 m / (sqrt(v)/sqrt(c2) + eps)."""
        for n, p in enumerate(params):
            step = steps[n][()].value
            step_size, correction = lr / (1 - beta1**step), root(1 - beta2**step)
            for i in indices(p.shape):
                g, w = grads[n][i], p[i]
                if grad_scale is not None:
                    grads[n][i] = g = g / grad_scale[()]
                g = _gradient(g, maximize)
                if weight_decay and decoupled:
                    w = w * (1 - lr * weight_decay)
                elif weight_decay:
                    g = g + w * weight_decay
                first = exp_avgs[n][i]
                exp_avgs[n][i] = first = first + (1 - beta1) * (g - first)
                exp_avg_sqs[n][i] = second = exp_avg_sqs[n][i] * beta2 + (1 - beta2) * g * g
                if amsgrad:
                    max_exp_avg_sqs[n][i] = second = maximum(max_exp_avg_sqs[n][i], second)
                p[i] = w - step_size * first / (sqrt(second) / correction + eps)

    return reference  # type: ignore[return-value]


adamw_, adam_ = _adam(decoupled=True), _adam(decoupled=False)


def sgd_(
    m: Machine,
    params: Buffers,
    grads: Buffers,
    momenta: Buffers,
    *,
    weight_decay: float,
    momentum: float,
    lr: float,
    dampening: float,
    nesterov: bool,
    maximize: bool,
    is_first_step: bool,
) -> None:
    """b <- momentum b + (1 - dampening) g (just g on the first step); p <- p - lr b."""
    for n, p in enumerate(params):
        for i in indices(p.shape):
            g = _gradient(grads[n][i], maximize)
            if weight_decay:
                g = g + p[i] * weight_decay
            if momentum:
                fresh = g if dampening == 0 else g * (1 - dampening)
                momenta[n][i] = b = g if is_first_step else momenta[n][i] * momentum + fresh
                g = g + b * momentum if nesterov else b
            p[i] = p[i] - g * lr


def adagrad_(
    m: Machine,
    params: Buffers,
    grads: Buffers,
    sums: Buffers,
    steps: Buffers,
    *,
    lr: float,
    lr_decay: float,
    weight_decay: float,
    eps: float,
    maximize: bool,
) -> None:
    """s <- s + g²; p <- p - lr' g / (sqrt(s) + eps)."""
    for n, p in enumerate(params):
        rate = lr / (1 + (steps[n][()].value - 1) * lr_decay)
        for i in indices(p.shape):
            g = _gradient(grads[n][i], maximize)
            if weight_decay:
                g = g + p[i] * weight_decay
            sums[n][i] = s = sums[n][i] + g * g
            p[i] = p[i] - g * rate / (sqrt(s) + eps)


def unscale_(m: Machine, grads: Buffers, found_inf: Buffer, inv_scale: Buffer) -> None:
    """Each gradient is tested for being finite and scaled; the flag is only touched when one is not."""
    for g in grads:
        for i in indices(g.shape):
            v = g[i]
            m.scalar_op(1)  # the test
            g[i] = v * inv_scale[()]


def each(by: Callable[..., Buffer]) -> Callable[..., list[Buffer]]:
    """A foreach op is its single-tensor op on every tensor of its lists; other arguments are shared."""

    def reference(m: Machine, *arguments: Any, **options: Any) -> list[Buffer]:
        count = max(len(a) for a in arguments if isinstance(a, list))
        rows = ([a[n] if isinstance(a, list) else a for a in arguments] for n in range(count))
        return [by(m, *row, **options) for row in rows]

    return reference


def each_(by: Callable[..., Buffer]) -> Callable[..., None]:
    """The in-place form: ``by`` writes to its first argument, and nothing is returned."""

    def reference(m: Machine, *arguments: Any, **options: Any) -> None:
        each(by)(m, *arguments, **options)

    return reference


def overwriting(f: Callable[..., Any]) -> Callable[..., Buffer]:
    """``f`` of the operands, written over the first."""

    def reference(m: Machine, *operands: Any) -> Buffer:
        return pointwise(m, f, *operands, out=operands[0])

    return reference
