"""Memory in the table: a line, a column, and a view of its own."""

from __future__ import annotations

import csv
import io
import json

import pytest

from attnprof.analysis.report import Report
from attnprof.core.errors import AttnprofError
from attnprof.core.memory import KVCache, MemoryTrace, Saved
from attnprof.reports.formats import to_csv, to_json, to_latex, to_markdown
from attnprof.reports.rows import branches
from attnprof.reports.table import render
from attnprof.reports.view import View
from reports.held import Held
from reports.traces import Hand, mm, stack


def tracked(hand: Hand, memory: MemoryTrace) -> Report:
    hand.trace.memory = memory
    return hand.report()


def whole() -> Report:
    """Three equal layers and a head: what each ``up`` and ``down`` saved differs from layer to layer."""
    hand = stack()
    memory = Held(parameter=6272, trainable=6272, gradient=6272)
    memory.given("w", 6272, "parameter").given("x", 128, "input")
    for event in range(0, 9, 3):  # up and down of one layer, forward and (twice) backward
        memory.made(f"y{event}", 1000, "saved", event)
    memory.made("logits", 500, "temporary", 18).freed("logits", at=19).made("g", 6272, "gradient", 19)
    saved = {hand.index(f"h.{i}.{name}"): 100 + 10 * i for i in range(3) for name in ("up", "down")}
    memory.memory.saved = [Saved(20, saved | {hand.index("h.1"): 7, hand.index("head"): 40})]
    return tracked(hand, memory.memory)


def rows(text: str, title: str) -> dict[str, list[str]]:
    """Cells of each row below a heading, by label."""
    shown = text.splitlines()
    start = next(i for i, line in enumerate(shown) if line.startswith(title))
    body = shown[start + 1 : shown.index("", start) if "" in shown[start:] else None]
    labels = [line.lstrip("│├└─ ").split("  ")[0] for line in body]
    return {label: line.lstrip("│├└─ ")[len(label) :].split() for label, line in zip(labels, body, strict=True)}


# The line


def line_of(memory: MemoryTrace, **options: object) -> str:
    hand = Hand().add("a").ran("a", mm(4, 8, 16)).ran("a", mm(4, 8, 16), "backward")
    text = render(tracked(hand, memory), width=300, **options)
    return next(line for line in text.splitlines() if line.startswith("memory: "))


def test_a_line_with_everything() -> None:
    held = Held(parameter=40_000, trainable=30_000, buffer=16, gradient=30_000)
    memory = held.given("w", 40_000, "parameter").made("y", 90_000, "saved", 1).memory
    memory.optimizer_bytes = {"exp_avg": 30_000, "step": 4}
    memory.saved = [Saved(1, {3: 90_000}, 100)]
    memory.caches = [KVCache(1, (50, 50), 4)]
    assert line_of(memory) == (
        "memory: parameters 40.0 kB (10.0 kB frozen) · buffers 16 B · gradients 30.0 kB · optimizer 30.0 kB · "
        "saved 90.0 kB · cache 100 B · peak 130 kB (at a aten.mm, backward)"
    )
    assert "parameters 40,000 B (10,000 B frozen)" in line_of(memory, units="exact")
    assert "peak 127 KiB" in line_of(memory, units="binary")  # 130000 / 1024


def test_a_line_names_only_what_there_is() -> None:
    memory = Held(parameter=400, trainable=400).given("w", 400, "parameter").memory
    assert line_of(memory) == "memory: parameters 400 B · peak 400 B (before the first op)"
    assert line_of(MemoryTrace()) == "memory: peak 0 B (before the first op)"


def test_the_line_is_in_every_view_and_nowhere_when_memory_was_not_tracked() -> None:
    assert "memory: parameters" in render(whole(), width=100)
    assert "memory: parameters" in render(whole(), width=100, by="op")
    assert "memory" not in render(stack().report(), width=100)
    assert "saved" not in render(stack().report(), width=100)


# The column


