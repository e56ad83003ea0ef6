"""Small modules that carry their own expected counts.

Every product in them is that of one Linear, ``[ROWS, WIDTH] x [WIDTH, WIDTH]``, so counts are stated in
that UNIT: a Linear's forward is 1, its backward 1 for the gradient of its weight and 1 for that of its
input. What a net does not name costs nothing. ROWS and WIDTH differ, so no other product has that size.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from attnprof import Report

ROWS, WIDTH = 5, 7
#: Multiply-adds of one Linear, times 2.
UNIT = 2 * ROWS * WIDTH * WIDTH

#: {module: {phase: units}}
Expected = Mapping[str, Mapping[str, int | Fraction]]


def both(forward: int | Fraction, backward: int | Fraction) -> dict[str, int | Fraction]:
    """The counts of a module that runs in forward and backward."""
    return {phase: n for phase, n in (("forward", forward), ("backward", backward)) if n}


def units(report: Report) -> dict[str, dict[str, Fraction]]:
    """The self matmul FLOPs of every module in UNITs, by phase; zeros left out."""
    found: dict[str, dict[str, Fraction]] = {}
    for phase in report.phases:
        for name, cost in report.by_module(phase, inclusive=False).items():
            if cost.matmul_flops:
                found.setdefault(name, {})[phase] = Fraction(cost.matmul_flops, UNIT)
    return found


def linear(**options: Any) -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH, **options)


def rows(requires_grad: bool = True) -> Tensor:
    """An input; it needs a gradient unless told otherwise."""
    return torch.randn(ROWS, WIDTH, requires_grad=requires_grad)


class Net(nn.Module):
    """One forward and one backward from the sum of the output, unless a net says otherwise."""

    expected: ClassVar[Expected]

    def step(self) -> None:
        self(rows()).sum().backward()


class Chain(Net):
    """Two Linears in a row."""

    expected: ClassVar[Expected] = {"first": both(1, 2), "second": both(1, 2)}

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = linear(), linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


class PlainInput(Chain):
    """The input needs no gradient: the first Linear only has that of its weight."""

    expected: ClassVar[Expected] = {"first": both(1, 1), "second": both(1, 2)}

    def step(self) -> None:
        self(rows(requires_grad=False)).sum().backward()


class SharedInput(Net):
    """q, k and v read one tensor, through dropouts that do nothing and must be charged nothing."""

    expected: ClassVar[Expected] = {name: both(1, 2) for name in ("q", "k", "v")}

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = linear(), linear(), linear()
        self.drop, self.same = nn.Dropout(0.0), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        return self.drop(self.q(x)) + self.drop(self.k(x)) * self.same(self.v(x))


class SharedModule(Net):
    """One Linear run three times is charged three times."""

    expected: ClassVar[Expected] = {"layer": both(3, 6)}

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(self.layer(x)))


class TiedWeights(Net):
    """Two Linears over one parameter are two modules; accumulating its gradient is no product."""

    expected: ClassVar[Expected] = {"first": both(1, 2), "second": both(1, 2)}

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = linear(), linear()
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class Aliased(Net):
    """One module under two names: charged under the first, whichever name was called."""

    expected: ClassVar[Expected] = {"first": both(2, 4)}

    def __init__(self) -> None:
        super().__init__()
        self.first = self.other = linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.first(x))


class Recursive(nn.Module):
    """Calls itself: the product comes after the inner call has returned, so frames must nest."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x: Tensor, depth: int) -> Tensor:
        if depth > 1:
            x = self(x, depth - 1)
        return x @ self.weight


class Recursion(Net):
    """Three levels deep, on an input without gradient: 3 forward; 1 + 2 + 2 backward."""

    expected: ClassVar[Expected] = {"cell": both(3, 5)}

    def __init__(self) -> None:
        super().__init__()
        self.cell = Recursive()

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x, 3)

    def step(self) -> None:
        self(rows(requires_grad=False)).sum().backward()


class DirectForward(Net):
    """``module.forward()`` is a plain function call: its ops are the caller's. The last Linear is called."""

    expected: ClassVar[Expected] = {"": both(1, 2), "called": both(1, 2)}

    def __init__(self) -> None:
        super().__init__()
        self.bypassed, self.called = linear(), linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.called(self.bypassed.forward(x))


class FunctionalParent(Net):
    """A parent computes between and after its children, with weights of theirs and of its own."""

    expected: ClassVar[Expected] = {"": both(2, 4), "child": both(1, 2)}

    def __init__(self) -> None:
        super().__init__()
        self.child = linear()
        self.own = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.child.weight)
        return self.child(x) @ self.own


