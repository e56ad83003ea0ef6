"""Rates, spreads and doubts of a calibration."""

from __future__ import annotations

import pytest

from hardware.calibrations import MS, calibration, measurement


def test_rates_follow_from_work_and_time() -> None:
    """10 calls of 3 MFLOP in 1, 2, 3, 4 and 5 ms."""
    found = measurement("matmul", "float32", 3_000_000, times=(3 * MS, 1 * MS, 5 * MS, 2 * MS, 4 * MS), calls=10)
    assert found.best == 30_000_000 / 1e-3
    assert found.median == 30_000_000 / 3e-3
    assert found.quartiles == (30_000_000 / 4e-3, 30_000_000 / 2e-3)
    assert found.spread == (4 - 2) / 3


def test_the_spread_of_few_repeats_is_their_range() -> None:
    assert measurement("matmul", "float32", 1, times=(10, 13, 11)).spread == (13 - 10) / 11
    assert measurement("matmul", "float32", 1, times=(10,)).spread == 0


def test_the_best_of_sizes_is_the_fastest_repeat_of_any() -> None:
    steady = measurement("matmul", "float32", 100, "steady", (10, 10, 10, 10))
    lucky = measurement("matmul", "float32", 100, "lucky", (9, 20, 20, 20))
    other = measurement("vector", "float32", 100, "of another kind", (1, 1, 1, 1))
    assert calibration(measurements=(steady, lucky, other)).best("matmul") == {"float32": lucky}


def test_a_quiet_machine_has_no_doubts() -> None:
    assert calibration().doubts == []


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        (
            (8, 10, 10, 12, 14),
            "The spread of matmul bfloat16 is 20%: something else is running; calibrate again on an ",
        ),
        ((1, 1, 10, 40, 50), "The spread of matmul bfloat16 is 4x the median: something else is running"),
    ],
)
def test_a_wide_spread_is_said(times: tuple[int, ...], sentence: str) -> None:
    """(12 - 10) / 10 is 20%, (40 - 1) / 10 is 3.9 times."""
    quiet = measurement("matmul", "float32", 1)
    (doubt,) = calibration(measurements=(quiet, measurement("matmul", "bfloat16", 1, times=times))).doubts
    assert doubt.startswith(sentence)


def test_the_widest_spread_is_named_and_the_others_counted() -> None:
    wide, wider = (10, 10, 10, 12, 14), (10, 10, 10, 14, 14)
    (doubt,) = calibration(
        measurements=(
            measurement("matmul", "float32", 1, times=wide),
            measurement("launch", "throughput", 1, times=wider),
        )
    ).doubts
    assert doubt.startswith("The spread of launch throughput is 40%, and of 1 more above 15%: ")


def test_time_that_others_got_is_said() -> None:
    """Repeats that are all equally slow have no spread."""
    (doubt,) = calibration(processor_share=0.62).doubts
    assert doubt.startswith("The process got 62% of the processor time it asked for: something else is running")
    assert calibration(processor_share=None).doubts == calibration(processor_share=0.9).doubts == []
