"""What a call of the model is known by: two with the same key, of a model in the same state (see
:mod:`model_state`), are taken to do the same work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from attnprof.capture.carried import carried
from attnprof.capture.signatures import PLAIN

#: Values that a program branches on are part of a key; a float is not, as few programs do.
_VALUES = (
    bool, int, str, bytes, type(None), torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format,
    Enum, type, range, BuiltinFunctionType,
)  # fmt: skip
#: The key of every call in ``torch.jit.trace``, where asking a tensor would be traced as well.
TRACED = "traced"
#: Those that autocast can be on for.
_DEVICES = ("cpu", *([torch._C._get_accelerator().type] if torch.accelerator.is_available() else []))
# By names of their own: after a step nothing is in a cache, and each look into ``torch`` is slow.
_STRIDED = torch.strided
_is_traced, _transforms = torch._C._get_tracing_state, torch._C._functorch.peek_interpreter_stack
_with_grad, _for_inference = torch.is_grad_enabled, torch.is_inference_mode_enabled
_is_any_autocast, _saved_hooks = torch._C._is_any_autocast_enabled, torch._C._autograd._top_saved_tensors_default_hooks


def key_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Hashable:
    """The tensors of a call, by shape, dtype, device and whether they need a gradient, its values, and its modes."""
    if _is_traced():
        return TRACED
    return (
        tuple(map(_key, args)),
        tuple([(name, _key(value)) for name, value in kwargs.items()]) if kwargs else (),
        _with_grad(),
        _for_inference(),
        _autocast() if _is_any_autocast() else None,
        None if _saved_hooks(False) is None else True,
        None if _transforms() is None else _transformed(args, kwargs),
    )


def label_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The call's tensors as text: ``float32[8,64], mask=bool[8]``."""
    if _is_traced():
        return "torch.jit.trace"
    with torch._C.DisableTorchFunction():
        return ", ".join(_texts(args, kwargs)) or "no tensor input"


def _texts(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    named = [("", value) for value in args] + [(f"{name}=", value) for name, value in kwargs.items()]
    return [
        f"{name}{str(t.dtype).removeprefix('torch.')}[{','.join(map(str, _shape(t)))}]"
        for name, value in named
        for t in carried(value)
    ]


def _key(value: Any) -> Hashable:
    kind: type = value.__class__
    if kind in PLAIN:
        if value.is_nested or value.layout is not _STRIDED:
            return _sizes(value), value.dtype, value.device, value.requires_grad
        return value.shape, value.dtype, value.device, value.requires_grad
    if isinstance(value, _VALUES):
        return kind, value
    if isinstance(value, float):
        return kind
    if isinstance(value, Mapping):
        return kind, tuple((str(name), _key(item)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return kind, tuple(map(_key, value))
    if isinstance(value, FunctionType):
        return value.__code__, _key(value.__defaults__), tuple([_key(c.cell_contents) for c in value.__closure__ or ()])
    if isinstance(value, MethodType):
        return value.__func__.__code__, _key(value.__self__)
    if isinstance(value, partial):
        return kind, _key(value.func), _key(value.args), _key(value.keywords)
    if isinstance(value, nn.Module):
        return kind, id(value)
    if kind.__module__ == "numpy" and hasattr(value, "dtype"):
        return kind, value.shape, str(value.dtype), value.item() if value.ndim == 0 and value.dtype.kind in "biu" else 0
    if isinstance(value, set | frozenset):
        return kind, len(value)
    if dataclasses.is_dataclass(value):
        return kind, tuple([_key(getattr(value, field.name, None)) for field in dataclasses.fields(value)])
    if isinstance(value, SimpleNamespace):
        return kind, _key(vars(value))
    with torch._C.DisableTorchFunction():  # a cache, an output: by the tensors that it carries
        return kind, tuple((_sizes(t), t.dtype, t.device, t.requires_grad) for t in carried(value))


def _sizes(tensor: Tensor) -> Hashable:
    """The shape, the lengths in a ragged tensor, the number of entries in a sparse one: what its work depends on."""
    with torch._C.DisableTorchFunction():
        if tensor.is_nested:
            lengths = tensor._nested_tensor_size() if tensor.layout is torch.strided else tensor.offsets()  # type: ignore[attr-defined]
            return str(tensor.layout), str(lengths.tolist())
        if tensor.layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc):
            return tensor.shape, tensor._nnz()
        return tensor.shape


def _shape(tensor: Tensor) -> tuple[int, ...]:
    with torch._C.DisableTorchFunction():
        return (tensor.size(0),) if tensor.is_nested else tuple(tensor.shape)


def _autocast() -> Hashable:
    return tuple([torch.get_autocast_dtype(d) if torch.is_autocast_enabled(d) else None for d in _DEVICES])


def _transformed(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Hashable:
    """Under ``vmap`` and its like: what the tensors are that it wrapped."""
    with torch._C.DisableTorchFunction():
        return tuple([_sizes(t) for t in carried((list(args), dict(kwargs)))])
