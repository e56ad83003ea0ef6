"""Loops that are not forward, backward, step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from training.counts import Counts, matmul, matmul_steps, phase_vector, phases, product, steps

ROWS, D = 5, 4
UNIT = product(ROWS, D, D)
PARAMETERS = D * D + D


def linear() -> nn.Linear:
    return nn.Linear(D, D)


def data(requires_grad: bool = False) -> Tensor:
    return torch.randn(ROWS, D, requires_grad=requires_grad)


def units(**parts: tuple[int, ...]) -> Counts:
    """(forward, backward, recompute) of modules whose products are all of one size."""
    names = ("forward", "backward", "recompute")
    return {
        name: phases(**{phase: n * UNIT for phase, n in zip(names, counts, strict=False)})
        for name, counts in parts.items()
    }


# More than one backward per step


def test_adversarial_examples() -> None:
    """Three steps on the input, for which only it has a gradient, then one on the weights."""
    net, attacks = nn.Sequential(linear(), nn.Tanh(), linear()), 3
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with attnprof.profile(net) as prof:
        noise = torch.zeros(ROWS, D)
        x = data()
        for _ in range(attacks):
            noise.requires_grad_()
            (slope,) = torch.autograd.grad(net(x + noise).square().sum(), noise)
            noise = (noise + 0.1 * slope.sign()).clamp(-0.3, 0.3).detach()
        net(x + noise).square().sum().backward()
        optimizer.step()
    assert matmul(prof.report()) == units(**{"0": (attacks + 1, attacks + 1), "2": (attacks + 1, attacks + 2)})


def test_adversarial_examples_by_accumulated_gradients() -> None:
    """The same with ``backward``: the weights' gradients are computed in each attack, for nothing."""
    net, attacks = nn.Sequential(linear(), nn.Tanh(), linear()), 3
    with attnprof.profile(net) as prof:
        noise = torch.zeros(ROWS, D)
        x = data()
        for _ in range(attacks):
            noise = noise.detach().requires_grad_()
            net(x + noise).square().sum().backward()
            noise = noise + 0.1 * noise.grad.sign()
        net.zero_grad()
        net(x + noise.detach()).square().sum().backward()
    assert matmul(prof.report()) == units(**{"0": (attacks + 1, 2 * attacks + 1), "2": (attacks + 1, 2 * attacks + 2)})


class Sharpness(torch.optim.Optimizer):
    """Climbs to a neighbour, takes the gradient there, comes back and steps with it."""

    def __init__(self, parameters: Any, rho: float) -> None:
        super().__init__(parameters, {})
        self.inner = torch.optim.SGD(self.param_groups[0]["params"], lr=0.1)
        self.rho = rho

    @torch.no_grad()
    def step(self, closure: Any) -> None:  # type: ignore[override]
        parameters = self.param_groups[0]["params"]
        factor = self.rho / torch.stack([p.grad.norm() for p in parameters]).norm()
        climbs = [p.grad * factor for p in parameters]
        torch._foreach_add_(parameters, climbs)
        with torch.enable_grad():
            closure()
        torch._foreach_sub_(parameters, climbs)
        self.inner.step()


def test_sharpness_aware_steps() -> None:
    """Two forwards and backwards. Inside the step: norms 2 each and theirs, the factor 2; a product, there and back,
    and the inner update 2.
    """
    net, x = nn.Sequential(linear(), nn.Tanh(), linear()), data()
    optimizer = Sharpness(net.parameters(), 0.05)

    def closure() -> Tensor:
        net.zero_grad()
        loss = net(x).sum()
        loss.backward()
        return loss

    with attnprof.profile(net) as prof:
        closure()
        optimizer.step(closure)
    report = prof.report()
    assert matmul(report) == units(**{"0": (2, 2), "2": (2, 4)})
    n, tensors = 2 * PARAMETERS, 4
    assert report.phases["optimizer"].vector_flops == 2 * n + 2 * tensors + 2 + n + n + n + 2 * n


