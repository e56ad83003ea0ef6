"""What a file of weights says of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

#: Names that PyTorch and transformers give to buffers. A file does not say which of its tensors are no parameters.
_BUFFERS = {
    *("running_mean", "running_var", "num_batches_tracked"),
    *("position_ids", "token_type_ids", "relative_position_index", "inv_freq"),
}
#: No parameter is of these: it could have no gradient, and weights are quantised to fewer bits.
_NEVER_PARAMETERS = {"bool", "int64"}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor: its shape, its dtype as torch names it, what it takes, and in which file it is.

    ``shares`` numbers the storage that it looks into, where others may too; -1 when it has one of its own.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    file: str = ""
    shares: int = -1

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def is_buffer(self) -> bool:
        """Whether it is no parameter, as far as its name and dtype tell: statistics of a norm, positions, masks."""
        return self.dtype in _NEVER_PARAMETERS or self.name.rpartition(".")[2] in _BUFFERS


@dataclass(frozen=True)
class StoredWeights:
    """All tensors of a file, or of all files of an index.

    ``file_bytes`` is what they take on the disk. ``metadata`` is what the file says of itself; ``notes`` are
    sentences on what it holds beside tensors, and on what was left out.
    """

    where: str
    tensors: tuple[StoredTensor, ...]
    file_bytes: int
    files: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def counted(self) -> tuple[StoredTensor, ...]:
        """The tensors, of those that share a storage (tied weights) the largest alone, the first of equals."""
        largest: dict[int, StoredTensor] = {}
        for tensor in self.tensors:
            if tensor.shares >= 0 and (tensor.shares not in largest or tensor.bytes > largest[tensor.shares].bytes):
                largest[tensor.shares] = tensor
        return tuple(t for t in self.tensors if t.shares < 0 or largest[t.shares] is t)

    @property
    def parameters(self) -> int:
        """Elements of all that is no buffer."""
        return sum(tensor.numel for tensor in self.counted if not tensor.is_buffer)

    @property
    def buffer_elements(self) -> int:
        return sum(tensor.numel for tensor in self.counted if tensor.is_buffer)

    @property
    def bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.counted)

    def by_dtype(self) -> dict[str, tuple[int, int, int]]:
        """dtype -> (tensors, elements, bytes), the most bytes first."""
        found: dict[str, tuple[int, int, int]] = {}
        for t in self.counted:
            tensors, numel, size = found.get(t.dtype, (0, 0, 0))
            found[t.dtype] = tensors + 1, numel + t.numel, size + t.bytes
        return dict(sorted(found.items(), key=lambda item: -item[1][2]))
