"""From the module tree to the rows of a table: repeated layers folded, order and depth as asked.

Every row is inclusive and rows add up: a row's children, its ``(own ops)`` among them, sum to the row. A
folded row stands for all of its layers together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from attnprof.analysis.report import PHASES, Report
from attnprof.analysis.roofline import Roofline
from attnprof.analysis.tree import ModuleNode
from attnprof.core.cost import ZERO, Cost
from attnprof.core.roofline import Attainable
from attnprof.core.trace import OPTIMIZER, OUTSIDE
from attnprof.reports.text import printable

#: The name of a row of ops that a module ran itself.
OWN = "(own ops)"
#: Rows that fit about one screen: the depth that nobody asked for is the largest within it.
SCREENFUL = 40

_BY: Mapping[str, Callable[[Cost], int]] = {
    "flops": lambda c: c.flops,
    "matmul": lambda c: c.matmul_flops,
    "vector": lambda c: c.vector_flops,
    "bytes": lambda c: c.bytes,
    "read": lambda c: c.read_bytes,
    "written": lambda c: c.write_bytes,
}


@dataclass(slots=True)
class Branch:
    """One row to be: a module, or several folded, or the ops a module ran itself.

    ``costs`` are inclusive, by phase, and so are the bytes ``saved`` for the backward and the least ``time`` on
    a device (None without one), ``fused_s`` that of one kernel (None where not known). ``params`` maps each
    parameter to its elements, so that a shared one counts once. ``note`` says what else the module is (an
    alias, tied weights). ``calls`` is None where there is no forward to call.
    """

    name: str
    calls: int | None
    costs: dict[str, Cost]
    params: dict[int, int] = field(default_factory=dict)
    note: str = ""
    tied: bool = False
    fqns: tuple[str, ...] = ()
    children: list[Branch] = field(default_factory=list)
    key: int = -1
    own: bool = False  # the ops of its parent, not a module
    saved: int = 0
    time: Attainable | None = None
    fused_s: float | None = None
    folded: int = 1  # how many equal siblings it stands for

    @property
    def total(self) -> Cost:
        return Cost.sum(self.costs.values())

    @property
    def label(self) -> str:
        return printable(f"{self.name} {self.note}" if self.note else self.name)

    def size(self, sort: str) -> float:
        """The number that ``sort`` orders by."""
        if sort == "calls":
            return self.calls or 0
        if sort == "params":
            return 0 if self.tied else sum(self.params.values())  # as the table shows them: at their owner
        if sort == "saved":
            return self.saved
        if sort == "time":
            return self.time.seconds if self.time else 0
        return _BY[sort](self.total)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the tree: ``art`` draws its place in it, which is ``level`` below the root."""

    art: str
    branch: Branch
    level: int = 0

    @property
    def label(self) -> str:
        return f"{self.art}{self.branch.label}"


def branches(
    report: Report, phases: tuple[str, ...] = PHASES, roofline: Roofline | None = None, *, fold: bool = True
) -> Branch:
    """The report's module tree as branches, costs and times restricted to ``phases``; unfolded: one per module."""
    return _Builder(report, phases, roofline, fold).build()


def rows(root: Branch, *, depth: int | None, sort: str | None, top: int | None) -> tuple[list[Row], int]:
    """The rows of a tree, and how many more levels it has than are shown."""
    deepest = _depth(root)
    if depth is None:
        shown = deepest
        while shown > 1 and sum(1 for _ in _walk(root, shown, sort, top)) > SCREENFUL:
            shown -= 1
    else:
        shown = min(depth, deepest)
    return list(_walk(root, shown, sort, top)), deepest - shown


