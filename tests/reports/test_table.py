"""The table: whole on paper once, then each promise by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attnprof.analysis.report import PHASES, Report
from attnprof.core.cost import ZERO, Cost
from attnprof.core.errors import AttnprofError
from attnprof.core.signature import OpSignature
from attnprof.core.tensor import TensorMeta, contiguous_stride
from attnprof.core.units import Units
from attnprof.reports.columns import Columns, Line, layouts
from attnprof.reports.rows import SCREENFUL, Branch, branches, rows
from attnprof.reports.table import coverage, render
from attnprof.reports.text import printable, shortened, wrapped
from attnprof.reports.view import ROWS, View
from reports.held import Held
from reports.traces import Hand, mm, stack, unknown


def test_the_whole_table() -> None:
    hand = stack()
    hand.trace.meta["torch"] = "2.13.0"
    # FLOPs: up and down 2*4*8*16 = 1024 forward, twice that backward; head 2*4*8*100 = 6400 each way
    # bytes: mm(4, 8, 16) reads 4*(32 + 128), writes 4*64; mm(8, 4, 16) reads 4*(32 + 64), writes 4*128;
    # mm(4, 8, 100) reads 4*(32 + 800), writes 4*400; mm(4, 100, 8) reads 4*(400 + 800), writes 4*32
    # head: its backward is 6400 short of twice its forward, and the whole forward is 3*2*1024 + 6400: 0.510
    assert render(hand.report(), width=100) == WHOLE.strip("\n")


WHOLE = """
Net · float32 · float32[4,8] · forward + backward · 1568 parameters                     torch 2.13.0
FLOPs: 2 per multiply-add, masks not deducted · bytes: traffic of each op alone

          matmul   read  written
phase      kFLOP     kB        B  FLOP/B
forward     12.5   7.17     3136    1.22
backward    18.7   9.41     6272    1.19
total       31.2  16.6      9408    1.20
backward = 1.49 × forward (matmul FLOPs), because the inputs of head need no gradient (-0.510).

                   calls  params     matmul     matmul   read  written           % of
layer                             fwd kFLOP  bwd kFLOP     kB        B  FLOP/B  FLOPs
Net                    1    1568      12.5       18.7   16.6      9408    1.20  100
├─ embed               1     800       0          0      0           0       –    0
├─ h.[0-2] x3          3     768       6.14      12.3    8.45     7680    1.14   59.0
│  ├─ up               3     384       3.07       6.14   4.22     3840    1.14   29.5
│  └─ down             3     384       3.07       6.14   4.22     3840    1.14   29.5
└─ head (= embed)      1       –       6.40       6.40   8.13     1728    1.30   41.0

