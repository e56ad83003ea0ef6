"""A model as ``torch.jit`` can trace it: called with tensors alone, and returning tensors alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

if TYPE_CHECKING:
    from attnprof.counters.jit_nodes import NodeWatch


class TensorsOnly(nn.Module):
    """``model(*args, **kwargs)`` as a function of the tensors among its arguments; all else is fixed.

    The model is its child ``model``. It returns every tensor that it finds in what the model returns, so that none
    of the work is taken for unused.
    """

    def __init__(self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.watch: NodeWatch | None = None
        self._leaves, self._spec = tree_flatten((tuple(args), dict(kwargs)))
        self._places = [i for i, leaf in enumerate(self._leaves) if isinstance(leaf, Tensor)]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The arguments to call it with."""
        return tuple(self._leaves[i] for i in self._places)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = list(self._leaves)
        for place, tensor in zip(self._places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = tree_unflatten(leaves, self._spec)
        if self.watch is None:
            return tuple(_tensors(self.model(*args, **kwargs), set()))
        with self.watch.graph_of(torch._C._get_tracing_state()):
            return tuple(_tensors(self.model(*args, **kwargs), set()))


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor in a structure, in dataclasses and objects with attributes too, each once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item, seen)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _tensors(item, seen)
    elif dataclasses.is_dataclass(value):
        for spec in dataclasses.fields(value):
            yield from _tensors(getattr(value, spec.name, None), seen)
    elif hasattr(value, "__dict__") and not isinstance(value, type | nn.Module):
        for item in vars(value).values():
            yield from _tensors(item, seen)