def test_the_column_adds_up_and_folded_rows_are_sums() -> None:
    text = render(whole(), width=120, units="exact")
    assert "saved" in text
    found = {label: cells[2] for label, cells in rows(text, "layer").items()}
    assert found["h"] == f"{2 * (100 + 110 + 120) + 7}"
    assert found["head (= embed)"] == "40"
    assert found["Net"] == f"{2 * (100 + 110 + 120) + 7 + 40}"


def test_layers_that_saved_different_amounts_are_one_row() -> None:
    report = whole()
    saved = report.trace.memory.saved[0] if report.trace.memory else None
    assert saved is not None
    del saved.by_module[report.trace.modules.index(report.root.find("h.1").record)]
    found = rows(render(report, width=120, units="exact"), "layer")
    assert found["h.[0-2] x3"][2] == f"{2 * (100 + 110 + 120)}"
    assert found["up"][2] == found["down"][2] == f"{100 + 110 + 120}"


def test_what_a_module_saves_itself_has_a_row() -> None:
    found = branches(whole()).children[1].children[1]
    assert (found.name, found.saved) == ("1", 2 * 110 + 7)
    assert [(child.name, child.saved) for child in found.children] == [("(own ops)", 7), ("up", 110), ("down", 110)]


def test_saved_sorts() -> None:
    hand = Hand().add("a").add("b").add("c")
    for name in "abc":
        hand.ran(name, mm(4, 8, 16))
    report = tracked(hand, MemoryTrace(saved=[Saved(3, {3: 5, 4: 50, 5: 20})]))
    assert list(rows(render(report, width=120, sort="saved"), "layer")) == ["Net", "b", "c", "a"]
    top = rows(render(report, width=120, sort="saved", top=1, units="exact"), "layer")
    assert top["… 2 more"][1] == f"{20 + 5}"


def test_sorting_by_what_is_not_known_says_so() -> None:
    text = render(stack().report(), width=120, sort="saved")
    assert "Not sorted: memory was not tracked" in text
    with pytest.raises(AttnprofError, match="ops have no saved bytes of their own"):
        View.of(by="op", sort="saved")


def test_the_column_gives_way_before_the_parameters() -> None:
    heading = [render(whole(), width=width).split("layer")[0].splitlines()[-1] for width in (120, 80)]
    assert "params" in heading[0]
    assert "saved" in heading[0]
    narrow = next(width for width in range(119, 40, -1) if "saved" not in heading_at(width))
    assert "params" in heading_at(narrow)


def heading_at(width: int) -> str:
    return render(whole(), width=width).split("\nlayer")[0].splitlines()[-1]


# The view


def test_the_view_of_a_run_without_memory_says_so() -> None:
    text = render(stack().report(), width=100, by="memory")
    assert text.splitlines()[-1] == "Memory was not tracked."
    assert text.startswith("Net · ")


def test_the_view_has_no_phase_of_its_own() -> None:
    with pytest.raises(AttnprofError, match="memory is shown for the whole run: leave out phase"):
        View.of(by="memory", phase="backward")


def view(report: Report, **options: object) -> str:
    return render(report, width=100, by="memory", **options)


def test_the_whole_view() -> None:
    hand = Hand().add("h", "ModuleList", calls=0)
    for i in (0, 1):
        hand.add(f"h.{i}", params={i: 250}).ran(f"h.{i}", mm(4, 8, 16))
    for i in (1, 0):
        hand.ran(f"h.{i}", mm(4, 8, 16), "backward")
    hand.ran("(optimizer)", mm(1, 1, 1), "optimizer_init")
    held = Held(parameter=2000, trainable=1000, gradient=2000)
    held.given("w0", 1000, "parameter").given("w1", 1000, "parameter").given("x", 512, "input")
    held.made("y0", 2048, "saved", 0).made("y1", 2048, "saved", 1)
    held.made("g1", 1000, "gradient", 2).made("t", 392, "temporary", 2).freed("t", "y1", at=3)
    held.made("g0", 1000, "gradient", 3).freed("y0", at=4).made("m", 2000, "optimizer", 4)
    held.memory.optimizer_bytes = {"exp_avg": 1992, "step": 8}
    held.memory.saved = [Saved(2, {hand.index("h.0"): 2048 + 512, hand.index("h.1"): 2048}, 512, 0, {0: 9})]
    held.memory.caches = [KVCache(1, (40, 40), 4), KVCache(2, (50, 50), 5)]
    report = tracked(hand, held.memory)
    # live, op call by op call: 2000 + 512 + 2048 = 4560; + 2048; + 1000 + 392 = 8000, the peak;
    # - 392 - 2048 + 1000 = 6560; - 2048 + 2000. A bar has a step for each 1000 bytes begun.
    assert view(report, units="exact") == WHOLE.strip("\n")


