"""What follows from the closed form of a model: the states of training it, and how good the rule of 2 N is."""

from __future__ import annotations

from sympy import Expr, Integer

from attnprof.analytic.prediction import KINDS, PHASES, Phase, Prediction, Quantity, Term
from attnprof.analytic.symbols import e
from attnprof.core.sizes import one_of

#: Bytes of a weight, its gradient, and what Adam keeps of it (two moments; in mixed precision a float32 copy more).
_STATES: dict[str, tuple[Expr, Expr, Expr]] = {
    "uniform": (e, e, 2 * e),
    "amp": (Integer(2), Integer(2), Integer(4 + 8)),
}
#: How numbers may be kept in training.
PRECISIONS = tuple(_STATES)


def adam_states(prediction: Prediction, precision: str = "uniform") -> Prediction:
    """Bytes of parameters, gradients and Adam's state; a frozen weight has only itself.

    ``uniform``: all in e bytes, e (all + 3 trainable); torch's step counters, one number per tensor, are left out.
    ``amp``: mixed precision, 2 + 2 + 4 + 8 = 16 bytes per trainable parameter and 2 per frozen one.
    """
    one_of(PRECISIONS, precision=precision)
    weight, gradient, state = _STATES[precision]
    every, trained = prediction.total("parameters"), prediction.total("trainable_parameters")
    rows: tuple[tuple[str, Phase, Quantity, Expr], ...] = (
        ("weights", "forward", "parameter_bytes", weight * every),
        ("gradients", "backward", "gradient_bytes", gradient * trained),
        (
            "moments" if precision == "uniform" else "moments and copies",
            "optimizer",
            "optimizer_bytes",
            state * trained,
        ),
    )
    terms = tuple(Term(name, phase, quantity, expression) for name, phase, quantity, expression in rows)
    nothing = frozenset((kind, phase) for kind in KINDS for phase in PHASES)  # states are held, no work
    return Prediction(f"Adam on {prediction.name}", terms, prediction.values, nothing)


def two_n_rule(prediction: Prediction) -> Prediction:
    """The forward in two terms: the products with weights, 2 W per token for W weights, and all that the rule misses.

    The first is exact for every weight that meets each token once: a rule that counts parameters also counts
    embeddings, which are looked up, not multiplied, and counts tied ones once for both uses.
    """
    forward = [t for t in prediction.terms if (t.quantity, t.phase) == ("matmul_flops", "forward")]
    terms = []
    for name, of_weights in (("2 W per token", True), ("missed", False)):
        found = sum((t.expression for t in forward if t.of_weights is of_weights), Integer(0))
        terms.append(Term(name, "forward", "matmul_flops", found.expand(), of_weights=of_weights))
    return Prediction(f"2N rule of {prediction.name}", tuple(terms), prediction.values)
