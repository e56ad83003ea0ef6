"""Why a backward is not twice its forward: every reason derived by hand, and all of them adding up."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import attnprof
from attnprof.analysis.report import Report
from attnprof.analysis.training import Training
from attnprof.core.errors import ConservationError

N, D, H = 6, 8, 2
#: One projection [N, D] x [D, D], and one product of the scores: [H, N, D/H] x [H, D/H, N].
P, S = 2 * N * D * D, 2 * N * N * D


class Attention(nn.Module):
    """Explicit attention: forward 4P + 2S, its backward 8P + 4S when everything needs a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(D, D) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).view(N, H, D // H).transpose(0, 1) for f in (self.q, self.k, self.v))
        y = (q @ k.transpose(1, 2)).softmax(-1) @ v
        return self.o(y.transpose(0, 1).reshape(N, D))


class Stack(nn.Module):
    """Layers one after the other; ``again`` checkpoints each."""

    def __init__(self, layers: list[nn.Module], again: bool = False) -> None:
        super().__init__()
        self.h = nn.ModuleList(layers)
        self.again = again

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.h:
            x = checkpoint(layer, x, use_reentrant=True) if self.again else layer(x)
        return x


class Adapted(nn.Module):
    """A frozen Linear and a trainable low-rank one beside it."""

    RANK = 3

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(D, D).requires_grad_(False)
        self.a, self.b = nn.Linear(D, self.RANK, bias=False), nn.Linear(self.RANK, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.b(self.a(x))


def inputs(grad: bool = True) -> tuple[Tensor]:
    return (torch.ones(N, D, requires_grad=grad),)


def trained(model: nn.Module, grad: bool = True) -> Training:
    report = attnprof.run(model, inputs(grad), backward=True)
    found = report.training
    assert found is not None
    assert found.forward == report.phases["forward"].matmul_flops
    assert found.backward == report.phases["backward"].matmul_flops
    assert found.recompute == report.phases["recompute"].matmul_flops
    assert found.backward == 2 * found.forward + sum(reason.flops for reason in found.reasons)
    return found


def causes(training: Training) -> dict[str, dict[str, int]]:
    return {reason.cause: dict(reason.modules) for reason in training.reasons}


def test_a_backward_of_twice_the_forward_needs_no_reason() -> None:
    found = trained(Attention())
    assert found.forward == 4 * P + 2 * S
    assert found.ratio == 2
    assert found.reasons == ()


def test_frozen_queries_and_keys() -> None:
    model = Attention()
    model.q.requires_grad_(False)
    model.k.requires_grad_(False)
    found = trained(model)
    assert found.backward == 6 * P + 4 * S  # of 8P: two weight gradients less
    assert causes(found) == {"frozen": {"q": -P, "k": -P}}
    assert found.ratio == Fraction(6 * P + 4 * S, 4 * P + 2 * S)


def test_frozen_queries_and_keys_of_a_first_layer() -> None:
    """Nothing before the softmax needs a gradient: of the scores only that of v is left."""
    model = Attention()
    model.q.requires_grad_(False)
    model.k.requires_grad_(False)
    found = trained(model, grad=False)
    assert found.backward == 3 * P + S  # o both, v its weight; the scores' product with v: the gradient of v
    assert causes(found) == {"frozen": {"q": -P, "k": -P}, "input": {"": -3 * S, "q": -P, "k": -P, "v": -P}}


def test_a_first_layer_with_a_plain_input() -> None:
    model = Stack([nn.Linear(D, D), nn.Linear(D, D)])
    assert causes(trained(model, grad=False)) == {"input": {"h.0": -P}}
    assert causes(trained(model)) == {}


def test_adapters() -> None:
    low = 2 * N * D * Adapted.RANK
    model = Stack([Adapted(), Adapted()])
    assert causes(trained(model)) == {"frozen": {"h.0.base": -P, "h.1.base": -P}}
    found = trained(model, grad=False)
    assert found.forward == 2 * (P + 2 * low)
    assert causes(found) == {"frozen": {"h.0.base": -P, "h.1.base": -P}, "input": {"h.0.base": -P, "h.0.a": -low}}


@pytest.mark.parametrize("frozen", [False, True])
def test_a_convolution(frozen: bool) -> None:
    model = nn.Conv1d(3, 5, 2)
    model.weight.requires_grad_(not frozen)
    report = attnprof.run(model, (torch.ones(2, 3, 7, requires_grad=True),), backward=True)
    one = 2 * 2 * 6 * 5 * 3 * 2  # 2 samples, 6 positions, 5 of 3 channels, 2 taps
    assert report.training is not None
    assert causes(report.training) == ({"frozen": {"": -one}} if frozen else {})


def test_weights_of_parts_that_are_never_called() -> None:
    """torch's own attention multiplies with the weight of ``out_proj`` without calling it."""
    model = nn.MultiheadAttention(D, H)
    model.out_proj.weight.requires_grad_(False)
    x = torch.ones(N, 1, D, requires_grad=True)
    found = attnprof.run(model, (x, x, x), backward=True).training
    assert found is not None
    assert causes(found) == {"frozen": {"": -P}}


class Whole(nn.Module):
    """Weights of one shape, used one by one; and one that is reshaped before it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Parameter(torch.ones(D, D)), nn.Parameter(torch.ones(D, D), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w1 @ self.w2


def test_one_of_two_weights_of_one_shape() -> None:
    assert causes(trained(Whole())) == {"frozen": {"": -P}}
    # w2 is frozen, and the input of w1 needs no gradient
    assert causes(trained(Whole(), grad=False)) == {"frozen": {"": -P}, "input": {"": -P}}


class Reshaped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(D, H, D // H), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nd,dhe->nhe", x, self.w)


def test_a_weight_that_is_reshaped() -> None:
    assert causes(trained(Reshaped())) == {"frozen": {"": -P}}


class Tied(nn.Module):
    """Reads words out with the matrix that reads them in, without calling the module that owns it."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.mix = nn.Embedding(7, D), nn.Linear(D, D)
        self.words.weight.requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.mix(self.words(ids)), self.words.weight)


def test_a_weight_of_another_module() -> None:
    found = attnprof.run(Tied(), (torch.zeros(N, dtype=torch.int64),), backward=True).training
    assert found is not None
    assert causes(found) == {"frozen": {"": -2 * N * D * 7}, "input": {"mix": -P}}


def test_a_backward_that_is_not_two_contractions_is_said_to_be_so() -> None:
    """x1 A x2 is a contraction with x1 and one, one size smaller, with x2; the gradient of A is a single one."""
    found = attnprof.run(nn.Bilinear(3, 4, 5, bias=False), (torch.ones(2, 3), torch.ones(2, 4)), backward=True).training
    assert found is not None
    assert set(causes(found)) == {"input", "less"}
    assert sum(reason.flops for reason in found.reasons) == found.backward - 2 * found.forward


def test_recompute_is_told_apart() -> None:
    found = trained(Stack([Attention(), Attention()], again=True))
    assert found.ratio == 2
    assert found.recompute == found.forward == 2 * (4 * P + 2 * S)  # every layer once more, reentrant
    assert sum(found.rerun.values()) == found.recompute
    assert set(found.rerun) == {f"h.{i}{part}" for i in (0, 1) for part in ("", ".q", ".k", ".v", ".o")}
    assert found.rebuilt == {}


class Fused(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.view(1, H, N, D // H)
        return F.scaled_dot_product_attention(x, x, x)


def test_fused_attention_rebuilds_its_scores() -> None:
    found = trained(Fused())
    assert found.forward == 2 * S
    assert found.backward == 4 * S
    assert found.rebuilt == {"": S}
    assert found.rerun == {}


def test_a_gradient_penalty_does_more() -> None:
    """grad(y, x) is P; the backward of its square goes through it and through y again."""
    model = nn.Linear(D, D, bias=False)
    with attnprof.profile(model) as prof:
        x = torch.ones(N, D, requires_grad=True)
        y = model(x).square().sum()
        (gradient,) = torch.autograd.grad(y, x, create_graph=True)
        gradient.square().sum().backward()
    found = prof.report().training
    assert found is not None
    # dX (1); then of dX = g W: dg and dW (2), and through g to y = x W again: dX and dW (2)
    assert found.backward == 5 * P
    assert causes(found) == {"more": {"": 3 * P}}


def test_two_backwards_through_one_graph_do_more() -> None:
    model = nn.Linear(D, D)
    with attnprof.profile(model) as prof:
        loss = model(*inputs()).sum()
        loss.backward(retain_graph=True)
        loss.backward()
    found = prof.report().training
    assert found is not None
    assert found.backward == 4 * P
    assert causes(found) == {"more": {"": 2 * P}}


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.cut = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x) + self.cut(x).detach()


def test_what_no_backward_reached() -> None:
    assert causes(trained(Branches())) == {"unreached": {"cut": -2 * P}}


def test_a_frozen_part_under_no_grad() -> None:
    class Headed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = nn.Linear(D, D).requires_grad_(False), nn.Linear(D, D)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.backbone(x)
            return self.head(x)

    found = trained(Headed())
    assert found.backward == P
    assert causes(found) == {"frozen": {"backbone": -P}, "input": {"backbone": -P, "head": -P}}


# Calls without a backward


LAYERS = {"h.0": P, "h.1": P}


def several(*grad: bool, memory: bool = True, sizes: tuple[int, ...] = (), loss: nn.Module | None = None) -> Report:
    """Two Linears on plain inputs, once for each ``grad``: with a backward, or without gradients."""
    model = Stack([nn.Linear(D, D), nn.Linear(D, D)])
    with attnprof.profile(model) as prof:
        for train, size in zip(grad, sizes or (N,) * len(grad), strict=True):
            with torch.set_grad_enabled(train):
                y = model(torch.ones(size, D))
                result = y.sum() if loss is None else loss(y, y.detach())
            if train:
                result.backward()
    trace = prof.trace
    if not memory:
        trace.memory = None
    return Report(trace)


def explained(report: Report) -> dict[str, dict[str, int]]:
    assert report.training is not None
    return causes(report.training)


@pytest.mark.parametrize("grad", list(product((False, True), repeat=3))[1:])
@pytest.mark.parametrize("loss", [None, nn.MSELoss()])
def test_calls_without_a_backward(grad: tuple[bool, ...], loss: nn.Module | None) -> None:
    """Each such call lacks both gradients of both layers; each other one the gradient of its input."""
    without, trained_calls = grad.count(False), grad.count(True)
    expected = {"input": {"h.0": -P * trained_calls}}
    if without:
        expected["call"] = {fqn: -2 * flops * without for fqn, flops in LAYERS.items()}
    assert explained(several(*grad, loss=loss)) == expected


def test_calls_after_the_last_backward_have_none() -> None:
    found = explained(several(True, False, memory=False))
    assert found == {"call": {"h.0": -2 * P, "h.1": -2 * P}, "either": {"h.0": -P}}


def test_where_a_trace_cannot_tell_it_says_so() -> None:
    either = {"either": {"h.0": -3 * P, "h.1": -2 * P}}
    assert explained(several(False, True, memory=False)) == either
    assert explained(several(False, True, sizes=(N, N))) != either
    # a batch of another size: which of the calls kept nothing is not known
    assert explained(several(False, True, sizes=(2 * N, N))) == {"either": {"h.0": -5 * P, "h.1": -4 * P}}


@pytest.mark.parametrize(
    ("layer", "shape", "one"),
    [
        (nn.Linear(D, D), (N, D), P),
        (nn.Conv1d(3, 5, 2), (2, 3, 7), 2 * 2 * 6 * 5 * 3 * 2),  # 2 samples, 6 places, 5 of 3 channels, 2 taps
    ],
)
def test_a_loss_that_is_not_used(layer: nn.Module, shape: tuple[int, ...], one: int) -> None:
    """Autograd kept what its backward needs, but there was none: weights had fewer gradients than uses."""
    with attnprof.profile(layer) as prof:
        for _ in range(2):
            loss = layer(torch.ones(shape, requires_grad=True)).sum()
        loss.backward()
    assert explained(prof.report()) == {"either": {"": -2 * one}}


def test_a_layer_that_keeps_nothing_can_have_a_backward() -> None:
    """A frozen Linear keeps its weight alone, which is a parameter: so autograd saved nothing."""
    model = nn.Linear(D, D).requires_grad_(False)
    with attnprof.profile(model) as prof:
        for _ in range(2):
            model(*inputs()).sum().backward()
    assert explained(prof.report()) == {"frozen": {"": -2 * P}}


def test_training_without_a_model_given() -> None:
    model = nn.Linear(D, D)
    with attnprof.profile() as prof:
        model(*inputs(grad=False)).sum().backward()
    assert explained(prof.report()) == {"input": {"(Linear)": -P}}
    with prof:
        model(*inputs(grad=False)).sum().backward()
    assert explained(prof.report()) == {"either": {"(Linear)": -2 * P}}


# Runs that are no training


def test_a_forward_has_no_training() -> None:
    assert attnprof.run(Attention(), inputs()).training is None
    assert attnprof.run(nn.ReLU(), inputs(), backward=True).training is None  # no contraction


def test_a_backward_whose_forward_was_not_seen() -> None:
    model = nn.Linear(D, D)
    loss = model(*inputs()).sum()
    with attnprof.profile(model) as prof:
        loss.backward()
    found = prof.report().training
    assert found is not None
    assert (found.forward, found.backward, found.ratio) == (0, 2 * P, None)


def test_reasons_that_do_not_add_up_are_a_defect() -> None:
    with pytest.raises(ConservationError, match=r"is -7 FLOPs off twice the forward, of which 0 have a reason"):
        Training(forward=10, backward=13, reasons=(), rerun={}, rebuilt={}).check()
