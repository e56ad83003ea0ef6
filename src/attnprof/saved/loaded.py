"""A model from a file, and what one call of it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that was opened, with the arguments of one call where the file tells them.

    ``attnprof.run(loaded)`` counts that call. ``notes`` are sentences for the reader of a report: what the
    numbers describe, and what the file could not tell. With ``fake``, the model was built on fake tensors and has
    no values: it can only be run on fake ones.
    """

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fake: bool = False
