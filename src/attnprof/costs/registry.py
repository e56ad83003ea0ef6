"""The registry of formulas: who prices an op, who declares it free, who states its traffic.

Names are torch's, ``aten.add.Tensor`` for one overload or ``aten.add`` for all of them; ``mylib::op`` is
the same as ``mylib.op``. A lookup tries the overload, then the packet, then the packet without the
trailing underscore: an in-place op does the arithmetic of its functional twin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from attnprof.core.errors import AttnprofError
from attnprof.core.signature import OpSignature
from attnprof.core.work import Work

Formula = Callable[[OpSignature], Work]
#: (bytes read, bytes written) of one call.
Traffic = Callable[[OpSignature], tuple[int, int]]

_formulas: dict[str, Formula] = {}
_traffic: dict[str, Traffic] = {}
_free: dict[str, str] = {}
_user: set[str] = set()

V = TypeVar("V")
F = TypeVar("F", bound=Formula)
T = TypeVar("T", bound=Traffic)


def canonical(name: str) -> str:
    """``mylib::op`` and ``mylib.op`` are one name."""
    name = name.replace("::", ".")
    if name.count(".") not in (1, 2) or not all(name.split(".")):
        raise AttnprofError(
            f"{name!r} is not an op name: write 'namespace::name' or 'namespace::name.overload', "
            f"such as 'mylib::fused_rope'."
        )
    return name


def cost(*names: str) -> Callable[[F], F]:
    """Register a formula for one op or a family.

    The formula takes an :class:`OpSignature` (shapes in elements) and returns a :class:`Work` (FLOPs).
    Traffic follows the default rule unless :func:`traffic` says otherwise. Raises
    :class:`AttnprofError` when a name already has a formula.
    """

    canonical_names = [canonical(name) for name in names]

    def register(formula: F) -> F:
        for name in canonical_names:
            _claim(name)
            _formulas[name] = formula
        return formula

    return register


def traffic(*names: str) -> Callable[[T], T]:
    """Register the bytes (read, written) of ops whose traffic the default rule would get wrong."""

    def register(rule: T) -> T:
        for name in map(canonical, names):
            if name in _traffic:
                raise AttnprofError(f"{name} already has a traffic rule, {_traffic[name].__name__}.")
            _traffic[name] = rule
        return rule

    return register


def free(names: Iterable[str], reason: str) -> None:
    """Declare ops that do no arithmetic and move no data, with the reason."""
    for name in map(canonical, names):
        _claim(name)
        _free[name] = reason


def movement(names: Iterable[str]) -> None:
    """Price ops that only move data: 0 FLOPs, the bytes of their traffic rule."""
    cost(*names)(_moves)


def _moves(op: OpSignature) -> Work:
    return Work()


def _claim(name: str) -> None:
    if name in _formulas or name in _free:
        raise AttnprofError(
            f"{name} is already priced. To change its price, call attnprof.costs.registry.forget({name!r}) first."
        )


def forget(name: str) -> None:
    """Remove whatever is registered under exactly this name."""
    name = canonical(name)
    _formulas.pop(name, None)
    _traffic.pop(name, None)
    _free.pop(name, None)
    _user.discard(name)


def _find(table: dict[str, V], op: str) -> V | None:
    if op in table:
        return table[op]
    packet = op.rpartition(".")[0]
    if packet in table:
        return table[packet]
    if packet.endswith("_") and not packet.endswith("__"):
        return table.get(packet[:-1])
    return None


def formula_of(op: str) -> Formula | None:
    """The formula that prices ``op``, or None."""
    return _find(_formulas, op)


def traffic_of(op: str) -> Traffic | None:
    """The traffic rule that ``op`` states for itself, or None for the default rule."""
    return _find(_traffic, op)


def free_reason(op: str) -> str | None:
    """Why ``op`` is free, or None when it is not declared so."""
    return _find(_free, op)


def user_cost(*names: str) -> Callable[[F], F]:
    """:func:`cost` for formulas from outside: their prices are saved with the trace."""

    price_it = cost(*names)

    def register(formula: F) -> F:
        price_it(formula)
        _user.update(map(canonical, names))
        return formula

    return register


def is_user(op: str) -> bool:
    """Whether the price of ``op`` came from outside attnprof."""
    return op in _user or op.rpartition(".")[0] in _user