WHOLE = """
Net · float32 · float32[4,8] · forward + backward + optimizer · 500 parameters
FLOPs: 2 per multiply-add, masks not deducted · bytes: traffic of each op alone

memory                                                  B
parameters                                          2,000
  frozen                                            1,000
gradients                                           2,000
optimizer                                           2,000
  exp_avg                                           1,992
  step                                                  8
saved for the backward                              4,608
  inputs                                              512
held by the model                                       9
key-value cache (2 layers, 5 tokens, 20 B a token)    100
peak                                                8,000

            at the
live bytes  peak B  most B
parameter    2,000   2,000  ▂▂▂▂▂
gradient     1,000   2,000    ▁▂▂
optimizer        0   2,000      ▂
input          512     512  ▁▁▁▁▁
saved        4,096   4,096  ▃▅▅▃
temporary      392     392    ▁
total        8,000   8,000  ▅▇█▇▇
phase                       ffbbo
f forward, b backward, o optimizer; one mark is an op call; full height is the peak, at h.1 aten.mm,
  backward.

                                       blocks   each  together
alive at the peak                kind              B         B
forward aten.mm in h.[0-1]  saved           2  2,048     4,096
given                       parameter       2  1,000     2,000
backward aten.mm in h.1     gradient        1  1,000     1,000
given                       input           1    512       512
backward aten.mm in h.1     temporary       1    392       392

               calls  saved   % of
layer                     B  saved
Net                1  4,608    100
└─ h.[0-1] x2      2  4,608    100
"""


def test_the_layer_table_of_the_view_shows_what_saved() -> None:
    found = rows(view(whole(), units="exact", depth=1), "layer")
    assert list(found) == [
        "Net",
        "h",
        "head (= embed)",
        "2 deeper levels not shown: use --depth.",
    ]  # embed saved nothing
    total = 2 * (100 + 110 + 120) + 7 + 40
    assert found["Net"] == ["1", str(total), "100"]
    assert found["h"] == ["–", str(total - 40), f"{(total - 40) / total:.1%}".rstrip("%")]
    found = rows(view(whole(), top=1, units="exact"), "layer")
    assert list(found)[:3] == ["Net", "h", "2"]  # the largest of each level


def test_blocks_beyond_the_largest_are_summed_up() -> None:
    hand = Hand().add("a").ran("a", mm(4, 8, 16), times=30)
    held = Held()
    for event in range(30):
        held.made(f"y{event}", 100 + event, "saved", event)
    found = rows(view(tracked(hand, held.memory), units="exact"), "alive at the peak")
    assert found["… 18 more"] == ["18", "–", f"{sum(range(100, 118)):,}"]
    found = rows(view(tracked(hand, held.memory), units="exact", top=29), "alive at the peak")
    assert "… 1 more" in found


def test_the_view_of_a_run_that_saved_nothing() -> None:
    hand = Hand().add("a").ran("a", mm(4, 8, 16))
    text = view(tracked(hand, Held().made("y", 8, "temporary", 0).memory))
    assert text.splitlines()[-1] == "Nothing was saved for a backward."


def test_the_view_of_a_run_without_ops() -> None:
    text = view(tracked(Hand(), Held(parameter=8).given("w", 8, "parameter").memory))
    assert "No storage came or went while an op ran." in text
    assert "given" in text


