"""The arguments of one call of a module, by name, in the form the caller gave them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from attnprof.capture.modules import unwrap


class Arguments:
    """Positional arguments stay positional: how a module is called can decide what it does."""

    def __init__(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        parameters = inspect.signature(unwrap(module).forward).parameters.values()
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self.positional = list(args)
        self.keywords = dict(kwargs)
        names = [p.name for p in parameters if p.kind in kinds]
        self._names = [names[i] if i < len(names) else f"*{i}" for i in range(len(args))]
        self._taken = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}

    def takes(self, name: str) -> bool:
        """Whether the module has a parameter of this name."""
        return name in self._taken

    def get(self, name: str) -> Any:
        """The value given, or None."""
        return self.positional[self._names.index(name)] if name in self._names else self.keywords.get(name)

    def set(self, name: str, value: Any) -> None:
        """Give a value, in the place of the one given so far."""
        if name in self._names:
            self.positional[self._names.index(name)] = value
        else:
            self.keywords[name] = value

    def drop(self, name: str) -> None:
        """Give nothing under this name, or None where a place must be filled."""
        if name in self._names:
            self.set(name, None)
        else:
            self.keywords.pop(name, None)

    def items(self) -> list[tuple[str, Any]]:
        """Names and values, positional ones first; a value that ``*args`` takes is named by its place, as ``*2``."""
        return [*zip(self._names, self.positional, strict=True), *self.keywords.items()]
