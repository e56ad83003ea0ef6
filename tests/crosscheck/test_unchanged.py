"""A cross-check changes nothing: not the model, not what torch keeps globally, not after a failure either."""

from __future__ import annotations

import copy
import csv
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from crosscheck.models import Call

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")


class Net(nn.Module):
    """Has all that a run may change: buffers, dropout, a gradient, a frozen weight, a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.b = nn.Linear(8, 2)
        self.b.bias.requires_grad_(False)
        self.a.weight.grad = torch.ones_like(self.a.weight)
        self.b.eval()
        self.seen = 0
        self.a.register_forward_hook(lambda *_: None)

    def forward(self, x: Tensor) -> Any:
        return self.b(self.drop(self.norm(self.a(x))))


class Fails(nn.Module):
    """Runs, but not where it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor) -> Any:
        y = self.net(x)
        if torch.jit.is_tracing():
            raise RuntimeError("no tracing here")
        return y


def state(model: nn.Module) -> dict[str, Any]:
    hooks = {name: [len(getattr(m, name)) for m in model.modules()] for name in _HOOKS}
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "identities": [id(t) for t in (*model.parameters(), *model.buffers())],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "trained": [p.requires_grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "hooks": hooks,
        "random": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
        "tracing": torch._C._get_tracing_state(),
    }


def same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return isinstance(after, Tensor) and torch.equal(before, after)
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(same(before[key], after[key]) for key in before)
    if isinstance(before, list):
        return len(before) == len(after) and all(map(same, before, after))
    return bool(before == after)


@pytest.mark.parametrize("how", [{}, {"backward": True}, {"optimizer": "adamw"}, {"plan": attnprof.Plan(dtype="bf16")}])
@pytest.mark.parametrize("kind", [Net, Fails])
def test_the_model_is_as_it_was(kind: type[nn.Module], how: dict[str, Any]) -> None:
    model, x = kind(), torch.randn(3, 4)
    before, given = state(model), x.clone()
    fvcore, torch_ = attnprof.crosscheck(model, (x,), **how).crosschecks
    after = state(model)
    for part in before:
        assert same(before[part], after[part]), part
    assert torch.equal(x, given)
    assert torch_.unexplained == 0
    assert fvcore.problem == ("it raised RuntimeError: no tracing here." if kind is Fails else "")


def test_what_the_model_computes_afterwards_is_what_it_computed() -> None:
    model, x = Net(), torch.randn(3, 4)
    twin = copy.deepcopy(model)
    attnprof.crosscheck(model, (x,), backward=True)
    torch.manual_seed(1)
    found = model(x)
    torch.manual_seed(1)
    assert torch.equal(found, twin(x))


def test_an_interrupt_leaves_nothing_behind() -> None:
    """One that comes while fvcore traces: its hooks are gone, and nothing is being traced."""

    def interrupted(weight: Tensor, x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise KeyboardInterrupt
        return x @ weight

    model, x = nn.Sequential(Call(interrupted)), torch.randn(2, 4)
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        attnprof.crosscheck(model, (x,))
    after = state(model)
    assert all(same(before[part], after[part]) for part in before)


def test_a_compiled_model_is_not_compiled_for_it() -> None:
    compiled: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(len(inputs))
        return graph.forward

    model = torch.compile(nn.Sequential(nn.Linear(4, 8, bias=False)), backend=backend)
    x = torch.randn(3, 4)
    model(x)
    assert len(compiled) == 1
    for check in attnprof.crosscheck(model, (x,)).crosschecks:
        assert check.unexplained == 0
        assert check.total is not None
        assert check.total.theirs == 2 * 3 * 4 * 8
    model(x)
    assert len(compiled) == 1


def test_the_report_itself_is_the_same_with_and_without() -> None:
    model, x = Net(), torch.randn(3, 4)
    torch.manual_seed(0)
    alone = attnprof.run(model, (x,), backward=True)
    torch.manual_seed(0)
    checked = attnprof.crosscheck(model, (x,), backward=True)
    assert alone.by_module() == checked.by_module()
    assert alone.crosschecks == ()
    plain, with_others = (list(csv.DictReader(io.StringIO(report.to_csv()))) for report in (alone, checked))
    assert [{name: row[name] for name in plain[0]} for row in with_others] == plain
