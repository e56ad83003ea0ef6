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

from attnprof.capture.cached_keys import KEYS, NOT_SEEN, SEEN, cached
from attnprof.capture.call_bytes import SCALARS, UNKNOWN, add, hidden, visible
from attnprof.capture.signatures import PLAIN
from attnprof.core.trace import Call, ModuleRecord

#: The name of tensors in a tuple or list, which are part of a call's kind alone; and of how many at most.
_INSIDE, _MOST = "*", 8
#: The names that stand before a shape, and of them those that are part of a call's kind alone.
_MARKS = ("->", _INSIDE, KEYS, SEEN, NOT_SEEN)
_OF_KIND = tuple(f"{mark} " for mark in _MARKS[1:])
#: The length of the key of a call with one tensor in and one out.
_OF_ONE = 10
_current_task = torch._C._current_graph_task_id
_function_mode_is_on = torch._C._is_torch_function_mode_enabled


class Calls:
    """The calls one thread made, by module and shapes; shapes and dtypes are kept, never tensors.

    Beside each stand the spans of autograd numbers that its calls owned (two ends each, see ``Attribution.leave``),
    from which :func:`write` knows which of them a backward went through.
    """

    def __init__(self) -> None:
        self.seen: dict[tuple[Any, ...], list[int]] = {}

    def note(
        self, index: int, module: Any, args: Any, kwargs: dict[str, Any] | None, output: Any, span: tuple[int, int]
    ) -> None:
        """One call of ``module``, number ``index``, has ended; without ``kwargs``, by an exception."""
        state = (_current_task() >= 0) + (2 if kwargs is None else 0)
        try:
            if _function_mode_is_on():  # a user's mode need not see us asking
                with torch._C.DisableTorchFunction():
                    key = _key(index, module, state, args, kwargs, output)
            else:
                key = _key(index, module, state, args, kwargs, output)
        except RuntimeError:  # a nested tensor, which says it is plain, has no one shape
            found = [(name, *_asked(t)) for name, t in _tensors(args, kwargs or {}, output)]
            key = (index, state, *(part for parts in found for part in parts), *UNKNOWN)
        spans = self.seen.get(key)
        if spans is None:
            spans = self.seen[key] = []
        spans += span


def write(all_calls: Iterable[tuple[Calls, Collection[int], int]], records: list[ModuleRecord]) -> None:
    """Put the counts of every thread into the module records, shapes as text.

    With the calls come the autograd numbers of the nodes that a backward ran in their thread, and how many calls
    each of them stands for.
    """
    for record in records:
        record.calls, record.call_kinds, record.recomputed_calls = {}, {}, 0
        record.call_bytes = {}
    for calls, ran, each in all_calls:
        reached = sorted(ran)
        for (index, state, *parts), spans in list(calls.seen.items()):
            shown = visible(parts)
            record, tensors = records[index], tuple(_texts(shown))
            texts = tuple(text for text in tensors if not text.startswith(_OF_KIND))
            recomputed, count = bool(state & 1), len(spans) // 2 * each
            if recomputed:
                record.recomputed_calls += count
            else:
                record.calls[texts] = record.calls.get(texts, 0) + count
            reached_by = Counter(map(partial(_any_in, reached), spans[::2], spans[1::2]))
            for backward, times in reached_by.items():
                kind = Call(tensors, tuple(shown[3::4]), backward, recomputed, not state & 2)
                record.call_kinds[kind] = record.call_kinds.get(kind, 0) + times * each
            ended, went_back = not state & 2, reached_by[True] * each
            add(record.call_bytes, parts, again=recomputed, ended=ended, calls=count, backward=went_back)


def _any_in(numbers: list[int], start: int, end: int) -> bool:
    """Whether one of the numbers, which are sorted, is in a span."""
    at = bisect_left(numbers, start)
    return at < len(numbers) and numbers[at] < end


def _key(index: int, module: Any, state: int, args: Any, kwargs: dict[str, Any] | None, output: Any) -> tuple[Any, ...]:
    key: list[Any] = [index, state]
    more = False  # than single tensors
    for value in args:
        kind = value.__class__
        if kind in PLAIN:
            key += (None, value.shape, value.dtype, value.requires_grad)
        elif kind is tuple or kind is list:
            key += _inside(value)
            more = True
        elif kind not in SCALARS:
            if isinstance(value, Tensor):
                key += (None, *_asked(value))
            else:
                key += cached(module, value)
            more = True
    if kwargs:
        for name, value in kwargs.items():
            kind = value.__class__
            if kind in PLAIN:
                key += (name, value.shape, value.dtype, value.requires_grad)
            elif kind is tuple or kind is list:
                key += _inside(value)
                more = True
            elif kind not in SCALARS:
                if isinstance(value, Tensor):
                    key += (name, *_asked(value))
                else:
                    key += cached(module, value)
                more = True
    kind = output.__class__
    if kind in PLAIN:
        key += ("->", output.shape, output.dtype, output.requires_grad)
    elif kind not in SCALARS:
        if isinstance(output, Tensor):
            key += ("->", *_asked(output))
        more = True
    if more or len(key) > _OF_ONE:  # of several tensors, some may be the same
        key += hidden(module, args, kwargs, output, _MOST)
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
        yield f"{name} {text}" if name in _MARKS else f"{name}={text}" if name else text
