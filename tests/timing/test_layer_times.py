"""Layers are timed on the step that was counted, and leave everything as it was. No test says how long."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import attnprof
from attnprof import AttnprofError
from attnprof.analysis.layer_times import MeasuredLayers
from attnprof.capture.layer_times import STEPS, WARM_UP
from attnprof.cli import target

EXAMPLES = Path(__file__).parents[2] / "examples"
#: Calls of a model whose layers are timed in one step: counted, warm-up, bare, profiled once for the profiler.
CALLS_OF_ONE = 1 + WARM_UP + 1 + 1 + 1


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 2))


def timed(model: nn.Module, *args: Any, time: int = 2, **options: Any) -> MeasuredLayers:
    measured = attnprof.run(model, args, time=time, **options).layer_times
    assert measured is not None
    return measured


# What is there


def test_layers_accumulation_and_the_rest_add_up_to_each_step() -> None:
    measured = timed(net(), torch.randn(3, 4), optimizer="adamw")
    parts = [measured.accumulation, measured.unattributed, *measured.by_module(inclusive=False).values()]
    for position, whole in enumerate(measured.profiled.sample_ns):
        assert sum(part.sample_ns[position] for part in parts) == whole
    assert sum(part.total_ns for part in parts) == measured.profiled.total_ns
    assert all(ns >= 0 for part in parts for ns in part.sample_ns)


def test_phases_add_up_and_parents_are_the_sum_of_what_is_in_them() -> None:
    measured = timed(nn.Sequential(net(), nn.Linear(2, 2)), torch.randn(3, 4), optimizer="sgd")
    own = measured.by_module(inclusive=False)
    for fqn, whole in measured.by_module().items():
        assert whole.total_ns == sum(measured.of(fqn, phase).total_ns for phase in measured.phases)
    below = [name for name in own if name == "0" or name.startswith("0.")]
    assert measured.of("0").total_ns == sum(own[name].total_ns for name in below)
    assert measured.of("").total_ns == sum(times.total_ns for times in own.values())


def test_every_module_that_ran_has_a_time_in_each_phase_that_it_ran_in() -> None:
    measured = timed(net(), torch.randn(3, 4), optimizer="adamw")
    for name in ("0", "1", "2", "3"):
        for phase in ("forward", "backward"):
            assert all(ns > 0 for ns in measured.of(name, phase).sample_ns), (name, phase)
    assert all(ns > 0 for ns in measured.of("(optimizer)", "optimizer").sample_ns)
    assert measured.phases == ["forward", "backward", "optimizer"]


def test_without_a_backward_there_is_a_forward_only() -> None:
    with torch.no_grad():
        measured = timed(net().eval(), torch.randn(3, 4))
    assert measured.phases == ["forward"]
    assert measured.accumulation.total_ns == 0


def test_the_module_with_nearly_all_of_the_work_has_most_of_the_time() -> None:
    """The large Linear multiplies 512 times what each small one does: in time, half of the step is not in doubt."""
    small = [nn.Linear(64, 64) for _ in range(3)]
    model = nn.Sequential(*small, nn.Linear(64, 512 * 64), nn.Linear(512 * 64, 1))
    report = attnprof.run(model, (torch.randn(32, 64),), backward=True, time=3)
    assert report.layer_times is not None
    flops = report.by_module(inclusive=False)
    assert flops["3"].matmul_flops == 512 * flops["1"].matmul_flops
    times = {name: report.layer_times.of(name).median_ns or 0 for name in "01234"}
    assert times["3"] > sum(times[name] for name in "012")


def test_names_are_those_of_the_trace() -> None:
    class MakesItsLayer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.Linear(4, 4)(x)

    report = attnprof.run(MakesItsLayer(), (torch.randn(3, 4),), backward=True, time=2)
    assert report.layer_times is not None
    assert [record.fqn for record in report.trace.modules] == ["", "(outside)", "(optimizer)", "(Linear)"]
    assert report.layer_times.of("(Linear)", "backward").total_ns > 0


def test_nearly_all_of_the_work_of_a_language_model_is_attributed() -> None:
    """All but gradient accumulation, 0.3% of it here: the bound leaves room for a machine that is busy just then."""
    made = target.build(target.find(f"{EXAMPLES / 'tiny_gpt.py'}:build"), "tiny_gpt")
    measured = timed(made.model, *made.args, backward=True, time=1)
    assert measured.attributed > 0.95


def test_a_thread_of_the_models_own_is_not_seen_and_its_time_is_nobodys() -> None:
    import threading

    class Threaded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            found: list[Tensor] = []
            worker = threading.Thread(target=lambda: found.append(self.inner(x)))
            worker.start()
            worker.join()
            return found[0]

    measured = timed(Threaded(), torch.randn(3, 4))
    assert measured.of("inner").total_ns == 0
    assert measured.unattributed.total_ns > 0


# The step that is timed is the step that was counted


class Diary(nn.Module):
    """Notes the random number, the weight and the gradient that each call begins with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0]))
        self.register_buffer("seen", torch.zeros(1))
        self.entries: list[tuple[float, float, bool, float]] = []

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.seen, Tensor)
        self.entries.append((torch.rand(()).item(), self.weight.item(), self.weight.grad is None, self.seen.item()))
        self.seen += 1
        return x * self.weight


def test_each_step_begins_as_the_counted_one_did() -> None:
    model = Diary()
    attnprof.run(model, (torch.ones(1),), optimizer="sgd,lr=1.0", time=1)
    first_step_of_the_optimizer = 1
    assert len(model.entries) == first_step_of_the_optimizer + CALLS_OF_ONE
    assert len(set(model.entries[1:])) == 1
    assert model.entries[-1][1:] == (3.0, True, 0.0)


