"""What theory says of a recorded module: its closed form at every kind of call, as numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from attnprof.analytic.binding import Binding, Given, Recorded, binding
from attnprof.analytic.prediction import Phase, Prediction, Quantity
from attnprof.analytic.text import plain
from attnprof.core.comparison import TermValue
from attnprof.core.errors import AttnprofError
from attnprof.core.trace import Call

#: The phases that are compared. What an optimizer does is no module's.
PHASES: tuple[Phase, ...] = ("forward", "backward", "recompute")


@dataclass
class Theory:
    """A closed form at the recorded calls of a module.

    ``own``: of the module's own ops alone, not of the modules in it. ``terms``: matmul FLOPs by phase, calls summed.
    ``missing``: phases that cannot be predicted, with the reason. ``once``: totals of one call, for what is kept and
    not done: parameters, bytes saved by the largest call. ``vector_flops``: of the forward, calls summed; None where
    there is no closed form.
    """

    formula: str
    own: bool = False
    terms: dict[Phase, tuple[TermValue, ...]] = field(default_factory=dict)
    missing: dict[Phase, str] = field(default_factory=dict)
    once: dict[Quantity, int] = field(default_factory=dict)
    vector_flops: int | None = 0

    def total(self, phase: Phase) -> int:
        """Matmul FLOPs of a phase."""
        return sum(term.value for term in self.terms.get(phase, ()))


def theory(module: Recorded) -> Theory | None:
    """What theory says of a module; None where its class has no formula, or it was not called."""
    bound = binding(module.home, module.class_name)
    if bound is None or not module.calls:
        return None
    found = Theory("", bound.own)
    sums: dict[tuple[Phase, str], TermValue] = {}
    for call, times in module.calls.items():
        if not call.returned:
            _without_end(found, call)
            continue
        given = Given.of(call)
        if given.inputs and 0 in given.inputs[0].shape:  # nothing to do, as for an expert that no token chose
            found.formula = found.formula or module.class_name
            continue
        try:
            prediction = _written(bound, module, given)
            if prediction is None:
                return None
            found.formula = found.formula or prediction.name
            for phase, made in _phases(call):
                for term in _terms(prediction, made, times):
                    before = sums.get((phase, term.name))
                    value = term.value + (before.value if before else 0)
                    sums[phase, term.name] = TermValue(term.name, value, term.expression)
            _once(found, prediction)
            if not call.recomputed:
                _add_vector(found, prediction, times)
        except AttnprofError as error:
            for phase in PHASES:
                found.missing.setdefault(phase, str(error).rstrip("."))
    for phase in PHASES:
        found.terms[phase] = tuple(term for (where, _), term in sums.items() if where == phase)
    return found


def _written(bound: Binding, module: Recorded, given: Given) -> Prediction | None:
    """What the formula of a class says of a call; raises TypeError for a user's that gives something else."""
    prediction = bound.write(module, given)
    if prediction is not None and not isinstance(prediction, Prediction):
        raise TypeError(
            f"the function that predicts {module.home}.{module.class_name} must give a Prediction or None, "
            f"not a {type(prediction).__name__}."
        )
    return prediction


def _without_end(found: Theory, call: Call) -> None:
    """A recomputation stops when it has all that was saved; any other call raised."""
    if call.recomputed:
        found.missing.setdefault("recompute", "its recomputation stopped as soon as all that was saved was there")
        return
    for phase in PHASES:
        found.missing.setdefault(phase, "a call of it raised an exception")


def _phases(call: Call) -> list[tuple[Phase, Phase]]:
    """The phases a call adds to, each with the phase of the formula that it adds."""
    found: list[tuple[Phase, Phase]] = [("recompute" if call.recomputed else "forward", "forward")]
    if call.backward:
        found += [("backward", "backward"), ("recompute", "recompute")]
    return found


def _terms(prediction: Prediction, phase: Phase, times: int) -> list[TermValue]:
    return [
        TermValue(term.name, times * prediction.value(term.expression), plain(term.expression))
        for term in prediction.terms
        if term.quantity == "matmul_flops" and term.phase == phase
    ]


def _add_vector(found: Theory, prediction: Prediction, times: int) -> None:
    if prediction.work("vector", "forward") is None or found.vector_flops is None:
        found.vector_flops = None
    else:
        found.vector_flops += times * prediction.evaluate("vector_flops", "forward")


def _once(found: Theory, prediction: Prediction) -> None:
    """Parameters, and the bytes that the call which saves most keeps."""
    kept: tuple[Quantity, ...] = ("parameters", "trainable_parameters", "saved_bytes")
    for quantity in kept:
        if quantity in prediction.quantities:
            found.once[quantity] = max(found.once.get(quantity, 0), prediction.evaluate(quantity))
