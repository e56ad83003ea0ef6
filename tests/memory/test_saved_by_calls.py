"""Programs that are not one forward and one backward: several calls, calls in a backward, exceptions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from memory.nets import Applied
from memory.readings import Reading, read, read_call

E, LONG = 4, 8
N, D = 5, 12
ROW = E * N * D


def rows(grad: bool = True) -> Tensor:
    return torch.randn(N, D, requires_grad=grad)


def test_two_calls_before_one_backward() -> None:
    """Each call has what it saved itself; the second one's input is the first one's output."""
    net, x = nn.Sequential(nn.Tanh(), nn.Linear(D, D)), rows()

    def run() -> None:
        (net(x).sum() + net(x * 2).sum()).backward()

    reading = read(run, net)
    assert [reading.saved_by_name(call) for call in range(2)] == [{"0": ROW}] * 2
    first, second = reading.memory.saved
    assert first.at < second.at


def test_a_graph_that_grows_over_calls_is_counted_once_per_call() -> None:
    """A call whose graph reaches back into another one keeps that alive too: what is alive then is what counts."""
    net, x = nn.Tanh(), rows()

    def run() -> None:
        net(net(x)).sum().backward()

    reading = read(run, net)
    assert [call.bytes for call in reading.memory.saved] == [ROW, 2 * ROW]
    assert [call.input_bytes for call in reading.memory.saved] == [0, ROW]


def test_gradient_accumulation_saves_the_same_every_time() -> None:
    net = nn.Sequential(nn.Tanh(), nn.Linear(D, D))

    def run() -> None:
        for _ in range(3):
            net(rows()).sum().backward()

    reading = read(run, net)
    assert [reading.saved_by_name(call) for call in range(3)] == [{"0": ROW}] * 3
    assert reading.memory.state_bytes["gradient"] == E * (D * D + D)


def test_double_backward_saves_in_the_first_one() -> None:
    """The forward kept what a forward keeps; the graph of the gradient is made by no module call."""
    net, x = nn.Sequential(nn.Linear(D, D), nn.Tanh()), rows()

    def run() -> None:
        (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        gradient.square().sum().backward()

    reading = read(run, net)
    assert reading.saved_by_name() == {"0": ROW, "1": ROW}


def test_a_module_called_in_a_backward_is_part_of_it() -> None:
    """No outermost forward: what it leaves is a temporary of the backward."""
    inner = nn.Linear(D, D)

    class Backwards(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return inner(gradient)

    net, x = Applied(Backwards.apply), rows()
    reading = read(lambda: net(x).sum().backward(), net)
    assert reading.memory.saved == []


def test_a_backward_in_a_forward() -> None:
    """What it used is gone when the forward returns."""

    class Energy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(D, D)

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                return torch.autograd.grad(self.layer(x).tanh().sum(), x)[0]

    net, x = Energy(), rows(False)
    assert read(lambda: net(x), net).memory.saved == []


def test_a_wrapper_is_not_a_second_call() -> None:
    class DistributedDataParallel(nn.Module):
        """Wraps a module under the name that torch's own uses."""

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, *args: Any) -> Any:
            return self.module(*args)

    net = nn.Sequential(nn.Tanh(), nn.Linear(D, D))
    reading = read_call(DistributedDataParallel(net), (rows(),))
    assert reading.saved_by_name() == {"0": ROW}


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_after_an_exception_the_report_goes_up_to_there(where: str) -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            if where == "forward":
                raise MemoryError("there is none")
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            raise MemoryError("there is none")

    net, x = nn.Sequential(nn.Linear(D, D), nn.Tanh(), Applied(Broken.apply)), rows()
    prof = attnprof.profile(net)
    with pytest.raises(MemoryError, match="there is none"), prof:
        net(x).sum().backward()
    reading = Reading(prof.trace)
    assert reading.memory.state_bytes["parameter"] == E * (D * D + D)
    if where == "backward":
        assert reading.saved_by_name() == {"0": ROW, "1": ROW}
    else:
        assert reading.memory.saved == []
    with prof:  # and on it goes
        nn.Tanh()(x).sum().backward()
    assert Reading(prof.trace).memory.saved[-1].bytes == ROW