@pytest.mark.parametrize(("time", "steps"), [(True, STEPS), (3, 3), (1, 1)])
def test_as_many_bare_steps_as_profiled_ones(time: bool | int, steps: int) -> None:
    model = Diary()
    measured = attnprof.run(model, (torch.ones(1),), backward=True, time=time).layer_times
    assert measured is not None
    assert measured.step.count == measured.profiled.count == measured.steps == steps
    assert len(model.entries) == CALLS_OF_ONE - 2 + 2 * steps


def test_counts_are_those_without_timing() -> None:
    torch.manual_seed(0)
    model, x = net(), torch.randn(3, 4)
    bare, both = (attnprof.run(model, (x,), optimizer="adamw", time=time) for time in (False, 2))
    assert bare.layer_times is None
    assert both.phases == bare.phases
    assert both.by_module() == bare.by_module()


# Nothing is left changed


def test_the_model_the_optimizer_and_the_random_state_are_as_before() -> None:
    model, x = net(), torch.randn(3, 4)
    optimizer = torch.optim.Adam(model.parameters())
    model(x).sum().backward()
    optimizer.step()
    gradients = [p.grad for p in model.parameters()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    moments = {id(p): state["exp_avg"].clone() for p, state in optimizer.state.items()}
    random = torch.get_rng_state()
    attnprof.run(model, (x,), optimizer=optimizer, time=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(torch.equal(state["exp_avg"], moments[id(p)]) for p, state in optimizer.state.items())
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training


class Fails(nn.Module):
    """Raises at its so-manieth call, inside a module of its own."""

    def __init__(self, at: int, error: BaseException) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.inner.register_forward_pre_hook(self.before)
        self.calls, self.at, self.error = 0, at, error

    def before(self, module: nn.Module, args: Any) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise self.error

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("at", range(1, CALLS_OF_ONE + 1))
def test_an_exception_in_any_step_leaves_nothing_behind(at: int, error: BaseException) -> None:
    model, x = Fails(at, error), torch.randn(3, 4)
    with pytest.raises(type(error)):
        attnprof.run(model, (x,), backward=True, time=1)
    assert not torch._C._autograd._profiler_enabled()
    assert all(p.grad is None for p in model.parameters())
    measured = timed(model, x, backward=True)
    assert measured.of("inner", "backward").total_ns > 0


def test_compiled_code_is_timed_as_its_eager_program_and_used_again_afterwards() -> None:
    ran: list[int] = []

    def backend(graph: torch.fx.GraphModule, example: list[Tensor]) -> Any:
        def run(*args: Any) -> Any:
            ran.append(1)
            return graph.forward(*args)

        return run

    torch._dynamo.reset()
    try:
        model = net().eval()
        compiled, x = torch.compile(model, backend=backend), torch.randn(3, 4)
        with torch.no_grad():
            compiled(x)
            before = len(ran)
            assert isinstance(compiled, nn.Module)
            measured = timed(compiled, x)
            assert len(ran) == before
            compiled(x)
        assert len(ran) == before + 1
        assert measured.of("3").total_ns > 0
    finally:
        torch._dynamo.reset()


def test_nothing_is_printed_and_the_environment_is_as_before() -> None:
    program = (
        "import os, torch, attnprof\n"
        "before = dict(os.environ)\n"
        "attnprof.run(torch.nn.Linear(2, 2), (torch.ones(1, 2),), backward=True, time=1)\n"
        "assert dict(os.environ) == before\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == ("", "")


# What cannot be timed


@pytest.mark.parametrize("time", [0, -1, 1001, 2.5, "5", None])
def test_a_number_of_steps_that_is_none(time: Any) -> None:
    with pytest.raises(AttnprofError, match=r"is no number of steps to time: give 1 to 1,000\.$"):
        attnprof.run(net(), (torch.randn(3, 4),), time=time)


def test_fake_tensors_take_no_time() -> None:
    with pytest.raises(AttnprofError, match="fake tensors compute nothing"):
        attnprof.run(net(), (torch.randn(3, 4),), fake=True, time=True)


def test_generation_is_not_timed() -> None:
    with pytest.raises(AttnprofError, match="not of generation"):
        attnprof.run(net(), (torch.randn(3, 4),), generate=2, time=True)


def test_a_model_on_another_kind_of_device() -> None:
    with pytest.raises(AttnprofError, match=r"the model is on meta\.$"):
        attnprof.run(nn.Linear(2, 2, device="meta"), (torch.ones(1, 2, device="meta"),), time=True)


@pytest.mark.parametrize("mode", [FlopCounterMode, attnprof.profile])
def test_a_mode_that_would_be_timed_too(mode: Any) -> None:
    model = Diary()
    on = mode() if mode is attnprof.profile else mode(display=False)
    with on, pytest.raises(AttnprofError, match=r"^layers are timed bare, and \w+, a dispatch mode, is on"):
        attnprof.run(model, (torch.ones(1),), time=True)
    assert model.entries == []


def test_a_profiler_that_runs_already_is_said_before_anything_runs() -> None:
    model = Diary()
    with torch.profiler.profile() as users:
        with pytest.raises(AttnprofError, match="one is running already"):
            attnprof.run(model, (torch.ones(1),), time=True)
        torch.ones(1).cos()
    assert model.entries == []
    assert any(event.name == "aten::cos" for event in users.events())
