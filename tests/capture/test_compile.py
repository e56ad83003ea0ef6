"""torch.compile: counts are eager's, cold and warm, and the compiled code is used again afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from capture.nets import Chain, both, rows, units


class Backend:
    """A backend that runs the captured graph as it is, and counts compilations and runs."""

    def __init__(self) -> None:
        self.compiled = self.ran = 0

    def __call__(self, graph: torch.fx.GraphModule, example: list[Tensor]) -> Any:
        self.compiled += 1

        def run(*args: Any) -> Any:
            self.ran += 1
            return graph.forward(*args)

        return run

    def runs_in(self, work: Any) -> int:
        before = self.ran
        work()
        return self.ran - before


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled_copy(net: nn.Module, how: str, backend: Backend) -> nn.Module:
    if how == "compile(module)":
        return torch.compile(net, backend=backend)  # type: ignore[return-value]
    net.compile(backend=backend)
    return net


HOW = pytest.mark.parametrize("how", ["compile(module)", "module.compile()"])


def step(net: nn.Module) -> None:
    net(rows()).sum().backward()


@HOW
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("training", [False, True], ids=["no_grad", "training"])
def test_counts_are_eagers_and_the_graph_runs_again(how: str, warm: bool, training: bool) -> None:
    backend = Backend()
    net = compiled_copy(Chain(), how, backend)

    def call() -> None:
        if training:
            step(net)
        else:
            with torch.no_grad():
                net(rows(requires_grad=False))

    if warm:
        assert backend.runs_in(call) == 1
    compilations = backend.compiled
    with attnprof.profile(net) as prof:
        call()
        call()
    back = 4 if training else 0
    assert units(prof.report()) == {"first": both(2, back), "second": both(2, back)}
    assert backend.compiled == compilations, "nothing is compiled while counting"
    assert backend.runs_in(call) == 1
    assert backend.runs_in(call) == 1
    assert backend.compiled == 1


@HOW
def test_totals_are_those_of_the_plain_module(how: str) -> None:
    torch.manual_seed(0)
    plain, net = Chain(), compiled_copy(Chain(), how, Backend())
    step(net)
    net.zero_grad()
    assert attnprof.run(net, (rows(),), backward=True).total == attnprof.run(plain, (rows(),), backward=True).total


def test_a_compiled_child() -> None:
    backend = Backend()
    net = nn.Sequential(torch.compile(Chain(), backend=backend), nn.Linear(7, 7))
    step(net)
    with attnprof.profile(net) as prof:
        step(net)
    assert units(prof.report()) == {"0.first": both(1, 2), "0.second": both(1, 2), "1": both(1, 2)}
    assert backend.runs_in(lambda: step(net)) == 1


def test_calls_of_a_compiled_module_are_counted_once() -> None:
    net = torch.compile(Chain(), backend=Backend())
    with attnprof.profile(net) as prof:
        step(net)
    root = prof.report().root
    assert {node.fqn: node.calls for node in root.walk() if node.calls} == {"": 1, "first": 1, "second": 1}
    assert root.class_name == "Chain"


def test_a_compiled_function_around_a_module() -> None:
    backend, net = Backend(), Chain()

    @torch.compile(backend=backend)
    def loss(x: Tensor) -> Tensor:
        return net(x).square().mean()

    loss(rows()).backward()
    with attnprof.profile(net) as prof:
        loss(rows()).backward()
    assert units(prof.report()) == Chain.expected
    assert backend.runs_in(lambda: loss(rows())) == 1


def test_new_shapes_under_the_profiler_do_not_disturb_the_graph() -> None:
    backend = Backend()
    net = torch.compile(Chain(), backend=backend, dynamic=False)
    step(net)
    with attnprof.profile(net):
        net(torch.randn(9, 7))
    assert backend.runs_in(lambda: step(net)) == 1
    assert backend.compiled == 1


def test_after_an_exception_the_graph_runs_again() -> None:
    backend = Backend()
    net = torch.compile(Chain(), backend=backend)
    step(net)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), attnprof.profile(net):
        net(torch.randn(5, 8))
    assert backend.runs_in(lambda: step(net)) == 1


def test_compiling_inside_the_context() -> None:
    """The module is compiled after the profiler was entered; its first graph is made after it was left."""
    backend, net = Backend(), Chain()
    with attnprof.profile(net) as prof:
        fast = torch.compile(net, backend=backend)
        step(fast)
    assert units(prof.report()) == Chain.expected
    assert backend.compiled == 0
    assert backend.runs_in(lambda: step(fast)) == 1


def test_a_stance_of_the_users_is_kept() -> None:
    backend = Backend()
    net = torch.compile(Chain(), backend=backend)
    with torch.compiler.set_stance("eager_on_recompile"):
        with attnprof.profile(net) as prof:
            step(net)
        assert torch._dynamo.eval_frame._stance.stance == "eager_on_recompile"
    assert units(prof.report()) == Chain.expected


def test_a_forward_compiled_before_the_capture() -> None:
    """Its nodes are nobody's here: the backward is counted, outside."""
    net = torch.compile(Chain(), backend=Backend())
    loss = net(rows()).sum()
    with attnprof.profile(net) as prof:
        loss.backward()
    assert units(prof.report()) == {"(outside)": {"backward": 4}}


def test_a_compiled_optimizer_step() -> None:
    net = Chain()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, foreach=False)
    update = torch.compile(optimizer.step, backend=Backend())
    with attnprof.profile(net) as prof:
        step(net)
        update()
    steps = [s.op for s, scope in prof.trace.events() if scope.phase == "optimizer" and s.op == "aten.add_.Tensor"]
    assert len(steps) == 4  # two weights, two biases
