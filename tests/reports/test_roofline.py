"""Reports on devices: the table whole on paper once, then each promise by itself.

The stack's mm(4, 8, 16) has 2*4*8*16 = 1024 FLOPs on 4*(32 + 128 + 64) = 896 bytes, as has mm(8, 4, 16): on the
round device 819.2 ns of arithmetic and 896 ns of traffic, bound by the memory. The head's mm(4, 8, 100) has 6400
FLOPs on 4*(32 + 800 + 400) = 4928 bytes, as has mm(4, 100, 8): 5120 ns of arithmetic, bound by it.
"""

from __future__ import annotations

import csv
import io
import json
from math import isclose

import pytest

from attnprof.api import Report
from attnprof.core.device import DeviceSpec
from attnprof.core.errors import AttnprofError
from attnprof.reports.rows import Branch, branches
from attnprof.reports.table import render
from reports.devices import BANDWIDTH, peak, round_device
from reports.held import Held
from reports.traces import Hand, mm, stack, unknown

LAYERS = 3
SMALL, LARGE = 896e-9, 5120e-9
FORWARD, BACKWARD = 2 * LAYERS * SMALL + LARGE, 4 * LAYERS * SMALL + LARGE
#: A device that has no peak for the stack's FLOPs, twice the bandwidth, and half the memory.
OTHER = round_device(
    "other", bandwidth_bytes_per_s=2 * BANDWIDTH, memory_bytes=5_000, peaks=(peak("vector", "float64", 10**9),)
)


def on(hand: Hand, *devices: object) -> Report:
    report = Report(hand.trace)
    report.devices = devices or (round_device(),)  # type: ignore[assignment]
    return report


def block(text: str, title: str) -> list[str]:
    """The lines of the table that begins with this heading."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    return lines[start : lines.index("", start)]


def test_the_whole_table() -> None:
    # forward 6*896 + 5120 = 10,496 ns, 51% of it bound by the memory; backward 12*896 + 5120 = 15,872 ns, 68%
    assert render(on(stack()), width=110) == WHOLE.strip("\n")


WHOLE = """
Net · float32 · float32[4,8] · forward + backward · 1568 parameters
FLOPs: 2 per multiply-add, masks not deducted · bytes: traffic of each op alone · peaks: dense

          matmul   read  written                      at best
phase      kFLOP     kB        B  FLOP/B  bound            µs
forward     12.5   7.17     3136    1.22  memory 51%     10.5
backward    18.7   9.41     6272    1.19  memory 68%     15.9
total       31.2  16.6      9408    1.20  memory 61%     26.4
backward = 1.49 × forward (matmul FLOPs), because the inputs of head need no gradient (-0.510).
round: at best 26.4 µs, 61% memory-bound · ridge 1.25 FLOP/B (float32), here 1.20

                   calls  params     matmul     matmul  bytes           % of               at best   % of
layer                             fwd kFLOP  bwd kFLOP     kB  FLOP/B  FLOPs  bound             µs   time
Net                    1    1568      12.5       18.7   26.0     1.20  100    memory  61%    26.4   100
├─ embed               1     800       0          0      0          –    0    –               0       0
├─ h.[0-2] x3          3     768       6.14      12.3   16.1     1.14   59.0  memory         16.1    61.2
│  ├─ up               3     384       3.07       6.14   8.06    1.14   29.5  memory          8.06   30.6
│  └─ down             3     384       3.07       6.14   8.06    1.14   29.5  memory          8.06   30.6
└─ head (= embed)      1       –       6.40       6.40   9.86    1.30   41.0  compute        10.2    38.8

