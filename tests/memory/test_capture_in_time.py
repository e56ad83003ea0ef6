"""When a capture begins and ends, which threads it has, and what an interrupt leaves of it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.core.memory import MemoryTrace
from memory.readings import Reading, read

E = 4
N, D = 5, 12
ROW = E * N * D


# The log's beginning and end


def test_what_happens_after_the_end_is_not_in_it() -> None:
    prof = attnprof.profile()
    with prof:
        x = torch.ones(N, D)
        y = x + 1
    before = Reading(prof.trace).memory
    del y
    _ = x + 2
    gc.collect()
    assert Reading(prof.trace).memory == before
    assert Reading(prof.trace).live[-1] == 2 * ROW


def test_entering_again_goes_on() -> None:
    """What went while nobody looked is gone; what came is given."""
    prof = attnprof.profile()
    with prof:
        x = torch.ones(N, D)
        y = x + 1
    del y
    z = torch.ones(N, D)
    with prof:
        _ = x + z
    reading = Reading(prof.trace)
    assert reading.live == [ROW, 2 * ROW, ROW, 2 * ROW, 3 * ROW]
    assert reading.memory.block_made == [True, True, False, True]


def test_a_report_inside_has_what_there_was_so_far() -> None:
    seen: list[MemoryTrace] = []
    net = nn.Linear(D, D)
    with attnprof.profile(net) as prof:
        for _ in range(3):
            net(torch.ones(N, D)).sum().backward()
            seen.append(Reading(prof.trace).memory)
    assert [len(memory.saved) for memory in seen] == [1, 2, 3]
    for earlier, later in zip(seen, [*seen[1:], Reading(prof.trace).memory], strict=True):
        assert later.log[: len(earlier.log)] == earlier.log
        assert later.block_bytes[: len(earlier.block_bytes)] == earlier.block_bytes


def test_a_profile_around_nothing() -> None:
    reading = read(lambda: None)
    assert reading.memory.log == []
    assert reading.memory.state_bytes == {"parameter": 0, "trainable": 0, "buffer": 0, "gradient": 0}


def test_two_profiles_see_the_same() -> None:
    net, x = nn.Sequential(nn.Linear(D, D), nn.Tanh()), torch.randn(N, D)
    with attnprof.profile(net) as outer, attnprof.profile(net) as inner:
        net(x).sum().backward()
    first, second = Reading(outer.trace), Reading(inner.trace)
    assert first.memory.saved == second.memory.saved
    assert first.peak == second.peak
    assert first.memory.state_bytes == second.memory.state_bytes


# Threads


def test_threads_have_one_memory() -> None:
    """What several threads hold at once adds up; each op is at its own place in the trace."""
    prof = attnprof.profile()
    ready, go = threading.Barrier(3), threading.Event()
    kept: list[Tensor] = []

    def work(size: int) -> None:
        with prof:
            kept.append(torch.ones(size))
            ready.wait()
            go.wait()
            kept.append(torch.ones(size))

    with prof:
        threads = [threading.Thread(target=work, args=(size,)) for size in (10, 100)]
        for thread in threads:
            thread.start()
        ready.wait()
        go.set()
        for thread in threads:
            thread.join()
    reading = Reading(prof.trace)
    assert reading.live[-1] == reading.peak == 2 * E * 110
    ops = [reading.trace.signatures[reading.trace.event_signatures[at]] for at in reading.memory.log_at]
    assert [op.outs[0].shape[0] * E for op in ops] == reading.memory.block_bytes


def test_a_storage_may_die_in_another_thread() -> None:
    kept = []
    with attnprof.profile() as prof:
        kept.append(torch.ones(N, D))
        thread = threading.Thread(target=kept.clear)
        thread.start()
        thread.join()
        torch.ones(1)
    assert Reading(prof.trace).live == [ROW, 0, E, 0]


def test_a_call_does_not_hold_what_another_thread_makes_meanwhile() -> None:
    inside, done = threading.Event(), threading.Event()

    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            big = torch.zeros(1000)
            inside.set()
            done.wait()
            return x + big.sum()

    class Quick(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            inside.wait()
            return x * 2

    prof = attnprof.profile()

    def work() -> None:
        with prof:
            Slow()(torch.ones(N, D))

    quick = Quick()
    with prof:
        thread = threading.Thread(target=work)
        thread.start()
        quick(torch.ones(N, D))
        done.set()
        thread.join()
    assert Reading(prof.trace).memory.saved == []


def test_modules_in_a_thread_that_is_not_inside() -> None:
    """Its outermost calls are seen; what it saved is booked all the same."""
    net = nn.Sequential(nn.Tanh(), nn.Linear(D, D))
    out: list[Tensor] = []
    with attnprof.profile(net) as prof:
        thread = threading.Thread(target=lambda: out.append(net(torch.randn(N, D, requires_grad=True))))
        thread.start()
        thread.join()
    assert Reading(prof.trace).saved_by_name() == {"0": ROW}


# Interruptions


def interrupt_in(place: str) -> Callable[..., Any]:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt(place)

    return interrupt


def test_after_an_interrupt_calls_are_outermost_again() -> None:
    """No hook told that the frames are gone."""
    net = nn.Sequential(nn.Tanh(), nn.Linear(D, D))
    handle = net[1].register_forward_pre_hook(interrupt_in("forward"))
    with attnprof.profile(net) as prof:
        with pytest.raises(KeyboardInterrupt):
            net(torch.randn(N, D, requires_grad=True))
        handle.remove()
        net(torch.randn(N, D, requires_grad=True)).sum().backward()
    reading = Reading(prof.trace)
    assert [call.bytes for call in reading.memory.saved] == [ROW]
    assert reading.memory.state_bytes["gradient"] == E * (D * D + D)
