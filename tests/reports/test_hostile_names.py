"""Names are the user's: whatever is in one, each form stays what it is, and shows the name as it is."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from torch import Tensor, nn

import attnprof
from attnprof.analysis.report import Report
from attnprof.reports.formats import to_csv, to_json, to_latex, to_markdown
from attnprof.reports.forms import FORMS
from attnprof.reports.latex import in_latex
from attnprof.reports.table import render
from attnprof.reports.text import cells, padded, printable, shortened, wrapped
from attnprof.reports.tree import to_tree
from attnprof.reports.view import ROWS, View
from reports.traces import Hand, mm, unknown

NAMES = [
    "a|b", "a\\|b", "`code`", "**bold**", "_em_ph", "[x](http://y)", "![x](y)", "<script>alert(1)</script>", "&lt;",
    "&amp;", "~~gone~~", "# head", "- item", "$x^2$", "a\nb", "a\r\nb", "\ttab", '"quoted"', "it's", "a,b;c", "=1+1",
    "+1", "-1", "@SUM(A1)", " =1", "\uff1dcmd()", "%s%n", "{x}", "\\end{tabular}", "~", "^", "a--b---c", "[0-2] x3",
    "\u202egnp,exe",
    "\u200b", "\ufeff", "中文", "😀👩‍👩‍👧", "é", "e\u0301", "\x1b[31mred", "\x00", "(own ops)", ")", "…",
    "x" * 300,
    "中" * 100,
]  # fmt: skip
text = st.text(st.characters(exclude_characters=".", exclude_categories=("Cs",)), min_size=1, max_size=40)


def report_of(name: str, class_name: str = "Net") -> Report:
    hand = Hand(class_name).add(name, "Lin" + name).ran(name, mm(4, 8, 16))
    return hand.ran(name, unknown(f"mylib.{name}.x")).report()


class Cells(HTMLParser):
    """The cells of the tables of a page, and all its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self._inside = self._inside or tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


def check_markdown(name: str) -> None:
    page = Cells(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(to_markdown(report_of(name))))
    headings, model, module = page.rows
    assert len(headings) == len(model) == len(module)
    assert module[0] == f"└─ {printable(name)}".strip()
    assert module[headings.index("matmul fwd FLOP")] == str(2 * 4 * 8 * 16)
    assert page.tags == {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}


def check_csv(name: str) -> None:
    text = to_csv(report_of(name))
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    shown = rows[-1]["module"]
    assert shown.removeprefix("'") == printable(name)
    assert not shown.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d"))
    assert int(rows[-1]["forward_matmul_flops"]) == 2 * 4 * 8 * 16
    assert text.count("\n") == len(rows) + 1  # a line each, for what reads no quotes


def check_latex(name: str) -> None:
    lines = to_latex(report_of(name)).splitlines()
    body = [line for line in lines if not line.startswith("%")]
    assert [body[0][:15], body[1], body[3], body[-2], body[-1]] == [
        r"\begin{tabular}", r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"
    ]  # fmt: skip
    rows = [body[2], *body[4:-2]]
    assert len(rows) == 3
    for row in rows:
        assert row.endswith(r" \\")
        inner = row[:-3].replace("\\textbackslash{}", "")
        assert len({len(re.findall(r"(?<!\\)&", r[:-3].replace("\\textbackslash{}", ""))) for r in rows}) == 1
        # commands are known ones, and accents are on letters
        plain = re.sub(r"\\(?:symbol\{34\}|(?:[`'^~=.\"]|[urHvc])\{[A-Za-z]\}|[A-Za-z]+(?:\{\})?|[&%$#_{}])", "", inner)
        plain = re.sub(r"\$[-$]?\$?", "", plain)
        assert not re.search(r"[\\%#_^~$]", plain), row
        assert plain.count("{") == plain.count("}")
        assert row.isascii()


def check_terminal(name: str) -> None:
    for width in (40, 79, 120):
        for shown in (render(report_of(name), width=width), to_tree(report_of(name), width=width)):
            assert max(map(cells, shown.splitlines())) <= width
            assert all(c == "\n" or c.isprintable() for c in shown)
            assert len({line.count("│") for line in shown.splitlines() if "├" in line}) <= 1


