"""Custom ``autograd.Function``s: their products belong to the module that called them, forward and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product as every
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint

import attnprof
from training.counts import matmul, phases, product

ROWS, N_IN, N_OUT = 5, 3, 7
UNIT = product(ROWS, N_IN, N_OUT)


class Frugal(torch.autograd.Function):
    """x W with a ``setup_context``; computes only the gradients that are asked for."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        return gradient @ weight.T if needs_x else None, x.T @ gradient if needs_weight else None


class OnAttributes(torch.autograd.Function):
    """Keeps its operands as attributes, and computes both gradients whatever is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.x, ctx.weight = x, weight
        return x @ weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return gradient @ ctx.weight.T, ctx.x.T @ gradient


class Layer(nn.Module):
    """A product by a custom function."""

    def __init__(self, function: type[torch.autograd.Function], n_in: int = N_IN, n_out: int = N_OUT) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x, self.weight)


class Between(nn.Module):
    """A custom function's layer between two Linears."""

    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.first, self.custom, self.last = nn.Linear(N_IN, N_IN), Layer(function), nn.Linear(N_OUT, N_OUT)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.custom(self.first(x)))


def data(requires_grad: bool = False) -> Tensor:
    return torch.randn(ROWS, N_IN, requires_grad=requires_grad)


@pytest.mark.parametrize(("input_grad", "weight"), [t for t in every([False, True], repeat=2) if any(t)], ids=str)
@pytest.mark.parametrize("function", [Frugal, OnAttributes])
def test_what_is_asked_for(function: type[torch.autograd.Function], input_grad: bool, weight: bool) -> None:
    """One that does not ask does all the work of both gradients, and throws one away."""
    net = nn.Sequential(Layer(function))
    net.requires_grad_(weight)
    report = attnprof.run(net, (data(input_grad),), backward=True)
    back = input_grad + weight if function is Frugal else 2
    assert matmul(report) == {"0": phases(forward=UNIT, backward=back * UNIT)}


@pytest.mark.parametrize("fake", [False, True])
@pytest.mark.parametrize("function", [Frugal, OnAttributes])
def test_between_other_layers(function: type[torch.autograd.Function], fake: bool) -> None:
    report = attnprof.run(Between(function), (data(),), backward=True, fake=fake)
    first, last = product(ROWS, N_IN, N_IN), product(ROWS, N_OUT, N_OUT)
    assert matmul(report) == {
        "first": phases(forward=first, backward=first),
        "custom": phases(forward=UNIT, backward=2 * UNIT),
        "last": phases(forward=last, backward=2 * last),
    }


class InsideModules(torch.autograd.Function):
    """Its forward runs a module, without a graph; its backward is a product by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Linear) -> Tensor:
        ctx.layer = layer
        return layer(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient @ ctx.layer.weight, None


class Wrapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(N_IN, N_OUT)

    def forward(self, x: Tensor) -> Tensor:
        return InsideModules.apply(x, self.layer)


def test_a_module_inside_a_function() -> None:
    """The module ran the forward; the node is of whoever applied the function."""
    report = attnprof.run(Wrapping(), (data(requires_grad=True),), backward=True)
    assert matmul(report) == {"layer": phases(forward=UNIT), "": phases(backward=UNIT)}


class Pair(torch.autograd.Function):
    """x A and x B; a gradient that does not come is None, and then its products are left out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, a, b)
        ctx.set_materialize_grads(False)
        return x @ a, x @ b

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, to_a: Tensor | None, to_b: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, a, b = ctx.saved_tensors
        parts = [to @ w.T for to, w in ((to_a, a), (to_b, b)) if to is not None]
        return (
            sum(parts[1:], parts[0]),
            None if to_a is None else x.T @ to_a,
            None if to_b is None else x.T @ to_b,
        )


class TwoOutputs(nn.Module):
    def __init__(self, use_both: bool) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.randn(N_IN, N_OUT)) for _ in range(2))
        self.use_both = use_both

    def forward(self, x: Tensor) -> Tensor:
        y, z = Pair.apply(x, self.a, self.b)
        return y + z if self.use_both else y


@pytest.mark.parametrize("use_both", [True, False])
def test_outputs_that_are_not_used(use_both: bool) -> None:
    report = attnprof.run(TwoOutputs(use_both), (data(requires_grad=True),), backward=True)
    assert matmul(report) == {"": phases(forward=2 * UNIT, backward=(2 + 2 * use_both) * UNIT)}


