"""What an exported program takes: names, shapes, dtypes, and the sizes it leaves open."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export._tree_utils import reorder_kwargs
from torch.utils import _pytree as pytree

from attnprof.core.errors import AttnprofError, closest

#: A whole number that nothing bounds.
_LEAST, _MOST = -(2**63), 2**62


@dataclass(frozen=True, slots=True)
class OpenSize:
    """A size that a program leaves open: its symbol, the input axes that have it, the least and most it may be.

    ``derived`` are axes that have a multiple of it or the like, with what they have: ``("x.0", 2*s77)``.
    """

    symbol: sympy.Symbol
    axes: tuple[str, ...]
    least: int
    most: float
    derived: tuple[tuple[str, sympy.Expr], ...] = ()

    def __str__(self) -> str:
        most = f"to {self.most}" if math.isfinite(self.most) else "on"
        least = "any" if self.least == _LEAST else f"from {self.least}"
        axes = (*self.axes, *(f"{axis} = {expression}" for axis, expression in self.derived))
        return f"{self.symbol} ({', '.join(axes)}; {least} {most})"

    @property
    def named(self) -> tuple[str, ...]:
        """The axes that a plain name means: those that have the size itself, if there are any."""
        return self.axes or tuple(axis for axis, _ in self.derived)

    def symbol_for(self, name: str, value: int) -> int:
        """What the symbol is when what ``name`` means has this value."""
        expression = dict(self.derived).get(name)
        if expression is None and not self.axes and name != str(self.symbol):
            expression = self.derived[0][1]
        if expression is None:
            return value
        found = _solved(expression, self.symbol, value)
        if found is None:
            raise AttnprofError(f"{name}={value} is no {expression} of a whole number: the program leaves open {self}.")
        return found


@dataclass(frozen=True, slots=True)
class Taking:
    """The arguments of an exported program: their structure, and for each leaf a name and what was traced with."""

    spec: pytree.TreeSpec
    names: tuple[str, ...]
    traced: tuple[Any, ...]  # a fake tensor, maybe of symbolic shape; a symbolic number; or a constant
    sizes: tuple[OpenSize, ...]
    names_of_arguments: tuple[str, ...] = ()

    @classmethod
    def of(cls, exported: ExportedProgram) -> Taking:
        spec = exported.call_spec.in_spec
        assert spec is not None
        user = set(exported.graph_signature.user_inputs)
        nodes = [node for node in exported.graph.nodes if node.op == "placeholder"]
        specs = exported.graph_signature.input_specs
        traced = []
        for node, found in zip(nodes, specs, strict=True):
            if found.kind is torch.export.graph_signature.InputKind.USER_INPUT:
                constant = isinstance(found.arg, torch.export.graph_signature.ConstantArgument)
                traced.append(found.arg.value if constant and node.name not in user else node.meta.get("val"))
        names = tuple(_names(exported, spec))
        return cls(
            spec, names, tuple(traced), tuple(_open_sizes(exported, names, traced)), tuple(_argument_names(exported))
        )

    def signature(self) -> inspect.Signature | None:
        """The signature of a function that takes this; None where its names are no names of arguments."""
        positional, by_name = pytree.tree_unflatten(list(range(self.spec.num_leaves)), self.spec)
        first = [self.names_of_arguments[i] for i in range(len(positional))] if self._knows(positional) else []
        if len(first) < len(positional) or not all(map(str.isidentifier, (*first, *by_name))):
            return None
        kinds = inspect.Parameter
        try:
            return inspect.Signature(
                [kinds(name, kinds.POSITIONAL_OR_KEYWORD) for name in first]
                + [kinds(name, kinds.KEYWORD_ONLY) for name in by_name]
            )
        except ValueError:  # a keyword of Python, or one name twice
            return None

    def _knows(self, positional: Sequence[Any]) -> bool:
        return len(self.names_of_arguments) >= len(positional)

    def bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments in their places: those of the program's positions may be given by name."""
        signature = self.signature()
        try:
            found = signature.bind(*args, **kwargs) if signature is not None else None
        except TypeError:  # too many or too few, which the structure will show
            found = None
        return (tuple(args), dict(kwargs)) if found is None else (found.args, found.kwargs)

    def flat(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The leaves of a call's arguments, in the program's order, checked against what it was exported for."""
        args, kwargs = self.bound(args, kwargs)
        try:
            leaves, spec = pytree.tree_flatten((args, reorder_kwargs(kwargs, self.spec)))
        except ValueError:  # names that are missing or too many
            spec = None
        if spec != self.spec:
            given = [f"{len(args)} by position", *kwargs]
            raise AttnprofError(
                f"the program takes {self._described()}, in the structure it was exported with; "
                f"the arguments given are {', '.join(given)}."
            )
        self._check(leaves)
        return leaves

    def with_sizes(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], asked: Mapping[str, int]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of other sizes: tensors are cut or repeated along the axes that the program leaves open."""
        leaves = self.flat(args, kwargs)
        values = self._values(leaves)
        for name, value in asked.items():
            found = self.size_named(name)
            number = found.symbol_for(name, value)
            if not found.least <= number <= found.most:
                raise AttnprofError(f"{name}={value} is outside of what the program was exported for: {found}.")
            values[found.symbol] = number
        resized = [_resized(leaf, traced, values) for leaf, traced in zip(leaves, self.traced, strict=True)]
        made: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(resized, self.spec)
        self._check(resized)
        return made

    def size_named(self, name: str) -> OpenSize:
        """The open size that a name means: a symbol, an axis of an input, ``batch`` or ``seq``, or the only one."""
        if not self.sizes:
            raise AttnprofError(
                f'the program has no "{name}": it was exported for fixed sizes ({self._described()}). '
                "Pass dynamic_shapes to torch.export.export."
            )
        for size in self.sizes:
            if name in (str(size.symbol), *size.axes, *dict(size.derived)):
                return size
        if "." not in name:
            axis = {"batch": 0, "batch_size": 0, "b": 0, "seq": 1, "seq_len": 1, "sequence": 1}.get(name.lower())
            there = [size for size in self.sizes if any(a.endswith(f".{axis}") for a in size.named)]
            if len(there) == 1:
                return there[0]
            if len(self.sizes) == 1 and axis is None:
                return self.sizes[0]
        known = [str(size.symbol) for size in self.sizes] + [axis for size in self.sizes for axis in size.named]
        raise AttnprofError(
            f'the program has no size "{name}". It leaves open {"; ".join(map(str, self.sizes))}. '
            f"A file does not keep the names that sizes had.{closest(name, known)}"
        )

    def made(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments as the program was traced with, made anew: random floats, and zeros for all else."""
        hints = {size.symbol: max(size.least, 2) for size in self.sizes}
        leaves = []
        for traced in self.traced:
            if isinstance(traced, Tensor):
                shape = [_evaluated(size, hints) for size in traced.shape]
                of = torch.randn if traced.dtype.is_floating_point or traced.dtype.is_complex else torch.zeros
                leaves.append(of(shape, dtype=traced.dtype))
            else:
                leaves.append(_evaluated(traced, hints) if _is_symbolic(traced) else traced)
        return pytree.tree_unflatten(leaves, self.spec)  # type: ignore[no-any-return]

    def _values(self, leaves: Sequence[Any]) -> dict[sympy.Symbol, int]:
        """What each symbol is in some arguments."""
        found: dict[sympy.Symbol, int] = {}
        derived: list[tuple[sympy.Expr, int]] = []
        for leaf, traced in zip(leaves, self.traced, strict=True):
            sizes = zip(leaf.shape, traced.shape, strict=True) if isinstance(traced, Tensor) else [(leaf, traced)]
            for size, expected in sizes:
                symbol = _expression(expected)
                if isinstance(symbol, sympy.Symbol):
                    found.setdefault(symbol, int(size))
                elif symbol is not None and len(symbol.free_symbols) == 1:
                    derived.append((symbol, int(size)))
        for expression, size in derived:  # of a symbol that no axis has as it is
            (symbol,) = expression.free_symbols
            if symbol not in found and (number := _solved(expression, symbol, size)) is not None:
                found[symbol] = number
        return found

    def _check(self, leaves: Sequence[Any]) -> None:
        for name, leaf, traced in zip(self.names, leaves, self.traced, strict=True):
            if isinstance(traced, Tensor) and not (
                isinstance(leaf, Tensor) and leaf.dim() == traced.dim() and leaf.dtype == traced.dtype
            ):
                raise AttnprofError(f"{name} is {_text(leaf)}, and the program was exported for {_text(traced)}.")
        values = self._values(leaves)
        for size in self.sizes:
            value = values.get(size.symbol, size.least)
            if not size.least <= value <= size.most:
                raise AttnprofError(
                    f"{(*size.axes, size.symbol)[0]} is {value}, outside of what the program was exported for: {size}."
                )
        for name, leaf, traced in zip(self.names, leaves, self.traced, strict=True):
            if isinstance(traced, Tensor):
                fits = all(n == _evaluated(m, values) for n, m in zip(leaf.shape, traced.shape, strict=True))
            elif _is_symbolic(traced):
                fits = isinstance(leaf, int)
            else:
                fits = traced is None or (type(leaf) is type(traced) and leaf == traced)
            if not fits:
                raise AttnprofError(f"{name} is {_text(leaf)}, and the program was exported for {_text(traced)}.")

    def _described(self) -> str:
        return ", ".join(f"{name}: {_text(traced)}" for name, traced in zip(self.names, self.traced, strict=True))


def _names(exported: ExportedProgram, spec: pytree.TreeSpec) -> Iterator[str]:
    known = _argument_names(exported)
    places = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    for path, _ in pytree.tree_flatten_with_path(places)[0]:
        (part, key, *rest) = path
        if part == pytree.SequenceKey(0) and isinstance(key, pytree.SequenceKey):
            name = known[key.idx] if key.idx < len(known) else f"argument {key.idx}"
        else:
            name = str(getattr(key, "key", key))
        yield name + pytree.keystr(tuple(rest))


def _argument_names(exported: ExportedProgram) -> list[str]:
    signature = exported.module_call_graph[0].signature if exported.module_call_graph else None
    return (signature.forward_arg_names if signature else None) or []


def _open_sizes(exported: ExportedProgram, names: Sequence[str], traced: Sequence[Any]) -> Iterator[OpenSize]:
    axes: dict[sympy.Symbol, list[str]] = {}
    derived: dict[sympy.Symbol, list[tuple[str, sympy.Expr]]] = {}
    for name, value in zip(names, traced, strict=True):
        shape = enumerate(value.shape) if isinstance(value, Tensor) else [(None, value)]
        for axis, size in shape:
            symbol = _expression(size)
            if isinstance(symbol, sympy.Symbol):
                axes.setdefault(symbol, []).append(name if axis is None else f"{name}.{axis}")
            elif symbol is not None and len(symbol.free_symbols) == 1:
                (free,) = symbol.free_symbols
                derived.setdefault(free, []).append((f"{name}.{axis}", symbol))
    for symbol in dict.fromkeys([*axes, *derived]):
        where, also = axes.get(symbol, []), derived.get(symbol, [])
        limits = exported.range_constraints.get(symbol)
        low, high = (limits.lower, limits.upper) if limits is not None else (None, None)
        least = int(low) if isinstance(low, sympy.Integer) else 0 if also or "." in where[0] else _LEAST
        most = int(high) if isinstance(high, sympy.Integer) and high < _MOST else math.inf
        yield OpenSize(symbol, tuple(where), least, most, tuple(also))


def _solved(expression: sympy.Expr, symbol: sympy.Symbol, value: int) -> int | None:
    """The whole number that makes a linear expression of a symbol this value; None where there is none."""
    step, start = expression.coeff(symbol, 1), expression.subs(symbol, 0)
    if step == 0 or not step.is_number or sympy.expand(expression - step * symbol - start) != 0:
        return None
    found = sympy.Rational(value - start) / step
    return int(found) if found.is_integer else None


def _expression(size: Any) -> Any:
    """The expression of a symbolic number; None of any other."""
    return size.node.expr if isinstance(size, torch.SymInt) else None


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, torch.SymInt)


def _evaluated(size: Any, values: Mapping[sympy.Symbol, int]) -> Any:
    if not _is_symbolic(size):
        return size
    found = size.node.expr.subs(values)
    return int(found) if found.is_number else found


def _resized(leaf: Any, traced: Any, values: Mapping[sympy.Symbol, int]) -> Any:
    if not isinstance(traced, Tensor):
        return _evaluated(traced, values) if _is_symbolic(traced) else leaf
    for axis, size in enumerate(traced.shape):
        asked = _evaluated(size, values)
        if asked != leaf.shape[axis]:
            needs_gradient = leaf.requires_grad
            if leaf.shape[axis] == 0:
                raise AttnprofError("an example input is empty and cannot be made larger; give it with --input.")
            index = torch.arange(asked, device=leaf.device) % leaf.shape[axis]
            leaf = leaf.detach().index_select(axis, index).requires_grad_(needs_gradient)
    return leaf


def _text(value: Any) -> str:
    if not isinstance(value, Tensor):
        return str(value) if _is_symbolic(value) else repr(value)
    shape = ",".join(str(size) for size in value.shape)
    return f"{str(value.dtype).removeprefix('torch.')}[{shape}]"
