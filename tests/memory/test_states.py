"""Parameters, buffers and gradients: distinct storages, at their largest."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from memory.readings import Reading, read
from training.attention import Block

E, LONG = 4, 8
N, D = 5, 12
ROW = E * N * D


def rows() -> Tensor:
    return torch.randn(N, D)


def trained(net: nn.Module) -> Reading:
    x = rows()
    return read(lambda: net(x).sum().backward(), net)


def test_parameters_and_gradients_of_a_block() -> None:
    """Four projections, up and down with their biases, two norms: 12 d² + 13 d."""
    reading = trained(Block(D, 3, fused=False))
    total = E * (12 * D * D + 13 * D)
    assert reading.memory.state_bytes == {"parameter": total, "trainable": total, "buffer": 0, "gradient": total}
    assert sum(reading.of_kind("parameter")) == sum(reading.of_kind("gradient")) == total


def test_frozen_parameters_have_no_gradient() -> None:
    net = nn.Sequential(nn.Linear(D, 3).requires_grad_(False), nn.Linear(3, 7))
    states = trained(net).memory.state_bytes
    assert states["parameter"] == E * (D * 3 + 3 + 3 * 7 + 7)
    assert states["trainable"] == states["gradient"] == E * (3 * 7 + 7)


def test_tied_parameters_are_one_storage() -> None:
    first, second = nn.Linear(D, D), nn.Linear(D, D, bias=False)
    second.weight = first.weight
    states = trained(nn.Sequential(first, second)).memory.state_bytes
    assert states["parameter"] == states["gradient"] == E * (D * D + D)


def test_parameters_in_a_flat_buffer_are_one_storage() -> None:
    """As FSDP and DeepSpeed keep them; what no parameter views is in memory with them."""
    unused = 5
    flat = torch.randn(D * D + D + unused)
    net = nn.Linear(D, D)
    net.weight = nn.Parameter(flat[: D * D].view(D, D))
    net.bias = nn.Parameter(flat[D * D : D * D + D])
    reading = trained(net)
    assert reading.memory.state_bytes["parameter"] == E * (D * D + D + unused)
    assert reading.of_kind("parameter") == [E * (D * D + D + unused)]
    assert reading.memory.state_bytes["gradient"] == E * (D * D + D)


def test_gradients_in_a_flat_buffer_are_one_storage() -> None:
    """As DDP keeps them in its buckets: there before the backward, which adds to them."""
    net = nn.Linear(D, D)
    flat = torch.zeros(D * D + D)
    net.weight.grad, net.bias.grad = flat[: D * D].view(D, D), flat[D * D :]
    reading = trained(net)
    assert reading.of_kind("gradient") == [E * (D * D + D)]
    assert reading.memory.state_bytes["gradient"] == E * (D * D + D)


def test_buffers() -> None:
    """Running mean and variance, and a count of batches; the buffer of a mask in bytes of its own."""
    net = nn.Sequential(nn.BatchNorm1d(D), nn.Linear(D, D))
    net.register_buffer("mask", torch.ones(N, N, dtype=torch.bool), persistent=False)
    reading = trained(net)
    assert reading.memory.state_bytes["buffer"] == 2 * E * D + LONG + N * N
    assert sorted(reading.of_kind("buffer")) == sorted([E * D, E * D, LONG, N * N])


def test_a_parameter_that_is_also_a_buffer_is_a_parameter() -> None:
    net = nn.Linear(D, D)
    net.register_buffer("same", net.weight.detach())
    reading = trained(net)
    assert reading.memory.state_bytes["buffer"] == E * D * D  # what its buffers would take by themselves
    assert reading.of_kind("buffer") == []


def test_lazy_parameters_count_once_they_are_there() -> None:
    assert trained(nn.LazyLinear(3)).memory.state_bytes["parameter"] == E * (D * 3 + 3)


def test_a_model_of_half_precision() -> None:
    net = nn.Linear(D, D).bfloat16()
    x = rows().bfloat16()
    states = read(lambda: net(x).sum().backward(), net).memory.state_bytes
    assert states["parameter"] == states["gradient"] == 2 * (D * D + D)


def test_models_that_are_not_named_count_once_they_run() -> None:
    first, second = nn.Linear(D, 3), nn.Linear(3, 7)
    x = rows()
    reading = read(lambda: second(first(x)).sum().backward())
    total = E * (D * 3 + 3 + 3 * 7 + 7)
    assert reading.memory.state_bytes["parameter"] == reading.memory.state_bytes["gradient"] == total
    assert sum(reading.of_kind("parameter")) == total


def test_frozen_parameters_of_a_model_that_is_not_named_are_not_saved() -> None:
    """The gradient of x needs the weight, which no gradient leads to."""
    layer, x = nn.Linear(D, D).requires_grad_(False), rows().requires_grad_()
    reading = read(lambda: layer(x).sum().backward())
    assert reading.memory.saved == []
    assert reading.memory.state_bytes["parameter"] == E * (D * D + D)


def test_parameters_of_a_short_lived_module_are_not_saved_activations() -> None:
    """Built anew in every forward, and gone when it returns; the graph has its parameters until the backward."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.Linear(D, D)(x.tanh())

    net, x = Net(), rows().requires_grad_()

    def run() -> None:
        for _ in range(3):
            net(x).sum().backward()

    reading = read(run, net)
    assert [call.bytes for call in reading.memory.saved] == [ROW] * 3
    assert [call.held for call in reading.memory.saved] == [{}] * 3
    assert sum(reading.of_kind("parameter")) == 3 * E * (D * D + D)
    assert reading.alive_at_the_end("parameter") == 0


