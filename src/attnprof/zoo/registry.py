"""Names for the mechanisms of the zoo: what each is built from and what it is called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from attnprof.core.errors import AttnprofError, closest
from attnprof.core.short_names import full_name
from attnprof.core.sizes import at_most as at_most
from attnprof.core.sizes import divides as divides
from attnprof.core.sizes import one_of as one_of
from attnprof.core.sizes import positive as positive

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Mechanism:
    """One entry: ``symbols`` are what it is built from, ``shape`` what its input is made of; with defaults.

    ``passes_on``: it takes other symbols too (``**symbols``), for its parts, and refuses what no part knows.
    """

    name: str
    kind: type[nn.Module]
    symbols: Mapping[str, Any]
    shape: Mapping[str, int]
    inputs: Callable[..., tuple[Any, ...]]
    passes_on: bool = False

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self.kind) or "").partition("\n")[0]


_known: dict[str, Mechanism] = {}


def sequence(B: int, T: int, d: int, **_: Any) -> tuple[Tensor, ...]:
    """One input of B sequences of T vectors of width d."""
    return (torch.randn(B, T, d),)


def mechanism(
    name: str, *, shape: Mapping[str, int] | None = None, inputs: Callable[..., tuple[Any, ...]] = sequence
) -> Callable[[type[Module]], type[Module]]:
    """Enter a module class. Its constructor's parameters are the symbols, with the defaults they have there.

    ``inputs`` makes the arguments of a call from the symbols and ``shape`` (default: B=1, T=128).
    """

    def enter(kind: type[Module]) -> type[Module]:
        if name in _known:
            raise AttnprofError(f"the zoo has {name!r} twice.")
        parameters = inspect.signature(kind).parameters.values()
        symbols = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}
        passes_on = len(symbols) < len(parameters)
        _known[name] = Mechanism(name, kind, symbols, shape or {"B": 1, "T": 128}, inputs, passes_on)
        return kind

    return enter


def names() -> list[str]:
    """Every mechanism's name, in alphabetical order."""
    _load()
    return sorted(_known)


def find(name: str) -> Mechanism:
    """The mechanism of this name; raises :class:`AttnprofError` with the closest names when there is none."""
    _load()
    try:
        return _known[full_name(name)]
    except KeyError:
        raise AttnprofError(f"no mechanism {name!r} in the zoo.{closest(name, _known)}") from None


def build(name: str, **symbols: Any) -> nn.Module:
    """The module of this name, built from ``symbols`` (``d``, ``H``, ...); what is not given has its default.

    Raises :class:`AttnprofError` for a name or symbol that does not exist, or sizes that do not go together.
    """
    entry = find(name)
    for symbol in symbols:
        if symbol not in entry.symbols and not entry.passes_on:
            raise AttnprofError(f"{name} has no symbol {symbol!r}; it is built from {', '.join(entry.symbols)}.")
        if isinstance(entry.symbols.get(symbol), bool) and not isinstance(symbols[symbol], bool):
            raise AttnprofError(f"{symbol} must be True or False, not {symbols[symbol]!r}.")
    return entry.kind(**symbols)


def inputs(name: str, **symbols: int) -> tuple[Any, ...]:
    """Random arguments for a call of the module of this name, from its symbols and the shape (``B``, ``T``, ...)."""
    entry = find(name)
    defaults = {s: v for s, v in entry.symbols.items() if v is not inspect.Parameter.empty}
    unknown = [s for s in symbols if s not in entry.symbols and s not in entry.shape]
    if unknown and not entry.passes_on:
        raise AttnprofError(
            f"{name} has no symbol {unknown[0]!r}; its inputs are made from "
            f"{', '.join({**entry.shape, **entry.symbols})}."
        )
    return entry.inputs(**{**defaults, **entry.shape, **symbols})


def _load() -> None:
    """Import every file of the zoo: each enters its mechanisms."""
    package = import_module("attnprof.zoo")
    for found in iter_modules(package.__path__):
        import_module(f"attnprof.zoo.{found.name}")
