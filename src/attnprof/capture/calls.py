"""Module calls by the shapes they were given and the gradients asked for, noted cheaply and written out once."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from attnprof.capture.signatures import PLAIN
from attnprof.core.trace import Call, ModuleRecord

#: The name of tensors in a tuple or list, which are part of a call's kind alone; and of how many at most.
_INSIDE, _MOST = "*", 8
_current_task = torch._C._current_graph_task_id
_function_mode_is_on = torch._C._is_torch_function_mode_enabled


class Calls:
    """The calls one thread made, by module and shapes; shapes and dtypes are kept, never tensors.

    Beside each stand the spans of autograd numbers that its calls owned (two ends each, see ``Attribution.leave``),
    from which :func:`write` knows which of them a backward went through.
    """

    def __init__(self) -> None:
        self.seen: dict[tuple[Any, ...], list[int]] = {}

    def note(self, index: int, args: Any, kwargs: dict[str, Any] | None, output: Any, span: tuple[int, int]) -> None:
        """One call of module ``index`` has ended; without ``kwargs``, by an exception."""
        state = (_current_task() >= 0) + (2 if kwargs is None else 0)
        try:
            if _function_mode_is_on():  # a user's mode need not see us asking
                with torch._C.DisableTorchFunction():
                    key = _key(index, state, args, kwargs, output)
            else:
                key = _key(index, state, args, kwargs, output)
        except RuntimeError:  # a nested tensor, which says it is plain, has no one shape
            found = [(name, *_asked(t)) for name, t in _tensors(args, kwargs or {}, output)]
            key = (index, state, *(part for parts in found for part in parts))
        spans = self.seen.get(key)
        if spans is None:
            spans = self.seen[key] = []
        spans += span


def write(all_calls: Iterable[tuple[Calls, Collection[int]]], records: list[ModuleRecord]) -> None:
    """Put the counts of every thread into the module records, shapes as text.

    With each thread's calls come the autograd numbers of the nodes that a backward ran.
    """
    for record in records:
        record.calls, record.call_kinds, record.recomputed_calls = {}, {}, 0
    for calls, ran in all_calls:
        reached = sorted(ran)
        for (index, state, *parts), spans in list(calls.seen.items()):
            record, tensors = records[index], tuple(_texts(parts))
            texts = tuple(text for text in tensors if not text.startswith(_INSIDE))
            recomputed, count = bool(state & 1), len(spans) // 2
            if recomputed:
                record.recomputed_calls += count
            else:
                record.calls[texts] = record.calls.get(texts, 0) + count
            for backward, times in Counter(map(partial(_any_in, reached), spans[::2], spans[1::2])).items():
                kind = Call(tensors, tuple(parts[3::4]), backward, recomputed, not state & 2)
                record.call_kinds[kind] = record.call_kinds.get(kind, 0) + times


def _any_in(numbers: list[int], start: int, end: int) -> bool:
    """Whether one of the numbers, which are sorted, is in a span."""
    at = bisect_left(numbers, start)
    return at < len(numbers) and numbers[at] < end


def _key(index: int, state: int, args: Any, kwargs: dict[str, Any] | None, output: Any) -> tuple[Any, ...]:
    key: list[Any] = [index, state]
    for value in args:
        kind = value.__class__
        if kind in PLAIN:
            key += (None, value.shape, value.dtype, value.requires_grad)
        elif kind is tuple or kind is list:
            key += _inside(value)
        elif isinstance(value, Tensor):
            key += (None, *_asked(value))
    if kwargs:
        for name, value in kwargs.items():
            kind = value.__class__
            if kind in PLAIN:
                key += (name, value.shape, value.dtype, value.requires_grad)
            elif kind is tuple or kind is list:
                key += _inside(value)
            elif isinstance(value, Tensor):
                key += (name, *_asked(value))
    kind = output.__class__
    if kind in PLAIN:
        key += ("->", output.shape, output.dtype, output.requires_grad)
    elif isinstance(output, Tensor):
        key += ("->", *_asked(output))
    return tuple(key)


def _inside(values: Sequence[Any]) -> Iterable[Any]:
    for value in values[:_MOST]:
        kind = value.__class__
        if kind in PLAIN:
            yield from (_INSIDE, value.shape, value.dtype, value.requires_grad)


def _tensors(args: Any, kwargs: dict[str, Any], output: Any) -> Iterable[tuple[str | None, Tensor]]:
    given = [*((None, a) for a in args), *kwargs.items(), ("->", output)]
    return [(name, value) for name, value in given if isinstance(value, Tensor)]


def _asked(tensor: Tensor) -> tuple[tuple[int, ...], torch.dtype, bool]:
    """Shape, dtype and gradient flag of any kind of tensor; of a nested one, how many pieces it has."""
    with torch._C.DisableTorchFunction():  # a subclass need not answer
        if is_lazy(tensor):
            return (0,), tensor.dtype, tensor.requires_grad
        return (tensor.size(0),) if tensor.is_nested else tensor.shape, tensor.dtype, tensor.requires_grad


def _texts(parts: list[Any]) -> Iterable[str]:
    for name, shape, dtype in zip(parts[::4], parts[1::4], parts[2::4], strict=True):
        text = f"{str(dtype).removeprefix('torch.')}[{','.join(map(str, shape))}]"
        yield f"{name} {text}" if name in ("->", _INSIDE) else f"{name}={text}" if name else text
