"""Threads: counted whole where they enter the profile, module by module where they do not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

import attnprof
from capture.nets import Chain, both, rows, units


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
