"""Activation checkpointing: what runs again is recompute, charged to the module that runs again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
    set_checkpoint_early_stop,
)

import attnprof
from capture.nets import UNIT, Chain, Expected, Net, linear, rows, units

REENTRANT = partial(checkpoint, use_reentrant=True)
NON_REENTRANT = partial(checkpoint, use_reentrant=False)
EITHER = pytest.mark.parametrize("through", [REENTRANT, NON_REENTRANT], ids=["reentrant", "non-reentrant"])


def thrice(forward: int, backward: int, recompute: int) -> dict[str, int]:
    counts = {"forward": forward, "backward": backward, "recompute": recompute}
    return {phase: n for phase, n in counts.items() if n}


def counted(net: Net, step: Callable[[], Any] | None = None) -> dict[str, dict[str, Fraction]]:
    with attnprof.profile(net) as prof:
        (step or net.step)()
    return units(prof.report())


class Checkpointed(Net):
    """A chain of two Linears behind a checkpoint."""

    def __init__(self, through: Callable[..., Any]) -> None:
        super().__init__()
        self.body, self.through = Chain(), through

    def forward(self, x: Tensor) -> Tensor:
        return self.through(self.body, x)


def test_non_reentrant_stops_early() -> None:
    """What the second Linear needs is there once its input is: 1 product again, 7 in all, not 8."""
    found = counted(Checkpointed(NON_REENTRANT))
    assert found == {"body.first": thrice(1, 2, 1), "body.second": thrice(1, 2, 0)}


def test_reentrant_runs_all_again() -> None:
    found = counted(Checkpointed(REENTRANT))
    assert found == {"body.first": thrice(1, 2, 1), "body.second": thrice(1, 2, 1)}


def test_early_stop_off_by_argument() -> None:
    found = counted(Checkpointed(partial(NON_REENTRANT, early_stop=False)))
    assert found == {"body.first": thrice(1, 2, 1), "body.second": thrice(1, 2, 1)}


def test_early_stop_off_by_context() -> None:
    net = Checkpointed(NON_REENTRANT)

    def step() -> None:
        with set_checkpoint_early_stop(False):
            net.step()

    assert counted(net, step) == {"body.first": thrice(1, 2, 1), "body.second": thrice(1, 2, 1)}


@EITHER
def test_calls_that_run_again_are_not_calls(through: Callable[..., Any]) -> None:
    net = Checkpointed(through)
    with attnprof.profile(net) as prof:
        net.step()
    root = prof.report().root
    assert {node.fqn: node.calls for node in root.walk() if node.calls} == dict.fromkeys(
        ("", "body", "body.first", "body.second"), 1
    )
    assert root.find("body.first").record.recomputed_calls == 1


@EITHER
def test_recompute_is_not_model_flops(through: Callable[..., Any]) -> None:
    net = Checkpointed(through)
    with attnprof.profile(net) as prof:
        net.step()
    report = prof.report()
    again = 2 if through is REENTRANT else 1
    assert report.model_flops == 6 * UNIT
    assert report.hardware_flops == (6 + again) * UNIT


@EITHER
def test_without_gradients_nothing_runs_again(through: Callable[..., Any]) -> None:
    net = Checkpointed(through)

    def step() -> None:
        with torch.no_grad():
            net(rows())

    assert counted(net, step) == {"body.first": thrice(1, 0, 0), "body.second": thrice(1, 0, 0)}


class Nested(Net):
    """A checkpoint of two checkpoints of two Linears each."""

    def __init__(self, through: Callable[..., Any]) -> None:
        super().__init__()
        self.a, self.b, self.through = Checkpointed(through), Checkpointed(through), through

    def forward(self, x: Tensor) -> Tensor:
        return self.through(lambda x: self.b(self.a(x)), x)


def test_nested_reentrant() -> None:
    """The outer one runs all four Linears again, each inner one its own two once more: 8."""
    again = thrice(1, 2, 2)
    assert counted(Nested(REENTRANT)) == {f"{part}.body.{name}": again for part in "ab" for name in ("first", "second")}


def test_nested_non_reentrant() -> None:
    """The outer one runs until it has b's input, which takes a's pair; each inner one until it has its second's."""
    found = counted(Nested(NON_REENTRANT))
    assert {name: phases["forward"] for name, phases in found.items()} == dict.fromkeys(
        ("a.body.first", "a.body.second", "b.body.first", "b.body.second"), 1
    )
    assert {name: phases["backward"] for name, phases in found.items()} == dict.fromkeys(
        ("a.body.first", "a.body.second", "b.body.first", "b.body.second"), 2
    )
    # Outer: a.first, a.second. Inner: b.first, then a.first.
    recompute = {name: phases.get("recompute", 0) for name, phases in found.items()}
    assert recompute == {"a.body.first": 2, "a.body.second": 1, "b.body.first": 1, "b.body.second": 0}


