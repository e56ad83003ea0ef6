"""Counting without memory: the model's tensors stand in for themselves as fake ones, and come back.

A fake tensor has a shape, a dtype and a device but no contents, so a model of any size runs on any
machine; ops see the shapes of the real run. Code that looks at values may take another path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map_only

from attnprof.capture import fake_ops
from attnprof.capture.stand_ins import replaced
from attnprof.core.errors import AttnprofError


def new_mode() -> FakeTensorMode:
    """A fake mode that takes real tensors it meets for fake ones."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def scalars_of_ones(model: nn.Module) -> Iterator[None]:
    """Inside, a number that is read from a fake model's tensors, and that nobody knows, is 1; else torch raises.

    For steps of optimizers: some read scalars of their state to scale an update with. A real model is left
    alone. (The mode itself is kept, not a subclass of it: torch finds the rules of higher-order ops by its type.)
    """
    mode: Any = mode_of(model)
    if mode is None:
        yield
        return
    dispatch = mode.dispatch

    def known(func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return dispatch(func, types, args, kwargs)
        except DataDependentOutputException:
            if func is not torch.ops.aten._local_scalar_dense.default:
                raise
            return torch.ones((), dtype=args[0].dtype, device="cpu").item()

    mode.dispatch = known
    try:
        yield
    finally:
        del mode.dispatch


class _Forgetful(dict[Any, Any]):
    """A memory that keeps nothing."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


@contextmanager
def building() -> Iterator[FakeTensorMode]:
    """Build a model fake, conversions such as ``.to(torch.bfloat16)`` and ``.half()`` included.

    torch swaps the fake parameters of a converted module and refuses while anything refers to them weakly;
    the fake mode's own memory of what it made does. During a conversion it remembers nothing.
    """
    mode = new_mode()
    converter: Any = mode.fake_tensor_converter.meta_converter
    apply: Any = nn.Module._apply

    def unremembered(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        memory, converter.tensor_memo = converter.tensor_memo, _Forgetful()
        memory.clear()
        try:
            return apply(self, *args, **kwargs)
        finally:
            converter.tensor_memo = memory

    nn.Module._apply = unremembered  # type: ignore[method-assign]
    try:
        with mode:
            yield mode
    finally:
        nn.Module._apply = apply  # type: ignore[method-assign]


def mode_of(model: nn.Module) -> FakeTensorMode | None:
    """The fake mode a model was built under, or None for a real one."""
    for tensor in (*model.parameters(), *model.buffers()):
        if isinstance(tensor, FakeTensor):
            return tensor.fake_mode
    return None


@contextmanager
def faked(model: nn.Module, *values: Any) -> Iterator[tuple[Any, ...]]:
    """Run with every parameter, buffer and value fake; yields the fake values.

    The model's own tensors are put back on the way out, whatever happened. A model on ``meta`` runs as if
    it were on the CPU.
    """
    lazy = next((name for name, p in (*model.named_parameters(), *model.named_buffers()) if is_lazy(p)), None)
    if lazy is not None:
        raise AttnprofError(f"{lazy} is lazy and has no shape yet: run the model once before counting it fake.")
    mode = mode_of(model) or new_mode()
    stand_ins: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if not _needs_stand_in(tensor):
            return tensor
        found = stand_ins.get(id(tensor))
        if found is None:
            found = stand_ins[id(tensor)] = _stand_in(mode, tensor)
        return found

    with replaced(model, fake), fake_ops.known(), mode:
        yield tree_map_only(Tensor, fake, values)


def _needs_stand_in(tensor: Tensor) -> bool:
    """A real tensor, or one on meta: a fake one on meta would not meet inputs on the CPU."""
    return not isinstance(tensor, FakeTensor) or tensor.fake_device.type == "meta"


def _stand_in(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    if isinstance(tensor, FakeTensor) or tensor.is_meta:
        with mode:
            found = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
        found.requires_grad_(tensor.requires_grad)
        return nn.Parameter(found, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else found
    return mode.from_tensor(tensor, static_shapes=True)
