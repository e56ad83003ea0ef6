"""Activation checkpointing of transformer blocks: what a step costs more, as integers, per module.

One block, f = 4 d, P = N d², A = N² d: forward 24 P + 4 A (projections 8 P, attention 4 A, feed-forward 16 P), a step
without checkpoints three times that; a fused attention does 2 A of its forward again in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
    set_checkpoint_early_stop,
)

import attnprof
from training.attention import Block, sizes
from training.counts import Counts, matmul, operators, phases

LAYERS, D, HEADS = 2, 8, 2
N = 6
REENTRANT = partial(checkpoint, use_reentrant=True)
EARLY_STOP = partial(checkpoint, use_reentrant=False)
TO_THE_END = partial(checkpoint, use_reentrant=False, early_stop=False)


class Model(nn.Module):
    """Blocks, each behind the same kind of checkpoint."""

    def __init__(self, through: Callable[..., Any], fused: bool, d: int = D, heads: int = HEADS) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(d, heads, fused) for _ in range(LAYERS))
        self.through = through

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.through(block, x)
        return x


def plain(block: nn.Module, x: Tensor) -> Tensor:
    return block(x)


def forward_of(n: int = N, d: int = D) -> dict[str, int]:
    """The matmul FLOPs of a block's parts in one forward."""
    p, a = sizes(n, d)
    projections = {f"attention.{name}": 2 * p for name in "qkvo"}
    return {**projections, "attention": 4 * a, "up": 8 * p, "down": 8 * p}


def expected(fused: bool, again: set[str]) -> Counts:
    """A step of all blocks in which the parts in ``again`` run a second time."""
    found: Counts = {}
    for layer in range(LAYERS):
        for part, once in forward_of().items():
            inside = once // 2 if fused and part == "attention" else 0
            recompute = inside + (once if part in again else 0)
            found[f"blocks.{layer}.{part}"] = phases(forward=once, backward=2 * once, recompute=recompute)
    return found


def counted(through: Callable[..., Any], fused: bool) -> attnprof.Report:
    net = Model(through, fused)
    return attnprof.run(net, (torch.randn(1, N, D, requires_grad=True),), backward=True)


PARTS = set(forward_of())
FUSED = pytest.mark.parametrize("fused", [False, True], ids=["explicit", "SDPA"])


@FUSED
def test_without_checkpoints(fused: bool) -> None:
    assert matmul(counted(plain, fused)) == expected(fused, set())


@FUSED
@pytest.mark.parametrize("through", [REENTRANT, TO_THE_END], ids=["reentrant", "non-reentrant to the end"])
def test_everything_runs_again(through: Callable[..., Any], fused: bool) -> None:
    assert matmul(counted(through, fused)) == expected(fused, PARTS)


@FUSED
def test_early_stop_spares_the_last_product(fused: bool) -> None:
    """What the last Linear saved is its input: when that is there again, the block stops."""
    assert matmul(counted(EARLY_STOP, fused)) == expected(fused, PARTS - {"down"})


@FUSED
def test_a_context_without_early_stop(fused: bool) -> None:
    net, x = Model(EARLY_STOP, fused), torch.randn(1, N, D, requires_grad=True)
    with attnprof.profile(net) as prof, set_checkpoint_early_stop(False):
        net(x).sum().backward()
    assert matmul(prof.report()) == expected(fused, PARTS)


def overhead(n: int, d: int, heads: int, through: Callable[..., Any], fused: bool) -> Fraction:
    """Hardware FLOPs with checkpoints ÷ those without, less one; on fake tensors."""
    found = []
    for kind in (plain, through):
        with attnprof.fake_tensors():
            net, x = Model(kind, fused, d, heads), torch.randn(1, n, d, requires_grad=True)
        found.append(attnprof.run(net, (x,), backward=True, fake=True).hardware_flops)
    without, with_checkpoints = found
    return Fraction(with_checkpoints - without, without)


