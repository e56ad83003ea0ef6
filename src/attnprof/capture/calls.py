"""Module calls by the shapes they were given, noted cheaply and written out once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from attnprof.capture.signatures import PLAIN
from attnprof.core.trace import ModuleRecord

_current_task = torch._C._current_graph_task_id
_function_mode_is_on = torch._C._is_torch_function_mode_enabled


class Calls:
    """The calls one thread made, by module and shapes; shapes and dtypes are kept, never tensors."""

    def __init__(self) -> None:
        self.seen: dict[tuple[Any, ...], int] = {}
        self.recomputed: dict[int, int] = {}

    def note(self, index: int, args: Any, kwargs: dict[str, Any] | None, output: Any) -> None:
        """One call of module ``index`` has ended."""
        if _current_task() >= 0:
            self.recomputed[index] = self.recomputed.get(index, 0) + 1
            return
        try:
            if _function_mode_is_on():  # a user's mode need not see us asking
                with torch._C.DisableTorchFunction():
                    key = _key(index, args, kwargs, output)
            else:
                key = _key(index, args, kwargs, output)
        except RuntimeError:  # a nested tensor, which says it is plain, has no one shape
            found = [(name, *_asked(t)) for name, t in _tensors(args, kwargs or {}, output)]
            key = (index, *(part for parts in found for part in parts))
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


def _key(index: int, args: Any, kwargs: dict[str, Any] | None, output: Any) -> tuple[Any, ...]:
    key: list[Any] = [index]
    for value in args:
        kind = value.__class__
        if kind in PLAIN:
            key += (None, value.shape, value.dtype)
        elif isinstance(value, Tensor):
            key += (None, *_asked(value))
    if kwargs:
        for name, value in kwargs.items():
            kind = value.__class__
            if kind in PLAIN:
                key += (name, value.shape, value.dtype)
            elif isinstance(value, Tensor):
                key += (name, *_asked(value))
    kind = output.__class__
    if kind in PLAIN:
        key += ("->", output.shape, output.dtype)
    elif isinstance(output, Tensor):
        key += ("->", *_asked(output))
    return tuple(key)


def _tensors(args: Any, kwargs: dict[str, Any], output: Any) -> Iterable[tuple[str | None, Tensor]]:
    given = [*((None, a) for a in args), *kwargs.items(), ("->", output)]
    return [(name, value) for name, value in given if isinstance(value, Tensor)]


def _asked(tensor: Tensor) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of a tensor that need not be a plain one; of a nested one, how many pieces it has."""
    with torch._C.DisableTorchFunction():  # a subclass need not answer
        if is_lazy(tensor):
            return (0,), tensor.dtype
        return (tensor.size(0),) if tensor.is_nested else tensor.shape, tensor.dtype


def _texts(parts: list[Any]) -> Iterable[str]:
    for name, shape, dtype in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        text = f"{str(dtype).removeprefix('torch.')}[{','.join(map(str, shape))}]"
        yield f"{name} {text}" if name == "->" else f"{name}={text}" if name else text
