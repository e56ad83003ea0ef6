"""A recovered formula beside the closed form of the same mechanism: are they the same expression?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy
from sympy import Expr, S

from attnprof import analytic
from attnprof.analytic.prediction import Phase as TheoryPhase
from attnprof.analytic.prediction import Prediction
from attnprof.analytic.prediction import Quantity as TheoryQuantity
from attnprof.analytic.text import plain
from attnprof.core.errors import AttnprofError
from attnprof.recovery.outcome import Formula
from attnprof.recovery.scaling import Scaling

#: Closed forms that come to a quantity.
_SUMS: Mapping[str, tuple[TheoryQuantity, ...]] = {
    "flops": ("matmul_flops", "vector_flops"),
    "matmul": ("matmul_flops",),
    "vector": ("vector_flops",),
    "bytes": ("read_bytes", "write_bytes"),
    "saved": ("saved_bytes",),
}
#: The phases of a run that a phase of a scaling is the sum of.
PHASES: Mapping[str, tuple[TheoryPhase, ...]] = {
    "forward": ("forward",),
    "backward": ("backward",),
    "recompute": ("recompute",),
    "all": ("forward", "backward", "recompute"),
}


@dataclass(frozen=True, slots=True)
class Theory:
    """The closed form of a mechanism, ``name`` in :func:`attnprof.predict`, or of a model of known modules, its class.

    ``equal``: it is the measured formula, symbol by symbol; or only at every counted size, which ``symbolic`` says.
    ``difference`` is measured - closed form.
    """

    name: str
    formula: str
    equal: bool
    symbolic: bool
    difference: str = ""

    @property
    def source(self) -> str:
        """Who says so, in words."""
        known = self.name in analytic.names()
        return f"`attnprof predict {self.name}`" if known else f"theory of the modules of {self.name}"


def theory(scaling: Scaling, name: str, values: Mapping[str, Any]) -> Theory | None:
    """The closed form beside what was measured, or None where there is none.

    ``values`` are the symbols that did not vary, with their sizes and options.
    """
    if not isinstance(scaling.outcome, Formula) or name not in analytic.names() or scaling.quantity not in _SUMS:
        return None
    entry = analytic.find(name)
    takes = {*entry.sizes, *entry.optional, *entry.options}
    given = {s: v for s, v in values.items() if s in takes and v is not None and s not in scaling.symbols}
    try:
        prediction = analytic.predict(name, **given)
    except AttnprofError:
        return None  # theory has no such variant
    closed = _total(prediction, scaling)
    if closed is None or {s.name for s in closed.free_symbols} - set(scaling.symbols):
        return None
    difference = sympy.simplify(sympy.expand(scaling.expression - closed))
    symbolic = difference == 0
    equal = symbolic or all(
        closed.xreplace({s: sympy.Integer(p.sizes[s.name]) for s in closed.free_symbols}) == p.count
        for p in scaling.points
    )
    return Theory(name, plain(closed), equal, symbolic, "" if symbolic else plain(difference))


def _total(prediction: Prediction, scaling: Scaling) -> Expr | None:
    total = S.Zero
    for quantity in _SUMS[scaling.quantity]:
        if quantity == "saved_bytes":
            total += prediction.total(quantity, "forward")
            continue
        kind = {"matmul_flops": None, "vector_flops": "vector"}.get(quantity, "traffic")
        for phase in PHASES[scaling.phase]:
            if kind is not None and prediction.work(kind, phase) is None:  # type: ignore[arg-type]  # both are kinds
                return None
            total += prediction.total(quantity, phase)
    return sympy.expand(_put(total, prediction))


def _put(expression: Expr, prediction: Prediction) -> Expr:
    """The expression with the sizes that were given."""
    known = {
        s: sympy.Integer(value)
        for s in expression.free_symbols
        if isinstance(value := prediction.values.get(s.name), int)
    }
    return expression.xreplace(known)
