"""Attention without a softmax over pairs: sums over keys first, so that the work grows with T."""

from __future__ import annotations

from sympy import Eq, Expr, Gt, Integer, Min, Mod, Ne, ceiling, false

from attnprof.analytic.attention import Heads, itself, project, project_back
from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.registry import Sizes, formula
from attnprof.analytic.symbols import e


def feature_map(tape: Tape, x: Tensor) -> Tensor:
    """elu(x) + 1."""
    return tape.elementwise("elu + 1", tape.activation(x, "elu"), out=f"features of {x.name}")


def linear_attention(
    tape: Tape, at: Heads, q: Tensor, k: Tensor, v: Tensor, r: Expr, transposed: bool = True
) -> Tensor:
    """Means of v weighted by q·k, with features of width r: state, totals, and one normaliser per query.

    ``transposed``: q and k are laid out as projections are, heads inside positions.
    """
    B, T, H, n = at.B, at.T, at.H, at.n
    several = Ne(B, 1)
    tape.several(T, H, at.dh, r)
    q = tape.copy(q, q.name) if transposed else q
    keys = tape.copy(k, k.name, only_if=several if transposed else false)
    values = tape.copy(v, only_if=several)
    state = tape.product("state", keys, values, 2 * B * T * n * r, "state", B * n * r)
    total = tape.sum(k, B * H * r, "sum_of_keys", "sum of keys")
    weighted = tape.product("read", q, state, 2 * B * T * n * r, "weighted sum", B * T * n)
    tape.copied_back(weighted, only_if=several)
    weight = tape.product("normaliser", q, total, 2 * B * T * H * r, "normaliser", B * T * H)
    tape.note("state", "kv_cache_bytes", B * (n * r + H * r) * e)  # what a recurrent decoder keeps
    return tape.divide(weighted, weight, "averages")


def _in_chunks(tape: Tape, x: Tensor, T: Expr, c: Expr, elements: Expr) -> Tensor:
    """x filled up to whole chunks; what needs none is copied in order."""
    padded = tape.pad(x, elements, f"{x.name} in chunks")
    tape.moved(f"copy of {x.name}", elements * e, elements * e, only_if=Eq(Mod(T, c), 0))
    return padded


def _sums_before(tape: Tape, x: Tensor, chunks: Expr, out: str) -> Tensor:
    """Of each chunk the sum of those before it: zeros and all but the last, summed up as they come.

    Backward the sum runs from the end: turned round, summed up, turned round.
    """
    all_but_one = x.elements - x.elements / chunks
    tape.moved(out, Integer(0), x.elements / chunks * e)
    tape.kernel(out, [x], x.elements)
    tape.kernel(out, [x], x.elements, all_but_one)
    if x.needs_grad:
        for flops in (0, all_but_one, 0):
            tape.kernel(out, [x], x.elements, flops, "backward")
        tape.moved(out, all_but_one * e, x.elements * e, "backward")
    tape.arrive(x)
    return tape.tensor(out, x.elements, x.needs_grad)


def _lower(tape: Tape, x: Tensor, c: Expr) -> Tensor:
    """Of matrices of c rows and columns the triangle up to the diagonal, the rest zeros."""
    kept, whole = x.elements * (c + 1) / (2 * c) * e, x.elements * e
    tape.moved("triangle", kept, whole)
    if x.needs_grad:
        tape.moved("triangle", kept, whole, "backward")
    tape.arrive(x)
    return tape.tensor(x.name, x.elements, x.needs_grad)


def causal_linear_attention(tape: Tape, at: Heads, q: Tensor, k: Tensor, v: Tensor, chunk: Expr) -> Tensor:
    """The same over the keys up to each query's own, in chunks, the last one filled up."""
    B, T, H, n, dh = at.B, at.T, at.H, at.n, at.dh
    tape.several(T, H, dh, chunk)
    tape.conditions.add(Gt(T, chunk))  # a single chunk has nothing before it
    c = Min(chunk, T)
    chunks = ceiling(T / c)
    padded = chunks * c
    whole = Eq(Mod(T, c), 0)
    q, k, v = (_in_chunks(tape, t, T, c, B * padded * n) for t in (q, k, v))
    tape.copied_back(k)
    own = tape.product("state", k, v, 2 * B * padded * n * dh, "states of chunks", B * chunks * n * dh)
    state = _sums_before(tape, own, chunks, "states before")
    total = _sums_before(tape, tape.sum(k, B * chunks * n, "sums_of_keys", "sums of keys"), chunks, "sums before")
    pairs = padded * c
    weights = _lower(tape, tape.product("scores", q, k, 2 * B * pairs * n, "weights in chunks", B * H * pairs), c)
    near = tape.product("weighted_sum", weights, v, 2 * B * pairs * n, "sums in chunks", B * padded * n)
    far = tape.product("read", q, state, 2 * B * padded * n * dh, "sums before", B * padded * n)
    near, far = (tape.copied_back(t, only_if=whole) for t in (near, far))
    weighted = tape.add(near, far, "weighted sum", "sums")
    here = tape.sum(weights, B * padded * H, "sums_of_weights", "weight in chunks")
    before = tape.product("normaliser", q, total, 2 * B * padded * n, "weight before", B * padded * H)
    weight = tape.add(here, before, "normaliser", "sums")
    tape.note("state", "kv_cache_bytes", B * (n * dh + n) * e)
    cut = tape.part(weighted, B * T * n, "weighted sum", only_if=Ne(Mod(T, c), 0))
    by = tape.part(weight, B * T * H, "normaliser", only_if=Ne(Mod(T, c), 0))
    return tape.divide(cut, by, "averages")


