"""While steps run bare, nothing of the profiler is on; and it comes back, and goes, whatever happens."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import threading
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.flop_counter import FlopCounterMode

import attnprof

X = torch.ones(4, 6)
INFERENCE_ENDS = torch.inference_mode.__exit__


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))


def is_bare() -> bool:
    return not _get_current_dispatch_mode_stack() and not hooks._has_any_global_hook()


def bare_steps(prof: attnprof.Profile, net: nn.Module, number: int = 4) -> None:
    """The first is counted, and what comes before the call of the second."""
    for _ in range(number):
        net(X)
        prof.step()


def test_no_mode_and_no_hook_is_on_in_a_bare_step() -> None:
    seen = []

    class Looking(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(is_bare())
            return super().forward(x)

    net = Looking(6, 6)
    with attnprof.profile(net) as prof:
        bare_steps(prof, net)
        between = is_bare()
    assert seen == [False, True, True, True]
    assert between


def test_native_fast_paths_stay_on_when_steps_run_bare() -> None:
    """The fast path of an encoder layer in evaluation looks for hooks on the module itself."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x, ops = torch.ones(2, 3, 8), []

    class Listening(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            ops.append(str(func))
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), attnprof.profile(layer) as prof:
        for _ in range(3):
            layer(x)
            prof.step()
        with Listening():
            layer(x)
    assert "aten._transformer_encoder_layer_fwd.default" in ops


def test_copies_and_pickles_of_the_model_know_nothing_of_it() -> None:
    net = model()
    with attnprof.profile(net) as prof:
        bare_steps(prof, net)
        kept = [copy.deepcopy(net), copy.copy(net), pickle.loads(pickle.dumps(net))]
    for one in kept:
        assert "_compiled_call_impl" not in vars(one)
        assert torch.equal(one(X), net(X))
    assert "_compiled_call_impl" not in vars(net)


def test_nothing_keeps_the_model_alive() -> None:
    net = model()
    optimizer = torch.optim.AdamW(net.parameters())
    prof = attnprof.profile(net)
    with prof:
        for _ in range(4):
            net(X).sum().backward()
            optimizer.step()
            prof.step()
    gone = [weakref.ref(net), weakref.ref(optimizer), *map(weakref.ref, net.parameters())]
    del net, optimizer
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)
    assert prof.report().pace is not None


def test_a_model_compiled_in_place_stays_compiled() -> None:
    net = model()
    net.compile(backend="eager")
    compiled = vars(net)["_compiled_call_impl"]
    with torch.no_grad(), attnprof.profile(net) as prof:
        bare_steps(prof, net)
    assert vars(net)["_compiled_call_impl"] is compiled
    assert prof.report().total.matmul_flops == 4 * 2 * (4 * 6 * 8 * 2)


def test_a_model_compiled_meanwhile_stays_compiled() -> None:
    net = model()
    with torch.no_grad(), attnprof.profile(net) as prof:
        bare_steps(prof, net)
        net.compile(backend="eager")
        compiled = vars(net)["_compiled_call_impl"]
    assert vars(net)["_compiled_call_impl"] is compiled


def test_compiled_code_runs_compiled_in_bare_steps() -> None:
    ran = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        def run(*args: Any) -> Any:
            ran.append(True)
            return graph.forward(*args)

        return run

    net = model()
    compiled = torch.compile(net, backend=backend)
    with torch.no_grad(), attnprof.profile(compiled) as prof:  # type: ignore[arg-type]
        bare_steps(prof, compiled, 5)  # type: ignore[arg-type]
    assert len(ran) == 4
    assert prof.report().total.matmul_flops == 5 * 2 * (4 * 6 * 8 * 2)
    torch._dynamo.reset()


@pytest.mark.parametrize("first_out", [0, 1])
def test_two_profiles_of_one_model_in_any_order(first_out: int) -> None:
    net = model()
    two = [attnprof.profile(net), attnprof.profile(net)]
    for prof in two:
        prof.__enter__()
    for _ in range(4):
        net(X)
        for prof in two:
            prof.step()
    two[first_out].__exit__(None, None, None)
    net(X)
    two[1 - first_out].step()
    two[1 - first_out].__exit__(None, None, None)
    assert "_compiled_call_impl" not in vars(net)
    assert is_bare()
    one = 2 * (4 * 6 * 8 * 2)
    assert two[first_out].report().total.matmul_flops == 4 * one
    assert two[1 - first_out].report().total.matmul_flops == 5 * one


