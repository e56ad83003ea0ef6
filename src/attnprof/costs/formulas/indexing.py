"""Gathers and scatters: indices and the elements they select, not whole tensors.

Which elements an index selects is data. From shapes alone, n selections of elements or rows touch min(n, all)
distinct ones. Accumulating is one operation per source element, replacing none.
"""

from __future__ import annotations

from math import prod

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.arithmetic import flops, is_complex
from attnprof.costs.registry import cost, movement, traffic
from attnprof.costs.traffic import default, distinct_bytes
from attnprof.costs.windows import distinct_in


def _bytes(op: OpSignature, *names: str) -> int:
    return distinct_bytes(t for name in names for t in op.tensors(name))


# Gathers: indices, selected elements, result.
_GATHERS = ("aten.index", "aten._unsafe_index", "aten._unsafe_masked_index", "aten.gather", "aten.take")
movement((*_GATHERS, "aten.index_select", "aten.masked_select", "aten.nonzero", "aten.nonzero_static", "aten.argwhere"))


@traffic(*_GATHERS, "aten.index_select", "aten.masked_select")
def gather_traffic(op: OpSignature) -> tuple[int, int]:
    """All of the indices, or of the mask, and as many elements as the result has, at most those there are."""
    x = op.tensor("self")
    selected = min(op.out.numel, x.distinct)
    return _bytes(op, "indices", "index", "mask") + selected * x.width, default(op)[1]


def indexed(op: OpSignature) -> int:
    """Elements that ``self[indices] = values`` addresses: the broadcast index tensors times the dimensions without one.

    A bool mask selects as many as the values have along its dimension; a value that broadcasts over it does not tell,
    and the whole mask is taken.
    """
    x, indices = op.tensor("self"), op.value("indices")
    axis, rest, shapes, masks = 0, 1, list[tuple[int, ...]](), list[TensorMeta]()
    leading = 0  # dimensions before the first index
    for index in indices if isinstance(indices, tuple) else ():
        if not isinstance(index, TensorMeta):
            rest *= x.shape[axis]
            leading += not (shapes or masks)
            axis += 1
        elif index.dtype in ("bool", "uint8"):
            masks.append(index)
            axis += len(index.shape)
        else:
            shapes.append(index.shape)
            axis += 1
    rest *= prod(x.shape[axis:])
    if not masks:
        return rest * broadcast(shapes)
    if shapes:
        return rest * max(broadcast(shapes), 1)
    values, count = op.tensor("values"), masks[0].numel
    rank = len(x.shape) - sum(len(m.shape) for m in masks) + 1
    if len(values.shape) == rank and values.shape[leading] != 1:
        count = values.shape[leading]
    return rest * count


def broadcast(shapes: list[tuple[int, ...]]) -> int:
    """Elements of the shape that several shapes broadcast to."""
    total = 1
    for i in range(1, max(map(len, shapes), default=0) + 1):
        sizes = [shape[-i] for shape in shapes if len(shape) >= i]
        total *= next((n for n in sizes if n != 1), 1)
    return total


def _scatter(op: OpSignature, selected: int, read: int, accumulates: bool, kept: int | None = None) -> tuple[int, int]:
    """``read`` bytes of indices and source; the elements touched are written, and read first when accumulating.

    A functional scatter copies the rest as well: it reads what is not replaced, ``kept`` elements where that is
    known better than all less the selected, and writes everything.
    """
    x = op.tensor("self")
    if op.mutated:
        touched = min(selected, x.distinct) * x.width
        return read + touched * accumulates, touched
    if accumulates:
        kept = x.distinct
    elif kept is None:
        kept = min(max(0, x.numel - selected), x.distinct)
    return read + kept * x.width, default(op)[1]


def _slices(x: TensorMeta, dim: int, count: int) -> tuple[int, int]:
    """(elements in ``count`` slices along ``dim``, distinct elements in the other slices)."""
    if not x.shape:
        return min(count, 1), 0 if count else 1
    axis, size = dim % len(x.shape), x.shape[dim]
    others = distinct_in(x, [max(0, size - count) if i == axis else n for i, n in enumerate(x.shape)])
    return x.numel // max(size, 1) * count, others


_INDEX_PUT = (
    "aten.index_put",
    "aten._unsafe_index_put",
    "aten._index_put_impl",
    "aten._unsafe_masked_index_put_accumulate",
)


