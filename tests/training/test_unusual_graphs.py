"""Graphs that are cut, rebuilt, solved for or stacked: not one forward and its backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import attnprof
from training.counts import Counts, matmul, matmul_steps, phases, product

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


# Graphs cut in time


def test_backpropagation_through_truncated_time() -> None:
    """A cell has two weights. In a chunk of two steps: forward 4; back 4 dW and, once, dX of the state between."""
    cell, chunks = nn.RNNCell(D, D), 3
    with attnprof.profile(cell, recount_every=1) as prof:
        state = torch.zeros(ROWS, D)
        for _ in range(chunks):
            state = state.detach()
            for _ in range(2):
                state = cell(data(), state)
            state.sum().backward()
            prof.step()
    assert matmul_steps(prof.report()) == [{"": phases(forward=4 * UNIT, backward=(4 + 1) * UNIT)}] * chunks


def test_backpropagation_through_all_time() -> None:
    cell, length = nn.RNNCell(D, D), 6
    with attnprof.profile(cell) as prof:
        state = torch.zeros(ROWS, D)
        for _ in range(length):
            state = cell(data(), state)
        state.sum().backward()
    back = 2 * length + (length - 1)
    assert matmul(prof.report()) == {"": phases(forward=2 * length * UNIT, backward=back * UNIT)}


# Activations rebuilt or never kept


class Coupled(torch.autograd.Function):
    """y = a + F(b), z = b + G(y): its inputs are rebuilt from its outputs in the backward."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, f: nn.Module, g: nn.Module, *parameters: Tensor) -> Any:
        ctx.f, ctx.g = f, g
        with torch.no_grad():
            y = a + f(b)
            z = b + g(y)
        ctx.save_for_backward(y, z)
        return y, z

    @staticmethod
    def backward(ctx: Any, to_y: Tensor, to_z: Tensor) -> Any:  # type: ignore[override]
        y, z = ctx.saved_tensors
        made_g, in_y, of_g = Coupled.again(ctx.g, y, to_z)
        to_a = to_y + in_y
        _, in_b, of_f = Coupled.again(ctx.f, z - made_g, to_a)
        return to_a, to_z + in_b, None, None, *of_f, *of_g

    @staticmethod
    def again(module: nn.Module, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The module's output for ``x`` once more, and the gradients of ``x`` and of its parameters."""
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            y = module(x)
        in_x, *of_parameters = torch.autograd.grad(y, [x, *module.parameters()], gradient)
        return y.detach(), in_x, of_parameters


class Reversible(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = linear(), linear()

    def forward(self, x: Tensor) -> Tensor:
        parameters = (*self.f.parameters(), *self.g.parameters())
        y, z = Coupled.apply(x, x.flip(0), self.f, self.g, *parameters)
        return y + z


def test_reversible_blocks() -> None:
    """Each half runs again, once, both to rebuild an input and to be differentiated."""
    report = attnprof.run(Reversible(), (data(requires_grad=True),), backward=True)
    assert matmul(report) == units(f=(1, 2, 1), g=(1, 2, 1))


class Equilibrium(nn.Module):
    """A fixed point z = tanh(W z + x), found without a graph; its gradient is another fixed point, found in a hook."""

    def __init__(self, steps: int, steps_back: int) -> None:
        super().__init__()
        self.cell, self.steps, self.steps_back = linear(), steps, steps_back

    def advance(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.cell(z) + x)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            z = torch.zeros_like(x)
            for _ in range(self.steps):
                z = self.advance(z, x)
        z = self.advance(z, x)
        fixed = z.detach().requires_grad_()
        again = self.advance(fixed, x)

        def solve(gradient: Tensor) -> Tensor:
            y = gradient
            for _ in range(self.steps_back):
                y = torch.autograd.grad(again, fixed, y, retain_graph=True)[0] + gradient
            return y

        z.register_hook(solve)
        return z


def test_equilibrium_models() -> None:
    """Backward: a dX for each step of the hook, which is backward although it is a graph task of its own; one dW."""
    steps_forward, steps_back = 3, 6
    report = attnprof.run(Equilibrium(steps_forward, steps_back), (data(),), backward=True)
    assert matmul(report) == units(cell=(steps_forward + 2, steps_back + 1))


# Several models in one


def test_an_ensemble_trained_at_once() -> None:
    """vmap over stacked parameters: every member's products, batched, in the module that stands for all."""
    members, hidden = 3, 6
    nets = [nn.Sequential(nn.Linear(D, hidden), nn.Tanh(), nn.Linear(hidden, D)) for _ in range(members)]
    parameters, buffers = stack_module_state(nets)
    base, x = nets[0], data()
    optimizer = torch.optim.SGD(list(parameters.values()), lr=0.1)

    def member(p: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
        return functional_call(base, (p, b), (x,))

    with attnprof.profile(base) as prof:
        vmap(member)(parameters, buffers).sum().backward()
        optimizer.step()
    report = prof.report()
    one = members * product(ROWS, D, hidden)
    assert matmul(report) == {"0": phases(forward=one, backward=one), "2": phases(forward=one, backward=2 * one)}
    elements = members * (D * hidden + hidden + hidden * D + D)
    assert report.phases["optimizer"].vector_flops == 2 * elements


class Momentum(nn.Module):
    """A key encoder that follows the query encoder, moved on in the forward itself."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = linear(), linear().requires_grad_(False)
        self.register_buffer("queue", torch.randn(D, 11))

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x)
        with torch.no_grad():
            for slow, fast in zip(self.key.parameters(), self.query.parameters(), strict=True):
                slow.mul_(0.99).add_(fast, alpha=0.01)
            k = self.key(x)
        return torch.cat([(q * k).sum(-1, keepdim=True), q @ self.queue], dim=1)


def test_an_average_moved_on_in_the_forward_is_forward() -> None:
    """It is the model's own: 3 per element, beside the products with the other view and with the queue."""
    report = attnprof.run(Momentum(), (data(),), backward=True)
    queue = product(ROWS, D, 11)
    assert matmul(report) == {**units(query=(1, 1), key=(1, 0)), "": phases(forward=queue, backward=queue)}
    own = report.by_module("forward", inclusive=False)[""].vector_flops
    assert own == 3 * PARAMETERS + ROWS * D + ROWS * (D - 1)
