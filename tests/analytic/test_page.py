"""The table of all closed forms in docs/formulas.md is written from the expressions.

``UPDATE_DOCS=1 pytest tests/analytic/test_page.py`` writes it anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from attnprof import analytic
from attnprof.analytic.text import plain

PAGE = Path(__file__).parents[2] / "docs" / "formulas.md"
PLACE = re.compile(r"(<!-- formulas -->\n)(.*)(<!-- end of formulas -->)", re.DOTALL)


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
        rows = [("vector, forward", theory.total("vector_flops", "forward"))] if theory.phases("vector_flops") else []
    rows += [
        (title, theory.total(quantity, "forward"))
        for title, quantity in (("saved bytes", "saved_bytes"), ("parameters", "parameters"))
        if quantity in theory.quantities
    ]
    if name.endswith("-io"):
        rows += [("bytes read", theory.total("read_bytes", "forward"))]
        rows += [("bytes written", theory.total("write_bytes", "forward"))]
    lines = [f"- {title}: `{plain(expression)}`" for title, expression in rows]
    return "\n".join((f"### {name}", "", analytic.find(name).summary, "", *lines, ""))


def test_the_table_is_written_from_the_expressions() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sections = "\n".join(section(name) for name in analytic.names())
    real = PLACE.sub(lambda m: f"{m[1]}\n{sections}\n{m[3]}", text)
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(real, encoding="utf-8")
        text = real
    assert text == real
