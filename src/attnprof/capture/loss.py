"""What a backward starts from: the loss a caller names, or what a model returned."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from attnprof.core.errors import AttnprofError

#: Called with the model's output, returns the scalar tensor to differentiate.
Loss = Callable[[Any], Tensor]

_REMEDY = "name a function of the output that returns a scalar tensor (--loss file.py:callable, or loss=)"
_SHOWN = 4


def check(loss: Loss) -> None:
    """Raise :class:`AttnprofError` for a loss that cannot be called with the output alone."""
    if not callable(loss):
        raise AttnprofError(f"a loss is called with the model's output, and a {type(loss).__name__} cannot be called.")
    try:
        signature = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss)
    except (TypeError, ValueError):  # a builtin without a signature: the call will tell
        return
    try:
        signature.bind(None)
    except TypeError:
        name = getattr(loss, "__name__", type(loss).__name__)
        raise AttnprofError(f"a loss is called with the model's output alone, and {name}{signature} is not.") from None


def of_callable(loss: Loss, output: Any) -> Tensor:
    """``loss(output)``, a scalar that needs a gradient; :class:`AttnprofError` when it is something else."""
    found = loss(output)
    if not isinstance(found, Tensor):
        problem = "and a loss is a scalar tensor"
    elif found.numel() != 1:
        problem = "and a loss is a scalar tensor: reduce it with .mean() or .sum()"
    elif not found.requires_grad:
        problem = "which cannot be differentiated: nothing that it was made of needs a gradient"
    else:
        return found
    name = getattr(loss, "__name__", type(loss).__name__)
    raise AttnprofError(f"{name}, given as the loss (--loss), returned {described(found)}, {problem}.")


def roots(output: Any) -> list[Tensor]:
    """What to differentiate in an output: its ``loss``, else every floating tensor in it that needs a gradient."""
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(loss, Tensor) and loss.requires_grad:
        return [loss]
    tensors = list({id(tensor): tensor for tensor in _tensors(output, set())}.values())
    found = [tensor for tensor in tensors if tensor.requires_grad]
    if found:
        return found
    shown = described(output)
    if not any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors):
        raise AttnprofError(
            f"backward was asked for, but the model returned {shown}, with no floating tensor in it: {_REMEDY}."
        )
    raise AttnprofError(
        f"backward was asked for, but nothing in the model's output ({shown}) needs a gradient: give it trainable "
        f"parameters or an input with requires_grad, or {_REMEDY}."
    )


class _Start(torch.autograd.Function):
    """Hands the first gradients to autograd, so that nobody else keeps them, or what they are gradients of."""

    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor], *found: Tensor) -> Tensor:
        ctx.gradients = gradients
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients = tuple(ctx.gradients)
        ctx.gradients.clear()
        return None, *gradients


def start(found: list[Tensor]) -> tuple[Tensor, Tensor]:
    """What to call ``backward`` of, and with what gradient: each root then starts with ones, those of a sum."""
    begun: Tensor = _Start.apply([torch.ones_like(root) for root in found], *found)  # type: ignore[no-untyped-call]
    return begun, torch.zeros_like(begun)


def described(value: Any) -> str:
    """``Tensor int64[2,8]``, ``dict (logits: float32[2,8], n: int)``: kinds and shapes, never contents."""
    if isinstance(value, Tensor):
        return f"Tensor {_meta(value)}"
    parts = _parts(value)
    if parts is None:
        return "None" if value is None else type(value).__name__
    named = [(name, _meta(part) if isinstance(part, Tensor) else type(part).__name__) for name, part in parts]
    shown = [f"{name}: {kind}" if name else kind for name, kind in named[:_SHOWN]]
    more = [f"{len(named) - _SHOWN} more"] if len(named) > _SHOWN else []
    return f"{type(value).__name__} ({', '.join(shown + more) or 'empty'})"


def _meta(tensor: Tensor) -> str:
    shape = "..." if tensor.is_nested else ",".join(map(str, tensor.shape))
    return f"{str(tensor.dtype).removeprefix('torch.')}[{shape}]"


def _parts(value: Any) -> list[tuple[str, Any]] | None:
    """The named parts of a structure, or None for anything else."""
    if isinstance(value, Mapping):
        return [(str(name), part) for name, part in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, list | tuple | set | frozenset):
        return [("", part) for part in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]
    leaves = tree_leaves(value)  # a node somebody registered with torch
    return None if len(leaves) == 1 and leaves[0] is value else [("", leaf) for leaf in leaves]


def _tensors(value: Any, open_ones: set[int]) -> Iterator[Tensor]:
    """Every tensor in a structure, in order."""
    if isinstance(value, Tensor):
        yield value
    elif id(value) not in open_ones:  # one that contains itself is looked at once
        for _, part in _parts(value) or ():
            yield from _tensors(part, open_ones | {id(value)})
