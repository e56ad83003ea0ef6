"""What a tape keeps: terms, tensors, what is saved of them, and parts that are repeated or run again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from sympy import Expr, Integer, Ne, Piecewise, false, sympify, true
from sympy.logic.boolalg import Boolean

from attnprof.analytic.prediction import KINDS, Kind, Phase, Quantity, Term, merged
from attnprof.analytic.symbols import e

#: What is done, and done again where a part is run again.
_WORK = {quantity for quantities in KINDS.values() for quantity in quantities}


@dataclass(frozen=True, eq=False)
class Tensor:
    """What a block makes: so many elements, and whether a gradient of it is asked for.

    One object, one storage, unless it is a view ``of`` another. ``kept``: elements that saving it keeps, where that
    depends on its layout.
    """

    name: str
    elements: Expr
    needs_grad: bool
    item_bytes: Expr = e
    is_state: bool = False  # a parameter or a buffer
    is_weight: bool = False  # a parameter
    of: Tensor | None = None
    kept: Expr | None = None

    @property
    def stored(self) -> Tensor:
        """What keeps the storage of it."""
        return self if self.of is None else self.of.stored


class Recording:
    """The terms of one forward and its backward, in the order in which the blocks were called.

    ``frozen`` are weights that need no gradient, by name (``q_proj``) or pattern (``layers.*``); ``input_grad`` says
    whether the inputs need one, or names those that do.
    """

    def __init__(self, frozen: Collection[str] = (), input_grad: bool | Collection[str] = True) -> None:
        self.input_grad = input_grad
        self.unused = set(frozen)  # patterns that have met no weight yet
        self.missing: set[tuple[Kind, Phase]] = set()  # what the blocks do not state in full
        self.conditions: set[Boolean] = set()  # on sizes, for the traffic to be what is noted
        self.weights: list[str] = []
        self.inputs: list[str] = []
        self.frozen = tuple(frozen)
        self._terms: list[Term] = []
        self._kept: set[int] = set()
        self._gradients: dict[int, Expr] = {}  # of tensors that have one: how many numbers
        self._tensors: list[Tensor] = []  # so that no id is used twice
        self._scope = ""
        self._stop = 0  # how many terms there are before the last op that keeps something

    @property
    def terms(self) -> tuple[Term, ...]:
        return merged(self._terms)

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Everything inside is named ``name.…``: a module with a name of its own."""
        outer, self._scope = self._scope, f"{self._scope}{name}."
        try:
            yield
        finally:
            self._scope = outer

    def note(
        self,
        name: str,
        quantity: Quantity,
        expression: Expr,
        phase: Phase = "forward",
        useful: Expr | None = None,
        of_weights: bool = False,
    ) -> None:
        """Enter a term."""
        self._terms.append(Term(self._scope + name, phase, quantity, expression, useful, of_weights))

    # Parts

    def repeat(self, times: Expr, x: Tensor, write: Callable[[Tensor], Tensor]) -> Tensor:
        """``times`` copies of a part, each on the output of the one before.

        Where the output needs a gradient and x does not, the first copy differs from all others.
        """
        start = len(self._terms)
        y = write(x)
        same = times
        if y.needs_grad != x.needs_grad:
            start, same = len(self._terms), times - 1
            y = write(self.tensor(x.name, y.elements, y.needs_grad))
        self._terms[start:] = [
            term.map(lambda expression: (same * expression).expand()) for term in self._terms[start:]
        ]
        return y

    def checkpointed(self, x: Tensor, write: Callable[[Tensor], Tensor], early_stop: bool) -> Tensor:
        """A part of which x alone is kept, and whose forward runs again before its backward.

        With ``early_stop`` it runs again up to the last op that keeps something, which does not run itself.
        """
        start, kept = len(self._terms), set(self._kept)
        self._stop = start
        y = write(x)
        end, self._kept = self._stop if early_stop else len(self._terms), kept
        part = self._terms[start:]
        again = [t for t in self._terms[start:end] if t.quantity in _WORK and t.phase == "forward"]
        self._terms[start:] = [t for t in part if t.quantity != "saved_bytes"]
        if y.needs_grad:
            self._terms += [replace(t, phase="recompute") for t in again]
            self.keep(x)
        return y

    def until_last_kept(self) -> tuple[Term, ...]:
        """The forward up to the last op that keeps something, which does not run: what an early end repeats."""
        again = (t for t in self._terms[: self._stop] if t.quantity in _WORK and t.phase == "forward")
        return merged(again)

    def take(self, other: Recording, change: Callable[[Term], Term]) -> None:
        """Enter the terms of a child, each changed."""
        self._terms += [change(term) for term in other.terms]
        self.weights += other.weights
        self.unused &= other.unused
        self.missing |= other.missing
        self.conditions |= other.conditions

    # Where tensors come from

    def input(self, name: str, elements: Expr) -> Tensor:
        """An argument of the call."""
        self.inputs.append(name)
        wanted = self.input_grad if isinstance(self.input_grad, bool) else name in self.input_grad
        return self.tensor(name, elements, wanted)

    def weight(self, name: str, elements: Expr, trained: bool = True) -> Tensor:
        """A parameter: counted, trained unless frozen (or never ``trained``), no part of what is saved."""
        full = self._scope + name
        self.weights.append(full)
        patterns = {p for p in self.frozen if fnmatchcase(full, p) or fnmatchcase(full, f"*.{p}")}
        self.unused -= patterns
        trained = trained and not patterns
        self.note(name, "parameters", elements)
        if trained:
            self.note(name, "trainable_parameters", elements)
        return self.tensor(name, elements, trained, is_state=True, is_weight=True)

    def tensor(
        self,
        name: str,
        elements: Expr,
        needs_grad: bool,
        item_bytes: Expr = e,
        is_state: bool = False,
        is_weight: bool = False,
        of: Tensor | None = None,
        kept: Expr | None = None,
    ) -> Tensor:
        """A tensor with a storage of its own, or that of another."""
        made = Tensor(name, elements, needs_grad, item_bytes, is_state, is_weight, of, kept)
        self._tensors.append(made)
        return made

    def keep(self, *tensors: Tensor) -> None:
        """Save tensors for the backward: each once, parameters and buffers never."""
        if tensors:
            self._stop = len(self._terms)
        for tensor in (tensor.stored for tensor in tensors):
            if not tensor.is_state and id(tensor) not in self._kept:
                self._kept.add(id(tensor))
                elements = tensor.elements if tensor.kept is None else tensor.kept
                self.note(tensor.name, "saved_bytes", elements * tensor.item_bytes)

    def keep_for(self, tensor: Tensor, name: str, elements: Expr, item_bytes: Expr = e) -> None:
        """Save something that needs no gradient itself (a mask, positions) if ``tensor`` needs one."""
        if tensor.needs_grad:
            self.keep(self.tensor(name, elements, False, item_bytes))

    # What is done and moved

    def several(self, *sizes: Expr) -> None:
        """Traffic is stated for sizes above one: a dimension of one needs fewer copies."""
        self.conditions |= {Ne(size, 1) for size in sizes if not size.is_Integer}

    def kernel(
        self, name: str, read: Collection[Tensor], written: Expr, flops: Expr | int = 0, phase: Phase = "forward"
    ) -> None:
        """Vector FLOPs and bytes of one op alone: every input read once, so many elements written once."""
        if flops != 0:
            self.note(name, "vector_flops", sympify(flops), phase)
        self.note(name, "read_bytes", sum((x.elements * x.item_bytes for x in read), Integer(0)), phase)
        self.note(name, "write_bytes", written * e, phase)

    def moved(
        self,
        name: str,
        read: Expr,
        written: Expr,
        phase: Phase = "forward",
        only_if: Boolean = true,
        flops: Expr | int = 0,
    ) -> None:
        """So many bytes, where sizes are such that anything has to move."""
        amounts: dict[Quantity, Expr | int] = {"vector_flops": flops, "read_bytes": read, "write_bytes": written}
        for quantity, amount in amounts.items():
            if amount != 0 and only_if is not false:
                self.note(name, quantity, amount if only_if is true else Piecewise((amount, only_if), (0, True)), phase)

    def arrive(self, tensor: Tensor, stored: Expr | None = None) -> None:
        """A gradient of a tensor comes to it: where there is one already, the two are added up.

        ``stored``: how many numbers the gradient is, where that is fewer than it has elements.
        """
        if not tensor.needs_grad:
            return
        new = tensor.elements if stored is None else stored
        before = self._gradients.get(id(tensor))
        if before is not None:
            name, size = f"gradients of {tensor.name}", tensor.item_bytes
            self.note(name, "vector_flops", tensor.elements, "backward")
            self.note(name, "read_bytes", (before + new) * size, "backward")
            self.note(name, "write_bytes", tensor.elements * size, "backward")
            new = tensor.elements
        self._gradients[id(tensor)] = new
