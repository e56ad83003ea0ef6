"""Reductions: N elements to M results. A chain of S elements takes S - 1 operations, none when it is empty."""

from __future__ import annotations

from attnprof.core.signature import OpSignature
from attnprof.core.work import Work
from attnprof.costs.arithmetic import elements, flops, is_complex
from attnprof.costs.registry import cost, traffic
from attnprof.costs.traffic import default

#: The operation that joins two elements.
_JOINED_BY = {
    "aten.sum": "add",
    "aten.prod": "mul",
    "aten.amax": "max",
    "aten.amin": "min",
    "aten.max": "max",
    "aten.min": "min",
    "aten.argmax": "gt",
    "aten.argmin": "lt",
    "aten.all": "and",
    "aten.any": "or",
    "aten._is_all_true": "and",
    "aten._is_any_true": "or",
}


def joins(op: OpSignature) -> int:
    """N - M: what is left of N elements, all but the first of each of M chains."""
    return max(0, elements(op.tensor("self")) - op.out.numel)


@cost(*_JOINED_BY)
def reduction(op: OpSignature) -> Work:
    """S - 1 additions, products, comparisons or logical operations per result; max of two tensors, 1 per result."""
    if op.maybe("other"):
        return Work(vector=op.out.numel)
    return Work(vector=joins(op) * flops(_JOINED_BY[op.packet], is_complex(op)))


@cost("aten.aminmax", "aten._aminmax")
def aminmax(op: OpSignature) -> Work:
    """Both comparisons."""
    return Work(vector=2 * joins(op))


@cost("aten.mean")
def mean(op: OpSignature) -> Work:
    """S - 1 additions and a division per result."""
    word = is_complex(op)
    if not elements(op.tensor("self")):
        return Work()
    return Work(vector=joins(op) * flops("add", word) + op.out.numel * flops("scale", word))


@cost("aten.nansum")
def nansum(op: OpSignature) -> Work:
    """A test per element, then the sum."""
    word = is_complex(op)
    return Work(vector=elements(op.tensor("self")) + joins(op) * flops("add", word))


@cost("aten.count_nonzero")
def count_nonzero(op: OpSignature) -> Work:
    """A comparison per element, and S - 1 integer additions per result."""
    return Work(vector=elements(op.tensor("self")) + joins(op))


@cost("aten.var", "aten.std", "aten.var_mean", "aten.std_mean")
def var(op: OpSignature) -> Work:
    """Centred once: mean S, x - mean S, squares S, their sum S - 1, a division: 4 S; std also a root.

    Complex: mean 2 S, x - mean 2 S, |.|^2 3 S, their sum and the division S: 8 S.
    """
    n = elements(op.tensor("self"))
    root = op.out.numel if n and op.packet.startswith("aten.std") else 0
    return Work(vector=(8 if is_complex(op) else 4) * n + root)


@cost("aten.linalg_vector_norm", "aten.norm", "aten.native_norm")
def vector_norm(op: OpSignature) -> Work:
    """Per result of S elements: order 2: squares S, sum S - 1, root: 2 S. Order 1, +-inf: |x| S, joined S - 1.

    Order 0: tests S, count S - 1. Any other order p: |x| S, its power S, sum S - 1, the root: 3 S.
    """
    n, complex_ = elements(op.tensor("self")), is_complex(op)
    if not n:
        return Work()
    return Work(vector=norm_flops(n, op.out.numel, op.number("ord" if "ord" in op else "p", 2), complex_))


def norm_flops(n: int, m: int, order: float, complex_: bool = False) -> int:
    """The p-norms of m rows of n elements in all."""
    if order == 2:
        return flops("square", complex_) * n + (n - m) + m
    if order == 0:
        return flops("eq", complex_) * n + (n - m)
    magnitude = flops("abs", complex_) * n
    return magnitude + (n - m) if order in (1, float("inf"), float("-inf")) else magnitude + n + (n - m) + m


@cost("aten._foreach_powsum", "aten.linalg__powsum")
def powsum(op: OpSignature) -> Work:
    """Sum of |x|^p, a vector norm without its root."""
    lists = op.tensors("self")
    order, total = op.number("ord", 2), 0
    for x, out in zip(lists, op.outs or lists, strict=True):
        n, m = elements(x), out.numel if op.outs else 1
        rooted = order not in (0, 1, float("inf"), float("-inf"))
        total += max(0, norm_flops(n, m, order, x.is_complex) - m * rooted) if n else 0
    return Work(vector=total)


