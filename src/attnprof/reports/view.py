"""What a reader asked to see: rows, order, depth, phase, units. Checked before a run, not after it."""

from __future__ import annotations

from dataclasses import dataclass, field

from attnprof.analysis.report import PHASES
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.units import Units

ROWS = ("module", "op", "step", "memory", "time")
SORTS = ("flops", "matmul", "vector", "bytes", "read", "written", "params", "saved", "calls", "time")


@dataclass(frozen=True, slots=True)
class View:
    """How to show a report.

    ``by``: rows are modules, ops or steps, or the memory is shown, or the measured time. ``depth``: levels of modules
    below the root (None: about a screenful). ``sort``: largest first by this number (None: the model's order; ops by
    FLOPs). ``top``: only the largest so many of each level, by FLOPs (by what they saved, for memory) unless ``sort``
    says otherwise, the rest as one line. ``phase``: only this one.
    """

    by: str = "module"
    depth: int | None = None
    sort: str | None = None
    top: int | None = None
    phase: str | None = None
    units: Units = field(default_factory=Units)
    colour: bool = False  # on a terminal that has colours; never decides what is shown

    @classmethod
    def of(
        cls,
        *,
        by: str = "module",
        depth: int | None = None,
        sort: str | None = None,
        top: int | None = None,
        phase: str | None = None,
        units: Units | str = "decimal",
    ) -> View:
        """A view from words; raises :class:`AttnprofError` for one that is not known."""
        _known("by", by, ROWS)
        _known("sort", sort, SORTS)
        _known("phase", phase, PHASES)
        if by == "op" and sort in ("params", "saved"):
            what = "parameters" if sort == "params" else "saved bytes of their own"
            raise AttnprofError(f"ops have no {what}: sort by op with another key, such as flops.")
        if by == "step" and (sort is not None or top is not None):
            raise AttnprofError("steps are shown in their order, like ones folded: leave out sort and top.")
        if by == "memory" and phase is not None:
            raise AttnprofError("memory is shown for the whole run: leave out phase.")
        if by == "time" and sort not in (None, "time"):
            raise AttnprofError(f"measured time is sorted by time, not by {sort}: leave out sort, or use time.")
        if depth is not None and depth < 0:
            raise AttnprofError(f"depth {depth} is below 0, the model itself.")
        if top is not None and top < 1:
            raise AttnprofError(f"top {top} would show nothing: give 1 or more.")
        if sort is None and (top is not None or by == "op"):
            sort = {"memory": "saved", "time": "time"}.get(by, "flops")
        return cls(by, depth, sort, top, phase, Units.parse(units) if isinstance(units, str) else units)


def _known(what: str, word: str | None, known: tuple[str, ...]) -> None:
    if word is not None and word not in known:
        raise AttnprofError(f'{what} "{word}" is not one of {", ".join(known)}.{closest(word, known)}')