def test_an_exception_in_a_bare_step() -> None:
    net, prof = model(), None

    def failing() -> None:
        nonlocal prof
        with attnprof.profile(net) as prof:
            bare_steps(prof, net)
            net(X)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        failing()
    assert prof is not None
    report = prof.report()
    assert report.total.matmul_flops == 4 * 2 * (4 * 6 * 8 * 2)
    assert report.notes == ["The step that an exception ended ran bare: it is not in the totals."]
    assert is_bare()


def test_a_mode_of_the_users_around_the_call() -> None:
    """A new shape is met under it: the profiler goes below, and the mode's own order is kept."""
    net = model()
    with attnprof.profile(net) as prof, torch.no_grad():
        bare_steps(prof, net)
        with FlopCounterMode(display=False) as theirs:
            net(torch.ones(9, 6))
        prof.step()
        net(X)
        prof.step()
    one = 2 * (6 * 8 * 2)
    assert theirs.get_total_flops() == 9 * one
    assert prof.report().total.matmul_flops == (5 * 4 + 9) * one


def test_a_second_thread_keeps_every_step_counted() -> None:
    net = model()
    with attnprof.profile(net) as prof:
        for _ in range(4):
            thread = threading.Thread(target=lambda: net(X))
            thread.start()
            thread.join()
            net(X)
            prof.step()
    report = prof.report()
    assert report.total.matmul_flops == 8 * 2 * (4 * 6 * 8 * 2)
    assert report.pace is not None
    assert report.pace.reused == 0


def test_a_profile_entered_again_goes_on() -> None:
    net, one = model(), 2 * (4 * 6 * 8 * 2)
    prof = attnprof.profile(net)
    for _ in range(3):
        with prof:
            bare_steps(prof, net, 3)
        net(X)  # outside: not counted
    report = prof.report()
    assert report.total.matmul_flops == 9 * one
    assert report.pace is not None
    assert report.pace.counted + report.pace.reused == 9


def test_without_a_model_every_step_is_counted() -> None:
    net = model()
    with attnprof.profile() as prof:
        bare_steps(prof, net)
    assert len(prof.trace.steps) == 4
    assert prof.report().pace is None


def test_steps_with_names_are_all_counted() -> None:
    net = model()
    with attnprof.profile(net) as prof:
        for name in ("prefill", "decode 1", "decode 2", "decode 3"):
            net(X)
            prof.step(name)
    report = prof.report()
    assert [step.label for step in report.steps] == ["prefill", "decode 1", "decode 2", "decode 3"]
    assert {step.cost.matmul_flops for step in report.steps} == {2 * (4 * 6 * 8 * 2)}


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "2"])
def test_recount_every_is_a_number_of_steps(bad: Any) -> None:
    with pytest.raises(attnprof.AttnprofError, match="recount_every must be a whole number above zero"):
        attnprof.profile(model(), recount_every=bad)


@pytest.mark.parametrize("told", [{"tokens": -1}, {"samples": 1.0}, {"tokens": True}])
def test_what_a_step_processed_is_a_number(told: dict[str, Any]) -> None:
    net = model()
    with attnprof.profile(net) as prof, pytest.raises(attnprof.AttnprofError, match="whole numbers, 0 or more"):
        prof.step(**told)


def test_inference_mode_inside_the_profile_leaves_torch_as_it_was() -> None:
    """Torch gives back how ops were dispatched when the block began, which was with our mode on."""
    net = model()
    with attnprof.profile(net) as prof, torch.inference_mode():
        bare_steps(prof, net, 5)
    assert net(X).sum().isfinite()
    assert torch.inference_mode.__exit__ is INFERENCE_ENDS
    assert prof.report().total.matmul_flops == 5 * 2 * (4 * 6 * 8 * 2)


