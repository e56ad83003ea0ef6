"""Formulas by name. A mechanism's closed form has the name of its module in :mod:`attnprof.zoo`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar

from sympy import And, Expr
from sympy.logic.boolalg import Boolean

from attnprof.analytic.blocks import Tape, Tensor
from attnprof.analytic.prediction import KINDS, Fit, Kind, Phase, Prediction
from attnprof.analytic.symbols import e, symbol
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.short_names import full_name
from attnprof.core.sizes import at_most, divides, positive

#: The phases that a formula may state in full.
FORWARD: tuple[Phase, ...] = ("forward",)
EVERY: tuple[Phase, ...] = ("forward", "backward", "recompute")
#: Every kind of work in every phase of a module.
_WORK: frozenset[tuple[Kind, Phase]] = frozenset((kind, phase) for kind in KINDS for phase in EVERY)
Write = TypeVar("Write", bound=Callable[..., Any])


class Sizes:
    """The sizes a formula was asked for: known values, to be checked as the modules of the zoo check theirs."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self.values = values
        self.asked: dict[Fit, None] = {}

    def divides(self, whole: str, part: str) -> None:
        """Raise unless ``part`` divides ``whole``: now where both are known, or once they are."""
        self._ask(Fit(divides, whole, part))

    def at_most(self, most: str, size: str) -> None:
        """Raise unless ``size`` is at most ``most``: now where both are known, or once they are."""
        self._ask(Fit(at_most, most, size))

    def _ask(self, fit: Fit) -> None:
        fit.check(self.values)
        self.asked[fit] = None


@dataclass(frozen=True)
class Formula:
    """One entry: its symbols, those of them with a usual value, those that can be None, and its other choices.

    ``takes_x``: it is a mixer or a network of x [B, T, d] -> [B, T, d], and can be part of something larger.
    ``passes_on``: it takes the symbols of its parts, too.
    """

    name: str
    write: Callable[..., Any]
    sizes: tuple[str, ...]
    optional: tuple[str, ...]
    nullable: tuple[str, ...]
    options: Mapping[str, Any]
    missing: frozenset[tuple[Kind, Phase]]
    takes_x: bool
    passes_on: bool

    @property
    def summary(self) -> str:
        """The first line of the formula's docstring."""
        return (inspect.getdoc(self.write) or "").partition("\n")[0]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Everything it can be asked with."""
        return (*self.sizes, *self.optional, *self.options)

    def check(self, option: str, value: Any) -> None:
        """Raise unless a choice is of its kind."""
        if isinstance(self.options[option], bool) and not isinstance(value, bool):
            raise AttnprofError(f"{option} must be True or False, not {value!r}.")

    def put(self, tape: Tape, sizes: Sizes, x: Tensor | None, options: Mapping[str, Any], **instead: Expr) -> Any:
        """Write it on a tape, a part of something on that one's x; sizes are symbols, or what is ``instead``."""
        absent = {n for n in self.nullable if options.get(n, "") is None}
        known: dict[str, Expr | None] = {n: None if n in absent else symbol(n) for n in self.sizes}
        known.update({n: symbol(n) if n in sizes.values else None for n in self.optional})
        known.update({n: v for n, v in instead.items() if n in known})
        chosen = {n: v for n, v in options.items() if n in self.options}
        rest = {n: v for n, v in options.items() if n not in self.options} if self.passes_on else {}
        chosen = {**self.options, **chosen}
        if not self.takes_x:
            return self.write(tape, sizes, **known, **chosen, **rest)
        if x is None:
            x = tape.input("x", symbol("B") * symbol("T") * symbol("d"))
        return self.write(tape, sizes, x, **known, **chosen, **rest)


_known: dict[str, Formula] = {}


