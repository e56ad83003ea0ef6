"""What is noted of each call beside shapes: gradients asked for, whether a backward came, repeats, exceptions."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import attnprof
from attnprof.core.trace import Call, ModuleRecord

IN, OUT = "float32[2,3]", "-> float32[2,3]"


def records(prof: attnprof.Profile) -> dict[str, ModuleRecord]:
    return {record.fqn: record for record in prof.trace.modules}


def test_only_calls_with_a_backward_are_said_to_have_one() -> None:
    net = nn.Linear(3, 3)
    with attnprof.profile(net) as prof:
        first, _, third = (net(torch.ones(2, 3)) for _ in range(3))
        (first.sum() + third.sum()).backward()
        with torch.no_grad():
            net(torch.ones(2, 3))
    assert records(prof)[""].call_kinds == {
        Call((IN, OUT), (False, True), backward=True): 2,
        Call((IN, OUT), (False, True)): 1,
        Call((IN, OUT), (False, False)): 1,
    }


def test_an_output_that_nobody_uses_has_no_backward() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            h: Tensor = self.used(x)
            self.unused(h)
            return h

    net = Net()
    with attnprof.profile(net) as prof:
        net(torch.ones(2, 3)).sum().backward()
    found = records(prof)
    assert found["used"].call_kinds == {Call((IN, OUT), (False, True), backward=True): 1}
    assert found["unused"].call_kinds == {Call((IN, OUT), (True, True)): 1}


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_calls_are_told_apart(reentrant: bool) -> None:
    """Reentrant: the repeat is what the backward goes through, in full. Else it stops when all is saved."""
    net = nn.Linear(3, 3)
    x = torch.ones(2, 3, requires_grad=True)
    with attnprof.profile(net) as prof:
        checkpoint(net, x, use_reentrant=reentrant).sum().backward()
    expected = [
        Call((IN, OUT), (True, False)),
        Call((IN, OUT), (True, True), backward=True, recomputed=True),
    ]
    if not reentrant:
        expected = [
            Call((IN, OUT), (True, True), backward=True),
            Call((IN,), (True,), recomputed=True, returned=False),
        ]
    assert records(prof)[""].call_kinds == dict.fromkeys(expected, 1)


def test_a_call_that_raises_did_not_return() -> None:
    net = nn.Linear(3, 3)
    with attnprof.profile(net) as prof, suppress(RuntimeError):
        net(torch.ones(2, 4))
    assert records(prof)[""].call_kinds == {Call(("float32[2,4]",), (False,), returned=False): 1}


def test_the_home_of_a_class() -> None:
    net = nn.Sequential(nn.Linear(3, 3))
    with attnprof.profile(net) as prof:
        net(torch.ones(2, 3))
    assert {name: r.home for name, r in records(prof).items() if r.class_name} == {
        "": "torch.nn.modules.container",
        "0": "torch.nn.modules.linear",
    }


def test_tensors_in_a_tuple_are_part_of_a_kind() -> None:
    net = nn.LSTMCell(3, 3)
    with attnprof.profile(net) as prof:
        net(torch.ones(2, 3), (torch.ones(2, 3), torch.ones(2, 3, requires_grad=True)))
    record = records(prof)[""]
    assert record.calls == {(IN,): 1}
    assert record.call_kinds == {Call((IN, f"* {IN}", f"* {IN}"), (False, False, True)): 1}
