"""Gradients are looked at when a backward ends, whatever kind of backward it is, and none of them notices."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import attnprof
from memory.readings import Reading, read

E = 4
N, D = 5, 12
P = D * D + D

Backward = Callable[[nn.Module, Tensor], Any]


def plain(net: nn.Module, x: Tensor) -> None:
    net(x).sum().backward()


def retained(net: nn.Module, x: Tensor) -> None:
    loss = net(x).sum()
    loss.backward(retain_graph=True)
    loss.backward()


def second_order(net: nn.Module, x: Tensor) -> None:
    gradients = torch.autograd.grad(net(x).square().sum(), list(net.parameters()), create_graph=True)
    sum(g.square().sum() for g in gradients).backward()


def create_graph(net: nn.Module, x: Tensor) -> None:
    loss = net(x).square().sum()
    loss.backward(create_graph=True)
    for p in net.parameters():
        p.grad = p.grad.detach()


def reentrant(net: nn.Module, x: Tensor) -> None:
    """A backward runs inside of a backward."""
    checkpoint(net, x, use_reentrant=True).sum().backward()


def nested_reentrant(net: nn.Module, x: Tensor) -> None:
    def twice(y: Tensor) -> Tensor:
        return checkpoint(net, net(y), use_reentrant=True)

    checkpoint(twice, x, use_reentrant=True).sum().backward()


def non_reentrant(net: nn.Module, x: Tensor) -> None:
    checkpoint(net, x, use_reentrant=False).sum().backward()


def some_inputs(net: nn.Module, x: Tensor) -> None:
    net(x).sum().backward(inputs=list(net.parameters()))


def two_roots(net: nn.Module, x: Tensor) -> None:
    torch.autograd.backward([net(x).sum(), net(2 * x).sum()])


def from_a_hook(net: nn.Module, x: Tensor) -> None:
    """A second backward, of another graph, in a hook of the first."""
    y = net(x)
    other = net(x.detach()).sum()
    y.register_hook(lambda gradient: other.backward())
    y.sum().backward()


def in_a_forward(net: nn.Module, x: Tensor) -> None:
    class Inside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            plain(net, x)
            return x.detach() * 2

    Inside()(x)


def autocast(net: nn.Module, x: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = net(x).float().sum()
    loss.backward()


def anomaly(net: nn.Module, x: Tensor) -> None:
    with torch.autograd.set_detect_anomaly(True):
        plain(net, x)


pytestmark = [
    pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
]
BACKWARDS: list[Backward] = [
    plain, retained, second_order, create_graph, reentrant, nested_reentrant, non_reentrant, some_inputs, two_roots,
    from_a_hook, in_a_forward, autocast, anomaly,
]  # fmt: skip


def build() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, D), nn.Tanh()), torch.randn(N, D, requires_grad=True)


def results(net: nn.Module, x: Tensor) -> list[Tensor]:
    return [t for t in (x.grad, *(p.grad for p in net.parameters()), torch.get_rng_state()) if t is not None]


@pytest.mark.parametrize("backward", BACKWARDS, ids=lambda backward: backward.__name__)
def test_gradients_are_seen_and_the_same(backward: Backward) -> None:
    net, x = build()
    backward(net, x)
    bare = results(net, x)
    net, x = build()

    def run() -> None:
        backward(net, x)
        for p in net.parameters():
            p.grad = None  # nothing but the end of the backward can have seen them

    def watched() -> list[Tensor]:
        with attnprof.profile(net):
            backward(net, x)
        return results(net, x)

    found = watched()
    assert len(found) == len(bare)
    assert all(torch.equal(a, b) for a, b in zip(found, bare, strict=True))
    net, x = build()
    assert read(run, net).memory.state_bytes["gradient"] == E * P


def test_a_gradient_that_is_only_computed_is_not_there() -> None:
    net, x = build()
    reading = read(lambda: torch.autograd.grad(net(x).sum(), list(net.parameters())), net)
    assert reading.memory.state_bytes["gradient"] == 0


@pytest.mark.filterwarnings("error")
def test_computed_parameters_are_not_asked_for_a_gradient() -> None:
    """Torch warns who does; theirs goes on to what they were computed of."""
    net, x = build()

    def run() -> None:
        computed = {name: p * 2 for name, p in net.named_parameters()}
        torch.func.functional_call(net, computed, (x,)).sum().backward()

    read(run)
    assert net[0].weight.grad is not None


def test_a_backward_that_fails_is_not_waited_for() -> None:
    """Its end never comes; the next backward has its own. What the failed one left is seen then, and added up."""
    net, x = build()

    def fail(_: Tensor) -> None:
        raise ValueError("mine")

    with attnprof.profile(net) as prof:
        for _ in range(3):
            y = x * 1
            y.register_hook(fail)  # after the parameters have their gradients
            with pytest.raises(ValueError, match="mine"):
                net(y).sum().backward()
            for p in net.parameters():
                p.grad = None
        assert Reading(prof.trace).memory.state_bytes["gradient"] == 0
        net(x).sum().backward()
    assert Reading(prof.trace).memory.state_bytes["gradient"] == E * P


@pytest.mark.parametrize("inside", [False, True])
def test_a_backward_in_another_thread(inside: bool) -> None:
    net, x = build()
    with attnprof.profile(net) as prof:
        loss = net(x).sum()

        def work() -> None:
            if inside:
                with prof:
                    loss.backward()
            else:
                loss.backward()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert Reading(prof.trace).memory.state_bytes["gradient"] == E * P


def test_callbacks_of_the_users_run_once_and_in_their_order() -> None:
    """Data parallel wrappers end their work so."""
    log: list[str] = []

    def run() -> None:
        x = torch.ones(D, requires_grad=True)
        y = x * 2

        def hook(gradient: Tensor) -> None:
            for name in ("first", "second"):
                torch.autograd.Variable._execution_engine.queue_callback(lambda name=name: log.append(name))

        y.register_hook(hook)
        y.sum().backward()

    run()
    bare = list(log)
    log.clear()
    read(run)
    assert log == bare == ["first", "second"]


def test_an_optimizer_in_the_backward() -> None:
    """Each gradient goes as soon as it came: the most there was at once is the largest."""
    net, x = build()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in net.parameters()}

    def update(p: nn.Parameter) -> None:
        optimizers[p].step()
        p.grad = None

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(update)
    reading = read(lambda: net(x).sum().backward(), net)
    assert reading.memory.state_bytes["gradient"] == E * D * D
    assert reading.alive_at_the_end("gradient") == 0


def test_a_backward_that_outlives_the_profile() -> None:
    """A thread that is inside a module when the profile closes: what its backward leaves is not looked at."""
    net, x = build()
    started, closed = threading.Event(), threading.Event()

    def wait(_: Tensor) -> None:
        started.set()
        closed.wait()

    class Inside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = net(x)
            y.register_hook(wait)  # before the parameters have their gradients
            y.square().sum().backward()
            return x

    with attnprof.profile(net) as prof:
        thread = threading.Thread(target=Inside(), args=(x,))
        thread.start()
        started.wait()
    before = Reading(prof.trace).memory
    closed.set()
    thread.join()
    assert net[0].weight.grad is not None
    assert Reading(prof.trace).memory == before
