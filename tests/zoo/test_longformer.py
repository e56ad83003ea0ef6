"""Longformer: the masked softmax of window and global tokens, executed in blocks."""

from __future__ import annotations

from functools import partial

import pytest

from attnprof import zoo
from zoo.checks import (
    assert_causal,
    assert_one_sentence,
    assert_same,
    assert_same_gradients,
    assert_sees_everything,
    assert_works,
    double,
    normal,
    saved_bytes,
)
from zoo.patterns import Rule, assert_executes, assert_keeps, masked_attention

causal_or_not = pytest.mark.parametrize("causal", [False, True])


def rule(w: int, g: int, causal: bool) -> Rule:
    """In the window, or one of the two global; when causal, a global key up to the query."""
    if causal:
        return lambda i, j: 0 <= i - j < w or (j < g and j <= i)
    return lambda i, j: abs(i - j) <= w or i < g or j < g


@causal_or_not
def test_is_the_masked_softmax(causal: bool) -> None:
    for T, w, g in [(1, 1, 1), (3, 2, 5), (6, 1, 2), (7, 2, 3), (9, 4, 1), (10, 3, 6), (12, 3, 2)]:
        net = double(zoo.build("longformer", d=6, H=2, w=w, g=g, causal=causal))
        by_hand = masked_attention(net, rule(w, g, causal))
        x = normal(2, T, 6)
        assert_same(net(x), by_hand(x))
        assert_same_gradients(net, by_hand, x)


def test_causal() -> None:
    x = normal(2, 9, 6)
    assert_causal(double(zoo.build("longformer", d=6, H=2, w=2, g=3, causal=True)), x)
    assert_sees_everything(double(zoo.build("longformer", d=6, H=2, w=2, g=1)), x)


@causal_or_not
def test_counts(causal: bool) -> None:
    """Whole blocks of w queries against 3 w keys (causal 2 w), T queries against g keys, and g against T."""

    def executed(T: int, w: int, g: int) -> int:
        g = min(g, T)
        whole = -(-T // w) * w
        return whole * 2 * w + T * g if causal else whole * 3 * w + T * g + g * T

    assert_executes(partial(zoo.build, "longformer", causal=causal), executed, seed=30, w=6, g=4)


@causal_or_not
def test_pairs_are_those_of_the_rule(causal: bool) -> None:
    for w, g in [(1, 1), (2, 4), (3, 2), (5, 7)]:
        assert_keeps(zoo.build("longformer", w=w, g=g, causal=causal), rule(w, g, causal), *range(1, 18))


def test_pairs_in_closed_form() -> None:
    """Causal: the window's, and for each global key the queries out of its window, T - w less those before it.

    Two-sided, T > 2 w + g: global rows and columns 2 g T - g², and the band among the other T - g tokens.
    """
    for w, g in [(1, 1), (2, 4), (3, 2), (5, 7)]:
        for T in range(2 * w + g + 1, 40):
            n = T - g
            causal, symmetric = (zoo.build("longformer", w=w, g=g, causal=c).pairs(T) for c in (True, False))
            assert causal == T * w - w * (w - 1) // 2 + g * (T - w) - g * (g - 1) // 2
            assert symmetric == 2 * g * T - g * g + n * (2 * w + 1) - w * (w + 1)


@pytest.mark.parametrize("B", [1, 2])
@causal_or_not
def test_saved_activations(causal: bool, B: int) -> None:
    """In float64, T a multiple of w; the mask one byte per key."""
    T, d, H, dh, w, g = 12, 10, 2, 3, 4, 2
    n, c = H * dh, 2 if causal else 3
    elements = T * d + 2 * T * n + 2 * (c * T + g) * n + H * T * (c * w + g)
    if not causal:
        elements += 2 * T * n + H * g * T
    net = double(zoo.build("longformer", d=d, H=H, dh=dh, w=w, g=g, causal=causal))
    assert saved_bytes(net, normal(B, T, d)) == 8 * B * elements + T * (c * w + g)


@causal_or_not
def test_works_wherever_a_module_is_used(causal: bool) -> None:
    assert_works("longformer", {"T": 10}, d=8, H=2, w=3, g=2, causal=causal)


def test_bad_sizes() -> None:
    for name, value in (("d", 0), ("H", 0), ("w", -2), ("g", 0), ("dh", 1.5)):
        assert_one_sentence(lambda name=name, value=value: zoo.build("longformer", **{name: value}), name, str(value))
    assert_one_sentence(lambda: zoo.build("longformer", d=10, H=3), "H=3", "d=10")
