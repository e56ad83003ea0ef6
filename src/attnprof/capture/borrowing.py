"""A user's optimizers, used without changing them: they step on copies of all that they hold."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from attnprof.core.errors import AttnprofError


def parameters_of(optimizers: Iterable[Optimizer]) -> list[Tensor]:
    """What the optimizers step, each parameter once."""
    found = (p for one in optimizers for group in one.param_groups for p in group["params"])
    return list({id(p): p for p in found}.values())


@contextmanager
def borrowed(optimizers: Sequence[Optimizer], model: nn.Module, stand_ins: Mapping[int, Tensor]) -> Iterator[None]:
    """Let a user's optimizers step the model, on copies of their state; afterwards all they hold is what it was.

    ``stand_ins`` maps the ids of the model's own parameters to what stands in for them now. A copy of a state
    takes the dtype of the parameter's stand-in; made under a fake mode, it is fake.
    """
    mine = {id(p) for p in model.parameters()}
    after = {id(p): stand_ins.get(id(p), p) for p in parameters_of(optimizers)}
    if not any(id(p) in mine for p in after.values()):
        raise AttnprofError(f"the optimizer steps no parameter of {type(model).__name__}: make it of this model's.")
    inner = [value for one in optimizers for value in vars(one).values() if isinstance(value, Optimizer)]
    every = list({id(one): one for one in (*optimizers, *inner)}.values())
    memo: dict[int, Any] = {id(keep): keep for keep in (*every, *model.modules())}
    memo |= after
    saved = [(one, dict(vars(one))) for one in every]
    try:
        for one, before in saved:
            _copy_tensors(before, after, memo)
            vars(one).update(_copied(type(one).__name__, before, memo))
        yield
    finally:
        for one, before in saved:
            vars(one).clear()
            vars(one).update(before)


def _copy_tensors(attributes: Mapping[str, Any], after: Mapping[int, Tensor], memo: dict[int, Any]) -> None:
    """Put copies of an optimizer's tensors into ``memo``; those of a parameter's state take its dtype."""
    for parameter, state in attributes.get("state", {}).items():
        stand_in = after.get(id(parameter))
        dtype = None if stand_in is None or stand_in.dtype == parameter.dtype else stand_in.dtype
        for tensor in tree_leaves(state):
            if isinstance(tensor, Tensor) and id(tensor) not in memo:
                memo[id(tensor)] = _copy_of(tensor, dtype)
    for tensor in tree_leaves({name: value for name, value in attributes.items() if name != "state"}):
        if isinstance(tensor, Tensor) and id(tensor) not in memo:
            memo[id(tensor)] = _copy_of(tensor)


def _copy_of(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers, such as a count of steps, keep dtype and value: also under a fake mode, where a step reads them."""
    if tensor.dim() == 0 and not isinstance(tensor, FakeTensor):
        with unset_fake_temporarily():
            number = tensor.item()
        return torch.tensor(number, dtype=tensor.dtype, device=tensor.device)
    made = tensor.detach().clone()
    return made.to(dtype) if dtype is not None and made.is_floating_point() and made.dim() else made


def _copied(name: str, attributes: Mapping[str, Any], memo: dict[int, Any]) -> dict[str, Any]:
    try:
        return {
            key: copy.deepcopy(value, memo)
            for key, value in attributes.items()
            if not key.endswith("_hooks") and not isinstance(value, Optimizer)
        }
    except Exception as error:  # whatever the copying of a user's objects may raise
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise AttnprofError(
            f"the state of {name} cannot be copied ({first}), and so not be left as it was: pass a "
            "callable(parameters) that makes a new one."
        ) from None
