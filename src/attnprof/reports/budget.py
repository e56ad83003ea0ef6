"""Findings and changes in words: the verdict in one line, then the modules it comes from and the ops responsible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from attnprof.analysis.budget_changes import Change, Changes, ModuleChange
from attnprof.core.amounts import Amount
from attnprof.core.budget import Budget, Finding, Part
from attnprof.core.module_names import fold
from attnprof.core.snapshot import NUMBERS, Snapshot
from attnprof.core.units import Kind, Units, rounded
from attnprof.reports.text import printable, shortened, width_of_terminal

_UNITS = Units()
#: Modules that a short text names.
SHORT = 5
_KINDS: dict[str, Kind] = {"flops": "flops", "bytes": "bytes", "memory_bytes": "bytes", "unpriced": "count"}
_WORDS = {
    "flops": "FLOPs",
    "bytes": "bytes",
    "memory_bytes": "memory",
    "unpriced": "op calls without a formula",
    "matmul_flops": "matmul",
    "vector_flops": "vector",
    "read_bytes": "read",
    "write_bytes": "written",
    "peak_bytes": "peak memory",
    "saved_bytes": "saved for the backward",
}


def kind_of(quantity: str) -> Kind:
    """The kind of number that a quantity is."""
    return _KINDS.get(quantity) or ("bytes" if quantity.endswith("bytes") else "flops")


def words(quantity: str) -> str:
    """A quantity in words."""
    return _WORDS[quantity]


def scope(budget: Budget) -> str:
    """What a budget is for, where that is not the whole: ``forward FLOPs of encoder.*``."""
    what = [budget.phase or "", f"{budget.kind} memory" if budget.kind else words(budget.quantity)]
    return printable(" ".join(filter(None, what)) + (f" of {budget.module}" if budget.module else ""))


def verdict(finding: Finding) -> str:
    """``4.61 GFLOP, limit 4.2 GFLOP: 412 MFLOP over (+9.8%)``; what has no own unit, or is a part, is named before."""
    budget, kind = finding.budget, _KINDS[finding.budget.quantity]
    measured, limit = _told_apart(finding.measured, budget.limit, kind)
    if isinstance(budget.limit, Amount):
        limit = f"{budget.limit.text} ({limit})" if "MAC" in budget.limit.text else budget.limit.text
    over = f"{_UNITS.named(finding.excess, kind)} over{_bracketed(finding.excess, budget.limit)}"
    text = f"{measured}, limit {limit}: {over}" if finding.excess > 0 else f"{measured}, limit {limit}"
    least = "at least " if finding.lower_bound else ""
    if budget.quantity == "flops" and not (budget.phase or budget.module):
        return least + text
    return f"{scope(budget)}: {least}{text}"


def parts(finding: Finding, most: int | None = SHORT) -> list[str]:
    """The modules that a quantity went to, the largest first, with their dearest ops."""
    alike: dict[tuple[int, str], list[str]] = {}
    for part in finding.parts:
        alike.setdefault((part.amount, part.op), []).append(part.module)
    folded = [
        Part(text, amount * count, op)
        for (amount, op), modules in alike.items()
        for text, count in fold(modules).items()
    ]
    folded.sort(key=lambda part: -part.amount)
    kind = _KINDS[finding.budget.quantity]
    rows = [[_module(part.module), _UNITS.named(part.amount, kind), part.op] for part in folded[:most]]
    return [*_aligned(rows), *_rest(len(folded), most)]


def headline(name: str, changes: Changes) -> str:
    """``gpt2-forward: 4.61 GFLOP, locked 4.20 GFLOP (+9.8%)``, of the first number that differs."""
    change = leading(changes)
    if change is None:
        return f"{printable(name)}: the totals are as locked, {_modules(len(changes.modules))} not"
    kind = kind_of(change.name)
    after, before = _told_apart(change.after, change.before, kind)
    what = "" if change.name == "flops" else f"{words(change.name)} "
    return f"{printable(name)}: {what}{after}, locked {before}{_bracketed(change.delta, change.before)}"


def leading(changes: Changes) -> Change | None:
    """The change that a verdict is about: of FLOPs, else of bytes, memory or what has no price."""
    for quantity in ("flops", "bytes"):
        if any(module.total(quantity).delta for module in changes.modules) and changes.total(quantity).delta:
            return changes.total(quantity)
    return next(iter(changes.memory), None) or next(
        (Change("unpriced", c.before, c.after) for c in changes.unpriced), None
    )


def module_changes(changes: Changes, most: int | None = SHORT) -> list[str]:
    """A line for each group of modules: where, in which phase, before → after, and the op responsible."""
    return _changed(changes.modules, most)


def growth(finding: Finding, grown: Sequence[ModuleChange], before: Snapshot, now: Snapshot) -> list[str]:
    """What a broken budget has more of than before, and where; where it came from, if that is not known."""
    budget = finding.budget
    if grown:
        return _changed(grown, SHORT, budget.quantity)
    name = f"{budget.kind}_bytes"
    if budget.module is None and name in before.memory and name in now.memory:
        change = Change(name, before.memory[name], now.memory[name])
        if change.delta > 0:
            return [f"{words(name)} {arrow(change)}", *parts(finding)]
    return parts(finding)


def other_changes(changes: Changes) -> list[str]:
    """Memory and unpriced ops before → after, one to a line."""
    found = [f"{words(change.name)} {arrow(change)}" for change in changes.memory]
    found += [
        f"{printable(change.name)} without a formula: {change.before} → {change.after} calls"
        for change in changes.unpriced
    ]
    return found


def environment(changes: Changes) -> list[str]:
    """What differs in the circumstances, and so may be why counts do."""
    return [
        f"{name} was {printable(before) or 'none'} and is {printable(after) or 'none'}"
        for name, before, after in changes.environment
    ]


def every_number(changes: Changes) -> list[str]:
    """Each number that changed in each group of modules, and the totals: the full table."""
    rows = [
        [_module(change.module), change.phase, words(name), arrow(change.total(name), exact=True)]
        for change in changes.modules
        for name in NUMBERS
        if change.total(name).delta
    ]
    rows += [["total", "", words(c.name), arrow(c, exact=True)] for c in changes.totals if c.delta]
    return _aligned(rows, cut=False)


def arrow(change: Change, exact: bool = False) -> str:
    """``1.61 → 2.01 GFLOP``, with as many digits as it takes to tell the two apart, and the change per cent."""
    kind = kind_of(change.name)
    unit, cells = _UNITS.column([change.before, change.after], kind)
    if exact or cells[0] == cells[1]:
        unit, cells = Units(exact=True).column([change.before, change.after], kind)
    if any(cell[-1:].isalpha() for cell in cells):  # too far apart for one prefix
        text = f"{_UNITS.named(change.before, kind)} → {_UNITS.named(change.after, kind)}"
    else:
        before, after = (cell.strip() for cell in cells)
        text = f"{before} → {after} {unit}".rstrip()
    return text + _bracketed(change.delta, change.before)


def _told_apart(a: int, b: int, kind: Kind) -> tuple[str, str]:
    short = _UNITS.named(a, kind), _UNITS.named(b, kind)
    if a == b or short[0] != short[1]:
        return short
    exact = Units(exact=True)
    return exact.named(a, kind), exact.named(b, kind)


def percent(delta: int, of: int) -> str:
    """A change as a share of what was there: ``+9.8%``, ``×12.5`` from ten times on; empty for none, or of none."""
    if not of or not delta:
        return ""
    share = abs(Fraction(delta * 100, of))
    if delta >= 9 * of:
        return f"×{_UNITS.text(Fraction(of + delta, of), 'count')}"
    text = "<0.1" if share < Fraction(1, 20) else rounded(share) if share >= 10 else f"{float(share):.1f}"
    return f"{'+' if delta > 0 else '-'}{text}%"


def module_row(change: ModuleChange, quantity: str | None = None) -> tuple[str, str, str, str]:
    """A group of modules, the phase, before → after (of the first number that changed), and the op responsible."""
    shown = _first(change) if quantity is None else change.total(quantity)
    return _module(change.module), change.phase, arrow(shown), _responsible(change)


def _changed(modules: Sequence[ModuleChange], most: int | None, quantity: str | None = None) -> list[str]:
    rows = [module_row(change, quantity) for change in modules[:most]]
    return [*_aligned(rows), *_rest(len(modules), most)]


def _bracketed(delta: int, of: int) -> str:
    text = percent(delta, of)
    return f" ({text})" if text else ""


def _first(change: ModuleChange) -> Change:
    """The first of FLOPs, bytes and their parts that changed."""
    return next(found for q in ("flops", "bytes", *NUMBERS) if (found := change.total(q)).delta)


def _responsible(change: ModuleChange) -> str:
    """``aten.mm.default float32 [4,8] [8,32], was [4,8] [8,16]``."""
    if not change.op:
        return f"no more {change.was}" if change.was else ""
    if not change.was:
        return f"new: {change.op}" if not change.before.flops and not change.before.bytes else change.op
    now, was = change.op.split(" "), change.was.split(" ")
    same = next((i for i, pair in enumerate(zip(now, was, strict=False)) if pair[0] != pair[1] or "[" in pair[0]), 0)
    return f"{change.op}, was {' '.join(was[same:])}"


def _module(name: str) -> str:
    return printable(name) or "(the model itself)"


def _modules(count: int) -> str:
    return f"{count} group{'' if count == 1 else 's'} of modules {'is' if count == 1 else 'are'}"


def _rest(count: int, most: int | None) -> Iterator[str]:
    if most is not None and count > most:
        yield f"and {count - most} more"


def _aligned(rows: Sequence[Sequence[str]], *, cut: bool = True) -> list[str]:
    """Columns, the last of them on lines of its own where it does not fit, what was apart, and cut only there."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    room = width_of_terminal() - 2 if cut else 10**6
    lines = []
    for *cells, last in rows:
        left = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        last = printable(last)
        if not last:
            lines.append(left)
        elif sum(widths) + 2 * len(widths) + len(last) <= room:
            lines.append("  ".join([*(c.ljust(w) for c, w in zip(cells, widths, strict=True)), last]))
        else:
            width = max(room - 4, 40)
            now, _, was = last.rpartition(", was ") if len(last) > width else ("", "", last)
            lines += [left, *(f"    {shortened(text, width)}" for text in ([now, f"was {was}"] if now else [was]))]
    return lines
