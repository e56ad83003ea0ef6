"""Steps that are counted once: totals are those of counting every step, whatever the program does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof

Program = Callable[[attnprof.Profile, nn.Module], None]


@dataclass
class Record:
    times: int


class Times(Enum):
    NEVER, ONCE, TWICE = range(3)


Again = int | Record | Times | Callable[[], int]


def times_of(again: Again) -> int:
    if isinstance(again, Record):
        return again.times
    if isinstance(again, Times):
        return int(again.value)
    return again if isinstance(again, int) else again()


class Gate(nn.Module):
    """A model with a switch, a table and two layers, called with a tensor and perhaps more."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 10), nn.Linear(10, 6)
        self.wide = False

    def forward(self, x: Tensor, again: Again = 0, cache: list[Tensor] | None = None) -> Tensor:
        y = self.second(self.first(x).relu())
        for _ in range(times_of(again)):
            y = self.second(self.first(y).relu())
        return y if cache is None else y + cache[0].sum()


def rows(n: int = 4) -> Tensor:
    return torch.ones(n, 6)


def plain(prof: attnprof.Profile, model: nn.Module) -> None:
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(7):
        model(rows()).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        prof.step()


def without_state(prof: attnprof.Profile, model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters())
    for _ in range(7):
        model(rows()).sum().backward()
        optimizer.step()
        prof.step()


def lengths(prof: attnprof.Profile, model: nn.Module) -> None:
    optimizer = torch.optim.Adam(model.parameters())
    for n in (3, 5, 3, 5, 8, 3, 3, 5, 8, 8, 3):
        model(rows(n)).sum().backward()
        optimizer.step()
        prof.step()


def accumulated(prof: attnprof.Profile, model: nn.Module) -> None:
    """A step for each micro batch: the optimizer steps in every third."""
    optimizer = torch.optim.Adam(model.parameters())
    for i in range(15):
        model(rows()).sum().backward()
        if i % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
        prof.step()


def accumulated_inside(prof: attnprof.Profile, model: nn.Module) -> None:
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(5):
        for _ in range(3):
            model(rows()).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        prof.step()


def validated(prof: attnprof.Profile, model: nn.Module) -> None:
    """An evaluation after every third step, part of the step that it follows."""
    optimizer, held_out = torch.optim.SGD(model.parameters()), rows(9)
    for i in range(12):
        model(rows()).sum().backward()
        optimizer.step()
        if i % 3 == 2:
            model.eval()
            with torch.no_grad():
                for _ in range(4):
                    model(held_out)
            model.train()
        prof.step()


def generated(prof: attnprof.Profile, model: nn.Module) -> None:
    """The state that a call is given grows."""
    with torch.no_grad():
        for n in (1, 2, 3, 1, 2, 3, 1, 2, 3):
            model(rows(1), cache=[torch.ones(n, 6)])
            prof.step()


def asked_for(prof: attnprof.Profile, model: nn.Module) -> None:
    """An argument that is no tensor decides how much is done."""
    for again in (0, 2, 0, 2, 1, 0, 2):
        model(rows(), again)
        prof.step()


def frozen_later(prof: attnprof.Profile, model: nn.Module) -> None:
    for i in range(9):
        if i == 4:
            model.first.requires_grad_(False)  # type: ignore[union-attr,operator]
        model(rows()).sum().backward()
        prof.step()


def a_group_later(prof: attnprof.Profile, model: nn.Module) -> None:
    optimizer = torch.optim.AdamW(model.first.parameters())  # type: ignore[union-attr]
    for i in range(10):
        if i == 5:
            optimizer.add_param_group({"params": list(model.second.parameters())})  # type: ignore[union-attr]
        model(rows()).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        prof.step()


def autocast_at_times(prof: attnprof.Profile, model: nn.Module) -> None:
    for i in range(8):
        with torch.autocast("cpu", torch.bfloat16, enabled=i % 2 == 0):
            model(rows()).sum().backward()
        prof.step()


def loading(prof: attnprof.Profile, model: nn.Module) -> None:
    """The first step sets things up, and each loads its data."""
    data = torch.arange(60.0).sqrt()
    for n in (2, 4, 2, 2, 4, 2, 4, 4):
        x = data[: n * 6].view(n, 6) * 2
        model(x).sum().backward()
        prof.step()


def marked_before(prof: attnprof.Profile, model: nn.Module) -> None:
    """The mark stands at the beginning of a step."""
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(7):
        prof.step()
        model(rows()).sum().backward()
        optimizer.step()