def formula(
    name: str, *, vector: Collection[Phase] = EVERY, traffic: Collection[Phase] = EVERY
) -> Callable[[Write], Write]:
    """Enter ``write(tape, sizes, x, B, T, d, ...)``, whose blocks state the mechanism; without x it makes its inputs.

    A parameter of type Expr is a symbol; with the default None it has a usual value and is None when it was not
    given. One of type ``Expr | None`` without default is a symbol unless None was asked for. Any other is an option.
    ``vector``, ``traffic``: the phases in which the blocks' vector FLOPs and bytes are all there is.
    """

    def enter(write: Write) -> Write:
        if name in _known:
            raise AttnprofError(f"there are two formulas {name!r}.")
        parameters = list(inspect.signature(write).parameters.values())[2:]
        takes_x = parameters[0].name == "x"
        named = [p for p in parameters[takes_x:] if p.kind is not p.VAR_KEYWORD]
        required = [p for p in named if p.default is p.empty]
        stated: dict[Kind, Collection[Phase]] = {"matmul": EVERY, "vector": vector, "traffic": traffic}
        missing = frozenset((kind, phase) for kind, phase in _WORK if phase not in stated[kind])
        _known[name] = Formula(
            name,
            write,
            sizes=tuple(p.name for p in required),
            optional=tuple(p.name for p in named if p.default is None and "Expr" in str(p.annotation)),
            nullable=tuple(p.name for p in required if "None" in str(p.annotation)),
            options={p.name: p.default for p in named if p.default is not p.empty and "Expr" not in str(p.annotation)},
            missing=missing,
            takes_x=takes_x,
            passes_on=len(named) < len(parameters[takes_x:]),
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
        return _known[full_name(name)]
    except KeyError:
        raise AttnprofError(f"no formula {name!r}.{closest(name, _known)} `attnprof predict` lists all.") from None


def predict(
    name: str,
    *,
    frozen: Collection[str] = (),
    input_grad: bool | Collection[str] = True,
    stopped: bool = False,
    **symbols: Any,
) -> Prediction:
    """What theory says a mechanism costs, forward and backward: ``predict("gqa", B=1, T=4096, d=4096, H=32, Hkv=8)``.

    The names and symbols are those of :mod:`attnprof.zoo`, and B, T, S of the inputs; ``e`` is the bytes per element,
    4 unless given. What is not given stays a symbol. ``frozen``: weights without gradient, by name (``q_proj``) or
    pattern; ``input_grad``: whether the inputs need a gradient, or the names of those that do. ``stopped``: of a
    forward that a checkpoint repeats until all that was saved is there again, the contractions alone.
    """
    entry = find(name)
    values, options = _sorted(entry, symbols)
    tape = Tape((frozen,) if isinstance(frozen, str) else frozen, input_grad)
    sizes = Sizes(values)
    entry.put(tape, sizes, None, options)
    if tape.unused:
        pattern = sorted(tape.unused)[0]
        known = ", ".join(dict.fromkeys(tape.weights))
        raise AttnprofError(f"{entry.name} has no weight {pattern!r}; it has {known}.{closest(pattern, tape.weights)}")
    if not isinstance(input_grad, bool):
        for wanted in input_grad:
            if wanted not in tape.inputs:
                raise AttnprofError(f"{entry.name} has no input {wanted!r}; it has {', '.join(tape.inputs)}.")
    if stopped:
        contractions = tuple(t for t in tape.until_last_kept() if t.quantity == "matmul_flops")
        return Prediction(entry.name, contractions, values, fits=tuple(sizes.asked))
    missing = entry.missing | tape.missing
    unstated = {(quantity, phase) for kind, phase in missing for quantity in KINDS[kind]}
    terms = tuple(t for t in tape.terms if (t.quantity, t.phase) not in unstated)
    holds: dict[Kind, Boolean] = {"traffic": And(*tape.conditions)} if tape.conditions else {}
    return Prediction(entry.name, terms, values, _WORK - missing, holds, tuple(sizes.asked))


def _sorted(entry: Formula, given: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
    """Sizes and options, checked. What is passed on to parts is checked by whoever passes it on."""
    values: dict[str, int] = {str(e): 4}
    options: dict[str, Any] = {}
    for name, value in given.items():
        size = name in (*entry.sizes, *entry.optional, str(e))
        if name in entry.options:
            entry.check(name, value)
            options[name] = value
        elif value is None and size and name not in entry.sizes:
            continue
        elif value is None and name in entry.nullable:
            options[name] = None
        elif size:
            positive(**{name: value})
            values[name] = value
        elif not entry.passes_on:
            close = closest(name, entry.symbols)
            raise AttnprofError(f"{entry.name} has no symbol {name!r}; it has {', '.join(entry.symbols)}.{close}")
        elif isinstance(value, int) and not isinstance(value, bool):
            positive(**{name: value})
            values[name] = value
        else:
            options[name] = value
    return values, options


@cache
def _load() -> None:
    """Import every file of this package: each enters its formulas."""
    package = import_module("attnprof.analytic")
    for found in iter_modules(package.__path__):
        import_module(f"attnprof.analytic.{found.name}")


__all__ = ["Formula", "Sizes", "find", "formula", "names", "predict"]
