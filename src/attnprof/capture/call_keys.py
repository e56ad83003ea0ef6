"""What a call of the model is known by: two calls with the same key are taken to do the same work."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnprof.capture.carried import carried
from attnprof.capture.signatures import PLAIN

#: Values that a program branches on are part of a key; a float is not, as few programs do.
_VALUES = (bool, int, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


class Flags:
    """What a program may switch in a model between two calls: its modules' modes, which weights are frozen, which
    have a gradient that the next one is added to."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [weakref.ref(module) for module in model.modules()]
        self._parameters = [weakref.ref(parameter) for parameter in model.parameters()]

    def key(self) -> Hashable:
        """Equal when nothing was switched."""
        with torch._C.DisableTorchFunction():
            return (
                tuple([m.training for ref in self._modules if (m := ref()) is not None]),
                tuple([p.requires_grad + 2 * (p.grad is None) for ref in self._parameters if (p := ref()) is not None]),
            )


def key_of(flags: Flags, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Hashable:
    """The tensors of a call, by shape, dtype, device and whether they need a gradient, its values, and its modes."""
    return (
        tuple(map(_key, args)),
        tuple((name, _key(value)) for name, value in kwargs.items()) if kwargs else (),
        flags.key(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        _autocast(args, kwargs) if torch._C._is_any_autocast_enabled() else None,
    )


def label_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The call's tensors as text: ``float32[8,64], mask=bool[8]``."""
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
        if value.is_nested or value.layout is not torch.strided:
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


def _autocast(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Hashable:
    devices = {t.device.type for t in carried((list(args), dict(kwargs)))}
    return tuple((d, torch.get_autocast_dtype(d)) for d in sorted(devices) if torch.is_autocast_enabled(d))
