"""Legal programs whose memory once came out wrong, or that memory tracking once broke."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.capture.ledger import Ledger
from memory.reference import allocator

E = 4
N, D = 3, 4
X = torch.ones(N, D)


class _Steps(torch.optim.Optimizer):
    """A user's optimizer: its state is what it likes."""

    def __init__(self, params: Iterator[nn.Parameter]) -> None:
        super().__init__(params, {})

    def parameters(self) -> Iterator[nn.Parameter]:
        yield from (p for group in self.param_groups for p in group["params"])


class CountsSteps(_Steps):
    """Keeps one number for all parameters, under a name of its own, as ``state_dict`` allows."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        self.state["steps"] = self.state.get("steps", 0) + 1
        for p in self.parameters():
            p -= 0.1 * p.grad / self.state["steps"]


class KeepsTensors(_Steps):
    """The state of a parameter is a tensor, not a dict of tensors."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for p in self.parameters():
            self.state[p] = self.state.get(p, torch.zeros_like(p)) + p.grad
            p -= 0.1 * self.state[p]


@pytest.mark.parametrize(("kind", "size"), [(CountsSteps, 0), (KeepsTensors, E * (D * D + D))])
def test_optimizers_whose_state_is_no_dict_for_each_parameter(kind: type[_Steps], size: int) -> None:
    def trained(profiled: bool) -> tuple[list[Tensor], dict[str, int]]:
        torch.manual_seed(0)
        model = nn.Linear(D, D)
        optimizer = kind(model.parameters())
        states: dict[str, int] = {}

        def train() -> None:
            for _ in range(2):
                optimizer.zero_grad()
                model(X).sum().backward()
                optimizer.step()

        if profiled:
            with attnprof.profile(model) as prof:
                train()
            memory = prof.report().memory
            assert memory is not None
            states = memory.optimizer_states
        else:
            train()
        return [p.detach() for p in model.parameters()], states

    bare, _ = trained(profiled=False)
    values, states = trained(profiled=True)
    assert all(map(torch.equal, bare, values))
    assert states == ({"state": size} if size else {})
    model = nn.Linear(D, D)
    memory = attnprof.run(model, (X,), optimizer=kind(model.parameters())).memory
    assert memory is not None
    assert memory.optimizer_bytes == size


