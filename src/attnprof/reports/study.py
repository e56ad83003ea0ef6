"""A study of mechanisms over lengths as text, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from tabulate import tabulate

from attnprof.analysis.study import QUANTITIES, Crossing, Quantity, Study
from attnprof.core.units import Kind, Number, Units, durations
from attnprof.reports.latex import in_latex
from attnprof.reports.text import in_markdown, printable, shortened, wrapped

_CONVENTIONS = (
    "FLOPs: 2 per multiply-add, masks not deducted · bytes: traffic of each op alone · inputs need a gradient, as "
    "inside a model"
)
_AT_BEST = "at best: every op of all phases at the device's peak or bandwidth, whichever binds it, one after the other"
_TITLES: dict[Quantity, tuple[str, Kind]] = {
    "forward": ("forward, matmul", "matmul"),
    "backward": ("backward, matmul", "matmul"),
    "recompute": ("recompute, matmul", "matmul"),
    "vector": ("forward, vector", "flops"),
    "bytes": ("traffic", "bytes"),
    "saved": ("saved for the backward", "bytes"),
    "parameters": ("parameters", "count"),
}
#: What a time is called where fields have names.
_SECONDS = "attainable_s"
#: The width where no terminal says its own, and the least.
_WIDTH, _NARROWEST = 110, 40


def to_text(study: Study, units: Units, width: int | None = None) -> str:
    """A block for each quantity, lengths across; blocks too wide for the terminal continue below."""
    width = max(_NARROWEST, width or shutil.get_terminal_size((_WIDTH, 24)).columns)
    lines = [line for text in _around(study) for line in wrapped(text, width)]
    names = [printable(name) for name in study.mechanisms]
    room = min(max(map(len, names)), max(8, width // 3))
    for title, header, rows in _blocks(study, units):
        widths = [max(map(len, cells)) for cells in zip(header, *rows, strict=True)]
        lines += ["", *wrapped(title, width)]
        for some in _chunks(widths, width - room):
            for label, cells in zip(["N", *names], [header, *rows], strict=True):
                shown = "".join(f"  {cells[i]:>{widths[i]}}" for i in some)
                lines.append(f"{shortened(label, room):<{room}}{shown}".rstrip())
    lines += [""] if study.crossings or study.notes else []
    for sentence in (*crossing_sentences(study), *study.notes):
        lines += wrapped(printable(sentence), width)
    return "\n".join(lines)


def to_markdown(study: Study, units: Units) -> str:
    """A Markdown table for each quantity."""
    parts = _around(study)
    for title, headings, rows in _blocks(study, units):
        body = [[f"`{name}`", *(c.strip() for c in row)] for name, row in zip(study.mechanisms, rows, strict=True)]
        align = ["left", *("right" for _ in headings)]
        table = tabulate(body, ["N", *headings], tablefmt="pipe", disable_numparse=True, colalign=align)
        parts += [f"**{in_markdown(title)}**", table]
    sentences = [f"- {in_markdown(sentence)}" for sentence in (*crossing_sentences(study), *study.notes)]
    return "\n\n".join([*parts, *(["\n".join(sentences)] if sentences else [])]) + "\n"


def to_latex(study: Study, units: Units) -> str:
    """One ``tabular`` with rules of the package booktabs; what surrounds it as comments."""
    columns = len(study.lengths) + 1
    lines = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{l{'r' * len(study.lengths)}}}", r"\toprule"]
    lines.append(" & ".join(["$N$", *(f"{length:,}".replace(",", r"\,") for length in study.lengths)]) + r" \\")
    for title, header, rows in _blocks(study, units):
        lines += [r"\midrule", rf"\multicolumn{{{columns}}}{{l}}{{\emph{{{in_latex(title)}}}}} \\"]
        for name, row in zip(study.mechanisms, rows, strict=True):
            cells = row if len(header) == len(study.lengths) else row * len(study.lengths)  # the same at every length
            lines.append(" & ".join(in_latex(cell.strip()) for cell in (name, *cells)) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    around = (*_around(study), *crossing_sentences(study), *study.notes)
    return "\n".join([*(f"% {printable(sentence)}" for sentence in around), *lines]) + "\n"


def to_csv(study: Study) -> str:
    """One line for each mechanism and length; plain integers, times in seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    times = [f"{_SECONDS}_{device}" for device in study.devices]
    writer.writerow(["mechanism", "N", *(_field(quantity) for quantity in QUANTITIES), *times])
    for name in study.mechanisms:
        for length in study.lengths:
            found = study.measured[name, length]
            writer.writerow([name, length, *(found.of(q) for q in QUANTITIES), *found.attainable_s])
    return text.getvalue()


def to_json(study: Study) -> str:
    """Everything as JSON; plain integers, times in seconds by device."""
    data = {
        "format": "attnprof study",
        "schema": 1,
        "settings": dict(study.settings),
        "mechanisms": list(study.mechanisms),
        "lengths": list(study.lengths),
        "measured": [_measured(study, name, length) for name in study.mechanisms for length in study.lengths],
        "crossings": [
            {
                "quantity": _SECONDS if c.quantity == "attainable" else _field(c.quantity),
                "cheaper": c.cheaper,
                "dearer": c.dearer,
                "N": c.length,
                **({"device": c.device} if c.device else {}),
            }
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
        f"{_title(c)}: {c.cheaper} becomes cheaper than {c.dearer} at N={c.length} "
        f"(measured; at N={c.length - c.step} it is not)."
        for c in study.crossings
    ]


def _title(crossing: Crossing) -> str:
    return _on(crossing.device) if crossing.quantity == "attainable" else _TITLES[crossing.quantity][0]


def _around(study: Study) -> list[str]:
    """What was compared, and what the numbers mean."""
    subject = " · ".join(f"{name} {value}".strip() for name, value in study.settings.items())
    return [subject, _CONVENTIONS, *([_AT_BEST] if study.devices else [])]


_Block = tuple[str, list[str], list[list[str]]]


def _blocks(study: Study, units: Units) -> Iterator[_Block]:
    """For each quantity and device: the title with the unit, the lengths, and a row of cells for each mechanism."""
    for quantity in study.shown():
        title, kind = _TITLES[quantity]
        rows = [study.row(name, quantity) for name in study.mechanisms]
        yield _block(study, title, rows, partial(units.column, kind=kind))
    for device in study.devices:
        yield _block(study, _on(device), [study.times(name, device) for name in study.mechanisms], durations)


def _block(
    study: Study,
    title: str,
    rows: Sequence[Sequence[Number]],
    column: Callable[[list[Number]], tuple[str, list[str]]],
) -> _Block:
    """One block. What depends on no length is shown once."""
    header = [str(length) for length in study.lengths]
    if len(header) > 1 and all(len(set(row)) == 1 for row in rows):
        header, rows = ["any"], [row[:1] for row in rows]
    unit, cells = column([value for row in rows for value in row])
    across = len(header)
    shown = [cells[i : i + across] for i in range(0, len(cells), across)]
    return f"{title}, {unit}" if unit else title, header, shown


def _on(device: str) -> str:
    return f"at best on {printable(device)}"


def _measured(study: Study, name: str, length: int) -> dict[str, object]:
    """One mechanism at one length, by names that say the unit."""
    found = study.measured[name, length]
    times = dict(zip(study.devices, found.attainable_s, strict=True))
    numbers = {_field(quantity): found.of(quantity) for quantity in QUANTITIES}
    return {"mechanism": name, "N": length, **numbers, **({_SECONDS: times} if times else {})}


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
