"""Gradients of gradients: penalties, Hessian-vector products, gradients through updates.

The net is Linear, tanh, Linear. A gradient that is itself differentiated is made of products; each has up to two
operands that need a gradient, and going back through it costs one product for each. Then the backward goes on
through the forward's own nodes. Every product of a Linear, forward or back, has the size of its forward.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp

import attnprof
from training.counts import Counts, matmul, phases, product

ROWS, D, HIDDEN, OUT = 5, 3, 7, 2
FIRST, SECOND = product(ROWS, D, HIDDEN), product(ROWS, HIDDEN, OUT)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(D, HIDDEN), nn.Linear(HIDDEN, OUT)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


def data(requires_grad: bool = False) -> Tensor:
    return torch.randn(ROWS, D, requires_grad=requires_grad)


def counts(first: tuple[int, int], second: tuple[int, int]) -> Counts:
    """(forward, backward) of each Linear in products of its own."""
    return {
        "first": phases(forward=first[0] * FIRST, backward=first[1] * FIRST),
        "second": phases(forward=second[0] * SECOND, backward=second[1] * SECOND),
    }


# Penalties on the gradient of the input


def test_a_penalty_added_to_the_loss() -> None:
    """One forward for both.

    x's gradient: second 1, first 1. Back through it: its factor W2 1; both factors of the first, 2. Back through the
    forward, for the loss and tanh's part of the penalty together: second 2, first 2, as x needs a gradient.
    """
    net, x = Net(), data(requires_grad=True)
    with attnprof.profile(net) as prof:
        y = net(x)
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        (y.square().mean() + slope.square().sum()).backward()
    assert matmul(prof.report()) == counts((1, 1 + 2 + 2), (1, 1 + 1 + 2))


def test_a_critic_with_a_penalty_between_real_and_fake() -> None:
    """Real and fake samples: three forwards with the one in between, whose output is in the loss only by its slope.

    The samples: first dW, second dW and dX, twice. The penalty: as above, less second's 2 of the loss.
    """
    net, real, fake = Net(), data(), data()
    with attnprof.profile(net) as prof:
        between = (0.3 * real + 0.7 * fake).requires_grad_()
        (slope,) = torch.autograd.grad(net(between).sum(), between, create_graph=True)
        penalty = (slope.norm(dim=1) - 1).square().mean()
        (net(fake).mean() - net(real).mean() + 10 * penalty).backward()
    assert matmul(prof.report()) == counts((3, 2 * 1 + (1 + 2 + 2)), (3, 2 * 2 + (1 + 1)))


def test_a_penalty_without_second_order() -> None:
    """The slope is a constant: the loss's backward is an ordinary one."""
    net, x = Net(), data(requires_grad=True)
    with attnprof.profile(net) as prof:
        y = net(x)
        (slope,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
        (y.square().mean() + slope.square().sum()).backward()
    assert matmul(prof.report()) == counts((1, 1 + 2), (1, 1 + 2))


def test_a_penalty_through_frozen_weights() -> None:
    """Only the input is trained: no weight's gradient in either pass."""
    net, x = Net().requires_grad_(False), data(requires_grad=True)
    with attnprof.profile(net) as prof:
        (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        slope.square().sum().backward()
    # slope = (1 W2 * tanh') W1: back through W1, to tanh', and on through the forward's first.
    assert matmul(prof.report()) == counts((1, 1 + 1 + 1), (1, 1))


# Hessian-vector products in the parameters


def test_hessian_vector_product() -> None:
    """The gradient: second dW and dX, first dW. Back through it, as the loss is square and the output's gradient
    depends on the weights: second, two products of two such factors each, 4; first, one factor (x is data), 1. Back
    through the forward: second 2, first 1.
    """
    net, x = Net(), data()
    parameters = list(net.parameters())
    with attnprof.profile(net) as prof:
        gradients = torch.autograd.grad(net(x).square().mean(), parameters, create_graph=True)
        torch.autograd.grad(gradients, parameters, [torch.ones_like(g) for g in gradients])
    assert matmul(prof.report()) == counts((1, 1 + 1 + 1), (1, 2 + 4 + 2))


def test_hessian_vector_product_of_a_linear_loss() -> None:
    """The output's gradient is a constant: one factor less in both of second's, and nothing goes back from there."""
    net, x = Net(), data()
    parameters = [net.first.weight, net.second.weight]
    with attnprof.profile(net) as prof:
        gradients = torch.autograd.grad(net(x).sum(), parameters, create_graph=True)
        torch.autograd.grad(gradients, parameters, [torch.ones_like(g) for g in gradients])
    assert matmul(prof.report()) == counts((1, 1 + 1 + 1), (1, 2 + 2))


def parameters_of(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in net.named_parameters()}


def test_hessian_vector_product_by_reverse_over_reverse_of_functions() -> None:
    """``vjp`` of ``grad``: the same products as with autograd's own functions."""
    net, x = Net(), data()
    p = parameters_of(net)

    def loss(p: dict[str, Tensor]) -> Tensor:
        return functional_call(net, p, (x,)).square().mean()

    with attnprof.profile(net) as prof:
        gradients, back = vjp(grad(loss), p)
        back({name: torch.ones_like(g) for name, g in gradients.items()})
    assert matmul(prof.report()) == counts((1, 1 + 1 + 1), (1, 2 + 4 + 2))


def test_hessian_vector_product_by_forward_over_reverse() -> None:
    """``jvp`` of ``grad``: each product is accompanied by its tangents, one per factor that has one.

    Forward: x W, x W' and x' W, with a tangent of zeros that torch makes for the data. Backward: so have first's dW
    = g^T x, and second's dW and dX.
    """
    net, x = Net(), data()
    p = parameters_of(net)

    def loss(p: dict[str, Tensor]) -> Tensor:
        return functional_call(net, p, (x,)).square().mean()

    with attnprof.profile(net) as prof:
        jvp(grad(loss), (p,), (p,))
    assert matmul(prof.report()) == counts((3, 3), (3, 3 + 3))


# Through an update of the weights


class Affine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(D, OUT))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


UNIT = product(ROWS, D, OUT)


def adapt_and_learn(net: Affine, inner: int, second_order: bool) -> None:
    """Inner steps of gradient descent on one task's data, then the gradient of the loss after them."""
    fast: dict[str, Any] = dict(net.named_parameters())
    for _ in range(inner):
        loss = functional_call(net, fast, (data(),)).square().mean()
        (slope,) = torch.autograd.grad(loss, fast["weight"], create_graph=second_order)
        fast = {"weight": fast["weight"] - 0.1 * slope}
    functional_call(net, fast, (data(),)).square().mean().backward()


@pytest.mark.parametrize("inner", [1, 2, 4])
def test_gradients_through_inner_steps(inner: int) -> None:
    """Each inner step: forward 1 and dW 1; going back through that dW = x^T g costs 1, for g, and the forward that g
    came from 1. The outer loss: forward 1, dW 1.
    """
    net = Affine()
    with attnprof.profile(net) as prof:
        adapt_and_learn(net, inner, second_order=True)
    assert matmul(prof.report()) == {"": phases(forward=(inner + 1) * UNIT, backward=(inner + 1 + 2 * inner) * UNIT)}


@pytest.mark.parametrize("inner", [1, 4])
def test_first_order_inner_steps(inner: int) -> None:
    net = Affine()
    with attnprof.profile(net) as prof:
        adapt_and_learn(net, inner, second_order=False)
    assert matmul(prof.report()) == {"": phases(forward=(inner + 1) * UNIT, backward=(inner + 1) * UNIT)}


def test_a_functional_call_of_one_part() -> None:
    """Other weights for the second Linear alone; the gradient of both goes where their module is."""
    net, x = Net(), data()
    other = torch.randn(OUT, HIDDEN, requires_grad=True)
    with attnprof.profile(net) as prof:
        functional_call(net, {"second.weight": other}, (x,)).sum().backward()
    assert matmul(prof.report()) == counts((1, 1), (1, 2))
    assert other.grad is not None
    assert net.second.weight.grad is None
