"""Timed and counted, the same ops are in the same module and phase, whatever the net does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import attnprof
from capture.nets import NETS, Chain, Net, PostAccumulateHook, rows
from timing.products import PRODUCTS, profiled

#: Ops that both the profiler and the counts name, once for each time that they run.
OPS = PRODUCTS | {
    "_softmax",
    "_softmax_backward_data",
    "gelu",
    "gelu_backward",
    "tanh_backward",
    "native_layer_norm",
    "native_layer_norm_backward",
    "native_dropout",
    "native_dropout_backward",
    "embedding_dense_backward",
    "convolution",
    "convolution_backward",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
    "_fused_adamw_",
}


def counted(model: nn.Module, step: Callable[[], Any], ops: set[str] = OPS) -> Counter[tuple[str, str, str]]:
    """How often each op ran in one step, by module, phase and name, as the trace has it."""
    with attnprof.profile(model) as prof:
        step()
    trace = prof.trace
    found: Counter[tuple[str, str, str]] = Counter()
    for signature, scope in trace.events():
        name = signature.op.removeprefix("aten.").rpartition(".")[0]
        if name in ops:
            phase = "optimizer" if scope.phase == "optimizer_init" else scope.phase
            found[trace.modules[scope.module].fqn, phase, name] += 1
    return found


def agree(
    model: nn.Module, step: Callable[[], Any], stopped: tuple[str, str, str] | None = None
) -> Counter[tuple[str, str, str]]:
    """The places of the ops, which are those that were counted.

    ``stopped`` has begun and computes nothing: a checkpoint has all it needs, and ends the recomputation there.
    """
    expected = counted(model, step)
    if stopped is not None:
        expected[stopped] += 1
    found = profiled(model, step, OPS)
    assert found == expected
    assert found
    return found


def of(found: Counter[tuple[str, str, str]], name: str) -> dict[tuple[str, str], int]:
    return {(module, phase): calls for (module, phase, op), calls in found.items() if op == name}


def hooked(kind: type[Net]) -> bool:
    return kind is PostAccumulateHook or kind.__name__ == "ParametersMadeInForward"


@pytest.mark.parametrize("kind", [kind for kind in NETS if not hooked(kind)], ids=lambda kind: kind.__name__)
def test_net(kind: type[Net]) -> None:
    net = kind()
    agree(net, net.step)


def test_a_hook_on_an_accumulated_gradient_is_part_of_the_accumulation() -> None:
    """An event names no parameter: what the counts give to the parameter's module has no module here."""
    net = PostAccumulateHook()
    found = profiled(net, net.step)
    assert of(found, "mm") == {("first", "backward"): 2, ("second", "backward"): 2, ("(accumulation)", "backward"): 1}


def test_siblings_that_share_an_input_keep_their_own_backward() -> None:
    found = agree(net := next(kind for kind in NETS if kind.__name__ == "SharedInput")(), net.step)
    assert of(found, "mm") == {(name, "backward"): 2 for name in ("q", "k", "v")}


# Checkpoints


class Checkpointed(Net):
    """A Linear, then two in a checkpoint with tanh between them."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.before, self.inside = nn.Linear(7, 7), Chain()
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(self.inside, self.before(x), use_reentrant=self.reentrant)
        return y.sin()


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_module_runs_again_as_recomputation(reentrant: bool) -> None:
    """The non-reentrant checkpoint stops early, as the last Linear begins: what it saves is its input."""
    net = Checkpointed(reentrant)
    found = agree(net, net.step, None if reentrant else ("inside.second", "recompute", "addmm"))
    recomputed = {module: n for (module, phase), n in of(found, "addmm").items() if phase == "recompute"}
    assert recomputed == {f"inside.{name}": 1 for name in ("first", "second")}
    assert of(found, "mm") == {(name, "backward"): 2 for name in ("before", "inside.first", "inside.second")}


class CheckpointedFunction(Net):
    """Attention as a plain function in a checkpoint: no module runs again, only its ops."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.q, self.k, self.out = nn.Linear(7, 7), nn.Linear(7, 7), nn.Linear(7, 7)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.out(checkpoint(_mixed, self.q(x), self.k(x), use_reentrant=self.reentrant))


def _mixed(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.mT).softmax(-1) @ k


@pytest.mark.parametrize("reentrant", [True, False])
def test_ops_of_no_module_run_again_as_recomputation(reentrant: bool) -> None:
    net = CheckpointedFunction(reentrant)
    found = agree(net, net.step, None if reentrant else ("", "recompute", "mm"))
    assert of(found, "_softmax") == {("", "forward"): 1, ("", "recompute"): 1}


# Graphs of backwards


def test_a_gradient_penalty_is_no_recomputation() -> None:
    net = Chain()

    def step() -> None:
        x = rows()
        (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        gradient.square().sum().backward()

    found = agree(net, step)
    assert {phase for _, phase, _ in found} == {"forward", "backward"}


class Energy(nn.Module):
    """Forces are the gradient of an energy, taken inside of the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = Chain()

    def forward(self, x: Tensor) -> Tensor:
        (force,) = torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)
        return force


def test_a_backward_within_the_forward() -> None:
    net = Energy()
    agree(net, lambda: net(rows()).square().sum().backward())


def test_two_backwards_of_one_graph() -> None:
    net = Chain()

    def step() -> None:
        loss = net(rows()).sum()
        loss.backward(retain_graph=True)
        loss.backward()

    assert of(agree(net, step), "mm") == {("first", "backward"): 4, ("second", "backward"): 4}


# Whole models


class Block(nn.Module):
    def __init__(self, width: int, fused: bool) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.out, self.drop = nn.Linear(width, width), nn.Dropout(0.1)
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v) if self.fused else (q @ k.mT).softmax(-1) @ v
        return x + self.drop(F.gelu(self.out(y.transpose(1, 2).flatten(2))))


@pytest.mark.parametrize("fused", [True, False])
def test_a_training_step_of_attention_with_its_optimizer(fused: bool) -> None:
    net = nn.Sequential(nn.Embedding(11, 8), Block(8, fused), Block(8, fused), nn.Linear(8, 11))
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    tokens = torch.arange(20).view(2, 10) % 11

    def step() -> None:
        F.cross_entropy(net(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # the first step of an optimizer is another one
    found = agree(net, step)
    assert of(found, "_fused_adamw_") == {("(optimizer)", "optimizer"): 1}


def test_a_convolution_net() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten())
    found = agree(net, lambda: net(torch.randn(1, 2, 9, 9)).sum().backward())
    assert of(found, "convolution_backward") == {("0", "backward"): 1, ("3", "backward"): 1}


def test_the_native_fast_path_stays_on() -> None:
    """Hooks on the modules themselves would switch it off; the global ones do not."""
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()

    def step() -> None:
        with torch.no_grad():
            net(torch.ones(1, 4, 8))

    found = profiled(net, step, {"_transformer_encoder_layer_fwd"})
    assert of(found, "_transformer_encoder_layer_fwd") == {(f"layers.{i}", "forward"): 1 for i in range(2)}
