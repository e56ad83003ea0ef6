"""The tensors that a value carries, whatever it is: what a module was given, and what it returned."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from types import FrameType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

#: How deep a value is searched: the fields of objects in lists of objects ...
_DEPTH = 6
#: How far above a hook's own frame that of the call can be.
_FRAMES = 4
_LEAVES = (
    str, bytes, int, float, complex, range, type(None), type, FunctionType, ModuleType, nn.Module,
    torch.dtype, torch.device, torch.Size,
)  # fmt: skip

_is_wrapped: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor


def carried(value: Any) -> list[Tensor]:
    """The tensors in a value: itself, in containers, in the fields of objects; and those that transforms wrapped."""
    tensors: list[Tensor] = []
    seen: dict[int, Any] = {}  # with the values, which may be made as they are asked for
    level = [value]
    for _ in range(_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, Tensor):
                tensors += _unwrapped(item)
            elif not isinstance(item, _LEAVES) and id(item) not in seen:
                seen[id(item)] = item
                below += _parts(item)
        level = below
    return tensors


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dicts, as an op takes them: the quick way."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def keywords_of_call(frame: FrameType | None) -> Mapping[str, Any]:
    """The keyword arguments of the module call that a pre-hook runs in, from its frames: torch hands it none."""
    for _ in range(_FRAMES):
        if frame is None:
            break
        if frame.f_code.co_name == "_call_impl":
            found = frame.f_locals.get("kwargs")
            return found if isinstance(found, Mapping) else {}
        frame = frame.f_back
    return {}


def _unwrapped(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor, and what ``vmap`` and ``grad`` wrapped in it: each has a graph of its own."""
    yield tensor
    while _is_wrapped(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
        yield tensor


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | Set | deque):
        return list(value)
    slots = [name for kind in type(value).__mro__ for name in _names(vars(kind).get("__slots__", ()))]
    return [*getattr(value, "__dict__", {}).values(), *(getattr(value, name, None) for name in slots)]


def _names(slots: Any) -> Iterable[str]:
    names = (slots,) if isinstance(slots, str) else slots
    return [name for name in names if not name.startswith("__")]
