"""What another FLOP counter said of a run, as plain values, and how it differs from attnprof, cause by cause."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from attnprof.core.signature import OpSignature

#: How another counter treats an op: it has a formula; it says that it has none; it takes the op for free; or it
#: never saw the op, since nothing that the model returns depends on it.
Verdict = Literal["counted", "unsupported", "ignored", "unused"]

#: Why two counters differ. ``unexplained`` is what is left when every op was looked at: 0, unless something is wrong.
Kind = Literal["unsupported", "convention", "formula", "path", "attribution", "unexplained"]
KINDS: tuple[Kind, ...] = ("unsupported", "convention", "formula", "path", "attribution", "unexplained")


@dataclass(frozen=True, slots=True)
class Said:
    """One op call as another counter saw it.

    ``op`` is its name for the op, ``amount`` its own number in its own unit, ``modules`` the dotted names it books
    the call to, the enclosing ones included. ``inner`` are the ops that really ran in it; None where the counter
    sees the very ops that attnprof does. ``shapes`` are those of its arguments, None for what is no tensor.
    """

    op: str
    amount: int
    modules: frozenset[str]
    inner: tuple[OpSignature, ...] | None = None
    verdict: Verdict = "counted"
    shapes: tuple[tuple[int, ...] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What another counter said of a run.

    ``amounts``: its own numbers by module and op, enclosing modules included, ``""`` the whole run. ``macs`` are
    the ops that it counts in multiply-adds; the others are in FLOPs. ``phases`` are those that it sees (empty: all).
    ``said`` are its calls one by one, to explain the numbers with; ``problem`` says why it gave none, and ``caveat``
    what a reader of them must know.
    """

    tool: str
    title: str
    amounts: dict[str, dict[str, int]] = field(default_factory=dict)
    macs: frozenset[str] = frozenset()
    phases: tuple[str, ...] = ()
    said: tuple[Said, ...] = ()
    problem: str = ""
    caveat: str = ""

    def flops(self, op: str, amount: int) -> int:
        """A number of its, in FLOPs: a multiply-add is two."""
        return 2 * amount if op in self.macs else amount


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a cause that is due to one op. ``place`` is the module that ran it, where that is the point."""

    op: str
    calls: int
    flops: int
    place: str = ""


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why another counter says more (positive) or less FLOPs of a module than attnprof does."""

    kind: Kind
    reason: str
    parts: tuple[Part, ...]

    @property
    def flops(self) -> int:
        """The parts add up to it."""
        return sum(part.flops for part in self.parts)


@dataclass(frozen=True, slots=True)
class CheckedModule:
    """One module, with all that is in it, as attnprof and another counter have it.

    ``matmul`` and ``vector`` are attnprof's FLOPs, ``said`` is the other's own number in its own unit and ``theirs``
    the same in FLOPs. The ``causes`` add up to ``difference``.
    """

    module: str
    matmul: int
    vector: int
    said: int
    theirs: int
    causes: tuple[Cause, ...]

    @property
    def ours(self) -> int:
        return self.matmul + self.vector

    @property
    def difference(self) -> int:
        """The other counter's FLOPs less attnprof's."""
        return self.theirs - self.ours

    def of_kind(self, kind: Kind) -> int:
        """What the causes of a kind add up to."""
        return sum(cause.flops for cause in self.causes if cause.kind == kind)


@dataclass(frozen=True, slots=True)
class Crosscheck:
    """Another counter's numbers beside attnprof's, by dotted module name; ``""`` is the whole run.

    ``modules`` is empty where the counter could not count, and ``problem`` says why. ``phases`` are those that are
    compared (empty: all).
    """

    tool: str
    title: str
    modules: dict[str, CheckedModule] = field(default_factory=dict)
    phases: tuple[str, ...] = ()
    problem: str = ""
    caveat: str = ""

    @property
    def total(self) -> CheckedModule | None:
        """The whole run; None where the counter could not count."""
        return self.modules.get("")

    @property
    def unexplained(self) -> int:
        """The FLOPs, of whichever module has most of them, that no cause accounts for: 0 when all is explained."""
        return max((abs(m.of_kind("unexplained")) for m in self.modules.values()), default=0)
