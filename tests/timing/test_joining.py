"""The rules by which events get a module and a phase, on events made by hand: every time is a derivation."""

from __future__ import annotations

from itertools import count

import pytest

from attnprof.capture.joining import join, places
from attnprof.capture.step_events import ACCUMULATION, NODE, Event, Joined, Kernel, Kind
from attnprof.core.trace import OPTIMIZER, OUTSIDE

A, B, ROOT = 3, 4, 0
_IDENTS = count(1)


def event(kind: Kind, start: int, end: int, name: str = "aten::op", **more: int) -> Event:
    return Event(kind, name, start, end, ident=next(_IDENTS), **more)


def op(start: int, end: int, number: int = -1, thread: int = 1) -> Event:
    return event("op", start, end, number=number, thread=thread)


def scope(start: int, end: int, module: int, thread: int = 1) -> Event:
    return event("module", start, end, module=module, thread=thread)


def node(start: int, end: int, number: int, *, thread: int = 1, made_in: int = 1) -> tuple[Event, Event]:
    """A node that runs, and its body, which takes all of it."""
    return (
        event("node", start, end, f"{NODE}OpBackward0", thread=thread),
        event("body", start, end, "OpBackward0", number=number, thread=thread, made_in=made_in),
    )


def step(end: int, *events: Event) -> list[Event]:
    return [event("step", 0, end), *events]


def test_an_op_belongs_to_the_innermost_module_and_python_between_ops_to_none() -> None:
    found = join(step(100, scope(0, 90, A), op(10, 30), scope(40, 80, B), op(50, 70)))
    assert found == Joined(100, {(A, "forward"): 30 - 10, (B, "forward"): 70 - 50}, 0)
    assert found.unattributed_ns == 100 - (30 - 10) - (70 - 50)


def test_an_op_in_an_op_is_not_counted_twice() -> None:
    found = join(step(100, scope(0, 100, A), op(10, 60), op(20, 30), op(30, 60)))
    assert found.layers == {(A, "forward"): 60 - 10}


def test_a_block_that_somebody_named_is_no_work() -> None:
    found = join(step(100, scope(0, 100, A), event("block", 10, 90), op(20, 50)))
    assert found.layers == {(A, "forward"): 50 - 20}


def test_a_node_belongs_to_the_module_that_claimed_its_number() -> None:
    forward = [scope(0, 20, A), op(0, 10, number=5), scope(20, 40, B), op(20, 30, number=6)]
    found = join(step(100, *forward, *node(40, 70, 6), *node(70, 75, 5)))
    assert found.layers[B, "backward"] == 70 - 40
    assert found.layers[A, "backward"] == 75 - 70


def test_the_last_claim_holds() -> None:
    """The op of A makes no node (an identity dropout): it carries the number of the op of B."""
    found = join(step(100, scope(0, 10, A), op(0, 10, 7), scope(10, 20, B), op(10, 20, 7), *node(20, 50, 7)))
    assert found.layers[B, "backward"] == 50 - 20
    assert (A, "backward") not in found.layers


def test_a_number_that_nobody_claims_belongs_to_the_claim_before() -> None:
    forward = [scope(0, 10, A), op(0, 10, 7), scope(10, 20, B), op(10, 20, 9)]
    found = join(step(100, *forward, *node(20, 50, 8)))
    assert found.layers[A, "backward"] == 50 - 20


def test_a_node_of_before_the_step_is_outside() -> None:
    found = join(step(100, scope(0, 10, A), op(0, 10, 7), *node(20, 50, 3)))
    assert found.layers[OUTSIDE, "backward"] == 50 - 20


def test_hooks_of_a_node_run_before_the_body_that_has_its_number() -> None:
    hooked = [event("node", 20, 60, f"{NODE}OpBackward0"), op(25, 35), event("body", 40, 60, number=7, made_in=1)]
    found = join(step(100, scope(0, 10, A), op(0, 10, 7), scope(10, 20, B), op(10, 20, 8), *hooked))
    assert found.layers[A, "backward"] == 60 - 20


def test_a_node_that_runs_the_body_of_another() -> None:
    inner = event("body", 30, 45, number=7, made_in=1)
    forward = [scope(0, 10, A), op(0, 10, 7), scope(10, 20, B), op(10, 20, 8)]
    found = join(step(100, *forward, *node(20, 50, 8), inner))
    assert found.layers[A, "backward"] == 45 - 30
    assert found.layers[B, "backward"] == (50 - 20) - (45 - 30)


def test_numbers_are_those_of_the_thread_that_made_the_node() -> None:
    forward = [scope(0, 10, A, thread=1), op(0, 10, 7, thread=1), scope(10, 20, B, thread=2), op(10, 20, 7, thread=2)]
    backward = [*node(20, 30, 7, thread=3, made_in=2), *node(30, 45, 7, thread=3, made_in=1)]
    found = join(step(100, *forward, *backward))
    assert found.layers[B, "backward"] == 30 - 20
    assert found.layers[A, "backward"] == 45 - 30


