"""Ops that only move elements: 0 FLOPs. Most read all of their input; the exceptions state what they read."""

from __future__ import annotations

from math import prod

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.costs.registry import movement, traffic
from attnprof.costs.traffic import default, reading
from attnprof.costs.windows import distinct_in

_WHOLE = (
    "clone contiguous _to_copy copy _copy_from _copy_from_and_resize _pin_memory lift cat _cat stack _stack _chunk_cat "
    "_lazy_clone block_diag repeat flip roll rot90 diag_embed pixel_shuffle pixel_unshuffle "
    "channel_shuffle native_channel_shuffle slice_backward select_backward diagonal_backward as_strided_backward "
    "value_selecting_reduction_backward masked_scatter masked_scatter_backward repeat_interleave resize "
    "resize_as tril triu constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d "
    "replication_pad1d replication_pad2d replication_pad3d"
)
#: Views torch also offers as copies.
_COPIES = (
    "_neg_view _fw_primal _make_dual _reshape _reshape_alias alias as_strided detach diagonal expand lift_fresh narrow "
    "permute select slice split split_with_sizes squeeze t transpose unbind unfold unsqueeze view view_as_complex "
    "view_as_real"
)
movement(f"aten.{name}" for name in _WHOLE.split())
movement(f"aten.{name}_copy" for name in _COPIES.split())


@traffic("aten.copy")
def copy_traffic(op: OpSignature) -> tuple[int, int]:
    """The source; what was there before is not looked at."""
    return reading(op, "src", "other")


_PICKS = tuple(f"aten.{name}_copy" for name in ("as_strided", "diagonal", "narrow", "select", "slice", "unfold"))


@traffic(*_PICKS)
def picking_traffic(op: OpSignature) -> tuple[int, int]:
    """As many distinct elements as the result has, at most those there are."""
    x = op.tensor("self")
    return min(op.out.numel, x.distinct) * x.width, default(op)[1]


def triangle(rows: int, columns: int, diagonal: int) -> int:
    """Entries (i, j) of a matrix with j - i <= diagonal."""
    return sum(min(columns, max(0, i + diagonal + 1)) for i in range(rows))


def _kept(op: OpSignature, x: TensorMeta) -> int:
    """Entries that tril or triu keeps, over all matrices."""
    *batch, rows, columns = x.shape
    diagonal = int(op.number("diagonal"))
    if op.packet.startswith("aten.tril"):
        kept = triangle(rows, columns, diagonal)
    else:
        kept = rows * columns - triangle(rows, columns, diagonal - 1)
    return prod(batch) * kept


@traffic("aten.tril", "aten.triu")
def triangle_traffic(op: OpSignature) -> tuple[int, int]:
    """The triangle is read and everything is written. In place, nothing is read and the rest is set to zero."""
    x = op.tensor("self")
    kept = _kept(op, x)
    if op.mutated:
        return 0, (x.numel - kept) * x.width
    return min(kept, x.distinct) * x.width, default(op)[1]


@traffic("aten.constant_pad_nd")
def pad_traffic(op: OpSignature) -> tuple[int, int]:
    """What a negative pad crops is not read."""
    x, pads = op.tensor("self"), op.ints("pad")
    reached = [max(0, n + min(before, 0) + min(after, 0)) for n, before, after in _padded(x, pads)]
    return distinct_in(x, reached) * x.width, default(op)[1]


def _padded(x: TensorMeta, pads: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """(size, pad before, pad after) of the dimensions that are padded; the pads start at the last dimension."""
    sizes = x.shape[len(x.shape) - len(pads) // 2 :]
    return list(zip(sizes, pads[-2::-2], pads[::-2], strict=True))


# Collectives: this rank reads what it sends and writes what it receives. What crosses the network, and the sums
# that travel with it, are not this device's memory traffic.
movement(
    [
        f"{namespace}.{name}"
        for namespace in ("_c10d_functional", "_c10d_functional_autograd", "c10d_functional")
        for name in (
            "all_reduce",
            "all_reduce_coalesced",
            "all_gather_into_tensor",
            "all_gather_into_tensor_coalesced",
            "all_gather_into_tensor_out",
            "reduce_scatter_tensor",
            "reduce_scatter_tensor_coalesced",
            "reduce_scatter_tensor_out",
            "all_to_all_single",
            "broadcast",
            "isend",
            "irecv",
            "batch_p2p_ops",
        )
    ]
    + [
        f"c10d.{name}_"
        for name in (
            "allreduce",
            "allreduce_coalesced",
            "allgather",
            "allgather_coalesced",
            "allgather_into_tensor_coalesced",
            "_allgather_base",
            "reduce",
            "reduce_scatter",
            "reduce_scatter_tensor_coalesced",
            "_reduce_scatter_base",
            "alltoall",
            "alltoall_base",
            "gather",
            "scatter",
            "broadcast",
            "recv",
            "recv_any_source",
        )
    ]
    + ["c10d.send"]
)