@pytest.mark.parametrize("n", [128, 512, 2048])
def test_what_it_adds(n: int) -> None:
    """A third, exactly, where the attention is written out and all runs again; less with SDPA or an early stop."""
    d, heads = 768, 12
    p, a = sizes(n, d)
    step, fused_step = 72 * p + 12 * a, 72 * p + 14 * a
    assert overhead(n, d, heads, REENTRANT, False) == Fraction(1, 3) == Fraction(24 * p + 4 * a, step)
    assert overhead(n, d, heads, EARLY_STOP, False) == Fraction(16 * p + 4 * a, step)
    assert overhead(n, d, heads, REENTRANT, True) == Fraction(24 * p + 4 * a, fused_step)
    assert overhead(n, d, heads, EARLY_STOP, True) == Fraction(16 * p + 4 * a, fused_step)


def test_recompute_is_no_model_flop() -> None:
    bare, checkpointed = counted(plain, False), counted(REENTRANT, False)
    assert checkpointed.model_flops == bare.model_flops
    p, a = sizes(N, D)
    assert checkpointed.hardware_flops - bare.hardware_flops == LAYERS * (24 * p + 4 * a)


# Selective


def selective(saved: set[Any]) -> Callable[..., Any]:
    def policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if op in saved else CheckpointPolicy.PREFER_RECOMPUTE

    return partial(EARLY_STOP, context_fn=partial(create_selective_checkpoint_contexts, policy))


_ATEN = torch.ops.aten


def test_saving_all_products_leaves_elementwise_work() -> None:
    """Linears (addmm) and attention products (bmm) come from what was saved; norms, softmax and gelu run again."""
    report = counted(selective({_ATEN.addmm.default, _ATEN.bmm.default}), False)
    assert matmul(report) == expected(False, set())
    for op in ("aten.addmm", "aten.bmm"):
        assert operators(report, op, "recompute") == {}
    again = [f"blocks.{layer}" for layer in range(LAYERS)]
    assert operators(report, "aten.gelu", "recompute") == dict.fromkeys(again, 1)
    assert operators(report, "aten._softmax", "recompute") == {f"{block}.attention": 1 for block in again}
    assert operators(report, "aten.native_layer_norm", "recompute") == {
        f"{block}.norm_{i}": 1 for block in again for i in (1, 2)
    }


def test_saving_the_attention_alone() -> None:
    """The fused kernel's output is kept and every Linear but the last runs again; its own 2 A stay."""
    saved = {_ATEN._scaled_dot_product_flash_attention_for_cpu.default}
    report = counted(selective(saved), True)
    assert matmul(report) == expected(True, PARTS - {"down", "attention"})


def test_every_second_product() -> None:
    """A policy with a memory: the Linears of a block are q, k, v, o, up, down; the 2nd, 4th and 6th are kept."""

    def policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        key = "recompute" if ctx.is_recompute else "forward"
        if op is not _ATEN.addmm.default:
            return CheckpointPolicy.PREFER_RECOMPUTE
        seen[key] = seen.get(key, 0) + 1
        return CheckpointPolicy.PREFER_RECOMPUTE if seen[key] % 2 else CheckpointPolicy.MUST_SAVE

    seen: dict[str, int] = {}

    def contexts() -> Any:
        seen.clear()
        return create_selective_checkpoint_contexts(policy)

    net = Model(partial(EARLY_STOP, context_fn=contexts, early_stop=False), False)
    net.blocks = net.blocks[:1]
    report = attnprof.run(net, (torch.randn(1, N, D, requires_grad=True),), backward=True)
    again = {"attention.q", "attention.v", "up", "attention"}
    assert matmul(report) == {name: c for name, c in expected(False, again).items() if name.startswith("blocks.0.")}


# Checkpoints of more than one block, and of parts of one


def chain(layers: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(D, D) for _ in range(layers)))


UNIT = 2 * N * D * D


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("segments", [1, 2, 3, 6])
def test_segments(segments: int, reentrant: bool) -> None:
    """All but the last segment are checkpointed; non-reentrant, each stops before its own last Linear."""
    net, per_segment = chain(6), 6 // segments
    with attnprof.profile(net) as prof:
        x = torch.randn(N, D, requires_grad=True)
        checkpoint_sequential(net, segments, x, use_reentrant=reentrant).sum().backward()
    found = matmul(prof.report())
    for i in range(6):
        checkpointed = i < per_segment * (segments - 1)
        stopped = not reentrant and i % per_segment == per_segment - 1
        again = UNIT if checkpointed and not stopped else 0
        assert found[str(i)] == phases(forward=UNIT, backward=2 * UNIT, recompute=again)


