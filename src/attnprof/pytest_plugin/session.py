"""One session of pytest: the test that runs, what was counted, what goes into the lock file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from attnprof.core.checkers import checkers, holders

if TYPE_CHECKING:
    from attnprof.analysis.report import Report
    from attnprof.core.budget import Budget
    from attnprof.pytest_plugin.locking import LockSession
    from attnprof.pytest_plugin.options import Settings

#: The attribute of a test report that carries what was counted, from a worker of xdist too.
CARRIED = "attnprof_counts"
#: The blocks of a test that are compared with their last pass; a loop may have thousands.
_COMPARED = 16
#: The node id of a test as it was collected: xdist appends the group of ``--dist loadgroup`` to the other.
_COLLECTED_AS = pytest.StashKey[str]()


class AttnprofSession:
    """The hooks that need to know the session. Everything heavy is imported by the test that needs it."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config = config
        self.settings = settings
        self.reports: list[Callable[[], Report]] = []  # made through the fixture by the test that runs
        self.counted: dict[str, dict[str, Any]] = {}  # by test, in order
        self.differs: dict[str, dict[str, str]] = {}  # by test: entries of the lock file, and what differs
        self.written: list[str] = []  # sentences for the end
        self.item: pytest.Item | None = None
        self._carried: dict[str, Any] = {}
        self._not_passed: set[str] = set()
        self._collected: set[str] = set()
        self._broken = False  # some test could not be collected
        self._lock: LockSession | None = None
        self._is_worker = hasattr(config, "workerinput")
        self._blocks = 0  # of the test, with a budget of their own
        checkers.append(self.check)
        holders.append(self.hold)

    @property
    def lock(self) -> LockSession:
        if self._lock is None:
            from attnprof.pytest_plugin.locking import LockSession

            self._lock = LockSession(self.settings, self.config.rootpath)
        return self._lock

    def pytest_unconfigure(self) -> None:
        checkers.remove(self.check)
        holders.remove(self.hold)

    def check(self, report: Report, name: str | None, tolerance: str | int | None) -> None:
        """What :func:`attnprof.check` does while this session runs."""
        __tracebackhide__ = True
        if self.item is None:
            from attnprof.core.errors import AttnprofError

            raise AttnprofError("check() belongs inside a test: no test is running.")
        test = _collected_as(self.item)
        self.lock.check(report, name or test, tolerance, test, self._carried)

    def hold(self, report: Report, limits: Sequence[Budget]) -> None:
        """Hold a block of a test, or what an assertion was given, against its limits."""
        __tracebackhide__ = True
        self._blocks += 1
        if self.item is None or self._blocks > _COMPARED:
            from attnprof.testing import require

            require(report, limits)
        else:
            from attnprof.pytest_plugin.measuring import LastPass

            LastPass(self.config, f"{_collected_as(self.item)}, block {self._blocks}").require(report, limits)

    # A test

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self.item, self._carried, self._blocks = item, {}, 0
        if _collected_as(item) != item.nodeid:
            self._carried["test"] = _collected_as(item)
        try:
            return (yield)
        finally:
            self.item = None

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Count the call of the test, without the set-up of its fixtures, where anybody wants to know."""
        settings = self.settings
        wanted = settings.counts_all or settings.default or settings.forced
        if not wanted and not any(mark.name.startswith("limit_") for mark in item.iter_markers()):
            return (yield)
        from attnprof.pytest_plugin.limits import limits_of

        limits = limits_of(item, settings)
        if not (limits or settings.counts_all):
            return (yield)
        from attnprof.pytest_plugin.measuring import Measured

        measured = Measured(item, _collected_as(item), limits, memory=settings.counts_all)
        try:
            with measured.profile:
                result = yield
        except AssertionError as error:
            if settings.counts_all and _is_budget(error):  # the test was counted up to its check
                self._carried["counts"] = measured.counts()
            raise
        self._carried["counts"] = measured.counts()
        measured.require()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        if call.excinfo and _is_for_users(call.excinfo.value) and not item.config.option.fulltrace:
            from attnprof.pytest_plugin.failures import without_ours

            call.excinfo = without_ours(call.excinfo)
        report = yield
        if report.failed and call.excinfo and _is_budget(call.excinfo.value):
            from attnprof.pytest_plugin.failures import shape

            shape(report, call.excinfo, item)
        if self._carried and (report.when != "setup" or report.failed):
            setattr(report, CARRIED, json.dumps(self._carried))
            self._carried = {}
        return report

    def pytest_assertrepr_compare(self, op: str, left: object, right: object) -> list[str] | None:
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            return None
        if not (self.reports or _is("Amount", "amounts", left) or _is("Amount", "amounts", right)):
            return None
        from attnprof.pytest_plugin.comparing import explained

        return explained(op, left, right, self.reports)

    # The session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._is_worker:
            return
        carried = json.loads(getattr(report, CARRIED, "{}"))
        test = carried.get("test", report.nodeid)
        if report.when == "setup":  # begins, and perhaps once more: only the last of several attempts counts
            self._not_passed.discard(test)
            self.differs.pop(test, None)
            if self._lock is not None:
                self.lock.forget(test)
        if not report.passed:
            self._not_passed.add(test)
        if report.when == "call" and report.passed and self._keeps_lock:
            self.lock.passed.add(test)
        if "counts" in carried:
            self.counted[test] = {"outcome": report.outcome, **carried["counts"]}
        if "differs" in carried:
            self.differs.setdefault(test, {}).update(carried["differs"])
        if "checked" in carried:
            self.lock.take(test, carried)

    @property
    def _keeps_lock(self) -> bool:
        return self._lock is not None or self.settings.update or self.settings.lock.exists()

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Before any plugin selects, or gives it another name."""
        item.stash[_COLLECTED_AS] = item.nodeid
        self._collected.add(item.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._broken |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        partly = self._broken or self.config.getoption("lf", False)
        partly = partly or any("::" in argument for argument in self.config.args)
        collected = None if partly else self._collected
        if self._is_worker:
            if self._keeps_lock:
                output: dict[str, Any] = self.config.workeroutput  # type: ignore[attr-defined]
                output[CARRIED] = json.dumps(sorted(self.lock.gone(collected)))
            return
        if self._keeps_lock and not self.lock.finish(collected, self._not_passed):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.settings.json or self.settings.markdown:
            from attnprof.pytest_plugin.summary import write_files

            self.written += write_files(self.settings, self.counted, self.differs)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of xdist has ended: what it did not collect any more."""
        found = (getattr(node, "workeroutput", None) or {}).get(CARRIED)
        if found:
            self.lock.gone_elsewhere |= set(json.loads(found))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        from_lock = self.lock.sentences if self._lock is not None else []
        if not (self.settings.report or from_lock or self.written):
            return
        from attnprof.pytest_plugin.summary import terminal_lines

        lines = terminal_lines(self.counted) if self.settings.report else []
        terminalreporter.section("attnprof", sep="-")
        for line in [*lines, *from_lock, *self.written]:
            terminalreporter.write_line(line)


def _collected_as(item: pytest.Item) -> str:
    return item.stash.get(_COLLECTED_AS, item.nodeid)


def _is_budget(error: BaseException) -> bool:
    """Whether it says that something cost too much."""
    return _is("BudgetError", "budget", error)


def _is(name: str, module: str, value: object) -> bool:
    """Whether it is of one of our classes; without loading the module of a class that nobody used."""
    loaded = sys.modules.get(f"attnprof.core.{module}")
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _is_for_users(error: BaseException) -> bool:
    """Whether it is about what a user wrote, and not a defect of ours."""
    return _is("AttnprofError", "errors", error) and not _is("ConservationError", "errors", error)
