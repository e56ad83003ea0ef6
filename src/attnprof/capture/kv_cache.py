"""The key-value cache that a module call leaves behind: which value it is, its bytes per layer, its tokens.

A cache is known by name. Either the output has a field of one of the names below (as Hugging Face's do), or
the module's ``forward`` takes an argument of that name, and the call was given one or returned one. Buffers
and attributes of the model are not searched: a cache kept there counts as what it is, a buffer or a tensor
that outlives the call.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from itertools import zip_longest
from types import CodeType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from attnprof.capture.modules import unwrap

#: What a cache is called, as an argument or as a field of an output.
NAMES = (
    "past_key_values",
    "past_key_value",
    "layer_past",
    "kv_cache",
    "kv_caches",
    "cache_params",
    "cache",
    "caches",
    "mems",
    "past_buckets_states",
)
#: Names that mean other things too: such an argument is a cache only when the call returns a new one.
LOOSE_NAMES = ("past", "state", "states")
#: How deep a cache may be nested: a cache of caches of layers of states by number.
_DEEPEST = 6


class Slot(NamedTuple):
    """The parameter of a ``forward`` that takes the cache; ``position`` is None for a keyword-only one."""

    name: str
    position: int | None


class CacheSize(NamedTuple):
    """The bytes of a cache, layer by layer, and the tokens it holds (None where its shapes do not say)."""

    layer_bytes: tuple[int, ...]
    tokens: int | None


def cache_of(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> CacheSize | None:
    """The size of the cache after one call of ``module``, or None when there is none.

    Bytes are those of the tensors' own elements, each stretch of memory once: a tensor that two layers share
    counts in the first. A slice of a larger buffer counts what it shows, which is what a step reads; a cache
    that is allocated all at once counts whole from its first call. Tokens are those a layer of keys
    [batch, heads, tokens, width] has room for in a cache object; in plain tensors, the length of the dimension
    that grew, or in a first call that of the input. Reads shapes, runs no op and keeps nothing.
    """
    with torch._C.DisableTorchFunction():  # a user's subclass or mode need not see us asking
        cache, given = _find(module, args, kwargs, output)
        sizes = () if cache is None else _bytes(_layers(cache))
        return CacheSize(sizes, _tokens(cache, given, args, kwargs)) if sizes else None


def find(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> Any:
    """The cache itself after one call of ``module``: the one returned, or else the one given and updated."""
    with torch._C.DisableTorchFunction():
        cache, _ = _find(module, args, kwargs, output)
        return cache if cache is not None and _layers(cache) else None


def layers(cache: Any) -> list[list[Tensor]]:
    """The tensors of a cache, layer by layer."""
    with torch._C.DisableTorchFunction():
        return _layers(cache)


def slot_of(module: nn.Module) -> Slot | None:
    """Where a module takes a cache. Its first argument is its input, whatever its name."""
    forward: Any = unwrap(module).forward
    code = getattr(inspect.unwrap(getattr(forward, "__func__", forward)), "__code__", None)
    return None if code is None else _slot(code)


@lru_cache(maxsize=1024)
def _slot(code: CodeType) -> Slot | None:
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    for name in (*NAMES, *LOOSE_NAMES):
        if name in names[2:]:  # after self and the input
            position = names.index(name) - 1
            return Slot(name, position if position < code.co_argcount - 1 else None)
    return None


# Which value is the cache


def _find(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> tuple[Any, Any]:
    """The cache after the call, and the one the call was given."""
    slot = slot_of(module)
    if slot is None:
        name = next((n for n in NAMES if n in kwargs), None) if kwargs else None
        slot = None if name is None else Slot(name, None)
    given = None if slot is None else _given(slot, args, kwargs)
    if output is None or isinstance(output, Tensor):
        returned = None
    elif type(output) in (tuple, list):
        returned = None if slot is None else _in_tuple(output, given)
    else:
        named = members(output)
        returned = next((named[n] for n in NAMES if named.get(n) is not None), None)
        if returned is None and slot is not None:
            returned = named.get(slot.name)
    if returned is not None:
        return returned, given
    return (given if slot is not None and slot.name in NAMES else None), given


def _given(slot: Slot, args: Any, kwargs: Mapping[str, Any]) -> Any:
    if slot.position is not None and slot.position < len(args):
        return args[slot.position]
    return kwargs.get(slot.name)


def _in_tuple(output: Any, given: Any) -> Any:
    """The cache in ``(output, cache)`` or a longer tuple, by its form: that of the cache given, if one was."""
    rest = output[1:]
    if given is not None and (any(value is given for value in rest) or _layers(given)):
        same = (value for value in rest if value is given)
        return next(same, next((value for value in rest if _same_form(value, given)), None))
    if len(rest) == 1:
        value = rest[0]
        return value if not isinstance(value, Tensor) or value.dim() >= 2 else None  # a loss has no dimensions
    return next((v for v in rest if not isinstance(v, Tensor) and any(len(layer) > 1 for layer in _layers(v))), None)


def _same_form(value: Any, given: Any) -> bool:
    if isinstance(given, Tensor):
        return isinstance(value, Tensor) and (value.dim(), value.dtype) == (given.dim(), given.dtype)
    if isinstance(given, list | tuple):
        return isinstance(value, list | tuple) and len(value) == len(given) and bool(_layers(value))
    return type(value) is type(given)


# What it holds


def _layers(value: Any, depth: int = 0) -> list[list[Tensor]]:
    """The tensors of a cache by layer.

    A record (a dict by words, a pair, an object) of tensors or of lists by layer is taken apart by layer;
    other sequences and dicts hold one layer per entry. A number in a tensor without dimensions is no cache.
    """
    if isinstance(value, Tensor):
        return [[value]] if value.dim() else []
    if depth == _DEEPEST or value is None or isinstance(value, str | bytes | int | float | type):
        return []
    if isinstance(value, list | tuple | Mapping):
        record = _is_record(value)
        parts = list(value.values()) if isinstance(value, Mapping) else list(value)
    else:
        record, parts = True, [part for name, part in members(value).items() if name != "config"]
    found = [by_layer for part in parts if (by_layer := _layers(part, depth + 1))]
    if record:
        return [[t for part in same_layer for t in part] for same_layer in zip_longest(*found, fillvalue=[])]
    return [[t for part in by_layer for t in part] for by_layer in found]


def _is_record(value: Any) -> bool:
    if isinstance(value, Mapping):
        named, parts = all(isinstance(key, str) for key in value), list(value.values())
    else:
        named, parts = isinstance(value, tuple) and (len(value) == 2 or hasattr(value, "_fields")), list(value)
    return named and all(part is None or isinstance(part, Tensor | list) for part in parts)


def members(value: Any) -> dict[str, Any]:
    """The fields of an object, without running code of its class."""
    if isinstance(value, dict):
        return value
    found = dict(getattr(value, "__dict__", {}))
    names = getattr(type(value), "_fields", ()) if isinstance(value, tuple) else ()
    if is_dataclass(value):
        names = tuple(field.name for field in fields(value))
    slots = getattr(type(value), "__slots__", ())
    for name in (*names, *((slots,) if isinstance(slots, str) else slots)):
        if name not in found and hasattr(value, name):
            found[name] = getattr(value, name)
    return found


def _bytes(by_layer: list[list[Tensor]]) -> tuple[int, ...]:
    seen: dict[Any, Any] = {}  # what was counted; the values keep ids from being used again
    left: dict[int, int] = {}  # bytes of each storage that no tensor has been counted for
    return tuple(sum(_distinct(part, seen, left) for t in layer for part in _plain(t)) for layer in by_layer)


def _distinct(tensor: Tensor, seen: dict[Any, Any], left: dict[int, int]) -> int:
    """The bytes of a tensor's elements that were not counted yet; an expanded dimension is one element."""
    elements = 1
    try:
        storage = tensor.untyped_storage()
        shape, stride = tuple(tensor.shape), tensor.stride()
        key: Any = (storage._cdata, tensor.storage_offset(), shape, stride)
        for size, step in zip(shape, stride, strict=True):
            elements *= size if step or not size else 1
    except (NotImplementedError, RuntimeError):  # sparse and mkldnn tensors have no storage to ask
        if id(tensor) in seen:
            return 0
        seen[id(tensor)] = tensor
        return int(tensor.numel()) * tensor.element_size()
    if key in seen:
        return 0
    seen[key] = storage
    room = left.setdefault(storage._cdata, int(storage.nbytes()))
    counted = min(int(elements) * tensor.element_size(), room)
    left[storage._cdata] = room - counted
    return counted