coverage 100% of 20 op calls (20 priced, 0 free) · 0 unpriced
"""


def test_a_row_takes_what_the_rows_below_take() -> None:
    def check(branch: Branch) -> None:
        assert branch.time is not None
        if branch.children:
            below = sum(child.time.seconds for child in branch.children if child.time)
            assert isclose(branch.time.seconds, below)  # floats that were added in another order
        for child in branch.children:
            check(child)

    report = on(stack(12).ran(None, mm(9, 9, 9)).ran("h.3", mm(5, 5, 5)))
    root = branches(report, roofline=report.roofline)
    check(root)
    assert report.roofline is not None
    assert root.time is not None
    assert isclose(root.time.seconds, report.roofline.total.attainable.seconds)  # as above


def test_one_phase() -> None:
    text = render(on(stack()), width=110, phase="backward")
    assert "round: at best 15.9 µs, 68% memory-bound" in text
    assert block(text, "layer")[1].split()[-4:] == ["memory", "68%", "15.9", "100"]
    assert isclose(BACKWARD * 1e6, 15.872)  # what 15.9 is rounded from


def test_ops_by_time() -> None:
    hand = stack().add("vast").ran("vast", unknown("mylib.mystery.default", n=10**6))
    rows = block(render(on(hand), width=110, by="op", sort="time"), "op")
    # nobody knows its FLOPs, but a million numbers of four bytes, read and written, take 8000 µs
    assert rows[1].startswith("no formula: mylib.mystery.default")
    assert rows[1].split()[-3:] == ["memory", "8000", "99.7"]
    assert rows[2].startswith("aten.mm.default")
    assert rows[2].split()[-4:] == ["memory", "61%", "26.4", "0.3"]


def test_steps_have_their_times() -> None:
    hand = stack()
    hand.trace.steps = [1, len(hand.trace)]
    rows = block(render(on(hand), width=110, by="step"), "step")
    assert rows[1].split()[:2] == ["step", "1"]
    assert rows[1].split()[-2:] == ["memory", "0.896"]  # the first op alone, in µs
    assert rows[-1].split()[0] == "total"
    assert rows[-1].split()[-3:] == ["memory", "61%", "26.4"]


def test_sorted_by_time() -> None:
    def first(**options: object) -> str:
        return block(render(on(hand), width=110, **options), "layer")[2]

    # a matmul of many FLOPs, and a longer copy-like one: 2*1000*1 FLOPs on 4*(1000 + 1 + 1000) bytes
    hand = Hand().add("dense").ran("dense", mm(16, 16, 16)).add("thin").ran("thin", mm(1000, 1, 1))
    assert "dense" in first(sort="flops")
    assert "thin" in first(sort="time")  # 8004 ns of traffic, where the other has 6554 ns of arithmetic


def test_without_a_device_nothing_is_sorted_by_time() -> None:
    with pytest.raises(AttnprofError, match="sorting by time needs a device, such as h100-sxm"):
        render(Report(stack().trace), sort="time")


def test_without_a_device_nothing_changes() -> None:
    report = on(stack())
    with_device = render(report, width=110), report.to_csv(), json.loads(report.to_json())
    report.devices = ()
    plain = Report(stack().trace)
    assert (render(report, width=110), report.to_csv()) == (render(plain, width=110), plain.to_csv())
    assert json.loads(report.to_json()) == json.loads(plain.to_json())
    assert json.loads(plain.to_json())["rooflines"] == []
    assert with_device[0] != render(plain, width=110)
    assert "at best" not in render(plain, width=110)


def test_a_missing_peak_is_said_before_the_numbers() -> None:
    text = render(on(stack(), OTHER), width=400)
    sentence = "other has no known matmul peak for float32"
    assert text.index(sentence) < text.index("phase ")
    # the traffic alone, 18*896 + 2*4928 bytes at 2 GB/s: 12,992 ns
    assert "other: at best more than 13.0 µs, of which 100% memory-bound" in text


def test_several_devices_are_compared() -> None:
    hand = stack()
    hand.trace.memory = Held().made("block", 6_000, "temporary", at=0).memory
    text = render(on(hand, round_device(), OTHER, round_device("third", memory_bytes=None)), width=110)
    rows = {row.split()[0]: row.split()[1:] for row in block(text, "        at best")[2:]}
    assert list(rows) == ["round", "other", "third"]
    assert rows["round"] == ["26.4", "memory", "61%", "10.5", "15.9", "4000", "B", "to", "spare"]
    # 2 ops of the head forward and backward and 18 others, at twice the bandwidth: 4928 ns + 18*448 ns
    assert rows["other"] == [">13.0", "memory", "5.15", "7.84", "1000", "B", "short"]
    assert rows["third"] == ["26.4", "memory", "61%", "10.5", "15.9", "–"]
    assert "at best 26.4 µs, 61% memory-bound" in text  # the tables are of the first


def test_ops_that_take_no_longer_than_their_launch() -> None:
    """At 2000 ns each, 18 of the ops wait for their launch, 36,000 ns; the head's two take 10,240 ns."""
    text = render(on(stack(), round_device(launch_overhead_ns=2000)), width=110)
    assert "round: at best 46.2 µs, 78% launch-bound" in text
    rows = block(text, "layer")
    assert rows[1].split()[-4:] == ["launch", "78%", "46.2", "100"]
    assert next(row for row in rows if "head" in row).split()[-3:] == ["compute", "10.2", "22.1"]


