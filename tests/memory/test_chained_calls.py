"""Outermost calls that go on from each other: the graph behind grows, and each call counts all of it, walked once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnprof.capture import saved
from memory.readings import Reading, read

E = 4
N, D = 5, 12
ROW = E * N * D


class Cell(nn.Module):
    """One step of a recurrence: tanh(layer(x) + h) * h."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, D)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(self.layer(x) + h) * h


def unrolled(cell: Cell, steps: int) -> None:
    h = torch.ones(N, D)
    for _ in range(steps):
        h = cell(torch.randn(N, D), h)
    h.sum().backward()


def test_an_unrolled_recurrence() -> None:
    """Every step adds its input, tanh and its state, of which the first one is the caller's."""
    cell = Cell()
    reading = read(lambda: unrolled(cell, 4), cell)
    assert [call.bytes for call in reading.memory.saved] == [3 * ROW, 6 * ROW, 9 * ROW, 12 * ROW]
    assert [call.input_bytes for call in reading.memory.saved] == [2 * ROW] * 4
    assert reading.saved_by_name(3) == {"layer": 4 * ROW, "": 8 * ROW}


def test_each_node_is_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand steps are not a thousand times a thousand; parameters are met again by every step."""
    walked: list[int] = []
    nodes_behind = saved.nodes_behind

    def counted(*args: Any) -> Any:
        nodes, behind = nodes_behind(*args)
        walked.append(len(nodes))
        return nodes, behind

    monkeypatch.setattr(saved, "nodes_behind", counted)
    cell = Cell()
    read(lambda: unrolled(cell, 30), cell)
    assert len(set(walked[1:])) == 1


def test_after_a_backward_it_starts_again() -> None:
    cell = Cell()

    def run() -> None:
        for _ in range(2):
            unrolled(cell, 2)

    assert [call.bytes for call in read(run, cell).memory.saved] == [3 * ROW, 6 * ROW] * 2


def test_what_a_backward_freed_is_saved_no_more() -> None:
    """Though its nodes are still behind the output, and the input that they had saved still lives."""
    layer, x = nn.Linear(D, D), torch.randn(N, D)

    def run() -> None:
        y = layer(x)
        y.sum().backward()
        nn.Tanh()(y)

    assert [call.bytes for call in read(run).memory.saved] == [ROW, ROW]


def test_a_function_of_the_users_that_a_backward_freed() -> None:
    """Asked for what it saved, it raises that it is gone."""

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient * 2 + 0 * ctx.saved_tensors[0]

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Doubled.apply(x)

    x = torch.randn(N, D, requires_grad=True)

    def run() -> None:
        y = Net()(x)
        y.sum().backward()
        nn.Tanh()(y)

    assert [call.bytes for call in read(run).memory.saved] == [ROW, ROW]


def test_what_died_of_an_earlier_call_is_saved_no_more() -> None:
    """One of its two outputs was dropped, and the graph behind that one with it."""

    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.exp(), x.sigmoid()

    x = torch.randn(N, D, requires_grad=True)

    def run() -> None:
        first, second = Two()(x)
        del second
        nn.Tanh()(first)

    assert [call.bytes for call in read(run).memory.saved] == [2 * ROW, 2 * ROW]


def branches() -> None:
    """Calls that fork, meet, leave the modules in between, and use what others left as an attribute."""
    torch.manual_seed(0)
    first, second, third = nn.Linear(D, D), nn.Sequential(nn.Linear(D, D), nn.Tanh()), Cell()
    x = torch.randn(N, D, requires_grad=True)
    a = first(x)
    b = second(a.exp())
    c = second(a)
    third(b.sigmoid() * c, a)
    loss = third(first(b), c).sum() + c.square().mean()
    loss.backward(retain_graph=True)
    (second(b).sum() + loss).backward()
    second(first(x.detach()))


def with_a_call_in_a_hook() -> None:
    cell, layer = Cell(), nn.Linear(D, D)
    h = cell(torch.randn(N, D), torch.ones(N, D))
    h.register_hook(lambda gradient: layer(gradient))
    cell(torch.randn(N, D), h).sum().backward()


def with_side_outputs() -> None:
    """What the second call goes on from was not in the first one's output."""

    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(D, D)
            self.left: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            self.left = self.layer(x).exp()
            return x.sin()

    net, after = Aside(), nn.Tanh()
    y = net(torch.randn(N, D, requires_grad=True))
    (y + after(net.left)).sum().backward()


def deep() -> None:
    """More and more nodes, so that what is remembered is forgotten now and then."""
    unrolled(Cell(), 12)


def summary(reading: Reading) -> list[Mapping[str, int]]:
    return [reading.saved_by_name(call) for call in range(len(reading.memory.saved))]


GRAPHS = [branches, with_a_call_in_a_hook, with_side_outputs, deep]


@pytest.mark.parametrize("remembered", [0, 10, 100_000])
@pytest.mark.parametrize("run", GRAPHS, ids=lambda run: run.__name__)
def test_it_is_what_walking_everything_finds(
    run: Callable[[], None], remembered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved, "_REMEMBERED", remembered)
    once = summary(read(run))
    monkeypatch.setattr(saved.Walked, "add", lambda *args: None)
    assert summary(read(run)) == once
    assert any(once)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop without a backward leaves graphs that nothing tells the end of."""
    monkeypatch.setattr(saved, "_REMEMBERED", 50)
    most: list[int] = []
    begin = saved.Walked.begin

    def counted(walked: saved.Walked) -> None:
        begin(walked)
        most.append(len(walked.call_of))

    monkeypatch.setattr(saved.Walked, "begin", counted)
    cell, x, h = Cell(), torch.randn(N, D), torch.ones(N, D)
    read(lambda: [cell(x, h).sum().item() for _ in range(100)], cell)
    assert 0 < max(most) <= 50


def test_what_the_first_call_kept_is_gone_when_its_graph_is() -> None:
    """A step without its gradient: the graph behind it died, though its input lives."""
    layer, x = nn.Linear(D, D), torch.randn(N, D)

    def run() -> None:
        y = layer(x)
        y = layer(y.detach())
        y.sum().backward()

    assert [call.bytes for call in read(run, layer).memory.saved] == [ROW, ROW]
