"""Claims of how a cost grows, held against what was recovered: :func:`judge`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from attnprof.analysis.scaling_claim import hold, read, read_assumption, sentence
from attnprof.claims.verdict import Verdict as _Verdict
from attnprof.core.sizes import positive
from attnprof.recovery.scaling import Scaling

__all__ = ["Verdict", "judge"]


@dataclass(frozen=True)
class Verdict(_Verdict):
    """Whether a claim holds, and ``why``, in a sentence or two."""

    why: str = ""

    def __str__(self) -> str:
        return f"{'TRUE' if self.holds else 'FALSE'}: {self.why}"


def judge(
    scaling: Scaling, claim: str, *, assume: Iterable[str] = (), sizes: Mapping[str, int] | None = None
) -> Verdict:
    """Say whether a claim about a scaling is true: ``judge(scaling, "O(T*d^2)")``, ``judge(scaling, "6*T*d^2")``.

    The text is read as data and never run; O, Θ and Ω (Theta, Omega) are growths in all symbols at once, anything else
    is the formula itself. ``assume`` is what is known of sizes: ``["H<=d"]``. ``sizes`` are those of the example, the
    largest unless given.

    Raises :class:`AttnprofError` for what does not parse or is about sizes that did not vary, and without a formula.
    """
    positive(**dict(sizes or {}))
    judged = hold(scaling, read(claim, scaling.symbols), [read_assumption(a, scaling.symbols) for a in assume], sizes)
    known = {field.name: getattr(judged.verdict, field.name) for field in fields(judged.verdict)}
    return Verdict(**known, why=sentence(judged))
