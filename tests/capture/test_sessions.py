"""Where a capture begins and ends: around part of a step, twice, nested, in threads, through exceptions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import attnprof
from capture.nets import ROWS, UNIT, WIDTH, Chain, both, linear, rows, units

ONE_STEP = Chain.expected


def once(**more: Any) -> dict[str, Any]:
    return {**ONE_STEP, **more}


# Part of a step


def test_forward_before_the_capture() -> None:
    """Nobody saw who made those nodes: their backward is booked outside, and nothing is lost."""
    net = Chain()
    loss = net(rows()).sum()
    with attnprof.profile(net) as prof:
        loss.backward()
    assert units(prof.report()) == {"(outside)": {"backward": 4}}


def test_forward_before_does_not_disturb_what_comes_after() -> None:
    net = Chain()
    before = net(rows()).sum()
    with attnprof.profile(net) as prof:
        loss = net(rows()).sum()
        before.backward()
        loss.backward()
    assert units(prof.report()) == once(**{"(outside)": {"backward": 4}})


def test_backward_after_the_capture() -> None:
    net = Chain()
    with attnprof.profile(net) as prof:
        loss = net(rows()).sum()
    loss.backward()
    assert units(prof.report()) == {"first": both(1, 0), "second": both(1, 0)}


def test_a_capture_that_pauses_between_forward_and_backward() -> None:
    """The same profiler knows its nodes again; what ran in the pause is not counted."""
    net = Chain()
    prof = attnprof.profile(net)
    with prof:
        loss = net(rows()).sum()
    other = net(rows()).sum()
    with prof:
        loss.backward()
    other.backward()
    assert units(prof.report()) == ONE_STEP


def test_the_backward_of_a_forward_in_the_pause_is_outside() -> None:
    net = Chain()
    prof = attnprof.profile(net)
    with prof:
        net.step()
    loss = net(rows()).sum()
    with prof:
        loss.backward()
    assert units(prof.report()) == once(**{"(outside)": {"backward": 4}})


def test_a_capture_inside_a_forward() -> None:
    """Entered and left while modules run: what it saw has no module, and it does not look above itself."""
    seen: list[attnprof.Profile] = []

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = linear(), linear()

        def forward(self, x: Tensor) -> Tensor:
            with attnprof.profile(self) as prof:
                y = self.a(x) @ self.b.weight
            seen.append(prof)
            return self.b(y)

    Inside()(rows())
    assert units(seen[0].report()) == {"a": both(1, 0), "(outside)": both(1, 0)}


# Again, nested, together


def test_entering_an_open_profiler_again_counts_once() -> None:
    net = Chain()
    with attnprof.profile(net) as prof:
        with prof:
            net.step()
        net.step()
    net.step()
    assert units(prof.report()) == {"first": both(2, 4), "second": both(2, 4)}


def test_entering_a_closed_profiler_continues() -> None:
    net = Chain()
    prof = attnprof.profile(net)
    for _ in range(3):
        with prof:
            net.step()
        net.step()
    assert units(prof.report()) == {"first": both(3, 6), "second": both(3, 6)}


def test_nested_profilers_count_alike() -> None:
    net = Chain()
    with attnprof.profile(net) as outer:
        net.step()
        net.zero_grad()  # or the second step would add to the gradients of the first
        with attnprof.profile(net) as inner:
            net.step()
    assert units(inner.report()) == ONE_STEP
    assert units(outer.report()) == {"first": both(2, 4), "second": both(2, 4)}
    assert inner.report().total * 2 == outer.report().total


@pytest.mark.parametrize("inside", [True, False])
def test_beside_torchs_flop_counter(inside: bool) -> None:
    net = Chain()
    prof, counter = attnprof.profile(net), FlopCounterMode(display=False)
    first, second = (counter, prof) if inside else (prof, counter)
    with first, second:
        net.step()
    assert units(prof.report()) == ONE_STEP
    assert counter.get_total_flops() == 6 * UNIT


def test_two_models_in_one_capture() -> None:
    """The model given has names; another one is named by its class."""
    net, other = Chain(), Chain()
    with attnprof.profile(net) as prof:
        x = rows()
        (net(x) + other(x)).sum().backward()
        other.second(net.first(x)).sum().backward()
    assert units(prof.report()) == {
        "first": both(2, 4),
        "second": both(1, 2),
        "(Chain).first": both(1, 2),
        "(Chain).second": both(2, 4),
    }


def test_two_models_of_one_class_without_a_name() -> None:
    one, two = Chain(), Chain()
    with attnprof.profile() as prof:
        one(two(rows())).sum().backward()
    assert units(prof.report()) == {
        f"({name}).{part}": both(1, 2) for name in ("Chain", "Chain 2") for part in ("first", "second")
    }


def test_two_profilers_with_different_models() -> None:
    one, two = Chain(), Chain()
    with attnprof.profile(one) as first, attnprof.profile(two) as second:
        one.step()
        two.step()
    other = {f"(Chain).{name}": both(1, 2) for name in ("first", "second")}
    assert units(first.report()) == units(second.report()) == once(**other)


# Threads


def in_thread(work: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def entering(prof: attnprof.Profile, work: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        with prof:
            work()

    return run


def test_a_thread_that_enters_the_profile() -> None:
    net = Chain()
    with attnprof.profile(net) as prof:
        in_thread(entering(prof, net.step))
        net.step()
    report = prof.report()
    assert units(report) == {"first": both(2, 4), "second": both(2, 4)}
    assert report.notes == []


def test_a_thread_that_does_not_enter() -> None:
    """Its modules' forwards are counted, each time; its backwards are not, and the report says so."""
    net = Chain()
    with attnprof.profile(net) as prof, ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            pool.submit(net.step).result()
        net.step()
    report = prof.report()
    assert units(report) == {"first": both(3 + 1, 2), "second": both(3 + 1, 2)}
    (note,) = report.notes
    assert "threads that did not enter the profile" in note


