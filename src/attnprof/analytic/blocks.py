"""The building blocks of closed forms: a forward pass written in symbols, from which the backward follows.

A :class:`Tape` is to a closed form what autograd is to a run: each block notes its forward, the gradients that
somebody asks for, and what has to be kept for them. A mechanism is a few calls of blocks.
"""

from __future__ import annotations

from collections.abc import Collection

from sympy import Expr, Integer, Max, Piecewise, true
from sympy.logic.boolalg import Boolean

from attnprof.analytic.prediction import Quantity
from attnprof.analytic.recording import Recording, Tensor
from attnprof.analytic.symbols import e

__all__ = ["ACTIVATIONS", "BOOL", "INT64", "PRECISE", "Tape", "Tensor"]

#: Bytes per element of what is float32 or, in float64 runs, float64: a logsumexp.
PRECISE = Max(4, e)
#: Bytes per element of masks and of positions.
BOOL, INT64 = Integer(1), Integer(8)
#: Activation -> FLOPs per element by its definition. relu: max; gelu: x/2 (1 + erf(k x)); silu: x / (1 + exp(-x));
#: elu: a comparison and expm1. What a backward works from is the input, but for relu, which its result serves.
ACTIVATIONS = {"relu": 1, "gelu": 5, "silu": 4, "elu": 2}


