"""Where a backward starts: a loss the caller names, or what the model returned, whatever its structure."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import attnprof
from attnprof import AttnprofError
from attnprof.capture.loss import described
from capture.nets import ROWS, WIDTH, linear, rows, units


class Returns(nn.Module):
    """Two Linears side by side; ``shape`` makes of their outputs what the model returns."""

    def __init__(self, shape: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.left, self.right, self.shape = linear(), linear(), shape

    def forward(self, x: Tensor) -> Any:
        return self.shape(self.left(x), self.right(x))


Pair = namedtuple("Pair", "left right")


@dataclass
class Output:
    left: Tensor
    inner: Any
    count: int = 3


@dataclass
class WithLoss:
    loss: Tensor
    logits: Tensor


class Attributes:
    """No structure that anybody registered, but it has a loss."""

    def __init__(self, loss: Tensor) -> None:
        self.loss = loss


BOTH = {"left": {"forward": 1, "backward": 2}, "right": {"forward": 1, "backward": 2}}
LEFT = {"left": {"forward": 1, "backward": 2}, "right": {"forward": 1}}


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (lambda a, b: (a, b), BOTH),
        (lambda a, b: [a, {"deep": [b, None, 3, "word"]}], BOTH),
        (lambda a, b: {"a": a, "b": b}, BOTH),
        (lambda a, b: Pair(a, b), BOTH),
        (lambda a, b: Output(a, Output(b, None)), BOTH),
        (lambda a, b: (a, b.detach(), b.argmax()), LEFT),
        (lambda a, b: WithLoss(a.mean(), b), LEFT),
        (lambda a, b: {"loss": a.mean(), "logits": b}, LEFT),
        (lambda a, b: Attributes(a.mean()), LEFT),
        (lambda a, b: WithLoss(None, a), LEFT),  # type: ignore[arg-type]
        (lambda a, b: WithLoss(b.detach().mean(), a), LEFT),
    ],
)
def test_a_backward_starts_from_what_was_returned(shape: Any, expected: Any, fake: bool) -> None:
    report = attnprof.run(Returns(shape), (rows(),), backward=True, fake=fake)
    assert units(report) == expected


def test_the_same_tensor_twice_is_differentiated_once() -> None:
    once = attnprof.run(Returns(lambda a, b: a), (rows(),), backward=True)
    twice = attnprof.run(Returns(lambda a, b: {"a": a, "again": [a, a]}), (rows(),), backward=True)
    assert twice.phases == once.phases


def test_a_structure_that_contains_itself() -> None:
    def loops(a: Tensor, b: Tensor) -> list[Any]:
        found: list[Any] = [a]
        found.append(found)
        return found

    assert units(attnprof.run(Returns(loops), (rows(),), backward=True)) == LEFT


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_a_loss_is_counted_outside_of_any_module(fake: bool) -> None:
    """Its forward: ROWS x WIDTH squares and the sum of as many; it alone decides what the backward goes through."""

    def loss(output: tuple[Tensor, Tensor]) -> Tensor:
        return output[0].square().sum()

    report = attnprof.run(Returns(lambda a, b: (a, b)), (rows(),), loss=loss, fake=fake)
    assert units(report) == LEFT
    outside = report.by_module("forward")["(outside)"]
    assert outside.vector_flops == ROWS * WIDTH + (ROWS * WIDTH - 1)
    assert outside.matmul_flops == 0


def test_a_loss_may_be_a_module_with_weights() -> None:
    class Criterion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, y: Tensor) -> Tensor:
            self.calls += 1
            return (y * self.scale).sum()

    loss = Criterion()
    for fake in (False, True):
        report = attnprof.run(linear(), (rows(),), loss=loss, optimizer="adamw", fake=fake)
        assert report.by_module("forward")["(Criterion)"].vector_flops > 0
        assert (loss.scale.grad, loss.calls.item(), loss.scale.item()) == (None, 0, 1)


def test_cross_entropy() -> None:
    target = torch.zeros(ROWS, dtype=torch.int64)
    named = attnprof.run(linear(), (rows(),), loss=lambda y: F.cross_entropy(y, target))

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()

        def forward(self, x: Tensor) -> Tensor:
            return F.cross_entropy(self.layer(x), target)

    assert named.phases == attnprof.run(Whole(), (rows(),), backward=True).phases


# What cannot be differentiated


def unscaled(output: Tensor) -> Tensor:
    return output


def nothing(output: Tensor) -> None:
    return None


def detached(output: Tensor) -> Tensor:
    return output.detach().sum()


def pair(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).sum()


@pytest.mark.parametrize(
    ("loss", "parts"),
    [
        (unscaled, ["unscaled, given as the loss (--loss), returned Tensor float32[5,7]", "reduce it with .mean()"]),
        (nothing, ["returned None, and a loss is a scalar tensor."]),
        (detached, ["returned Tensor float32[], which cannot be differentiated"]),
        (pair, ["called with the model's output alone", "pair(output", "target"]),
        (nn.MSELoss(), ["called with the model's output alone", "MSELoss"]),
        ("mse", ["a str cannot be called"]),
    ],
)
def test_a_loss_that_is_none(loss: Any, parts: list[str]) -> None:
    with pytest.raises(AttnprofError) as raised:
        attnprof.run(linear(), (rows(),), loss=loss)
    message = str(raised.value)
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        (lambda a, b: a.argmax(-1), ["returned Tensor int64[5], with no floating tensor in it", "--loss"]),
        (lambda a, b: None, ["returned None, with no floating tensor", "--loss"]),
        (lambda a, b: {"n": 3, "ids": a.argmax()}, ["dict (n: int, ids: int64[])", "--loss"]),
        (lambda a, b: object(), ["returned object", "--loss"]),
        (lambda a, b: a.detach(), ["nothing in the model's output (Tensor float32[5,7]) needs a gradient", "--loss"]),
        (lambda a, b: (), ["tuple (empty)", "--loss"]),
    ],
)
def test_an_output_that_cannot_be_differentiated(shape: Any, parts: list[str]) -> None:
    with pytest.raises(AttnprofError) as raised:
        attnprof.run(Returns(shape), (rows(),), backward=True)
    message = str(raised.value)
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message


def test_descriptions_are_short_and_show_no_contents() -> None:
    assert described({"secret": "word", "x": torch.zeros(2)}) == "dict (secret: str, x: float32[2])"
    assert described(Pair(torch.zeros(1), 2)) == "Pair (left: float32[1], right: int)"
    assert described([1] * 9) == "list (int, int, int, int, 5 more)"
    nested = torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)])
    assert described(nested) == "Tensor float32[...]"
