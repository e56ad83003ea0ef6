"""Measured against attainable: the share, and the sentence when the work was faster than it can be."""

from __future__ import annotations

import pytest

from attnprof.core.achieved import Achieved
from attnprof.core.cost import Cost
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.core.roofline import Attainable, RooflinePoint


def test_a_share_of_the_roofline() -> None:
    achieved = Achieved("toy", measured_s=8e-3, attainable_s=2e-3)
    assert (achieved.share, achieved.percent, achieved.contradiction) == (2 / 8, "25.0", None)


def test_the_roofline_itself_is_no_contradiction() -> None:
    assert Achieved("toy", 2e-3, 2e-3, 2e-3).contradiction is None


def test_faster_than_op_by_op_may_be_caches() -> None:
    sentence = Achieved("toy", measured_s=1e-3, attainable_s=2e-3, fused_s=0.5e-3).contradiction
    assert sentence is not None
    assert sentence.startswith("Contradiction: measured 1.00 ms, attainable 2.00 ms on toy (200.0% of the roofline).")
    assert "caches and fusion move fewer" in sentence


@pytest.mark.parametrize("fused_s", [None, 1e-3])
def test_without_a_fused_bound_or_at_it_caches_may_explain(fused_s: float | None) -> None:
    assert "caches and fusion move fewer" in str(Achieved("toy", 1e-3, 2e-3, fused_s).contradiction)


def test_faster_than_perfect_fusion_is_not_fusion() -> None:
    sentence = Achieved("toy", measured_s=0.4e-3, attainable_s=2e-3, fused_s=0.5e-3).contradiction
    assert "Even perfect fusion would take 500 µs: unless everything stayed in a cache," in str(sentence)


def test_faster_by_no_more_than_the_launches_may_be_a_queue() -> None:
    """Of 2 ms, ops that wait to be launched are 0.5 ms."""
    sentence = Achieved("toy", measured_s=1.5e-3, attainable_s=2e-3, fused_s=1.8e-3, launch_s=0.5e-3).contradiction
    assert "Ops that wait to be launched are 500 µs of it" in str(sentence)
    beyond = Achieved("toy", measured_s=1.4e-3, attainable_s=2e-3, fused_s=1.8e-3, launch_s=0.5e-3).contradiction
    assert "caches and fusion move fewer" in str(beyond)


def test_faster_than_its_arithmetic_is_neither_caches_nor_launches() -> None:
    times = {"measured_s": 1e-3, "attainable_s": 4e-3, "fused_s": 0.9e-3, "launch_s": 3e-3}
    assert "Arithmetic alone would take 1.10 ms" in str(Achieved("toy", compute_s=1.1e-3, **times).contradiction)
    assert "Ops that wait to be launched" in str(Achieved("toy", compute_s=1e-3, **times).contradiction)


def test_of_a_point() -> None:
    point = RooflinePoint("", None, Cost(), Attainable(1e-3, 2e-3, 1e-3), 10, 3e-3)
    assert Achieved.of(point, DeviceSpec("toy", "Toy", "nobody"), 8e-3) == Achieved("toy", 8e-3, 4e-3, 3e-3, 1e-3, 1e-3)


@pytest.mark.parametrize("measured", [0.0, -1e-3, float("nan"), float("inf")])
def test_a_time_that_is_none(measured: float) -> None:
    with pytest.raises(AttnprofError, match=r"must be a positive number\.$"):
        Achieved("toy", measured, 1e-3)