class Containers(Net):
    """Lists and dicts of modules, which are never called themselves."""

    expected: ClassVar[Expected] = {
        "layers.0": both(1, 2),
        "layers.1": both(1, 2),
        "heads.left": both(1, 2),
        "heads.right": both(1, 2),
        "tail.0": both(1, 2),
        "tail.2": both(1, 2),
    }

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([linear(), linear()])
        self.heads = nn.ModuleDict({"left": linear(), "right": linear()})
        self.tail = nn.Sequential(linear(), nn.ReLU(), linear())

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.tail(self.heads["left"](x) + self.heads["right"](x))


class Structured(nn.Module):
    """Three products, handed out in a dict with a tuple inside."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = linear(), linear()
        self.own = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, *, x: Tensor) -> dict[str, Any]:
        return {"a": self.a(x), "rest": (self.b(x), [x @ self.own])}


class StructuredOutputs(Net):
    """Keyword inputs; dict, tuple and list outputs; one output is not used and has no backward."""

    expected: ClassVar[Expected] = {"part": both(1, 2), "part.a": both(1, 2), "part.b": both(1, 0)}

    def __init__(self) -> None:
        super().__init__()
        self.part = Structured()

    def forward(self, x: Tensor) -> Tensor:
        found = self.part(x=x)
        return found["a"] * found["rest"][1][0]


class Frozen(Net):
    """Frozen on a plain input: no backward. Frozen on an input with gradient: only that of the input."""

    expected: ClassVar[Expected] = {"below": both(1, 0), "trained": both(1, 1), "above": both(1, 1)}

    def __init__(self) -> None:
        super().__init__()
        self.below, self.trained, self.above = linear(), linear(), linear()
        self.below.requires_grad_(False)
        self.above.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.above(self.trained(self.below(x)))

    def step(self) -> None:
        self(rows(requires_grad=False)).sum().backward()


class Detached(Net):
    """A teacher under no_grad has no backward; neither has what lies before a detach."""

    expected: ClassVar[Expected] = {"teacher": both(1, 0), "before": both(1, 0), "after": both(1, 1)}

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.before, self.after = linear(), linear(), linear()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.teacher(x)
        return self.after(self.before(x).detach()) - target


class InPlace(nn.Module):
    """Adds a product to a tensor that another module made."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, target: Tensor, x: Tensor) -> Tensor:
        return target.addmm_(x, self.weight)


class InPlaceOutputs(Net):
    """Outputs changed in place, whole and through views, by the parent and by another module."""

    expected: ClassVar[Expected] = {"first": both(1, 2), "add": both(1, 2), "through_view": both(1, 2)}

    def __init__(self) -> None:
        super().__init__()
        self.first, self.add, self.through_view = linear(), InPlace(), InPlace()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y.mul_(2)
        y[:, 1:3] *= 3
        y = self.add(y, x)
        self.through_view(y.view(ROWS, WIDTH), x)
        return y.add_(1)


class Product(torch.autograd.Function):
    """A product with a hand-written backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        return grad @ weight.T, x.T @ grad


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return Product.apply(x, self.weight)


class CustomFunction(Net):
    """A custom autograd.Function between two Linears."""

    expected: ClassVar[Expected] = {"first": both(1, 2), "custom": both(1, 2), "last": both(1, 2)}

    def __init__(self) -> None:
        super().__init__()
        self.first, self.custom, self.last = linear(), Custom(), linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.custom(self.first(x)))


class Mix(nn.Module):
    """A weight times a fixed matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.randn(WIDTH, WIDTH))

    def forward(self, weight: Tensor) -> Tensor:
        return weight @ self.matrix


class Parametrized(Net):
    """The weight is computed by a parametrization: WIDTH^3 multiply-adds, and as many for its gradient."""

    expected: ClassVar[Expected] = {
        "layer": both(1, 2),
        "layer.parametrizations.weight.0": both(Fraction(WIDTH, ROWS), Fraction(WIDTH, ROWS)),
    }

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()
        parametrize.register_parametrization(self.layer, "weight", Mix())

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Borrower(nn.Module):
    """Runs a module that it was handed, and one product of its own after it."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x: Tensor, lent: nn.Module) -> Tensor:
        return lent(x) @ self.own


class Lending(Net):
    """A sibling run inside another module's forward is charged as itself."""

    expected: ClassVar[Expected] = {"borrower": both(1, 2), "lent": both(1, 2)}

    def __init__(self) -> None:
        super().__init__()
        self.borrower, self.lent = Borrower(), linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.borrower(x, self.lent)