def test_a_module_inside_a_node_is_recomputed_and_its_backward_is_backward() -> None:
    """A reentrant checkpoint in A: B runs without a graph, then again within a node of A, then backward in there."""
    outer = [event("node", 20, 80, f"{NODE}CheckpointBackward"), event("body", 20, 80, number=5, made_in=1)]
    again = [scope(30, 40, B), op(30, 40, 9)]
    found = join(step(100, scope(0, 20, A), op(0, 20, 5), scope(5, 15, B), op(5, 15), *outer, *again, *node(40, 70, 9)))
    assert found.layers == {
        (A, "forward"): 20 - (15 - 5),
        (B, "forward"): 15 - 5,
        (A, "backward"): (80 - 20) - (40 - 30) - (70 - 40),
        (B, "recompute"): 40 - 30,
        (B, "backward"): 70 - 40,
    }


def test_an_op_in_a_node_that_could_make_nodes_is_recomputed() -> None:
    """Another node of that backward runs an op that could not: gradients are not on there."""
    forward = [scope(0, 10, A), op(0, 5, 5), op(5, 10, 6)]
    found = join(step(100, *forward, *node(20, 40, 6), op(25, 30), *node(40, 60, 5), op(45, 55, 8), op(55, 60)))
    assert found.layers[A, "recompute"] == 55 - 45
    assert found.layers[A, "backward"] == (40 - 20) + (60 - 40) - (55 - 45)


def test_a_backward_that_builds_a_graph_is_no_recomputation() -> None:
    forward = [scope(0, 10, A), op(0, 5, 5), op(5, 10, 6)]
    found = join(step(100, *forward, *node(20, 40, 6), op(25, 30, 7), *node(40, 60, 5), op(45, 55, 8)))
    assert found.layers[A, "backward"] == (40 - 20) + (60 - 40)
    assert (A, "recompute") not in found.layers


def test_accumulation_is_a_line_of_its_own() -> None:
    accumulates = event("node", 20, 50, f"{NODE}torch::autograd::AccumulateGrad")
    found = join(step(100, scope(0, 10, A), op(0, 10, 5), accumulates, op(25, 30)))
    assert found == Joined(100, {(A, "forward"): 10}, 50 - 20)
    assert places([*step(100), accumulates])[accumulates.ident][0] == ACCUMULATION


def test_an_optimizer_step_and_a_module_that_it_calls() -> None:
    found = join(step(100, event("optimizer", 0, 90), op(10, 30), scope(40, 60, A), op(45, 50)))
    assert found.layers == {(OPTIMIZER, "optimizer"): 30 - 10, (A, "forward"): 50 - 45}


def test_outside_any_module_what_makes_a_node_is_forward_and_the_rest_other() -> None:
    """A target is made, the loss is taken, its accuracy is looked at."""
    found = join(step(100, op(0, 10), op(10, 30, 5), op(30, 35, 6), op(40, 70, 6), *node(70, 80, 6)))
    assert found.layers == {
        (OUTSIDE, "other"): (10 - 0) + (35 - 30),
        (OUTSIDE, "forward"): (30 - 10) + (70 - 40),
        (OUTSIDE, "backward"): 80 - 70,
    }


def test_what_the_profiler_does_is_taken_out_of_the_step() -> None:
    found = join(step(100, scope(0, 20, A), op(0, 20, 4), event("unseen", 20, 50), op(25, 40, 5), *node(50, 60, 5)))
    assert found == Joined(100 - (50 - 20) - (60 - 50), {(A, "forward"): 20}, 0)


def test_what_is_not_within_the_step_is_left_out() -> None:
    found = join([event("step", 50, 100), op(0, 40), op(45, 60, thread=2), op(90, 120, thread=2)])
    assert found.total_ns == 100 - 50
    assert sum(found.layers.values()) == (60 - 50) + (100 - 90)


def test_an_instant_of_two_threads_belongs_to_what_began_first() -> None:
    found = join(step(100, scope(0, 60, A), op(10, 50), scope(20, 90, B, thread=2), op(30, 80, thread=2)))
    assert found.layers == {(A, "forward"): 50 - 10, (B, "forward"): 80 - 50}


def test_kernels_take_the_place_of_the_op_that_launched_them() -> None:
    """Op by op on the host, kernels later; those that overlap are not counted twice; one that nobody launched."""
    first, second = op(0, 5, 7), op(10, 15, 8)
    backward = node(20, 22, 8)
    kernels = [
        Kernel(8, 30, first.ident),
        Kernel(20, 50, second.ident),
        Kernel(60, 90, backward[1].ident),
        Kernel(90, 95, 0),
    ]
    found = join(step(100, scope(0, 6, A), first, scope(9, 16, B), second, *backward), kernels)
    assert found.layers == {
        (A, "forward"): 30 - 8,
        (B, "forward"): 50 - 30,
        (B, "backward"): 90 - 60,
        (OUTSIDE, "other"): 95 - 90,
    }
    assert found.unattributed_ns == 100 - (50 - 8) - (95 - 60)


@pytest.mark.parametrize("kernels", [None, []])
def test_an_empty_step_has_nothing_in_it(kernels: list[Kernel] | None) -> None:
    found = join(step(100), kernels)
    assert (found.layers, found.unattributed_ns) == ({}, 100)