def selective(policy: Callable[..., CheckpointPolicy]) -> Callable[..., Any]:
    return partial(NON_REENTRANT, context_fn=partial(create_selective_checkpoint_contexts, policy))


def test_selective_with_products_saved() -> None:
    """What the policy saves does not run again; tanh, between the Linears, does."""

    def policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        save = op is torch.ops.aten.addmm.default
        return CheckpointPolicy.MUST_SAVE if save else CheckpointPolicy.PREFER_RECOMPUTE

    net = Checkpointed(selective(policy))
    with attnprof.profile(net) as prof:
        net.step()
    report = prof.report()
    assert units(report) == {"body.first": thrice(1, 2, 0), "body.second": thrice(1, 2, 0)}
    assert report.operator_calls("recompute")["aten.tanh.default"] == 1
    assert "aten.addmm.default" not in report.operator_calls("recompute")


def test_selective_with_nothing_saved() -> None:
    def policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_RECOMPUTE

    found = counted(Checkpointed(selective(policy)))
    assert found == {"body.first": thrice(1, 2, 1), "body.second": thrice(1, 2, 0)}


class FunctionalFirst(Net):
    """A checkpointed method: a functional product before a module, and one after it."""

    def __init__(self, through: Callable[..., Any]) -> None:
        super().__init__()
        self.child, self.through = linear(), through
        self.before = nn.Parameter(torch.randn_like(self.child.weight))
        self.after = nn.Parameter(torch.randn_like(self.child.weight))

    def body(self, x: Tensor) -> Tensor:
        return F.linear(self.child(F.linear(x, self.before).tanh()).tanh(), self.after)

    def forward(self, x: Tensor) -> Tensor:
        return self.through(self.body, x)


def test_functional_ops_run_again_for_the_module_that_called_the_checkpoint() -> None:
    """Non-reentrant: the last product, needed by nothing, is not run again."""
    found = counted(FunctionalFirst(NON_REENTRANT))
    assert found == {"": thrice(2, 4, 1), "child": thrice(1, 2, 1)}


def test_functional_ops_of_a_reentrant_checkpoint() -> None:
    found = counted(FunctionalFirst(REENTRANT))
    assert found == {"": thrice(2, 4, 2), "child": thrice(1, 2, 1)}


class FunctionalThenModule(FunctionalFirst):
    """The checkpoint ends in the module, so it is the module's node that asks for it to run again."""

    def body(self, x: Tensor) -> Tensor:
        return self.child(F.linear(x, self.before))


@EITHER
def test_a_module_asks_for_what_a_function_made(through: Callable[..., Any]) -> None:
    """The functional product, needed for the child's input, is the caller's also the second time."""
    last = 1 if through is REENTRANT else 0
    assert counted(FunctionalThenModule(through)) == {"": thrice(1, 2, 1), "child": thrice(1, 2, last)}


class InBlock(Net):
    """The same inside a submodule, between ordinary layers."""

    def __init__(self, through: Callable[..., Any]) -> None:
        super().__init__()
        self.first, self.block, self.last = linear(), FunctionalFirst(through), linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(self.first(x)))


@EITHER
def test_a_checkpoint_in_a_submodule(through: Callable[..., Any]) -> None:
    found = counted(InBlock(through))
    again = 2 if through is REENTRANT else 1
    assert found == {
        "first": thrice(1, 2, 0),
        "block": thrice(2, 4, again),
        "block.child": thrice(1, 2, 1),
        "last": thrice(1, 2, 0),
    }


class Repeated(Net):
    """One block, checkpointed three times over in a row."""

    def __init__(self, through: Callable[..., Any]) -> None:
        super().__init__()
        self.block, self.through = Chain(), through

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.through(self.block, x)
        return x


@EITHER
def test_a_shared_block(through: Callable[..., Any]) -> None:
    last = 3 if through is REENTRANT else 0
    assert counted(Repeated(through)) == {"block.first": thrice(3, 6, 3), "block.second": thrice(3, 6, last)}


