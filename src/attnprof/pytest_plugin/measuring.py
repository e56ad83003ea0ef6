"""Counting one test, and holding it against its limits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pytest

from attnprof.analysis.budget import hold
from attnprof.analysis.budget_snapshot import snapshot
from attnprof.analysis.report import Report
from attnprof.api import Profile
from attnprof.core import lock
from attnprof.core.budget import Budget, BudgetError
from attnprof.core.errors import AttnprofError
from attnprof.core.snapshot import Snapshot
from attnprof.testing import require

_ENTRY = "passed"


class LastPass:
    """What a test, or a block in one, cost when it last passed: in pytest's cache, if there is one."""

    def __init__(self, config: pytest.Config, name: str) -> None:
        self._cache: Any = getattr(config, "cache", None)
        self._key = f"attnprof/{hashlib.sha256(name.encode()).hexdigest()[:24]}"

    def require(self, report: Report, limits: Sequence[Budget]) -> None:
        """Raise :class:`BudgetError` for a limit that was exceeded; keep what it cost otherwise."""
        __tracebackhide__ = True
        before = self._read()
        require(report, limits, before, self._compared(before))
        if self._cache is not None:
            now = snapshot(report)
            if now != before:
                self._cache.set(self._key, lock.dumps({_ENTRY: lock.Entry(now)}))

    def _compared(self, before: Snapshot | None) -> str:
        """What a failure is compared with, or why with nothing."""
        if before is not None:
            return "compared with when it last passed here (pytest's cache)"
        return f"not compared: {'pytest has no cache here' if self._cache is None else 'it has not passed here yet'}"

    def _read(self) -> Snapshot | None:
        text = None if self._cache is None else self._cache.get(self._key, None)
        try:
            return lock.loads(text, "the cache")[_ENTRY].snapshot if isinstance(text, str) else None
        except (AttnprofError, KeyError):  # of another version, or damaged: it is only a cache
            return None


class Measured:
    """A test that is being counted."""

    def __init__(self, item: pytest.Item, test: str, limits: tuple[Budget, ...], memory: bool) -> None:
        self._limits = limits
        self._last_pass = LastPass(item.config, test)
        memory = memory or any(limit.quantity == "memory_bytes" for limit in limits)
        self.profile = Profile(memory=memory, recount_every=1)

    @cached_property
    def report(self) -> Report:
        """What was counted; to be asked for once the test has ended."""
        return self.profile.report()

    def counts(self) -> dict[str, Any]:
        """What the test cost, as plain values; its limits with what was measured."""
        report = self.report
        return {
            "total": _numbers(report.total),
            "phases": {phase: _numbers(cost) for phase, cost in report.phases.items() if cost},
            "memory": {} if report.memory is None else snapshot(report).memory,
            "unpriced": report.unpriced,
            "limits": [self._limit(limit) for limit in self._limits],
        }

    def _limit(self, limit: Budget) -> dict[str, Any]:
        try:
            found = hold(self.report, limit)
        except AttnprofError as error:
            measured: dict[str, Any] = {"measured": None, "holds": False, "error": str(error)}
        else:
            measured = {"measured": found.measured, "holds": found.holds}
        given = {name: getattr(limit, name) for name in ("quantity", "phase", "module", "kind")}
        return {name: value for name, value in given.items() if value} | {"limit": int(limit.limit)} | measured

    def require(self) -> None:
        """Raise :class:`BudgetError` for a limit that was exceeded, or that limits nothing."""
        __tracebackhide__ = True
        if not self._limits:
            return
        try:
            self._last_pass.require(self.report, self._limits)
        except BudgetError:
            raise
        except AttnprofError as error:
            raise BudgetError(str(error)) from None


def _numbers(cost: Any) -> dict[str, int]:
    names = ("flops", "matmul_flops", "vector_flops", "bytes", "read_bytes", "write_bytes")
    return {name: getattr(cost, name) for name in names}
