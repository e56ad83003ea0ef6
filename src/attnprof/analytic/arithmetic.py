"""Arithmetic per element on a tape: what it costs forward and backward, what it moves, what it keeps.

Every block is one kernel forward, or a stated few. Its backward is the kernels that autograd runs for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from sympy import Expr, Integer, Max, Piecewise

from attnprof.analytic.recording import Recording, Tensor
from attnprof.analytic.symbols import e

#: Bytes per element of what is float32 or, in float64 runs, float64: a logsumexp.
PRECISE = Max(4, e)
#: Activation -> FLOPs per element by its definition, and of its backward. What a backward works from is the input,
#: but for relu, which its result serves; g is the gradient that comes in.
#: relu: max; a comparison. gelu: x/2 (1 + erf(k x)); g (cdf + x pdf) with cdf = (1 + erf(k x)) / 2 and
#: pdf = c exp(-x² / 2), 3 + 4 + 4. silu: x / (1 + exp(-x)); g s (1 + x (1 - s)) with s = 1 / (1 + exp(-x)), 5 + 4.
#: elu: a comparison and expm1; a comparison, exp and g. sigmoid: 1 / (1 + exp(-x)); g (1 - y) y. exp: g y.
ACTIVATIONS = {"relu": (1, 1), "gelu": (5, 11), "silu": (4, 9), "elu": (2, 3), "sigmoid": (4, 3), "exp": (1, 1)}
_FROM_RESULT = ("relu", "sigmoid", "exp")

#: A kernel of a backward that makes one number per element: its FLOPs for each, and what it reads.
Kernel = tuple[int, Sequence[Tensor]]
#: Of the gradient that comes in, the kernels for each input; none where the gradient is passed on as it is.
Backward = Callable[[Tensor], Sequence[Sequence[Kernel]]]


class Arithmetic(Recording):
    """A recording with blocks that compute one number per element, and sums of them."""

    def elementwise(
        self,
        name: str,
        *inputs: Tensor,
        out: str,
        flops: Expr | int = 1,
        back: Backward = lambda g: ((), ()),
        elements: Expr | None = None,
        keep: Collection[Tensor] = (),
        keep_output: bool = False,
    ) -> Tensor:
        """``flops`` per element of the result; what the backward needs is kept if there is one.

        An input that is smaller than the result was spread over the others: its gradient is a sum.
        """
        count = inputs[0].elements if elements is None else elements
        made = self.tensor(out, count, any(x.needs_grad for x in inputs))
        if made.needs_grad:
            self.keep(*keep)
        self.kernel(name, inputs, count, flops * count)
        if made.needs_grad and keep_output:
            self.keep(made)
        for x, kernels in zip(inputs, back(made), strict=False):
            if x.needs_grad:
                called = f"{name}.d{x.name.replace(' ', '_')}"
                for each, read in kernels:
                    self.kernel(called, read, count, each * count, "backward")
                if count != x.elements:
                    self.kernel(called, [made], x.elements, count - x.elements, "backward")
                self.arrive(x)
        return made

    def scale(self, x: Tensor, name: str = "scale") -> Tensor:
        """Times a constant: nothing to keep."""
        return self.elementwise(name, x, out=f"{x.name} scaled", back=lambda g: ([(1, [g])],))

    def activation(self, x: Tensor, kind: str, out: str | None = None) -> Tensor:
        """One of ``ACTIVATIONS``."""
        name, (flops, back) = out or f"{kind}({x.name})", ACTIVATIONS[kind]
        keep = () if kind in _FROM_RESULT else [x]
        return self.elementwise(
            kind, x, out=name, flops=flops, back=lambda g: ([(back, [g, x])],), keep=keep, keep_output=not keep
        )

    def multiply(self, a: Tensor, b: Tensor, out: str, name: str = "multiply", elements: Expr | None = None) -> Tensor:
        """a * b per element: each factor's gradient needs the other."""
        kept = [other for factor, other in ((a, b), (b, a)) if factor.needs_grad]
        return self.elementwise(
            name, a, b, out=out, back=lambda g: ([(1, [g, b])], [(1, [g, a])]), elements=elements, keep=kept
        )

    def divide(self, a: Tensor, b: Tensor, out: str, name: str = "divide", elements: Expr | None = None) -> Tensor:
        """a / b, b spread over rows of a: both gradients need b, that of b a as well.

        Backward g / b, and -g times (a / b) / b, summed up.
        """
        kept = ([b] if a.needs_grad or b.needs_grad else []) + ([a] if b.needs_grad else [])
        return self.elementwise(
            name,
            a,
            b,
            out=out,
            back=lambda g: ([(1, [g, b])], [(1, [g]), (1, [g, b]), (1, [g, b]), (1, [g, g])]),
            elements=elements,
            keep=kept,
        )

    def add(self, a: Tensor, b: Tensor, out: str, name: str = "residual") -> Tensor:
        """a + b: nothing to keep, and the gradient is passed on."""
        return self.elementwise(name, a, b, out=out)

    def subtract(self, a: Tensor, b: Tensor, out: str, name: str = "difference") -> Tensor:
        """a - b, b spread over rows of a: nothing to keep; the gradient of b is negated, and summed up."""
        return self.elementwise(name, a, b, out=out, back=lambda g: ((), [(1, [g])]))

    def sum_of_squares(self, x: Tensor, rows: Expr, out: str) -> Tensor:
        """Squares, and their sums over rows; x is kept. Backward x to the power 1, twice that, times the gradient."""
        made = self.tensor(out, rows, x.needs_grad)
        if x.needs_grad:
            self.keep(x)
            for read in ([x], [x], [x, made]):
                self.kernel(out, read, x.elements, x.elements, "backward")
        self.kernel(out, [x], x.elements, x.elements)
        self.kernel(out, [x], rows, x.elements - rows)
        self.arrive(x)
        return made

    # Rows

    def sum(self, x: Tensor, elements: Expr, name: str, out: str) -> Tensor:
        """Sums over rows, ``elements`` of them: an addition less than elements each. The gradient is a view."""
        made = self.tensor(out, elements, x.needs_grad)
        self.kernel(name, [x], elements, x.elements - elements)
        self.arrive(x, stored=elements)
        return made

    def softmax(self, x: Tensor, rows: Expr, name: str = "softmax", out: str = "probabilities") -> Tensor:
        """Rows of S: max S - 1, x - max S, exp S, sum S - 1, division S: 5 S - 2 each. The result y is kept.

        Backward y (g - g·y): 2 S - 1 for g·y, and 2 S.
        """
        made = self.tensor(out, x.elements, x.needs_grad)
        self.kernel(name, [x], x.elements, 5 * x.elements - 2 * rows)
        if made.needs_grad:
            self.keep(made)
            self.kernel(name, [made, made], x.elements, 4 * x.elements - rows, "backward")
            self.arrive(x)
        return made

    def layer_norm(self, x: Tensor, rows: Expr, d: Expr, name: str, out: str) -> Tensor:
        """LayerNorm over rows of d, with weight and bias: 5 d + 2 per row and 2 d; x, mean and 1 / std are kept.

        Backward: x^ = (x - mean) / std 2 d, for either; for x, with the gradient times the weight d, two means of d
        and 2 d, x^ times one of them d, two differences 2 d, the scale d; for the weight products and their sums
        over rows, for the bias sums.
        """
        weight = self.weight(name, 2 * d)
        self.kernel(name, [x, weight], rows * d + 2 * rows, 7 * rows * d + 2 * rows)
        made = self.tensor(out, rows * d, x.needs_grad or weight.needs_grad)
        if made.needs_grad:
            statistics = self.tensor(f"{name} statistics", 2 * rows, False)
            self.keep(x, statistics)
            flops, written = 2 * rows * d, Integer(0)
            read = [made, x, statistics]
            if x.needs_grad:
                flops, written = flops + 8 * rows * d, written + rows * d
                read.append(self.tensor("weight", d, False))
            if weight.needs_grad:
                flops, written = flops + (3 * rows - 2) * d, written + 2 * d
            self.kernel(name, read, written, flops, "backward")
        self.arrive(x)
        return made

    def rms_norm(self, x: Tensor, rows: Expr, d: Expr, name: str, out: str) -> Tensor:
        """RMSNorm over rows of d, with weight, op by op: x, 1 / rms and, for the weight, x / rms are kept.

        It computes in float32 at least: of a narrower x, a wider copy of the rows is kept in its place.

        Forward x², its mean, eps and rsqrt, x / rms, the weight. Backward of x, by its two paths: the gradient with the
        weight d, times 1 / rms d; its product with x d, summed; of the rsqrt -r³ / 2 3 per row; its mean spread d, and
        times 2 x 3 d; the sum of both d. Of the weight: a product d, summed over rows.
        """
        weight = self.weight(name, d)
        if x.needs_grad:
            stored = x.stored.elements
            wide = stored if stored == rows * d else Piecewise((rows * d, e < 4), (stored, True))
            self.keep(self.tensor(x.name, wide, False, PRECISE), self.tensor(f"{name} scales", rows, False, PRECISE))
        if weight.needs_grad:
            self.keep(self.tensor(f"{name} before its weight", rows * d, False, PRECISE))
        N, one = (self.tensor("rows", n, False) for n in (rows * d, rows))
        self.kernel(name, [N], N.elements, N.elements)
        self.kernel(name, [N], rows, N.elements)
        self.kernel(name, [one], rows, rows)
        self.kernel(name, [one], rows, rows)
        self.kernel(name, [N, one], N.elements, N.elements)
        self.kernel(name, [N, weight], N.elements, N.elements)
        if weight.needs_grad:
            self.kernel(f"{name}.dW", [N, N], N.elements, N.elements, "backward")
            self.kernel(f"{name}.dW", [N], d, N.elements - d, "backward")
        if x.needs_grad:
            steps: list[tuple[list[Tensor], Expr, Expr]] = [
                ([N, weight], N.elements, N.elements),
                ([N, N], N.elements, N.elements),
                ([N, one], N.elements, N.elements),
                ([N], rows, N.elements - rows),
                ([one], rows, rows),
                ([one], rows, rows),
                ([one, one], rows, rows),
                ([one], N.elements, N.elements),
                ([N], N.elements, N.elements),
                ([N], N.elements, N.elements),
                ([N, N], N.elements, N.elements),
                ([N, N], N.elements, N.elements),
            ]
            for read, written, flops in steps:
                self.kernel(f"{name}.dX", read, written, flops, "backward")
            self.arrive(x)
        return self.tensor(out, rows * d, x.needs_grad or weight.needs_grad)