class Curvature(torch.optim.Optimizer):
    """Divides by an estimate of the Hessian's diagonal, for which its step differentiates the gradients."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        parameters = self.param_groups[0]["params"]
        probes = [torch.ones_like(p) for p in parameters]
        products = torch.autograd.grad([p.grad for p in parameters], parameters, probes)
        with torch.no_grad():
            for p, product_, probe in zip(parameters, products, probes, strict=True):
                p.sub_(p.grad / (product_ * probe).abs().add(1.0))


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
def test_a_step_that_differentiates() -> None:
    """What goes back through the graph is the modules' backward; the rest of the step is the optimizer's.

    Back through the gradients of a square loss (see the Hessian-vector product): first 1 and 1, second 4 and 2.
    """
    net = nn.Sequential(nn.Linear(D, D, bias=False), nn.Tanh(), nn.Linear(D, D, bias=False))
    optimizer = Curvature(net.parameters(), {})
    with attnprof.profile(net) as prof:
        net(data()).square().sum().backward(create_graph=True)
        optimizer.step()
        for parameter in net.parameters():
            parameter.grad = None  # or graph and gradients keep each other alive
    report = prof.report()
    assert matmul(report) == units(**{"0": (1, 1 + 1 + 1), "2": (1, 2 + 4 + 2)})
    # a product, |.|, + 1, a quotient, a difference
    assert report.phases["optimizer"].vector_flops == 5 * 2 * D * D


# Profiles that begin and end anywhere


def test_a_step_may_end_between_forward_and_backward() -> None:
    net = nn.Sequential(linear(), linear())
    with attnprof.profile(net, recount_every=1) as prof:
        loss = net(data()).sum()
        prof.step()
        loss.backward()
        prof.step()
    assert matmul_steps(prof.report()) == [units(**{"0": (1,), "1": (1,)}), units(**{"0": (0, 1), "1": (0, 2)})]


def test_one_profile_entered_for_some_steps_only() -> None:
    """A forward of one entry may have its backward in the next; what ran between is not there."""
    net = nn.Sequential(linear(), linear())
    prof = attnprof.profile(net)
    with prof:
        loss = net(data()).sum()
    net(data()).sum().backward()
    with prof:
        loss.backward()
    assert matmul(prof.report()) == units(**{"0": (1, 1), "1": (1, 2)})


def test_validation_between_steps() -> None:
    """Without gradients, in eval mode: forward, and no more."""
    net = nn.Sequential(linear(), nn.Dropout(0.5), linear())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with attnprof.profile(net, recount_every=1) as prof:
        for _ in range(2):
            net.train()
            net(data()).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            prof.step()
            net.eval()
            with torch.inference_mode():
                net(data())
            prof.step()
    report = prof.report()
    training, validation = units(**{"0": (1, 1), "2": (1, 2)}), units(**{"0": (1,), "2": (1,)})
    assert matmul_steps(report) == [training, validation] * 2
    assert [phase_vector(step, "optimizer") for step in steps(report)] == [2 * 2 * PARAMETERS, 0] * 2


class Loop(nn.Module):
    """A training loop that is itself a module, with its optimizer and its loss."""

    def __init__(self, closure: bool) -> None:
        super().__init__()
        self.net, self.closure = nn.Sequential(linear(), linear()), closure
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9, foreach=False)

    def backward(self, x: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.net(x).sum()
        loss.backward()
        return loss

    def forward(self, x: Tensor) -> Tensor:
        if self.closure:
            loss = self.optimizer.step(lambda: self.backward(x))
        else:
            loss = self.backward(x)
            self.optimizer.step()
        return loss.detach() * 2


@pytest.mark.parametrize("closure", [False, True])
def test_a_loop_that_is_a_module(closure: bool) -> None:
    """Its steps are the optimizer's, although it is running; the loss and what follows are its own."""
    loop = Loop(closure)
    with attnprof.profile(loop, recount_every=1) as prof:
        for _ in range(2):
            loop(data())
            prof.step()
    report = prof.report()
    assert matmul_steps(report) == [units(**{"net.0": (1, 1), "net.1": (1, 2)})] * 2
    first, second = steps(report)
    n = 2 * PARAMETERS
    assert (phase_vector(first, "optimizer_init"), phase_vector(first, "optimizer")) == (2 * n, 0)
    assert (phase_vector(second, "optimizer_init"), phase_vector(second, "optimizer")) == (0, 4 * n)
    for step in (first, second):
        assert step["", "forward"].vector_flops == ROWS * D - 1 + 1  # the sum, and twice the loss
        assert phase_vector(step, "other") == 0
