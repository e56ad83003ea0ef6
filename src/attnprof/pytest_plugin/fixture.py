"""The fixture ``attnprof``: the package, with the lock file of the session and a memory for what the test counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attnprof

if TYPE_CHECKING:
    from attnprof.api import Profile, Report
    from attnprof.pytest_plugin.session import AttnprofSession
    from attnprof.testing import CostBudget


class Attnprof:
    """All that ``import attnprof`` has; a report made through it explains itself where a comparison with it fails."""

    def __init__(self, session: AttnprofSession) -> None:
        self._session = session

    def __repr__(self) -> str:
        return "attnprof"

    def run(self, *args: Any, **kwargs: Any) -> Report:
        """:func:`attnprof.run`: one call of a model."""
        report = attnprof.run(*args, **kwargs)
        self._session.reports.append(lambda: report)
        return report

    def profile(self, *args: Any, **kwargs: Any) -> Profile:
        """:func:`attnprof.profile`: a context that counts."""
        profile = attnprof.profile(*args, **kwargs)
        self._session.reports.append(profile.report)
        return profile

    def budget(self, *args: Any, **kwargs: Any) -> CostBudget:
        """:func:`attnprof.budget`: a context that may cost so much."""
        made = attnprof.budget(*args, **kwargs)
        self._session.reports.append(lambda: made.report)
        return made

    def check(self, report: Report, name: str | None = None, *, tolerance: str | int | None = None) -> None:
        """Compare a run with its entry in the lock file; ``name`` is that of the test where it is left out."""
        __tracebackhide__ = True
        attnprof.check(report, name, tolerance=tolerance)

    def __getattr__(self, name: str) -> Any:
        return getattr(attnprof, name)