class _Builder:
    def __init__(self, report: Report, phases: tuple[str, ...], roofline: Roofline | None, fold: bool) -> None:
        self.phases = phases
        self.fold = fold
        self.root = report.root
        self.saved = {} if report.memory is None else report.memory.saved_by_module(inclusive=False)
        self.times = None if roofline is None else own_times(roofline, phases)
        phase = phases[0] if len(phases) == 1 else None
        self.fused = {} if roofline is None else {n: p.fused_s for n, p in roofline.by_module(phase).items()}
        self.special = {
            id(report.trace.modules[OUTSIDE]): "outside any module",
            id(report.trace.modules[OPTIMIZER]): "optimizer",
        }
        self.owners: dict[int, str] = {}
        self.keys: dict[tuple[Any, ...], int] = {}
        for node in report.root.walk():
            for parameter in node.record.parameters:
                self.owners.setdefault(parameter.ident, node.fqn)

    def build(self) -> Branch:
        root = self._branch(self.root)
        root.name = self.root.class_name or "everything"
        return root

    def _branch(self, node: ModuleNode) -> Branch:
        own, saved = self._own(node), self.saved.get(node.fqn, 0)
        time = None if self.times is None else self.times[node.fqn]
        usual = [self._branch(child) for child in node.children if id(child.record) not in self.special]
        last = [self._branch(child) for child in node.children if id(child.record) in self.special]
        last = [branch for branch in last if branch.total or branch.saved or _takes_time(branch)]
        if self.fold:
            usual = [_hoisted(child) for child in self._folded(usual)]
        children = usual + last
        params = {p.ident: prod(p.shape) for p in node.record.parameters}
        note, tied = self._note(node)
        calls: int | None = node.calls
        if not calls and (node is self.root or children or own or id(node.record) in self.special):
            calls = None
        branch = Branch(
            self.special.get(id(node.record), node.name), calls, dict(own), dict(params), note, tied, (node.fqn,)
        )
        if children and (own or saved or (time and time.seconds)):
            key = self._key("own", own)
            children.insert(
                0, Branch(OWN, None, own, params, fqns=(node.fqn,), key=key, own=True, saved=saved, time=time)
            )
        branch.children = children
        branch.saved = sum(child.saved for child in children) if children else saved
        branch.time, branch.fused_s = _time_of(children) if children else time, self.fused.get(node.fqn)
        for child in children:
            branch.params |= child.params
            if not child.own:
                for phase, cost in child.costs.items():
                    branch.costs[phase] = branch.costs.get(phase, ZERO) + cost
        shapes = tuple(p.shape for p in node.record.parameters)
        branch.key = self._key(
            node.class_name, calls, note, shapes, branch.costs, tuple((c.name, c.key) for c in children)
        )
        return branch

    def _own(self, node: ModuleNode) -> dict[str, Cost]:
        costs = {phase: node.own(phase) for phase in self.phases}
        if "optimizer" in costs:
            costs["optimizer"] += node.own("optimizer_init")
        return {phase: cost for phase, cost in costs.items() if cost}

    def _note(self, node: ModuleNode) -> tuple[str, bool]:
        """What else a module is: its other names, or the module whose weights it uses."""
        if node.aliases:
            return f"(= {', '.join(node.aliases)})", False
        owners = {self.owners[p.ident] for p in node.record.parameters}
        if owners and node.fqn not in owners:
            return f"(= {', '.join(sorted(owners))})", True
        return "", False

    def _key(self, *parts: Any) -> int:
        """Equal numbers for equal subtrees."""
        plain = tuple(tuple(sorted(part.items())) if isinstance(part, dict) else part for part in parts)
        return self.keys.setdefault(plain, len(self.keys))

    def _folded(self, siblings: list[Branch]) -> list[Branch]:
        """Runs of equal siblings with consecutive numbers for names, each as one branch."""
        found: list[Branch] = []
        run: list[Branch] = []
        for branch in [*siblings, None]:
            if run and branch and branch.key == run[0].key and _follows(run[-1].name, branch.name):
                run.append(branch)
                continue
            if len(run) > 1:
                name = f"[{run[0].name}-{run[-1].name}] x{len(run)}"
                found.append(replace(_merged(run, name), folded=len(run)))
            else:
                found += run
            run = [branch] if branch else []
        return found


def own_times(roofline: Roofline, phases: Sequence[str]) -> dict[str, Attainable]:
    """The least time of what each module ran itself, in these phases."""
    found = dict.fromkeys((point.module for point in roofline.points), Attainable())
    for phase in phases:
        if roofline.by_phase[phase].bound is None:
            continue  # nothing takes time in it
        for module, point in roofline.by_module(phase, inclusive=False).items():
            found[module] += point.attainable
    return found


def _time_of(branches: Sequence[Branch]) -> Attainable | None:
    """The least time of all of these, which have one all or none."""
    times = [branch.time for branch in branches if branch.time is not None]
    return sum(times, Attainable()) if len(times) == len(branches) else None


def _takes_time(branch: Branch) -> bool:
    return branch.time is not None and branch.time.seconds > 0


def _follows(name: str, after: str) -> bool:
    return name.isdecimal() and after == str(int(name) + 1) and name == str(int(name))


def _merged(run: list[Branch], name: str) -> Branch:
    """Equal branches as one that stands for all of them."""
    first = run[0]
    merged = Branch(
        name,
        None if first.calls is None else sum(b.calls or 0 for b in run),
        {phase: cost * len(run) for phase, cost in first.costs.items()},
        {ident: n for b in run for ident, n in b.params.items()},
        first.note,
        first.tied,
        tuple(fqn for b in run for fqn in b.fqns),
        key=first.key,
        own=first.own,
        saved=sum(b.saved for b in run),
        time=_time_of(run),
        folded=first.folded,
    )
    if all(branch.fused_s is not None for branch in run):
        merged.fused_s = sum(branch.fused_s or 0.0 for branch in run)
    columns = zip(*(b.children for b in run), strict=True)
    merged.children = [_merged(list(column), column[0].name) for column in columns]
    return merged


def _hoisted(branch: Branch) -> Branch:
    """A list that holds one (folded) thing and runs nothing itself is that thing: ``h`` → ``h.[0-11] x12``."""
    if branch.calls is None and len(branch.children) == 1 and not branch.note:
        child = branch.children[0]
        if not child.own:
            child.name = f"{branch.name}.{child.name}"
            return child
    return branch


def _depth(branch: Branch) -> int:
    return 1 + max(map(_depth, branch.children)) if branch.children else 0


def _ordered(children: list[Branch], sort: str | None, top: int | None) -> list[Branch]:
    if sort is not None:
        children = sorted(children, key=lambda b: -b.size(sort))
    if top is None or len(children) <= top + 1:
        return children
    rest = children[top:]
    more = Branch(f"… {len(rest)} more", None, {}, time=_time_of(rest))
    for branch in rest:
        more.params |= branch.params
        more.saved += branch.saved
        for phase, cost in branch.costs.items():
            more.costs[phase] = more.costs.get(phase, ZERO) + cost
    return [*children[:top], more]


def _walk(root: Branch, depth: int, sort: str | None, top: int | None) -> Iterator[Row]:
    def below(branch: Branch, level: int, prefix: str) -> Iterator[Row]:
        if level == depth:
            return
        shown = _ordered(branch.children, sort, top)
        for i, child in enumerate(shown):
            last = i == len(shown) - 1
            yield Row(f"{prefix}{'└─ ' if last else '├─ '}", child, level + 1)
            yield from below(child, level + 1, f"{prefix}{'   ' if last else '│  '}")

    yield Row("", root)
    yield from below(root, 0, "")
