"""What theory says of a recorded module: its closed form at every kind of call, as numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from attnprof.analytic.binding import Binding, Given, Recorded, UnpredictableError, binding
from attnprof.analytic.prediction import KINDS, Phase, Prediction, Quantity
from attnprof.analytic.text import plain
from attnprof.core.comparison import TermValue
from attnprof.core.errors import AttnprofError
from attnprof.core.trace import SPREAD, Call

#: The phases that are compared. What an optimizer does is no module's.
PHASES: tuple[Phase, ...] = ("forward", "backward", "recompute")
_STOPPED = "its recomputation stopped as soon as all that was saved was there"
Terms = tuple[TermValue, ...]


@dataclass
class Theory:
    """A closed form at the recorded calls of a module.

    ``own``: of the module's own ops alone, not of the modules in it. ``terms``: matmul FLOPs by phase, calls summed.
    ``missing``: phases that cannot be predicted, with the reason. ``once``: totals of one call, for what is kept and
    not done: parameters, bytes saved by the largest call. ``work``: vector FLOPs, bytes read and bytes written, by
    phase, calls summed; not there for what has no closed form.
    """

    formula: str
    own: bool = False
    terms: dict[Phase, Terms] = field(default_factory=dict)
    missing: dict[Phase, str] = field(default_factory=dict)
    once: dict[Quantity, int] = field(default_factory=dict)
    work: dict[tuple[Quantity, Phase], Terms] = field(default_factory=dict)

    def total(self, phase: Phase) -> int:
        """Matmul FLOPs of a phase."""
        return sum(term.value for term in self.terms.get(phase, ()))

    def done(self, quantity: Quantity, phase: Phase) -> int | None:
        """Vector FLOPs, bytes read or bytes written of a phase; None where there is no closed form."""
        terms = self.work.get((quantity, phase))
        return None if terms is None else sum(term.value for term in terms)


def theory(module: Recorded) -> Theory | None:
    """What theory says of a module; None where its class has no formula, or it was not called."""
    bound = binding(module.home, module.class_name)
    if bound is None or not module.calls:
        return None
    found = Theory("", bound.own)
    sums: dict[tuple[Quantity, Phase], dict[str, TermValue]] = {}
    unknown: set[tuple[Quantity, Phase]] = set()
    for call, times in module.calls.items():
        if not call.returned and not call.recomputed:
            for phase in PHASES:
                found.missing.setdefault(phase, "a call of it raised an exception")
            continue
        given = Given.of(call) if call.returned else _stopped(bound, module, call)
        if given is None:
            found.missing.setdefault("recompute", _STOPPED)
            continue
        if given.inputs and 0 in given.inputs[0].shape:  # nothing to do, as for an expert that no token chose
            found.formula = found.formula or module.class_name
            continue
        try:
            prediction = _written(bound, module, given)
            if prediction is None:
                return None
            if not call.returned:
                prediction = prediction.of("matmul")
            found.formula = found.formula or prediction.name
            for phase, made in _phases(call):
                _add(sums, unknown, prediction, made, phase, times)
            _once(found, prediction)
        except AttnprofError as error:
            for phase in PHASES if call.returned else PHASES[2:]:
                found.missing.setdefault(phase, str(error).rstrip("."))
    for phase in PHASES:
        found.terms[phase] = tuple(sums.get(("matmul_flops", phase), {}).values())
    for (quantity, phase), terms in sums.items():
        if quantity != "matmul_flops" and (quantity, phase) not in unknown and phase not in found.missing:
            found.work[quantity, phase] = tuple(terms.values())
    return found


def _written(bound: Binding, module: Recorded, given: Given) -> Prediction | None:
    """What the formula of a class says of a call.

    Raises :class:`AttnprofError` for a part of a layer, for complex numbers, which a product takes four real ones of,
    and where a user's fails, whatever with: what was measured is there all the same. With real weights it is the
    products that are real; complex inputs beside them are angles of positions, which only elementwise operations turn
    by.
    """
    if any(SPREAD in told for told in (module.hyperparameters, *module.parts.values())):
        raise UnpredictableError("its weights are spread over ranks, and this one computed with a part of them")
    multiplied = tuple(module.parameters.values()) or given.inputs
    if not bound.users and any(tensor.dtype.startswith("complex") for tensor in multiplied):
        raise UnpredictableError("closed forms are of real numbers, and it has complex ones")
    try:
        prediction = bound.write(module, given)
    except AttnprofError:
        raise
    except Exception as error:
        if not bound.users:
            raise
        raise AttnprofError(f"{_whose(bound)} raised {type(error).__name__}: {error}") from error
    if prediction is not None and not isinstance(prediction, Prediction):
        raise AttnprofError(f"{_whose(bound)} must give a Prediction or None, not a {type(prediction).__name__}.")
    return prediction


def _whose(bound: Binding) -> str:
    """The function that a user wrote, and where."""
    code = getattr(bound.write, "__code__", None)
    where = f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else ""
    return f"its formula {getattr(bound.write, '__name__', repr(bound.write))}{where}"


def _stopped(bound: Binding, module: Recorded, call: Call) -> Given | None:
    """A call that a checkpoint repeated until all that was saved was there again; None where nobody knows how far.

    What it was given is that of the call which it repeats. Where it stopped in a module inside, which comes after the
    module's own ops, these have run.
    """
    if not bound.stops:
        return None
    first = {
        (kind.tensors, kind.gradients): kind
        for kind in module.calls
        if kind.returned and not kind.recomputed and kind.tensors[: len(call.tensors)] == call.tensors
    }
    if len(first) != 1:
        return None
    given = Given.of(next(iter(first.values())))
    return given if bound.own and module.stopped else replace(given, stopped=True)


def _phases(call: Call) -> list[tuple[Phase, Phase]]:
    """The phases a call adds to, each with the phase of the formula that it adds."""
    found: list[tuple[Phase, Phase]] = [("recompute" if call.recomputed else "forward", "forward")]
    if call.backward:
        found += [("backward", "backward"), ("recompute", "recompute")]
    return found


def _add(
    sums: dict[tuple[Quantity, Phase], dict[str, TermValue]],
    unknown: set[tuple[Quantity, Phase]],
    prediction: Prediction,
    made: Phase,
    phase: Phase,
    times: int,
) -> None:
    """Add what the formula has for a phase, ``made``, to the phase that it is done in."""
    for kind, quantities in KINDS.items():
        terms = prediction.work(kind, made)
        for quantity in quantities:
            if terms is None:
                unknown.add((quantity, phase))
                continue
            found = sums.setdefault((quantity, phase), {})
            for term in terms:
                if term.quantity == quantity:
                    before = found.get(term.name)
                    value = times * prediction.value(term.expression) + (before.value if before else 0)
                    found[term.name] = TermValue(term.name, value, plain(term.expression))


def _once(found: Theory, prediction: Prediction) -> None:
    """Parameters, and the bytes that the call which saves most keeps."""
    kept: tuple[Quantity, ...] = ("parameters", "trainable_parameters", "saved_bytes")
    for quantity in kept:
        if quantity in prediction.quantities:
            found.once[quantity] = max(found.once.get(quantity, 0), prediction.evaluate(quantity))
