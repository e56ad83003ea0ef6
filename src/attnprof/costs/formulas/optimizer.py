"""Fused optimizer steps and gradient scaling: the scalar operations of each update, per parameter element.

g is the gradient, p the parameter. What belongs to the step and not to an element (learning rates, bias
corrections) is a number of the host. A fused step, the foreach step and the plain loop do the same arithmetic;
the fused one moves less. Updates are dense: a step that ``found_inf`` cancels is priced as if it were made.
"""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.registry import cost, traffic
from attnprof.costs.traffic import default, distinct_bytes


def _updates(op: OpSignature) -> int:
    """The parameter elements that are updated."""
    return sum(p.numel for p in op.tensors("self"))


def _gradient(op: OpSignature) -> int:
    """What g costs before the update: divided by the loss scale, negated to maximize."""
    return (op.maybe("grad_scale") is not None) + bool(op.number("maximize"))


def _decay(op: OpSignature, operations: int) -> int:
    """``operations`` when there is weight decay."""
    return operations if op.number("weight_decay") else 0


def _adam(op: OpSignature) -> int:
    """m += (1 - b1)(g - m) 3; v = b2 v + (1 - b2) g g 4; p -= a m / (sqrt(v) / c + eps) 6. amsgrad: max(v) 1."""
    return 13 + bool(op.number("amsgrad")) + _gradient(op)


@cost("aten._fused_adam")
def fused_adam(op: OpSignature) -> Work:
    """Adam, 13 per element; the decay is added to the gradient, g + w p: 2."""
    return Work(vector=_updates(op) * (_adam(op) + _decay(op, 2)))


@cost("aten._fused_adamw")
def fused_adamw(op: OpSignature) -> Work:
    """Adam, 13 per element; the decay shrinks the parameter by a constant factor: 1."""
    return Work(vector=_updates(op) * (_adam(op) + _decay(op, 1)))


@cost("aten._fused_sgd")
def fused_sgd(op: OpSignature) -> Work:
    """p -= lr g: 2. Decay, g + w p: 2. Momentum, b = m b + (1 - dampening) g: 2, 3 with dampening; b = g at first.

    Nesterov, g + m b: 2.
    """
    per_element = 2 + _gradient(op) + _decay(op, 2)
    if op.number("momentum"):
        per_element += 0 if op.number("is_first_step") else 2 + (op.number("dampening") != 0)
        per_element += 2 * bool(op.number("nesterov"))
    return Work(vector=_updates(op) * per_element)


@cost("aten._fused_adagrad")
def fused_adagrad(op: OpSignature) -> Work:
    """s += g g: 2; p -= lr g / (sqrt(s) + eps): 5. Decay, g + w p: 2."""
    return Work(vector=_updates(op) * (7 + _gradient(op) + _decay(op, 2)))


@traffic("aten._fused_adam", "aten._fused_adamw", "aten._fused_sgd", "aten._fused_adagrad")
def fused_traffic(op: OpSignature) -> tuple[int, int]:
    """Parameters and state read and written, gradients read; written only once unscaled; numbers of the step read.

    At SGD's first step the momentum is only written. Whatever the schema says, steps are not changed here, and
    the largest v is touched by amsgrad alone. The functional forms write copies of all they are given.
    """
    if not op.mutated:
        return default(op)
    idle = set() if op.number("amsgrad") else {"max_exp_avg_sqs"}
    idle |= set() if op.number("momentum", 1) else {"momentum_buffer_list"}
    unread = {"momentum_buffer_list"} if op.number("is_first_step") else set()
    constant = {"state_steps"} | (set() if op.maybe("grad_scale") else {"grads"})
    read = distinct_bytes(t for name, _ in op.args if name not in idle | unread for t in op.tensors(name))
    state = (name for name, _ in op.args if name in _STATE and name not in idle | constant)
    return read, distinct_bytes(t for name in state for t in op.tensors(name))


_STATE = ("self", "grads", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "momentum_buffer_list", "state_sums")


@cost("aten._amp_foreach_non_finite_check_and_unscale")
def unscale(op: OpSignature) -> Work:
    """Each gradient is tested for being finite and multiplied by the inverse scale."""
    return Work(vector=2 * _updates(op))


@traffic("aten._amp_foreach_non_finite_check_and_unscale")
def unscale_traffic(op: OpSignature) -> tuple[int, int]:
    """Gradients read and written, the scale read. The flag is touched only when some gradient is not finite."""
    read = distinct_bytes((*op.tensors("self"), op.tensor("inv_scale")))
    return read, distinct_bytes(op.tensors("self"))


@cost("aten._amp_update_scale")
def update_scale(op: OpSignature) -> Work:
    """Both branches: found_inf tested, scale times backoff; tracker + 1, compared, scale times growth, tested: 6."""
    return Work(vector=6)


@traffic("aten._amp_update_scale")
def update_scale_traffic(op: OpSignature) -> tuple[int, int]:
    """Three numbers read; the scale and the tracker written."""
    read, _ = default(op)
    return read, op.tensor("self").bytes + op.tensor("growth_tracker").bytes
