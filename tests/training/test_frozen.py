"""Frozen parameters: no gradient is computed for them, and none for what lies below all that is trained."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from itertools import product as every

import pytest
import torch
from torch import Tensor, nn

import attnprof
from training.counts import Counts, matmul, matmul_steps, phases, product

ROWS = 5
WIDTHS = (3, 7, 11, 2)  # of the input and after each of three Linears
NAMES = ("0", "2", "4")
SIZES = tuple(pairwise(WIDTHS))  # in and out of each Linear


def stack() -> nn.Sequential:
    """Three Linears with tanh between."""
    first, second, third = (nn.Linear(n_in, n_out) for n_in, n_out in SIZES)
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), third)


def linears(net: nn.Sequential) -> list[nn.Linear]:
    return [layer for layer in net if isinstance(layer, nn.Linear)]


def expected(weights: Iterable[bool], reached: Iterable[bool]) -> Counts:
    """A Linear's forward is one product; dW is another if its weight is trained, dX if its input needs a gradient."""
    found: Counts = {}
    for name, (n_in, n_out), weight, input_grad in zip(NAMES, SIZES, weights, reached, strict=True):
        one = product(ROWS, n_in, n_out)
        found[name] = phases(forward=one, backward=(weight + input_grad) * one)
    return found


@pytest.mark.parametrize("input_grad", [False, True])
@pytest.mark.parametrize("trained", [t for t in every([False, True], repeat=3) if any(t)], ids=str)
def test_any_subset(trained: tuple[bool, bool, bool], input_grad: bool) -> None:
    """A Linear passes a gradient on to its input if that needs one, or any layer below is trained."""
    net = stack()
    for layer, train in zip(linears(net), trained, strict=True):
        layer.requires_grad_(train)
    report = attnprof.run(net, (torch.randn(ROWS, WIDTHS[0], requires_grad=input_grad),), backward=True)
    reached = [input_grad or any(trained[:i]) for i in range(3)]
    assert matmul(report) == expected(trained, reached)


def test_a_gradient_for_the_input_alone() -> None:
    net = stack().requires_grad_(False)
    report = attnprof.run(net, (torch.randn(ROWS, WIDTHS[0], requires_grad=True),), backward=True)
    assert matmul(report) == expected([False] * 3, [True] * 3)


def test_biases_alone() -> None:
    """BitFit: no dW anywhere, but dX of all Linears above the first bias; a bias's gradient sums its rows."""
    net = stack()
    for layer in linears(net):
        layer.weight.requires_grad_(False)
    report = attnprof.run(net, (torch.randn(ROWS, WIDTHS[0]),), backward=True)
    assert matmul(report) == expected([False] * 3, [False, True, True])
    for name, n_out in zip(NAMES, WIDTHS[1:], strict=True):
        assert report.by_module("backward")[name].vector_flops == (ROWS - 1) * n_out


def test_weights_alone() -> None:
    net = stack()
    for layer in linears(net):
        layer.bias.requires_grad_(False)
    report = attnprof.run(net, (torch.randn(ROWS, WIDTHS[0]),), backward=True)
    assert matmul(report) == expected([True] * 3, [False, True, True])
    assert all(report.by_module("backward")[name].vector_flops == 0 for name in NAMES)


VOCABULARY, TOKENS, WIDTH = 13, 6, 4


@pytest.mark.parametrize("trained", [True, False])
def test_embeddings(trained: bool) -> None:
    """A trained table adds up its rows' gradients and asks the layer above for them; a frozen one does neither."""
    net = nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False))
    net[0].requires_grad_(trained)
    report = attnprof.run(net, (torch.randint(VOCABULARY, (TOKENS,)),), backward=True)
    one = product(TOKENS, WIDTH, VOCABULARY)
    assert matmul(report) == {"1": phases(forward=one, backward=(1 + trained) * one)}
    assert report.by_module("backward")["0"].vector_flops == trained * TOKENS * WIDTH


@pytest.mark.parametrize("trained", [True, False])
def test_tied_embeddings(trained: bool) -> None:
    """One table for both ends; frozen, nothing in the model can be trained but the Linear between."""
    net = nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, VOCABULARY, False))
    net[2].weight = net[0].weight
    net[0].requires_grad_(trained)
    report = attnprof.run(net, (torch.randint(VOCABULARY, (TOKENS,)),), backward=True)
    middle, head = product(TOKENS, WIDTH, WIDTH), product(TOKENS, WIDTH, VOCABULARY)
    assert matmul(report) == {
        "1": phases(forward=middle, backward=(1 + trained) * middle),
        "2": phases(forward=head, backward=(1 + trained) * head),
    }
    # The table's two gradients are added where they meet: once per element.
    gather = TOKENS * WIDTH + VOCABULARY * WIDTH if trained else 0
    outside = report.by_module("backward")
    assert outside["0"].vector_flops + outside["2"].vector_flops == gather


@pytest.mark.parametrize(
    ("weight", "bias", "input_grad"), [t for t in every([False, True], repeat=3) if any(t)], ids=str
)
def test_layer_norms(weight: bool, bias: bool, input_grad: bool) -> None:
    """x̂ (2 each) for dX or dW; dX 7 and the weight 1 each; dW multiplies and sums rows, db sums them."""
    rows, width = 5, 4
    norm = nn.LayerNorm(width)
    norm.weight.requires_grad_(weight)
    norm.bias.requires_grad_(bias)
    report = attnprof.run(norm, (torch.randn(rows, width, requires_grad=input_grad),), backward=True)
    n = rows * width
    centred = 2 * n * (input_grad or weight)
    gradients = (7 + 1) * n * input_grad + (2 * rows - 1) * width * weight + (rows - 1) * width * bias
    assert report.phases["backward"].vector_flops == centred + gradients


