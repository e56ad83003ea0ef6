"""Attention without a softmax over pairs: sums over keys first, so that the work grows with T."""

from __future__ import annotations

from sympy import Expr, Min, ceiling

from attnprof.analytic.attention import Heads, itself, project, project_back
from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.registry import FORWARD, Sizes, formula
from attnprof.analytic.symbols import e


def feature_map(tape: Tape, x: Tensor) -> Tensor:
    """elu(x) + 1."""
    return tape.elementwise("elu + 1", tape.activation(x, "elu"), out=f"features of {x.name}")


def linear_attention(tape: Tape, at: Heads, q: Tensor, k: Tensor, v: Tensor, r: Expr) -> Tensor:
    """Means of v weighted by q·k, with features of width r: state, totals, and one normaliser per query."""
    B, T, H, n = at.B, at.T, at.H, at.n
    state = tape.product("state", k, v, 2 * B * T * n * r, "state", B * n * r)
    total = tape.tensor("sum of keys", B * H * r, k.needs_grad)
    weighted = tape.product("read", q, state, 2 * B * T * n * r, "weighted sum", B * T * n)
    weight = tape.product("normaliser", q, total, 2 * B * T * H * r, "normaliser", B * T * H)
    tape.note("state", "kv_cache_bytes", B * (n * r + H * r) * e)  # what a recurrent decoder keeps
    return tape.divide(weighted, weight, "averages")


def causal_linear_attention(tape: Tape, at: Heads, q: Tensor, k: Tensor, v: Tensor, chunk: Expr) -> Tensor:
    """The same over the keys up to each query's own, in chunks, the last one filled up."""
    B, T, H, n, dh = at.B, at.T, at.H, at.n, at.dh
    c = Min(chunk, T)
    chunks = ceiling(T / c)
    padded = chunks * c
    q, k, v = (tape.copy(t, f"{t.name} in chunks", B * padded * n) for t in (q, k, v))
    own = tape.product("state", k, v, 2 * B * padded * n * dh, "states of chunks", B * chunks * n * dh)
    state = tape.tensor("states before", B * chunks * n * dh, own.needs_grad)
    total = tape.tensor("sums of keys before", B * chunks * n, k.needs_grad)
    pairs = padded * c
    weights = tape.product("scores", q, k, 2 * B * pairs * n, "weights in chunks", B * H * pairs)
    near = tape.product("weighted_sum", weights, v, 2 * B * pairs * n, "sums in chunks", B * padded * n)
    far = tape.product("read", q, state, 2 * B * padded * n * dh, "sums before", B * padded * n)
    weighted = tape.add(near, far, "weighted sum", "sums")
    before = tape.product("normaliser", q, total, 2 * B * padded * n, "weight before", B * padded * H)
    weight = tape.add(before, tape.tensor("weight in chunks", B * padded * H, weights.needs_grad), "normaliser", "sums")
    tape.note("state", "kv_cache_bytes", B * (n * dh + n) * e)
    return tape.divide(weighted, weight, "averages", elements=B * T * n)


@formula("linear")
def linear(tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, H: Expr, dh: Expr | None = None) -> Tensor:
    """Linear attention, the weight of a pair (elu(q) + 1)·(elu(k) + 1)."""
    at = itself(sizes, B, T, d, H, None, dh)
    q, k, v = project(tape, at, x, x)
    y = linear_attention(tape, at, feature_map(tape, q), feature_map(tape, k), v, at.dh)
    return project_back(tape, at, tape.copy(y, "heads merged"))


@formula("linear-causal")
def linear_causal(
    tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, H: Expr, chunk: Expr, dh: Expr | None = None
) -> Tensor:
    """Causal linear attention, in chunks of the sequence."""
    at = itself(sizes, B, T, d, H, None, dh)
    q, k, v = project(tape, at, x, x)
    y = causal_linear_attention(tape, at, feature_map(tape, q), feature_map(tape, k), v, chunk)
    return project_back(tape, at, tape.copy(y, "heads merged"))


@formula("efficient-attention", vector=FORWARD)
def efficient_attention(
    tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, H: Expr, dh: Expr | None = None
) -> Tensor:
    """A softmax of each query over its features and of the keys over positions, then linear."""
    at = itself(sizes, B, T, d, H, None, dh)
    q, k, v = project(tape, at, x, x)
    keys = tape.softmax(k, B * at.n, "softmax_keys", "softmax of k")
    state = tape.product("state", keys, v, 2 * B * T * at.n * at.dh, "state", B * at.n * at.dh)
    queries = tape.softmax(q, B * T * H, "softmax_queries", "softmax of q")
    y = tape.product("read", queries, state, 2 * B * T * at.n * at.dh, "averages", B * T * at.n)
    return project_back(tape, at, tape.copy(y, "heads merged"))


@formula("performer")
def performer(
    tape: Tape, sizes: Sizes, x: Tensor, B: Expr, T: Expr, d: Expr, H: Expr, r: Expr, dh: Expr | None = None
) -> Tensor:
    """Performer (FAVOR+): r positive orthogonal random features stand for the softmax; their directions are fixed."""
    at = itself(sizes, B, T, d, H, None, dh)
    q, k, v = project(tape, at, x, x)
    directions = tape.tensor("directions", r * at.dh, False, is_state=True)

    def features(x: Tensor) -> Tensor:
        """exp(ω·x - |x|² / 2): the square keeps x, the exponential its result."""
        scaled = tape.scale(x)
        exponents = tape.product(
            f"{x.name}_features", scaled, directions, 2 * B * T * at.n * r, "exponents", B * T * H * r
        )
        if x.needs_grad:
            tape.keep(scaled)
        exponentials = tape.elementwise("exp", exponents, out=f"exponentials of {x.name}", keep_output=True)
        return tape.copy(exponentials, f"features of {x.name}")

    y = linear_attention(tape, at, features(q), features(k), v, r)
    return project_back(tape, at, tape.copy(y, "heads merged"))
