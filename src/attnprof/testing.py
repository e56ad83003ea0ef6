"""Assertions on what code costs, for any test framework: budgets, limits of a run, comparison with a lock file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprof.analysis.budget import grown, hold
from attnprof.analysis.budget_changes import Changes, compare
from attnprof.analysis.budget_snapshot import snapshot
from attnprof.analysis.report import Report
from attnprof.core import amounts, lock
from attnprof.core.budget import Budget, BudgetError, budgets
from attnprof.core.checkers import checkers, holders
from attnprof.core.errors import AttnprofError
from attnprof.core.snapshot import Snapshot
from attnprof.reports import budget as text
from attnprof.reports.files import write_text

if TYPE_CHECKING:
    from torch import nn

    from attnprof import api


class CostBudget:
    """A context that must cost no more than its budgets; see :func:`budget`."""

    def __init__(self, model: nn.Module | None, limits: Sequence[Budget]) -> None:
        self.budgets = tuple(limits)
        self._model = model
        self._profile: api.Profile | None = None

    def __enter__(self) -> CostBudget:
        if self._profile is not None:
            raise AttnprofError("a budget is for one block: make another with attnprof.budget(...).")
        from attnprof.api import Profile

        needs_memory = any(b.quantity == "memory_bytes" for b in self.budgets)
        self._profile = Profile(self._model, memory=needs_memory, recount_every=1)
        self._model = None  # the profile lets go of it at the end
        self._profile.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        __tracebackhide__ = True
        assert self._profile is not None
        self._profile.__exit__(kind, error, traceback)
        if kind is None:  # what raised has a failure of its own
            _hold(self.report, self.budgets)

    @property
    def report(self) -> api.Report:
        """What was counted in the block so far."""
        if self._profile is None:
            raise AttnprofError("the budget has no report yet: enter it with `with attnprof.budget(...) as b:`.")
        return self._profile.report()


def budget(
    model: nn.Module | None = None,
    *,
    flops: str | int | None = None,
    bytes: str | int | None = None,
    memory_bytes: str | int | None = None,
    unpriced: int | None = None,
    phase: str | None = None,
    module: str | None = None,
    kind: str | None = None,
) -> CostBudget:
    """A context that may cost so much: ``with attnprof.budget(flops="4.2 GFLOP", module="h.0") as b:``.

    Everything that runs inside is counted, as by :func:`attnprof.profile`; ``model`` gives modules their names.
    ``phase`` and ``module`` restrict every limit given, ``kind`` (peak or saved) is for ``memory_bytes``. At the
    end ``b.report`` is the report, and :class:`BudgetError`, an ``AssertionError``, is raised for a limit that was
    exceeded; an exception of the block passes through instead.
    """
    limits = {"flops": flops, "bytes": bytes, "memory_bytes": memory_bytes, "unpriced": unpriced}
    return CostBudget(model, budgets(phase=phase, module=module, kind=kind, **limits))


def assert_flops(
    subject: Report | nn.Module,
    limit: str | int,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    phase: str | None = None,
    module: str | None = None,
    **how: Any,
) -> Report:
    """Raise ``AssertionError`` if ``subject`` costs more FLOPs than ``limit`` (``"4.2 GFLOP"``); the report else.

    ``subject`` is a report, or a model that is counted as by ``attnprof.run(model, args, kwargs, **how)``.
    """
    __tracebackhide__ = True
    return _asserted(subject, args, kwargs, how, Budget.of("flops", limit, phase=phase, module=module))


def assert_bytes(
    subject: Report | nn.Module,
    limit: str | int,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    phase: str | None = None,
    module: str | None = None,
    **how: Any,
) -> Report:
    """As :func:`assert_flops`, for the bytes that the ops read and write (``"120 MB"``)."""
    __tracebackhide__ = True
    return _asserted(subject, args, kwargs, how, Budget.of("bytes", limit, phase=phase, module=module))


def assert_memory_bytes(
    subject: Report | nn.Module,
    limit: str | int,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    kind: str = "peak",
    module: str | None = None,
    **how: Any,
) -> Report:
    """As :func:`assert_flops`, for memory (``"1 GiB"``): its ``peak``, or what is ``saved`` for the backward."""
    __tracebackhide__ = True
    return _asserted(subject, args, kwargs, how, Budget.of("memory_bytes", limit, kind=kind, module=module))


def assert_priced(
    subject: Report | nn.Module, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **how: Any
) -> Report:
    """As :func:`assert_flops`: every op has a formula."""
    __tracebackhide__ = True
    return _asserted(subject, args, kwargs, how, Budget.of("unpriced", 0))


def _asserted(
    subject: Report | nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    how: Mapping[str, Any],
    of: Budget,
) -> Report:
    __tracebackhide__ = True
    if isinstance(subject, Report):
        if args or kwargs or how:
            raise AttnprofError("a report has been counted: leave out the arguments of the run.")
        report = subject
    else:
        from attnprof.api import run

        report = run(subject, args, kwargs, **how)
    _hold(report, [of])
    return report


def _hold(report: Report, limits: Sequence[Budget]) -> None:
    __tracebackhide__ = True
    (holders[-1] if holders else require)(report, limits)


def require(report: Report, limits: Sequence[Budget], before: Snapshot | None = None, compared: str = "") -> None:
    """Raise :class:`BudgetError` unless a run keeps every budget.

    ``before`` is an earlier run that kept them, and ``compared`` a line on which that is, or why there is none.
    """
    __tracebackhide__ = True
    broken = [finding for limit in limits if not (finding := hold(report, limit)).holds]
    broken.sort(key=lambda finding: bool(finding.budget.phase or finding.budget.module))  # the whole comes first
    if not broken:
        return
    now = None if before is None else snapshot(report)
    changes = None if before is None or now is None else compare(before, now)
    lines: list[str] = []
    for finding in broken:
        found = text.parts(finding)
        if before is not None and now is not None and finding.budget.quantity != "unpriced":
            in_memory = finding.budget.quantity == "memory_bytes"
            found = text.growth(finding, [] if in_memory else grown(report, finding.budget, before), before, now)
        lines += [text.verdict(finding), *(f"  {line}" for line in found)]
    if changes is not None and not changes:
        compared += ": it costs the same, and the limit is new or lower"
    if changes is not None and changes.environment:
        compared += f"; {'; '.join(text.environment(changes))}"
    lines += [f"  {compared}"] if compared else []
    details = [line for finding in broken for line in text.parts(finding, most=None)]
    raise BudgetError("\n".join(lines), "\n".join(details))


def check(
    report: Report,
    name: str | None = None,
    *,
    lock: str | os.PathLike[str] = "attnprof.lock.toml",
    tolerance: str | int | None = None,
    update: bool = False,
) -> None:
    """Compare a run with the entry ``name`` of a lock file, module by module and phase by phase, exactly.

    With ``update`` the entry is written instead. Under pytest the plugin keeps the lock file: where it is, the
    tolerance and updates are its options then, and ``name`` may be left out for the name of the test.

    Raises :class:`BudgetError`, an ``AssertionError``, where they differ or there is no such entry,
    and :class:`AttnprofError` for a lock file that cannot be read.
    """
    __tracebackhide__ = True
    if not isinstance(report, Report):
        raise AttnprofError(f"check() takes a report, as attnprof.run(...) returns, not a {type(report).__name__}.")
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise AttnprofError(f'check() needs a name for the entry, such as "gpt2-forward", not {name!r}.')
    if checkers:
        checkers[-1](report, name, tolerance)
        return
    if name is None:
        raise AttnprofError('check() needs a name for the entry, such as "gpt2-forward".')
    path = Path(lock)
    if update:
        update_lock(path, {name: _entry(report)})
        return
    against(report, name, path, tolerance or 0, "update on purpose: attnprof.check(..., update=True)")


def against(report: Report, name: str, path: Path, tolerance: str | int, remedy: str) -> None:
    """Raise :class:`BudgetError` unless a run costs what its entry of a lock file says."""
    __tracebackhide__ = True
    allowed = amounts.tolerance(tolerance)
    entry = lock.read(path).get(name)
    if entry is None:
        raise BudgetError(f'{path} has no entry "{name}"\n  {remedy}')
    changes = compare(entry.snapshot, snapshot(report), allowed)
    if changes:
        raise BudgetError(*difference(name, changes, remedy))


def difference(name: str, changes: Changes, remedy: str) -> tuple[str, str]:
    """What differs from a lock file, in few lines, and in full."""
    lines = [*text.module_changes(changes), *text.other_changes(changes)]
    if changes.environment:
        lines.append(f"locked elsewhere, which may be why: {'; '.join(text.environment(changes))}")
    lines.append(remedy)
    return "\n".join([text.headline(name, changes), *(f"  {line}" for line in lines)]), "\n".join(
        text.every_number(changes)
    )


def update_lock(path: Path, entries: Mapping[str, lock.Entry], forget: Sequence[str] = ()) -> bool:
    """Write entries into a lock file, the others in it left as they are; whether that changed anything.

    The file is replaced in one step. One that cannot be read is left alone: :class:`AttnprofError` says why.
    """
    present = lock.read(path)
    wanted = {name: entry for name, entry in present.items() if name not in forget} | dict(entries)
    if wanted == present and path.exists():
        return False
    write_text(path, lock.dumps(wanted))
    return True


def _entry(report: Report, test: str = "") -> lock.Entry:
    return lock.Entry(snapshot(report), test)
