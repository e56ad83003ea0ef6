"""A study of mechanisms over lengths as text, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Sequence

from tabulate import tabulate

from attnprof.analysis.study import QUANTITIES, Quantity, Study
from attnprof.core.units import Kind, Units
from attnprof.reports.text import printable, shortened, wrapped

_CONVENTIONS = (
    "FLOPs: 2 per multiply-add, masks not deducted · bytes: traffic of each op alone · inputs need a gradient, as "
    "inside a model"
)
_TITLES: dict[Quantity, tuple[str, Kind]] = {
    "forward": ("forward, matmul", "matmul"),
    "backward": ("backward, matmul", "matmul"),
    "recompute": ("recompute, matmul", "matmul"),
    "vector": ("forward, vector", "flops"),
    "bytes": ("traffic", "bytes"),
    "saved": ("saved for the backward", "bytes"),
    "parameters": ("parameters", "count"),
}
#: The width where no terminal says its own, and the least.
_WIDTH, _NARROWEST = 110, 40
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "·": r"$\cdot$"}
_LATEX |= {c: f"\\{c}" for c in "&%$#_{}"}


def to_text(study: Study, units: Units, width: int | None = None) -> str:
    """A block for each quantity, lengths across; blocks too wide for the terminal continue below."""
    width = max(_NARROWEST, width or shutil.get_terminal_size((_WIDTH, 24)).columns)
    lines = [line for text in (_subject(study), _CONVENTIONS) for line in wrapped(text, width)]
    names = [printable(name) for name in study.mechanisms]
    room = min(max(map(len, names)), max(8, width // 3))
    for quantity in study.shown():
        title, header, rows = _block(study, quantity, units)
        widths = [max(map(len, cells)) for cells in zip(header, *rows, strict=True)]
        lines += ["", *wrapped(title, width)]
        for some in _chunks(widths, width - room):
            for label, cells in zip(["N", *names], [header, *rows], strict=True):
                shown = "".join(f"  {cells[i]:>{widths[i]}}" for i in some)
                lines.append(f"{shortened(label, room):<{room}}{shown}".rstrip())
    lines += [""] if study.crossings or study.notes else []
    for sentence in (*crossing_sentences(study), *study.notes):
        lines += wrapped(sentence, width)
    return "\n".join(lines)


def to_markdown(study: Study, units: Units) -> str:
    """A Markdown table for each quantity."""
    parts = [_subject(study), _CONVENTIONS]
    for quantity in study.shown():
        title, headings, rows = _block(study, quantity, units)
        body = [[f"`{name}`", *(c.strip() for c in row)] for name, row in zip(study.mechanisms, rows, strict=True)]
        align = ["left", *("right" for _ in headings)]
        table = tabulate(body, ["N", *headings], tablefmt="pipe", disable_numparse=True, colalign=align)
        parts += [f"**{title}**", table]
    sentences = [f"- {sentence}" for sentence in (*crossing_sentences(study), *study.notes)]
    return "\n\n".join([*parts, *(["\n".join(sentences)] if sentences else [])]) + "\n"


def to_latex(study: Study, units: Units) -> str:
    """One ``tabular`` with rules of the package booktabs; what surrounds it as comments."""
    columns = len(study.lengths) + 1
    lines = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{l{'r' * len(study.lengths)}}}", r"\toprule"]
    lines.append(" & ".join(["$N$", *(f"{length:,}".replace(",", r"\,") for length in study.lengths)]) + r" \\")
    for quantity in study.shown():
        title, header, rows = _block(study, quantity, units)
        lines += [r"\midrule", rf"\multicolumn{{{columns}}}{{l}}{{\emph{{{_latex(title)}}}}} \\"]
        for name, row in zip(study.mechanisms, rows, strict=True):
            cells = row if len(header) == len(study.lengths) else row * len(study.lengths)  # the same at every length
            lines.append(" & ".join(_latex(cell.strip()) for cell in (name, *cells)) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    around = (_subject(study), _CONVENTIONS, *crossing_sentences(study), *study.notes)
    return "\n".join([*(f"% {printable(sentence)}" for sentence in around), *lines]) + "\n"


def to_csv(study: Study) -> str:
    """One line for each mechanism and length; plain integers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["mechanism", "N", *(_field(quantity) for quantity in QUANTITIES)])
    for name in study.mechanisms:
        for length in study.lengths:
            writer.writerow([name, length, *(study.measured[name, length].of(q) for q in QUANTITIES)])
    return text.getvalue()


def to_json(study: Study) -> str:
    """Everything as JSON; plain integers."""
    data = {
        "format": "attnprof study",
        "schema": 1,
        "settings": dict(study.settings),
        "mechanisms": list(study.mechanisms),
        "lengths": list(study.lengths),
        "measured": [
            {"mechanism": name, "N": length, **{_field(q): study.measured[name, length].of(q) for q in QUANTITIES}}
            for name in study.mechanisms
            for length in study.lengths
        ],
        "crossings": [
            {"quantity": _field(c.quantity), "cheaper": c.cheaper, "dearer": c.dearer, "N": c.length}
            for c in study.crossings
        ],
        "notes": list(study.notes),
    }
    return json.dumps(data, indent=1) + "\n"


#: The formats there are, by name.
FORMATS: dict[str, Callable[[Study, Units], str]] = {
    "table": lambda study, units: to_text(study, units) + "\n",
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": lambda study, _: to_csv(study),
    "json": lambda study, _: to_json(study),
}


def crossing_sentences(study: Study) -> list[str]:
    """One sentence for each crossing; the numbers on both sides of it were measured."""
    return [
        f"{_TITLES[c.quantity][0]}: {c.cheaper} becomes cheaper than {c.dearer} at N={c.length} "
        f"(measured; at N={c.length - 1} it is not)."
        for c in study.crossings
    ]


def _subject(study: Study) -> str:
    return " · ".join(f"{name} {value}".strip() for name, value in study.settings.items())


def _block(study: Study, quantity: Quantity, units: Units) -> tuple[str, list[str], list[list[str]]]:
    """The title with the unit, the lengths, and a row of cells for each mechanism.

    What depends on no length is shown once.
    """
    title, kind = _TITLES[quantity]
    rows = [study.row(name, quantity) for name in study.mechanisms]
    header = [str(length) for length in study.lengths]
    if len(header) > 1 and all(len(set(row)) == 1 for row in rows):
        header, rows = ["any"], [row[:1] for row in rows]
    unit, cells = units.column([value for row in rows for value in row], kind)
    across = len(header)
    shown = [cells[i : i + across] for i in range(0, len(cells), across)]
    return f"{title}, {unit}" if unit else title, header, shown


def _field(quantity: Quantity) -> str:
    """A name that says the unit."""
    names = {"bytes": "traffic_bytes", "saved": "saved_bytes", "parameters": "parameters", "vector": "vector_flops"}
    return names.get(quantity, f"{quantity}_matmul_flops")


def _chunks(widths: Sequence[int], room: int) -> list[list[int]]:
    """The columns in as few groups as fit in the room, two spaces before each."""
    chunks: list[list[int]] = [[]]
    used = 0
    for i, width in enumerate(widths):
        if chunks[-1] and used + width + 2 > room:
            chunks.append([])
            used = 0
        chunks[-1].append(i)
        used += width + 2
    return chunks


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in printable(text))
