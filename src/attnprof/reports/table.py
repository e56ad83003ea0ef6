"""The report as a table for a terminal: what is missing first, then the answer, then where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnprof.analysis.report import PHASES, Report
from attnprof.core.cost import Cost
from attnprof.core.roofline import Attainable
from attnprof.core.units import Units, share
from attnprof.reports import comparison, crosscheck, layer_times, memory_view, roofline, serving, training
from attnprof.reports import rows as tree_rows
from attnprof.reports.colours import coloured, styled
from attnprof.reports.columns import Columns, Line, layouts
from attnprof.reports.fitted import fitted
from attnprof.reports.memory import NOT_TRACKED
from attnprof.reports.memory import line as memory_line
from attnprof.reports.operators import Operator, operators
from attnprof.reports.pace import sentences as pace_sentences
from attnprof.reports.steps import step_table
from attnprof.reports.text import cells, printable, width_of_terminal, wrapped
from attnprof.reports.view import View

#: The torch version stands at the right end of the first line, but no further right than this.
_WIDTH = 120
#: Unpriced ops that are named one by one.
_NAMED = 5


def render(report: Report, view: View | None = None, width: int | None = None, **options: Any) -> str:
    """The report as text of at most ``width`` columns (default: the terminal's).

    Options are those of :class:`attnprof.reports.view.View`: ``by``, ``depth``, ``sort``, ``top``,
    ``phase``, ``units``.
    """
    view = view if view is not None else View.of(**options)
    roofline.require(report, view)
    width = width_of_terminal(width)
    phases = PHASES if view.phase is None else (view.phase,)
    with coloured(view.colour):
        return _rendered(report, view, phases, width)


def _rendered(report: Report, view: View, phases: Sequence[str], width: int) -> str:
    if view.by == "memory":
        return _memory(report, view, width)
    rows = {"module": _layer_table, "op": _operator_table}
    blocks = [
        header(report, width),
        warnings(report, width, roofline.notes(report)),
        _totals(report, phases, view, width),
        rows[view.by](report, phases, view, width) if view.by in rows else [],
        _steps(report, phases, view, width),
        _serving(report, view, width),
        _measured(report, view, width),
        crosscheck.blocks(report, view, width),
        roofline.what_if(report, phases, view.units, width),
        covered(report, width),
    ]
    return "\n".join("\n".join(block) for block in blocks if block)


def _memory(report: Report, view: View, width: int) -> str:
    """What the run held in memory, in place of what it cost."""
    memory = report.memory
    parts = [[f"{NOT_TRACKED.capitalize()}."]] if memory is None else memory_view.blocks(report, memory, view, width)
    return "\n".join("\n".join(block) for block in (header(report, width), warnings(report, width), *parts) if block)


def _steps(report: Report, phases: Sequence[str], view: View, width: int) -> list[str]:
    """The steps, where they have names or were asked for."""
    if view.by == "step" and not report.steps:
        return [*wrapped("No step was marked: end each with prof.step(), or run with --generate.", width), ""]
    if view.by == "step" or (view.by == "module" and report.trace.step_labels):
        return step_table(report, phases, view.units, width, report.roofline)
    return []


def _serving(report: Report, view: View, width: int) -> list[str]:
    """Prefill and decode on each device, below the steps of a generation."""
    if view.phase is not None or not (view.by == "step" or (view.by == "module" and report.trace.step_labels)):
        return []
    return [line for spec in report.devices for line in serving.lines(report, spec, view.units, width)]


def _measured(report: Report, view: View, width: int) -> list[str]:
    """How long the layers took, where they were timed or that was asked for."""
    if view.by == "time" or (view.by == "module" and report.layer_times is not None):
        return layer_times.blocks(report, view, width)
    return []


def header(report: Report, width: int) -> list[str]:
    """What ran, and the conventions of the numbers."""
    left = printable(" · ".join(subject(report)))
    version = report.meta.get("torch")
    right = printable(f"torch {version}") if version else ""
    if right and cells(left) + len(right) + 2 <= width:
        first = [f"{left}{right:>{width - cells(left)}}" if width <= _WIDTH else f"{left}  {right}"]
    else:
        first = wrapped(left, width) + ([right] if right else [])
    told = wrapped(" · ".join(conventions(report)), width)
    return [*(styled(line, "heading") for line in first), *(styled(line, "faint") for line in told), ""]


def conventions(report: Report) -> list[str]:
    """What the numbers are."""
    dense = [roofline.CONVENTION] if report.devices else []
    return ["FLOPs: 2 per multiply-add, masks not deducted", "bytes: traffic of each op alone", *dense]


def subject(report: Report) -> list[str]:
    """The parts of the title: model, dtypes, inputs, phases, parameters, kind of run."""
    root = report.root
    parts = [root.class_name or "everything"]
    dtypes = {p.dtype for node in root.walk() for p in node.record.parameters}
    if dtypes:
        parts.append(" + ".join(sorted(dtypes)))
    calls = list(root.record.calls)
    if len(calls) == 1:
        inputs = [text for text in calls[0] if not text.startswith("->")]
        parts.append(", ".join(inputs) or "no tensor input")
    elif calls:
        parts.append(f"{len(calls)} different inputs")
    ran = {"optimizer" if p == "optimizer_init" else p for p in report.ran} | {p for p in PHASES if report.phases[p]}
    parts.append(" + ".join(p for p in PHASES if p in ran) or "nothing ran")
    if root.params:
        parts.append(f"{Units().text(root.params, 'count')} parameters")
    if report.meta.get("fake"):
        parts.append("fake")
    return parts


def warnings(report: Report, width: int, further: Sequence[str] = ()) -> list[str]:
    """What a reader must know before believing a number."""
    missing = [styled(line, "warning") for text in unpriced(report) for line in wrapped(printable(text), width)]
    told = [line for text in (*report.notes, *further) for line in wrapped(printable(text), width)]
    return [*missing, *told, ""] if missing or told else []


def unpriced(report: Report) -> list[str]:
    """The sentence about ops without a formula, if there are any."""
    ops = report.unpriced_ops
    if not ops:
        return []
    total = sum(report.counts.values())
    calls = sum(op.calls for op in ops)
    everything = report.total.bytes + sum(op.bytes for op in ops)
    named = ", ".join(
        f"{op.op} ({op.calls:,} {'call' if op.calls == 1 else 'calls'}, "
        f"{Units().text(op.bytes, 'bytes')} of traffic, {share(op.bytes, everything)}%)"
        for op in ops[:_NAMED]
    )
    more = f" and {len(ops) - _NAMED} more (--by op shows all)" if len(ops) > _NAMED else ""
    name = ops[0].op.rpartition(".")[0].replace(".", "::", 1)
    return [
        f"{calls:,} of {total:,} op calls {'has' if calls == 1 else 'have'} no formula: {named}{more}. "
        f'Totals are lower bounds. Price it: attnprof.cost("{name}").'
    ]


def _totals(report: Report, phases: Sequence[str], view: View, width: int) -> list[str]:
    """One row per phase, and their sum when there are several."""
    units = view.units
    costs = {p: report.phases[p] for p in phases if report.phases[p]}
    if not costs:
        return ["No op with a cost ran.", *summary_lines(report, phases, units, width), ""]
    times = {} if report.roofline is None else {p: t.attainable for p, t in report.roofline.by_phase.items()}
    lines = [Line(None, None, {p: cost}, time=times.get(p)) for p, cost in costs.items()]
    labels = list(costs)
    if len(costs) > 1:
        whole = None if report.roofline is None else report.roofline.total.attainable
        lines.append(Line(None, None, costs, time=whole))
        labels.append("total")
    columns = Columns(lines, phases, units)
    flops = [columns.matmul(), *([columns.vector()] if columns.has_vector else [])]
    rate, traffic = [columns.intensity()], [columns.traffic()]
    both = [columns.read(), columns.written()]
    timed = [columns.bound(), columns.time()] if columns.has_times else []
    choices = [flops + both + rate + timed, flops + traffic + rate + timed, flops + traffic + timed, flops + timed]
    choices.append(timed[1:] or flops)
    text = fitted("phase", labels, choices, width)
    total = Cost.sum(costs.values())
    if total.useful_matmul_flops != total.matmul_flops:
        useful = units.named(total.useful_matmul_flops, "matmul")
        part = share(total.useful_matmul_flops, total.matmul_flops)
        text += wrapped(f"Without masked pairs: {useful} of matmul ({part}%).", width)
    return [*text, *summary_lines(report, phases, units, width), ""]


def summary_lines(report: Report, phases: Sequence[str], units: Units, width: int) -> list[str]:
    """What sums up a run, wrapped."""
    return [text for sentence in summaries(report, phases, units) for text in wrapped(printable(sentence), width)]


def summaries(report: Report, phases: Sequence[str], units: Units) -> list[str]:
    """The sentences that sum up a run: its backward, its memory, theory, and its device; each where there is any."""
    model = report.root.class_name
    found = [] if report.training is None else [training.sentence(report.training, model, units)]
    memory = [] if report.memory is None else [memory_line(report.memory, model, units)]
    device = [] if report.roofline is None else [roofline.sentence(report.roofline, phases)]
    paces = [pace for spec in report.devices or (None,) if (pace := report.pace_on(spec)) is not None]
    return [*found, *memory, *comparison.sentences(report, units), *device, *pace_sentences(paces, units)]


def _layer_table(report: Report, phases: Sequence[str], view: View, width: int) -> list[str]:
    root = tree_rows.branches(report, tuple(phases), report.roofline)
    shown, hidden = tree_rows.rows(root, depth=view.depth, sort=view.sort, top=view.top)
    columns = Columns(layer_lines(report, [row.branch for row in shown], phases, view.units), phases, view.units)
    labels = [row.label for row in shown]
    whole = Line(None, None, root.costs, time=root.time)
    choices = layouts(columns, whole, params=bool(root.params), sort=view.sort)
    text = fitted("layer", labels, choices, width)
    if hidden:
        text.append(f"{hidden} deeper {'level' if hidden == 1 else 'levels'} not shown: use --depth.")
    if view.sort == "saved" and report.memory is None:
        text += wrapped(f"Not sorted: {NOT_TRACKED}, so nothing is known to be saved.", width)
    return [*text, ""]


def layer_lines(
    report: Report, branches: Sequence[tree_rows.Branch], phases: Sequence[str], units: Units
) -> list[Line]:
    """The numbers of these rows, and what theory says of them."""
    theory = comparison.Cells(report, phases, units)
    return [
        Line(
            b.calls,
            parameters(b),
            b.costs,
            b.saved,
            "" if b.own or b.name == tree_rows.OWN else theory.cell(b.fqns),
            b.time,
            b.fused_s,
        )
        for b in branches
    ]


def parameters(branch: tree_rows.Branch) -> int | None:
    """Parameters, except where they are counted at their owner."""
    return None if branch.tied or not branch.params else sum(branch.params.values())


def _operator_table(report: Report, phases: Sequence[str], view: View, width: int) -> list[str]:
    found, free = operators(report, phases, view.sort or "flops", report.roofline)
    if not found:
        return []
    whole = _together("all", found, phases)
    shown = found if view.top is None or len(found) <= view.top + 1 else found[: view.top]
    rest = found[len(shown) :]
    if rest:
        shown = [*shown, _together(f"… {len(rest)} more", rest, phases)]
    lines = [_operator_line(op) for op in shown]
    labels = [("" if op.known else "no formula: ") + printable(op.name) for op in shown]
    choices = layouts(Columns(lines, phases, view.units), _operator_line(whole), params=False, sort=view.sort)
    text = fitted("op", labels, choices, width)
    if free:
        text += wrapped(f"{free:,} calls of free ops (views and the like) not shown.", width)
    return [*text, ""]


def _together(name: str, ops: Sequence[Operator], phases: Sequence[str]) -> Operator:
    """Several ops as one."""
    costs = {p: Cost.sum(op.costs[p] for op in ops if p in op.costs) for p in phases}
    times = [op.time for op in ops if op.time is not None]
    time = sum(times, Attainable()) if times else None
    return Operator(name, sum(op.calls or 0 for op in ops), costs, True, time)


def _operator_line(op: Operator) -> Line:
    return Line(op.calls, None, op.costs, time=op.time)


def covered(report: Report, width: int) -> list[str]:
    """The coverage as lines."""
    style = "warning" if report.unpriced_ops else "faint"
    return [styled(line, style) for line in wrapped(coverage(report), width)]


def coverage(report: Report) -> str:
    """``coverage 100% of 2,040 op calls (1,102 priced, 938 free) · 0 unpriced``."""
    counts = report.counts
    total = sum(counts.values())
    known = share(total - counts["unpriced"], total) if total else "100"
    traffic = share(report.total.bytes, report.total.bytes + sum(op.bytes for op in report.unpriced_ops))
    by_traffic = f", {traffic}% of traffic" if counts["unpriced"] else ""
    return (
        f"coverage {known}% of {total:,} op calls{by_traffic} ({counts['priced']:,} priced, {counts['free']:,} free) "
        f"· {counts['unpriced']:,} unpriced"
    )