@cost("aten.renorm")
def renorm(op: OpSignature) -> Work:
    """Each slice along dim: its norm, a comparison, maxnorm / (norm + eps) 2, and a product per element."""
    x = op.tensor("self")
    slices = x.shape[int(op.number("dim"))]
    if not x.numel:
        return Work()
    norms = norm_flops(x.numel, slices, op.number("p", 2), x.is_complex)
    return Work(vector=norms + 3 * slices + x.numel * flops("scale", x.is_complex))


@cost("aten.dist")
def dist(op: OpSignature) -> Work:
    """The p-norm of the difference of N elements."""
    x = op.tensor("self")
    n = max(x.numel, op.tensor("other").numel)
    complex_ = is_complex(op)
    return Work(vector=flops("sub", complex_) * n + norm_flops(n, 1, op.number("p", 2), complex_) if n else 0)


@cost("aten.logsumexp")
def logsumexp(op: OpSignature) -> Work:
    """max S - 1, x - max S, exp S, sum S - 1, log, + max: 4 S per result."""
    return Work(vector=4 * elements(op.tensor("self")))


@cost("aten.trace")
def trace(op: OpSignature) -> Work:
    """The sum of the min(m, n) elements of the diagonal."""
    return Work(vector=max(0, min(op.tensor("self").shape) - 1) * flops("add", is_complex(op)))


@traffic("aten.trace")
def trace_traffic(op: OpSignature) -> tuple[int, int]:
    """The diagonal."""
    x = op.tensor("self")
    return min(x.shape) * x.width, default(op)[1]


@cost("aten.equal")
def equal(op: OpSignature) -> Work:
    """A comparison per element, joined: as if all are equal."""
    n = op.tensor("self").numel
    return Work(vector=max(0, n * flops("eq", is_complex(op)) + n - 1))


@cost("aten.allclose")
def allclose(op: OpSignature) -> Work:
    """|a - b| <= atol + rtol |b|: sub, abs, abs, mul, add, compare; joined by n - 1 ands."""
    n = op.tensor("self").numel
    return Work(vector=max(0, 6 * n + n - 1))


@cost("aten.histc", "aten.bincount")
def histogram(op: OpSignature) -> Work:
    """One count, or weight, added per element; finding the bin is index arithmetic.

    A histc without a range looks for the least and the largest element first.
    """
    n = op.tensor("self").numel
    searches = op.packet == "aten.histc" and op.number("min") == op.number("max")
    return Work(vector=n + (2 * max(0, n - 1) if searches else 0))


@cost("aten.histogram", "aten._histogramdd_from_bin_cts", "aten._histogramdd_from_bin_tensors")
def histogramdd(op: OpSignature) -> Work:
    """One count, or weight, added per sample; bins given by their edges are searched, ceil(log2 edges) comparisons.

    Equal bins without a range look for the least and the largest element of each coordinate first. A density
    divides every bin by the total, summed over the bins, times its width: 3 per bin less one addition.
    """
    x, edges = op.tensor("self"), op.tensors("bins")
    coordinates = 1 if op.packet == "aten.histogram" else x.shape[-1]
    samples = x.numel // max(coordinates, 1)
    search = samples * sum((e.numel - 1).bit_length() for e in edges if e.numel)
    if not edges and op.value("range") is None:
        search = 2 * max(0, x.numel - coordinates)
    return Work(vector=samples + search + (max(0, 3 * op.out.numel - 1) if op.number("density") else 0))


@cost("aten._histogramdd_bin_edges")
def histogramdd_edges(op: OpSignature) -> Work:
    """The range of each coordinate: two comparisons per element after the first. The edges are positions."""
    x = op.tensor("self")
    return Work(vector=2 * max(0, x.numel - x.shape[-1]) if op.value("range") is None else 0)


@cost("aten.segment_reduce")
def segment_reduce(op: OpSignature) -> Work:
    """Segments as chains: N - M operations; mean also divides M times."""
    n, m = op.tensor("data").numel, op.out.numel
    return Work(vector=max(0, n - m) + (m if op.value("reduce") == "mean" else 0))


@cost("aten._segment_reduce_backward")
def segment_reduce_backward(op: OpSignature) -> Work:
    """sum: copies. mean: a division per segment. prod: g y / x, 2. max, min: N tests, N counts, M divisions by ties."""
    n, m = op.tensor("data").numel, op.tensor("grad").numel
    return Work(vector={"sum": 0, "mean": m, "prod": 2 * n}.get(str(op.value("reduce")), 2 * n + m))
