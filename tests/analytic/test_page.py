"""The table of all closed forms in docs/formulas.md is written from the expressions.

``UPDATE_DOCS=1 pytest tests/analytic/test_page.py`` writes it anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sympy import true

from attnprof import analytic
from attnprof.analytic.growth import leading
from attnprof.analytic.prediction import KINDS, Kind
from attnprof.analytic.text import plain

PAGE = Path(__file__).parents[2] / "docs" / "formulas.md"
PLACE = re.compile(r"(<!-- formulas -->\n)(.*)(<!-- end of formulas -->)", re.DOTALL)


#: Longer expressions are sums of many terms, that `attnprof predict` has by name: here, how they grow.
LONGEST = 240


def written(expression: Any) -> str:
    """An expression, or its growth, or what else there is to say."""
    if isinstance(expression, str):
        return expression
    text = plain(expression)
    return f"`{text}`" if len(text) <= LONGEST else f"`O({plain(leading(expression))})`"


def work(theory: analytic.Prediction, kind: Kind) -> list[tuple[str, Any]]:
    """Vector FLOPs or bytes moved, by phase; what has no closed form is said to have none."""
    rows: list[tuple[str, Any]] = []
    for phase in ("forward", "backward", "recompute"):
        found = theory.work(kind, phase)
        if theory.name.endswith("-io") or found == ():
            continue
        name = f"{'vector FLOPs' if kind == 'vector' else 'bytes moved'}, {phase}"
        total = None if found is None else sum(theory.total(q, phase) for q in KINDS[kind]).expand()
        rows.append((name, "no closed form" if total is None else total))
    if theory.holds.get(kind, true) is not true and rows:
        rows.append(
            (f"the {'vector FLOPs' if kind == 'vector' else 'bytes moved'} hold for", f"`{plain(theory.holds[kind])}`")
        )
    return rows


def section(name: str) -> str:
    """What it is, and its totals."""
    theory = analytic.predict(name)
    forward = theory.total("matmul_flops", "forward")
    rows = [("forward", forward)]
    if "matmul_flops" in theory.quantities and (theory.total("matmul_flops", "backward") - 2 * forward).expand() != 0:
        rows.append(("backward", theory.total("matmul_flops", "backward")))
    if "recompute" in theory.phases("matmul_flops"):
        rows.append(("recompute", theory.total("matmul_flops", "recompute")))
    if not forward:
        rows = []
    rows += [
        (title, theory.total(quantity, "forward"))
        for title, quantity in (("saved bytes", "saved_bytes"), ("parameters", "parameters"))
        if quantity in theory.quantities
    ]
    rows += [row for kind in ("vector", "traffic") for row in work(theory, kind)]
    if name.endswith("-io"):
        rows += [("bytes read", theory.total("read_bytes", "forward"))]
        rows += [("bytes written", theory.total("write_bytes", "forward"))]
    lines = [f"- {title}: {written(expression)}" for title, expression in rows]
    return "\n".join((f"### {name}", "", analytic.find(name).summary, "", *lines, ""))


def test_the_table_is_written_from_the_expressions() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sections = "\n".join(section(name) for name in analytic.names())
    real = PLACE.sub(lambda m: f"{m[1]}\n{sections}\n{m[3]}", text)
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(real, encoding="utf-8")
        text = real
    assert text == real
