"""Adapters: a few trained parameters beside frozen weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import attnprof
from training.counts import matmul, phases, product

ROWS, WIDTH, RANK = 5, 32, 2  # the rank is a sixteenth of the width
UNIT = product(ROWS, WIDTH, WIDTH)
LOW = product(ROWS, WIDTH, RANK)  # down to the rank, or up from it


class LoRA(nn.Module):
    """A frozen Linear and, beside it, a trained product of two thin ones."""

    def __init__(self, n_in: int = WIDTH, n_out: int = WIDTH, rank: int = RANK) -> None:
        super().__init__()
        self.base = nn.Linear(n_in, n_out).requires_grad_(False)
        self.down, self.up = nn.Linear(n_in, rank, bias=False), nn.Linear(rank, n_out, bias=False)
        self.scale = 1.7

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * self.up(self.down(x))


@pytest.mark.parametrize("input_grad", [True, False])
def test_lora(input_grad: bool) -> None:
    """The frozen weight has no dW. Up is trained and has a trained input; down's input may need no gradient."""
    report = attnprof.run(LoRA(), (torch.randn(ROWS, WIDTH, requires_grad=input_grad),), backward=True)
    assert matmul(report) == {
        "base": phases(forward=UNIT, backward=input_grad * UNIT),
        "down": phases(forward=LOW, backward=(1 + input_grad) * LOW),
        "up": phases(forward=LOW, backward=2 * LOW),
    }
    # In Linears: 1 + 1 of the base, (2 + 4) / 16 of the adapter; or 1, and (2 + 3) / 16. A trained Linear has 3 and 2.
    assert 16 * report.model_flops == (16 * 2 + 6 if input_grad else 16 + 5) * UNIT
    # Forward: the base's bias, the scale and the sum; backward: the scale.
    n = ROWS * WIDTH
    assert report.phases["forward"].vector_flops == 3 * n
    assert report.phases["backward"].vector_flops == n + input_grad * n  # and the sum of x's two gradients


def test_loras_in_a_row() -> None:
    """Only the first one's frozen weight is spared its input gradient too."""
    depth = 3
    report = attnprof.run(nn.Sequential(*(LoRA() for _ in range(depth))), (torch.randn(ROWS, WIDTH),), backward=True)
    found = matmul(report)
    for i in range(depth):
        input_grad = i > 0
        assert found[f"{i}.base"] == phases(forward=UNIT, backward=input_grad * UNIT)
        assert found[f"{i}.down"] == phases(forward=LOW, backward=(1 + input_grad) * LOW)
        assert found[f"{i}.up"] == phases(forward=LOW, backward=2 * LOW)


N_IN, N_OUT = 6, 9


