"""Errors and interrupts: counted up to there, and what follows is booked as if they had not been."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from capture.nets import ROWS, WIDTH, Chain, both, linear, rows, units

ONE_STEP = Chain.expected


class Raising(nn.Module):
    """Passes its input on, or raises what it is told to, after one product."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()
        self.error: BaseException | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.error is not None:
            raise self.error
        return y


class Fragile(nn.Module):
    """A Linear, a part that may raise, and one product of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.part = linear(), Raising()
        self.own = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self.first(x)) @ self.own


ERRORS = [RuntimeError("no"), KeyboardInterrupt(), SystemExit(1), GeneratorExit()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_good_step_after_an_error_in_a_module(error: BaseException) -> None:
    """The failed call is counted as far as it came; the next is booked as if nothing had been."""
    net = Fragile()
    with attnprof.profile(net) as prof:
        net.part.error = error
        with pytest.raises(type(error)):
            net(rows())
        net.part.error = None
        (net(rows()) @ torch.randn(WIDTH, WIDTH)).sum().backward()
    # The failed call ran `first` and `part.layer`. The loss after the good one is in no module.
    assert units(prof.report()) == {
        "first": both(2, 2),
        "part.layer": both(2, 2),
        "": both(1, 2),
        "(outside)": both(1, 1),
    }


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_ends_the_capture(error: BaseException) -> None:
    """``with profile`` lets it pass, and the report tells what was counted up to there."""
    net = Fragile()
    net.part.error = error
    prof = attnprof.profile(net)
    with pytest.raises(type(error)), prof:
        net(rows())
    assert units(prof.report()) == {"first": both(1, 0), "part.layer": both(1, 0)}
    net.part.error = None
    with prof:
        net(rows()).sum().backward()
    assert units(prof.report()) == {"first": both(2, 2), "part.layer": both(2, 2), "": both(1, 2)}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_loss_after_an_error_is_outside(error: BaseException) -> None:
    """An interrupt runs no hook: what follows is taken for the interrupted module's until its step ends."""
    net, x = Fragile(), rows()
    net.part.error = error
    with attnprof.profile(net, recount_every=1) as prof:
        with pytest.raises(type(error)):
            net(x)
        if not isinstance(error, Exception):
            prof.step()
        (x @ torch.randn(WIDTH, WIDTH)).sum().backward()
    assert units(prof.report())["(outside)"] == both(1, 1)


class Forgiving(nn.Module):
    """Carries on when a part raises, with a product of its own and another module."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.last = Raising(), linear()
        self.part.error = RuntimeError("no")
        self.own = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        with suppress(RuntimeError):
            x = self.part(x)
        return self.last(x @ self.own) @ self.own


def test_an_error_that_the_model_catches() -> None:
    net = Forgiving()
    with attnprof.profile(net) as prof:
        net(rows()).sum().backward()
    assert units(prof.report()) == {"part.layer": both(1, 0), "": both(2, 4), "last": both(1, 2)}


class RaisingBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        raise ctx.error


@pytest.mark.parametrize("error", ERRORS[:3], ids=lambda error: type(error).__name__)
def test_a_good_step_after_an_error_in_a_backward(error: BaseException) -> None:
    """The failed backward came through the second Linear."""
    net = Chain()
    with attnprof.profile(net) as prof:
        y = net.second(RaisingBackward.apply(net.first(rows())))
        y.grad_fn.next_functions[1][0].error = error
        with pytest.raises(type(error)):
            y.sum().backward()
        net.step()
    assert units(prof.report()) == {"first": both(2, 2), "second": both(2, 4)}


def test_a_shape_error_of_torchs() -> None:
    """An op that raises did no work; the module's own message passes through."""
    net = Chain()
    with attnprof.profile(net) as prof:
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            net(torch.randn(ROWS, WIDTH + 1))
        net.step()
    assert units(prof.report()) == ONE_STEP


def test_a_generator_that_is_never_finished() -> None:
    """A module that yields: its frame ends when forward returns, not when the generator runs."""

    class Lines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()

        def forward(self, x: Tensor) -> Any:
            return (self.layer(x) for _ in range(3))

    net = Lines()
    with attnprof.profile(net) as prof:
        found = next(net(rows()))
        found.sum().backward()
    assert units(prof.report()) == {"layer": both(1, 2)}
