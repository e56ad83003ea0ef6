"""Questions about measured time, asked of times given by hand; and as JSON and back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attnprof.analysis.layer_times import MeasuredLayers
from attnprof.core import trace_json
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError, ConservationError, TraceFormatError
from attnprof.core.timing import Durations
from timing.traces import ACCUMULATION, BETWEEN, MS, durations, report, times, whole


def measured() -> MeasuredLayers:
    found = report(times()).layer_times
    assert found is not None
    return found


def test_nothing_was_timed() -> None:
    assert report(None).layer_times is None


def test_self_and_inclusive_by_phase() -> None:
    found = measured()
    assert found.of("a", "forward") == durations((10, 12, 14, 16))
    assert found.of("a") == durations((10 + 20, 12 + 20, 14 + 20, 16 + 60))
    assert found.of("", "forward") == durations((1 + 10 + 4, 1 + 12 + 4, 1 + 14 + 4, 1 + 16 + 4))
    assert found.of("", inclusive=False) == durations((1, 1, 1, 1))
    assert found.of("b") == durations((0, 0, 0, 0))
    assert found.phases == ["forward", "backward", "other"]


def test_a_median_is_that_of_the_sums_and_not_the_sum_of_medians() -> None:
    """The third of (30, 32, 34, 76) and not that of (10, 12, 14, 16) plus that of (20, 20, 20, 60)."""
    assert measured().of("a").median_ns == 34 * MS


def test_everything_adds_up_to_the_profiled_step() -> None:
    found = measured()
    parts = [*found.by_module(inclusive=False).values(), found.accumulation, found.unattributed]
    assert Durations.added(parts) == found.profiled == durations(whole())


def test_how_much_of_the_work_is_attributed_and_what_the_profiler_adds() -> None:
    found = measured()
    work = sum(whole()) - sum(BETWEEN)
    assert found.attributed == (work - sum(ACCUMULATION) - 4 * 2) / work
    assert found.overhead == sorted(whole())[2] / 44 - 1


@pytest.mark.parametrize(("fqn", "phase"), [("x", None), ("a", "forwards")])
def test_a_name_that_is_not_there(fqn: str, phase: str | None) -> None:
    with pytest.raises(AttnprofError, match=f'^no (module "x" in this run|phase "{phase}": use)'):
        measured().of(fqn, phase)


def test_times_that_do_not_add_up_are_a_defect() -> None:
    profiled = (whole()[0] + 1, *whole()[1:])
    with pytest.raises(ConservationError, match="a defect in attnprof"):
        _ = report(times(profiled)).layer_times


@pytest.mark.parametrize(
    ("device", "clock", "same"),
    [
        (DeviceSpec("this", "EPYC", "", target="cpu"), "cpu", True),
        (DeviceSpec("this", "EPYC", "", target="cpu"), "cuda", False),
        (DeviceSpec("h100-sxm", "H100", "NVIDIA", reported_as=("NVIDIA H100 80GB HBM3",)), "cpu", False),
        (DeviceSpec("h100-sxm", "H100", "NVIDIA", reported_as=("cuda",)), "cuda", True),
        (DeviceSpec("h100-sxm", "H100", "NVIDIA", reported_as=("NVIDIA H100 80GB HBM3",)), "cuda", False),
        (DeviceSpec("mine", "mine", ""), "cpu", True),
        (DeviceSpec("mine", "mine", ""), "cuda", True),
    ],
)
def test_which_device_the_times_are_of(device: DeviceSpec, clock: str, same: bool) -> None:
    """The trace names what ran as its clock: a GPU is named by its driver in real ones."""
    found = report(times(clock=clock)).layer_times
    assert found is not None
    assert found.is_of(device) is same


# As JSON


def test_times_are_kept_in_a_file() -> None:
    before = report(times())
    trace = trace_json.loads(trace_json.dumps(before.trace), "run.json")
    assert trace.layer_times == before.trace.layer_times
    assert trace.meta["timed_on"] == "cpu"


def test_a_trace_whose_layers_have_other_steps_than_the_whole_is_refused() -> None:
    found = times()
    fewer = replace(found, layers=(replace(found.layers[0], self_time=durations((1, 1))), *found.layers[1:]))
    text = trace_json.dumps(replace(report(None).trace, layer_times=fewer))
    with pytest.raises(TraceFormatError, match="not of as many steps"):
        trace_json.loads(text, "run.json")
