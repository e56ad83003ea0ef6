"""Where a capture begins and ends: around part of a step, twice, nested."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import attnprof
from capture.nets import UNIT, Chain, both, linear, rows, units

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
