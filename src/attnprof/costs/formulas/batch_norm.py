"""Batch norms: C channels of n elements each, N = C n; statistics of the batch (training) or the running ones.

The running statistics are changed without the schema saying so: in training they are read and written.
"""

from __future__ import annotations

from collections.abc import Callable

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.formulas.normalization import given
from attnprof.costs.registry import cost, traffic
from attnprof.costs.traffic import default, distinct_bytes

_RUNNING = ("running_mean", "running_var")


def _channels(x: TensorMeta) -> tuple[int, int]:
    """(C, n), the channels in dimension 1."""
    c = x.shape[1] if len(x.shape) > 1 else x.numel
    return c, x.numel // c if c else 0


def _trains(op: OpSignature) -> bool:
    """Whether the batch's own statistics are used."""
    by_name = {"aten._batch_norm_with_update": True, "aten._batch_norm_no_update": False}
    if op.packet in by_name:
        return by_name[op.packet]
    return bool(op.number("training")) if "training" in op else "no_training" not in op.packet


_FORWARD = (
    "aten.native_batch_norm",
    "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_functional",
    "aten._native_batch_norm_legit_no_training",
    "aten._batch_norm_with_update",
    "aten._batch_norm_with_update_functional",
    "aten._batch_norm_no_update",
    "aten.cudnn_batch_norm",
    "aten.miopen_batch_norm",
)


@cost(*_FORWARD)
def batch_norm(op: OpSignature) -> Work:
    """Training, per channel: mean n, x - mean n, squares n, their mean n, + eps, rsqrt, scale n: 5 n + 2.

    Running statistics, when kept: (1 - m) old + m new 3 each, and the unbiased variance 1: 7. Evaluation: + eps,
    rsqrt, x - mean n, scale n: 2 n + 2. The weight and the bias: n each.
    """
    c, n = _channels(op.tensor("input"))
    affine = c * n * given(op, "weight", "bias")
    if not _trains(op):
        return Work(vector=c * (2 * n + 2) + affine)
    return Work(vector=(c * (5 * n + 2) + affine + 7 * c * (given(op, *_RUNNING) == 2)) if n else 0)


@traffic(*_FORWARD)
def batch_norm_traffic(op: OpSignature) -> tuple[int, int]:
    """All inputs and outputs; in training the running statistics are also written, in evaluation only read."""
    read, _ = default(op)
    inputs = {t.ident for t in op.inputs}
    written = distinct_bytes([t for t in op.outs if t.ident not in inputs])
    written += distinct_bytes(t for name in op.overwritten for t in op.tensors(name))
    if _trains(op) and not op.packet.endswith("_functional"):
        written += distinct_bytes(t for name in _RUNNING if (t := op.maybe(name)) is not None)
    return read, written


def _backward_flops(x: TensorMeta, mask: tuple[bool, ...], trains: bool, weighted: bool) -> int:
    """Training, per channel, from the saved mean and rstd: x^ 2 n; sum(g) n - 1 and sum(g x^) 2 n - 1, which are dbias
    and dweight and serve dX too; dX = (weight rstd) (g - sum(g) / n - x^ sum(g x^) / n): 4 n + 2 and [weight].

    Evaluation: rstd 2; x^ 2 n and dweight 2 n - 1; dbias n - 1; dX = g (weight rstd): n and [weight].
    """
    c, n = _channels(x)
    if not n:
        return 0
    to_input, to_weight, to_bias = mask
    sums = (to_weight or (trains and to_input)) * (4 * n - 1) + (to_bias or (trains and to_input)) * (n - 1)
    if trains:
        return c * (sums + to_input * (4 * n + 2 + weighted))
    return c * (sums + 2 * (to_input or to_weight) + to_input * (n + weighted))


_BACKWARD = (
    "aten.native_batch_norm_backward",
    "aten.batch_norm_backward",
    "aten.cudnn_batch_norm_backward",
    "aten.miopen_batch_norm_backward",
)


def _asked(op: OpSignature) -> tuple[bool, ...]:
    return op.flags("output_mask") or (True, True, True)


def _trained(op: OpSignature) -> bool:
    """The vendors' backward exists for training alone."""
    return bool(op.number("train" if "train" in op else "update", 1))


