"""A checkpoint keeps its inputs, and no more: one tensor per block, however it is asked for."""

from __future__ import annotations

from collections.abc import Callable
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
)

from memory.nets import block_bytes
from memory.readings import read, read_call
from training.attention import Block

N, D, H, LAYERS = 5, 12, 3, 3
ROW = 4 * N * D  # bytes of one activation of width d

reentrant = pytest.mark.parametrize("use_reentrant", [False, True], ids=["non-reentrant", "reentrant"])
both_kinds = pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])


class Checkpointed(nn.Module):
    """A stack of which every block is run by ``run(block, x)``."""

    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor], layers: int = LAYERS) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(D, H, fused=False) for _ in range(layers))
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = self.run(block, x)
        return x


def rows() -> Tensor:
    return torch.randn(1, N, D, requires_grad=True)


@both_kinds
@reentrant
def test_stack(use_reentrant: bool, fake: bool) -> None:
    """L N d e: the input of each block, which is the output of the one before; booked to whoever called it."""
    net = Checkpointed(partial(checkpoint, use_reentrant=use_reentrant))
    reading = read_call(net, (rows(),), fake=fake)
    assert reading.saved_by_name() == {"": LAYERS * ROW}
    assert reading.saved.input_bytes == ROW
    assert reading.saved.held == {}


@both_kinds
@pytest.mark.parametrize("early_stop", [False, True])
def test_early_stop_keeps_the_same(early_stop: bool, fake: bool) -> None:
    net = Checkpointed(partial(checkpoint, use_reentrant=False, early_stop=early_stop))
    assert read_call(net, (rows(),), fake=fake).saved.bytes == LAYERS * ROW


@reentrant
def test_blocks_that_are_not_checkpointed_keep_everything(use_reentrant: bool) -> None:
    def every_other(block: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(block, x, use_reentrant=use_reentrant) if block is not net.blocks[1] else block(x)

    net = Checkpointed(every_other)
    reading = read_call(net, (rows(),))
    assert reading.saved.bytes == 2 * ROW + block_bytes(1, N, D, H, 4, fused=False)


@reentrant
def test_nested(use_reentrant: bool) -> None:
    """What the inner one would keep is made again by the outer one."""

    def twice(block: nn.Module, x: Tensor) -> Tensor:
        inner = partial(checkpoint, block, use_reentrant=use_reentrant)
        return checkpoint(inner, x, use_reentrant=use_reentrant)

    assert read_call(Checkpointed(twice), (rows(),)).saved.bytes == LAYERS * ROW


@pytest.mark.parametrize("segments", [1, 2, 3])
@reentrant
def test_sequential(use_reentrant: bool, segments: int) -> None:
    """Segments of L // segments blocks keep their input; the last one runs bare."""
    blocks = nn.Sequential(*(Block(D, H, fused=False) for _ in range(LAYERS)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = blocks

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint_sequential(self.blocks, segments, x, use_reentrant=use_reentrant)

    size = LAYERS // segments
    bare = LAYERS - size * (segments - 1)
    reading = read_call(Net(), (rows(),))
    assert reading.saved.bytes == (segments - 1) * ROW + bare * block_bytes(1, N, D, H, 4, fused=False)


def keep(*ops: Any) -> Callable[[nn.Module, Tensor], Tensor]:
    """A checkpoint that stores the results of these ops."""

    def policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if op in ops else CheckpointPolicy.PREFER_RECOMPUTE

    contexts = partial(create_selective_checkpoint_contexts, policy)
    return partial(checkpoint, use_reentrant=False, context_fn=contexts)


@both_kinds
def test_selective(fake: bool) -> None:
    """Besides the input, the results of every linear layer: q, k, v, o (N d each), up (4 N d) and down (N d),

    of which the last goes into the block's output and is stored all the same.
    """
    reading = read_call(Checkpointed(keep(torch.ops.aten.addmm.default)), (rows(),), fake=fake)
    assert reading.saved.bytes == LAYERS * (1 + 4 + 4 + 1) * ROW


def test_selective_that_stores_nothing() -> None:
    assert read_call(Checkpointed(keep()), (rows(),)).saved.bytes == LAYERS * ROW


def test_keyword_arguments_are_inputs_too() -> None:
    """A tensor that reaches the region by name is kept like one that reaches it by position."""
    layer = nn.Linear(D, D)

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            h = x.sigmoid()  # which keeps its output itself
            return checkpoint(lambda a, *, scale: layer(a).tanh() * scale, x, scale=h.exp(), use_reentrant=False)

    def run() -> None:
        Net()(rows()).sum().backward()

    assert read(run).saved.bytes == 3 * ROW  # x, sigmoid, exp


def test_a_checkpoint_in_a_layer_belongs_to_that_layer() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(D, D)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.layer, x, use_reentrant=False)

    net = nn.Sequential(nn.Linear(D, D), Inner(), Inner())
    reading = read_call(net, (rows(),))
    assert reading.saved_by_name() == {"0": ROW, "1": ROW, "2": ROW}


def test_a_checkpoint_around_no_module_belongs_to_its_caller() -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(lambda a: a.tanh().exp(), x, use_reentrant=False)

    net = nn.Sequential(nn.Linear(D, D), Inner(), nn.Linear(D, D))
    assert read_call(net, (rows(),)).saved_by_name() == {"0": ROW, "1": ROW, "2": ROW}


def test_what_the_region_has_captured_is_kept_too() -> None:
    """By a closure within a partial: it runs again with both."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            captured, given = x.detach().exp(), x.detach().sin()
            region = partial(lambda other, a: (a * captured * other).tanh(), given)
            return checkpoint(region, x, use_reentrant=False)

    reading = read_call(Net(), (rows(),))
    assert (reading.saved.bytes, reading.saved.held) == (3 * ROW, {})


def test_checkpoint_of_an_input_without_gradient() -> None:
    """The parameters inside need one."""
    net = Checkpointed(partial(checkpoint, use_reentrant=False))
    reading = read_call(net, (torch.randn(1, N, D),))
    assert (reading.saved.bytes, reading.saved.input_bytes) == (LAYERS * ROW, ROW)


def test_after_the_backward_nothing_of_it_lives() -> None:
    net = Checkpointed(partial(checkpoint, use_reentrant=False))
    x = rows()

    def run() -> None:
        net(x).sum().backward()

    reading = read(run, net)
    parameters = 4 * sum(p.numel() for p in net.parameters())
    assert reading.live[-1] == 2 * parameters + 2 * ROW  # and their gradients; x and its gradient