class MadeInForward(Net):
    """Modules built anew in each call: named by their class below the module that runs them.

    Two that live at the same time are two; one that takes the place of a dead one is the same.
    """

    expected: ClassVar[Expected] = {"(Linear)": both(3, 6), "(Linear 2)": both(1, 2)}

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = linear()(x)
        first, second = linear(), linear()
        return second(first(x))


class Lazy(Net):
    """A module whose weight gets a shape only when it first runs."""

    expected: ClassVar[Expected] = {"layer": both(1, 2)}

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Hooked(nn.Module):
    """Two Linears, each with a hook that runs one product when its weight has its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = linear(), linear()
        for layer in (self.first, self.second):
            layer.weight.register_post_accumulate_grad_hook(_square)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def _square(parameter: Tensor) -> None:
    _ = parameter.grad @ parameter.grad


class ParametersMadeInForward(Net):
    """A parameter is its module's, also when it lives where a dead one lived: twice, Linear by Linear."""

    expected: ClassVar[Expected] = {
        f"(Hooked).{name}": both(2, 2 * (2 + Fraction(WIDTH, ROWS))) for name in ("first", "second")
    }

    def step(self) -> None:
        for _ in range(2):
            Hooked()(rows()).sum().backward()


class LossOutside(Chain):
    """A loss that belongs to no module: its own line, forward and backward."""

    expected: ClassVar[Expected] = {**Chain.expected, "(outside)": both(1, 1)}

    def step(self) -> None:
        (self(rows()) @ torch.randn(WIDTH, WIDTH)).sum().backward()


class Criterion(nn.Module):
    """A loss with a weight of its own, in a module that is not part of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = linear()

    def forward(self, y: Tensor) -> Tensor:
        return self.scale(y).square().mean()


class CriterionModule(Chain):
    """A module outside the model gets a line named by its class."""

    expected: ClassVar[Expected] = {**Chain.expected, "(Criterion).scale": both(1, 2)}

    def step(self) -> None:
        Criterion()(self(rows())).backward()


class TensorHook(Chain):
    """A hook on the first Linear's output runs one product when that output's gradient is there."""

    expected: ClassVar[Expected] = {"first": both(1, 2 + 1), "second": both(1, 2)}

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        matrix = torch.randn(WIDTH, WIDTH)
        y.register_hook(lambda grad: grad @ matrix)
        return self.second(y)


class PostAccumulateHook(Chain):
    """What runs when a parameter has its gradient belongs to that parameter's module."""

    expected: ClassVar[Expected] = {"first": both(1, 2), "second": both(1, 2 + Fraction(WIDTH, ROWS))}

    def __init__(self) -> None:
        super().__init__()
        matrix = torch.randn(WIDTH, WIDTH)

        def accumulated(parameter: Tensor) -> None:
            _ = parameter.grad @ matrix

        self.second.weight.register_post_accumulate_grad_hook(accumulated)


class ModuleHooks(Chain):
    """One product in each kind of hook on the second Linear.

    A pre-hook and a backward hook are charged to their module; a forward hook runs when its module has
    returned, for the caller.
    """

    expected: ClassVar[Expected] = {"": both(1, 0), "first": both(1, 2), "second": both(1 + 1, 2 + 1)}

    def __init__(self) -> None:
        super().__init__()
        matrix = torch.randn(WIDTH, WIDTH)

        def before(module: nn.Module, args: tuple[Tensor]) -> None:
            _ = args[0].detach() @ matrix

        def after(module: nn.Module, args: Any, output: Tensor) -> None:
            _ = output.detach() @ matrix

        self.second.register_forward_pre_hook(before)
        self.second.register_forward_hook(after)
        self.second.register_full_backward_hook(lambda module, into, out: (into[0] @ matrix,))


NETS: tuple[type[Net], ...] = (
    Chain,
    PlainInput,
    SharedInput,
    SharedModule,
    TiedWeights,
    Aliased,
    Recursion,
    DirectForward,
    FunctionalParent,
    Containers,
    StructuredOutputs,
    Frozen,
    Detached,
    InPlaceOutputs,
    CustomFunction,
    Parametrized,
    Lending,
    MadeInForward,
    ParametersMadeInForward,
    Lazy,
    LossOutside,
    CriterionModule,
    TensorHook,
    PostAccumulateHook,
    ModuleHooks,
)
