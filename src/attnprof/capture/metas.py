"""Live tensors as plain values."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import _disable_current_modes

from attnprof.core.tensor import TensorMeta


@cache
def _name(kind: Any) -> str:
    """A dtype, device or layout as text, without ``torch.``."""
    return str(kind).removeprefix("torch.")


def tensor_meta(t: Tensor, ident: int = -1, contents: bool = False) -> TensorMeta:
    """A tensor as plain values. A nested tensor is a flat buffer whose ``values`` are its pieces' shapes."""
    with torch._C.DisableTorchFunction():
        return _tensor_meta(t, ident, contents)


def _tensor_meta(t: Tensor, ident: int, contents: bool) -> TensorMeta:
    dtype, device = _name(t.dtype), _name(t.device)
    if is_lazy(t):
        return TensorMeta((0,), (1,), dtype, device, ident)  # it holds nothing yet
    if t.layout is not torch.strided:
        layout, shape = _name(t.layout), tuple(map(int, t.shape))
        nnz, index_bytes = _stored(t, layout)
        return TensorMeta(shape, (), dtype, device, ident, layout, nnz=nnz, index_bytes=index_bytes)
    if t.is_nested:
        with _disable_current_modes():
            pieces = t._nested_tensor_size()
        return TensorMeta((t.numel(),), (1,), dtype, device, ident, "nested", values=tuple(pieces.flatten().tolist()))
    values = contents_of(t) if contents else None
    return TensorMeta(tuple(map(int, t.shape)), tuple(map(int, t.stride())), dtype, device, ident, values=values)


def _stored(t: Tensor, layout: str) -> tuple[int | None, int]:
    """The elements that a sparse tensor stores, and the bytes of its indices; (None, 0) of one that is not sparse."""
    if not layout.startswith("sparse"):
        return None, 0
    with _disable_current_modes():  # nobody else's mode need see us asking
        indices: tuple[Tensor, ...]
        if layout == "sparse_coo":
            indices, values = (t._indices(),), t._values()
        elif layout in ("sparse_csr", "sparse_bsr"):
            indices, values = (t.crow_indices(), t.col_indices()), t.values()
        else:
            indices, values = (t.ccol_indices(), t.row_indices()), t.values()
        return values.numel(), sum(i.numel() * i.element_size() for i in indices)


def contents_of(value: Any) -> tuple[int, ...] | None:
    """The values of a small index tensor; None where there are none to read."""
    if not isinstance(value, Tensor) or isinstance(value, FakeTensor) or value.is_meta:
        return None
    with _disable_current_modes():
        return tuple(value.detach().flatten().tolist())