class EndsWithResize(nn.Module):
    """Gives a tensor of its own another size when no op follows."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer, self.size = nn.Linear(D, D), size

    def forward(self, x: Tensor) -> Tensor:
        output = self.layer(x)
        self.kept = output * 2
        self.kept.untyped_storage().resize_(self.size)
        return output


class OnlyResizes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x.untyped_storage().resize_(1000)
        return x


@pytest.mark.parametrize("size", [0, 1000])
def test_a_forward_that_ends_with_a_resize(size: int) -> None:
    model = EndsWithResize(size)
    with torch.no_grad(), attnprof.profile(model) as prof:
        model(X)
    memory = prof.report().memory
    assert memory is not None
    assert memory.held_bytes == size
    with attnprof.profile() as prof:
        OnlyResizes()(torch.ones(N))
    assert prof.report().total.flops == 0


def test_threads_that_allocate_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, calls = 4, 10
    model = nn.Linear(D, D)
    outputs: list[Tensor] = []
    size = torch.UntypedStorage.nbytes

    def slowly(storage: torch.UntypedStorage) -> int:
        time.sleep(1e-4)  # another thread's turn
        return size(storage)

    monkeypatch.setattr(torch.UntypedStorage, "nbytes", slowly)

    def work() -> None:
        with prof:
            y = X
            for _ in range(calls):
                y = torch.relu(model(y))
            outputs.append(y)

    with attnprof.profile(model) as prof:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    report = prof.report()
    assert len(outputs) == threads  # none was broken
    assert report.total.matmul_flops == threads * calls * 2 * N * D * D
    memory = report.trace.memory
    assert memory is not None
    left = set(memory.log) - {~entry for entry in memory.log}
    # At the end each graph keeps the outputs of its relus: what their backwards and the next layers need.
    assert sum(memory.block_bytes[block] for block in left if block >= 0) == E * (
        D * D + D + N * D * (1 + threads * calls)
    )


def _looked_at(layers: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How many tensors and modules are looked at while so many new modules run, one after the other."""
    tensors = modules = 0
    behind, named = Ledger._behind, nn.Module.named_modules

    def storages(self: Ledger, tensor: Tensor) -> Iterable[Any]:
        nonlocal tensors
        tensors += 1
        return behind(self, tensor)

    def parts(self: nn.Module, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        nonlocal modules
        modules += 1
        return named(self, *args, **kwargs)

    made = [nn.Linear(D, D) for _ in range(layers)]
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_behind", storages)
        patch.setattr(nn.Module, "named_modules", parts)
        with torch.no_grad(), attnprof.profile():
            for layer in made:
                layer(X)
    return tensors, modules


def test_new_modules_one_after_the_other_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, modules = (
        [now - before for before, now in itertools.pairwise(found)]
        for found in zip(*(_looked_at(layers, monkeypatch) for layers in (10, 20, 30)), strict=True)
    )
    assert tensors[0] == tensors[1] > 0  # ten more cost the same, however many there were
    assert modules[0] == modules[1] > 0


def test_parameters_of_modules_that_come_and_go() -> None:
    layer = E * (D * D + D)
    kept = [nn.Linear(D, D) for _ in range(3)]
    kept[1].weight = kept[0].weight  # shared: once
    with torch.no_grad(), attnprof.profile() as prof:
        for one in kept:
            one(X)
        for width in (1, 3, 2):  # each is gone before the next, which takes over its record
            nn.Linear(D, width)(X)
        nn.Sequential(nn.Linear(D, 2), nn.ReLU())(X)
    memory = prof.report().memory
    assert memory is not None
    assert memory.parameter_bytes == (3 * layer - E * D * D) + E * (D * 3 + 3)  # at their most: with the largest one


class AddsToIts(torch.autograd.Function):
    """Whose backward adds two tensors that it has made."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad.neg() + grad.exp()


class AddsToGiven(AddsToIts):
    """Whose backward adds to the gradient that it is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad + x


class FansOut(nn.Module):
    """One wide tensor that several ops read; its gradients are what the step holds most of."""

    def __init__(self, read: Callable[[Tensor], Iterable[Tensor]]) -> None:
        super().__init__()
        self.layer, self.read = nn.Linear(D, 500), read

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part.sum(-1, keepdim=True) for part in self.read(self.layer(x))], -1)


FANS: dict[str, Callable[[Tensor], Iterable[Tensor]]] = {
    "two": lambda h: (h.neg(), h.neg()),
    "three": lambda h: (h.neg(), h.neg(), h.neg()),
    "a transposed one": lambda h: (h.t().neg().t(), h.neg()),
    "an expanded one": lambda h: (h, h.neg()),
    "residual": lambda h: ((h + h.tanh()).neg(),),
    "a function's own sum": lambda h: (AddsToIts.apply(h.neg()),),  # type: ignore[no-untyped-call]
    "a function's sum with what it is given": lambda h: (AddsToGiven.apply(h).neg(),),  # type: ignore[no-untyped-call]
    "a formula's own sum": lambda h: (torch.nn.functional.normalize(h), h.neg()),
}


@pytest.mark.parametrize("read", FANS.values(), ids=FANS)
def test_gradients_are_added_up_where_the_first_is(read: Callable[[Tensor], Iterable[Tensor]]) -> None:
    """Autograd does so without a dispatch mode; torch's allocator, which needs none, tells the same peak."""
    model, x = FansOut(read), torch.randn(40, D)

    def step() -> None:
        model(x).square().sum().backward()
        model.zero_grad()

    step()
    with attnprof.profile(model) as prof:
        step()
    memory = prof.report().memory
    assert memory is not None
    numbers = sum(block.bytes for block in memory.blocks_at_peak if block.kind == "input") - E * x.numel()
    given = E * (x.numel() + sum(p.numel() for p in model.parameters())) + numbers
    assert memory.peak.bytes - given == allocator(step).peak


def test_storage_that_cannot_be_seen_is_said() -> None:
    """The blocked layout of oneDNN shows no storage: what is missing is no silent zero."""
    x = torch.randn(8, 8)
    with attnprof.profile() as prof:
        x.to_mkldnn().relu()
    assert [note for note in prof.report().notes if "lower bounds" in note and "mkldnn" in note]
    with attnprof.profile() as prof:
        x.relu()
    assert not prof.report().notes