class LowRank(nn.Module):
    """A parametrization: the weight plus a trained product of rank ``RANK``."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(N_OUT, RANK)), nn.Parameter(torch.randn(RANK, N_IN))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def merged() -> nn.Sequential:
    """A Linear whose frozen weight is adapted before it is used."""
    layer = nn.Linear(N_IN, N_OUT)
    parametrize.register_parametrization(layer, "weight", LowRank())
    layer.bias.requires_grad_(False)
    layer.parametrizations.weight.original.requires_grad_(False)
    return nn.Sequential(layer)


@pytest.mark.parametrize("input_grad", [True, False])
def test_lora_merged_into_the_weight(input_grad: bool) -> None:
    """The merged weight has the full dW, from which the thin factors get theirs: nothing of the backward is saved."""
    net = merged()
    report = attnprof.run(net, (torch.randn(ROWS, N_IN, requires_grad=input_grad),), backward=True)
    thin, full = product(N_OUT, RANK, N_IN), product(ROWS, N_IN, N_OUT)
    assert matmul(report) == {
        "0": phases(forward=full, backward=(1 + input_grad) * full),
        "0.parametrizations.weight.0": phases(forward=thin, backward=2 * thin),
    }


def test_a_cached_parametrization_is_merged_once() -> None:
    """Two calls in one cached block: one merged weight, whose two gradients are added before they go on."""
    net = merged()
    with attnprof.profile(net) as prof, parametrize.cached():
        y = net(torch.randn(ROWS, N_IN)) + net(torch.randn(ROWS, N_IN))
        y.sum().backward()
    thin, full = product(N_OUT, RANK, N_IN), product(ROWS, N_IN, N_OUT)
    report = prof.report()
    assert matmul(report) == {
        "0": phases(forward=2 * full, backward=2 * full),
        "0.parametrizations.weight.0": phases(forward=thin, backward=2 * thin),
    }
    assert report.phases["backward"].vector_flops == N_OUT * N_IN


def test_without_the_cache_it_is_merged_in_each_call() -> None:
    net = merged()
    with attnprof.profile(net) as prof:
        y = net(torch.randn(ROWS, N_IN)) + net(torch.randn(ROWS, N_IN))
        y.sum().backward()
    thin = product(N_OUT, RANK, N_IN)
    found = matmul(prof.report())["0.parametrizations.weight.0"]
    assert found == phases(forward=2 * thin, backward=4 * thin)


def test_merging_for_inference_costs_one_product_once() -> None:
    """Taken out of its parametrization, the layer is a plain one."""
    net = merged()
    x = torch.randn(ROWS, N_IN)
    with attnprof.profile(net) as prof:
        parametrize.remove_parametrizations(net[0], "weight")
        for _ in range(3):
            net(x)
    assert prof.report().total.matmul_flops == product(N_OUT, RANK, N_IN) + 3 * product(ROWS, N_IN, N_OUT)


def test_weight_norm() -> None:
    """g v / |v| per row is no contraction, nor is its gradient; its dW is trained through."""
    net = parametrizations.weight_norm(nn.Linear(N_IN, N_OUT))
    report = attnprof.run(net, (torch.randn(ROWS, N_IN),), backward=True)
    one = product(ROWS, N_IN, N_OUT)
    assert matmul(report) == {"": phases(forward=one, backward=one)}
    assert report.by_module("forward")["parametrizations.weight.0"].vector_flops > 0
    assert report.unpriced == {}


@pytest.mark.parametrize("training", [True, False])
def test_spectral_norm(training: bool) -> None:
    """Training, one power iteration: W^T u and W v. Then s = u . (W v).

    Its gradient u v^T is an outer product that torch multiplies out element by element: no contraction.
    """
    net = parametrizations.spectral_norm(nn.Linear(N_IN, N_OUT), n_power_iterations=1).train(training)
    report = attnprof.run(net, (torch.randn(ROWS, N_IN),), backward=True)
    one, matrix_vector = product(ROWS, N_IN, N_OUT), 2 * N_IN * N_OUT
    found = matmul(report)
    assert found[""] == phases(forward=one, backward=one)
    assert found["parametrizations.weight.0"] == phases(forward=(2 * training + 1) * matrix_vector + 2 * N_OUT)


class Scaled(nn.Module):
    """A frozen layer whose outputs are scaled by a trained vector."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(N_IN, N_OUT).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(N_OUT))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) * self.scale


def test_scaling_vectors() -> None:
    """No contraction in the backward: the gradient is a product per element and a sum over rows."""
    report = attnprof.run(Scaled(), (torch.randn(ROWS, N_IN),), backward=True)
    assert matmul(report) == {"base": phases(forward=product(ROWS, N_IN, N_OUT))}
    assert report.phases["backward"].vector_flops == ROWS * N_OUT + (ROWS - 1) * N_OUT


class Bottleneck(nn.Module):
    """A frozen layer followed by a residual adapter: down, relu, up."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.down, self.up = nn.Linear(WIDTH, RANK), nn.Linear(RANK, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.base(x)
        return x + self.up(self.down(x).relu())


def test_bottleneck_adapters() -> None:
    """The second one's gradient goes through its frozen layer to reach the first."""
    report = attnprof.run(nn.Sequential(Bottleneck(), Bottleneck()), (torch.randn(ROWS, WIDTH),), backward=True)
    found = matmul(report)
    assert found["0.base"] == phases(forward=UNIT)
    assert found["1.base"] == phases(forward=UNIT, backward=UNIT)
    assert found["0.down"] == phases(forward=LOW, backward=LOW)  # what the frozen base gives needs no gradient
    assert found["1.down"] == found["0.up"] == found["1.up"] == phases(forward=LOW, backward=2 * LOW)
