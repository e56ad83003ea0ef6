"""What attnprof remembers of a tensor: plain ints and strings, never the tensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

#: Bytes one element occupies in memory. Sub-byte dtypes are stored packed, two or more to a byte.
_WIDTHS = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "quint8": 1,
    "qint8": 1,
    "uint16": 2,
    "int16": 2,
    "uint32": 4,
    "int32": 4,
    "qint32": 4,
    "uint64": 8,
    "int64": 8,
    "bfloat16": 2,
    "float16": 2,
    "float32": 4,
    "float64": 8,
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "float4_e2m1fn_x2": 1,
    "quint4x2": 1,
    "quint2x4": 1,
    "bits8": 1,
    "bits16": 2,
    "bits1x8": 1,
    "bits2x4": 1,
    "bits4x2": 1,
}


def width(dtype: str) -> int:
    """Bytes per element of a dtype named as torch names it, without the ``torch.`` prefix."""
    if dtype in _WIDTHS:
        return _WIDTHS[dtype]
    digits = "".join(c for c in dtype if c.isdigit())
    return max(1, int(digits) // 8) if digits else 1  # int1..int7, uint1..uint7 take one byte each


@dataclass(frozen=True)
class TensorMeta:
    """Shape, layout and identity of one tensor in one op call.

    ``shape`` and ``stride`` are in elements; ``dtype`` and ``layout`` are torch's names without the
    prefix. ``ident`` numbers the distinct tensors of the call: two arguments with the same number are
    the same tensor (``mul(x, x)``), and an output with an input's number is that input (an in-place
    op). ``nnz`` is the number of stored elements of a sparse tensor, ``index_bytes``
    what their positions take. ``values`` holds the contents of
    the few small index tensors whose values decide the work (group offsets, sequence lengths).
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    device: str = "cpu"
    ident: int = -1
    layout: str = "strided"
    nnz: int | None = None
    index_bytes: int = 0
    values: tuple[int, ...] | None = None

    @cached_property
    def numel(self) -> int:
        """Elements the shape describes, expanded ones included."""
        return prod(self.shape)

    @cached_property
    def distinct(self) -> int:
        """Elements that differ in memory: an expanded (stride-0) dimension and overlapping windows count once."""
        return places(self.shape, self.stride) if self.stride else self.numel

    @cached_property
    def width(self) -> int:
        """Bytes per element."""
        return width(self.dtype)

    @cached_property
    def bytes(self) -> int:
        """Bytes of the distinct elements."""
        return self.distinct * self.width

    def pieces(self, dims: int) -> list[tuple[int, ...]] | None:
        """The shapes of a nested tensor's pieces, of ``dims`` dimensions each; None when they have not so many."""
        sizes = self.values
        if self.layout != "nested" or sizes is None or dims < 1 or len(sizes) % dims:
            return None
        shapes = [sizes[i : i + dims] for i in range(0, len(sizes), dims)]
        return shapes if sum(map(prod, shapes)) == self.numel else None

    @property
    def is_complex(self) -> bool:
        return self.dtype.startswith("complex")

    @property
    def is_floating(self) -> bool:
        return self.dtype.startswith(("float", "bfloat", "complex"))

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The row-major strides of ``shape``, as torch gives them (a size-0 dimension counts as 1)."""
    stride, step = [], 1
    for n in reversed(shape):
        stride.append(step)
        step *= max(n, 1)
    return tuple(reversed(stride))


def places(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """How many storage places a strided window reaches: distinct values of sum(index * stride).

    In order of stride, a dimension that steps over everything below it multiplies. Those up to the last that
    does not (sliding windows from ``as_strided`` or ``unfold``) overlap: their places are united as bits.
    """
    if 0 in shape:
        return 0
    dims = sorted((step, n) for n, step in zip(shape, stride, strict=True) if step and n > 1)
    span, overlapping = 1, 0
    for i, (step, n) in enumerate(dims, 1):
        overlapping = i if step < span else overlapping
        span += step * (n - 1)
    reached = 1
    for step, n in dims[:overlapping]:
        done = 1
        while done < n:
            more = min(done, n - done)
            reached |= reached << (more * step)
            done += more
    return reached.bit_count() * prod(n for _, n in dims[overlapping:])
