"""Module calls by the shapes they were given, noted cheaply and written out once."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from attnprof.capture.modules import Modules

_current_task = torch._C._current_graph_task_id


class Calls:
    """Counts calls per module and shapes; keeps shapes and dtypes, never tensors."""

    def __init__(self, modules: Modules) -> None:
        self._modules = modules
        self._seen: dict[tuple[Any, ...], int] = {}
        self._lock = threading.Lock()

    def note(self, index: int, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """One call of ``module`` has ended."""
        if id(module) in self._modules.wrappers:
            return
        if _current_task() >= 0:
            self._modules.records[index].recomputed_calls += 1
            return
        key: list[Any] = [index]
        for value in args:
            if isinstance(value, Tensor):
                key += (None, _shape(value), value.dtype)
        for name, value in kwargs.items():
            if isinstance(value, Tensor):
                key += (name, _shape(value), value.dtype)
        if isinstance(output, Tensor):
            key += ("->", _shape(output), output.dtype)
        call = tuple(key)
        with self._lock:
            self._seen[call] = self._seen.get(call, 0) + 1

    def write(self) -> None:
        """Put the counts into the module records, shapes as text."""
        for record in self._modules.records:
            record.calls = {}
        for (index, *parts), count in list(self._seen.items()):
            texts = tuple(_texts(parts))
            calls = self._modules.records[index].calls
            calls[texts] = calls.get(texts, 0) + count


def _shape(tensor: Tensor) -> tuple[int, ...]:
    try:
        return tensor.shape
    except RuntimeError:  # a nested tensor has no one shape: how many pieces it has
        return (tensor.size(0),)


def _texts(parts: list[Any]) -> Iterable[str]:
    for name, shape, dtype in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        text = f"{str(dtype).removeprefix('torch.')}[{','.join(map(str, shape))}]"
        yield f"{name} {text}" if name == "->" else f"{name}={text}" if name else text