@cost(*_INDEX_PUT)
def index_put(op: OpSignature) -> Work:
    """Nothing when replacing; an addition per addressed element when accumulating."""
    accumulates = op.number("accumulate") or "accumulate" in op.packet
    return Work(vector=indexed(op) * flops("add", is_complex(op)) if accumulates else 0)


@traffic(*_INDEX_PUT)
def index_put_traffic(op: OpSignature) -> tuple[int, int]:
    """Indices and values; the addressed elements."""
    accumulates = bool(op.number("accumulate")) or "accumulate" in op.packet
    return _scatter(op, indexed(op), _bytes(op, "indices", "values", "mask"), accumulates)


_SCATTER = ("aten.scatter", "aten.scatter_add", "aten.scatter_reduce")


def _reduces(op: OpSignature) -> bool:
    """Whether what is there already takes part."""
    if op.packet.startswith("aten.scatter_add"):
        return True
    return op.value("reduce") is not None and bool(op.number("include_self", 1))


@cost(*_SCATTER)
def scatter(op: OpSignature) -> Work:
    """One operation per index when accumulating; a mean also counts its sources and divides every element of self."""
    n, reduce = op.tensor("index").numel, op.value("reduce")
    if reduce == "mean":
        return Work(vector=2 * n + op.tensor("self").numel)
    if reduce is None and not op.packet.startswith("aten.scatter_add"):
        return Work()
    return Work(vector=n * flops("mul" if reduce in ("multiply", "prod") else "add", is_complex(op)))


@traffic(*_SCATTER)
def scatter_traffic(op: OpSignature) -> tuple[int, int]:
    """Indices; as many source elements as indices; the elements touched."""
    index, src = op.tensor("index"), op.maybe("src") or op.maybe("value")
    read = index.bytes + (min(src.distinct, index.numel) * src.width if src is not None else 0)
    return _scatter(op, index.numel, read, _reduces(op))


_SLICES = ("aten.index_add", "aten.index_copy", "aten.index_fill", "aten.index_reduce")


@cost("aten.index_add")
def index_add(op: OpSignature) -> Work:
    """An addition per source element, and a multiplication unless alpha is 1."""
    words = "add" if op.value("alpha", 1) == 1 else "scale add"
    return Work(vector=op.tensor("source").numel * flops(words, is_complex(op)))


@cost("aten.index_reduce")
def index_reduce(op: OpSignature) -> Work:
    """One operation per source element; a mean also counts its sources and divides every element of self."""
    n = op.tensor("source").numel
    return Work(vector=2 * n + op.tensor("self").numel if op.value("reduce") == "mean" else n)


movement(("aten.index_copy", "aten.index_fill"))


@traffic(*_SLICES)
def index_slices_traffic(op: OpSignature) -> tuple[int, int]:
    """Indices and source (or the value to fill with); the slices selected."""
    accumulates = "index_add" in op.packet or ("index_reduce" in op.packet and bool(op.number("include_self", 1)))
    selected, kept = _slices(op.tensor("self"), int(op.number("dim")), op.tensor("index").numel)
    return _scatter(op, selected, _bytes(op, "index", "source", "value"), accumulates, kept)


@cost("aten.put")
def put(op: OpSignature) -> Work:
    """An addition per index when accumulating."""
    adds = op.tensor("index").numel if op.number("accumulate") else 0
    return Work(vector=adds * flops("add", is_complex(op)))


@traffic("aten.put")
def put_traffic(op: OpSignature) -> tuple[int, int]:
    """Indices, source, the elements touched."""
    return _scatter(op, op.tensor("index").numel, _bytes(op, "index", "source"), bool(op.number("accumulate")))


# A slice of self replaced by src: the rest is copied.
_REPLACING = ("aten.slice_scatter", "aten.select_scatter", "aten.diagonal_scatter", "aten.as_strided_scatter")
movement(_REPLACING)


@traffic(*_REPLACING)
def replacing_traffic(op: OpSignature) -> tuple[int, int]:
    """src, and what it does not replace; everything is written."""
    x, src = op.tensor("self"), op.tensor("src")
    kept = None
    if "slice" in op.packet or "select" in op.packet:
        dim = int(op.number("dim"))
        kept = _slices(x, dim, src.shape[dim] if "slice" in op.packet else 1)[1]
    return _scatter(op, src.numel, src.bytes, accumulates=False, kept=kept)