def test_threads_have_no_line_over_time() -> None:
    hand = Hand().add("a").ran("a", mm(4, 8, 16), times=3)
    held = Held().made("y", 8, "temporary", 2).made("z", 8, "saved", 0)
    text = view(tracked(hand, held.memory))
    assert "Several threads ran" in text
    assert "alive at the peak" in text


@pytest.mark.parametrize("events", [1, 3, 71, 72, 73, 1000])
def test_bars_show_the_peak_wherever_it_is(events: int) -> None:
    hand = Hand().add("a").ran("a", mm(4, 8, 16), times=events)
    for at in {0, events // 2, events - 1}:
        held = Held().given("w", 1, "parameter").made("y", 799, "temporary", at).freed("y", at=at + 1)
        text = view(tracked(hand, held.memory))
        total = rows(text, "live bytes")["total"][2]
        assert total.count("█") == 1
        place = next(i for i, mark in enumerate(total) if mark == "█")
        assert place == at * len(total) // events
        assert set(total) <= {"█", "▁"}  # a byte of 800 is little, not nothing
        assert len(total) == min(events, 72)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("units", ["decimal", "binary", "exact"])
def test_no_line_is_wider_than_the_terminal(width: int, units: str) -> None:
    report = whole()
    hand = stack(12).add("a_module_with_a_really_long_name_" + "x" * 80, "Linear", params={99: 7})
    hand.ran(hand.trace.modules[-1].fqn, mm(4, 8, 16))
    held = Held(parameter=123_456_789).given("w", 123_456_789, "parameter")
    held.made("y", 10**15, "saved", len(hand.trace) - 1)
    held.memory.optimizer_bytes = {"a_state_with_a_really_long_name_" + "x" * 80: 12, "\x1b[31m": 3}
    held.memory.saved = [Saved(3, {len(hand.trace.modules) - 1: 10**15})]
    for shown in (report, tracked(hand, held.memory)):
        for by in ("module", "memory"):
            text = render(shown, width=width, units=units, by=by)
            assert max(map(len, text.splitlines())) <= width
            assert all(c == "\n" or c.isprintable() for c in text)


# Other forms


def test_json_has_it_all() -> None:
    report = whole()
    report.trace.memory.optimizer_bytes["step"] = 4  # type: ignore[union-attr]
    data = json.loads(to_json(report))
    assert data["memory"]["saved_bytes"] == 2 * (100 + 110 + 120) + 7 + 40
    assert data["memory"]["peak"]["by_kind"] == {"parameter": 6272, "gradient": 6272, "input": 128, "saved": 3000}
    assert data["memory"]["peak"]["module"] == "head"
    assert data["memory"]["optimizer_states"] == {"step": 4}
    modules = {module["module"]: module for module in data["modules"]}
    assert modules["h.1"]["saved_bytes"] == 2 * 110 + 7
    assert data["training"]["reasons"] == [{"cause": "input", "modules": {"head": -2 * 4 * 8 * 100}}]
    assert json.loads(to_json(stack().report()))["memory"] is None


def test_csv_has_a_column() -> None:
    found = {row["module"]: row for row in csv.DictReader(io.StringIO(to_csv(whole())))}
    assert found["h.2.up"]["saved_bytes"] == "120"
    assert found["embed"]["saved_bytes"] == "0"
    untracked = list(csv.DictReader(io.StringIO(to_csv(stack().report()))))
    assert {row["saved_bytes"] for row in untracked} == {""}


def test_documents_have_the_column_and_the_lines() -> None:
    markdown = to_markdown(whole())
    assert "| saved B |" in " ".join(markdown.split())
    assert "memory: parameters 6272 B" in markdown
    assert "backward = 1.49 × forward" in markdown
    latex = to_latex(whole())
    assert "& saved B &" in " ".join(latex.split()).replace("  ", " ")
    assert "% memory: parameters 6272 B" in latex
