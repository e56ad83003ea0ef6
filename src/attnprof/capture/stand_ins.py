"""Tensors of a model that others stand in for, for a time; and its modules' attributes, as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def replaced(model: nn.Module, make: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Every parameter and buffer of a model as what ``make`` makes of it; one it returns itself stays.

    The model's own tensors are put back on the way out, whatever happened. So is what its modules cached as
    attributes meanwhile: it was made of the stand-ins, and a later call would meet it.
    """
    saved: list[tuple[dict[str, Any], str, Tensor]] = []
    with attributes_kept(model.modules()):
        try:
            for module in model.modules():
                tables: Any = (module._parameters, module._buffers)
                for table in tables:
                    for name, tensor in table.items():
                        stand_in = tensor if tensor is None else make(tensor)
                        if stand_in is not tensor:
                            saved.append((table, name, tensor))
                            table[name] = stand_in
            yield
        finally:
            for home, name, tensor in saved:
                home[name] = tensor


@contextmanager
def attributes_kept(objects: Iterable[object]) -> Iterator[None]:
    """The attributes of these objects are the same ones afterwards; what they refer to is not looked at."""
    saved = [(vars(found), dict(vars(found))) for found in objects]
    try:
        yield
    finally:
        for attributes, before in saved:
            if attributes.keys() == before.keys() and all(attributes[name] is before[name] for name in before):
                continue
            attributes.clear()
            attributes.update(before)
