"""A model, its optimizers and the random state as they were before a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves


class Unchanged:
    """What a run may change, and how to put it back: gradients, buffers and, where an optimizer steps, values.

    Values are copied when this is made, unless the run is a fake one, which changes none. ``stepped`` are the
    parameters that optimizers will change.
    """

    def __init__(self, model: nn.Module, inputs: Any, stepped: Iterable[Tensor] = (), fake: bool = False) -> None:
        stepped = list(stepped)
        given = [value for value in tree_leaves(inputs) if isinstance(value, Tensor)]
        leaves = {id(t): t for t in (*model.parameters(), *given, *stepped) if t.is_leaf}.values()
        self._gradients = [(t, t.grad) for t in leaves if t.requires_grad]
        self._buffers = [
            (module._buffers, name, tensor, _Copy(tensor))
            for module in model.modules()
            for name, tensor in module._buffers.items()
            if tensor is not None and not fake and _has_values(tensor)
        ]
        # A second step is given what the first was, and the model's values afterwards are those of before.
        tensors = {id(t): t for t in (*stepped, *(given if stepped else ()))}.values()
        self._values = [_Copy(tensor) for tensor in tensors if not fake and _has_values(tensor)]
        self.devices = sorted(
            {t.device.index or 0 for t in leaves if t.device.type == "cuda" and not isinstance(t, FakeTensor)}
        )

    def without_gradients(self) -> None:
        """As ``zero_grad(set_to_none=True)`` leaves it."""
        for tensor, _ in self._gradients:
            tensor.grad = None

    def put_back(self, gradients: bool = True) -> None:
        """The values of before; and the gradients, unless there is another step to come."""
        for tensor, gradient in self._gradients:
            tensor.grad = gradient if gradients else None
        for table, name, tensor, copy in self._buffers:
            table[name] = tensor
            copy.put_back()
        for copy in self._values:
            copy.put_back()


class _Copy:
    """The values of a tensor at one time."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._before = tensor, tensor.detach().clone()
        self._version = None if tensor.is_inference() else tensor._version
        preserve: Any = torch.autograd._unsafe_preserve_version_counter  # type: ignore[attr-defined]
        # Leaving it sets the version of now: no graph that saved the tensor before shall take it for changed.
        self._same_version = ExitStack() if self._version is None else preserve(tensor)

    def put_back(self) -> None:
        if self._changed():
            with torch.no_grad(), self._same_version:
                self._tensor.copy_(self._before)

    def _changed(self) -> bool:
        """By version, and by value where torch can compare: batch norm changes its buffers without saying so."""
        if self._version is not None and self._tensor._version != self._version:
            return True
        if self._tensor.is_nested or self._tensor.layout is not torch.strided:
            return False
        return not torch.equal(self._tensor, self._before)


@contextmanager
def unchanged(model: nn.Module, inputs: Any, stepped: Iterable[Tensor] = (), fake: bool = False) -> Iterator[Unchanged]:
    """Begin without gradients, and put everything back at the end, the random states too."""
    state = Unchanged(model, inputs, stepped, fake)
    with torch.random.fork_rng(devices=state.devices):
        try:
            state.without_gradients()
            yield state
        finally:
            state.put_back()


def _has_values(tensor: Tensor) -> bool:
    return not isinstance(tensor, FakeTensor) and not is_lazy(tensor) and not tensor.is_meta
