"""What a module was given and what it returned is found in whatever structure it comes."""

from __future__ import annotations

import math
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnprof.capture.carried import carried
from memory.readings import read

E = 4
N, D = 5, 12
ROW = E * N * D


@dataclass
class Plain:
    value: Any
    others: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Slotted:
    value: Any


class Child(Slotted):
    __slots__ = "more"

    def __init__(self, value: Any, more: Any) -> None:
        super().__init__(value)
        self.more = more


Pair = namedtuple("Pair", "first second")

STRUCTURES = {
    "itself": lambda t: t,
    "list": lambda t: [None, t],
    "tuple": lambda t: (1, (t,)),
    "named tuple": lambda t: Pair(t, 2),
    "dict": lambda t: {"a": {"b": t}},
    "ordered dict": lambda t: OrderedDict(a=t),
    "deque": lambda t: deque([t]),
    "set": lambda t: {t},
    "object": lambda t: Plain(t),
    "object in a list in an object": lambda t: Plain(None, [Plain(t)]),
    "slots": lambda t: Slotted(t),
    "inherited slots": lambda t: Child(None, [t]),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(name: str) -> None:
    tensor = torch.ones(1)
    assert [id(found) for found in carried(STRUCTURES[name](tensor))] == [id(tensor)]


@pytest.mark.parametrize("name", STRUCTURES)
def test_what_is_returned_is_not_held(name: str) -> None:
    """Neither the tensor nor the graph behind it is missed."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return STRUCTURES[name](x.exp())

    x = torch.randn(N, D, requires_grad=True)
    reading = read(lambda: Net()(x))
    assert (reading.saved.bytes, reading.saved.held) == (ROW, {})


def test_structures_that_contain_themselves() -> None:
    tensor = torch.ones(1)
    many = [Plain(None) for _ in range(300)]
    for one in many:
        one.others = many  # every one leads to all: three hundred to the power of the depth
    many[7].value = tensor
    assert [id(found) for found in carried(many)] == [id(tensor)]


@pytest.mark.parametrize("value", [None, 3, "text", b"bytes", range(10**9), math, Plain, nn.Linear(2, 2)])
def test_what_carries_no_tensor(value: Any) -> None:
    """Classes, functions, Python modules and models are not searched: a model's tensors are its own."""
    assert carried([value]) == []


def test_the_shortest_way_counts() -> None:
    """What is met first at the end of a long way is searched all the same when a short one leads there."""
    shared = [[[torch.ones(1)]]]
    assert len(carried([[[[[shared]]]], shared])) == 1


def test_depth_is_bounded() -> None:
    deep: Any = torch.ones(1)
    for _ in range(1000):
        deep = [deep]
    assert carried(deep) == []