def test_a_compiled_step_that_calls_the_model() -> None:
    """Modes stay as they are inside of compiled code, and what is compiled stays whole."""
    net = model()

    @torch.compile(backend="eager", fullgraph=True)
    def loss(x: Tensor) -> Tensor:
        return net(x).sum()  # type: ignore[no-any-return]

    with attnprof.profile(net) as prof:
        for _ in range(5):
            loss(X).backward()
            net.zero_grad()
            prof.step()
    torch._dynamo.reset()
    report, one = prof.report(), 2 * (4 * 6 * 8 * 2) + 2 * (4 * 6 * 8 * 2) + 2 * (4 * 8 * 6)
    assert report.total.matmul_flops == 4 * one
    assert "Part of 1 step was not counted and is not in the totals: the model itself was not called." in report.notes


def test_a_model_compiled_meanwhile_is_still_told_apart() -> None:
    net = model()
    with torch.no_grad(), attnprof.profile(net) as prof:
        bare_steps(prof, net)
        net.compile(backend="eager")
        bare_steps(prof, net)
        net(torch.ones(9, 6))
        prof.step()
    torch._dynamo.reset()
    report = prof.report()
    assert report.total.matmul_flops == (7 * 4 + 9) * 2 * (6 * 8 * 2)
    assert "Part of 1 step was not counted and is not in the totals: the model itself was not called." in report.notes


def test_scripted_inside_the_loop() -> None:
    net = model()
    with torch.no_grad(), attnprof.profile(net) as prof:
        bare_steps(prof, net)
        scripted = torch.jit.script(net)
    assert torch.equal(scripted(X), net(X))


class Failing(nn.Linear):
    fails = False

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if self.fails:
            raise ValueError("mine")
        return super().forward(y)


@pytest.mark.parametrize("step", [0, 5])
def test_a_call_that_failed_stands_for_no_other(step: int) -> None:
    """Counted, it is itself; run bare, a note says that it is not in the totals."""
    net, one = Failing(6, 6), 2 * 4 * 6 * 6
    with torch.no_grad(), attnprof.profile(net) as prof:
        for i in range(8):
            net.fails = i == step
            with contextlib.suppress(ValueError):
                net(X)
            prof.step()
    report = prof.report()
    assert report.total.matmul_flops == 7 * 2 * one + (one if step == 0 else 0)
    assert [note.partition(":")[0] for note in report.notes] == (
        [] if step == 0 else ["Part of 1 step was not counted and is not in the totals"]
    )


def test_a_thread_that_comes_later_is_told_of_and_then_counted() -> None:
    net = model()
    with torch.no_grad(), attnprof.profile(net) as prof:
        bare_steps(prof, net)
        for _ in range(3):
            thread = threading.Thread(target=torch.no_grad()(net), args=(X,))
            thread.start()
            thread.join()
            bare_steps(prof, net, 1)
    report = prof.report()
    note = "1 call of the model in another thread came while nothing was counted: not in the totals."
    assert note in report.notes
    assert report.total.matmul_flops == (4 + 3 + 2) * 2 * (4 * 6 * 8 * 2)


def test_a_step_may_have_thousands_of_calls() -> None:
    """An epoch in each step: its segments are no deeper for the interpreter than one."""
    net = nn.Linear(6, 6)
    optimizer = torch.optim.SGD(net.parameters())
    with attnprof.profile(net) as prof:
        for _ in range(3):
            for _ in range(1200):
                net(X).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
            prof.step()
    report = prof.report()
    assert report.total.matmul_flops == 3 * 1200 * (2 * 4 * 6 * 6 + 2 * 4 * 6 * 6)
    assert report.notes == []
    assert report.pace is not None
    assert (report.pace.counted, report.pace.reused) == (1, 2)


def test_work_that_no_call_shows_is_said_where_it_is_never_counted() -> None:
    """Another loss in the last step: autograd made other nodes."""
    net = model()
    with attnprof.profile(net) as prof:
        for i in range(6):
            y = net(X)
            (y.square().sum() if i == 5 else y.sum()).backward()
            net.zero_grad()
            prof.step()
    (note,) = prof.report().notes
    assert note == (
        "Part of 1 step (float32[4,6]) was not counted, and is taken to be as in others that called the same: what "
        "happened between the calls, or in them, was something else."
    )
