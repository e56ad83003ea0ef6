"""How a model grows as text, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from attnprof.analysis.scaling import Found
from attnprof.analysis.scaling_answer import Answer
from attnprof.analysis.scaling_claim import Judged, sentence
from attnprof.analysis.scaling_extrapolation import Extrapolation
from attnprof.core.units import Units, share
from attnprof.reports import scaling_words as words
from attnprof.reports.latex import in_latex
from attnprof.reports.ours import LATEX_MARK, MARKDOWN_MARK
from attnprof.reports.text import in_markdown, printable, shortened, width_of_terminal, wrapped

#: The most points that are listed where no formula was found.
_POINTS = 20


def to_text(answer: Answer, units: Units, width: int | None = None) -> str:
    """Labels on the left, what there is to say beside them, in at most ``width`` columns."""
    width = width_of_terminal(width)
    lines = [line for text in (words.subject(answer), words.CONVENTIONS) for line in wrapped(printable(text), width)]
    block = ""
    for label, text in said(answer, units):
        if label in _BEGIN_A_BLOCK and label != block:
            lines.append("")
        block = label or block
        start = f"{label:<{_LABEL}}"
        room = max(width - _LABEL, 20)
        first, *more = wrapped(printable(text), room, indent="") if text else [""]
        lines += [f"{start}{first}".rstrip(), *(f"{'':<{_LABEL}}{line}" for line in more)]
    if answer.by_module and answer.growth.modules:
        lines += ["", *_module_lines(answer, width)]
    for note in notes(answer):
        lines += ["", *wrapped(printable(note), width)]
    return "\n".join(lines)


_LABEL = 11
_BEGIN_A_BLOCK = ("measured", "claimed", "at")


def said(answer: Answer, units: Units) -> Iterator[tuple[str, str]]:
    """Labels and what is said beside them."""
    growth = answer.growth
    label = "measured"
    for piece in growth.whole.pieces:
        yield label, piece.formula + (f"   where {piece.where}" if piece.where else "")
        label = ""
    if growth.whole.reason:
        yield "measured", f"no formula: {growth.whole.reason}"
        for line in words.spread(growth.whole):
            yield "", line
        for point in growth.scaling.points[:_POINTS]:
            yield "", f"{words.sizes_of(point.sizes)}: {point.count:,}"
        if len(growth.scaling.points) > _POINTS:
            yield "", f"and {len(growth.scaling.points) - _POINTS} more points (--format csv has all)"
    yield "", words.exactness(answer)
    if growth.whole.growth:
        yield "grows as", f"O({growth.whole.growth})"
    for row in growth.overtaking:
        yield f"in {row.symbol}", words.overtaking(row)
    if answer.theory is not None:
        yield "theory", words.theory(answer.theory)
    for judged in answer.claims:
        names = words.renamed(judged)
        yield "claimed", judged.text + (f"   ({names})" if names else "")
        yield "verdict", words.verdict(judged, units, answer)
    for found in answer.extrapolations:
        first, *more = words.needs(found, units)
        yield "at", first.removeprefix("At ")
        for line in more:
            yield "", line


def _module_lines(answer: Answer, width: int) -> Iterator[str]:
    """A row for each module: what it is of the whole at the largest sizes, how it grows, and its formula."""
    rows = table_rows(answer)
    head = ("module", "of all", "grows as", "formula, with the modules in it")
    room = [
        min(max(map(len, column)), most) for column, most in zip(zip(head, *rows, strict=True), _ROOM, strict=False)
    ]
    for row in (head, *rows):
        cells = [shortened(cell, size, tail=size // 2) for cell, size in zip(row, room, strict=False)]
        start = f"{cells[0]:<{room[0]}}  {cells[1]:>{room[1]}}  {cells[2]:<{room[2]}}  "
        left = width - len(start)
        if left >= min(len(row[3]), 24):
            first, *more = wrapped(row[3], left, indent="")
            yield f"{start}{first}".rstrip()
            yield from (f"{'':<{len(start)}}{line}" for line in more)
        else:
            yield start.rstrip()
            yield from (f"    {line}" for line in wrapped(row[3], width - 4, indent=""))


_ROOM = (44, 7, 24)


def _row(found: Found) -> tuple[str, str, str, str]:
    name = printable(found.path) + (f" ({found.count} x)" if found.count > 1 else "")
    part = "–" if found.share is None else f"{share(found.share * found.count, 1)}%"
    formula = "; ".join(p.formula + (f" where {p.where}" if p.where else "") for p in found.pieces)
    return name, part, f"O({found.growth})" if found.growth else "–", formula or f"none: {found.reason}"


def notes(answer: Answer) -> list[str]:
    """Sentences that a reader must see."""
    return [*answer.growth.scaling.notes, *answer.notes]


def to_markdown(answer: Answer, units: Units) -> str:
    """A list of what there is to say, and a table of modules."""
    parts = [MARKDOWN_MARK, f"**{in_markdown(words.subject(answer))}**", in_markdown(words.CONVENTIONS)]
    shown: list[str] = []
    for label, text in said(answer, units):
        if label:
            shown.append(f"- {in_markdown(label)}: {in_markdown(text)}")
        else:
            shown[-1] += f"{'' if shown[-1].endswith('.') else ';'} {in_markdown(text)}"
    parts.append("\n".join(shown))
    if answer.by_module and answer.growth.modules:
        rows = [[f"`{row[0]}`", *map(in_markdown, row[1:])] for row in table_rows(answer)]
        head = ["module", "of all", "grows as", "formula"]
        parts.append(
            tabulate(rows, head, tablefmt="pipe", disable_numparse=True, colalign=["left", "right", "left", "left"])
        )
    parts += [in_markdown(note) for note in notes(answer)]
    return "\n\n".join(parts) + "\n"


def table_rows(answer: Answer) -> list[tuple[str, str, str, str]]:
    """A row of cells for each module that does anything: its path, its part of the whole, its growth, its formula."""
    return [
        _row(found) for found in answer.growth.modules if found.reason or any(p.formula != "0" for p in found.pieces)
    ]


def to_latex(answer: Answer, units: Units) -> str:
    """The formula, its pieces and the terms that grow fastest as ``align*``; everything else as comments."""
    growth = answer.growth
    comments = [words.subject(answer), words.CONVENTIONS, words.exactness(answer)]
    comments += [f"{label}: {text}" for label, text in said(answer, units) if label in ("claimed", "verdict", "at")]
    lines = [LATEX_MARK, *(f"% {printable(text)}" for text in (*comments, *notes(answer)))]
    rows = [rf"\text{{{in_latex(answer.label)}}} &= {p.latex}{_where(p.where)}" for p in growth.whole.pieces]
    if not rows:
        return "\n".join([*lines, f"% no formula: {printable(growth.whole.reason)}"]) + "\n"
    if answer.by_module:
        rows += [
            rf"\text{{{in_latex(found.path)}}} &= {piece.latex}{_where(piece.where)}"
            for found in growth.modules
            for piece in found.pieces
            if piece.formula != "0"
        ]
    return "\n".join([*lines, r"\begin{align*}", " \\\\\n".join(f"  {row}" for row in rows), r"\end{align*}"]) + "\n"


def _where(condition: str) -> str:
    return rf" && \text{{where {in_latex(condition)}}}" if condition else ""


def to_csv(answer: Answer) -> str:
    """One line for each counted point; plain integers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scaling = answer.growth.scaling
    writer.writerow([*scaling.symbols, scaling.quantity, "role"])
    for point in scaling.points:
        writer.writerow([*(point.sizes[name] for name in scaling.symbols), point.count, point.role])
    return text.getvalue()


