"""Nothing is left behind: no mode, hook, stance, tensor or module, however the capture ends."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import attnprof
from capture.nets import WIDTH, Chain, linear, rows, units
from conftest import torch_state


class DeliberateError(Exception):
    """Raised on purpose."""


class BrokenForward(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.layer, self.error = linear(), error

    def forward(self, x: Tensor) -> Tensor:
        self.layer(x)
        raise self.error


class BrokenBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, error: BaseException) -> Tensor:
        ctx.error = error
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        raise ctx.error


class BrokenOptimizer(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise DeliberateError


def good_step() -> None:
    net = Chain()
    optimizer = torch.optim.AdamW(net.parameters())
    net.step()
    optimizer.step()


def in_forward(error: BaseException) -> None:
    nn.Sequential(linear(), BrokenForward(error))(rows())


def in_backward(error: BaseException) -> None:
    BrokenBackward.apply(linear()(rows()), error).sum().backward()


def in_optimizer(error: BaseException) -> None:
    net = Chain()
    net.step()
    BrokenOptimizer(net.parameters(), lr=0.1).step()


def in_checkpoint(error: BaseException) -> None:
    """Raises when it runs again, in the backward."""
    layer, calls = linear(), []

    def body(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise error
        return layer(layer(x))

    checkpoint(body, rows(), use_reentrant=False).sum().backward()


def in_user_hook(error: BaseException) -> None:
    layer = linear()

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        raise error

    layer.register_forward_hook(hook)
    layer(rows())


def in_the_body(error: BaseException) -> None:
    raise error


ENDINGS = [in_forward, in_backward, in_checkpoint, in_user_hook, in_the_body]
ERRORS = [DeliberateError(), KeyboardInterrupt(), SystemExit(2), GeneratorExit()]


def test_after_success() -> None:
    torch._dynamo.eval_frame  # noqa: B018  loaded, so that the stance is looked at
    before = torch_state()
    with attnprof.profile():
        inside = torch_state()
        good_step()
    assert torch_state() == before
    assert inside["dispatch modes"] == ["ThreadRecorder"]
    assert inside["compile stance"] == "force_eager"
    assert inside["module hooks"]["_global_forward_hooks"] == 1
    assert inside["optimizer hooks"]["_global_optimizer_pre_hooks"] == 1


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__)
def test_after_an_error(end: Callable[[BaseException], None], error: BaseException) -> None:
    before = torch_state()
    prof = attnprof.profile()
    with pytest.raises(type(error)), prof:
        end(error)
    assert torch_state() == before
    prof.report()


def test_after_an_error_in_an_optimizer() -> None:
    before = torch_state()
    prof = attnprof.profile()
    with pytest.raises(DeliberateError), prof:
        in_optimizer(DeliberateError())
    assert torch_state() == before
    assert prof.report().total.matmul_flops > 0


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_after_an_error_in_nested_profilers(error: BaseException) -> None:
    before = torch_state()
    with pytest.raises(type(error)), attnprof.profile(), attnprof.profile() as prof, prof:
        in_forward(error)
    assert torch_state() == before


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
def test_after_run(fake: bool, error: BaseException) -> None:
    before = torch_state()
    attnprof.run(Chain(), (rows(),), backward=True, fake=fake)
    assert torch_state() == before
    with pytest.raises(type(error)):
        attnprof.run(nn.Sequential(linear(), BrokenForward(error)), (rows(),), backward=True, fake=fake)
    assert torch_state() == before


def test_when_the_model_cannot_be_read() -> None:
    """Entering fails before anything is installed."""

    class Hidden(nn.Module):
        @property
        def _modules(self) -> Any:
            raise DeliberateError

        @_modules.setter
        def _modules(self, value: Any) -> None: ...

    before = torch_state()
    with pytest.raises(DeliberateError), attnprof.profile(Hidden()):
        pass
    assert torch_state() == before


def test_a_mode_of_the_users_left_inside_is_theirs() -> None:
    """A mode entered before stays; the profiler removes only its own."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mine(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            Mine.seen += 1
            return func(*args, **(kwargs or {}))

    with Mine():
        with attnprof.profile() as prof:
            torch.ones(2) + 1
        assert torch_state()["dispatch modes"] == ["Mine"]
        torch.ones(2) + 1
    assert Mine.seen == 2 * len(prof.trace)


def test_hooks_of_the_users_stay() -> None:
    seen: list[str] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: seen.append("forward"))
    try:
        before = torch_state()
        with attnprof.profile():
            linear()(rows())
        linear()(rows())
        assert torch_state() == before
        assert seen == ["forward", "forward"]
    finally:
        handle.remove()


# Nothing is kept alive


def gone(*references: weakref.ref[Any]) -> bool:
    gc.collect()
    return all(reference() is None for reference in references)


