"""Many identical layers: counts of a model with few of them say what it costs with all, and are held against that.

What a model costs is affine in how many equal layers it has, so runs of 3 and of 4 tell the cost of 126. That is
assumed of nothing: a run of all layers at one size, and one of 5 at every size, have to come to the same integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

#: quantity, phase, path of the module.
_Key = tuple[str, str, str]
#: Layers from which on fewer are run, how many those are, and how many more they are checked with.
MANY, FEW, CHECK = 24, (3, 4), 5


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers of one kind in a container of the model."""

    path: str
    container: nn.Module
    layers: int

    @contextmanager
    def shortened(self, layers: int) -> Iterator[None]:
        """The model with the first so many layers alone."""
        every = self.container._modules
        self.container._modules = dict(list(every.items())[:layers])
        try:
            yield
        finally:
            self.container._modules = every


def stack_of(model: nn.Module) -> Stack | None:
    """The one container of many layers that are alike; None where there is none, or several."""
    from torch import nn

    found = [
        Stack(path, module, len(module))
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) >= MANY and _alike(module)
    ]
    return found[0] if len(found) == 1 else None


def _alike(layers: nn.ModuleList | nn.Sequential) -> bool:
    """Whether all have modules of the same classes and parameters of the same shapes, kinds and needs."""
    kinds = {
        (
            tuple((name, type(module)) for name, module in layer.named_modules()),
            tuple((name, p.shape, p.dtype, p.requires_grad) for name, p in layer.named_parameters()),
        )
        for layer in layers
    }
    return len(kinds) == 1


def extrapolated(few: Mapping[_Key, int], more: Mapping[_Key, int], path: str, layers: int) -> dict[_Key, int]:
    """Counts with so many layers, from those with 3 and with 4.

    The first layer and the last are what they are, all others like the second; everything else grows evenly. What is
    live at a place does, too, and the peak is the most of that.
    """
    found: dict[_Key, int] = {}
    prefix = f"{path}." if path else ""
    for key in few.keys() | more.keys():
        quantity, phase, name = key
        number, _, rest = name.removeprefix(prefix).partition(".")
        if quantity == "peak":
            continue
        if quantity != "live" and name.startswith(prefix) and number.isdigit():
            below = f".{rest}" if rest else ""
            if key not in few:
                continue
            places = {0: [0], 1: range(1, layers - 1), 2: [layers - 1]}[int(number)]
            for place in places:
                found[quantity, phase, f"{prefix}{place}{below}"] = few[key]
            continue
        if quantity == "live" and not (key in few and key in more):
            continue  # the nth call of something that is called once for each layer
        first, second = few.get(key, 0), more.get(key, 0)
        found[key] = second + (layers - FEW[1]) * (second - first)
    live = [size for (quantity, _, _), size in found.items() if quantity == "live"]
    if live:
        found["peak", "all", ""] = max(live)
    return found


def agree(found: Mapping[_Key, int], counted: Mapping[_Key, int]) -> bool:
    """Whether counts are the same integers; of places where something is live, those that both know."""
    ours, theirs = ({key for key in counts if key[0] != "live"} for counts in (found, counted))
    live = {key for key in found.keys() & counted.keys() if key[0] == "live"}
    return ours == theirs and all(found[key] == counted[key] for key in ours | live)
