"""Measured time as a table: layers as in the tree, then what no layer explains, up to the whole step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from attnprof.analysis.layer_times import WIDE, MeasuredLayers
from attnprof.analysis.report import PHASES, Report
from attnprof.core.achieved import Achieved
from attnprof.core.errors import AttnprofError
from attnprof.core.roofline import Attainable
from attnprof.core.timing import Durations
from attnprof.core.trace import OPTIMIZER, OUTSIDE
from attnprof.core.units import align, duration, durations, rounded, share
from attnprof.reports import rows as tree_rows
from attnprof.reports.columns import SHORT, Column
from attnprof.reports.fitted import fitted
from attnprof.reports.names import called, listed
from attnprof.reports.rows import OWN, Branch, Row
from attnprof.reports.text import printable, wrapped
from attnprof.reports.view import View

NOT_TIMED = "No layer was timed: run with --time, or attnprof.run(..., time=True)."
#: Units of a table in nanoseconds, each for steps from so many of them on: layers take a thousandth of a step.
_UNITS = (("s", 10**9, 100), ("ms", 10**6, 1), ("µs", 10**3, 0))
ACCUMULATION, BETWEEN, STEP = "gradient accumulation", "between ops", "step, profiled"


@dataclass(frozen=True, slots=True)
class Timed:
    """One row: its times by phase and together; the least on a device, None where there is none or it has none."""

    name: str
    phases: dict[str, Durations]
    total: Durations
    best: Attainable | None = None
    art: str = ""

    @property
    def label(self) -> str:
        return f"{self.art}{self.name}"


def blocks(report: Report, view: View, width: int) -> list[str]:
    """The table of measured times, and the sentences that it needs; a hint where nothing was timed."""
    measured = report.layer_times
    if measured is None:
        return [*wrapped(NOT_TIMED, width), ""]
    rows, choices, hidden = _table(report, measured, view)
    text = fitted("layer", [row.label for row in rows], choices, width)
    if hidden:
        text.append(f"{hidden} deeper {'level' if hidden == 1 else 'levels'} not shown: use --depth.")
    for sentence in sentences(report, view):
        text += wrapped(printable(sentence), width)
    return [*text, ""]


def table(report: Report, view: View) -> tuple[list[Timed], list[Column]]:
    """The rows and all of the columns; raises :class:`AttnprofError` where nothing was timed."""
    if report.layer_times is None:
        raise AttnprofError(NOT_TIMED[0].lower() + NOT_TIMED[1:])
    rows, choices, _ = _table(report, report.layer_times, view)
    return rows, choices[0]


def sentences(report: Report, view: View) -> list[str]:
    """What is said of the times: of the steps, and of the device that they are held against."""
    if report.layer_times is None:
        return []
    return [*summary(report.layer_times), *_against(report, report.layer_times, _phases(view))]


def _phases(view: View) -> Sequence[str]:
    return PHASES if view.phase is None else (view.phase,)


def _table(report: Report, measured: MeasuredLayers, view: View) -> tuple[list[Timed], list[list[Column]], int]:
    """The rows, sets of columns with the fullest first, and how many more levels there are."""
    phases = _phases(view)
    rows, hidden = _Rows(report, measured, phases).shown(view)
    shown = [phase for phase in phases if any(row.phases[phase].total_ns for row in rows if phase in row.phases)]
    return rows, _choices(report, measured, rows, shown), hidden


def summary(measured: MeasuredLayers) -> list[str]:
    """How long a bare step takes, how much longer under the profiler, and how far the two can be trusted."""
    bare, profiled = measured.step.median_ns, measured.profiled.median_ns
    if not bare or not profiled:
        return []
    change = profiled / bare - 1
    text = (
        f"A bare step takes {_text(bare)} (median of {measured.step.count:,}{_spread(measured.step)}); under the "
        f"profiler, where its layers are timed, {_text(profiled)} ({change:+.0%}{_spread(measured.profiled)})."
    )
    wide = [name for name, times in (("bare", measured.step), ("profiled", measured.profiled)) if _is_wide(times)]
    if wide:
        text += f" The {' and '.join(wide)} steps differ widely: something else may be using the machine."
    return [text]


def _text(ns: int) -> str:
    return duration(ns / 10**9)


def _spread(times: Durations) -> str:
    return "" if times.spread is None else f", spread {times.spread:.0%}"


def _is_wide(times: Durations) -> bool:
    return times.spread is not None and times.spread > WIDE


class _Rows:
    """The rows of a report, folded as in its layer table."""

    def __init__(self, report: Report, measured: MeasuredLayers, phases: Sequence[str]) -> None:
        self._report = report
        self._measured = measured
        self._phases = tuple(phases)
        self._of = {
            inclusive: {phase: measured.by_module(phase, inclusive) for phase in phases} for inclusive in (True, False)
        }

    def shown(self, view: View) -> tuple[list[Timed], int]:
        """The rows of the tree, then those that are of no layer; and how many more levels there are."""
        root = tree_rows.branches(self._report, self._phases, self._report.roofline)
        self._complete(root)
        if view.sort == "time":
            self._order(root, view.top)
        found, hidden = tree_rows.rows(root, depth=view.depth, sort=None, top=None)
        rows = [self._row(row) for row in found]
        measured = self._measured
        if view.phase is None:
            for label, times in ((ACCUMULATION, measured.accumulation), (BETWEEN, measured.unattributed)):
                if times.total_ns:
                    rows.append(Timed(label, {}, times))
            rows.append(Timed(STEP, {}, measured.profiled))
        return rows, hidden

    def _complete(self, branch: Branch) -> None:
        """Rows that cost nothing, and so are not in the tree, but took time: rows add up to the one above them."""
        for child in branch.children:
            self._complete(child)
        if _is_own(branch):
            return
        if branch.fqns == ("",):
            modules = self._report.trace.modules
            there = {fqn for child in branch.children for fqn in child.fqns}
            for index, name in ((OUTSIDE, "outside any module"), (OPTIMIZER, "optimizer")):
                fqn = modules[index].fqn
                if fqn not in there and self._sum([fqn], True).total_ns:
                    branch.children.append(Branch(name, None, {}, fqns=(fqn,)))
        own = self._sum(branch.fqns, False)
        if branch.children and own.total_ns and not any(map(_is_own, branch.children)):
            branch.children.insert(0, Branch(OWN, None, {}, fqns=branch.fqns, own=True))

    def _order(self, branch: Branch, top: int | None) -> None:
        """Largest first, below the row of its own ops; of more than ``top``, the others as one row."""
        for child in branch.children:
            self._order(child, top)
        own = [child for child in branch.children if _is_own(child)]
        children = sorted(
            (child for child in branch.children if not _is_own(child)), key=lambda child: -self._total(child).total_ns
        )
        if top is not None and len(children) > top + 1:
            rest = children[top:]
            best = [child.time for child in rest if child.time is not None]
            fqns = tuple(fqn for child in rest for fqn in child.fqns)
            together = Branch(
                f"… {len(rest)} more", None, {}, fqns=fqns, time=sum(best, Attainable()) if best else None
            )
            children = [*children[:top], together]
        branch.children = [*own, *children]

    def _row(self, row: Row) -> Timed:
        branch = row.branch
        phases = {phase: self._sum(branch.fqns, not _is_own(branch), phase) for phase in self._phases}
        return Timed(branch.label, phases, self._total(branch), branch.time, row.art)

    def _total(self, branch: Branch) -> Durations:
        return self._sum(branch.fqns, not _is_own(branch))

    def _sum(self, fqns: Iterable[str], inclusive: bool, phase: str | None = None) -> Durations:
        phases = self._phases if phase is None else (phase,)
        return Durations.added(
            [self._measured.none, *(self._of[inclusive][phase][fqn] for phase in phases for fqn in fqns)]
        )


def _is_own(branch: Branch) -> bool:
    """Whether a row is that of the ops that its parent ran itself, of several parents too."""
    return branch.own or branch.name == OWN


def _choices(
    report: Report, measured: MeasuredLayers, rows: Sequence[Timed], phases: Sequence[str]
) -> list[list[Column]]:
    """Sets of columns, the fullest first. All measured times are in one unit, the step's."""
    whole = measured.profiled.median_ns or 0
    unit, per = next((unit, per) for unit, per, least in _UNITS if whole >= least * per)

    def column(heading: tuple[str, str], cell: Callable[[Timed], str | None]) -> Column:
        return Column(heading, tuple(align([cell(row) for row in rows])))

    def time(name: str, of: Callable[[Timed], Durations | None]) -> Column:
        medians = [(times.median_ns if times else None) for times in map(of, rows)]
        return Column((name, unit), tuple(align([rounded(ns, per) if ns else None for ns in medians])))

    by_phase = [time(SHORT[phase], lambda row, phase=phase: row.phases.get(phase)) for phase in phases]  # type: ignore[misc]
    if len(by_phase) == 1:
        by_phase = []
    total = [time("measured", lambda row: row.total)]
    part = [column(("% of", "step"), lambda row: share(row.total.median_ns or 0, whole) if whole else None)]
    spread = [
        column(("spread", "%"), lambda row: None if row.total.spread is None else f"{100 * row.total.spread:.0f}")
    ]
    if report.roofline is None:
        return [by_phase + total + spread + part, by_phase + total + part, total + part, total]
    best = [_at_best([row.best.seconds if row.best else None for row in rows], unit, per)]
    if not measured.is_of(report.roofline.device):
        return [by_phase + total + spread + part + best, by_phase + total + part + best, total + part + best, total]
    device = report.roofline.device.id
    reached = [column(("% of", "roofline"), lambda row: _reached(row, device))]
    return [
        by_phase + total + spread + part + best + reached,
        by_phase + total + part + best + reached,
        total + part + best + reached,
        total + best + reached,
        total + reached,
        total,
    ]


