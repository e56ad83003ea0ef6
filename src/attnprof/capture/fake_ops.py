"""Shapes of ops on fake tensors that torch refuses, though it runs them on real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_impls import op_implementations_dict
from torch._subclasses.fake_tensor import FakeTensorMode

_GROUPED_MM = torch.ops.aten._grouped_mm.default


@contextmanager
def known() -> Iterator[None]:
    """Inside, grouped matrix products are fake in every floating dtype; torch's rule has bfloat16 alone."""
    if _GROUPED_MM in op_implementations_dict:  # torch has one of its own, or this is inside another
        yield
        return
    op_implementations_dict[_GROUPED_MM] = _grouped_mm
    try:
        yield
    finally:
        del op_implementations_dict[_GROUPED_MM]


def _grouped_mm(mode: FakeTensorMode, func: Any, *args: Any, **kwargs: Any) -> Any:
    first = args[0] if args else kwargs.get("self")
    if not isinstance(first, torch.Tensor) or first.dtype is torch.bfloat16 or not first.is_floating_point():
        return NotImplemented  # torch's own rule
    with mode:
        halved = [_as(value, torch.bfloat16) for value in args]
        named = {name: _as(value, torch.bfloat16) for name, value in kwargs.items() if name != "out_dtype"}
        found = func(*halved, **named)
        return found.to(kwargs.get("out_dtype") or first.dtype)


def _as(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors in another dtype, with the same strides; anything else as it is."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=dtype, device=value.device)