def two_optimizers(prof: attnprof.Profile, model: nn.Module) -> None:
    one = torch.optim.Adam(model.first.parameters())  # type: ignore[union-attr]
    two = torch.optim.SGD(model.second.parameters(), momentum=0.5)  # type: ignore[union-attr]
    for i in range(10):
        model(rows()).sum().backward()
        (one if i % 2 else two).step()
        prof.step()


def clipped(prof: attnprof.Profile, model: nn.Module) -> None:
    """Gradients are clipped where the optimizer steps, after every third backward, and after the last."""
    optimizer = torch.optim.Adam(model.parameters())
    for i in range(20):
        model(rows()).sum().backward()
        if i % 3 == 2 or i == 19:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        prof.step()


def scaled(prof: attnprof.Profile, model: nn.Module) -> None:
    """Two steps overflow, and the optimizer does not step. The scaler makes its tensors when it is first used."""
    optimizer, scaler = torch.optim.SGD(model.parameters()), torch.amp.GradScaler("cpu", init_scale=2.0)
    scaler.scale(torch.ones(()))
    for i in range(12):
        loss = model(rows()).sum() * (float("inf") if i in (4, 7) else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        prof.step()


def records(prof: attnprof.Profile, model: nn.Module) -> None:
    """What decides is a number in a record, a member of an enumeration, or a function."""
    for times in (0, 2, 0, 1, 2, 1, 0):
        model(rows(), Record(times))
        prof.step()
        model(rows(), Times(times))
        prof.step()
        model(rows(), [lambda: 0, lambda: 1, lambda: 2][times])
        prof.step()


def replaced(prof: attnprof.Profile, model: nn.Module) -> None:
    torch.manual_seed(1)
    wider = nn.Sequential(nn.Linear(6, 20), nn.Linear(20, 10))
    for i in range(10):
        if i == 5:
            model.first = wider
        model(rows()).sum().backward()
        prof.step()


def hooked(prof: attnprof.Profile, model: nn.Module) -> None:
    with torch.no_grad():
        for i in range(8):
            if i == 4:
                model.first.register_forward_hook(lambda m, args, y: y * 2)  # type: ignore[union-attr]
            model(rows())
            prof.step()


def losses(prof: attnprof.Profile, model: nn.Module) -> None:
    """No call shows which loss is taken; the nodes that autograd makes do."""
    for i in range(12):
        y = model(rows())
        (y.square().mean() if i % 4 == 3 else y.sum()).backward()
        prof.step()


def mapped(prof: attnprof.Profile, model: nn.Module) -> None:
    for n in (2, 3, 5, 2, 3, 5):
        torch.func.vmap(model)(torch.ones(n, 4, 6))
        prof.step()


def other_optimizers(prof: attnprof.Profile, model: nn.Module) -> None:
    """Made anew, of another kind, and with other options."""
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters())
    for i in range(16):
        if i == 4:
            optimizer.param_groups[0]["weight_decay"] = 0.1
        if i == 8:
            optimizer = torch.optim.Adam(model.parameters())
        model(rows()).sum().backward()
        if i == 13:
            model.first.weight.grad = None  # type: ignore[union-attr]
        optimizer.step()
        optimizer.zero_grad()
        prof.step()


def not_rectified(prof: attnprof.Profile, model: nn.Module) -> None:
    """RAdam does other work in its first five steps."""
    optimizer = torch.optim.RAdam(model.parameters())
    for _ in range(12):
        model(rows()).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        prof.step()


def closures(prof: attnprof.Profile, model: nn.Module) -> None:
    """L-BFGS calls the model itself, and its history grows."""
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.01, max_iter=3, history_size=4)
    x = torch.arange(48.0).view(8, 6).sin()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    for _ in range(8):
        optimizer.step(closure)
        prof.step()


def inferred(prof: attnprof.Profile, model: nn.Module) -> None:
    """Known and new shapes inside ``inference_mode``, with work after it; one shape is met once."""
    x = rows(7)
    for n in (4, 4, 4, 5, 4, 6, 6, 4):
        with torch.inference_mode():
            y = model(x[:n]) if n < 7 else x
        x.mul(2)
        y.sum()
        prof.step()


PROGRAMS = [
    clipped, scaled, records, replaced, hooked, losses, mapped, other_optimizers, not_rectified,
    closures, inferred, plain, without_state, lengths, accumulated, accumulated_inside, validated, generated,
    asked_for, frozen_later, a_group_later, autocast_at_times, loading, marked_before, two_optimizers,
]  # fmt: skip