@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("input_grad", [True, False])
def test_convolutions(weight: bool, input_grad: bool) -> None:
    """dW and dX each take every multiply-add of the forward; a trained bias is a sum."""
    net = nn.Conv2d(3, 5, kernel_size=3, padding=1)
    net.weight.requires_grad_(weight)
    report = attnprof.run(net, (torch.randn(2, 3, 6, 7, requires_grad=input_grad),), backward=True)
    outputs, taps = 2 * 5 * 6 * 7, 3 * 3 * 3
    one = 2 * outputs * taps
    assert matmul(report) == {"": phases(forward=one, backward=(weight + input_grad) * one)}


class Head(nn.Module):
    """A backbone that is not trained, and a head that is."""

    def __init__(self, no_grad: bool) -> None:
        super().__init__()
        self.backbone, self.head = stack(), nn.Linear(WIDTHS[-1], 3)
        self.no_grad = no_grad
        if not no_grad:
            self.backbone.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(not self.no_grad):
            features = self.backbone(x)
        return self.head(features)


@pytest.mark.parametrize("no_grad", [True, False])
def test_a_backbone_under_no_grad_or_frozen(no_grad: bool) -> None:
    """Forward only; the head's input needs no gradient."""
    report = attnprof.run(Head(no_grad), (torch.randn(ROWS, WIDTHS[0]),), backward=True)
    one = product(ROWS, WIDTHS[-1], 3)
    backbone = {f"backbone.{name}": counts for name, counts in expected([False] * 3, [False] * 3).items()}
    assert matmul(report) == {**backbone, "head": phases(forward=one, backward=one)}


def test_an_optimizer_leaves_frozen_parameters_alone() -> None:
    """It was given all of them; those without a gradient cost nothing. p -= lr g: 2 each."""
    net = stack()
    net[0].requires_grad_(False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with attnprof.profile(net) as prof:
        net(torch.randn(ROWS, WIDTHS[0])).sum().backward()
        optimizer.step()
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert prof.report().phases["optimizer"].vector_flops == 2 * trained


def test_gradual_unfreezing() -> None:
    """From the head down, one layer more in each step of one profile."""
    net = stack().requires_grad_(False)
    with attnprof.profile(net, recount_every=1) as prof:
        for layer in reversed(linears(net)):
            layer.requires_grad_(True)
            net(torch.randn(ROWS, WIDTHS[0])).sum().backward()
            net.zero_grad()
            prof.step()
    assert matmul_steps(prof.report()) == [
        expected([False, False, True], [False, False, False]),
        expected([False, True, True], [False, False, True]),
        expected([True, True, True], [False, True, True]),
    ]


def test_freezing_between_forward_and_backward_spares_nothing() -> None:
    """The graph was built with the weight in it: its product runs, and the gradient is stored."""
    net = stack()
    with attnprof.profile(net) as prof:
        loss = net(torch.randn(ROWS, WIDTHS[0])).sum()
        net[2].requires_grad_(False)
        loss.backward()
    assert matmul(prof.report()) == expected([True] * 3, [False, True, True])


class Prompted(nn.Module):
    """Trained vectors put before the input of a frozen layer stack."""

    def __init__(self, prompts: int) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.randn(prompts, WIDTHS[0]))
        self.body = stack().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(torch.cat([self.prompt, x]))


def test_prompt_tuning_pays_for_every_input_gradient() -> None:
    """Few trained numbers, but each frozen Linear passes the gradient of all rows down to them."""
    prompts = 2
    report = attnprof.run(Prompted(prompts), (torch.randn(ROWS, WIDTHS[0]),), backward=True)
    one = [product(prompts + ROWS, n_in, n_out) for n_in, n_out in SIZES]
    assert matmul(report) == {f"body.{name}": phases(forward=n, backward=n) for name, n in zip(NAMES, one, strict=True)}


def test_frozen_batch_norm() -> None:
    """With statistics that are constants (eval), per channel rstd 2, times the weight 1, times the gradient n.

    Training, dX is made of both gradients that the frozen parameters would have had, so freezing saves nothing:
    x^ 2 n, sum(g) n - 1, sum(g x^) 2 n - 1, dX 4 n + 2 and the weight.
    """
    channels, n = 3, 2 * 4 * 5
    norm = nn.BatchNorm2d(channels).requires_grad_(False)
    x = torch.randn(2, channels, 4, 5, requires_grad=True)
    constant = attnprof.run(norm.eval(), (x,), backward=True)
    assert constant.phases["backward"].vector_flops == channels * (2 + 1 + n)
    training = attnprof.run(norm.train(), (x,), backward=True)
    assert training.phases["backward"].vector_flops == channels * (2 * n + (n - 1) + (2 * n - 1) + 4 * n + 2 + 1)
    trained = attnprof.run(norm.requires_grad_(True), (x,), backward=True)
    assert trained.phases["backward"].vector_flops == training.phases["backward"].vector_flops
