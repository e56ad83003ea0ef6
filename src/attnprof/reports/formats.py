"""The report for other programs and documents: JSON, CSV, Markdown, LaTeX.

JSON and CSV hold every module with raw integers. Markdown and LaTeX show the table of the terminal. Names
come from the user's model: each format escapes them in its own way.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from attnprof.analysis.memory import MemorySummary
from attnprof.analysis.report import PHASES, Report
from attnprof.analysis.training import Training
from attnprof.analysis.tree import ModuleNode
from attnprof.core.cost import Cost
from attnprof.core.errors import AttnprofError
from attnprof.reports import (
    crosscheck,
    crosscheck_records,
    layer_time_records,
    layer_times,
    pace_records,
    predicted_records,
    roofline_records,
)
from attnprof.reports import rows as tree_rows
from attnprof.reports.columns import Column, Columns, Line, layouts
from attnprof.reports.latex import in_latex, tabular
from attnprof.reports.ours import LATEX_MARK, MARKDOWN_MARK
from attnprof.reports.roofline import notes, require, sentence
from attnprof.reports.table import conventions, coverage, layer_lines, subject, summaries, unpriced
from attnprof.reports.text import in_markdown, printable
from attnprof.reports.view import View

#: The version of the JSON: another one whenever a field is no longer what it was, or not there.
SCHEMA = 1
#: What a spreadsheet would take for a formula when a cell begins with it, in wide forms too. A name with one of these
#: gets an apostrophe in front, and so does one that begins with an apostrophe: one can always be taken off again.
_FORMULA_STARTS = ("'", "=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def to_json(report: Report) -> str:
    """Everything as JSON: totals, modules (inclusive), operators, what is unpriced; integers throughout."""
    data = {
        "format": "attnprof report",
        "schema": SCHEMA,
        "meta": report.meta,
        "notes": report.notes,
        "total": _numbers(report.total),
        "phases": {phase: _numbers(cost) for phase, cost in report.phases.items()},
        "modules": records(report),
        "operators": {op: _numbers(cost) for op, cost in report.by_operator().items()},
        "op_calls": report.counts,
        "unpriced": report.unpriced,
        "coverage": report.coverage,
        "memory": None if report.memory is None else _memory(report.memory),
        "training": None if report.training is None else _training(report.training),
        "comparisons": [{**asdict(c), "residual": c.residual} for c in report.comparisons],
        "steps": [
            {"label": s.label, **_numbers(s.cost), "cache_bytes": s.cache_bytes, "cache_tokens": s.tokens}
            for s in report.steps
        ],
        "rooflines": [roofline_records.record(roofline) for roofline in report.rooflines],
        "paces": [
            pace_records.record(pace)
            for device in report.devices or (None,)
            if (pace := report.pace_on(device)) is not None
        ],
        "layer_times": None if report.layer_times is None else layer_time_records.record(report.layer_times),
    }
    if report.crosschecks:
        data["crosschecks"] = [crosscheck_records.record(check) for check in report.crosschecks]
    return json.dumps(data, indent=1, allow_nan=False)


def to_csv(report: Report) -> str:
    """One line per module, inclusive, in the model's order; plain integers, no folding."""
    theory = predicted_records.module_fields(report)
    found = [record | (theory.get(record["module"]) or predicted_records.nothing()) for record in records(report)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(map(_cell, row) for row in (found[0], *(record.values() for record in found)))
    return text.getvalue()


def records(report: Report) -> list[dict[str, Any]]:
    """Every module as a flat dict: name, class, calls, parameters, saved bytes and inclusive costs by phase.

    The saved bytes are None where memory was not tracked. Devices have their times, in fields that name them,
    and so has what was measured.
    """
    costs = {phase: report.by_module(phase) for phase in PHASES}
    saved = {} if report.memory is None else report.memory.saved_by_module()
    times = [roofline_records.module_fields(roofline) for roofline in report.rooflines]
    if report.layer_times is not None:
        times.append(layer_time_records.module_fields(report.layer_times))
    times += [crosscheck_records.module_fields(check) for check in report.crosschecks if check.modules]
    return [
        _record(node, {phase: costs[phase][node.fqn] for phase in PHASES}, saved.get(node.fqn))
        | {name: value for fields in times for name, value in fields[node.fqn].items()}
        for node in report.root.walk()
    ]


def to_markdown(report: Report, view: View | None = None) -> str:
    """The layer table as a Markdown table, with the title, the conventions and the coverage."""
    view = view or View.of()
    labels, columns = _layers(report, view)
    headings = ["layer", *(" ".join(" ".join(c.heading).split()) for c in columns)]
    # Spaces at the start of a cell are dropped by Markdown: the level is drawn with characters instead.
    body = zip(map(in_markdown, labels), *([cell.strip() for cell in c.cells] for c in columns), strict=True)
    table = tabulate(
        list(body),
        headings,
        tablefmt="pipe",
        disable_numparse=True,
        preserve_whitespace=True,
        colalign=("left", *("right" for _ in columns)),
    )
    title = f"**{in_markdown(subject(report)[0])}**{in_markdown(' · '.join(['', *subject(report)[1:]]))}"
    above, below = _around(report, view)
    others = crosscheck.to_markdown(report, view)
    parts = [MARKDOWN_MARK, title, *map(in_markdown, above), table, *map(in_markdown, below), *others]
    return "\n\n".join(parts) + "\n"


def to_latex(report: Report, view: View | None = None) -> str:
    """The layer table as a LaTeX ``tabular`` with the rules of booktabs, what surrounds it as comments."""
    view = view or View.of()
    labels, columns = _layers(report, view, art=False)
    headings = ["layer", *(in_latex(" ".join(" ".join(c.heading).split())) for c in columns)]
    body = zip(labels, *([in_latex(cell.strip()) for cell in c.cells] for c in columns), strict=True)
    table = tabular(headings, list(body))
    above, below = _around(report, view)
    comments = [" · ".join(subject(report)), *above, *below]
    lines = [LATEX_MARK, r"% \usepackage{booktabs}", *(f"% {printable(line)}" for line in comments), table]
    return "\n".join([*lines, *crosscheck.to_latex(report, view)]) + "\n"


def _layers(report: Report, view: View, art: bool = True) -> tuple[list[str], list[Column]]:
    if view.by == "time":
        timed, columns = layer_times.table(report, view)
        return [_label(row.art, row.name, art) for row in timed], columns
    if view.by != "module":
        raise AttnprofError(f'Markdown and LaTeX show the layers, not by="{view.by}": leave out by, or use to_table().')
    phases = PHASES if view.phase is None else (view.phase,)
    require(report, view)
    root = tree_rows.branches(report, phases, report.roofline)
    shown, _ = tree_rows.rows(root, depth=view.depth, sort=view.sort, top=view.top)
    lines = layer_lines(report, [row.branch for row in shown], phases, view.units)
    whole = Line(None, None, root.costs, time=root.time)
    columns = layouts(Columns(lines, phases, view.units), whole, params=bool(root.params))[0]
    return [_label(row.art, row.branch.label, art) for row in shown], columns


def _label(art: str, name: str, drawn: bool) -> str:
    """A row's name at its place in the tree: drawn, or as LaTeX."""
    return f"{art}{name}" if drawn else r"\quad " * (len(art) // 3) + in_latex(name)


def _around(report: Report, view: View) -> tuple[list[str], list[str]]:
    """What stands above the table, and below it."""
    phases = PHASES if view.phase is None else (view.phase,)
    others = [sentence(roofline, phases) for roofline in report.rooflines[1:]]
    above = [f"{'; '.join(conventions(report))}.", *unpriced(report), *report.notes, *notes(report)]
    timed = layer_times.sentences(report, view) if view.by == "time" else []
    return above, [*summaries(report, phases, view.units), *others, *timed, coverage(report)]


def _record(node: ModuleNode, costs: dict[str, Cost], saved: int | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "module": node.fqn,
        "class": node.class_name,
        "aliases": " ".join(node.aliases),
        "calls": node.calls,
        "parameters": node.params,
        "saved_bytes": saved,
    }
    for phase, cost in {"total": Cost.sum(costs.values()), **costs}.items():
        record |= {f"{phase}_{name}": value for name, value in _numbers(cost).items()}
    return record


def _memory(memory: MemorySummary) -> dict[str, Any]:
    peak, cache = memory.peak, memory.cache
    return {
        "parameter_bytes": memory.parameter_bytes,
        "trainable_bytes": memory.trainable_bytes,
        "buffer_bytes": memory.buffer_bytes,
        "gradient_bytes": memory.gradient_bytes,
        "optimizer_bytes": memory.optimizer_bytes,
        "optimizer_states": memory.optimizer_states,
        "saved_bytes": memory.saved_bytes,
        "saved_input_bytes": memory.saved_input_bytes,
        "saved_weight_copy_bytes": memory.saved_weight_copy_bytes,
        "held_bytes": memory.held_bytes,
        "peak": {
            "bytes": peak.bytes,
            "by_kind": peak.by_kind,
            "event": peak.event,
            "op": peak.op,
            "module": peak.module,
            "phase": peak.phase,
        },
        "cache": None
        if cache is None
        else {
            "bytes": cache.bytes,
            "layer_bytes": cache.layer_bytes,
            "tokens": cache.tokens,
            "bytes_per_token": cache.bytes_per_token,
        },
    }


def _training(training: Training) -> dict[str, Any]:
    """Matmul FLOPs: the reasons add up to the backward less twice the forward."""
    return {
        "forward": training.forward,
        "backward": training.backward,
        "recompute": training.recompute,
        "reasons": [{"cause": reason.cause, "modules": reason.modules} for reason in training.reasons],
    }


def _numbers(cost: Cost) -> dict[str, int]:
    return {
        "matmul_flops": cost.matmul_flops,
        "vector_flops": cost.vector_flops,
        "useful_matmul_flops": cost.useful_matmul_flops,
        "read_bytes": cost.read_bytes,
        "write_bytes": cost.write_bytes,
    }


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if value.lstrip(" ").startswith(_FORMULA_STARTS) else text