#: What a step does before a call that is met once, while nothing is counted, is not seen.
LEAD_OF_ONE = [
    "What 1 step did before the first call of the model was not counted, and is taken to be what another step did "
    "there."
]


def counted(program: Program, recount_every: int | None) -> attnprof.Report:
    torch.manual_seed(0)
    model = Gate()
    with attnprof.profile(model, recount_every=recount_every) as prof:
        program(prof, model)
    return prof.report()


def numbers(report: attnprof.Report) -> dict[str, Any]:
    """All that does not say how often a step was looked at. Torch's marks for its profiler, which are free, are left
    out: one that was set before an optimizer's step was found to be new is not seen.
    """
    return {
        "phases": report.phases,
        "modules": {phase: report.by_module(phase) for phase in report.phases},
        "operators": report.by_operator(),
        "operator calls": {op: n for op, n in report.operator_calls().items() if not op.startswith("profiler.")},
        "calls": [record.calls for record in report.trace.modules],
        "kinds of calls": [record.call_kinds for record in report.trace.modules],
        "coverage": {status: n for status, n in report.counts.items() if status != "free"},
        "training": report.training and (report.training.forward, report.training.backward, report.training.recompute),
        "theory": [(c.module, c.phase, c.kind, c.measured, c.predicted) for c in report.comparisons],
    }


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_totals_are_those_of_counting_every_step(program: Program) -> None:
    every, once = counted(program, 1), counted(program, None)
    mine, theirs = numbers(once), numbers(every)
    assert {name: mine[name] for name in mine if mine[name] != theirs[name]} == {}
    assert every.notes == []
    assert once.notes == (LEAD_OF_ONE if program in (asked_for, inferred) else [])
    assert once.pace is not None
    assert once.pace.reused > 0
    assert len(once.trace) < len(every.trace)
    assert every.pace is None


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_the_model_ends_as_it_does_bare(program: Program) -> None:
    class Nothing:
        def step(self) -> None: ...

    torch.manual_seed(0)
    bare, ours = Gate(), Gate()
    ours.load_state_dict(bare.state_dict())
    program(Nothing(), bare)  # type: ignore[arg-type]
    with attnprof.profile(ours) as prof:
        program(prof, ours)
    for mine, theirs in zip(ours.parameters(), bare.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert (mine.grad is None) == (theirs.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, theirs.grad)
    assert vars(ours).keys() == vars(bare).keys()


def test_a_model_converted_meanwhile_is_counted_anew() -> None:
    """Its arguments stay, and are cast by a hook."""
    model = Gate()
    model.register_forward_pre_hook(lambda m, args: (args[0].to(m.first.weight.dtype),))
    with torch.no_grad(), attnprof.profile(model) as prof:
        for i in range(8):
            if i == 5:
                model.double()
            model(rows())
            prof.step()
    report, one = prof.report(), 2 * (2 * 4 * 6 * 10)
    assert report.total.matmul_flops == 8 * one
    assert [part for part in report.total.split if part[0] == "matmul"] == [
        ("matmul", "float32", 5 * one),
        ("matmul", "float64", 3 * one),
    ]


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_ragged_lengths_are_part_of_a_call(layout: torch.layout) -> None:
    layer = nn.Linear(6, 8)
    lengths = [(2, 3), (1, 5), (2, 3), (4, 4), (1, 5), (2, 3), (1, 5)]
    totals = []
    for recount_every in (1, None):
        with torch.no_grad(), attnprof.profile(layer, recount_every=recount_every) as prof:
            for one, two in lengths:
                layer(torch.nested.nested_tensor([torch.ones(one, 6), torch.ones(two, 6)], layout=layout))
                prof.step()
        totals.append(prof.report().total.matmul_flops)
    assert totals == [sum(2 * (one + two) * 6 * 8 for one, two in lengths)] * 2


def test_the_entries_of_a_sparse_tensor_are_part_of_a_call() -> None:
    """2 FLOPs for each entry and column of the product."""

    class Graph(nn.Module):
        def forward(self, edges: Tensor, x: Tensor) -> Tensor:
            return torch.sparse.mm(edges, x)

    net, entries = Graph(), [1, 3, 1, 2, 3, 1]
    with attnprof.profile(net) as prof:
        for n in entries:
            net(torch.eye(4)[:n].to_sparse(), torch.ones(4, 5))
            prof.step()
    assert prof.report().total.matmul_flops == sum(2 * n * 5 for n in entries)


def test_steps_add_up_to_the_total() -> None:
    report = counted(plain, None)
    assert attnprof.Cost.sum(step.cost for step in report.steps) == report.total
    assert [step.label for step in report.steps] == ["counted step 1", "counted step 2", "(5 like these)"]
    assert (
        sum(step.total.attainable.seconds > 0 for step in report.roofline_on(attnprof.device("a100-sxm-80gb")).steps)
        == 3
    )


def test_how_many_were_counted_reused_and_timed() -> None:
    """AdamW: the first makes the state, the second is a steady one; five more are like it, and bare from end to end."""
    pace = counted(plain, None).pace
    assert pace is not None
    assert (pace.counted, pace.reused, pace.timed) == (2, 5, 5)
    assert [kind.kind.inputs for kind in pace.kinds] == [("float32[4,6]", "AdamW.step()")] * 2


def test_recount_every() -> None:
    """Of steps 2 to 13, which are alike, every third is counted again: 2, 5, 8, 11."""

    def long(prof: attnprof.Profile, model: nn.Module) -> None:
        for _ in range(13):
            model(rows())
            prof.step()

    pace = counted(long, 3).pace
    assert pace is not None
    assert (pace.counted, pace.reused) == (5, 8)
    assert numbers(counted(long, 3)) == numbers(counted(long, 1))


def test_what_no_call_shows_needs_a_recount() -> None:
    """A flag of the model's is not seen; after ``recount`` the steps are counted as they are now."""

    class Switch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.twice = nn.Linear(6, 6, bias=False), False

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)) if self.twice else self.layer(x)

    model, one = Switch(), 2 * 4 * 6 * 6
    with attnprof.profile(model) as prof, torch.no_grad():
        for step in range(10):
            if step == 5:
                model.twice = True
                prof.recount()
            model(rows())
            prof.step()
    assert prof.report().total.matmul_flops == 5 * one + 5 * 2 * one


