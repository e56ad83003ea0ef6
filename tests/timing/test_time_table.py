"""The table of measured times: rows as in the tree, medians, the rest of the step, shares of a roofline."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from attnprof import Report
from attnprof.core.device import DeviceSpec, Peak, Provenance
from attnprof.core.errors import AttnprofError
from attnprof.core.timing import LayerTime, LayerTimes
from timing.traces import ACCUMULATION, BARE, BETWEEN, MS, durations, report, times, whole

#: FLOPs of ``a``: 2·4·8·8 forward, twice that backward. At 1 kFLOP/s they take more than a second, at 64 less.
FLOPS_OF_A = 3 * 2 * 4 * 8 * 8


def device(flops_per_s: int, target: str = "cpu", vendor: str = "") -> DeviceSpec:
    """A device that does so many FLOPs a second, and moves bytes in no time."""
    told = Provenance("measured", derivation="made up")
    peaks = tuple(Peak(engine, "float32", flops_per_s, told) for engine in ("matmul", "vector"))
    return DeviceSpec("made-up", "made up", vendor, target=target, bandwidth_bytes_per_s=10**15, peaks=peaks)


def rows(found: Report, **options: object) -> dict[str, list[str | float]]:
    """The cells of the time table by label, numbers as such; the second line of the heading under ``layer``."""
    text = found.to_table(by="time", width=200, **options)
    lines = text[text.index("measured") :].splitlines()[1:]
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith(("A bare step", "1 deeper")))]
    split = [re.split(r"  +", re.sub(r"^[│├└─ ]*", "", line)) for line in table]
    return {label: [_number(cell) for cell in cells] for label, *cells in split}


def _number(cell: str) -> str | float:
    return float(cell) if cell[0].isdigit() else cell


def test_medians_by_phase_and_together_and_the_share_of_the_step() -> None:
    """The third of four: the median that a :class:`Durations` has of an even number."""
    found = rows(report(times()))
    step = sorted(whole())[2]
    assert found["layer"] == ["ms", "ms", "ms", "ms", "%", "step"]
    assert found["a"] == [14, 20, "–", 34, round(100 * (76 - 32) / 34), round(100 * 34 / step, 1)]
    assert found["c"][:4] == [4, 8, "–", 12]
    assert found["b"] == ["–", "–", "–", "–", "–", 0]
    assert found["step, profiled"][3] == step


@pytest.mark.parametrize(("step", "unit"), [(99_999, "ms"), (100_000, "s"), (1, "ms")])
def test_the_unit_is_one_that_layers_have_digits_in(step: int, unit: str) -> None:
    layers = (LayerTime(3, "forward", durations((step,) * 4)),)
    none = durations((0,) * 4)
    found = report(LayerTimes(durations((step,) * 4), durations((step,) * 4), layers, none, none))
    assert rows(found)["layer"][0] == unit
    assert rows(found)["a"][0] == (step / 1000 if unit == "s" else step)


def test_rows_that_cost_nothing_are_there_when_they_took_time() -> None:
    found = rows(report(times()))
    assert found["(own ops)"][:4] == [1, "–", "–", 1]
    assert found["outside any module"][:4] == ["–", "–", 2, 2]


def test_what_is_of_no_layer_has_lines_of_its_own() -> None:
    found = rows(report(times()))
    assert found["gradient accumulation"][3] == 3
    assert found["between ops"][3] == 7


def test_the_rows_of_the_model_add_up_where_steps_are_equal() -> None:
    """Four equal steps: medians are the times themselves, and the table adds up to the last digit."""
    each = times()
    equal = LayerTimes(
        durations((44,) * 4),
        durations((whole()[0],) * 4),
        tuple(replace(one, self_time=durations((one.self_time.sample_ns[0] // MS,) * 4)) for one in each.layers),
        durations((3,) * 4),
        durations((5,) * 4),
    )
    found = {label: cells[3] for label, cells in rows(report(equal)).items() if label != "layer"}
    parts = ("(own ops)", "a", "c", "outside any module", "gradient accumulation", "between ops")
    assert sum(float(found[name]) for name in parts) == found["step, profiled"]
    assert found["Net"] == whole()[0] - 3 - 5


def test_largest_first_and_the_others_as_one_row() -> None:
    assert list(rows(report(times()), sort="time"))[1:6] == ["Net", "(own ops)", "a", "c", "outside any module"]
    found = rows(report(times()), top=1)
    assert list(found)[1:5] == ["Net", "(own ops)", "a", "… 3 more"]
    assert found["… 3 more"][3] == 12 + 0 + 2


def test_one_phase() -> None:
    found = rows(report(times()), phase="forward")
    assert found["layer"] == ["ms", "%", "step"]
    assert found["a"][0] == 14
    assert "step, profiled" not in found


def test_repeated_layers_are_one_row_with_the_time_of_all() -> None:
    from reports.traces import Hand, mm

    hand = Hand("Net").add("h", "ModuleList", calls=0)
    for i in range(3):
        hand.add(f"h.{i}").ran(f"h.{i}", mm(4, 8, 8))
    layers = tuple(LayerTime(4 + i, "forward", durations((i + 1,) * 4)) for i in range(3))
    none = durations((0,) * 4)
    hand.trace.layer_times = LayerTimes(durations((7,) * 4), durations((6,) * 4), layers, none, none)
    assert rows(Report(hand.trace))["h.[0-2] x3"][0] == 1 + 2 + 3


# Sentences


def test_the_bare_step_stands_beside_the_profiled_one() -> None:
    change = sorted(whole())[2] / BARE[2] - 1
    text = " ".join(report(times()).to_table(by="time").split())
    assert "A bare step takes 44.0 ms (median of 4, spread 9%); under the profiler, where its layers are timed" in text
    assert f"({change:+.0%}, spread" in text


@pytest.mark.parametrize(("bare", "said"), [((40, 40, 60, 60), True), ((40, 40, 41, 41), False)])
def test_steps_that_differ_widely_are_said(bare: tuple[int, ...], said: bool) -> None:
    text = " ".join(report(times(bare=bare)).to_table(by="time").split())
    assert ("The bare and profiled steps differ widely" in text) is said
    assert "profiled steps differ widely" in text  # which go from 57 to 101 ms


def test_nothing_was_timed() -> None:
    assert "No layer was timed: run with --time, or attnprof.run(..., time=True)." in report(None).to_table(by="time")
    assert "No layer was timed" not in report(None).to_table()


def test_the_layer_table_is_followed_by_the_times() -> None:
    text = report(times()).to_table(width=200)
    assert text.index("matmul") < text.index("measured") < text.index("coverage")
    assert "measured" not in report(times()).to_table(by="op", width=200)


# On a device


def test_the_share_of_the_roofline() -> None:
    """``a`` took 34 ms; on a device of 64 kFLOP/s its FLOPs take 1536 / 64000 s = 24 ms at best."""
    found = report(times())
    found.devices = (device(64_000),)
    assert FLOPS_OF_A == 1536
    cells = rows(found)
    assert cells["layer"][-2:] == ["ms", "roofline"]
    assert cells["a"][-2:] == [24, round(100 * 24 / 34, 1)]
    assert cells["b"][-2:] == ["–", "–"]
    assert "Contradiction" not in found.to_table(by="time")


def test_less_time_than_the_device_needs_is_a_contradiction() -> None:
    """1536 FLOPs take 1.5 s at 1 kFLOP/s: more than the layer took, and all of the steps."""
    found = report(times())
    found.devices = (device(1_000),)
    text = " ".join(found.to_table(by="time").split())
    assert "Contradiction: measured 44.0 ms, attainable 2.30 s on made-up" in text
    assert "Contradiction: less time than made-up needs for the ops of a, c." in text


def test_another_device_than_the_one_that_ran_has_no_share() -> None:
    found = report(times())
    found.devices = (device(1_000, target="9.0", vendor="NVIDIA"),)
    text = " ".join(found.to_table(by="time").split())
    assert "Measured on cpu, which is not made-up: no share of its roofline." in text
    assert "% of roofline" not in text
    assert "Contradiction" not in text
    assert rows(found)["layer"][-1] == "ms"


def test_a_device_that_ran_has_shares_where_it_is_named_first() -> None:
    found = report(times())
    ours = device(1_000)
    found.devices = (replace(device(1_000, target="9.0", vendor="NVIDIA"), id="other"), ours)
    text = " ".join(found.to_table(by="time").split())
    assert f"which is not other: no share of its roofline. Name {ours.id} first" in text
    assert "calibrate" not in text


# Views


@pytest.mark.parametrize("width", [40, 48, 60, 80, 120, 200])
@pytest.mark.parametrize("on", [None, device(64_000), device(1_000, "9.0", "NVIDIA")])
def test_no_line_is_wider_than_the_terminal(width: int, on: DeviceSpec | None) -> None:
    found = report(times())
    found.devices = (on,) if on else ()
    assert max(map(len, found.to_table(by="time", width=width).splitlines())) <= width


def test_measured_time_is_sorted_by_time_only() -> None:
    with pytest.raises(AttnprofError, match="measured time is sorted by time, not by flops"):
        report(times()).to_table(by="time", sort="flops")
    with pytest.raises(AttnprofError, match="sorting by time needs a device"):
        report(times()).to_table(sort="time")


# Other forms


def test_json_has_the_steps_and_the_medians_of_modules() -> None:
    data = json.loads(report(times()).to_json())
    assert data["layer_times"] == {
        "clock": "cpu",
        "timed_on": "cpu",
        "bare_ns": [ms * MS for ms in BARE],
        "profiled_ns": [ms * MS for ms in whole()],
        "accumulation_ns": [ms * MS for ms in ACCUMULATION],
        "unattributed_ns": [ms * MS for ms in BETWEEN],
    }
    (module,) = (record for record in data["modules"] if record["module"] == "a")
    assert (module["measured_ns"], module["measured_forward_ns"], module["measured_backward_ns"]) == (
        34 * MS,
        14 * MS,
        20 * MS,
    )


def test_csv_has_columns_for_them_where_layers_were_timed() -> None:
    heading, *lines = report(times()).to_csv().splitlines()
    column = heading.split(",").index("measured_ns")
    assert {line.split(",")[0]: line.split(",")[column] for line in lines}["a"] == str(34 * MS)
    assert "measured" not in report(None).to_csv()
    assert json.loads(report(None).to_json())["layer_times"] is None


def test_markdown_and_latex_have_the_table_of_times() -> None:
    found = report(times())
    found.devices = (device(64_000),)
    row = re.compile(r"├─ a +\| +14\.0 +\| +20\.0 +\| +– +\| +34\.0 +\|")
    markdown = found.to_markdown(by="time")
    assert row.search(markdown)
    assert "% of roofline |" in markdown
    assert "A bare step takes 44.0 ms" in markdown
    assert r"\quad a & 14.0 & 20.0 & -- & 34.0" in re.sub(" +", " ", found.to_latex(by="time"))
    with pytest.raises(AttnprofError, match=r"^no layer was timed"):
        report(None).to_markdown(by="time")