class Reversal(torch.autograd.Function):
    """The gradient is negated on its way back: an adversarial branch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient.neg()


class Adversarial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.label, self.domain = nn.Linear(N_IN, N_OUT), nn.Linear(N_OUT, 2), nn.Linear(N_OUT, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(x)
        return self.label(x), self.domain(Reversal.apply(x))


def test_gradient_reversal() -> None:
    """One negation per element, and the sum of the two branches' gradients."""
    report = attnprof.run(Adversarial(), (data(),), backward=True)
    label, domain = product(ROWS, N_OUT, 2), product(ROWS, N_OUT, 4)
    assert matmul(report) == {
        "body": phases(forward=UNIT, backward=UNIT),
        "label": phases(forward=label, backward=2 * label),
        "domain": phases(forward=domain, backward=2 * domain),
    }
    assert report.by_operator("backward")["aten.neg.default"].vector_flops == ROWS * N_OUT


class StraightThrough(nn.Module):
    """Weights are rounded forward and left alone in the backward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(N_OUT, N_IN))

    def forward(self, x: Tensor) -> Tensor:
        rounded = self.weight + (self.weight.round() - self.weight).detach()
        return nn.functional.linear(x, rounded)


def test_a_straight_through_estimate() -> None:
    """Round, subtract, add: 3 per weight, forward only."""
    report = attnprof.run(StraightThrough(), (data(),), backward=True)
    assert matmul(report) == {"": phases(forward=UNIT, backward=UNIT)}
    assert report.phases["forward"].vector_flops == 3 * N_IN * N_OUT
    assert report.phases["backward"].vector_flops == 0


# With checkpoints, twice, and mapped


class Behind(nn.Module):
    """A Linear and a custom layer behind a checkpoint; the custom one is last."""

    def __init__(self, function: type[torch.autograd.Function], through: Callable[..., Any]) -> None:
        super().__init__()
        self.first, self.custom, self.through = nn.Linear(N_IN, N_IN), Layer(function), through

    def body(self, x: Tensor) -> Tensor:
        return self.custom(self.first(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.through(self.body, x)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_function_behind_a_checkpoint_runs_again(reentrant: bool) -> None:
    """Also under an early stop: what it saves is there only when it is done, while a Linear's is before."""
    net = Behind(Frugal, partial(checkpoint, use_reentrant=reentrant))
    report = attnprof.run(net, (data(requires_grad=True),), backward=True)
    first = product(ROWS, N_IN, N_IN)
    assert matmul(report) == {
        "first": phases(forward=first, backward=2 * first, recompute=first),
        "custom": phases(forward=UNIT, backward=2 * UNIT, recompute=UNIT),
    }


def test_a_function_that_saves_nothing_is_not_run_again() -> None:
    """What it keeps as attributes was kept in the first place: the checkpoint's hooks never see it."""
    net = Behind(OnAttributes, partial(checkpoint, use_reentrant=False))
    report = attnprof.run(net, (data(requires_grad=True),), backward=True)
    first = product(ROWS, N_IN, N_IN)
    # The Linear's saved input and weight are there before its own product, and the last to be asked for.
    assert matmul(report) == {
        "first": phases(forward=first, backward=2 * first),
        "custom": phases(forward=UNIT, backward=2 * UNIT),
    }


def test_twice_through_a_function() -> None:
    """x's gradient alone is taken, but a function is asked for all inputs that need one: 2.

    Back through x's, gradient @ W^T, 2. Then through the square and the forward's node, 2.
    """
    net, x = Layer(Frugal), data(requires_grad=True)
    with attnprof.profile(net) as prof:
        (slope,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        slope.sum().backward()
    assert matmul(prof.report()) == {"": phases(forward=UNIT, backward=(2 + 2 + 2) * UNIT)}


def test_functions_under_torch_func() -> None:
    """``grad`` of the parameters: the data needs no gradient."""
    net, x = Between(Frugal), data()
    p = {name: p.detach() for name, p in net.named_parameters()}
    with attnprof.profile(net) as prof:
        grad(lambda p: functional_call(net, p, (x,)).sum())(p)
    first, last = product(ROWS, N_IN, N_IN), product(ROWS, N_OUT, N_OUT)
    assert matmul(prof.report()) == {
        "first": phases(forward=first, backward=first),
        "custom": phases(forward=UNIT, backward=2 * UNIT),
        "last": phases(forward=last, backward=2 * last),
    }


def test_functions_per_sample() -> None:
    """vmap over rows: the same products as the batch."""
    net, x = Layer(Frugal), data()
    p = {name: p.detach() for name, p in net.named_parameters()}

    def loss(p: dict[str, Tensor], row: Tensor) -> Tensor:
        return functional_call(net, p, (row.unsqueeze(0),)).sum()

    with attnprof.profile(net) as prof:
        vmap(grad(loss), in_dims=(None, 0))(p, x)
    assert matmul(prof.report()) == {"": phases(forward=UNIT, backward=UNIT)}