coverage 100% of 20 op calls (20 priced, 0 free) · 0 unpriced
"""


def lines(report: Report, **options: object) -> list[str]:
    return render(report, width=120, **options).splitlines()


def table(report: Report, title: str = "layer", **options: object) -> dict[str, list[str]]:
    """Cells of each row by its label, drawing characters and columns without a cell left out."""
    shown = lines(report, **options)
    start = next(i for i, line in enumerate(shown) if line.startswith(title))
    body = shown[start + 1 : shown.index("", start)]
    labels = [line.lstrip("│├└─ ").split("  ")[0] for line in body]
    return {label: line.lstrip("│├└─ ")[len(label) :].split() for label, line in zip(labels, body, strict=True)}


def test_equal_layers_are_one_row_that_stands_for_all() -> None:
    found = table(stack().report(), units="exact")
    assert list(found) == ["Net", "embed", "h.[0-2] x3", "up", "down", "head (= embed)"]
    calls, params, forward, backward = found["h.[0-2] x3"][:4]
    assert (calls, params) == ("3", f"{3 * 2 * 128}")
    assert forward == f"{3 * 2 * 2 * 4 * 8 * 16:,}"
    assert backward == f"{3 * 2 * 2 * (2 * 8 * 4 * 16):,}"
    assert found["up"][0] == "3"


def test_layers_that_differ_stay_apart() -> None:
    found = table(stack(layers=4, extra=1).report())
    assert [name for name in found if "[" in name or name in ("h", "3")] == ["h", "[0-2] x3", "3"]
    assert "(own ops)" in found


def test_numbers_with_a_gap_are_not_folded() -> None:
    hand = Hand().add("h", "ModuleList", calls=0)
    for i in (0, 1, 3, 4, 5):
        hand.add(f"h.{i}").ran(f"h.{i}", mm(4, 8, 16))
    assert list(table(hand.report())) == ["Net", "h", "[0-1] x2", "[3-5] x3"]


def test_names_that_are_not_numbers_are_not_folded() -> None:
    hand = Hand()
    for name in ("q", "k", "v"):
        hand.add(name).ran(name, mm(4, 8, 16))
    assert list(table(hand.report())) == ["Net", "q", "k", "v"]


def test_a_list_of_one_is_its_content() -> None:
    hand = Hand().add("h", "ModuleList", calls=0).add("h.0").ran("h.0", mm(4, 8, 16))
    assert list(table(hand.report())) == ["Net", "h.0"]


def assert_adds_up(branch: Branch) -> None:
    if branch.children:
        for phase in PHASES:
            below = Cost.sum(child.costs.get(phase, ZERO) for child in branch.children)
            assert branch.costs.get(phase, ZERO) == below, branch.name
    for child in branch.children:
        assert_adds_up(child)


@pytest.mark.parametrize("hand", [stack(), stack(5, extra=2), stack(1), Hand().ran("", mm(1, 2, 3))])
def test_rows_add_up(hand: Hand) -> None:
    report = hand.ran(None, mm(2, 2, 2), "other").ran(None, mm(3, 3, 3)).report()
    root = branches(report)
    assert root.total == report.total
    assert_adds_up(root)
    forward = branches(report, ("forward",))
    assert forward.total == report.phases["forward"]
    assert_adds_up(forward)


def test_ops_outside_modules_and_the_optimizer_have_their_own_rows() -> None:
    hand = stack().ran(None, mm(2, 2, 2), "other")
    hand.ran("(optimizer)", mm(2, 3, 2), "optimizer").ran("(optimizer)", mm(2, 4, 2), "optimizer_init")
    found = table(hand.report(), units="exact")
    assert list(found)[-2:] == ["outside any module", "optimizer"]
    assert f"{2 * 2 * 2 * 2}" in found["outside any module"]
    assert f"{2 * 2 * 3 * 2 + 2 * 2 * 4 * 2}" in found["optimizer"]
    assert "optimizer" not in table(stack().report())


def test_depth_and_what_is_hidden() -> None:
    report = stack().report()
    assert list(table(report, depth=0)) == ["Net", "2 deeper levels not shown: use --depth."]
    assert list(table(report, depth=1)) == [
        "Net",
        "embed",
        "h.[0-2] x3",
        "head (= embed)",
        "1 deeper level not shown: use --depth.",
    ]
    assert not any("deeper" in line for line in lines(report, depth=9))


def test_a_large_model_shows_a_screenful() -> None:
    hand = Hand()
    for i in range(10):
        hand.add(f"stage{i}", "Stage")
        for j in range(6):
            hand.add(f"stage{i}.part{j}").ran(f"stage{i}.part{j}", mm(4, 8, 1 + i + j))
    report = hand.report()
    shown, hidden = rows(branches(report), depth=None, sort=None, top=None)
    assert len(shown) <= SCREENFUL
    assert hidden == 1
    assert len(rows(branches(report), depth=5, sort=None, top=None)[0]) == 1 + 10 + 60


def test_sort_and_top() -> None:
    hand = Hand()
    for name, n in (("small", 1), ("large", 30), ("middle", 10), ("tiny", 1)):
        hand.add(name).ran(name, mm(4, 8, n))
    report = hand.report()
    assert list(table(report)) == ["Net", "small", "large", "middle", "tiny"]
    assert list(table(report, sort="flops")) == ["Net", "large", "middle", "small", "tiny"]
    top = table(report, top=1, units="exact")
    assert list(top) == ["Net", "large", "… 3 more"]
    assert f"{2 * 4 * 8 * (1 + 10 + 1)}" in top["… 3 more"]
    assert list(table(report, top=3)) == ["Net", "large", "middle", "small", "tiny"]  # one row more is no less


def test_one_phase() -> None:
    report = stack().report()
    found = table(report, phase="backward", units="exact")
    assert found["head (= embed)"][2] == f"{2 * 4 * 100 * 8:,}"
    assert not any(line.startswith("forward ") for line in lines(report, phase="backward"))


def test_columns_of_phases_without_contractions_are_left_out() -> None:
    text = render(stack().report(), width=120)
    assert "bwd" in text
    assert "recomp" not in text
    assert "optim" not in text


def test_tied_parameters_count_once_and_aliases_are_named() -> None:
    hand = stack().add("again", "Embedding", aliases=("other.name",), calls=2)
    found = table(hand.report())
    assert found["head (= embed)"][1] == "–"
    assert found["Net"][1] == f"{800 + 6 * 128}"
    assert "again (= other.name)" in found


def test_a_run_without_a_model() -> None:
    hand = Hand("").ran("", mm(4, 8, 16))
    shown = lines(hand.report())
    assert shown[0].startswith("everything · ")
    assert list(table(hand.report())) == ["everything"]


def test_a_run_without_ops() -> None:
    shown = lines(Hand().report())
    assert "No op with a cost ran." in shown
    assert shown[-1].startswith("coverage 100% of 0 op calls")


def test_by_op() -> None:
    hand = stack().ran("head", unknown(), times=3)
    found = table(hand.report(), "op", by="op", units="exact")
    assert list(found) == ["aten.mm.default", "no formula: mylib.mystery.default"]
    mm_calls = 6 + 12 + 1 + 1
    assert found["aten.mm.default"][0] == str(mm_calls)
    assert found["no formula: mylib.mystery.default"][0] == "3"


def test_part_of_a_call_in_another_phase_is_no_call_there() -> None:
    q = TensorMeta((1, 2, 4, 8), contiguous_stride((1, 2, 4, 8)), "float32", ident=0)
    lse = TensorMeta((1, 2, 4), contiguous_stride((1, 2, 4)), "float32", ident=5)
    names = ("grad_out", "query", "key", "value", "out")
    args = (*((name, replace(q, ident=i)) for i, name in enumerate(names)), ("logsumexp", lse))
    args += (("dropout_p", 0.0), ("is_causal", False), ("attn_mask", None), ("scale", None))
    name = "aten._scaled_dot_product_flash_attention_for_cpu_backward.default"
    op = OpSignature(name, args, tuple(replace(q, ident=i) for i in (6, 7, 8)))
    report = Hand().add("attn").ran("attn", op, "backward").report()
    product = 2 * 2 * 4 * 4 * 8  # one of the five: 2 heads, 4 queries, 4 keys, width 8
    found = table(report, "op", by="op", phase="recompute", units="exact")
    assert next(iter(found.values()))[:2] == ["–", str(product)]
    found = table(report, "op", by="op", phase="backward", units="exact")
    assert next(iter(found.values()))[:2] == ["1", f"{4 * product:,}"]


def test_what_nobody_priced_comes_before_the_numbers() -> None:
    hand = stack().ran("head", unknown(), times=3)
    text = render(hand.report(), width=400)
    total = 20 + 3
    sentence = f"3 of {total} op calls have no formula: mylib.mystery.default (3 calls, {3 * 2 * 25 * 4} B of traffic, "
    assert sentence in text
    assert 'Totals are lower bounds. Price it: attnprof.cost("mylib::mystery").' in text
    assert text.index(sentence) < text.index("matmul  ")
    assert "coverage 87.0% of 23 op calls" in text  # 20/23
    assert "1 of 21 op calls has no formula" in render(stack().ran("head", unknown()).report(), width=400)


def test_coverage_never_rounds_up_to_whole() -> None:
    hand = stack().ran("head", mm(1, 1, 1), times=100_000).ran("head", unknown())
    assert "coverage >99.9%" in coverage(hand.report())
    assert "coverage 100%" in coverage(stack().report())


def test_many_unpriced_ops_are_summed_up() -> None:
    hand = stack()
    for i in range(8):
        hand.ran("head", unknown(f"mylib.op{i}.default", n=10 + i))
    text = render(hand.report(), width=500)
    assert "and 3 more (--by op shows all)" in text
    assert text.count("mylib.op") == 5


def test_notes_come_before_the_numbers() -> None:
    hand = stack()
    hand.trace.notes.append("Look\x1b[31m out.")
    shown = lines(hand.report())
    assert "Look\\x1b[31m out." in shown
    assert shown.index("Look\\x1b[31m out.") < next(i for i, line in enumerate(shown) if line.startswith("phase"))


def test_names_cannot_steer_the_terminal() -> None:
    hand = Hand("Net\x1b]0;title\x07").add("a\nb\r\u202e", "Linear").ran("a\nb\r\u202e", mm(4, 8, 16))
    text = render(hand.report(), width=120)
    assert all(c == "\n" or c.isprintable() for c in text)
    assert "a\\nb\\r\\u202e" in text


@pytest.mark.parametrize("width", [40, 60, 72, 80, 100, 120, 200])
@pytest.mark.parametrize("units", ["decimal", "binary"])
def test_no_line_is_wider_than_the_terminal(width: int, units: str) -> None:
    hand = stack(12).add("a_module_with_a_really_long_name_" + "x" * 80, "Linear", params={99: 7})
    hand.ran("head", unknown("mylib." + "long_name_" * 9 + ".default")).ran(None, mm(512, 512, 512), "optimizer")
    hand.ran("head", mm(4096, 4096, 4096), "recompute")
    for by in ("module", "op"):
        shown = render(hand.report(), width=width, units=units, by=by).splitlines()
        assert max(map(len, shown)) <= width


def test_eighty_columns_keep_what_matters() -> None:
    text = render(stack(12).report(), width=80)
    heading = text[text.index("layer") - 80 : text.index("layer") + 80]
    for column in ("fwd", "bwd", "bytes", "FLOPs"):
        assert column in heading


def test_exact_units_show_every_digit() -> None:
    hand = Hand().add("big").ran("big", mm(100_003, 100_019, 100_043))
    assert f"{2 * 100_003 * 100_019 * 100_043:,}" in render(hand.report(), width=80, units="exact")


def test_macs() -> None:
    hand = Hand().add("big").ran("big", mm(4, 8, 16))
    found = table(hand.report(), units="macs,exact")
    assert str(4 * 8 * 16) in found["big"]
    assert any("MAC" in line for line in lines(hand.report(), units="macs"))


def test_views_are_checked() -> None:
    with pytest.raises(AttnprofError, match="top 0 would show nothing"):
        View.of(top=0)
    with pytest.raises(AttnprofError, match="depth -1 is below 0"):
        View.of(depth=-1)
    with pytest.raises(AttnprofError, match="ops have no parameters"):
        View.of(by="op", sort="params")


def test_text() -> None:
    assert printable("ok é ├─ –") == "ok é ├─ –"
    assert printable("\x00\x9b\u200b") == "\\x00\\x9b\\u200b"
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
    assert shortened("abcdefgh", 6, tail=3) == "ab…fgh"


@pytest.mark.parametrize("by", ROWS)
def test_a_run_without_ops_has_no_empty_table(by: str) -> None:
    tracked = Hand()
    tracked.trace.memory = Held().memory
    for report in (Hand().report(), tracked.report()):
        shown = render(report, by=by, width=120)
        assert "\n\n\n" not in shown
        assert not {"op", "alive at the peak"} & set(shown.splitlines())


@pytest.mark.parametrize(
    "number", ["494,068 B", "28.8 k parameters", "2.61 GiB", "19.3 GFLOP of matmul", "8 MMAC", "101 µs"]
)
def test_a_number_keeps_its_unit_when_a_line_ends(number: str) -> None:
    together = " ".join(number.split()[:2])
    for width in range(20, 60):
        text = wrapped(f"memory: parameters 115 and so on until it is {number} and more", width)
        assert " ".join(line.strip() for line in text).count(together) == 1
        assert any(together in line for line in text)
        assert max(map(len, text)) <= width


@pytest.mark.parametrize("sort", ["calls", "params", "saved", "vector", "read", "written"])
def test_what_rows_are_sorted_by_is_the_last_to_go(sort: str) -> None:
    cost = Cost(matmul_flops=8, vector_flops=4, read_bytes=4, write_bytes=4)
    line = Line(1, 2, {"forward": cost}, saved=3)
    columns = Columns([line], ("forward",), Units())
    shown = [
        [{column.heading[0] for column in choice} for choice in layouts(columns, line, params=True, sort=key)]
        for key in (sort, None)
    ]
    assert [sort in names for names in shown[0]] == [True] * (len(shown[0]) - 1) + [False]
    assert [sort in names for names in shown[1]].count(False) > 1
    assert shown[0][-1] == shown[1][-1] == {"matmul"}


def test_tied_parameters_are_sorted_as_they_are_shown() -> None:
    found = table(stack().report(), sort="params")
    assert list(found)[-1] == "head (= embed)"
    assert found["head (= embed)"][1] == "–"