class Halves(nn.Module):
    """Within a checkpoint of everything, one of the second half."""

    def __init__(self, outer: Callable[..., Any], inner: Callable[..., Any]) -> None:
        super().__init__()
        self.first, self.second = chain(2), chain(2)
        self.outer, self.inner = outer, inner

    def body(self, x: Tensor) -> Tensor:
        return self.inner(self.second, self.first(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.body, x)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # of the inner one, in the first forward
@pytest.mark.parametrize(
    ("outer", "inner", "first", "second"),
    [
        # Reentrant runs its whole body again: the outer one all four, the inner one its two a second time.
        (REENTRANT, REENTRANT, (1, 1), (2, 2)),
        # The outer one stops when the inner one's input is there, the inner one when its last Linear's is.
        (EARLY_STOP, EARLY_STOP, (1, 1), (1, 0)),
        # The outer one runs all four; the inner one then stops before its last.
        (REENTRANT, EARLY_STOP, (1, 1), (2, 1)),
        (TO_THE_END, TO_THE_END, (1, 1), (2, 2)),
    ],
    ids=["reentrant", "non-reentrant", "non-reentrant in reentrant", "to the end"],
)
def test_nested(outer: Any, inner: Any, first: tuple[int, int], second: tuple[int, int]) -> None:
    report = attnprof.run(Halves(outer, inner), (torch.randn(N, D, requires_grad=True),), backward=True)
    runs = {f"first.{i}": n for i, n in enumerate(first)} | {f"second.{i}": n for i, n in enumerate(second)}
    assert matmul(report) == {
        name: phases(forward=UNIT, backward=2 * UNIT, recompute=again * UNIT) for name, again in runs.items()
    }


class Frozen(nn.Module):
    """A frozen Linear, then one that is trained, behind one checkpoint; the input needs no gradient."""

    def __init__(self, through: Callable[..., Any]) -> None:
        super().__init__()
        self.frozen, self.trained, self.through = nn.Linear(D, D).requires_grad_(False), nn.Linear(D, D), through

    def body(self, x: Tensor) -> Tensor:
        return self.trained(self.frozen(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.through(self.body, x)


@pytest.mark.parametrize("through", [plain, EARLY_STOP], ids=["without", "with a checkpoint"])
def test_a_frozen_layer_runs_again_for_what_is_above_it(through: Callable[..., Any]) -> None:
    report = attnprof.run(Frozen(through), (torch.randn(N, D),), backward=True)
    again = 0 if through is plain else UNIT
    assert matmul(report) == {
        "frozen": phases(forward=UNIT, recompute=again),
        "trained": phases(forward=UNIT, backward=UNIT),
    }


def test_a_reentrant_checkpoint_of_a_plain_input_trains_nothing() -> None:
    """None of its inputs needs a gradient, so neither does its output: it has no backward (torch warns)."""
    net = Model(REENTRANT, False)
    with attnprof.profile(net) as prof, pytest.warns(UserWarning, match="None of the inputs have requires_grad"):
        y = net(torch.randn(1, N, D))
    assert not y.requires_grad
    report = prof.report()
    assert report.phases["forward"].matmul_flops == report.hardware_flops


def test_two_backwards_through_one_checkpoint() -> None:
    """Each runs the body again."""
    net = Model(EARLY_STOP, False)
    with attnprof.profile(net) as prof:
        loss = net(torch.randn(1, N, D, requires_grad=True)).sum()
        loss.backward(retain_graph=True)
        loss.backward()
    once = forward_of()
    assert matmul(prof.report()) == {
        f"blocks.{layer}.{part}": phases(forward=n, backward=4 * n, recompute=0 if part == "down" else 2 * n)
        for layer in range(LAYERS)
        for part, n in once.items()
    }
