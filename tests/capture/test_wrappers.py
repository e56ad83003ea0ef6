"""Wrappers leave no trace in names: a module inside one is called what its author called it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from capture.nets import Chain, both, linear, rows, units

ONE_STEP = Chain.expected


def test_data_parallel_vanishes_from_names() -> None:
    net = Chain()
    wrapped = nn.DataParallel(net)  # on a CPU it calls its module in this thread
    with attnprof.profile(wrapped) as prof:
        wrapped(rows()).sum().backward()
    report = prof.report()
    assert units(report) == ONE_STEP
    assert {node.fqn: node.calls for node in report.root.walk() if node.calls} == {"": 1, "first": 1, "second": 1}
    assert report.root.class_name == "Chain"


def test_data_parallel_inside_a_model() -> None:
    net = nn.Sequential(nn.DataParallel(Chain()))
    with attnprof.profile(net) as prof:
        net(rows()).sum().backward()
    assert units(prof.report()) == {"0.first": both(1, 2), "0.second": both(1, 2)}


class Wrapper(nn.Module):
    """Holds a module the way FSDP does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._fsdp_wrapped_module = module

    def forward(self, *args: Any) -> Any:
        return self._fsdp_wrapped_module(*args)


def test_wrappers_of_wrappers_vanish() -> None:
    net = nn.Sequential(Wrapper(nn.DataParallel(Wrapper(Chain()))))
    with attnprof.profile(net) as prof:
        net(rows()).sum().backward()
    report = prof.report()
    assert units(report) == {"0.first": both(1, 2), "0.second": both(1, 2)}
    assert {node.fqn for node in report.root.walk()} == {"", "(outside)", "(optimizer)", "0", "0.first", "0.second"}
    assert report.root.find("0").class_name == "Chain"
    assert report.root.find("0").calls == 1


@pytest.fixture
def one_process() -> Iterator[None]:
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_distributed_data_parallel() -> None:
    """Names and counts are those of the module inside."""
    wrapped = nn.parallel.DistributedDataParallel(Chain())
    with attnprof.profile(wrapped) as prof:
        for _ in range(2):
            wrapped(rows()).sum().backward()
    assert units(prof.report()) == {"first": both(2, 4), "second": both(2, 4)}


def test_a_child_called_module_keeps_its_name() -> None:
    """Only wrappers vanish: ``module`` is an ordinary name in an ordinary class."""

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = linear()

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)

    net = Holder()
    with attnprof.profile(net) as prof:
        net(rows()).sum().backward()
    assert units(prof.report()) == {"module": both(1, 2)}