def test_a_thread_that_enters_inside_a_module() -> None:
    """Both ways at once: still counted once."""
    net = Chain()
    prof = attnprof.profile(net)

    class Entering(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with prof:
                return net.second(net.first(x))

    model = Entering()
    with prof:
        in_thread(lambda: model(rows()))
        in_thread(lambda: model(rows()))
    assert units(prof.report()) == {"first": both(2, 0), "second": both(2, 0)}


def test_steps_in_threads_at_once() -> None:
    """Numbers of different threads overlap; each looks up its own."""
    nets = [Chain() for _ in range(4)]
    model = nn.ModuleList(nets)
    gate = threading.Barrier(4)
    prof = attnprof.profile(model)

    def work(net: Chain) -> None:
        with prof:
            gate.wait()
            for _ in range(3):
                net.step()

    with prof, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, nets))
    assert units(prof.report()) == {f"{i}.{name}": both(3, 6) for i in range(4) for name in ("first", "second")}


def test_threads_alone() -> None:
    """The thread that made the profiler need not be inside; the last one to leave closes it."""
    nets = [Chain() for _ in range(2)]
    prof = attnprof.profile(nn.ModuleList(nets))
    gate = threading.Barrier(2)

    def work(net: Chain) -> None:
        with prof:
            gate.wait()
            net.step()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, nets))
    assert units(prof.report()) == {f"{i}.{name}": both(1, 2) for i in range(2) for name in ("first", "second")}


def test_a_backward_in_another_thread_than_its_forward() -> None:
    """Numbers are per thread, so its modules are not known there: all of it is counted, outside."""
    net = Chain()
    with attnprof.profile(net) as prof:
        loss = net(rows()).sum()
        in_thread(entering(prof, loss.backward))
    assert units(prof.report()) == {"first": both(1, 0), "second": both(1, 0), "(outside)": {"backward": 4}}


def test_a_thread_outlives_the_capture() -> None:
    """What it does afterwards is not counted, and nothing is left on it."""
    net, states = Chain(), []
    with ThreadPoolExecutor(1) as pool:
        with attnprof.profile(net) as prof:
            pool.submit(net.step).result()
        counted = len(prof.trace)
        pool.submit(net.step).result()
        states.append(pool.submit(torch._C._len_torch_dispatch_stack).result())
    assert len(prof.trace) == counted
    assert states == [0]


