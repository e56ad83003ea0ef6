"""PyTorch's restricted unpickler, kept from making memory of a number alone.

What it may call runs nothing, but a few of its functions take a size: ``bytearray(10**12)`` in a file of a hundred
bytes would be made. No file of weights needs them so: storages come from the records of the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pickle import UnpicklingError
from typing import Any

import torch
from torch import _weights_only_unpickler as unpickler


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Inside, ``torch.load(weights_only=True)`` refuses tensors, storages and bytes that are made by their size."""
    original = unpickler._get_allowed_globals
    allowed = _Allowed(original())
    unpickler._get_allowed_globals = lambda: allowed  # type: ignore[assignment]
    try:
        yield
    finally:
        unpickler._get_allowed_globals = original


class _Allowed(dict[str, Any]):
    """What a pickle may name; what it may call or make is among the values."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__({**names, "builtins.bytearray": _bytearray})
        by_size = {torch.Tensor, torch.TypedStorage, torch.UntypedStorage, *torch._tensor_classes}
        self._calls = [value for value in super().values() if not (isinstance(value, type) and value in by_size)]

    def values(self) -> Any:
        return self._calls


def _bytearray(*args: Any) -> bytearray:
    if args and isinstance(args[0], int):
        raise UnpicklingError(f"it asks for {args[0]:,} bytes that it does not hold")
    return bytearray(*args)
