"""``_foreach_X``: the sum over the lists of what X costs for each tensor, whatever formula X has."""

from __future__ import annotations

from collections.abc import Iterator

from attnprof.core.signature import Argument, OpSignature
from attnprof.core.work import Work
from attnprof.costs import registry
from attnprof.costs.registry import cost, traffic
from attnprof.costs.traffic import default, reading, write_only

_PREFIX = "aten._foreach_"

#: The single-tensor op, where its name is not the rest of the foreach op's.
_SINGLE = {"norm": "linalg_vector_norm"}

#: Argument names of the single-tensor ops, by those of the foreach ops.
_RENAMED = {"scalar": "other", "scalars": "other", "tensors1": "end", "weights": "weight"}
_COEFFICIENTS = {"addcmul": "value", "addcdiv": "value"}

_MAPPED = (
    "abs acos add addcdiv addcmul asin atan ceil clamp_max clamp_min clone copy cos cosh div erf erfc exp expm1 floor "
    "frac lerp lgamma log log10 log1p log2 max maximum minimum mul neg norm pow reciprocal round rsqrt sigmoid sign "
    "sin sinh sqrt sub tan tanh trunc zero"
)
_FOREACH = [_PREFIX + name for name in _MAPPED.split()]


def singles(op: OpSignature) -> Iterator[OpSignature]:
    """The calls on single tensors that a foreach call stands for."""
    rest = op.packet.removeprefix(_PREFIX).removesuffix("_")
    name = _SINGLE.get(rest, rest)
    lists = [value for _, value in op.args if isinstance(value, tuple)]
    for i in range(max(map(len, lists), default=0)):
        args = tuple((_argument(rest, key), _item(value, i)) for key, value in op.args)
        outs = op.outs[i : i + 1] or op.tensors("self")[i : i + 1]
        yield OpSignature(f"aten.{name}.default", args, outs)


def _item(value: Argument, i: int) -> Argument:
    """The i-th of a list; an empty list, or one shorter than the others, has none."""
    if isinstance(value, tuple):
        return value[i] if i < len(value) else None
    return value


def _argument(rest: str, name: str) -> str:
    if name in ("scalar", "scalars") and rest in _COEFFICIENTS:
        return _COEFFICIENTS[rest]
    return _RENAMED.get(name, name)


@cost(*_FOREACH)
def foreach(op: OpSignature) -> Work:
    """The vector FLOPs of every single-tensor call."""
    total = 0
    for single in singles(op):
        formula = registry.formula_of(single.op)
        if formula is None:
            raise ValueError(f"{single.op}, which {op.op} repeats, has no formula")
        total += formula(single).vector
    return Work(vector=total)


@traffic("aten._foreach_copy")
def foreach_copy_traffic(op: OpSignature) -> tuple[int, int]:
    """The sources."""
    return reading(op, "src")


traffic("aten._foreach_zero")(write_only)


@cost("aten._amp_foreach_non_finite_check_and_unscale")
def unscale(op: OpSignature) -> Work:
    """Per element a test for a finite number and a product with the inverse scale."""
    return Work(vector=2 * sum(t.numel for t in op.tensors("self")))


@traffic("aten._amp_foreach_non_finite_check_and_unscale")
def unscale_traffic(op: OpSignature) -> tuple[int, int]:
    """Gradients and the inverse scale; found_inf is not looked at, and written only if some gradient overflowed."""
    found = 0 if "found_inf" not in op.mutated else op.tensor("found_inf").bytes
    return reading(op, "self", "inv_scale")[0], default(op)[1] - found


@cost("aten._amp_update_scale")
def update_scale(op: OpSignature) -> Work:
    """found_inf tested, scale backed off, tracker advanced and compared, scale grown and tested: 6, both branches."""
    return Work(vector=6)
