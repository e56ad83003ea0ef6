"""Windows: the softmax over a band of keys and nothing else, in time that grows with the window."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from attnprof import zoo
from zoo.checks import (
    assert_causal,
    assert_one_sentence,
    assert_same,
    assert_same_gradients,
    assert_sees_everything,
    assert_works,
    counted,
    double,
    normal,
    saved_bytes,
)
from zoo.patterns import Rule, assert_executes, assert_keeps, masked_attention

NAMES = ["local-window", "dilated-window", "sliding-window", "block-window"]
each = pytest.mark.parametrize("name", NAMES)
causal_or_not = pytest.mark.parametrize("causal", [False, True])


def rule(name: str, w: int, causal: bool, dilation: int = 2) -> Rule:
    """Which keys j a query i sees."""
    if name == "block-window":
        return lambda i, j: i // w == j // w and (j <= i or not causal)
    step = dilation if name == "dilated-window" else 1
    if causal:
        return lambda i, j: 0 <= i - j < step * w and (i - j) % step == 0
    return lambda i, j: abs(i - j) <= step * w and (i - j) % step == 0


def lengths(name: str, w: int, *wanted: int) -> list[int]:
    """Lengths that it takes: of blocks that do not overlap, whole ones."""
    return [-(-T // w) * w for T in wanted] if name == "block-window" else list(wanted)


def executed(name: str, causal: bool, T: int, w: int, dilation: int = 2) -> int:
    """Gathered: every query its taps. In blocks: all queries and keys of whole blocks, ceil(T / w) of them.

    Blocks that do not overlap are whole.
    """
    whole = -(-T // w) * w
    return {
        "local-window": T * (w if causal else 2 * w + 1),
        "dilated-window": T * (w if causal else 2 * w + 1),
        "sliding-window": whole * (2 if causal else 3) * w,
        "block-window": whole * w,
    }[name]


@each
@causal_or_not
def test_is_the_masked_softmax(name: str, causal: bool) -> None:
    for T, w in [(1, 1), (1, 3), (5, 9), (7, 2), (8, 4), (9, 3), (10, 4)]:
        T = lengths(name, w, T)[-1]
        net = double(zoo.build(name, d=6, H=2, w=w, causal=causal))
        by_hand = masked_attention(net, rule(name, w, causal))
        x = normal(2, T, 6)
        assert_same(net(x), by_hand(x))
        assert_same_gradients(net, by_hand, x)


@pytest.mark.parametrize("dilation", [1, 3, 4])
@causal_or_not
def test_any_dilation(dilation: int, causal: bool) -> None:
    for T in (1, 6, 13):
        net = double(zoo.build("dilated-window", d=6, H=2, w=2, dilation=dilation, causal=causal))
        sees, x = rule("dilated-window", 2, causal, dilation), normal(2, T, 6)
        assert_same(net(x), masked_attention(net, sees)(x))
        assert_keeps(net, sees, 1, 2, 6, 13)


@each
def test_causal(name: str) -> None:
    x = normal(2, 7, 6)
    assert_causal(double(zoo.build(name, d=6, H=2, w=7 if name == "block-window" else 3, causal=True)), x)
    assert_sees_everything(double(zoo.build(name, d=6, H=2, w=7, **odd_steps(name))), x)


def odd_steps(name: str) -> dict[str, int]:
    return {"dilation": 1} if name == "dilated-window" else {}


@each
@causal_or_not
def test_counts(name: str, causal: bool) -> None:
    whole = "w" if name == "block-window" else None
    assert_executes(partial(zoo.build, name, causal=causal), partial(executed, name, causal), 10, whole, w=6)


def test_the_dilation_costs_nothing() -> None:
    x = torch.randn(2, 12, 8)
    one, four = (counted(zoo.build("dilated-window", d=8, H=2, w=2, dilation=r), x) for r in (1, 4))
    assert one == four


@each
@causal_or_not
def test_pairs_are_those_of_the_rule(name: str, causal: bool) -> None:
    for w in (1, 2, 5):
        assert_keeps(zoo.build(name, w=w, causal=causal), rule(name, w, causal), *lengths(name, w, *range(1, 17)))


def test_pairs_in_closed_form() -> None:
    """Each query its whole window, less what lies outside: at the ends 1 + 2 + ... + w of each side."""
    for w in (1, 3, 4):
        for T in range(2 * w + 1, 6 * w):
            assert windows("local-window", w).pairs(T) == T * (2 * w + 1) - w * (w + 1)
            assert windows("sliding-window", w).pairs(T) == T * (2 * w + 1) - w * (w + 1)
            assert windows("local-window", w, causal=True).pairs(T) == T * w - w * (w - 1) // 2
            assert windows("sliding-window", w, causal=True).pairs(T) == T * w - w * (w - 1) // 2
            assert windows("dilated-window", w).pairs(T) == T * (2 * w + 1) - 2 * w * (w + 1)
            assert windows("dilated-window", w, causal=True).pairs(T) == T * w - 2 * w * (w - 1) // 2
        for T in range(w, 6 * w, w):
            assert windows("block-window", w).pairs(T) == T * w
            assert windows("block-window", w, causal=True).pairs(T) == T * (w + 1) // 2


def windows(name: str, w: int, **options: Any) -> Any:
    return zoo.build(name, w=w, **options)


def test_a_causal_window_in_blocks_executes_about_twice_the_useful_pairs() -> None:
    """2 w T against T w - w (w - 1) / 2: the ratio falls towards 2 as the sequence grows."""
    w, net = 8, windows("sliding-window", 8, causal=True)
    ratios = [net.executed_pairs(T) / net.pairs(T) for T in (w, 8 * w, 64 * w, 512 * w)]
    assert ratios == sorted(ratios, reverse=True)
    assert 2 < ratios[-1] < 2.002


@each
@causal_or_not
def test_saved_activations(name: str, causal: bool) -> None:
    """In float64; positions are int64 and masks one byte each. T is a multiple of w, so that nothing is padded."""
    B, T, d, H, dh, w = 2, 12, 10, 2, 3, 4
    n, m = H * dh, executed(name, causal, T, w) // T
    keys_and_values = 2 * T * n * (1 if name == "block-window" else m // w if name == "sliding-window" else m)
    elements = B * (T * d + 2 * T * n + keys_and_values + H * T * m)
    pattern = T * m * (9 if name in ("local-window", "dilated-window") else 1)
    net = double(zoo.build(name, d=d, H=H, dh=dh, w=w, causal=causal))
    assert saved_bytes(net, normal(B, T, d)) == 8 * elements + pattern


@each
@causal_or_not
def test_works_wherever_a_module_is_used(name: str, causal: bool) -> None:
    T = 48 if name == "block-window" else 10  # whole blocks of 3, and of the default
    assert_works(name, {"T": T}, d=8, H=2, w=3, causal=causal)


@each
def test_bad_sizes(name: str) -> None:
    assert_one_sentence(lambda: zoo.build(name, d=0), "d", "0")
    assert_one_sentence(lambda: zoo.build(name, d=10, H=3), "H", "d=10")
    assert_one_sentence(lambda: zoo.build(name, H=0), "H", "0")
    assert_one_sentence(lambda: zoo.build(name, dh=-1), "dh", "-1")
    assert_one_sentence(lambda: zoo.build(name, w=0), "w", "0")
    assert_one_sentence(lambda: zoo.build("dilated-window", dilation=0), "dilation", "0")


def test_a_length_that_does_not_divide_into_blocks() -> None:
    net = zoo.build("block-window", d=6, H=2, w=4)
    assert_one_sentence(lambda: net(torch.randn(1, 10, 6)), "w must divide T", "T=10", "w=4")
