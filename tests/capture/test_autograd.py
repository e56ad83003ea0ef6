"""Attribution under every way to differentiate: twice, inside a forward, per sample, forward mode, by hand."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, ClassVar

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap

import attnprof
from capture.nets import ROWS, UNIT, WIDTH, Chain, Custom, Expected, Net, Product, both, linear, rows, units


def counted(model: nn.Module | None, step: Callable[[], Any]) -> dict[str, dict[str, Fraction]]:
    with attnprof.profile(model) as prof:
        step()
    return units(prof.report())


def test_gradient_of_the_input_alone() -> None:
    """No weight gradient is asked for: each Linear passes the gradient on, 1 product each."""
    net, x = Chain(), rows()
    found = counted(net, lambda: torch.autograd.grad(net(x).sum(), x))
    assert found == {"first": both(1, 1), "second": both(1, 1)}


def test_gradient_of_one_weight_alone() -> None:
    """The second weight's gradient needs nothing of the first Linear."""
    net, x = Chain(), rows()
    found = counted(net, lambda: torch.autograd.grad(net(x).sum(), net.second.weight))
    assert found == {"first": both(1, 0), "second": both(1, 1)}


def test_two_backwards_through_one_graph() -> None:
    net = Chain()

    def step() -> None:
        loss = net(rows()).sum()
        loss.backward(retain_graph=True)
        loss.backward()

    assert counted(net, step) == {"first": both(1, 4), "second": both(1, 4)}


def test_two_roots_in_one_backward() -> None:
    """Both outputs meet in the shared first Linear, which is differentiated once."""
    net = Chain()

    def step() -> None:
        hidden = net.first(rows())
        torch.autograd.backward([net.second(hidden).sum(), hidden.sum()])

    assert counted(net, step) == {"first": both(1, 2), "second": both(1, 2)}


def test_backward_per_module_output() -> None:
    """A backward for each row of the output, in one call: ROWS x the batched products."""
    net, x = Chain(), rows()
    basis = torch.eye(ROWS).unsqueeze(-1).expand(ROWS, ROWS, WIDTH)
    found = counted(net, lambda: torch.autograd.grad(net(x), x, basis, is_grads_batched=True))
    assert found == {"first": both(1, ROWS), "second": both(1, ROWS)}


def test_gradient_penalty() -> None:
    """Backward through the gradient of x; what autograd makes in a backward belongs to the module of its node.

    The first pass gives x's gradient: 1 product per Linear. The second goes back through those products
    (first: both operands, 2; second: its weight, 1) and on through tanh to the first Linear (2 more).
    """
    net, x = Chain(), rows()

    def step() -> None:
        (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        slope.square().sum().backward()

    assert counted(net, step) == {"first": both(1, 1 + 2 + 2), "second": both(1, 1 + 1)}


def test_backward_with_create_graph_alone() -> None:
    net = Chain()
    found = counted(net, lambda: net(rows()).sum().backward(create_graph=True))
    assert found == {"first": both(1, 2), "second": both(1, 2)}


class Energy(Net):
    """Forces: the gradient of an energy, taken inside the forward."""

    expected: ClassVar[Expected] = {"net.first": both(1, 1 + 2 + 2), "net.second": both(1, 1 + 1)}

    def __init__(self) -> None:
        super().__init__()
        self.net = Chain()

    def forward(self, x: Tensor) -> Tensor:
        (force,) = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
        return force

    def step(self) -> None:
        self(rows()).square().sum().backward()


def test_gradient_inside_a_forward() -> None:
    """It is backward although modules are running; the same as the gradient penalty."""
    net = Energy()
    assert counted(net, net.step) == net.expected


class EnergyAndMore(Energy):
    """A product of the parent's after the gradient; its nodes are the parent's, not the last one's of the backward."""

    expected: ClassVar[Expected] = {**Energy.expected, "": both(1, 2)}

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) @ self.own


def test_a_product_after_a_gradient_inside_a_forward() -> None:
    net = EnergyAndMore()
    assert counted(net, net.step) == net.expected


