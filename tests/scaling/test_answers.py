"""What is said of a formula: classes, modules, claims in words, closed forms, curves; made by hand, not measured."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest
from sympy import Expr, Integer, Max, Piecewise

from attnprof.analysis.scaling import growth, own_parts
from attnprof.analysis.scaling_answer import Answer
from attnprof.analysis.scaling_claim import hold, read, sentence
from attnprof.analysis.scaling_curves import panels
from attnprof.analysis.scaling_theory import theory
from attnprof.core.errors import AttnprofError
from attnprof.core.units import Units
from attnprof.recovery.domain import domain
from attnprof.recovery.outcome import DataDependent, Formula, NoFormula, Outcome, Piece, Point
from attnprof.recovery.scaling import Scaling
from attnprof.reports.scaling import FORMATS, to_text
from attnprof.reports.scaling_page import page
from attnprof.reports.scaling_plot import save
from scaling.names import N, T, d, w


def of(expression: Expr) -> Formula:
    return Formula((Piece(expression),), runs=4, held_out=3)


def scaling(whole: Outcome, modules: Mapping[str, Expr | Outcome] | None = None, **sizes: range) -> Scaling:
    """As if it had been recovered; a point for each end of the ranges."""
    domains = {name: domain(name, given) for name, given in (sizes or {"N": range(8, 513)}).items()}
    points = []
    for end in ("first", "last"):
        at = {name: getattr(found, end) for name, found in domains.items()}
        points.append(Point(at, whole.evaluate(**at) if isinstance(whole, Formula) else 7))
    parts = {path: of(part) if isinstance(part, Expr) else part for path, part in (modules or {}).items()}
    return Scaling(domains, {}, "matmul", "forward", whole, parts, tuple(points), runs=7, name="net")


BOTH = {"N": range(8, 513), "d": range(4, 65)}


def test_layers_that_are_alike_are_one_row() -> None:
    layers = {f"h.{i}": 3 * N**2 + N for i in range(4)} | {f"h.{i}.mlp": N for i in range(4)}
    found = growth(scaling(of(12 * N**2 + 4 * N + 5 * N), {**layers, "head": 5 * N}))
    assert [(m.path, m.count, m.pieces[0].formula) for m in found.modules] == [
        ("h.*", 4, "3·N² + N"), ("h.*.mlp", 4, "N"), ("head", 1, "5·N")
    ]  # fmt: skip
    (in_n,) = found.overtaking
    assert (in_n.terms, in_n.start, in_n.inside) == ("12·N²", None, None)  # 12 N² > 9 N at any N
    assert [(m.path, m.count, m.share) for m in in_n.modules] == [("h.*", 4, 1)]


def test_a_layer_with_another_formula_is_a_row_of_its_own() -> None:
    found = growth(scaling(of(5 * N), {"h.0": N, "h.1": 2 * N, "h.2": 2 * N}))
    assert [(m.path, m.count) for m in found.modules] == [("h.0", 1), ("h.*", 2)]


def test_a_module_s_own_part_is_without_those_in_it() -> None:
    found = own_parts(scaling(of(6 * N**2), {"a": 5 * N**2, "a.b": 2 * N**2, "a.b.c.e": N**2}), {"N": 8})
    assert found == {"": N**2, "a": 3 * N**2, "a.b": N**2, "a.b.c.e": N**2}


def test_a_module_without_a_formula_leaves_the_rest_unknown() -> None:
    found = growth(scaling(of(6 * N), {"a": 2 * N, "b": NoFormula("depends")}))
    assert [(m.path, m.share) for m in found.overtaking[0].modules] == [("a", Fraction(1, 3))]
    assert "a 33.3%, the rest in modules without a formula" in to_text(Answer(found), Units(), 120)


@pytest.mark.parametrize(
    ("formula", "start"),
    [
        (N**2 + 10 * N, "10"),
        (3 * N**2 + 10 * N, "4"),  # 3 N > 10 from 10/3 on, and sizes are whole
        (N**2 + N + 5, "3"),  # N² > N + 5 from (1 + √21)/2 = 2.79 on
        (12 * N**2 + 9 * N, None),
    ],
)
def test_where_a_term_overtakes(formula: Expr, start: str | None) -> None:
    (in_n,) = growth(scaling(of(formula))).overtaking
    assert in_n.start == start


def test_beyond_the_sizes_here() -> None:
    found = growth(scaling(of(N**2 + 10_000 * N)))
    assert (found.overtaking[0].start, found.overtaking[0].inside) == ("10000", False)
    assert "from N = 10000 on, beyond the sizes here" in to_text(Answer(found), Units(), 120)


def test_a_maximum_says_only_how_it_grows() -> None:
    text = to_text(Answer(growth(scaling(of(Max(N**2, 50 * N))))), Units(), 120)
    assert "in N       it grows as N²." in text


@pytest.mark.parametrize(
    ("claim", "holds", "words"),
    [
        ("O(Nd²)", False, "grows as N² while d stays, where the claim grows as N. The missing term is 8·N²·d (in a)."),
        ("O(N + d)", False, "The missing terms are 8·N²·d + 12·N·d² (in a and b)."),
        ("Ω(N³)", False, "grows as N² while d stays, where the claim grows as N³. N³ is more than that."),
        ("O(N²d + Nd²)", True, "a constant times that bounds it from above for all large sizes"),
        ("8N²d + 12Nd²", True, "the same formula."),
        ("4N²d + 6Nd²", False, "measured is 2 times as much at all sizes: it counts multiply-adds (MACs)"),
        ("16N²d + 24Nd²", False, "measured is 1/2 times as much at all sizes: no term is missing."),
        ("8N²d + 9Nd² + N", False, "the missing term is 3·N·d². N is too much."),
        ("8N²d", False, "the missing term is 12·N·d² (in b)."),
        ("8N²d + 12Nd² + N", False, "N is not in what was measured."),
    ],
)
def test_verdicts_in_words(claim: str, holds: bool, words: str) -> None:
    modules = {"a": 8 * N**2 * d, "b": 12 * N * d**2}
    found = hold(scaling(of(8 * N**2 * d + 12 * N * d**2), modules, **BOTH), read(claim, ["N", "d"]))
    assert found.verdict.holds is holds
    assert words in sentence(found)


def test_a_bound_that_fails_is_shown_where_it_fails() -> None:
    """Only N grows in the counter-example: measured ÷ claimed is (8 N² d + 12 N d²) / (N d²) = 8 N/d + 12."""
    found = scaling(of(8 * N**2 * d + 12 * N * d**2), **BOTH)
    judged = hold(found, read("O(Nd²)", ["N", "d"]), at={"d": 32})
    first, last = judged.verdict.examples
    assert (first.sizes, last.sizes) == ({"N": 8, "d": 32}, {"N": 512, "d": 32})
    assert (first.measured / first.claimed, last.measured / last.claimed) == (8 * 8 // 32 + 12, 8 * 512 // 32 + 12)
    assert judged.verdict.share == Fraction(8 * 512, 8 * 512 + 12 * 32)
    text = " ".join(to_text(Answer(growth(found), (judged,)), Units(), 120).split())
    assert "Measured ÷ claimed is 14.0 at N=8, d=32 and 140 at N=512, d=32." in text
    along_d = hold(found, read("O(N²)", ["N", "d"]), at={"d": 32}).verdict
    assert [e.sizes for e in along_d.examples] == [{"N": 512, "d": 4}, {"N": 512, "d": 32}]
    assert along_d.share == 1


def test_a_claim_about_what_did_not_vary() -> None:
    with pytest.raises(AttnprofError, match=r"'O\(d\)' is about d, which did not vary: vary it too\."):
        hold(scaling(of(N)), read("O(d)", ["N", "d"]))


@pytest.mark.parametrize(
    ("text", "names", "meaning"),
    [("s²d", ["N", "d"], N**2 * d), ("n D", ["T", "d"], T * d), ("T", ["T", "N"], T), ("T w", ["T", "w"], T * w)],
)
def test_papers_names_of_sizes(text: str, names: list[str], meaning: Expr) -> None:
    assert read(text, names).expression == meaning


def test_a_name_that_could_be_two_sizes_is_none() -> None:
    with pytest.raises(AttnprofError, match=r"there is no symbol 's'; there are T, N\."):
        read("s", ["T", "N"])


def test_without_a_formula_the_points_are_the_answer() -> None:
    for outcome in (NoFormula("nothing fits."), DataDependent("it depends.", (({"N": 8}, 3, 5),))):
        found = growth(scaling(outcome))
        text = to_text(Answer(found), Units(), 120)
        assert f"no formula: {outcome.reason}" in text
        assert "N=512: 7" in text
        for form in FORMATS.values():
            assert form(Answer(found), Units())
        assert panels(found) == ()
        with pytest.raises(AttnprofError, match="cannot be judged"):
            hold(found.scaling, read("O(N)", ["N"]))
    assert "at N=8: 3 to 5" in text


def test_pieces_are_shown_with_where_they_hold() -> None:
    window = Formula((Piece(N**2, N <= 64), Piece(64 * N, N > 64)), runs=4, held_out=3)
    found = growth(scaling(window))
    assert [(p.formula, p.where) for p in found.whole.pieces] == [("N²", "N ≤ 64"), ("64·N", "N > 64")]
    assert found.whole.growth == "N"
    assert isinstance(found.scaling.expression, Piecewise)
    assert r"N^{2} && \text{where N $\leq$ 64}" in FORMATS["latex"](Answer(found), Units())


def test_the_closed_form_beside_it() -> None:
    """Attention without options: four projections, and two products of N x N."""
    sizes = {"T": range(8, 513), "d": range(16, 65, 16)}
    same = theory(scaling(of(8 * T * d**2 + 4 * T**2 * d), **sizes), "mha", {"B": 1, "H": 4, "dh": None})
    assert same is not None
    assert (same.equal, same.symbolic, same.difference) == (True, True, "")
    other = theory(scaling(of(6 * T * d**2 + 4 * T**2 * d), **sizes), "mha", {"B": 1, "H": 4})
    assert other is not None
    assert (other.equal, other.difference) == (False, "-2·T·d²")
    assert theory(scaling(of(T * d), **sizes), "no such thing", {}) is None
    assert theory(scaling(of(T * d), **sizes), "mha", {"H": 4}) is None  # B has no size: nothing to compare with


def test_curves_and_their_slopes() -> None:
    """Of N² the slope is 2 everywhere; of the sum it lies between 1 and 2, and at N = 1000·8 it is 1 + 8/9."""
    found = growth(scaling(of(N**2 + 1000 * N), {"a": N**2}, N=range(8, 8001)))
    (panel,) = panels(found)
    assert [curve.label for curve in panel.curves] == ["all", "a", "(model itself)"]
    whole, square, line = panel.curves
    assert square.slope == pytest.approx(2)  # logarithms in floating point
    assert line.slope == pytest.approx(1)
    assert whole.slope is not None
    assert 1 < whole.slope < 2
    assert whole.sizes[0] == 8
    assert whole.sizes[-1] == 8000
    for size, count, part in zip(whole.sizes, whole.counts, square.counts, strict=True):
        assert (count, part) == (size**2 + 1000 * size, size**2)
    assert panel.points == ((8, 8**2 + 8000), (8000, 8000**2 + 8_000_000))


def test_nothing_at_all_is_not_drawn(tmp_path: Path) -> None:
    answer = Answer(growth(scaling(of(Integer(0)))))
    assert "<svg" not in page(answer, Units())
    assert "measured   0" in to_text(answer, Units(), 80)
    with pytest.raises(AttnprofError, match="nothing can be drawn: forward matmul FLOPs are 0 at every size"):
        save(answer, tmp_path / "curves.png", Units())
    assert not (tmp_path / "curves.png").exists()


def test_a_page_runs_and_loads_nothing() -> None:
    """What a user called a module is shown, and is no markup."""
    name = '<script>alert("x")</script>'
    answer = Answer(growth(scaling(of(2 * N), {name: 2 * N})), by_module=True)
    text = page(answer, Units())
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in text
    assert "http://" not in text.replace("http://www.w3.org/", "").replace("http://purl.org/", "").replace(
        "http://creativecommons.org/", ""
    )
