"""The building blocks of closed forms: a forward pass written in symbols, from which the backward follows.

A :class:`Tape` is to a closed form what autograd is to a run: each block notes its forward, the gradients that
somebody asks for, what has to be kept for them, and what all of it moves. A mechanism is a few calls of blocks.
"""

from __future__ import annotations

from sympy import Expr, Integer

from attnprof.analytic.arithmetic import ACTIVATIONS, PRECISE
from attnprof.analytic.movement import BOOL, INT64, Movement
from attnprof.analytic.recording import Tensor
from attnprof.analytic.symbols import e

__all__ = ["ACTIVATIONS", "BOOL", "INT64", "PRECISE", "Tape", "Tensor"]


class Tape(Movement):
    """A recording with all blocks: those of :class:`Arithmetic` and :class:`Movement`, and contractions."""

    def child(self) -> Tape:
        """An empty tape with the same weights frozen."""
        return Tape(self.frozen, self.input_grad)

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
        stored: Expr | None = None,
    ) -> Tensor:
        """A contraction of a and b. Its gradient in each factor is a contraction over the same indices.

        The gradient of one factor needs the other one, and is as large as it. ``factors``: what to call them, if not
        by their names. ``stored``: how many numbers of a there are to read, where that is fewer than it has.
        """
        self.keep(*([b] if a.needs_grad else []), *([a] if b.needs_grad else []))
        of_weights = a.is_weight or b.is_weight
        made = self.tensor(out, elements, a.needs_grad or b.needs_grad)
        read = (a if stored is None else self.tensor(a.name, stored, False, a.item_bytes)), b
        useful = None if useful == flops else useful
        self.note(name, "matmul_flops", flops, useful=useful, of_weights=of_weights)
        self.kernel(name, read, elements)
        for factor, other, called in zip((a, b), (b, read[0]), factors or (a.name, b.name), strict=True):
            if factor.needs_grad:
                back = f"{name}.d{called.replace(' ', '_')}"
                self.note(back, "matmul_flops", flops, "backward", useful, of_weights)
                self.kernel(back, (made, other), factor.elements, phase="backward")
        self.arrive(a)
        self.arrive(b)
        return made

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
        """Y = X W (+ b) on so many rows: 2 rows n_in n_out; as much for each of dX and dW.

        The bias is added in the same kernel; its gradient is a sum over rows.
        """
        whole = self.weight(name, n_in * n_out + (n_out if bias else 0), trained)
        weight = whole
        if bias:
            weight = self.tensor("W", n_in * n_out, whole.needs_grad, is_state=True, is_weight=True)
        made = out or f"{name} output"
        y = self.product(name, x, weight, 2 * rows * n_in * n_out, made, rows * n_out, factors=("X", "W"))
        if bias:
            self.moved(f"{name}.bias", n_out * e, Integer(0), flops=rows * n_out)
        if bias and whole.needs_grad:
            self.kernel(f"{name}.dbias", [y], n_out, (rows - 1) * n_out, "backward")
        return y

    def fused_attention(
        self, q: Tensor, k: Tensor, v: Tensor, flops: Expr, rows: Expr, useful: Expr | None = None
    ) -> Tensor:
        """softmax(q kᵀ) v in one kernel; ``flops`` is one product's, ``rows`` the queries of all heads.

        Two products forward. The backward does four if any gradient is asked for, after it has computed the scores
        again from the logsumexp that was kept.

        Per query of S keys: the scale S, the softmax 5 S - 2 and its logsumexp 2. Again: scale, subtraction and exp
        3 S. Backward: dO · O 2 dh - 1, and dS = P (dP - dO · O) times the scale 3 S. It reads q, k, v, the output and
        its gradient and the logsumexp, and writes three gradients.
        """
        needs_grad = q.needs_grad or k.needs_grad or v.needs_grad
        out = self.tensor("weighted sum", q.elements, needs_grad)
        logsumexp = self.tensor("logsumexp", rows, False, PRECISE)
        for name in ("scores", "weighted_sum"):
            self.note(name, "matmul_flops", flops, useful=useful)
        width = q.elements / rows
        pairs = flops / (2 * width)
        self.kernel("attention", (q, k, v), q.elements, 6 * pairs)
        self.note("logsumexp", "write_bytes", rows * PRECISE)
        if needs_grad:
            for name in ("weighted_sum.dv", "weighted_sum.dprobabilities", "scores.dq", "scores.dk"):
                self.note(name, "matmul_flops", flops, "backward", useful)
            self.note("scores", "matmul_flops", flops, "recompute", useful)
            self.note("scores", "vector_flops", 3 * pairs, "recompute")
            written = q.elements + k.elements + v.elements
            work = 3 * pairs + rows * (2 * width - 1)
            self.kernel("attention", (q, k, v, out, out, logsumexp), written, work, "backward")
            self.keep(q, k, v, out, logsumexp)
            for x in (q, k, v):
                self.arrive(x)
        return out
