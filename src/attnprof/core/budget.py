"""Budgets as values: how much of what a piece of work may cost, and what it is when it cost more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attnprof.core import amounts
from attnprof.core.errors import AttnprofError, closest

#: What can be limited, and the unit that its limit is written in.
UNITS = {"flops": "flops", "bytes": "bytes", "memory_bytes": "bytes", "unpriced": "count"}
PHASES = ("forward", "backward", "recompute", "optimizer", "other")
#: Memory: the most that was live at once, or what autograd kept for the backward.
KINDS = ("peak", "saved")


class BudgetError(AttnprofError, AssertionError):
    """Something cost more than its budget, or other than what was locked. A failed assertion to test frameworks.

    The first line of the message is the verdict; ``details`` are more lines for a reader who asks for them.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True, slots=True)
class Budget:
    """At most ``limit`` of a quantity, in a phase (None: all) and in the modules that match a pattern (None: all).

    ``quantity``: ``flops`` (matmul and vector), ``bytes`` (traffic, read and written), ``memory_bytes`` (of a
    ``kind``, peak or saved) or ``unpriced`` (op calls without a formula). ``module`` is a dotted name, in which
    ``*`` stands for anything and ``[0-11]`` for numbers; the budget is for all modules that match, together.
    """

    quantity: str
    limit: int
    phase: str | None = None
    module: str | None = None
    kind: str | None = None

    @classmethod
    def of(
        cls,
        quantity: str,
        limit: str | int,
        *,
        phase: str | None = None,
        module: str | None = None,
        kind: str | None = None,
    ) -> Budget:
        """A budget of a limit as people write it; raises :class:`AttnprofError` for one that means nothing."""
        amount = amounts.read(limit, UNITS[quantity])
        for what, word, known in (("phase", phase, PHASES), ("kind", kind, KINDS)):
            if word is not None and word not in known:
                raise AttnprofError(f"{what} {word!r} is not one of {', '.join(known)}.{closest(str(word), known)}")
        if module is not None and (not isinstance(module, str) or not module):
            raise AttnprofError(f'module {module!r} is no name of modules: write one such as "encoder.*".')
        if quantity == "memory_bytes":
            kind = kind or "peak"
            if phase is not None:
                raise AttnprofError("memory is a state of the whole run: leave out phase.")
            if module is not None and kind == "peak":
                raise AttnprofError('the peak is of the whole run: leave out module, or limit kind="saved".')
        elif kind is not None:
            raise AttnprofError("kind (peak or saved) is for limits of memory only.")
        if quantity == "unpriced" and (phase is not None or module is not None):
            raise AttnprofError("what has no price is counted in the whole run: leave out phase and module.")
        return cls(quantity, amount, phase, module, kind)


@dataclass(frozen=True, slots=True)
class Part:
    """What one module itself, without those in it, has of the quantity, and its dearest op."""

    module: str
    amount: int
    op: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A budget and what was measured; ``parts`` are the modules it went to, the largest first."""

    budget: Budget
    measured: int
    parts: tuple[Part, ...] = ()
    lower_bound: bool = False  # some op has no price

    @property
    def excess(self) -> int:
        return self.measured - self.budget.limit

    @property
    def holds(self) -> bool:
        return self.excess <= 0


def budgets(
    *, phase: str | None = None, module: str | None = None, kind: str | None = None, **limits: Any
) -> tuple[Budget, ...]:
    """The budgets of keyword arguments, a limit for each quantity named: ``budgets(flops="4.2 GFLOP", unpriced=0)``.

    ``phase`` and ``module`` restrict all of them, ``kind`` that of memory.
    """
    given = {quantity: limit for quantity, limit in limits.items() if limit is not None}
    if not given:
        raise AttnprofError(f'a budget needs a limit: one of {", ".join(UNITS)}, such as flops="4.2 GFLOP".')
    if kind is not None and "memory_bytes" not in given:
        raise AttnprofError("kind (peak or saved) is for limits of memory only: give memory_bytes.")
    return tuple(
        Budget.of(quantity, limit, phase=phase, module=module, kind=kind if quantity == "memory_bytes" else None)
        for quantity, limit in given.items()
    )