@cost(*_BACKWARD)
def batch_norm_backward(op: OpSignature) -> Work:
    """Per channel 9 n + 1 in training and 6 n + 1 in evaluation when all is asked for and there is a weight."""
    weighted = op.maybe("weight") is not None
    return Work(vector=_backward_flops(op.tensor("input"), _asked(op), _trained(op), weighted))


@traffic(*_BACKWARD)
def batch_norm_backward_traffic(op: OpSignature) -> tuple[int, int]:
    """The gradient; the input where x^ is formed; the statistics in use (saved or running); the weight for dX."""
    to_input, to_weight, _ = mask = _asked(op)
    trains, save = _trained(op), "save_invstd" if "save_invstd" in op else "save_var"
    centre, spread = ("save_mean", save) if trains else _RUNNING
    names = ["grad_out" if "grad_out" in op else "grad_output"] if any(mask) else []
    if to_weight or (trains and to_input):
        names += ["input", centre]
    if to_weight or to_input:
        names.append(spread)
    if to_input:
        names.append("weight")
    for reserve in ("reserve", "reserveSpace"):
        names += [reserve] if reserve in op else []
    return distinct_bytes(t for name in names if (t := op.maybe(name)) is not None), default(op)[1]


def _per_channel(*names: str) -> Callable[[Callable[[int, int, OpSignature], int]], None]:
    """Register FLOPs given as a function of C, n and the call."""

    def register(flops: Callable[[int, int, OpSignature], int]) -> None:
        def formula(op: OpSignature) -> Work:
            c, n = _channels(op.tensor("input"))
            return Work(vector=flops(c, n, op) if n else 0)

        formula.__doc__, formula.__qualname__ = flops.__doc__, flops.__qualname__
        cost(*names)(formula)

    return register


@_per_channel("aten.batch_norm_stats")
def _stats(c: int, n: int, op: OpSignature) -> int:
    """Mean n, variance 3 n, + eps, rsqrt."""
    return c * (4 * n + 2)


@_per_channel("aten.batch_norm_update_stats")
def _update_stats(c: int, n: int, op: OpSignature) -> int:
    """Mean n, variance 3 n, and the running statistics 7 when kept."""
    return c * (4 * n + 7 * (given(op, *_RUNNING) == 2))


@_per_channel("aten.batch_norm_elemt")
def _normalise(c: int, n: int, op: OpSignature) -> int:
    """(x - mean) invstd, the weight, the bias."""
    return c * n * (2 + given(op, "weight", "bias"))


@_per_channel("aten.batch_norm_backward_reduce")
def _backward_sums(c: int, n: int, op: OpSignature) -> int:
    """sum(g) n - 1; sum(g (x - mean)) n + n + n - 1; dweight = that times invstd when asked for."""
    return c * (4 * n - 2 + bool(op.number("weight_g")))


@_per_channel("aten.batch_norm_backward_elemt")
def _backward_elements(c: int, n: int, op: OpSignature) -> int:
    """(g - a - (x - mean) b) s: 5 n; per channel a = sum_dy / N, b = invstd^2 sum_dy_xmu / N, s = invstd weight."""
    return c * (5 * n + 4 + given(op, "weight"))


@cost("aten.batch_norm_gather_stats", "aten.batch_norm_gather_stats_with_counts")
def gather_stats(op: OpSignature) -> Work:
    """W partial statistics merged. Per channel 1 / invstd^2 - eps 3; delta 1; mean += delta f 2;
    M2 += var n + delta^2 k 5.

    The scalars n + n_i, f = n_i / (n + n_i) and k = n f are per partial, 3. At the end M2 / n, + eps, rsqrt: 3 per
    channel, and the running statistics 7 when kept.
    """
    worlds, c = op.tensor("mean").shape
    return Work(vector=worlds * (11 * c + 3) + c * (3 + 7 * (given(op, *_RUNNING) == 2)))


@traffic("aten.batch_norm_gather_stats", "aten.batch_norm_gather_stats_with_counts", "aten.batch_norm_update_stats")
def statistics_traffic(op: OpSignature) -> tuple[int, int]:
    """The default rule; merging does not look at the input; the running statistics are written as well."""
    skipped = () if op.packet == "aten.batch_norm_update_stats" else ("input",)
    read = distinct_bytes(t for name, _ in op.args if name not in skipped for t in op.tensors(name))
    return read, default(op)[1] + distinct_bytes(t for name in _RUNNING if (t := op.maybe(name)) is not None)
