"""What an optimizer keeps, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.optim import Optimizer


def states_of(optimizer: Optimizer) -> Iterator[tuple[str, Any]]:
    """Each value in ``optimizer.state``: torch's have a dict for every parameter, a user's may have what they like.

    A value that is a parameter's whole state is called ``state``; one of no parameter goes by its own key.
    """
    for key, state in list(optimizer.state.items()):
        if isinstance(state, Mapping):
            yield from ((str(name), value) for name, value in state.items())
        else:
            yield key if isinstance(key, str) else "state", state


def has_state(optimizer: Optimizer) -> bool:
    """Whether there is any: most make it in their first step. Asked at each step, so the first value is enough."""
    for state in optimizer.state.values():
        if not isinstance(state, Mapping):
            if state is not None:
                return True
        elif any(value is not None for value in state.values()):
            return True
    return False