# Names of wrappers


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


# Exceptions


class Raising(nn.Module):
    """Passes its input on, or raises what it is told to, after one product."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()
        self.error: BaseException | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.error is not None:
            raise self.error
        return y


class Fragile(nn.Module):
    """A Linear, a part that may raise, and one product of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.part = linear(), Raising()
        self.own = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self.first(x)) @ self.own


ERRORS = [RuntimeError("no"), KeyboardInterrupt(), SystemExit(1), GeneratorExit()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_good_step_after_an_error_in_a_module(error: BaseException) -> None:
    """The failed call is counted as far as it came; the next is booked as if nothing had been."""
    net = Fragile()
    with attnprof.profile(net) as prof:
        net.part.error = error
        with pytest.raises(type(error)):
            net(rows())
        net.part.error = None
        (net(rows()) @ torch.randn(WIDTH, WIDTH)).sum().backward()
    # The failed call ran `first` and `part.layer`. The loss after the good one is in no module.
    assert units(prof.report()) == {
        "first": both(2, 2),
        "part.layer": both(2, 2),
        "": both(1, 2),
        "(outside)": both(1, 1),
    }


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_ends_the_capture(error: BaseException) -> None:
    """``with profile`` lets it pass, and the report tells what was counted up to there."""
    net = Fragile()
    net.part.error = error
    prof = attnprof.profile(net)
    with pytest.raises(type(error)), prof:
        net(rows())
    assert units(prof.report()) == {"first": both(1, 0), "part.layer": both(1, 0)}
    net.part.error = None
    with prof:
        net(rows()).sum().backward()
    assert units(prof.report()) == {"first": both(2, 2), "part.layer": both(2, 2), "": both(1, 2)}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_loss_after_an_error_is_outside(error: BaseException) -> None:
    """An interrupt runs no hook: what follows is taken for the interrupted module's until its step ends."""
    net, x = Fragile(), rows()
    net.part.error = error
    with attnprof.profile(net) as prof:
        with pytest.raises(type(error)):
            net(x)
        if not isinstance(error, Exception):
            prof.step()
        (x @ torch.randn(WIDTH, WIDTH)).sum().backward()
    assert units(prof.report())["(outside)"] == both(1, 1)


class Forgiving(nn.Module):
    """Carries on when a part raises, with a product of its own and another module."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.last = Raising(), linear()
        self.part.error = RuntimeError("no")
        self.own = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        with suppress(RuntimeError):
            x = self.part(x)
        return self.last(x @ self.own) @ self.own


def test_an_error_that_the_model_catches() -> None:
    net = Forgiving()
    with attnprof.profile(net) as prof:
        net(rows()).sum().backward()
    assert units(prof.report()) == {"part.layer": both(1, 0), "": both(2, 4), "last": both(1, 2)}


class RaisingBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        raise ctx.error


@pytest.mark.parametrize("error", ERRORS[:3], ids=lambda error: type(error).__name__)
def test_a_good_step_after_an_error_in_a_backward(error: BaseException) -> None:
    """The failed backward came through the second Linear."""
    net = Chain()
    with attnprof.profile(net) as prof:
        y = net.second(RaisingBackward.apply(net.first(rows())))
        y.grad_fn.next_functions[1][0].error = error
        with pytest.raises(type(error)):
            y.sum().backward()
        net.step()
    assert units(prof.report()) == {"first": both(2, 2), "second": both(2, 4)}


def test_a_shape_error_of_torchs() -> None:
    """An op that raises did no work; the module's own message passes through."""
    net = Chain()
    with attnprof.profile(net) as prof:
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            net(torch.randn(ROWS, WIDTH + 1))
        net.step()
    assert units(prof.report()) == ONE_STEP


def test_a_generator_that_is_never_finished() -> None:
    """A module that yields: its frame ends when forward returns, not when the generator runs."""

    class Lines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()

        def forward(self, x: Tensor) -> Any:
            return (self.layer(x) for _ in range(3))

    net = Lines()
    with attnprof.profile(net) as prof:
        found = next(net(rows()))
        found.sum().backward()
    assert units(prof.report()) == {"layer": both(1, 2)}
