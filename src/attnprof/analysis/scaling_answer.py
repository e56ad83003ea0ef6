"""Everything that was asked about how a model grows, answered, as reports show it."""

from __future__ import annotations

from dataclasses import dataclass

from attnprof.analysis.scaling import Growth
from attnprof.analysis.scaling_claim import Judged
from attnprof.analysis.scaling_extrapolation import Extrapolation
from attnprof.analysis.scaling_theory import Theory


@dataclass(frozen=True)
class Answer:
    """The growth, the closed form beside it, the claims with their verdicts, and what is needed at other sizes.

    ``by_module``: whether every module is shown. ``notes`` are sentences that a reader must see.
    """

    growth: Growth
    claims: tuple[Judged, ...] = ()
    extrapolations: tuple[Extrapolation, ...] = ()
    theory: Theory | None = None
    by_module: bool = False
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What was counted: ``backward matmul FLOPs``."""
        scaling = self.growth.scaling
        title = TITLES[scaling.quantity]
        if scaling.quantity in ("saved", "peak"):
            return title
        return f"{title} of all phases" if scaling.phase == "all" else f"{scaling.phase} {title}"


TITLES = {
    "flops": "FLOPs",
    "matmul": "matmul FLOPs",
    "vector": "vector FLOPs",
    "bytes": "bytes of traffic",
    "saved": "bytes saved for the backward",
    "peak": "bytes live at the peak",
}