def to_json(answer: Answer) -> str:
    """Everything as JSON: formulas as text and LaTeX, counts as plain integers, shares from 0 to 1."""
    growth, scaling = answer.growth, answer.growth.scaling
    data = {
        "format": "attnprof scaling",
        "schema": 1,
        "name": scaling.name,
        "quantity": scaling.quantity,
        "phase": scaling.phase,
        "sizes": {name: {"first": d.first, "last": d.last} for name, d in scaling.domains.items()},
        "fixed": {
            name: value if isinstance(value, int | float | str) else str(value) for name, value in scaling.fixed.items()
        },
        "runs": scaling.runs,
        "whole": _found(growth.whole),
        "overtaking": [
            {"symbol": o.symbol, "terms": o.terms, "from": o.start, "modules": _modules(o.modules)}
            for o in growth.overtaking
        ],
        "modules": [_found(found) for found in growth.modules],
        "theory": None if answer.theory is None else asdict(answer.theory),
        "claims": [_claim(judged) for judged in answer.claims],
        "extrapolations": [_extrapolation(found) for found in answer.extrapolations],
        "points": [{"sizes": dict(p.sizes), "count": p.count, "role": p.role} for p in scaling.points],
        "notes": notes(answer),
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _found(found: Found) -> dict[str, Any]:
    return {
        "module": found.path,
        "count": found.count,
        "pieces": [{"formula": p.formula, "latex": p.latex, "where": p.where} for p in found.pieces],
        "reason": found.reason,
        "growth": found.growth,
        "held_out": found.held_out,
        "at_largest": found.value,
        "share": None if found.share is None else float(found.share),
        "spread": [{"sizes": dict(s), "least": least, "most": most} for s, least, most in found.spread],
    }


def _modules(modules: Any) -> list[dict[str, Any]]:
    return [{"module": m.path, "count": m.count, "terms": m.terms, "share": float(m.share)} for m in modules]


def _claim(judged: Judged) -> dict[str, Any]:
    found = judged.verdict
    return {
        "claim": judged.claim.text,
        "bound": judged.claim.bound,
        "holds": found.holds,
        "why": sentence(judged),
        "missing": judged.missing,
        "surplus": judged.surplus,
        "times": None if found.times is None else str(found.times),
        "share": None if found.share is None else float(found.share),
        "examples": [
            {"sizes": dict(e.sizes), "measured": e.measured, "claimed": str(e.claimed)} for e in found.examples
        ],
        "modules": _modules(judged.modules),
        "names": dict(judged.renamed),
    }


def _extrapolation(found: Extrapolation) -> dict[str, Any]:
    return {
        "sizes": dict(found.sizes),
        "phase": found.phase,
        "amounts": dict(found.amounts),
        "beyond": [name for name, _ in found.beyond],
        "counted": found.counted,
        "device": None if found.device is None else found.device.id,
        "count": found.count,
        "seconds": found.seconds,
        "is_bound": found.is_bound,
        "notes": list(found.notes),
    }


#: The formats there are, by name.
FORMATS: dict[str, Callable[[Answer, Units], str]] = {
    "table": lambda answer, units: to_text(answer, units) + "\n",
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": lambda answer, _: to_csv(answer),
    "json": lambda answer, _: to_json(answer),
}