def _plain(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors that hold the elements of a subclass which wraps others (a quantized cache); or the tensor."""
    if not is_traceable_wrapper_subclass(tensor):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        inner = getattr(tensor, name)
        if isinstance(inner, Tensor):
            yield from _plain(inner)


# How many tokens it holds


def _tokens(cache: Any, given: Any, args: Any, kwargs: Mapping[str, Any]) -> int | None:
    of_object = getattr(getattr(cache, "self_attention_cache", cache), "layers", None)
    if isinstance(of_object, list):
        keys = [getattr(layer, "keys", None) for layer in of_object]
        return max((int(k.shape[-2]) for k in keys if isinstance(k, Tensor) and k.dim() >= 3), default=None)
    after = next((t for layer in _layers(cache) for t in layer), None)
    before = None if given is None or given is cache else next((t for layer in _layers(given) for t in layer), None)
    if after is None:
        return None
    if before is not None:
        grown = [int(new) for old, new in zip(before.shape, after.shape, strict=False) if new != old]
        return grown[0] if len(grown) == 1 and before.dim() == after.dim() else None
    if given is not None:
        return None  # updated in place: its shapes are what they were
    length = _input_length(args, kwargs)
    return length if length in tuple(after.shape)[1:] else None


def _input_length(args: Any, kwargs: Mapping[str, Any]) -> int | None:
    """The tokens of the call's input: ids [batch, tokens] or embeddings [batch, tokens, width]."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.dim() in (2, 3):
            return int(value.shape[1])
    return None