def test_values_that_decide_are_told() -> None:
    """A routed model: a note names the op, and counting again finds other work."""

    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.expert = nn.Linear(6, 6, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            chosen = (x[:, 0] > 0).nonzero().squeeze(1)
            return self.expert(x[chosen])

    def steps(prof: attnprof.Profile, model: nn.Module) -> None:
        for chosen in (1, 2, 3, 4, 1, 2):
            x = -rows(4)
            x[:chosen] = 1
            model(x)
            prof.step()

    def total(recount_every: int | None) -> attnprof.Report:
        model = Routed()
        with attnprof.profile(model, recount_every=recount_every) as prof, torch.no_grad():
            steps(prof, model)
        return prof.report()

    assert total(1).total.matmul_flops == 2 * 6 * 6 * (1 + 2 + 3 + 4 + 1 + 2)
    (note,) = total(None).notes
    assert note.startswith("How much aten.index.Tensor, aten.nonzero.default gives depends on the values in a tensor")
    (note,) = total(2).notes
    assert "did not cost the same when they were counted again" in note


def parts_only(prof: attnprof.Profile, model: nn.Module) -> None:
    """The program calls the layers of the model, never the model: what they are given differs from step to step."""
    optimizer = torch.optim.Adam(model.parameters())
    for n in (1, 2, 3, 4, 5, 6):
        model.second(model.first(rows(n)).relu()).sum().backward()  # type: ignore[union-attr,operator]
        optimizer.step()
        prof.step()


def past_the_call(prof: attnprof.Profile, model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters())
    for n in (1, 2, 3, 4, 5, 6):
        model.forward(rows(n)).sum().backward()  # type: ignore[operator]
        optimizer.step()
        prof.step()


@pytest.mark.parametrize("program", [parts_only, past_the_call], ids=lambda program: program.__name__)
def test_steps_that_cannot_be_told_apart_are_all_counted(program: Program) -> None:
    every, once = counted(program, 1), counted(program, None)
    assert numbers(once) == numbers(every)
    (note,) = once.notes
    assert note.startswith("Every step is counted, which takes time: some do not call the model itself")


def test_steps_that_are_all_different_are_all_counted() -> None:
    """Some begin bare, before their first call shows that they are new: they have the counts of no other step."""
    model = Gate()
    with attnprof.profile(model) as prof:
        for n in range(1, 100):
            model(rows(n))
            prof.step()
    report = prof.report()
    assert report.pace is not None
    assert (report.pace.counted, report.pace.reused) == (99, 0)
    assert report.total.matmul_flops == 2 * 2 * 6 * 10 * sum(range(1, 100))