def train(prof: attnprof.Profile | None = None) -> tuple[attnprof.Profile, list[weakref.ref[Any]]]:
    """A profiled step; weak references to all there was."""
    net = Chain()
    optimizer = torch.optim.AdamW(net.parameters())
    x = rows()
    prof = prof or attnprof.profile(net)
    with prof:
        y = net(x)
        loss = y.sum()
        loss.backward()
        optimizer.step()
    things = [net, net.first, net.first.weight, net.first.weight.grad, optimizer, x, y, loss]
    return prof, [weakref.ref(thing) for thing in things]


def test_a_profile_keeps_nothing_alive() -> None:
    prof, references = train()
    assert gone(*references)
    assert prof.report().total.matmul_flops > 0


def test_an_open_profile_keeps_nothing_of_other_models_alive() -> None:
    with attnprof.profile() as prof:
        _, references = train(prof)
        assert gone(*references)
    prof.report()


def test_an_open_profile_does_not_keep_its_model_alive_after_it_closed() -> None:
    prof, first = train()
    with prof:
        _, second = train(prof)
        assert gone(*first, *second)


def test_a_report_keeps_nothing_alive() -> None:
    prof, references = train()
    report = prof.report()
    del prof
    assert gone(*references)
    assert report.root.find("first").calls == 1


def test_a_profile_is_itself_let_go() -> None:
    prof, _ = train()
    recorder = weakref.ref(prof._recorder)
    report = prof.report()
    del prof
    assert gone(recorder)
    assert report.total.matmul_flops > 0


def test_after_an_error_nothing_is_kept_alive() -> None:
    """In a forward, a backward, an optimizer's step, and an interrupt that no hook sees."""
    references: list[weakref.ref[Any]] = []

    def failing(end: Callable[[BaseException], None], error: BaseException) -> attnprof.Profile:
        net, x = Chain(), rows()
        optimizer = BrokenOptimizer(net.parameters(), lr=0.1)
        prof = attnprof.profile(net)
        references.extend(map(weakref.ref, (net, net.first.weight, x, optimizer)))
        try:
            with prof:
                net(x).sum().backward()
                end(error)
                optimizer.step()
        except BaseException as caught:
            caught.__traceback__ = None  # the traceback holds every frame
        return prof

    profiles = [
        failing(end, error)
        for end in (in_forward, in_backward, lambda error: None)
        for error in (DeliberateError(), SystemExit())
    ]
    assert gone(*references)
    assert all(prof.report().total.matmul_flops > 0 for prof in profiles)


def test_run_keeps_nothing_alive() -> None:
    net, x = Chain(), rows()
    references = [weakref.ref(net), weakref.ref(net.first.weight), weakref.ref(x)]
    reports = [attnprof.run(net, (x,), backward=True, fake=fake) for fake in (False, True)]
    del net, x
    assert gone(*references)
    assert [units(report) for report in reports] == [Chain.expected] * 2


def test_checkpoints_keep_nothing_alive() -> None:
    net, x = Chain(), rows()
    prof = attnprof.profile(net)
    with prof:
        checkpoint(net, x, use_reentrant=False).sum().backward()
    references = [weakref.ref(net), weakref.ref(x)]
    del net, x
    assert gone(*references)
    prof.report()


def test_saved_tensors_die_in_the_backward() -> None:
    """The profiler does not lengthen the life of an activation: what a bare step frees, it frees."""

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.exp()
            references.append(weakref.ref(y))
            return y * 2

    references: list[weakref.ref[Any]] = []
    net = nn.Sequential(linear(), Watch())
    x = rows()
    with attnprof.profile(net):
        loss = net(x).sum()
        loss.backward()
        assert gone(*references)
    assert loss.item() == loss.item()


# A model that raises


def test_the_report_has_what_ran_before_the_model_raised() -> None:
    net = nn.Sequential(linear(), BrokenForward(ValueError("mine")))
    prof = attnprof.profile(net)
    with pytest.raises(ValueError, match="mine"), prof:
        net(rows())
    assert units(prof.report()) == {"0": {"forward": 1}, "1.layer": {"forward": 1}}


def test_the_models_traceback_ends_in_the_model() -> None:
    """The exception is the model's own object, raised from its own line."""
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught, attnprof.profile():
        in_forward(error)
    assert caught.value is error
    assert caught.traceback[-1].name == "forward"
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("method", ["step", "report", "unseen"])
def test_before_entering_there_is_nothing_to_ask(method: str) -> None:
    with pytest.raises(attnprof.AttnprofError, match="belongs inside the context"):
        getattr(attnprof.profile(), method)()


def test_a_profile_of_something_else() -> None:
    with pytest.raises(attnprof.AttnprofError, match=r"takes an nn\.Module or nothing, not a function"):
        attnprof.profile(in_forward)  # type: ignore[arg-type]


def test_unseen_ops_leave_no_event() -> None:
    matrix = torch.randn(WIDTH, WIDTH)
    with attnprof.profile() as prof:
        _ = matrix @ matrix
        with prof.unseen():
            _ = matrix @ matrix @ matrix
        with pytest.raises(DeliberateError), prof.unseen():
            in_forward(DeliberateError())
        _ = matrix @ matrix
    assert prof.report().total.matmul_flops == 2 * (2 * WIDTH**3)
