"""Measured time in a file: as it was, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from attnprof.core.timing import SAMPLE, Durations, LayerTime, LayerTimes, StepKind, Timing
from attnprof.core.timing_json import layers_from_dict, layers_to_dict, timing_from_dict, timing_to_dict

TIMING = Timing(
    (StepKind(("float32[2]", "SGD.step()"), ((0, 1), (1, 5)), 2, 7, Durations.of([5, 3, 4]), tokens=40),),
    clock="cuda events",
    recount_every=4,
)
LAYERS = LayerTimes(
    step=Durations.of([9, 9]),
    profiled=Durations.of([12, 11]),
    layers=(LayerTime(3, "forward", Durations.of([4, 4])), LayerTime(3, "backward", Durations.of([6, 5]))),
    accumulation=Durations.of([1, 1]),
    unattributed=Durations.of([1, 1]),
)


def test_there_and_back() -> None:
    assert timing_from_dict(timing_to_dict(TIMING), events=5) == TIMING
    assert layers_from_dict(layers_to_dict(LAYERS), modules=4) == LAYERS


def put(path: list[Any], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "damage",
    [
        put(["kinds", 0, "pieces", 1, 1], 6),  # more op calls than there are
        put(["kinds", 0, "pieces", 1], [3, 2]),
        put(["kinds", 0, "counted"], -1),
        put(["kinds", 0, "tokens"], 1.5),
        put(["kinds", 0, "times", 0], 2),  # three durations of two
        put(["kinds", 0, "times", 1], 11),  # whose sum is 12
        put(["kinds", 0, "times", 2, 0], -5),
        put(["kinds", 0, "times"], [SAMPLE + 1, 10**9, [0] * (SAMPLE + 1)]),
        put(["kinds", 0, "inputs", 0], 7),
        put(["clock"], None),
        put(["recount_every"], "often"),
    ],
)
def test_damaged_timings_are_refused(damage: Callable[[dict[str, Any]], None]) -> None:
    data = timing_to_dict(TIMING)
    damage(data)
    with pytest.raises((TypeError, ValueError)):
        timing_from_dict(data, events=5)


@pytest.mark.parametrize("damage", [put(["layers", 0, 0], 4), put(["layers", 0, 1], None), put(["step"], [1])])
def test_damaged_layers_are_refused(damage: Callable[[dict[str, Any]], None]) -> None:
    data = layers_to_dict(LAYERS)
    damage(data)
    with pytest.raises((TypeError, ValueError)):
        layers_from_dict(data, modules=4)


def test_quantiles_and_spread() -> None:
    times = Durations.of([40, 10, 30, 20])
    assert (times.count, times.total_ns, times.median_ns) == (4, 100, 30)
    assert times.spread == (40 - 20) / 30
    assert Durations.of([5, 5, 5]).spread is None
    assert Durations().median_ns is None
    assert len(Durations.of(list(range(5 * SAMPLE))).sample_ns) == SAMPLE
