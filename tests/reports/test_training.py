"""The sentence on the backward: figures, reasons, names."""

from __future__ import annotations

from typing import Any

import pytest

from attnprof.analysis.training import Cause, Reason, Training
from attnprof.core.units import Units
from attnprof.reports.table import render
from attnprof.reports.training import sentence
from reports.traces import Hand, mm, stack


def training(reasons: dict[Cause, dict[str, int]], **recompute: dict[str, int]) -> Training:
    """Of a forward of 100 matmul FLOPs."""
    found = tuple(Reason(cause, modules) for cause, modules in reasons.items())
    more: dict[str, Any] = {"rerun": {}, "rebuilt": {}} | recompute
    return Training(100, 200 + sum(reason.flops for reason in found), found, **more)


def text(found: Training) -> str:
    found.check()
    return sentence(found, "Net", Units())


def test_nothing_to_explain() -> None:
    assert text(training({})) == "backward = 2.00 × forward (matmul FLOPs)."


def test_frozen_weights_and_plain_inputs() -> None:
    found = training(
        {"frozen": {f"h.{i}.{part}": -3 for i in range(6) for part in "qk"}, "input": {"h.0": -10, "": -2}},
        rerun={"h.0.q": 11, "h.1.q": 11, "h.0.k": 11},
    )
    assert text(found) == (
        "backward = 1.52 × forward (matmul FLOPs), because the weights of h.[0-5].q, h.[0-5].k are frozen (-0.360), "
        "and the inputs of h.0, Net itself need no gradient (-0.120); recompute adds 0.330: run again in "
        "h.[0-1].q, h.0.k."
    )


@pytest.mark.parametrize(
    ("cause", "flops", "words"),
    [
        ("call", -50, "because some forward calls have no backward (-0.500)."),
        ("unreached", -50, "because no backward reached a (-0.500)."),
        ("either", -50, "the inputs of a need no gradient or some of the calls have no backward (-0.500)."),
        ("less", -50, "a did less than twice the forward: part of it has no backward, or one of its own (-0.500)."),
        ("more", 50, "a did more than twice the forward: several backwards, a double one, or one of its own (+0.500)."),
    ],
)
def test_other_reasons(cause: Cause, flops: int, words: str) -> None:
    assert text(training({cause: {"a": flops}})).endswith(words)


def test_recompute_of_both_kinds() -> None:
    found = training({}, rerun={"h.0": 20, "h.1": 20}, rebuilt={"h.0.attn": 5})
    assert text(found) == (
        "backward = 2.00 × forward (matmul FLOPs); recompute adds 0.450: 0.400 run again in h.[0-1], "
        "0.0500 fused attention rebuilds its scores."
    )


def test_a_backward_without_its_forward() -> None:
    found = Training(0, 2_000_000, (Reason("more", {"": 2_000_000}),), {}, {})
    assert text(found) == "backward: 2.00 MFLOP of matmul; its forward was not seen."


def test_what_ran_outside_any_module_is_named_so() -> None:
    found = training({"input": {"(outside)": -10}})
    assert "the inputs of what runs outside any module need no gradient" in text(found)


def test_the_table_has_it_whenever_a_backward_ran() -> None:
    assert "backward = 1.49 × forward" in render(stack().report(), width=120)
    assert "backward = " not in render(Hand().add("a").ran("a", mm(4, 8, 16)).report(), width=120)
