"""Memory that remembers which elements were touched.

A :class:`Buffer` is a tensor's window on its storage: the same shape, strides and offset as the real one, so
expanded, transposed and shared layouts touch exactly the storage elements they would touch. Each element
read for the first time counts as read, unless the op wrote it before (then it is still on the chip); each
element written counts as written once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from oracle.counting import Scalar, Tally, value

Index = Any  # an int, or a tuple of ints


def indices(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every index of a shape, in row-major order."""
    return product(*map(range, shape))


class Machine(Tally):
    """One reference execution: its storages and its tally."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: list[list[Any]] = []
        self.widths: list[int] = []
        self.read: set[tuple[int, int]] = set()
        self.written: set[tuple[int, int]] = set()
        self._known: dict[int, int] = {}

    def load(self, tensor: Tensor) -> Buffer:
        """The buffer of an existing tensor; tensors that share a storage share it here."""
        storage = tensor.untyped_storage()
        key = self._known.get(storage._cdata) if storage.nbytes() else None
        if key is None:
            flat = torch.empty(0, dtype=tensor.dtype).set_(storage)
            key = self._known[storage._cdata] = self._allocate(flat.tolist(), tensor.element_size())
        return Buffer(self, key, tuple(tensor.shape), tensor.stride(), tensor.storage_offset(), tensor.dtype)

    def new(self, shape: Sequence[int], dtype: torch.dtype) -> Buffer:
        """A fresh output, not written yet."""
        shape = tuple(shape)
        stride = torch.empty(shape, device="meta").stride()
        size = 1
        for n in shape:
            size *= n
        key = self._allocate([None] * size, torch.empty(0, dtype=dtype).element_size())
        return Buffer(self, key, shape, stride, 0, dtype)

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Buffer:
        """A fresh output filled with zeros: written, and on the chip."""
        out = self.new(shape, dtype)
        for i in indices(shape):
            out[i] = 0
        return out

    def _allocate(self, values: list[Any], width: int) -> int:
        self.storages.append(values)
        self.widths.append(width)
        return len(self.storages) - 1

    @property
    def read_bytes(self) -> int:
        return sum(self.widths[key] for key, _ in self.read)

    @property
    def write_bytes(self) -> int:
        return sum(self.widths[key] for key, _ in self.written)


class Buffer:
    """A strided window on one storage."""

    def __init__(
        self, machine: Machine, key: int, shape: Sequence[int], stride: Sequence[int], offset: int, dtype: torch.dtype
    ) -> None:
        self.machine, self.key, self.dtype = machine, key, dtype
        self.shape, self.stride, self.offset = tuple(shape), tuple(stride), offset

    def _at(self, index: Index) -> int:
        index = index if isinstance(index, tuple) else (index,)
        assert len(index) == len(self.shape), f"index {index} into shape {self.shape}"
        position = self.offset
        for i, n, step in zip(index, self.shape, self.stride, strict=True):
            assert 0 <= i < n, f"index {index} into shape {self.shape}"
            position += i * step
        return position

    def __getitem__(self, index: Index) -> Scalar:
        place = (self.key, self._at(index))
        if place not in self.machine.written:
            self.machine.read.add(place)
        stored = self.machine.storages[self.key][place[1]]
        assert stored is not None, f"index {index} was never written"
        return Scalar(stored, self.machine)

    def __setitem__(self, index: Index, number: Any) -> None:
        place = (self.key, self._at(index))
        self.machine.written.add(place)
        self.machine.storages[self.key][place[1]] = value(number)

    def expand(self, shape: Sequence[int]) -> Buffer:
        """Broadcast to ``shape``: new and widened dimensions get stride 0."""
        missing = len(shape) - len(self.shape)
        old = (1,) * missing + self.shape
        stride = (0,) * missing + self.stride
        stride = tuple(0 if n == 1 else s for n, s in zip(old, stride, strict=True))
        assert all(n in (1, m) for n, m in zip(old, shape, strict=True)), f"{self.shape} does not broadcast to {shape}"
        return Buffer(self.machine, self.key, shape, stride, self.offset, self.dtype)

    def transpose(self, a: int, b: int) -> Buffer:
        """Two dimensions swapped."""
        order = list(range(len(self.shape)))
        order[a], order[b] = order[b], order[a]
        return self.permute(order)

    def permute(self, order: Sequence[int]) -> Buffer:
        """Dimensions in another order."""
        return Buffer(
            self.machine,
            self.key,
            [self.shape[d] for d in order],
            [self.stride[d] for d in order],
            self.offset,
            self.dtype,
        )

    def pick(self, dim: int, index: int) -> Buffer:
        """One index of one dimension, which disappears."""
        shape, stride = list(self.shape), list(self.stride)
        del shape[dim], stride[dim]
        return Buffer(self.machine, self.key, shape, stride, self.offset + index * self.stride[dim], self.dtype)

    def values(self) -> Tensor:
        """The contents as a tensor: an inspection, not a read of the op. Elements never written are nan."""
        stored = self.machine.storages[self.key]
        listed = [stored[self._at(i)] for i in indices(self.shape)]
        return torch.tensor([float("nan") if v is None else v for v in listed], dtype=self.dtype).reshape(self.shape)
