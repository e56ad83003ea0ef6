"""Forwards that say what they take, as those of the models did that were saved."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn


def taking_as(kind: type[nn.Module], signature: inspect.Signature | None) -> type[nn.Module]:
    """Give a class of modules, which is nobody else's, a forward with this signature; what it does stays."""
    if signature is None:
        return kind
    original = kind.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    try:
        parameters = [own, *signature.parameters.values()]
        forward.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    except ValueError:  # one of them is named self
        return kind
    kind.forward = forward
    return kind