def test_a_product_after_a_gradient_outside() -> None:
    """The same in a training loop: the penalty's loss is nobody's."""
    net, x, matrix = Chain(), rows(), torch.randn(WIDTH, WIDTH)

    def step() -> None:
        (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        (slope @ matrix).square().sum().backward()

    assert counted(net, step) == {"first": both(1, 1 + 2 + 2), "second": both(1, 1 + 1), "(outside)": both(1, 1)}


class Unrolled(Net):
    """A gradient step on the hidden state, inside the forward, without a graph; then one more product."""

    expected: ClassVar[Expected] = {"energy": both(1, 1), "out": both(1, 2)}

    def __init__(self) -> None:
        super().__init__()
        self.energy, self.out = linear(), linear()

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            state = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.energy(state).square().sum(), state)
        return self.out(x - slope)


def test_ops_after_a_gradient_inside_a_forward_are_forward_again() -> None:
    net = Unrolled()
    assert counted(net, net.step) == net.expected


def test_double_backward_of_a_custom_function() -> None:
    """Its backward is made of two products; both have a backward of 2, as the node's own module."""
    net, x = Custom(), rows()

    def step() -> None:
        (slope,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        slope.sum().backward()

    # Forward 1. First backward: both gradients, 2. Second: back through grad @ weight.T, 2 (the product for
    # the weight's gradient is not used by slope), and on through square and the forward node: 2.
    assert counted(net, step) == {"": both(1, 2 + 2 + 2)}


def test_a_custom_function_first_in_a_backward_that_builds_a_graph() -> None:
    """Its node runs with grad mode on before any other shows that all of this backward does."""
    net = nn.Sequential(linear(), Custom())

    def step() -> None:
        y = net(rows())
        y.backward(torch.ones_like(y), create_graph=True)

    assert counted(net, step) == {"0": both(1, 2), "1": both(1, 2)}


class OnceProduct(Product):
    """Its backward runs without grad mode, whatever the backward around it does."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        return gradient @ weight.T, x.T @ gradient


def test_a_once_differentiable_function_first_in_a_backward_that_builds_a_graph() -> None:
    """That grad mode is off in it says nothing of the nodes after it."""
    net, weight = linear(), torch.randn(WIDTH, WIDTH, requires_grad=True)

    def step() -> None:
        y = OnceProduct.apply(net(rows()), weight)
        y.backward(torch.ones_like(y), create_graph=True)

    assert counted(net, step) == {"": both(1, 2), "(outside)": both(1, 2)}


def test_hessian_vector_product_by_double_backward() -> None:
    """Linear-tanh-Linear in x: the first gradient 1 + 1, the second 1 + 0 through it and 1 through the forward."""
    net, x = Chain().requires_grad_(False), rows()

    def step() -> None:
        (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        torch.autograd.grad((slope * torch.randn_like(slope)).sum(), x)

    # Weights are frozen: slope = (1 W2 * tanh'(x W1)) W1; its gradient passes W1 twice.
    assert counted(net, step) == {"first": both(1, 1 + 2), "second": both(1, 1)}


def test_anomaly_mode_changes_nothing() -> None:
    net = Chain()

    def step() -> None:
        with torch.autograd.set_detect_anomaly(True, check_nan=False):
            net.step()

    assert counted(net, step) == net.expected


def test_saved_tensors_on_the_cpu() -> None:
    net = Chain()

    def step() -> None:
        with torch.autograd.graph.save_on_cpu():
            net.step()

    assert counted(net, step) == net.expected


# torch.func


def parameters(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in net.named_parameters()}


def test_functional_call() -> None:
    net = Chain()
    fresh = {name: p.requires_grad_() for name, p in parameters(net).items()}
    assert counted(net, lambda: functional_call(net, fresh, (rows(),)).sum().backward()) == net.expected


def test_func_grad_of_the_parameters() -> None:
    """The input needs no gradient: 1 product back for the first Linear, 2 for the second."""
    net, x = Chain(), rows(requires_grad=False)
    found = counted(net, lambda: grad(lambda p: functional_call(net, p, (x,)).sum())(parameters(net)))
    assert found == {"first": both(1, 1), "second": both(1, 2)}


def test_per_sample_gradients() -> None:
    """vmap over the rows: the same products as the batch, weight gradients as one outer product per row."""
    net, x = Chain(), rows(requires_grad=False)

    def loss(p: dict[str, Tensor], row: Tensor) -> Tensor:
        return functional_call(net, p, (row.unsqueeze(0),)).sum()

    found = counted(net, lambda: vmap(grad(loss), in_dims=(None, 0))(parameters(net), x))
    assert found == {"first": both(1, 1), "second": both(1, 2)}


def test_vmap_alone() -> None:
    net, x = Chain(), rows(requires_grad=False)
    assert counted(net, lambda: vmap(net)(x)) == {"first": both(1, 0), "second": both(1, 0)}


def test_ensemble_by_vmap_over_parameters() -> None:
    net, x, models = Chain(), rows(requires_grad=False), 3
    stacked = {name: torch.stack([p] * models) for name, p in parameters(net).items()}
    found = counted(net, lambda: vmap(lambda p: functional_call(net, p, (x,)))(stacked))
    assert found == {"first": both(models, 0), "second": both(models, 0)}


def test_vjp() -> None:
    """Back to the input only."""
    net, x = Chain(), rows(requires_grad=False)

    def step() -> None:
        y, back = vjp(net, x)
        back(torch.ones_like(y))

    assert counted(net, step) == {"first": both(1, 1), "second": both(1, 1)}


def test_jvp_of_the_input() -> None:
    """A tangent is forward work: x W, x' W and, as torch runs it, x W' with the zero tangent of the weight."""
    net, x = Chain(), rows(requires_grad=False)
    found = counted(net, lambda: jvp(net, (x,), (torch.ones_like(x),)))
    assert found == {"first": both(3, 0), "second": both(3, 0)}


def test_jvp_of_the_input_and_the_parameters() -> None:
    """x W, x' W and x W'."""
    net, x, p = Chain(), rows(requires_grad=False), parameters(Chain())

    def call(x: Tensor, p: dict[str, Tensor]) -> Tensor:
        return functional_call(net, p, (x,))

    found = counted(net, lambda: jvp(call, (x, p), (torch.ones_like(x), p)))
    assert found == {"first": both(3, 0), "second": both(3, 0)}


def test_forward_mode_dual_numbers() -> None:
    net, x = Chain(), rows(requires_grad=False)

    def step() -> None:
        with forward_ad.dual_level(), torch.no_grad():
            forward_ad.unpack_dual(net(forward_ad.make_dual(x, torch.ones_like(x))))

    assert counted(net, step) == {"first": both(3, 0), "second": both(3, 0)}


def test_jacobian_in_reverse_mode() -> None:
    """One row in, WIDTH gradients back, all at once: [WIDTH, WIDTH] x [WIDTH, WIDTH] per Linear."""
    net, x = Chain(), rows(requires_grad=False)[:1]
    found = counted(net, lambda: jacrev(net)(x))
    # UNIT has ROWS rows: the forward of one row is 1 / ROWS, the backward of WIDTH rows WIDTH / ROWS.
    count = both(Fraction(1, ROWS), Fraction(WIDTH, ROWS))
    assert found == {"first": count, "second": count}


@pytest.mark.parametrize(
    ("strategy", "products"),
    [
        ("reverse-mode", 1 + WIDTH),  # the forward of one row, and WIDTH gradients back
        ("forward-mode", 1 + WIDTH + 1),  # WIDTH tangents x' W, and x W' with the weight's zero tangent
    ],
)
def test_functional_jacobian_totals(strategy: str, products: int) -> None:
    """torch.autograd.functional: the same Jacobian, by backward or by tangents that are forward work."""
    net, x = Chain(), rows(requires_grad=False)[:1]
    with attnprof.profile(net) as prof:
        torch.autograd.functional.jacobian(net, x, vectorize=True, strategy=strategy)
    assert prof.report().total.matmul_flops == 2 * products * (UNIT // ROWS)
