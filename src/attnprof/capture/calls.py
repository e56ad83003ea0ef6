"""Module calls by the shapes they were given, noted cheaply and written out once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from attnprof.core.trace import ModuleRecord

_current_task = torch._C._current_graph_task_id


class Calls:
    """The calls one thread made, by module and shapes; shapes and dtypes are kept, never tensors."""

    def __init__(self) -> None:
        self.seen: dict[tuple[Any, ...], int] = {}
        self.recomputed: dict[int, int] = {}

    def note(self, index: int, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """One call of module ``index`` has ended."""
        if _current_task() >= 0:
            self.recomputed[index] = self.recomputed.get(index, 0) + 1
            return
        with torch._C.DisableTorchFunction():  # a user's tensor subclass or mode need not see us asking
            try:
                key = _key(index, args, kwargs, output)
            except RuntimeError:  # a nested tensor has no one shape, a lazy one has none
                key = _key(index, args, kwargs, output, _pieces)
        self.seen[key] = self.seen.get(key, 0) + 1


def write(all_calls: Iterable[Calls], records: list[ModuleRecord]) -> None:
    """Put the counts of every thread into the module records, shapes as text."""
    for record in records:
        record.calls, record.recomputed_calls = {}, 0
    for calls in all_calls:
        for (index, *parts), count in list(calls.seen.items()):
            texts, found = tuple(_texts(parts)), records[index].calls
            found[texts] = found.get(texts, 0) + count
        for index, count in list(calls.recomputed.items()):
            records[index].recomputed_calls += count


def _key(
    index: int, args: Any, kwargs: dict[str, Any], output: Any, shape: Callable[[Tensor], Any] | None = None
) -> tuple[Any, ...]:
    key: list[Any] = [index]
    for value in args:
        if isinstance(value, Tensor):
            key += (None, shape(value) if shape else value.shape, value.dtype)
    if kwargs:
        for name, value in kwargs.items():
            if isinstance(value, Tensor):
                key += (name, shape(value) if shape else value.shape, value.dtype)
    if isinstance(output, Tensor):
        key += ("->", shape(output) if shape else output.shape, output.dtype)
    return tuple(key)


def _pieces(tensor: Tensor) -> tuple[int, ...]:
    """How many pieces a nested tensor has; the shape of any other."""
    if is_lazy(tensor):
        return (0,)
    return (tensor.size(0),) if tensor.is_nested else tensor.shape


def _texts(parts: list[Any]) -> Iterable[str]:
    for name, shape, dtype in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        text = f"{str(dtype).removeprefix('torch.')}[{','.join(map(str, shape))}]"
        yield f"{name} {text}" if name == "->" else f"{name}={text}" if name else text