def _at_best(seconds: Sequence[float | None], unit: str, per: int) -> Column:
    """The least times, in the unit of the measured ones unless they are far less."""
    if max((one * 10**9 for one in seconds if one), default=0) >= per / 10:
        cells = align([rounded(Fraction(one) * 10**9, per) if one else None for one in seconds])
    else:
        unit, cells = durations([one or None for one in seconds])
    return Column(("at best", unit), tuple(cells))


def _reached(row: Timed, device: str) -> str | None:
    """Attainable time as per cent of the measured one."""
    if not row.best or not row.best.seconds or not row.total.median_ns:
        return None
    return Achieved(device, row.total.median_ns / 10**9, row.best.seconds).percent


def _against(report: Report, measured: MeasuredLayers, phases: Sequence[str]) -> list[str]:
    """What took less time than the device needs, the bare step or a layer; or why the two are not compared."""
    roofline, bare = report.roofline, measured.step.median_ns
    if roofline is None or not bare:
        return []
    if not measured.is_of(roofline.device):
        where = f"Measured on {measured.timed_on or measured.clock}, which is not {roofline.device.id}: no share of its"
        if ours := [device.id for device in report.devices if measured.is_of(device)]:
            return [f"{where} roofline. Name {ours[0]} first: the shares are of the first device."]
        return [
            f"{where} roofline. `attnprof calibrate` measures this machine; --device this then holds its times "
            "against that."
        ]
    found = []
    if tuple(phases) == PHASES:
        said = Achieved.of(roofline.total, roofline.device, bare / 10**9).contradiction
        found = [] if said is None else [said]
    fast = []
    for node in report.root.walk():
        took = sum(measured.of(node.fqn, phase, inclusive=False).median_ns or 0 for phase in phases)
        best = sum(roofline.point(node.fqn, phase, inclusive=False).attainable.seconds for phase in phases)
        if 0 < took < best * 10**9:
            fast.append(called(node.fqn, report.root.class_name))
    if fast:
        found.append(
            f"Contradiction: less time than {roofline.device.id} needs for the ops of {listed(fast)}. Bytes are "
            "counted op by op, as if each went to memory, and caches move fewer; or its peaks are not those of "
            "this machine."
        )
    return found