class Tape(Recording):
    """A recording with the blocks that write on it."""

    def child(self) -> Tape:
        """An empty tape with the same weights frozen."""
        return Tape(self.frozen, self.input_grad)

    # Contractions

    def product(
        self,
        name: str,
        a: Tensor,
        b: Tensor,
        flops: Expr,
        out: str,
        elements: Expr,
        useful: Expr | None = None,
        factors: tuple[str, str] | None = None,
    ) -> Tensor:
        """A contraction of a and b. Its gradient in each factor is a contraction over the same indices.

        The gradient of one factor needs the other one. ``factors``: what to call them, if not by their names.
        """
        self.keep(*([b] if a.needs_grad else []), *([a] if b.needs_grad else []))
        of_weights = a.is_weight or b.is_weight
        self.note(name, "matmul_flops", flops, useful=useful, of_weights=of_weights)
        self.traffic(name, (a, b), elements)
        for factor, called in zip((a, b), factors or (a.name, b.name), strict=True):
            if factor.needs_grad:
                self.note(f"{name}.d{called.replace(' ', '_')}", "matmul_flops", flops, "backward", useful, of_weights)
        return self.tensor(out, elements, a.needs_grad or b.needs_grad)

    def linear(
        self,
        name: str,
        x: Tensor,
        rows: Expr,
        n_in: Expr,
        n_out: Expr,
        out: str | None = None,
        bias: bool = False,
        trained: bool = True,
    ) -> Tensor:
        """Y = X W (+ b) on so many rows: 2 rows n_in n_out; as much for each of dX and dW."""
        weight = self.weight(name, n_in * n_out + (n_out if bias else 0), trained)
        if bias:
            self.note(f"{name}.bias", "vector_flops", rows * n_out)
        flops, made = 2 * rows * n_in * n_out, out or f"{name} output"
        return self.product(name, x, weight, flops, made, rows * n_out, factors=("X", "W"))

    def fused_attention(
        self, q: Tensor, k: Tensor, v: Tensor, flops: Expr, rows: Expr, useful: Expr | None = None
    ) -> Tensor:
        """softmax(q kᵀ) v in one kernel; ``flops`` is one product's, ``rows`` the queries of all heads.

        Two products forward. The backward does four if any gradient is asked for, after it has computed the scores
        again from the logsumexp that was kept.
        """
        needs_grad = q.needs_grad or k.needs_grad or v.needs_grad
        out = self.tensor("weighted sum", q.elements, needs_grad)
        for name in ("scores", "weighted_sum"):
            self.note(name, "matmul_flops", flops, useful=useful)
        self.traffic("attention", (q, k, v), q.elements)
        self.note("logsumexp", "write_bytes", rows * PRECISE)
        if needs_grad:
            for name in ("weighted_sum.dv", "weighted_sum.dprobabilities", "scores.dq", "scores.dk"):
                self.note(name, "matmul_flops", flops, "backward", useful)
            self.note("scores", "matmul_flops", flops, "recompute", useful)
            self.keep(q, k, v, out, self.tensor("logsumexp", rows, False, PRECISE))
        return out

    # Arithmetic per element

    def elementwise(
        self,
        name: str,
        *inputs: Tensor,
        out: str,
        flops: Expr | int = 1,
        elements: Expr | None = None,
        keep: Collection[Tensor] = (),
        keep_output: bool = False,
    ) -> Tensor:
        """``flops`` per element of the result; what the backward needs is kept if there is one."""
        count = inputs[0].elements if elements is None else elements
        made = self.tensor(out, count, any(x.needs_grad for x in inputs))
        self.note(name, "vector_flops", flops * count)
        self.traffic(name, inputs, count)
        if made.needs_grad:
            self.keep(*keep, *([made] if keep_output else []))
        return made

    def scale(self, x: Tensor, name: str = "scale") -> Tensor:
        """Times a constant: nothing to keep."""
        return self.elementwise(name, x, out=f"{x.name} scaled")

    def softmax(self, x: Tensor, rows: Expr, name: str = "softmax", out: str = "probabilities") -> Tensor:
        """Rows of S: max S - 1, x - max S, exp S, sum S - 1, division S: 5 S - 2 each. The result is kept."""
        made = self.tensor(out, x.elements, x.needs_grad)
        self.note(name, "vector_flops", 5 * x.elements - 2 * rows)
        self.traffic(name, (x,), x.elements)
        if made.needs_grad:
            self.keep(made)
        return made

    def activation(self, x: Tensor, kind: str, out: str | None = None) -> Tensor:
        """relu, gelu, silu or elu."""
        name = out or f"{kind}({x.name})"
        if kind == "relu":
            return self.elementwise(kind, x, out=name, flops=ACTIVATIONS[kind], keep_output=True)
        return self.elementwise(kind, x, out=name, flops=ACTIVATIONS[kind], keep=[x])

    def multiply(self, a: Tensor, b: Tensor, out: str, name: str = "multiply", elements: Expr | None = None) -> Tensor:
        """a * b per element: each factor's gradient needs the other."""
        kept = [other for factor, other in ((a, b), (b, a)) if factor.needs_grad]
        return self.elementwise(name, a, b, out=out, elements=elements, keep=kept)

    def divide(self, a: Tensor, b: Tensor, out: str, name: str = "divide", elements: Expr | None = None) -> Tensor:
        """a / b, b spread over rows of a: both gradients need b, that of b a as well."""
        kept = ([b] if a.needs_grad or b.needs_grad else []) + ([a] if b.needs_grad else [])
        return self.elementwise(name, a, b, out=out, elements=elements, keep=kept)

    def add(self, a: Tensor, b: Tensor, out: str, name: str = "residual") -> Tensor:
        """a + b: nothing to keep."""
        return self.elementwise(name, a, b, out=out)

    def rms_norm(self, x: Tensor, rows: Expr, d: Expr, name: str, out: str) -> Tensor:
        """RMSNorm over rows of d, with weight, op by op: x, 1 / rms and, for the weight, x / rms are kept.

        It computes in float32 at least: of a narrower x, a wider copy of the rows is kept in its place.
        """
        weight = self.weight(name, d)
        if x.needs_grad:
            wide = Piecewise((rows * d, e < 4), (x.elements, True)) if x.elements != rows * d else x.elements
            self.keep(self.tensor(x.name, wide, False, PRECISE), self.tensor(f"{name} scales", rows, False, PRECISE))
        if weight.needs_grad:
            self.keep(self.tensor(f"{name} before its weight", rows * d, False, PRECISE))
        self.missing |= {("vector", "forward"), ("traffic", "forward")}
        return self.tensor(out, rows * d, x.needs_grad or weight.needs_grad)

    def layer_norm(self, x: Tensor, rows: Expr, d: Expr, name: str, out: str) -> Tensor:
        """LayerNorm over rows of d, with weight and bias: 5 d + 2 per row and 2 d; x, mean and 1 / std are kept."""
        weight = self.weight(name, 2 * d)
        self.note(name, "vector_flops", 7 * rows * d + 2 * rows)
        self.traffic(name, (x, weight), rows * d + 2 * rows)
        made = self.tensor(out, rows * d, x.needs_grad or weight.needs_grad)
        if made.needs_grad:
            self.keep(x, self.tensor(f"{name} statistics", 2 * rows, False))
        return made

    # What moves and computes nothing

    def copy(self, x: Tensor, out: str | None = None, elements: Expr | None = None, only_if: Boolean = true) -> Tensor:
        """A copy in another layout, padded, repeated or gathered: nothing to keep.

        ``only_if``: sizes for which it is a view instead, of as many elements, move nothing.
        """
        made = self.tensor(out or x.name, x.elements if elements is None else elements, x.needs_grad, x.item_bytes)
        moved: tuple[tuple[Quantity, Expr], ...] = ("read_bytes", x.elements), ("write_bytes", made.elements)
        for quantity, elements in moved:
            moving = elements * x.item_bytes
            self.note(f"copy of {x.name}", quantity, Piecewise((moving, only_if), (0, True)))
        return made
