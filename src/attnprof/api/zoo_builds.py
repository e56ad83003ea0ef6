"""Mechanisms of the zoo as something to build at sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnprof.api.competitors import parse_names
from attnprof.core.errors import AttnprofError, closest


def of_zoo(text: str, given: Sequence[str]) -> Any:
    """A callable of sizes that makes the module and its arguments, which need a gradient where they can.

    ``text`` is a name of the zoo, with symbols if you like: ``performer:r=64``. ``given`` are the symbols that it will
    be called with; raises :class:`AttnprofError` for one that the mechanism does not have.
    """
    from attnprof import zoo

    (competitor,) = parse_names([text], {}, {})
    entry = zoo.find(competitor.name)
    known = {**entry.shape, **entry.symbols}
    for symbol in given:
        if symbol not in known and not entry.passes_on:
            takes = f"it is built from {', '.join(known)}"
            raise AttnprofError(f"{competitor.name} has no symbol {symbol!r}; {takes}.{closest(symbol, known)}")

    def build(**symbols: Any) -> tuple[Any, tuple[Any, ...]]:
        import torch

        every = {**competitor.symbols, **symbols}
        if "N" in entry.symbols:  # a longest length: as long as it has to be
            every.setdefault("N", every.get("T", entry.shape["T"]))
        own = {s: v for s, v in every.items() if s in entry.symbols or (entry.passes_on and s not in entry.shape)}
        args = zoo.inputs(competitor.name, **{s: v for s, v in every.items() if v is not None})
        return zoo.build(competitor.name, **own), torch.utils._pytree.tree_map_only(_floats, _with_gradient, args)

    return build


def _floats(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _with_gradient(tensor: Any) -> Any:
    return tensor.requires_grad_()
