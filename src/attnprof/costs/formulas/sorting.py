"""Sorting and searching: how many comparisons depends on the data, so these are models, in comparisons.

Sorting S elements: S ceil(log2 S). Keeping the k best of S: S ceil(log2(k + 1)). Searching S sorted elements:
ceil(log2(S + 1)) per value.
"""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta
from attnprof.core.work import Work
from attnprof.costs.registry import cost, traffic
from attnprof.costs.traffic import default


def ceil_log2(n: int) -> int:
    """The least b with 2^b >= n; 0 up to 1."""
    return max(0, n - 1).bit_length()


def _length(op: OpSignature, x: TensorMeta) -> int:
    """S: the elements along ``dim``, all of them where there is none."""
    dim = op.value("dim")
    return x.shape[dim] if isinstance(dim, int) and x.shape else x.numel


@cost("aten.sort", "aten.argsort", "aten.msort", "aten.mode")
def sort(op: OpSignature) -> Work:
    """M rows of S ceil(log2 S) comparisons; the mode also compares neighbours, S - 1."""
    x = op.tensor("self")
    s = x.shape[0] if op.packet == "aten.msort" and x.shape else _length(op, x)
    rows = x.numel // s if s else 0
    return Work(vector=x.numel * ceil_log2(s) + (x.numel - rows if op.packet == "aten.mode" else 0))


@cost("aten.topk", "aten.kthvalue")
def topk(op: OpSignature) -> Work:
    """Each element against the k best so far."""
    return Work(vector=op.tensor("self").numel * ceil_log2(int(op.number("k")) + 1))


@cost("aten.median", "aten.nanmedian")
def median(op: OpSignature) -> Work:
    """The k-th value with k the middle of S; ignoring NaN, a test per element more."""
    x = op.tensor("self")
    k = (_length(op, x) + 1) // 2
    return Work(vector=x.numel * (ceil_log2(k + 1) + (op.packet == "aten.nanmedian")))


@cost("aten._unique", "aten._unique2")
def unique(op: OpSignature) -> Work:
    """A sort, and neighbours compared."""
    n = op.tensor("self").numel
    return Work(vector=n * ceil_log2(n) + max(0, n - 1))


@cost("aten.unique_consecutive", "aten.unique_dim", "aten.unique_dim_consecutive")
def unique_slices(op: OpSignature) -> Work:
    """Neighbouring slices compared element by element; ``unique_dim`` sorts them first."""
    x = op.tensor("self")
    s = _length(op, x)
    width = x.numel // s if s else 0
    comparisons = max(0, s - 1) + (s * ceil_log2(s) if op.packet == "aten.unique_dim" else 0)
    return Work(vector=comparisons * width)


@cost("aten.searchsorted", "aten.bucketize")
def searchsorted(op: OpSignature) -> Work:
    """A binary search per value."""
    boundaries = op.tensor("sorted_sequence" if "sorted_sequence" in op else "boundaries")
    s = boundaries.shape[-1] if boundaries.shape else 1
    return Work(vector=op.out.numel * ceil_log2(s + 1))


@traffic("aten.searchsorted", "aten.bucketize")
def searchsorted_traffic(op: OpSignature) -> tuple[int, int]:
    """The values, and the boundaries that the searches meet: ceil(log2(S + 1)) each, at most all of them."""
    name = "sorted_sequence" if "sorted_sequence" in op else "boundaries"
    boundaries = op.tensor(name)
    values = op.maybe("self")
    s = boundaries.shape[-1] if boundaries.shape else 1
    probes = min(op.out.numel * ceil_log2(s + 1), boundaries.distinct)
    sorter = op.maybe("sorter")
    read = probes * (boundaries.width + (sorter.width if sorter else 0))
    return read + (values.bytes if values else 0), default(op)[1]