class ByHand(torch.autograd.Function):
    """A checkpoint as people write it: run without a graph, run again with one in the backward."""

    @staticmethod
    def forward(ctx: Any, body: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        ctx.body = body
        ctx.save_for_backward(x)
        with torch.no_grad():
            return body(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = ctx.body(x)
        torch.autograd.backward(y, gradient)
        return None, x.grad


def test_a_hand_made_checkpoint_of_modules() -> None:
    found = counted(Checkpointed(ByHand.apply))
    assert found == {"body.first": thrice(1, 2, 1), "body.second": thrice(1, 2, 1)}


def test_a_hand_made_checkpoint_of_functions() -> None:
    """No module runs again, so grad mode tells: it is on in a backward that builds no graph."""
    found = counted(FunctionalFirst(ByHand.apply))
    assert found == {"": thrice(2, 4, 2), "child": thrice(1, 2, 1)}


class FunctionAtTheEnd(FunctionalFirst):
    """The hand-made checkpoint is the very first node of the backward."""

    def __init__(self) -> None:
        super().__init__(ByHand.apply)

    def step(self) -> None:
        y = self(rows())
        y.backward(torch.ones_like(y))


def test_a_hand_made_checkpoint_that_is_the_first_node() -> None:
    net = FunctionAtTheEnd()
    assert counted(net) == {"": thrice(2, 4, 2), "child": thrice(1, 2, 1)}


class SquareAgain(torch.autograd.Function):
    """Builds no graph but switches grad mode on for a product it does again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return (x @ weight).square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        with torch.enable_grad():
            product = x @ weight
        gradient = 2 * gradient * product
        return gradient @ weight.T, x.T @ gradient


class FusedSquare(Net):
    expected: ClassVar[Expected] = {"": thrice(1, 2, 1)}

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn_like(linear().weight))

    def forward(self, x: Tensor) -> Tensor:
        return SquareAgain.apply(x, self.weight)


def test_a_function_that_computes_its_forward_again() -> None:
    net = FusedSquare()
    assert counted(net) == net.expected


def test_create_graph_through_a_non_reentrant_checkpoint() -> None:
    """A gradient penalty: two backwards, each runs the first Linear again; no backward op is taken for recompute."""
    net, x = Checkpointed(NON_REENTRANT), rows()

    def step() -> None:
        (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        slope.square().sum().backward()

    with attnprof.profile(net) as prof:
        step()
    found = units(prof.report())
    # The counts of the same penalty without a checkpoint (test_autograd), and the first Linear again, twice.
    assert {name: phases["forward"] for name, phases in found.items()} == {"body.first": 1, "body.second": 1}
    assert {name: phases["backward"] for name, phases in found.items()} == {"body.first": 5, "body.second": 2}
    assert sum(phases.get("recompute", 0) for phases in found.values()) == 2


def test_a_saved_tensor_read_outside_a_backward() -> None:
    """Looking at what a checkpoint saved makes it run again, although nothing is differentiated."""
    net = Checkpointed(NON_REENTRANT)
    found = counted(net, lambda: net(rows()).grad_fn._saved_mat1)
    assert found == {"body.first": thrice(1, 0, 1), "body.second": thrice(1, 0, 0)}


def test_a_saved_tensor_read_outside_a_backward_of_functions() -> None:
    """The first functional product and the child run again, for the second input of the last product."""
    net = FunctionalFirst(NON_REENTRANT)
    found = counted(net, lambda: net(rows()).grad_fn.next_functions[0][0]._saved_result)
    assert found == {"": thrice(2, 0, 1), "child": thrice(1, 0, 1)}


def test_checkpoint_wrapper_vanishes_from_names() -> None:
    net = nn.Sequential(checkpoint_wrapper(Chain()))
    with attnprof.profile(net) as prof:
        net(rows()).sum().backward()
    report = prof.report()
    assert units(report) == {"0.first": thrice(1, 2, 1), "0.second": thrice(1, 2, 0)}
    assert {node.fqn: node.calls for node in report.root.walk() if node.calls} == {
        "": 1,
        "0": 1,
        "0.first": 1,
        "0.second": 1,
    }


def test_checkpoint_sequential() -> None:
    """Four Linears in two segments; the last segment is not checkpointed, the first stops early."""
    net = nn.Sequential(linear(), linear(), linear(), linear())
    with attnprof.profile(net) as prof:
        checkpoint_sequential(net, 2, rows(), use_reentrant=False).sum().backward()
    recompute = {name: found.get("recompute", 0) for name, found in units(prof.report()).items()}
    # A Linear saves its input and weight only: to have the second's input, the first runs again.
    assert recompute == {"0": 1, "1": 0, "2": 0, "3": 0}


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize(
    ("backend", "again"),
    [(SDPBackend.FLASH_ATTENTION, 1), (SDPBackend.MATH, 0)],
    ids=["fused", "math"],
)
def test_fused_attention_computes_its_scores_again(backend: SDPBackend, again: int) -> None:
    """Two products forward, four backward; the fused backward rebuilds the scores, the math one kept them."""
    batch, heads, queries, width = 2, 3, 5, 7
    product = 2 * batch * heads * queries * queries * width
    net = nn.Sequential(Attention())
    x = torch.randn(batch, heads, queries, width, requires_grad=True)
    with sdpa_kernel(backend), attnprof.profile(net) as prof:
        net(x).sum().backward()
    report = prof.report()
    found = {phase: report.by_module(phase)["0"].matmul_flops for phase in ("forward", "backward", "recompute")}
    expected: Mapping[str, int] = {"forward": 2 * product, "backward": 4 * product, "recompute": again * product}
    assert found == expected
    assert report.model_flops == 6 * product
