"""Losses: the arithmetic per element, and what a sum or a mean adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as fn

from support import cost_of, traffic_of

R, V = 6, 5
N = R * V
F32, I64 = 4, 8  # bytes
t = torch.rand(R, V)
classes = torch.randint(0, V, (R,))


def x() -> torch.Tensor:
    return torch.rand(R, V, requires_grad=True)


def flops(run: Callable[[], Any], name: str) -> int:
    return cost_of(run, name).vector_flops


# (loss, op, operations per element)
PER_ELEMENT = [
    (fn.mse_loss, "aten.mse_loss", 2),
    (fn.smooth_l1_loss, "aten.smooth_l1_loss", 6),  # beta is 1: sub, abs, compare, d d / 2 2, d - 1/2
    (fn.huber_loss, "aten.huber_loss", 6),
    (fn.binary_cross_entropy, "aten.binary_cross_entropy", 9),
]


@pytest.mark.parametrize(("loss", "name", "each"), PER_ELEMENT, ids=lambda v: getattr(v, "__name__", None))
def test_reductions_join_the_losses(loss: Any, name: str, each: int) -> None:
    assert flops(lambda: loss(x(), t, reduction="none"), name) == each * N
    assert flops(lambda: loss(x(), t, reduction="sum"), name) == each * N + N - 1
    assert flops(lambda: loss(x(), t, reduction="mean"), name) == each * N + N - 1 + 1


def test_coefficients_other_than_one() -> None:
    assert flops(lambda: fn.smooth_l1_loss(x(), t, beta=0.5), "aten.smooth_l1_loss") == (7 + 1) * N
    assert flops(lambda: fn.huber_loss(x(), t, delta=0.5), "aten.huber_loss") == (7 + 1) * N
    assert flops(lambda: fn.binary_cross_entropy(x(), t, weight=t), "aten.binary_cross_entropy") == (10 + 1) * N


def test_backward_of_pointwise_losses() -> None:
    assert flops(lambda: fn.mse_loss(x(), t).backward(), "aten.mse_loss_backward") == 3 * N  # x - t, c, g
    name = "aten.binary_cross_entropy_backward"
    assert flops(lambda: fn.binary_cross_entropy(x(), t).backward(), name) == (6 + 1) * N
    name = "aten.smooth_l1_loss_backward"
    assert flops(lambda: fn.smooth_l1_loss(x(), t).backward(), name) == (5 + 1) * N


def test_nll_touches_what_it_selects() -> None:
    weight = torch.rand(V)
    name, back = "aten.nll_loss_forward", "aten.nll_loss_backward"
    assert flops(lambda: fn.nll_loss(x(), classes), name) == R + R - 1 + 1  # negatives, sum, division
    assert flops(lambda: fn.nll_loss(x(), classes, reduction="none"), name) == R
    weighted = R * 2 + 2 * (R - 1) + 1  # negative and weight; the sum and the total weight; division
    assert flops(lambda: fn.nll_loss(x(), classes, weight), name) == weighted
    assert flops(lambda: fn.nll_loss(x(), classes).backward(), back) == 2  # -g / total, once
    assert flops(lambda: fn.nll_loss(x(), classes, weight).backward(), back) == 2 + R
    # One log-probability per target; the loss and the total weight.
    assert traffic_of(lambda: fn.nll_loss(x(), classes), name) == (R * (I64 + F32), 2 * F32)
    # Gradient, targets, total weight; the whole gradient is written.
    assert traffic_of(lambda: fn.nll_loss(x(), classes).backward(), back) == (F32 + R * I64 + F32, N * F32)


def test_cross_entropy_is_log_softmax_and_nll() -> None:
    assert flops(lambda: fn.cross_entropy(x(), classes), "aten._log_softmax") == R * (5 * V - 1)
    assert flops(lambda: fn.cross_entropy(x(), classes), "aten.nll_loss_forward") == 2 * R


def test_logits_with_a_positive_weight() -> None:
    name = "aten.binary_cross_entropy_with_logits"
    with torch.inference_mode():
        logits = torch.rand(R, V)
        assert flops(lambda: fn.binary_cross_entropy_with_logits(logits, t), name) == (9 + 1) * N
        run = lambda: fn.binary_cross_entropy_with_logits(logits, t, pos_weight=torch.ones(V))  # noqa: E731
        assert flops(run, name) == (9 + 4 + 1) * N


def test_multi_margin_compares_with_the_target() -> None:
    terms = R * (V - 1)  # other classes: add, compare; V - 2 sums and a division per row, margin - x_y; R joined
    assert flops(lambda: fn.multi_margin_loss(x(), classes), "aten.multi_margin_loss") == (
        2 * terms + R + R * (V - 2) + R + R
    )


def test_ctc_recursion_over_frames_and_states() -> None:
    frames, batch, labels = 7, 2, 3
    scores = torch.randn(frames, batch, V).log_softmax(2).requires_grad_()
    targets = torch.randint(1, V, (batch, labels))
    lengths = {"input_lengths": (7, 5), "target_lengths": (3, 2)}
    found = flops(lambda: fn.ctc_loss(scores, targets, **lengths), "aten._ctc_loss")
    # log-sum-exp of three states 12, the score 1; states 2 S + 1; at the end log-sum-exp of two 8, negative 1
    assert found == 13 * (6 * 7 + 4 * 5) + 2 * 9
