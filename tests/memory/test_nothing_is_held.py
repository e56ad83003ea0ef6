"""Tracking memory keeps no storage, module or graph alive, and never takes one storage for another."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

import attnprof
from memory.readings import Reading, read

E = 4
N, D = 5, 12
ROW = E * N * D


@contextmanager
def without_collection() -> Iterator[None]:
    """What dies in here dies of its last reference."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Kept(torch.autograd.Function):
    """A node that can be watched."""

    made: ClassVar[list[weakref.ref[Any]]] = []

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        Kept.made.append(weakref.ref(ctx))
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(D, D), nn.Linear(D, D)
        self.register_buffer("scale", torch.ones(D))

    def forward(self, x: Tensor) -> Tensor:
        x = Kept.apply(self.first(x).tanh())
        return checkpoint(self.second, x * self.scale, use_reentrant=False)


def storages_of(net: nn.Module, *tensors: Tensor) -> list[StorageWeakRef]:
    found = (*net.parameters(), *net.buffers(), *(p.grad for p in net.parameters() if p.grad is not None), *tensors)
    return [StorageWeakRef(tensor.untyped_storage()) for tensor in found]


def train(steps: int = 2) -> tuple[list[StorageWeakRef], list[weakref.ref[Any]]]:
    """Everything there was in a few steps, under weak references."""
    Kept.made.clear()
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())
    storages: list[StorageWeakRef] = []
    for _ in range(steps):
        x = torch.randn(N, D)
        y = net(x)
        loss = y.sum()
        loss.backward()
        optimizer.step()
        storages += storages_of(net, x, y, loss)
    storages += [StorageWeakRef(t.untyped_storage()) for state in optimizer.state.values() for t in state.values()]
    return storages, [weakref.ref(net), weakref.ref(net.first), weakref.ref(optimizer), *Kept.made]


def assert_gone(storages: list[StorageWeakRef], objects: list[weakref.ref[Any]]) -> None:
    assert storages
    assert [reference() for reference in objects] == [None] * len(objects)
    assert all(reference.expired() for reference in storages)


def test_while_it_runs() -> None:
    with attnprof.profile() as prof:
        found = train()
        gc.collect()
        assert_gone(*found)
    assert Reading(prof.trace).live[-1] == 0


def test_after_it_ended() -> None:
    prof = attnprof.profile()
    with prof:
        found = train()
    gc.collect()
    assert_gone(*found)
    trace = prof.trace
    assert_gone(*found)
    assert trace.memory is not None


def test_it_makes_no_cycles() -> None:
    """A step's storages die of their last reference, as they do bare."""
    net = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, D))

    def step() -> list[StorageWeakRef]:
        x = torch.randn(N, D)
        y = net(x)
        loss = y.sum()
        loss.backward()
        net.zero_grad()
        return [StorageWeakRef(t.untyped_storage()) for t in (x, y, loss)]

    with without_collection(), attnprof.profile(net):
        assert all(reference.expired() for reference in step())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["forward", "backward", "hook"])
def test_after_an_exception(where: str, error: type[BaseException]) -> None:
    def fail(*_: Any) -> None:
        raise error

    def run() -> tuple[list[StorageWeakRef], list[weakref.ref[Any]]]:
        Kept.made.clear()
        net, x = Net(), torch.randn(N, D)
        if where == "forward":
            net.second.register_forward_pre_hook(fail)
        elif where == "hook":
            net.register_forward_hook(fail)
        try:
            with prof:
                y = net(x)
                if where == "backward":
                    y.register_hook(fail)
                y.sum().backward()
        except error as caught:
            caught.__traceback__ = None  # it holds every frame
        return storages_of(net, x), [weakref.ref(net), *Kept.made]

    prof = attnprof.profile()
    found = run()
    gc.collect()
    assert_gone(*found)
    reading = Reading(prof.trace)
    assert min(reading.live) >= 0


def test_a_storage_is_never_taken_for_one_that_had_its_place() -> None:
    """Twenty times fifty tensors of as many sizes, gone before the next fifty come: ids are used again."""
    ids: list[int] = []
    sizes = [[E * size for size in range(first, first + 50)] for first in range(1, 1001, 50)]

    def run() -> None:
        for row in sizes:
            batch = [torch.ones(size // E) for size in row]
            ids.extend(id(tensor.untyped_storage()) for tensor in batch)
            del batch

    reading = read(run)
    assert len(set(ids)) < 1000
    assert reading.memory.block_bytes == [size for row in sizes for size in row]
    assert reading.peak == sum(sizes[-1])
    assert reading.live[-1] == 0


def test_many_at_once_and_out_of_order() -> None:
    def run() -> None:
        with torch.no_grad():
            found = [torch.ones(size) for size in range(1, 101)]
            for index in (*range(0, 100, 2), *range(1, 100, 2)):
                found[index] = torch.empty(0)

    reading = read(run)
    assert reading.peak == E * sum(range(1, 101))
    assert reading.live[-1] == 0