@formula("linear")
def linear(tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, H: Expr, dh: Expr | None = None) -> Tensor:
    """Linear attention, the weight of a pair (elu(q) + 1)·(elu(k) + 1)."""
    at = itself(sizes, B, T, d, H, None, dh)
    q, k, v = project(tape, at, x, x)
    for t in (q, v):
        tape.copied_back(t)
    tape.copied_back(k, only_if=Ne(B, 1))
    y = linear_attention(tape, at, feature_map(tape, q), feature_map(tape, k), v, at.dh)
    return project_back(tape, at, tape.copy(y, "heads merged"))


@formula("linear-causal")
def linear_causal(
    tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, H: Expr, chunk: Expr, dh: Expr | None = None
) -> Tensor:
    """Causal linear attention, in chunks of the sequence."""
    at = itself(sizes, B, T, d, H, None, dh)
    q, k, v = project(tape, at, x, x)
    for t in (q, k, v):
        tape.copied_back(t)
    y = causal_linear_attention(tape, at, feature_map(tape, q), feature_map(tape, k), v, chunk)
    return project_back(tape, at, tape.copy(y, "heads merged"))


@formula("efficient-attention")
def efficient_attention(
    tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, H: Expr, dh: Expr | None = None
) -> Tensor:
    """A softmax of each query over its features and of the keys over positions, then linear."""
    at = itself(sizes, B, T, d, H, None, dh)
    q, k, v = project(tape, at, x, x)
    tape.several(T, H, at.dh)
    for t in (q, k, v):
        tape.copied_back(t)
    keys = tape.softmax(k, B * at.n, "softmax_keys", "softmax of k")
    values = tape.copy(v, only_if=Ne(B, 1))
    state = tape.product("state", keys, values, 2 * B * T * at.n * at.dh, "state", B * at.n * at.dh)
    queries = tape.softmax(q, B * T * H, "softmax_queries", "softmax of q")
    y = tape.product("read", queries, state, 2 * B * T * at.n * at.dh, "averages", B * T * at.n)
    tape.copied_back(y, only_if=Ne(B, 1))
    return project_back(tape, at, tape.copy(y, "heads merged"))


@formula("performer")
def performer(
    tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, H: Expr, r: Expr, dh: Expr | None = None
) -> Tensor:
    """Performer (FAVOR+): r positive orthogonal random features stand for the softmax; their directions are fixed."""
    at = itself(sizes, B, T, d, H, None, dh)
    q, k, v = project(tape, at, x, x)
    directions = tape.tensor("directions", r * at.dh, False, is_state=True)
    for t in (q, k, v):
        tape.copied_back(t)

    def features(x: Tensor, maxima: Expr) -> Tensor:
        """exp(ω·x - |x|² / 2 - the largest of them) + ε; the largest is as if it were fixed."""
        scaled = tape.scale(x)
        flops, size = 2 * B * T * at.n * r, B * T * H * r
        ordered = tape.copy(scaled, only_if=Ne(B, 1))
        exponents = tape.product(f"{x.name}_features", ordered, directions, flops, f"products of {x.name}", size)
        half = tape.scale(tape.sum_of_squares(scaled, B * T * H, f"squares of {x.name}"), "half")
        exponents = tape.subtract(exponents, half, f"exponents of {x.name}")
        largest = tape.tensor("largest", maxima, False)
        tape.kernel("maximum", [exponents], maxima, size - maxima)
        shifted = tape.subtract(exponents, largest, f"exponents of {x.name}")
        return tape.elementwise(
            "plus epsilon", tape.activation(shifted, "exp", f"exponentials of {x.name}"), out=f"features of {x.name}"
        )

    y = linear_attention(tape, at, features(q, B * T * H), features(k, B * H), v, r, transposed=False)
    return project_back(tape, at, tape.copy(y, "heads merged"))
