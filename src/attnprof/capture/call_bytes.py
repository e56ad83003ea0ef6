"""The bytes that go into a module call and come out, from what :mod:`calls` notes of it.

A call is noted in parts of four: name, shape, dtype and whether a gradient is needed. Hidden parts follow those
that a reader sees: tensors deeper inside what was given or returned, what was counted twice, and the mark of a
value that was not looked into.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from math import prod
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from attnprof.capture.cached_keys import KEYS, NOT_SEEN, SEEN
from attnprof.capture.signatures import PLAIN

#: Tensors given and returned inside something, and in the layer of a cache; what was counted before; a value that
#: may hold tensors.
_GIVEN, _RETURNED, _CACHED, _AGAIN, _UNKNOWN = "*>", "->*", "*cache", "=", "?"
_HIDDEN = frozenset((_GIVEN, _RETURNED, _CACHED, _AGAIN, _UNKNOWN))
#: The types of nearly all values that hold no tensor, and all of them.
SCALARS = frozenset((type(None), bool, int, float, str))
_EMPTY = (
    type(None), bool, int, float, complex, str, bytes, slice, range, type, torch.dtype, torch.device, torch.layout,
    torch.memory_format, torch.Size, torch.Generator, FunctionType, BuiltinFunctionType, MethodType, Enum, nn.Module,
)  # fmt: skip
#: How deep values are looked into, and how many of them at most.
_DEPTH, _MOST = 6, 1000
_STRIDED = torch.strided

#: The hidden part of a call whose tensors are not known.
UNKNOWN: tuple[Any, ...] = (_UNKNOWN, (), None, False)


def hidden(module: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None, output: Any, seen: int) -> list[Any]:
    """The hidden parts of a call of a module, one after the other.

    Seen are tensors that are an argument or the output, and the plain ones among the first ``seen`` items of an
    argument that is a tuple or list. Of a key-value cache of transformers, a layer of attention moves its own keys
    and values, once each; a module around it moves what those in it do.
    """
    found: list[Any] = []
    given = _Search(found, _GIVEN)
    value: Any
    for value in (*args, *kwargs.values()) if kwargs else args:
        kind = value.__class__
        if kind in SCALARS:
            continue
        if kind in PLAIN:
            given.count_once(value)
        elif kind is tuple or kind is list:
            for item in value[:seen]:
                if item.__class__ in PLAIN:
                    given.count_once(item)
                else:
                    given.look(item)
            if len(value) > seen:
                given.look(value[seen:])
        elif isinstance(value, Tensor):
            found += UNKNOWN
        elif _is_cache(value):
            _look_into_cache(module, value, kwargs or {}, found)
        else:
            given.look(value)
    if output.__class__ not in PLAIN:
        _Search(found, _RETURNED).look(output)
    return found


def visible(parts: list[Any]) -> list[Any]:
    """The parts of a call without the hidden ones."""
    names = parts[::4]
    return parts[: 4 * next((i for i, name in enumerate(names) if name in _HIDDEN), len(names))]


def add(
    totals: dict[str, int | None], parts: list[Any], *, again: bool, ended: bool, calls: int, backward: int
) -> None:
    """Add the bytes of some calls, ``again`` for a checkpoint or not, ``backward`` of them with a backward.

    A forward moves what it is given and what it returns. A backward moves what was given, the gradients of what was
    returned, and those of what was given. Calls that raised moved nobody knows what; but where a checkpoint ends a
    repeated one early, nothing is returned.
    """
    known = None not in parts[2::4]
    given = returned = gradients = cached = 0
    for name, shape, dtype, needed in zip(parts[::4], parts[1::4], parts[2::4], parts[3::4], strict=True):
        if not known or name in (KEYS, SEEN, NOT_SEEN):  # keys are part of what is cached
            continue
        size = prod(shape) * dtype.itemsize
        if name in ("->", _RETURNED):
            returned += size
        elif name == _CACHED:
            cached += size
        else:
            given += -size if name == _AGAIN else size
        if needed:
            gradients += -size if name == _AGAIN else size
    _add(totals, "recompute" if again else "forward", given + returned + cached, calls, known and (ended or again))
    _add(totals, "backward", given + gradients, backward, known)
    if _CACHED in parts[::4] and not again:
        _add(totals, "cache", cached, calls, known)


def _add(totals: dict[str, int | None], what: str, size: int, times: int, known: bool) -> None:
    if times:
        before = totals.get(what, 0)
        totals[what] = before + size * times if known and before is not None else None


class _Search:
    """Tensors in values, noted under a name: those in containers and dataclasses, and in nothing else."""

    __slots__ = ("found", "known", "left", "name")

    def __init__(self, found: list[Any], name: str) -> None:
        self.found, self.name, self.left = found, name, _MOST
        self.known: set[int] = set()  # ids of the tensors noted before

    def look(self, value: Any, depth: int = 0) -> None:
        """Note the tensors in a value."""
        kind = value.__class__
        self.left -= 1
        if kind in SCALARS:
            return
        if kind in PLAIN:
            self.found += (self.name, value.shape, value.dtype, value.requires_grad)
            self.count_once(value)
            return
        items = value if kind is tuple or kind is list else _items(value)
        if items is None:
            if not isinstance(value, _EMPTY) and not (self.name == _RETURNED and _is_cache(value)):
                self.found += UNKNOWN
            return
        for item in items:
            if depth == _DEPTH or self.left < 0:
                self.found += UNKNOWN
                break
            self.look(item, depth + 1)

    def count_once(self, tensor: Any) -> None:
        """A tensor was noted: take back what of it was noted before, or is not there (an expanded dimension)."""
        if tensor.layout is not _STRIDED:
            self.found += UNKNOWN  # how much it holds is not a matter of its shape
        elif id(tensor) in self.known:
            self.found += (_AGAIN, tensor.shape, tensor.dtype, tensor.requires_grad)
        else:
            self.known.add(id(tensor))
            stride = tensor.stride()
            if 0 in stride:
                distinct = prod(n for n, step in zip(tensor.shape, stride, strict=True) if step)
                self.found += (_AGAIN, (tensor.numel() - distinct,), tensor.dtype, False)


def _is_cache(value: Any) -> bool:
    return any(kind.__module__ == "transformers.cache_utils" for kind in type(value).__mro__)


def _look_into_cache(module: Any, cache: Any, kwargs: Mapping[str, Any], found: list[Any]) -> None:
    """Note the keys and values of a layer of attention, if the module is one; of two caches, those of its kind."""
    at = vars(module).get("layer_idx")
    if not isinstance(at, int):
        return
    which = "self_attention_cache" if kwargs.get("key_value_states") is None else "cross_attention_cache"
    layers = vars(vars(cache).get(which, cache)).get("layers")
    layer = layers[at] if isinstance(layers, list) and at < len(layers) else None
    for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)):
        if isinstance(tensor, Tensor) and tensor.__class__ in PLAIN:
            found += (_CACHED, tensor.shape, tensor.dtype, False)
        else:
            found += (_CACHED, *UNKNOWN[1:])


def _items(value: Any) -> Iterable[Any] | None:
    """What a container holds; None for what is none."""
    if isinstance(value, UserDict):
        value = value.data
    if isinstance(value, dict):
        return dict.values(value)
    if isinstance(value, list | tuple | set | frozenset) and not isinstance(value, torch.Size):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in fields(value)]
    return None
