"""Verdicts and changes in words: both sides of every edge of a number, and what comes first."""

from __future__ import annotations

import pytest

from attnprof.analysis.budget_changes import Change, Changes, compare
from attnprof.core.amounts import bytes as amount_of_bytes
from attnprof.core.amounts import flops
from attnprof.core.budget import Budget, Finding, Part
from attnprof.core.snapshot import Line, Snapshot
from attnprof.reports import budget as text
from attnprof.reports import changes as page


@pytest.mark.parametrize(
    ("budget", "measured", "told"),
    [
        (
            Budget("flops", flops("4.2 GFLOP")),
            4_610_000_000,
            "4.61 GFLOP, limit 4.2 GFLOP: 410 MFLOP over (+9.8%)",
        ),
        (Budget("flops", flops("4.2 GFLOP")), 4_200_000_000, "4.20 GFLOP, limit 4.2 GFLOP"),
        # the two would look the same in three figures
        (
            Budget("flops", flops("4.2 GFLOP")),
            4_200_000_001,
            "4,200,000,001 FLOP, limit 4.2 GFLOP: 1 FLOP over (+<0.1%)",
        ),
        (Budget("flops", 0), 8, "8 FLOP, limit 0 FLOP: 8 FLOP over"),  # no share of nothing
        (Budget("flops", 8, "forward", "h.*"), 16, "forward FLOPs of h.*: 16 FLOP, limit 8 FLOP: 8 FLOP over (+100%)"),
        (
            Budget("memory_bytes", amount_of_bytes("1 GiB"), kind="peak"),
            2**30 + 2**29,
            "peak memory: 1.61 GB, limit 1 GiB: 537 MB over (+50.0%)",
        ),
        (Budget("unpriced", 0), 3, "op calls without a formula: 3, limit 0: 3 over"),
        (Budget("flops", 1, module="\x1b[31m"), 2, "FLOPs of \\x1b[31m: 2 FLOP, limit 1 FLOP: 1 FLOP over (+100%)"),
    ],
)
def test_a_verdict(budget: Budget, measured: int, told: str) -> None:
    assert text.verdict(Finding(budget, measured)) == told


def test_a_lower_bound_says_so() -> None:
    assert text.verdict(Finding(Budget("flops", 1), 2, (), lower_bound=True)).startswith("at least 2 FLOP, limit 1")


def test_modules_that_are_alike_are_one_line_with_their_sum() -> None:
    parts = (Part("head", 30, "aten.mm"), *(Part(f"h.{i}", 20, "aten.addmm") for i in range(3)))
    assert text.parts(Finding(Budget("flops", 1), 90, parts)) == [
        "h.[0-2]  60 FLOP  aten.addmm",
        "head     30 FLOP  aten.mm",
    ]


def test_a_short_list_says_how_many_are_left() -> None:
    parts = tuple(Part(f"part{i}x", 20 - i, "") for i in range(8))
    assert text.parts(Finding(Budget("flops", 1), 1, parts))[text.SHORT :] == ["and 3 more"]
    assert len(text.parts(Finding(Budget("flops", 1), 1, parts), most=None)) == 8


def test_a_long_op_has_a_line_of_its_own_and_is_cut_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = text.parts(Finding(Budget("flops", 1), 8, (Part("h", 8, "aten.mm " + "[2,2] " * 20),)))
    assert lines[0] == "h  8 FLOP"
    assert lines[1].startswith("    aten.mm [2,2]")
    assert lines[1].endswith("…")
    assert len(lines[1]) <= 60 - 2  # indented by the one who prints it


