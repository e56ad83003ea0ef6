"""Closed forms of patterns, tiles, scans and sums against what they count, one by one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product

import pytest

from attnprof.analytic import Prediction, predict


def useful_pairs(theory: Prediction) -> int:
    """Of one head of width 1 in a model of width 1: each pair costs 2 in the scores and 2 in the weighted sum."""
    of_pairs = (t for t in theory.only("forward").terms if t.quantity == "matmul_flops" and "proj" not in t.name)
    flops = sum(theory.value(t.expression if t.useful is None else t.useful) for t in of_pairs)
    assert flops % 4 == 0
    return flops // 4


def counted(T: int, sees: Callable[[int, int], bool]) -> int:
    return sum(sees(i, j) for i in range(T) for j in range(T))


def in_window(w: int, causal: bool, step: int = 1) -> Callable[[int, int], bool]:
    if causal:
        return lambda i, j: 0 <= i - j < step * w and (i - j) % step == 0
    return lambda i, j: abs(i - j) <= step * w and (i - j) % step == 0


ONE = {"B": 1, "d": 1, "H": 1}


@cache
def in_symbols(name: str, causal: bool) -> Prediction:
    return predict(name, causal=causal)


def one(name: str, causal: bool, **sizes: int) -> Prediction:
    """Of one sample, width and head: the expressions are written once, and evaluated many times."""
    return in_symbols(name, causal).at(**ONE, **sizes)


causal_or_not = pytest.mark.parametrize("causal", [False, True])


@causal_or_not
@pytest.mark.parametrize("name", ["local-window", "sliding-window"])
def test_windows(name: str, causal: bool) -> None:
    for T, w in product(range(1, 14), range(1, 9)):
        assert useful_pairs(one(name, T=T, w=w, causal=causal)) == counted(T, in_window(w, causal))


@causal_or_not
def test_dilated_windows(causal: bool) -> None:
    for T, w, r in product(range(1, 12), range(1, 5), range(1, 5)):
        theory = one("dilated-window", T=T, w=w, dilation=r, causal=causal)
        assert useful_pairs(theory) == counted(T, in_window(w, causal, r))


@causal_or_not
def test_blocks(causal: bool) -> None:
    for count, w in product(range(1, 5), range(1, 9)):
        T = count * w
        theory = one("block-window", T=T, w=w, causal=causal)
        assert useful_pairs(theory) == counted(T, lambda i, j, w=w: i // w == j // w and (j <= i or not causal))


@causal_or_not
def test_global_tokens(causal: bool) -> None:
    for T, w, g in product(range(1, 11), range(1, 6), range(1, 6)):
        near = in_window(w, causal)

        def sees(i: int, j: int, near: Callable[[int, int], bool] = near, g: int = g) -> bool:
            return (near(i, j) or j < g or (i < g and not causal)) and (j <= i or not causal)

        assert useful_pairs(one("longformer", T=T, w=w, g=g, causal=causal)) == counted(T, sees)


@causal_or_not
def test_strides(causal: bool) -> None:
    for T, k in product(range(1, 16), range(1, 7)):

        def sees(i: int, j: int, k: int = k) -> bool:
            return (abs(i - j) <= k or (i - j) % k == 0) and (j <= i or not causal)

        assert useful_pairs(one("local-atrous", T=T, k=k, causal=causal)) == counted(T, sees)


@causal_or_not
def test_the_best_keys(causal: bool) -> None:
    for T, k in product(range(1, 10), range(1, 12)):
        theory = one("topk", T=T, k=k, causal=causal)
        (kept,) = [t for t in theory.only("forward").terms if (t.name, t.quantity) == ("weighted_sum", "matmul_flops")]
        useful = kept.expression if kept.useful is None else kept.useful
        assert theory.value(useful) == 2 * sum(min(k, i + 1 if causal else T) for i in range(T))


def test_tiles_that_a_causal_mask_leaves() -> None:
    """A tile is computed if any of its keys is at or before its last query."""
    for T, Br, Bc in product(range(1, 10), range(1, 5), range(1, 5)):
        theory = one("flash", T=T, Br=Br, Bc=Bc, causal=True)
        pairs = counted(T, lambda i, j, T=T, Br=Br, Bc=Bc: j // Bc * Bc <= min((i // Br + 1) * Br, T) - 1)
        scores = next(t for t in theory.terms if t.name == "scores")
        assert theory.value(scores.expression) == 2 * pairs
        assert useful_pairs(theory) == T * (T + 1) // 2


@causal_or_not
def test_taps_on_the_sequence(causal: bool) -> None:
    for T, k in product(range(1, 9), range(1, 18) if causal else range(1, 18, 2)):
        first = 1 - k if causal else -(k // 2)
        inside = sum(0 <= t + first + j < T for t in range(T) for j in range(k))
        for name in ("depthwise-conv", "depthwise-conv-im2col"):
            theory = in_symbols(name, causal).at(B=1, T=T, d=1, k=k)
            assert theory.evaluate("useful_matmul_flops", "forward") == 2 * inside


def hillis_steele(T: int) -> int:
    """Joins: in the round that reaches 1, 2, 4, ... back, every position that has one so far back."""
    joins, reach = 0, 1
    while reach < T:
        joins += sum(t >= reach for t in range(T))
        reach *= 2
    return joins


def brent_kung(T: int) -> int:
    """Joins: neighbours on the way up, and each even position but the first with the one before on the way down."""
    return 0 if T == 1 else T // 2 + brent_kung(T // 2) + len(range(2, T, 2))


def test_scans() -> None:
    """A join is 3 FLOPs. For T = 64: 64 · 6 - 64 + 1 = 321 and 2 · 64 - 2 - 6 = 120 joins."""
    for T in (*range(1, 70), 1000, 1024):
        for name, joins in (("hillis-steele", hillis_steele), ("brent-kung", brent_kung)):
            theory = predict(f"diagonal-rnn-{name}", B=2, T=T, d=5)
            assert theory.evaluate("vector_flops", "forward") == 3 * 2 * 5 * joins(T)
        assert predict("diagonal-rnn", B=2, T=T, d=5).evaluate("vector_flops", "forward") == 2 * 2 * 5 * (T - 1)
    assert (hillis_steele(64), brent_kung(64)) == (321, 120)


@pytest.mark.parametrize("name", ["decode-cached", "decode-naive"])
def test_steps_add_up(name: str) -> None:
    """Step t is a layer on one token and t keys, or on t tokens and t keys."""
    sizes = {"B": 2, "d": 6, "H": 3}
    for T, L in product(range(1, 7), (1, 3)):
        whole = predict(name, **sizes, T=T, L=L)
        steps = [predict("decode-layer", **sizes, T=t if name == "decode-naive" else 1, S=t) for t in range(1, T + 1)]
        for phase in ("forward", "backward"):
            assert whole.evaluate("matmul_flops", phase) == L * sum(s.evaluate("matmul_flops", phase) for s in steps)
        # The input of the first layer is one tensor for all steps.
        saved = L * sum(s.evaluate("saved_bytes") for s in steps)
        inputs = [4 * 2 * 6 * (t if name == "decode-naive" else 1) for t in range(1, T + 1)]
        assert whole.evaluate("saved_bytes") == saved - sum(inputs) + 4 * 2 * 6 * T
