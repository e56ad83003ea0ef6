"""What moves on a tape and computes nothing forward: copies, padding, parts, joins, rows that are looked up.

Views cost nothing and need no block. A gradient that comes back through one may have to be copied, though.
"""

from __future__ import annotations

from collections.abc import Sequence

from sympy import Expr, Integer, Min, Piecewise, true
from sympy.logic.boolalg import Boolean

from attnprof.analytic.arithmetic import Arithmetic
from attnprof.analytic.recording import Tensor
from attnprof.analytic.symbols import CeilLog2

#: Bytes per element of masks and of positions.
BOOL, INT64 = Integer(1), Integer(8)


class Movement(Arithmetic):
    """A recording with blocks that move."""

    def copy(
        self,
        x: Tensor,
        out: str | None = None,
        elements: Expr | None = None,
        only_if: Boolean = true,
        kept: Expr | None = None,
    ) -> Tensor:
        """A copy in another layout, or with repeated elements; its gradient is passed on as it is.

        ``only_if``: sizes for which it is a view instead, of as many elements, and moves nothing.
        """
        size = x.elements if elements is None else elements
        made = self.tensor(out or x.name, size, x.needs_grad, x.item_bytes, kept=kept)
        self.moved(f"copy of {x.name}", x.elements * x.item_bytes, made.elements * x.item_bytes, only_if=only_if)
        self.arrive(x)
        return made

    def copied_back(self, x: Tensor, times: int = 1, only_if: Boolean = true) -> Tensor:
        """A view of x whose gradient is copied, as often as ``times``, before it has the layout of x."""
        if x.needs_grad:
            moving = times * x.elements * x.item_bytes
            self.moved(f"copy of the gradient of {x.name}", moving, moving, "backward", only_if)
        return x

    def pad(self, x: Tensor, elements: Expr, out: str | None = None, only_if: Boolean = true) -> Tensor:
        """x and zeros around it. Backward cuts them off again."""
        made = self.tensor(out or f"{x.name} padded", elements, x.needs_grad, x.item_bytes)
        size = x.elements * x.item_bytes
        self.moved(f"padding of {x.name}", size, elements * x.item_bytes, only_if=only_if)
        if x.needs_grad:
            self.moved(f"padding of {x.name}", size, size, "backward", only_if)
        self.arrive(x)
        return made

    def part(self, x: Tensor, elements: Expr, out: str | None = None, only_if: Boolean = true) -> Tensor:
        """A view of a part of x. Its gradient is written into zeros of x's size."""
        made = self.tensor(out or f"part of {x.name}", elements, x.needs_grad, x.item_bytes, of=x)
        if x.needs_grad:
            size = x.item_bytes
            self.moved(f"gradient of a part of {x.name}", elements * size, x.elements * size, "backward", only_if)
        self.arrive(x)
        return made

    def join(self, parts: Sequence[Tensor], out: str, needs_grad: bool | None = None) -> Tensor:
        """Tensors one after the other. Backward they are views of the gradient."""
        total = sum((x.elements for x in parts), Integer(0))
        needed = any(x.needs_grad for x in parts) if needs_grad is None else needs_grad
        made = self.tensor(out, total, needed, parts[0].item_bytes)
        self.kernel(f"join of {out}", parts, total)
        for x in parts:
            self.arrive(x)
        return made

    def split(self, x: Tensor, *elements: Expr) -> list[Tensor]:
        """Views of all parts of x. Backward joins their gradients."""
        if x.needs_grad:
            self.kernel(f"parts of {x.name}", [x], x.elements, phase="backward")
        self.arrive(x)
        return [self.tensor(f"part of {x.name}", size, x.needs_grad, x.item_bytes, of=x) for size in elements]

    def overlapping(self, x: Tensor, elements: Expr, out: str | None = None) -> Tensor:
        """A view in which elements of x come several times. Backward adds the gradients up: one addition for each."""
        made = self.tensor(out or f"windows of {x.name}", elements, x.needs_grad, x.item_bytes, of=x)
        if x.needs_grad:
            name, size = f"gradient of {made.name}", x.item_bytes
            self.moved(name, elements * size, x.elements * size, "backward", flops=elements)
        self.arrive(x)
        return made

    def best(self, x: Tensor, rows: Expr, k: Expr) -> Tensor:
        """The k largest of each row of S, and their places, which are kept: S ceil(log2(k + 1)) comparisons.

        Backward writes their gradients into zeros: of those it reads what it does not write over.
        """
        kept = rows * k
        made = self.tensor(f"best {x.name}", kept, x.needs_grad, x.item_bytes)
        size, whole, chosen = x.item_bytes, x.elements * x.item_bytes, kept * (x.item_bytes + INT64)
        self.moved(f"best {x.name}", whole, chosen, flops=x.elements * CeilLog2(k + 1))
        if x.needs_grad:
            self.keep(self.tensor(f"places of {x.name}", kept, False, INT64))
            self.moved(f"best {x.name}", Integer(0), whole, "backward")
            self.moved(f"best {x.name}", whole - kept * size + chosen, whole, "backward")
        self.arrive(x)
        return made

    def look_up(self, x: Tensor, places: Expr, elements: Expr, out: str) -> Tensor:
        """Rows of x at so many places, which are kept. Backward adds them up in zeros: one addition for each.

        Forward reads the places and the rows, backward places, rows and zeros.
        """
        made = self.tensor(out, elements, x.needs_grad, x.item_bytes)
        size, table = x.item_bytes, x.elements * x.item_bytes
        self.moved(f"look-up of {x.name}", Min(elements * size, table) + places * INT64, elements * size)
        if x.needs_grad:
            name = f"look-up of {x.name}"
            self.moved(name, Integer(0), table, "backward")
            self.moved(name, table + elements * size + places * INT64, table, "backward", flops=elements)
        self.arrive(x)
        return made

    def hide(self, x: Tensor, mask: Expr, of_kept: bool = False, only_if: Boolean = true) -> Tensor:
        """Scores behind a mask of so many elements become -inf; the mask is kept, and hides their gradients.

        ``of_kept``: the mask there is says what to keep, and is turned over first.
        """
        made = self.tensor(x.name, x.elements, x.needs_grad, x.item_bytes)
        size = x.elements * x.item_bytes
        if of_kept:
            self.moved("mask", mask * BOOL, mask * BOOL, only_if=only_if, flops=mask)
        if x.needs_grad:
            self.moved("masking", size + mask * BOOL, size, "backward", only_if)
            kept = mask if only_if is true else Piecewise((mask, only_if), (0, True))
            self.keep(self.tensor("mask", kept, False, BOOL))
        self.moved("masking", size + mask * BOOL, size, only_if=only_if)
        self.arrive(x)
        return made

    def causal_mask(self, T: Expr, S: Expr, only_if: Boolean = true) -> None:
        """Ones of [T, S], and of them those above the diagonal, which ends in the last corner: T (T - 1) / 2."""
        mask = T * S * BOOL
        self.moved("mask", Integer(0), mask, only_if=only_if)
        self.moved("mask", T * (T - 1) / 2 * BOOL, mask, only_if=only_if)