def test_modules_as_one_kernel() -> None:
    """Of a call that was recorded with its bytes: a product of 1024 FLOPs on 896 bytes, as its op alone has it."""
    hand = Hand().add("h", "ModuleList", calls=0)
    for i in range(2):
        hand.add(f"h.{i}", params={i: 128}).ran(f"h.{i}", mm(4, 8, 16)).ran(f"h.{i}", mm(4, 8, 16))
    report = on(hand)
    for record in hand.trace.modules:
        if record.fqn.startswith("h."):
            record.call_bytes = {
                "forward": 4 * (4 * 8 + 4 * 16)
            }  # rows in and rows out; a matrix of 128 elements beside
    heading, _, layers = block(render(report, width=200), "layer")
    assert "fused" in render(report, width=200)
    # two layers of two products each: 2048 FLOPs on 896 bytes, now bound by the arithmetic: 2 * 1638.4 ns
    assert layers.split()[-3:] == ["3.58", "3.28", "100"]
    assert heading.split()[-1] == "time"
    assert "fused" not in render(on(stack()), width=200)


def test_one_device_is_compared_with_nothing() -> None:
    assert not any(line.startswith("device") for line in render(on(stack()), width=110).splitlines())


@pytest.mark.parametrize("width", [40, 47, 60, 72, 80, 100, 120, 200])
@pytest.mark.parametrize("by", ["module", "op", "step"])
@pytest.mark.parametrize("units", ["decimal", "exact"])
def test_no_line_is_wider_than_the_terminal(width: int, by: str, units: str) -> None:
    hand = stack(12).add("a_module_with_a_really_long_name_" + "x" * 80, "Linear", params={99: 7})
    hand.ran("head", unknown("mylib." + "long_name_" * 9 + ".default")).ran(None, mm(512, 512, 512), "optimizer")
    hand.ran("head", mm(4096, 4096, 4096), "recompute")
    hand.trace.steps = [20, 40]
    hand.trace.memory = Held().made("block", 6_000, "temporary", at=0).memory
    shown = render(on(hand, round_device(), round_device("long" * 30), OTHER), width=width, by=by, units=units)
    assert max(map(len, shown.splitlines())) <= width
    assert "at best" in shown


def test_what_it_takes_is_the_last_column_to_go() -> None:
    headings = []
    for width in range(40, 130, 4):
        rows = block(render(on(stack(12)), width=width, depth=1), "layer")
        above = render(on(stack(12)), width=width, depth=1).splitlines()
        headings.append(above[above.index(rows[0]) - 1] + rows[0])
    assert all("at best" in heading for heading in headings)
    widths = [sum(name in heading for name in ("bound", "% of", "kB", "params", "calls")) for heading in headings]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_nothing_that_takes_time() -> None:
    assert "round: nothing here takes time" in render(on(Hand()), width=110)


def test_a_device_of_which_nothing_is_known() -> None:
    text = render(on(stack(), DeviceSpec("blank", "", "")), width=110)
    assert "blank: no peak or bandwidth that this needs is known" in text
    assert "nothing here takes time" not in text


def test_names_cannot_steer_the_terminal() -> None:
    text = render(on(stack(), round_device("a\x1b[31m"), round_device("b\u202e")), width=110)
    assert all(c == "\n" or c.isprintable() for c in text)


def test_json_and_csv_hold_the_times() -> None:
    report = on(stack(), round_device(), OTHER)
    roofline = report.rooflines[0]
    data = json.loads(report.to_json())
    first, second = data["rooflines"]
    assert (first["device"], second["device"]) == ("round", "other")
    assert first["total"]["attainable_s"] == roofline.total.attainable.seconds
    assert isclose(first["phases"]["forward"]["attainable_s"], FORWARD)  # a derivation in another order of floats
    assert second["missing"][0]["dtype"] == "float32"
    rows = {row["module"]: row for row in csv.DictReader(io.StringIO(report.to_csv()))}
    for point in roofline.points:
        assert rows[point.module]["round_attainable_s"] == str(point.attainable.seconds)
        assert rows[point.module]["round_bound"] == (point.bound or "")
    assert isclose(float(rows["head"]["round_compute_s"]), 2 * LARGE)  # as above
    assert isclose(float(rows["h.0"]["round_memory_s"]), 6 * SMALL)


def test_the_name_of_a_device_is_no_formula_of_a_spreadsheet() -> None:
    heading = on(stack(), round_device("=cmd()")).to_csv().splitlines()[0]
    assert "'=cmd()_attainable_s" in heading.split(",")


def test_documents_have_the_columns_and_every_device() -> None:
    report = on(stack(), round_device(), OTHER)
    for text in (report.to_markdown(), report.to_latex()):
        for part in ("at best", "peaks: dense", "round: at best 26.4", "other: at best more than 13.0"):
            assert part in text