def test_a_run_without_modules_has_its_optimizers_parameters() -> None:
    weight = torch.randn(D, D, requires_grad=True)

    def run() -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        (rows() @ weight).sum().backward()
        optimizer.step()
        return optimizer

    memory = read(run).memory
    assert memory.state_bytes["parameter"] == memory.state_bytes["trainable"] == E * D * D
    assert memory.state_bytes["gradient"] == E * D * D
    assert memory.optimizer_bytes == {"momentum_buffer": E * D * D}


@pytest.mark.parametrize("zero", ["set_to_none", "zero_", "del"])
def test_gradients_that_are_gone_after_the_backward_were_there(zero: str) -> None:
    """Without an optimizer nothing else would look at them."""
    net = nn.Linear(D, D)

    def run() -> None:
        for _ in range(3):
            net(rows()).sum().backward()
            for parameter in net.parameters():
                if zero == "zero_":
                    parameter.grad.zero_()
                elif zero == "del":
                    del parameter.grad
                else:
                    parameter.grad = None

    reading = read(run, net)
    total = E * (D * D + D)
    assert reading.memory.state_bytes["gradient"] == total
    assert sum(reading.of_kind("gradient")) == total * (1 if zero == "zero_" else 3)
    assert reading.alive_at_the_end("gradient") == (total if zero == "zero_" else 0)


def test_gradients_of_a_partial_backward() -> None:
    """Each backward leaves those of the parameters it reached."""
    a, b = nn.Linear(D, 3), nn.Linear(D, 7)
    x = rows()

    def run() -> None:
        a(x).sum().backward()
        b(x).sum().backward()

    reading = read(run, nn.ModuleList([a, b]))
    assert reading.memory.state_bytes["gradient"] == E * (D * 3 + 3 + D * 7 + 7)


def test_gradients_that_autograd_returns_are_the_callers() -> None:
    net, x = nn.Linear(D, D), rows()
    reading = read(lambda: torch.autograd.grad(net(x).sum(), list(net.parameters())), net)
    assert reading.memory.state_bytes["gradient"] == 0
    assert reading.of_kind("gradient") == []


def test_gradients_from_before_are_there_from_the_beginning() -> None:
    net, x = nn.Linear(D, D), rows()
    net(x).sum().backward()
    total = E * (D * D + D)
    reading = trained(net)
    assert reading.live[3] == 2 * total  # two parameters and two gradients, before the first op
    assert reading.memory.log_at[:4] == [0] * 4
    assert sum(reading.of_kind("gradient")) == total


def test_the_gradient_of_an_input_is_no_state() -> None:
    net, x = nn.Linear(D, D), rows().requires_grad_()
    reading = read(lambda: net(x).sum().backward(), net)
    assert reading.memory.state_bytes["gradient"] == E * (D * D + D)
    assert reading.alive_at_the_end("temporary") == ROW  # x.grad


def test_kinds_say_the_strongest_thing() -> None:
    """A parameter given as an input is a parameter; an input that is saved is an input."""
    net = nn.Linear(D, D, bias=False)
    reading = read(lambda: net(net.weight).sum().backward(), net)
    assert reading.of_kind("parameter") == [E * D * D]
    assert reading.of_kind("input") == []
    reading = trained(net)
    assert reading.of_kind("input") == [ROW]
    assert reading.of_kind("saved") == []
    assert (reading.saved.bytes, reading.saved.input_bytes) == (ROW, ROW)


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_states_of_a_run(fake: bool) -> None:
    net = nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(D))
    before = copy.deepcopy(net.state_dict())
    report = attnprof.run(net, (rows(),), backward=True, fake=fake)
    total = E * (D * D + D + 2 * D)
    states: dict[str, Any] = Reading(report.trace).memory.state_bytes
    assert states == {"parameter": total, "trainable": total, "buffer": 2 * E * D + LONG, "gradient": total}
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
