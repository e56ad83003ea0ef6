"""Fused optimizer kernels: operations per parameter element, the same as the loop over single ops makes.

Coefficients that depend on the step alone (bias corrections, step sizes) are scalars, worked out once. Gradients
are negated when maximizing (1) and divided by the loss scale when one is given (1), which also writes them back.
"""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.registry import cost, traffic
from attnprof.costs.traffic import distinct_bytes

_ADAMW, _ADAM, _SGD, _ADAGRAD = "aten._fused_adamw", "aten._fused_adam", "aten._fused_sgd", "aten._fused_adagrad"


def _elements(op: OpSignature) -> int:
    return sum(t.numel for t in op.tensors("self"))


def _prepared(op: OpSignature) -> int:
    """Operations on the gradient before the update proper."""
    return bool(op.number("maximize")) + (op.maybe("grad_scale") is not None)


def _adam(op: OpSignature, decay: int) -> Work:
    """m += (1 - b1) (g - m): 3. v = b2 v + (1 - b2) g g: 4. sqrt(v) / c + eps: 3. p -= step m / that: 3. Together 13.

    amsgrad: the maximum of v 1. Weight decay ``decay``.
    """
    per_element = 13 + bool(op.number("amsgrad")) + decay * (op.number("weight_decay") != 0) + _prepared(op)
    return Work(vector=_elements(op) * per_element)


@cost(_ADAMW)
def fused_adamw(op: OpSignature) -> Work:
    """Decoupled weight decay: p (1 - lr wd) 1."""
    return _adam(op, decay=1)


@cost(_ADAM)
def fused_adam(op: OpSignature) -> Work:
    """Weight decay in the gradient: g + wd p 2."""
    return _adam(op, decay=2)


def _keeps_momentum(op: OpSignature) -> bool:
    return op.number("momentum") != 0 and bool(op.tensors("momentum_buffer_list"))


@cost(_SGD)
def fused_sgd(op: OpSignature) -> Work:
    """p - lr d: 2. Weight decay g + wd p: 2. Momentum b = mu b + (1 - damp) g: 2, and 1 unless damp is 0; nothing in
    the first step, where b = g. Nesterov d = g + mu b: 2."""
    per_element = 2 + 2 * (op.number("weight_decay") != 0) + _prepared(op)
    if _keeps_momentum(op):
        if not op.number("is_first_step"):
            per_element += 2 + (op.number("dampening") != 0)
        per_element += 2 * bool(op.number("nesterov"))
    return Work(vector=_elements(op) * per_element)


@cost(_ADAGRAD)
def fused_adagrad(op: OpSignature) -> Work:
    """s += g g: 2. p -= lr g / (sqrt(s) + eps): 5. Weight decay g + wd p: 2."""
    per_element = 7 + 2 * (op.number("weight_decay") != 0) + _prepared(op)
    return Work(vector=_elements(op) * per_element)


@traffic(_ADAMW, _ADAM, _SGD, _ADAGRAD)
def fused_traffic(op: OpSignature) -> tuple[int, int]:
    """Parameters, gradients, states and scalars read; parameters and states written, gradients only when unscaled.

    The momentum buffer of a first step is written, not read. ``found_inf`` is read.
    """
    states = ["exp_avgs", "exp_avg_sqs", "state_sums"] + ["max_exp_avg_sqs"] * bool(op.number("amsgrad"))
    momentum = ["momentum_buffer_list"] if _keeps_momentum(op) else []
    read = ["self", "grads", *states, "state_steps", "lr", "grad_scale", "found_inf"]
    read += [] if op.number("is_first_step") else momentum
    written = ["self", *states, *momentum] + (["grads"] if op.maybe("grad_scale") else [])
    return (
        distinct_bytes(t for name in read for t in op.tensors(name)),
        distinct_bytes(t for name in written for t in op.tensors(name)),
    )