CHECKS = {"markdown": check_markdown, "csv": check_csv, "latex": check_latex, "terminal": check_terminal}


@pytest.mark.parametrize("form", CHECKS)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name(form: str, name: str) -> None:
    CHECKS[form](name)


@pytest.mark.parametrize("form", CHECKS)
@settings(max_examples=60, deadline=None)
@given(name=text)
def test_any_name(form: str, name: str) -> None:
    CHECKS[form](name)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_json_has_names_as_they_are(name: str) -> None:
    data = json.loads(to_json(report_of(name, name)))
    assert [data["modules"][0]["class"], data["modules"][-1]["module"]] == [name, name]
    assert data["unpriced"] == {f"mylib.{name}.x": 1}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_class_of_such_a_name_breaks_no_form(name: str) -> None:
    for form in FORMS.values():
        shown = form.of(report_of("layer", name), View.of(), 80)
        assert all(c == "\n" or c.isprintable() for c in shown)
    page = Cells(MarkdownIt("commonmark").enable("table").render(to_markdown(report_of("layer", name))))
    assert page.tags <= {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert page.rows[1][0] == printable(name).strip()


def test_numpy_reads_the_numbers() -> None:
    hand = Hand()
    for position, name in enumerate(("a,b", 'c"d', "e\nf", "=g")):
        hand.add(name).ran(name, mm(4, 8, 1 + position))
    columns = np.genfromtxt(
        io.StringIO(to_csv(hand.report()).replace('"a,b"', "ab")), delimiter=",", names=True, dtype=None, comments=None
    )
    assert columns["forward_matmul_flops"][-4:].tolist() == [2 * 4 * 8 * n for n in (1, 2, 3, 4)]
    assert np.issubdtype(columns["forward_matmul_flops"].dtype, np.integer)


def test_latex_of_letters() -> None:
    assert in_latex("\u03b1–\u03b2 × 中é") == r"$\alpha$--$\beta$ $\times$ \textbackslash{}u4e2d\'{e}"
    assert in_latex("çÅßþ") == r"\c{c}\r{A}\ss{}\textbackslash{}xfe"
    assert in_latex("''a`` ,, ?`b `c'") == "'{}'a`{}` ,{}, ?{}`b `c'"  # no ligature makes another character of two
    assert in_latex("---") == "-{}-{}-"
    assert in_latex("--[x]*") == r"-{}-{[}x]{*}"


def test_columns_of_a_terminal() -> None:
    assert [cells(text) for text in ("ab", "é", "e\u0301", "中文", "😀")] == [2, 1, 1, 4, 2]
    assert padded("中", 4) == "中  "
    assert shortened("中文字", 5) == "中文…"
    assert shortened("中文字", 4) == "中…"
    assert shortened("中文字文", 6, tail=2) == "中…文"
    for width in range(4, 30):
        lines = wrapped("中文字 " * 10 + "中" * 40 + " 12 kB", width)
        assert max(map(cells, lines)) <= width
        assert "".join("".join(lines).split()) == "中文字" * 10 + "中" * 40 + "12kB"


class Wide(nn.Module):
    """Names that take two columns a letter, which Python allows."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("嵌入", nn.Embedding(10, 8))
        self.add_module("层", nn.ModuleList(nn.Linear(8, 8) for _ in range(3)))
        self.add_module("注意力机制" * 5, nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        for module in (self.get_submodule("嵌入"), *self.get_submodule("层").children()):
            x = module(x)
        return self.get_submodule("注意力机制" * 5)(x)


def test_wide_names_fit_in_every_view() -> None:
    ids = (torch.zeros(2, 3, dtype=torch.int64),)
    report = attnprof.run(Wide(), ids, optimizer="adamw", device="h100-sxm,mi300x")
    for width in (40, 60, 80, 120, 200):
        for text in (report.to_tree(width=width), *(render(report, width=width, by=by) for by in ROWS)):
            assert max(map(cells, text.splitlines())) <= width
