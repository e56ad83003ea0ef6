"""A scaling with the forms that people read it in."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnprof.core.units import Units
from attnprof.recovery.scaling import Scaling as _Scaling

if TYPE_CHECKING:
    from attnprof.analysis.scaling_answer import Answer


@dataclass(frozen=True)
class Scaling(_Scaling):
    """How a quantity of a model grows with its sizes. ``print(scaling)`` shows the formula and what it says.

    ``claims`` of the forms below are held against it, as :func:`attnprof.judge` does; ``units`` are words as on the
    command line: ``"exact"``, ``"binary"``, ``"macs"``.
    """

    def to_table(
        self,
        *,
        claims: Iterable[str] = (),
        modules: bool = True,
        units: str = "decimal",
        width: int | None = None,
    ) -> str:
        """What there is to say, and a row for each of the ``modules``, in at most ``width`` columns."""
        from attnprof.reports.scaling import to_text

        return to_text(self._answer(claims, modules), Units.parse(units), width)

    def to_markdown(self, *, claims: Iterable[str] = (), modules: bool = True, units: str = "decimal") -> str:
        """The same as Markdown."""
        from attnprof.reports.scaling import to_markdown

        return to_markdown(self._answer(claims, modules), Units.parse(units))

    def to_latex(self, *, claims: Iterable[str] = (), modules: bool = True, units: str = "decimal") -> str:
        """The formula, and those of the ``modules``, as ``align*``; the rest as comments."""
        from attnprof.reports.scaling import to_latex

        return to_latex(self._answer(claims, modules), Units.parse(units))

    def to_csv(self) -> str:
        """One line for each counted point; plain integers."""
        from attnprof.reports.scaling import to_csv

        return to_csv(self._answer((), False))

    def to_json(self, *, claims: Iterable[str] = ()) -> str:
        """Everything as JSON; plain integers."""
        from attnprof.reports.scaling import to_json

        return to_json(self._answer(claims, True))

    def to_html(self, path: str | os.PathLike[str], *, claims: Iterable[str] = (), units: str = "decimal") -> None:
        """Write all of it as a page, with the curves (.html; needs matplotlib).

        Raises :class:`AttnprofError` for another suffix, where nothing can be written, and without matplotlib.
        """
        from attnprof.reports.scaling_page import save

        save(self._answer(claims, True), path, Units.parse(units))

    def plot(self, path: str | os.PathLike[str], *, units: str = "decimal") -> None:
        """Draw the curves of the whole and of the modules with logarithmic axes (.png, .svg or .pdf).

        Raises :class:`AttnprofError` for another suffix, where nothing can be written, without a formula and without
        matplotlib.
        """
        from attnprof.reports.scaling_plot import save

        save(self._answer((), True), path, Units.parse(units))

    def _answer(self, claims: Iterable[str], modules: bool) -> Answer:
        from attnprof.analysis.scaling import growth
        from attnprof.analysis.scaling_answer import Answer
        from attnprof.analysis.scaling_claim import hold, read

        judged = tuple(hold(self, read(claim, self.symbols)) for claim in claims)
        return Answer(growth(self), judged, by_module=modules)

    def __str__(self) -> str:
        return self.to_table()