def test_what_an_op_was_is_not_cut_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    was, now = (Line(8 * n, 0, 0, 0, (f"aten.addmm.default float32 [640] [64,128] [128,{n}]",)) for n in (512, 640))
    changes = compare(
        Snapshot({("forward", "encoder.layers.0"): was}), Snapshot({("forward", "encoder.layers.0"): now})
    )
    assert text.module_changes(changes) == [
        "encoder.layers.0  forward  4096 → 5120 FLOP (+25.0%)",
        "    aten.addmm.default float32 [640] [64,128] [128,640]",
        "    was [640] [64,128] [128,512]",
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (Change("flops", 1_610_000_000, 2_010_000_000), "1.61 → 2.01 GFLOP (+24.8%)"),
        (Change("flops", 2_000_000_000, 2_000_000_001), "2,000,000,000 → 2,000,000,001 FLOP (+<0.1%)"),
        (Change("bytes", 1000, 0), "1000 → 0 B (-100%)"),
        (Change("flops", 0, 12), "0 → 12 FLOP"),
        (Change("flops", 12, 3_200_000_000), "12 FLOP → 3.20 GFLOP (×267 M)"),  # no prefix suits both
        (Change("bytes", 12, 3_200_000_000), "12 B → 3.20 GB (×267 M)"),
        (Change("peak_bytes", 5_000_000, 10_000_000), "5.00 → 10.0 MB (+100%)"),
    ],
)
def test_before_and_after(change: Change, told: str) -> None:
    assert text.arrow(change) == told


@pytest.mark.parametrize(
    ("delta", "of", "told"),
    [
        (0, 5, ""),
        (5, 0, ""),
        (49, 100_000, "+<0.1%"),
        (50, 100_000, "+0.1%"),
        (-98, 1000, "-9.8%"),
        (899, 100, "+899%"),
        (900, 100, "×10.0"),
    ],
)
def test_a_share(delta: int, of: int, told: str) -> None:
    assert text.percent(delta, of) == told


def run(flops: int = 0, moved: int = 0, **rest: dict[str, int]) -> Snapshot:
    return Snapshot({("forward", "h"): Line(flops, 0, moved, 0)}, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (run(100, 10), run(110, 20), "net: 110 FLOP, locked 100 FLOP (+10.0%)"),  # FLOPs before bytes
        (run(100, 10), run(100, 20), "net: bytes 20 B, locked 10 B (+100%)"),
        (
            run(1, memory={"peak_bytes": 8, "saved_bytes": 0}),
            run(1, memory={"peak_bytes": 6, "saved_bytes": 0}),
            "net: peak memory 6 B, locked 8 B (-25.0%)",
        ),
        (run(1), run(1, unpriced={"my.op": 2}), "net: op calls without a formula 2, locked 0"),
    ],
)
def test_the_headline_is_about_what_matters_most(before: Snapshot, after: Snapshot, told: str) -> None:
    assert text.headline("net", compare(before, after)) == told


def test_what_is_new_gone_or_other() -> None:
    def lines(**ops: str) -> Snapshot:
        return Snapshot({("forward", name): Line(len(op), ops=(op,)) for name, op in ops.items()})

    before = lines(a="aten.mm float32 [2,2] [2,2]", b="aten.relu float32 [2]")
    after = lines(a="aten.mm float32 [2,2] [2,44]", c="aten.gelu float32 [2]")
    told = dict(line.split("  ", 1) for line in text.module_changes(compare(before, after)))
    assert told["a"].endswith("aten.mm float32 [2,2] [2,44], was [2,2] [2,2]")
    assert told["b"].endswith("no more aten.relu float32 [2]")
    assert told["c"].endswith("new: aten.gelu float32 [2]")


def test_circumstances() -> None:
    before = Snapshot({}, environment={"torch": "2.12.0", "grad": True, "attention": ""})
    after = Snapshot({}, environment={"torch": "2.13.0", "grad": True, "attention": "flash"})
    changes = compare(before, after)
    assert not changes
    assert text.environment(changes) == ["torch was 2.12.0 and is 2.13.0", "attention was none and is flash"]
    for told in (page.to_text(changes, []), page.to_markdown(changes, [])):
        assert "Not the same circumstances: torch was 2.12.0 and is 2.13.0." in told


def test_totals_that_look_alike_have_every_digit() -> None:
    changes = compare(run(2_000_000_000), run(2_000_000_001))
    (line,) = [line for line in page.to_text(changes, []).splitlines() if line.startswith("FLOPs")]
    assert line.split() == ["FLOPs", "2,000,000,000", "FLOP", "2,000,000,001", "FLOP", "+<0.1%"]


def test_no_change_at_all_is_said() -> None:
    nothing = Changes((), (), (), (), ())
    assert text.module_changes(nothing) == text.other_changes(nothing) == text.environment(nothing) == []
