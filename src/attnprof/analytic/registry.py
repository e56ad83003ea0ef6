"""Formulas by name. A mechanism's closed form has the name of its module in :mod:`attnprof.zoo`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar

from sympy import Expr

from attnprof.analytic.blocks import Tape
from attnprof.analytic.prediction import Prediction, Quantity
from attnprof.analytic.symbols import e, symbol
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.sizes import at_most, divides, one_of, positive

#: Quantities that blocks note, and that add up to the whole only where every block of a mechanism has its form.
_PARTIAL: dict[str, frozenset[Quantity]] = {
    "vector": frozenset({"vector_flops"}),
    "traffic": frozenset({"read_bytes", "write_bytes"}),
}
Write = TypeVar("Write", bound=Callable[..., Any])


class Sizes:
    """The sizes a formula was asked for: known values, to be checked as the modules of the zoo check theirs."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self.values = values

    def divides(self, whole: str, part: str) -> None:
        """Raise unless ``part`` divides ``whole``, where both are known."""
        if whole in self.values and part in self.values:
            divides(**{whole: self.values[whole], part: self.values[part]})

    def at_most(self, most: str, size: str) -> None:
        """Raise unless ``size`` is at most ``most``, where both are known."""
        if most in self.values and size in self.values:
            at_most(**{most: self.values[most], size: self.values[size]})


@dataclass(frozen=True)
class Formula:
    """One entry. ``sizes`` are its symbols, ``optional`` those with a usual value, ``options`` its other choices."""

    name: str
    write: Callable[..., Any]
    sizes: tuple[str, ...]
    optional: tuple[str, ...]
    options: Mapping[str, Any]
    missing: frozenset[Quantity]

    @property
    def summary(self) -> str:
        """The first line of the formula's docstring."""
        return (inspect.getdoc(self.write) or "").partition("\n")[0]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Everything it can be asked with."""
        return (*self.sizes, *self.optional, *self.options)


_known: dict[str, Formula] = {}


def formula(name: str, *, vector: bool = False, traffic: bool = False) -> Callable[[Write], Write]:
    """Enter ``write(tape, sizes, B, T, d, ...)``, whose blocks state the mechanism.

    A parameter without default is a symbol; one with the default None is a symbol with a usual value, and None
    when it was not given; any other is an option with its default. ``vector``, ``traffic``: the blocks' vector FLOPs
    and bytes are the mechanism's, in its forward.
    """

    def enter(write: Write) -> Write:
        if name in _known:
            raise AttnprofError(f"there are two formulas {name!r}.")
        parameters = list(inspect.signature(write).parameters.values())[2:]
        given = {p.name: p.default for p in parameters}
        missing = frozenset().union(*(q for k, q in _PARTIAL.items() if not {"vector": vector, "traffic": traffic}[k]))
        _known[name] = Formula(
            name,
            write,
            tuple(n for n, default in given.items() if default is inspect.Parameter.empty),
            tuple(n for n, default in given.items() if default is None),
            {n: default for n, default in given.items() if default not in (None, inspect.Parameter.empty)},
            missing,
        )
        return write

    return enter


def names() -> list[str]:
    """Every formula's name, in alphabetical order."""
    _load()
    return sorted(_known)


def find(name: str) -> Formula:
    """The formula of this name; raises :class:`AttnprofError` with the closest names when there is none."""
    _load()
    try:
        return _known[name]
    except KeyError:
        raise AttnprofError(f"no formula {name!r}.{closest(name, _known)} `attnprof predict` lists all.") from None


def predict(
    name: str, *, frozen: Collection[str] = (), input_grad: bool | Collection[str] = True, **symbols: Any
) -> Prediction:
    """What theory says a mechanism costs, forward and backward: ``predict("gqa", B=1, T=4096, d=4096, H=32, Hkv=8)``.

    The names and symbols are those of :mod:`attnprof.zoo`, and B, T, S of the inputs; ``e`` is the bytes per element,
    4 unless given. What is not given stays a symbol. ``frozen``: weights without gradient, by name (``q_proj``) or
    pattern; ``input_grad``: whether the inputs need a gradient, or the names of those that do.
    """
    entry = find(name)
    values, options = _sorted(entry, symbols)
    tape = Tape((frozen,) if isinstance(frozen, str) else frozen, input_grad)
    _write(entry, tape, values, options)
    if tape.unused:
        pattern = sorted(tape.unused)[0]
        known = ", ".join(dict.fromkeys(tape.weights))
        raise AttnprofError(f"{name} has no weight {pattern!r}; it has {known}.{closest(pattern, tape.weights)}")
    if not isinstance(input_grad, bool):
        for wanted in input_grad:
            if wanted not in tape.inputs:
                raise AttnprofError(f"{name} has no input {wanted!r}; it has {', '.join(tape.inputs)}.")
    missing = entry.missing | tape.missing
    return Prediction(name, tuple(t for t in tape.terms if t.quantity not in missing), values, missing)


def _write(entry: Formula, tape: Tape, values: Mapping[str, int], options: Mapping[str, Any]) -> None:
    arguments: dict[str, Expr | None] = {n: symbol(n) for n in entry.sizes}
    arguments.update({n: symbol(n) if n in values else None for n in entry.optional})
    entry.write(tape, Sizes(values), **arguments, **{**entry.options, **options})


def _sorted(entry: Formula, given: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
    """Sizes and options, checked."""
    values, options = {str(e): 4}, {}
    for name, value in given.items():
        if name in entry.options:
            default = entry.options[name]
            if isinstance(default, bool) and not isinstance(value, bool):
                raise AttnprofError(f"{name} must be True or False, not {value!r}.")
            options[name] = value
        elif name in entry.sizes or name in entry.optional or name == str(e):
            if value is None and name in entry.optional:
                continue
            positive(**{name: value})
            values[name] = value
        else:
            close = closest(name, entry.symbols)
            raise AttnprofError(f"{entry.name} has no symbol {name!r}; it has {', '.join(entry.symbols)}.{close}")
    return values, options


@cache
def _load() -> None:
    """Import every file of this package: each enters its formulas."""
    package = import_module("attnprof.analytic")
    for found in iter_modules(package.__path__):
        import_module(f"attnprof.analytic.{found.name}")


__all__ = ["Formula", "Sizes", "find", "formula", "names", "one_of", "predict"]
