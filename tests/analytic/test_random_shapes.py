"""Residual 0 at many random shapes: every mechanism, any weights frozen, inputs with a gradient or without."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

from analytic.drawing import DRAWN, Symbols
from analytic.test_against_zoo import assert_agree, assert_work, built, freeze, measured, some_weights
from attnprof import analytic

#: Distinct shapes of each mechanism, and of these, shapes at which its traffic has a closed form.
SHAPES = 20
#: Mechanisms without a closed form of traffic in every phase: those that docs/zoo.md names.
NO_TRAFFIC = {"flash": ("forward", "backward", "recompute"), "diagonal-rnn-brent-kung": ("backward", "recompute")}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn(name: str) -> Iterator[tuple[Random, Symbols]]:
    """Distinct shapes until there are enough, and enough at which all of the traffic is known."""
    seen: set[str] = set()
    known, seed = 0, 0
    while len(seen) < SHAPES or (known < SHAPES and name not in NO_TRAFFIC):
        assert seed < 60 * SHAPES, f"no {SHAPES} shapes of {name}"
        at = Random(f"{name} {seed}")
        seed += 1
        symbols = DRAWN[name](at)
        traffic = analytic.predict(name, **symbols).work("traffic", "backward") is not None
        if str(symbols) in seen or (len(seen) >= SHAPES and not traffic):
            continue
        seen.add(str(symbols))
        known += traffic
        yield at, symbols


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DRAWN))
def test_residual_is_zero(name: str) -> None:
    """FLOPs of both kinds, bytes read and written, parameters, saved bytes, useful pairs: the same integers."""
    for at, symbols in drawn(name):
        input_grad = at.random() < 0.6 or symbols.get("checkpoint") == "reentrant"
        frozen = some_weights(name, symbols, at, input_grad) if at.random() < 0.6 else []
        if frozen is None or (not input_grad and not parameters(name, symbols)):
            input_grad, frozen = True, []
        net, args = built(name, symbols)
        for weight in frozen:
            freeze(net, weight)
        theory = analytic.predict(name, **symbols, frozen=frozen, input_grad=input_grad)
        report = measured(net, args, input_grad)
        assert_agree(report, theory, net)
        assert_work(report, theory)
        assert_useful(theory, net, args)


def parameters(name: str, symbols: Symbols) -> int:
    return analytic.predict(name, **symbols).evaluate("parameters")


def assert_useful(theory: analytic.Prediction, net: Any, args: tuple[Any, ...]) -> None:
    """Of the products over pairs what lies outside masks and padding: the pairs that the module says it keeps."""
    useful = [t.useful for t in theory.terms if t.phase == "forward" and t.useful is not None]
    if not useful or not isinstance(net, nn.Module) or not hasattr(net, "pairs"):
        return
    B, T = args[0].shape[:2]
    if theory.name.startswith("depthwise"):
        each = 2 * net.d  # a multiply-add per tap and channel
    elif theory.name == "topk":
        each = 2 * net.H * net.dh  # all scores are computed to know the best: useful is their average alone
    elif theory.name.startswith("mla"):
        each = 2 * net.H * (net.dh + net.dr) + 2 * net.H * net.dh
    elif theory.name.startswith("synthesizer"):
        each = 2 * net.H * net.dh  # averages: scores are not of pairs
    else:
        each = 4 * net.H * net.dh  # scores and averages
    if "decode" not in theory.name:  # whose pairs are those of a prefill
        assert sum(map(theory.value, useful)) == B * each * net.pairs(T)


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_what_has_no_closed_form_is_named(name: str) -> None:
    """Every kind of work in every phase, but for what docs/zoo.md names: a zero is never one that nobody knows."""
    theory = analytic.predict(name)
    for phase in ("forward", "backward", "recompute"):
        assert theory.work("matmul", phase) is not None
        assert theory.work("vector", phase) is not None
        assert (theory.work("traffic", phase) is None) is (phase in NO_TRAFFIC.get(name, ()))
