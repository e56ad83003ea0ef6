"""JSON and CSV hold every number as it is; Markdown and LaTeX escape what names may contain."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from attnprof import api
from attnprof.core.errors import AttnprofError
from attnprof.reports.formats import to_csv, to_json, to_latex, to_markdown
from attnprof.reports.view import ROWS, View
from reports.traces import Hand, mm, stack, unknown


def nasty(name: str) -> Any:
    return Hand().add(name).ran(name, mm(4, 8, 16)).report()


def test_json_holds_every_number() -> None:
    report = stack().ran("head", unknown(), times=2).report()
    data = json.loads(to_json(report))
    assert data["total"]["matmul_flops"] == report.total.matmul_flops
    assert data["phases"]["backward"]["read_bytes"] == report.phases["backward"].read_bytes
    modules = {module["module"]: module for module in data["modules"]}
    assert modules["h.1"]["forward_matmul_flops"] == 2 * (2 * 4 * 8 * 16)  # up and down; not folded
    assert modules[""]["total_matmul_flops"] == report.total.matmul_flops
    assert data["unpriced"] == {"mylib.mystery.default": 2}
    assert data["operators"]["aten.mm.default"]["matmul_flops"] == report.total.matmul_flops


def test_csv_has_a_line_per_module() -> None:
    report = stack().report()
    found = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert [row["module"] for row in found] == [node.fqn for node in report.root.walk()]
    head = next(row for row in found if row["module"] == "head")
    assert int(head["backward_matmul_flops"]) == 2 * 4 * 100 * 8
    assert int(head["parameters"]) == 800


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@SUM(A1)", "\tx"])
def test_csv_cells_are_no_formulas(name: str) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(nasty(name)))))
    assert rows[-1]["module"].startswith("'")


def test_csv_quotes_what_it_must() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(nasty('a,"b"\nc')))))
    assert rows[-1]["module"] == 'a,"b"\\nc'


def test_markdown_is_a_table_whatever_the_names() -> None:
    text = to_markdown(nasty("a|b<script>`_*[x](y)"))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 2  # heading, rule, Net, the module
    unescaped = table[-1].replace("\\|", "")
    assert unescaped.count("|") == table[0].count("|")
    assert "<script>" not in text
    assert r"\`\_\*\[x\]" in text


def test_markdown_says_what_the_table_says() -> None:
    text = to_markdown(stack().ran("head", unknown()).report())
    assert text.startswith("<!-- attnprof -->\n\n**Net**")
    assert "2 per multiply-add" in text
    assert "no formula: mylib.mystery.default" in text
    assert r"├─ h.\[0-2\] x3" in text


def test_latex_escapes() -> None:
    text = to_latex(nasty(r"a_b&c%d#e$f{g}h~i^j\k"))
    assert r"a\_b\&c\%d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    cells = {len(line.replace(r"\&", "").split("&")) for line in body}
    assert len(cells) == 1
    assert all(line.isascii() for line in body)


def test_a_report_offers_every_form() -> None:
    report = api.Report(stack().trace)
    assert str(report) == report.to_table()
    assert "MAC" in report.to_markdown(units="macs")
    assert r"\begin{tabular}" in report.to_latex(depth=1)
    assert report.to_csv() == to_csv(report)
    assert report.to_json() == to_json(report)
    with pytest.raises(AttnprofError, match='sort "size" is not one of flops, '):
        report.to_markdown(sort="size")


@pytest.mark.parametrize("form", [to_markdown, to_latex])
def test_other_rows_than_layers_are_refused(form: Callable[..., str]) -> None:
    for by in set(ROWS) - {"module", "time"}:
        with pytest.raises(AttnprofError, match=f'not by="{by}": leave out by'):
            form(stack().report(), View.of(by=by))
