"""Storages that change their size: by ops, by ``out`` arguments, and by the program itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import attnprof
from memory.readings import Reading, read
from memory.reference import allocator

E = 4
both_kinds = pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])


def read_as(run: Callable[[], Any], fake: bool) -> Reading:
    if not fake:
        return read(run)
    with FakeTensorMode():
        return read(run)


def grown() -> Tensor:
    """The new bytes are there before the old ones go: 10 and 100 at once."""
    x = torch.ones(10)
    x.resize_(100)
    return x


def grown_like_another() -> Tensor:
    x = torch.ones(10)
    x.resize_as_(torch.ones(100))
    return x


def shrunk() -> Tensor:
    """A tensor that gets smaller keeps its storage."""
    x = torch.ones(100)
    x.resize_(10)
    return x


def written() -> Tensor:
    """An ``out`` that is too small gets what it needs."""
    x, out = torch.ones(100), torch.empty(0)
    torch.add(x, x, out=out)
    return out


def freed() -> Tensor:
    """The tensor stays, its bytes go."""
    x = torch.ones(100)
    x.untyped_storage().resize_(0)
    return x


def freed_and_filled() -> Tensor:
    x = torch.ones(100)
    x.untyped_storage().resize_(0)
    y = torch.ones(50).sum()
    x.untyped_storage().resize_(E * 100)
    x.copy_(y)
    return x


def set_to_another() -> Tensor:
    """The first storage dies when its last tensor turns to another."""
    x, y = torch.ones(100), torch.ones(10)
    x.set_(y)
    return x


def swapped_data() -> Tensor:
    x = torch.ones(100)
    x.data = torch.ones(10)
    return x


#: What there is at most, and at the end.
CASES: dict[Callable[[], Tensor], tuple[int, int]] = {
    grown: (110, 100),
    grown_like_another: (210, 100),
    shrunk: (100, 100),
    written: (200, 100),
    freed: (100, 0),
    freed_and_filled: (101, 100),
    set_to_another: (110, 10),
    swapped_data: (110, 10),
}


@both_kinds
@pytest.mark.parametrize("run", CASES, ids=lambda run: run.__name__)
def test_sizes_are_followed(run: Callable[[], Tensor], fake: bool) -> None:
    reading = read_as(run, fake)
    assert (reading.peak, reading.live[-1]) == tuple(E * n for n in CASES[run])


@pytest.mark.parametrize("run", CASES, ids=lambda run: run.__name__)
def test_the_allocator_agrees(run: Callable[[], Tensor]) -> None:
    made = allocator(run)
    assert (made.peak, made.live) == tuple(E * n for n in CASES[run])


def test_an_output_that_came_from_outside_is_given() -> None:
    buffer = torch.from_numpy(np.zeros(100, dtype=np.float32))
    x = torch.ones(100)
    reading = read(lambda: torch.add(x, x, out=buffer))
    assert reading.live_at_ops == [2 * E * 100]
    assert reading.memory.block_made == [False, False]


def test_parameters_that_are_freed_between_layers() -> None:
    """As FSDP has it: each layer's weight is there while the layer runs."""
    width, layers = 12, 4
    one = E * width * width

    class Sharded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))
            for layer in self.layers:
                layer.weight.untyped_storage().resize_(0)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                layer.weight.untyped_storage().resize_(one)
                layer.weight.detach().fill_(1.0)
                x = layer(x)
                layer.weight.untyped_storage().resize_(0)
            return x

    net = Sharded()
    row = E * width

    def run() -> None:
        with torch.no_grad():
            net(torch.ones(1, width))

    reading = read(run, net)
    assert reading.peak == one + 2 * row + row  # the input, a layer's input and its output
    assert reading.live[-1] == 0
    assert reading.of_kind("parameter").count(one) == layers
    assert reading.memory.state_bytes["parameter"] == 0  # at the beginning and at the end


def test_the_method_is_torchs_own_again() -> None:
    method = torch.UntypedStorage.resize_
    first, second = attnprof.profile(), attnprof.profile()
    with first:
        assert torch.UntypedStorage.resize_ is not method
        with second:
            x = torch.ones(10)
            x.untyped_storage().resize_(0)
        x.untyped_storage().resize_(E * 20)
        assert torch.UntypedStorage.resize_ is not method
    assert torch.UntypedStorage.resize_ is method
    assert Reading(first.trace).live[-1] == E * 20
    assert Reading(second.trace).live[-1] == 0


def test_a_method_put_there_by_someone_else_stays() -> None:
    def theirs(storage: torch.UntypedStorage, size: int) -> Any:
        raise NotImplementedError

    with attnprof.profile():
        torch.UntypedStorage.resize_ = theirs
    try:
        assert torch.UntypedStorage.resize_ is theirs
    finally:
        del torch.UntypedStorage.resize_


def test_errors_of_a_resize_are_its_own() -> None:
    with attnprof.profile(), pytest.raises(RuntimeError):
        torch.ones(10).untyped_storage().resize_(-1)
